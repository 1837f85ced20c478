"""Owns what `/v1` answers about versions and aliases: those of one function, and of all functions that have any."""

from dataclasses import dataclass

from poller.domain.functions.alias_control import AliasView, VersionView


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionAliases:
    """The versions of one function by number, $LATEST first, and its aliases by name."""

    function: str
    versions: tuple[VersionView, ...]
    aliases: tuple[AliasView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasPage:
    """All functions that have a version beside $LATEST or an alias, by name."""

    functions: tuple[FunctionAliases, ...]
