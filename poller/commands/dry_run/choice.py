"""Owns which mappings a dry run runs, and the plan by which it runs them."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from poller.domain.arns import Arn
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import DaemonPlan, MappingPlan, SourceKind
from poller.domain.records import WorkerId
from poller.rules.target_names import NamedMapping, names_it

NAMED_MAX = 20
"""Mappings that an error about a wrong name lists."""
GRACE_S = 3.0
"""The grace time of a dry run. No call takes time, so only a receive of a queue may still run."""
STORE = "memory"
RECEIVE_FIRST = (
    "is a queue and was left out: to receive a message raises its receive count and hides it from other consumers"
    " until the dry run ends; add --receive to do so"
)


@dataclass(frozen=True, slots=True)
class DryPlan:
    """The plan of a dry run. `chosen` are its mappings as the file has them, `notes` say what was left out."""

    plan: DaemonPlan
    chosen: tuple[MappingPlan, ...]
    notes: tuple[str, ...] = ()


def title(mapping: MappingPlan) -> str:
    """A mapping's function and source, for people."""
    return f"{Arn.parse(mapping.function_arn).function} from {Arn.parse(mapping.source_arn).resource}"


def names_of(mapping: MappingPlan) -> frozenset[str]:
    """Everything that names a mapping: its UUID, and the ARN and the name of its source and of its function."""
    resource = Arn.parse(mapping.source_arn).resource
    kind, _, rest = resource.partition("/")
    name = rest.partition("/")[0]
    short = (name, f"{kind}/{name}") if name else ()
    function = Arn.parse(mapping.function_arn).function
    arns = (mapping.source_arn, mapping.function_arn)
    return frozenset({mapping.mapping, *arns, resource, *short, mapping.function, function})


def choose(plan: DaemonPlan, names: Sequence[str], *, receive: bool) -> DryPlan:
    """The plan of a dry run of the mappings with these names; without names, of all that are enabled.

    A queue is left out without `receive`. Raises InvalidConfiguration for a name that no mapping has, and if queues are all that
    there is.
    """
    if problems := list(_unknown(plan.mappings, names)):
        raise InvalidConfiguration(problems)
    picked = [each for each in plan.mappings if _picked(each, names)]
    chosen = tuple(each for each in picked if receive or each.kind is not SourceKind.SQS)
    queues = [each for each in picked if each not in chosen]
    left_out = [f"{title(each)}: {RECEIVE_FIRST}" for each in queues]
    if queues and (names or not chosen):
        raise InvalidConfiguration(left_out)
    if not names:
        disabled = (each for each in plan.mappings if not each.enabled)
        left_out += [
            f"{title(each)}: is disabled and was left out; --mapping {each.mapping} includes it"
            for each in disabled
        ]
    return DryPlan(_without_effects(plan, chosen), chosen, tuple(left_out))


def _picked(mapping: MappingPlan, names: Sequence[str]) -> bool:
    return any(_meant(mapping, name) for name in names) if names else mapping.enabled


def _meant(mapping: MappingPlan, name: str) -> bool:
    """Whether a name is one of the mapping, also one that other commands take, such as `queue/mails` or the beginning of its UUID."""
    named = NamedMapping(
        mapping=mapping.mapping, function=mapping.function_arn, source_arn=mapping.source_arn
    )
    return name in names_of(mapping) or names_it(name, named)


def _unknown(mappings: Sequence[MappingPlan], names: Sequence[str]) -> Iterator[str]:
    known = [f"{each.mapping} ({title(each)})" for each in mappings[:NAMED_MAX]]
    more = len(mappings) - len(known)
    listed = ", ".join([*known, f"and {more} more"] if more > 0 else known) or "none"
    for name in names:
        if not any(_meant(each, name) for each in mappings):
            yield f"--mapping: value {name!r}: no mapping of the file has this UUID, source or function; it has: {listed}"


def _without_effects(plan: DaemonPlan, chosen: Sequence[MappingPlan]) -> DaemonPlan:
    """The plan with a worker and a store of its own, without destinations, and without rates and breakers of functions.

    The other mappings of the file stay in the plan, because a mapping that is new to the store may continue one that is gone from
    the file.
    """
    mappings = tuple(
        replace(each, enabled=each in chosen, discard=replace(each.discard, destination=None))
        for each in plan.mappings
    )
    return replace(
        plan,
        worker=WorkerId(f"dry-run-{uuid.uuid4()}"),
        store=STORE,
        store_settings={"url": f"{STORE}://"},
        mappings=mappings,
        functions={name: replace(each, rate=None, breaker=None) for name, each in plan.functions.items()},
        tuning=replace(plan.tuning, grace_s=GRACE_S),
    )
