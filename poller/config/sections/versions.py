"""Owns how the versions and aliases of a function are written, and what an alias may lead to (aws-behaviour#aliases)."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from poller.config.field_types import PlugInName, Seconds, number
from poller.config.sections.section import Section
from poller.config_errors.error_messages import FieldError, refused
from poller.domain.functions.versions import VERSIONS_MAX, AliasPlan
from poller.domain.plan import LATEST

DESCRIPTION_CHARS_MAX = 256
ALIAS_PATTERN = r"^[a-zA-Z0-9_-]{0,127}[a-zA-Z_-][a-zA-Z0-9_-]{0,127}$"
ALIAS_CHARS_MAX = 128
_DIGITS = re.compile(r"[1-9][0-9]{0,17}")


def _text(value: object) -> object:
    """YAML reads a number without quotes as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _version_number(text: str) -> str:
    if not _DIGITS.fullmatch(text):
        raise ValueError("is no version number; write 1, 2 and so on")
    return text


def _alias_version(text: str) -> str:
    if text != LATEST and not _DIGITS.fullmatch(text):
        raise ValueError(f"is no version; write a number below versions, or {LATEST}")
    return text


_NUMBER_FORM = {"type": "string", "pattern": f"^{_DIGITS.pattern}$"}
_VERSION_FORM = {
    "anyOf": [
        {"type": "string", "pattern": rf"^({_DIGITS.pattern}|\$LATEST)$"},
        {"type": "integer", "minimum": 1},
    ]
}
type VersionNumber = Annotated[
    str, BeforeValidator(_text), AfterValidator(_version_number), WithJsonSchema(_NUMBER_FORM)
]
type AliasVersion = Annotated[
    str, BeforeValidator(_text), AfterValidator(_alias_version), WithJsonSchema(_VERSION_FORM)
]
type AliasName = Annotated[str, Field(pattern=ALIAS_PATTERN, max_length=ALIAS_CHARS_MAX)]
type Weight = Annotated[float, BeforeValidator(number), Field(gt=0, lt=1, allow_inf_nan=False)]
type Description = Annotated[str, Field(max_length=DESCRIPTION_CHARS_MAX)]


class VersionEntry(BaseModel):
    """One version. Other names than these are settings of its invoker."""

    model_config = ConfigDict(extra="allow", frozen=True)

    invoker: PlugInName | None = None
    timeout_s: Seconds | None = None
    description: Description = Field(default="", description="A text for people; it may change.")


class AliasEntry(Section):
    """Where an alias leads."""

    version: AliasVersion
    weights: dict[VersionNumber, Weight] = Field(default_factory=dict, max_length=1)
    description: Description = ""

    @property
    def plan(self) -> AliasPlan:
        """The same for the runtime."""
        return AliasPlan(version=self.version, weights=dict(self.weights), description=self.description)


class VersionedEntry(BaseModel):
    """What an entry below `functions` says of versions and aliases."""

    versions: dict[VersionNumber, VersionEntry] = Field(default_factory=dict, max_length=VERSIONS_MAX)
    aliases: dict[AliasName, AliasEntry] = Field(default_factory=dict, max_length=VERSIONS_MAX)

    @model_validator(mode="after")
    def _aliases_lead_to_versions(self) -> Self:
        found = list(_misled(self.versions, self.aliases))
        if found:
            raise refused(found)
        return self


def own_settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a version, as it was written, sets for its invoker."""
    return {name: value for name, value in entry.items() if name not in VersionEntry.model_fields}


def _misled(versions: Mapping[str, VersionEntry], aliases: Mapping[str, AliasEntry]) -> Iterator[FieldError]:
    """Errors for aliases that lead to versions which are not configured, or in a way that Lambda does not allow."""
    known = ", ".join(sorted(versions, key=int)) or "none"
    for name, alias in aliases.items():
        place = f"aliases.{name}"
        for field, number_ in (("version", alias.version), *(("weights", each) for each in alias.weights)):
            if number_ != LATEST and number_ not in versions:
                wrong = f"version {number_} is not below versions (there: {known})"
                yield FieldError(f"{place}.{field}", wrong, f"add versions.{number_}, or write another one")
        if alias.weights and alias.version == LATEST:
            wrong = f"an alias of {LATEST} has no weights"
            yield FieldError(f"{place}.weights", wrong, "remove them, or write a number at version")
        if alias.version in alias.weights:
            wrong = "is the alias's own version"
            yield FieldError(
                f"{place}.weights.{alias.version}", wrong, "write the other version, with its share"
            )
