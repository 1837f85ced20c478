"""Owns what is found in a template: functions, and mappings with AWS's member names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from poller.rules.templates.values import Unresolved

ASYNCHRONOUS = "event_invoke_config and dead_letter say it here (docs/use/async.md)"
SHIFTED = "versions, aliases and poller alias shift do it here (docs/use/versions.md)"
TRACED = "tracing: {enabled: true} does it here (docs/operate/tracing.md)"
ELSEWHERE = {
    "EventInvokeConfig": ASYNCHRONOUS,
    "DeadLetterQueue": ASYNCHRONOUS,
    "DeadLetterConfig": ASYNCHRONOUS,
    "AutoPublishAlias": SHIFTED,
    "DeploymentPreference": SHIFTED,
    "Tracing": TRACED,
    "TracingConfig": TRACED,
    "FunctionUrlConfig": "callers use Invoke here (docs/use/invoke.md)",
}
"""Members of a function in a template that are not carried over, with what there is in their place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFunction:
    """A function. Values may be unresolved or absent (None). `code` is a folder relative to the template, None if it is elsewhere.

    `variables` are the names of its environment variables. Their values are not read, since they may be secret. `left_out` are members
    of ELSEWHERE that it has.
    """

    name: str
    runtime: object = None
    handler: object = None
    code: object = None
    timeout: object = None
    memory: object = None
    concurrency: object = None
    variables: tuple[str, ...] = ()
    image: bool = False
    layers: bool = False
    left_out: tuple[str, ...] = ()
    unnamed: bool = False
    """The template has no name for it, so that its logical id is its name here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMapping:
    """A mapping: its place in the template, and its members with AWS's names. Values may be unresolved at any depth.

    `unknown` are members that no mapping of the configuration has. `notes` are sentences for people.
    """

    place: str
    members: Mapping[str, Any]
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundInTemplate:
    """Everything that is found. `left_out` has one line for each thing that is no mapping here, with the reason.

    `unread` has one for each part that may hold functions or mappings, and whose content the template does not tell.
    """

    mappings: Sequence[FoundMapping]
    functions: Mapping[str, FoundFunction]
    left_out: Sequence[str] = ()
    unread: Sequence[str] = ()
    region: object = None
    notes: Sequence[str] = field(default_factory=tuple)


type FunctionValue = str | Unresolved
