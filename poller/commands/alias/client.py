"""Owns how commands ask a daemon's API about aliases."""

from dataclasses import dataclass
from typing import Any

from poller.commands.daemon_client import DaemonClient, decoded, quoted
from poller.domain.functions.alias_control import AliasView
from poller.domain.functions.alias_pages import AliasPage, FunctionAliases

TRIES_MAX = 2
"""A request that got no answer is sent once more. A shift has an id of the command's own, so that it begins once."""
ALIAS = "alias"


@dataclass(frozen=True, slots=True)
class AliasClient:
    """The part of a daemon's API that is about aliases. Each method raises Unanswered."""

    daemon: DaemonClient

    def all(self) -> AliasPage:
        """All functions that have versions or aliases."""
        return decoded(self.daemon.get("/v1/aliases"), AliasPage, "list of aliases")

    def of_function(self, function: str) -> FunctionAliases:
        """The versions and aliases of one function."""
        path = f"/v1/functions/{quoted(function)}/aliases"
        return decoded(self.daemon.get(path), FunctionAliases, "list of aliases")

    def one(self, function: str, alias: str) -> AliasView:
        """One alias."""
        return decoded(self.daemon.ask("GET", _path(function, alias), tries=TRIES_MAX), AliasView, ALIAS)

    def shift(self, function: str, alias: str, request: dict[str, Any]) -> AliasView:
        """Begins a shift."""
        body = self.daemon.ask("POST", f"{_path(function, alias)}/shifts", request, tries=TRIES_MAX)
        return decoded(body, AliasView, ALIAS)

    def roll_back(self, function: str, alias: str, *, reason: str) -> AliasView:
        """Sends all calls to the old version."""
        body = self.daemon.ask("POST", f"{_path(function, alias)}/rollback", {"reason": reason})
        return decoded(body, AliasView, ALIAS)


def _path(function: str, alias: str) -> str:
    return f"/v1/functions/{quoted(function)}/aliases/{quoted(alias)}"
