"""Owns the state of aliases and versions as the store keeps it, and how it changes.

An alias of the configuration file is taken over into the state. A change through the API or a shift stays until the file says
something else: then the file wins, and a running shift ends. A version has a fingerprint of its settings from its first call on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b, sha256

import orjson

from poller.domain.functions.shifts import ENDED, Shift, ShiftState
from poller.domain.functions.versions import VERSIONS_MAX, AliasPlan, VersionPlan
from poller.domain.plan import LATEST, FunctionPlan
from poller.domain.records import Epoch
from poller.rules.functions.aliases.shift_steps import rolled_back, share

FILE_CHANGED = "the configuration file has another definition of the alias"
RAN_MAX = 1000
"""Fingerprints of versions that are kept for a function. They take 80 KB then, of the 400 that a store may have for a row."""
_PARTS = (8, 4, 4, 4, 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasState:
    """One alias. `file` is the definition of the configuration file as it was taken over; None: it was made through the API.

    `shift` is the running shift or the last one. A running shift decides where the calls go, not `version` and `weights`. `driver` is
    the worker that carries it on; empty if none does.
    """

    version: str
    weights: Mapping[str, float] = field(default_factory=dict)
    description: str = ""
    revision_id: str
    modified: Epoch
    file: AliasPlan | None = None
    shift: Shift | None = None
    driver: str = ""

    @property
    def shifting(self) -> Shift | None:
        """The running shift."""
        return None if self.shift is None or self.shift.state in ENDED else self.shift


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionState:
    """What the store has of one function: its aliases by name, and the fingerprints of versions that ran, by number."""

    aliases: Mapping[str, AliasState] = field(default_factory=dict)
    ran: Mapping[str, str] = field(default_factory=dict)

    def with_alias(self, name: str, state: AliasState | None) -> "FunctionState":
        """The same with another state of one alias; None: without it."""
        others = {each: found for each, found in self.aliases.items() if each != name}
        return replace(self, aliases=others if state is None else {**others, name: state})

    def with_run(self, number: str, fingerprint: str, plan: FunctionPlan) -> "FunctionState":
        """The same with the fingerprint of a version that has none yet.

        Without room the smallest number is forgotten that is not configured, so that the row does not grow for ever.
        """
        if number in self.ran:
            return self
        ran = {**self.ran, number: fingerprint}
        old = sorted((each for each in ran if each not in plan.versions and each != number), key=_order)
        gone = set(old[: max(0, len(ran) - RAN_MAX)])
        return replace(self, ran={each: found for each, found in ran.items() if each not in gone})

    def with_room(self, plan: FunctionPlan) -> "FunctionState":
        """The same with room for one alias more: without, those go first that a file had once and this worker's has no more."""
        lost = [
            (each.modified, name)
            for name, each in self.aliases.items()
            if each.file is not None and name not in plan.aliases and each.shifting is None
        ]
        gone = {name for _, name in sorted(lost)[: max(0, len(self.aliases) + 1 - VERSIONS_MAX)]}
        return replace(self, aliases={each: kept for each, kept in self.aliases.items() if each not in gone})


@dataclass(frozen=True, slots=True)
class Route:
    """Where the calls of an alias go at one moment: to `version`, except for the shares in `weights`."""

    version: str
    weights: Mapping[str, float]

    @property
    def versions(self) -> frozenset[str]:
        """All versions that get calls."""
        return frozenset({self.version, *self.weights})


def route(alias: AliasState, now: Epoch) -> Route:
    """Where the calls of an alias go now."""
    shift = alias.shifting
    if shift is None:
        return Route(alias.version, alias.weights)
    part = share(shift, now)
    if part <= 0.0:
        return Route(shift.old, {})
    return Route(shift.new, {}) if part >= 1.0 else Route(shift.old, {shift.new: part})


def ahead(alias: AliasState, now: Epoch) -> frozenset[str]:
    """The versions that get calls now or soon."""
    shift = alias.shifting
    found = route(alias, now).versions
    return found if shift is None else found | {shift.old, shift.new}


def from_file(
    function: str, name: str, plan: AliasPlan, now: Epoch, before: AliasState | None = None
) -> AliasState:
    """An alias as the file defines it. A shift that runs ends, because the file has another definition now.

    If the file has changed the description only, the alias leads to where it led before.
    """
    if before is not None and before.file is not None and _leads_alike(before.file, plan):
        revision = _file_revision(function, name, plan, before.revision_id)
        return replace(before, description=plan.description, revision_id=revision, modified=now, file=plan)
    shift = None if before is None else before.shift
    return AliasState(
        version=plan.version,
        weights=dict(plan.weights),
        description=plan.description,
        revision_id=_file_revision(function, name, plan),
        modified=now,
        file=plan,
        shift=None if shift is None else rolled_back(shift, now, FILE_CHANGED),
    )


def with_shift(alias: AliasState, shift: Shift, now: Epoch, revision_id: str) -> AliasState:
    """The alias after a change of its shift."""
    version = shift.new if shift.state is ShiftState.DONE else shift.old
    return replace(alias, version=version, weights={}, shift=shift, modified=now, revision_id=revision_id)


def fingerprint(version: VersionPlan) -> str:
    """Tells whether a version is the same as before: a hash of what decides how it is called, without its description."""
    given = {"invoker": version.invoker, "settings": dict(version.settings), "timeout_s": version.timeout_s}
    text = orjson.dumps(given, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return sha256(text).hexdigest()


def changed_text(function: str, number: str) -> str:
    """Why a version that changed is not called."""
    place = f"functions.{function}.versions"
    return (
        f"version {number} of {function} has other settings than when it was called first, and a version never changes: "
        f"give the new settings another number in {place}, and put {place}.{number} back as it was (with what it takes over from functions.{function})"
    )


def missing_text(plan: FunctionPlan, number: str, alias: str) -> str:
    """Why calls of an alias cannot go to a version that is not configured."""
    return (
        f"the alias {alias} of {plan.name} leads to version {number}, which is not configured: "
        f"add functions.{plan.name}.versions.{number}, or let the alias lead to another version"
    )


def known_version(plan: FunctionPlan, number: str) -> bool:
    """Whether a function has a version of this number."""
    return number == LATEST or number in plan.versions


def service_arns(plan: FunctionPlan, arn: str) -> tuple[str, ...]:
    """The ARNs by which a service is asked about an ARN: those of an alias's versions, because the service does not know the alias."""
    qualifier = arn.split(":", 7)[7:]
    alias = plan.aliases.get(qualifier[0]) if qualifier else None
    if alias is None:
        return (arn,)
    bare = arn.removesuffix(f":{qualifier[0]}")
    return tuple(f"{bare}:{each}" for each in (alias.version, *alias.weights))


def _leads_alike(one: AliasPlan, other: AliasPlan) -> bool:
    return (one.version, one.weights) == (other.version, other.weights)


def _order(number: str) -> tuple[int, str]:
    """Numbers of versions in their order. A row may have been written by others."""
    return len(number), number


def _file_revision(function: str, name: str, plan: AliasPlan, before: str = "") -> str:
    """The same on all workers, so that it does not matter which one takes the definition over."""
    said = [function, name, plan.version, sorted(plan.weights.items()), plan.description]
    text = orjson.dumps([*said, before] if before else said)
    digits, parts = blake2b(text, digest_size=16).hexdigest(), []
    for length in _PARTS:
        parts.append(digits[:length])
        digits = digits[length:]
    return "-".join(parts)
