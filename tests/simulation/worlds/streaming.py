"""Owns what a world adds to its streams: their consumers, and how each worker opens them."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from poller.domain.records import MappingId
from tests.simulation.finding.listings import Finding, ListedSince, SimListing, TellingChildren
from tests.simulation.pushing.service import FakeConsumers
from tests.simulation.pushing.source import OWN, SimPushedStream
from tests.simulation.pushing.worlds import FAN_OUT
from tests.simulation.services.fake_plugins import (
    SimDatedStream,
    SimSettings,
    SimStream,
    StreamOpening,
    Witness,
    seeded,
)
from tests.simulation.services.faults import Line
from tests.simulation.services.queues import FakeQueue
from tests.simulation.services.streams import FakeStream
from tests.simulation.worlds.scenario import Setup


def consumers_of(
    setups: Sequence[Setup], sources: Mapping[str, FakeStream | FakeQueue], seed: int
) -> dict[str, FakeConsumers]:
    """The consumers of the streams that push."""
    found: dict[str, FakeConsumers] = {}
    for each in setups:
        arn = each.plan.source_arn
        stream = sources[arn]
        if each.pushes is not None and isinstance(stream, FakeStream) and arn not in found:
            found[arn] = FakeConsumers(stream, arn, each.pushes, seeded(seed, "pushes", arn))
    return found


def opening(
    setups: Sequence[Setup],
    consumers: Mapping[str, FakeConsumers],
    line: Line,
    witness: Witness,
    *,
    rng: Callable[[str], Random],
) -> StreamOpening:
    """How a worker opens streams. Its mappings of one stream share the listing."""
    findings = {each.plan.source_arn: each.finding for each in setups if each.finding is not None}
    listings: dict[str, SimListing] = {}

    def opened(settings: SimSettings, stream: FakeStream) -> SimStream:
        arn, finding = settings.arn, findings.get(settings.arn)
        whose = (settings.model_extra or {}).get(FAN_OUT)
        more: dict[str, Any] = {}
        if whose is not None:
            own = MappingId(settings.mapping) if whose == OWN else None
            more = {"consumers": consumers[arn], "own": own}
        kinds = (
            *_listed(finding),
            *((SimPushedStream,) if whose is not None else ()),
            *((SimDatedStream,) if stream.undated_for is not None else ()),
        )
        kind = type("OpenedStream", kinds or (SimStream,), {})
        found: SimStream = kind(stream, line, witness, source_arn=arn, **more)
        if isinstance(found, ListedSince):
            assert finding is not None
            if arn not in listings:
                listings[arn] = SimListing(stream, line, finding, rng(arn))
            found.listing = listings[arn]
        return found

    return opened


def _listed(finding: Finding | None) -> tuple[type[SimStream], ...]:
    if finding is None:
        return ()
    return (TellingChildren,) if finding.told else (ListedSince,)
