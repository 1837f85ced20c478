"""Owns how commands name what they are about: the shortest name that fits one mapping only, and commands to be copied."""

import shlex
from collections.abc import Sequence

from poller.domain.arns import Arn, FunctionName
from poller.domain.status import DaemonStatus, LaneStatus, MappingStatus, ShardStatus, WorkerBreaker
from poller.domain.telemetry.labels import BreakerState
from poller.rules.target_names import NamedMapping, UnknownTarget, find_mapping

NAMED_MAX = 2_000
"""With more mappings than this they are named by their ids: to look for a name that only one has takes too long."""


def named(mapping: MappingStatus) -> NamedMapping:
    """What names a mapping."""
    return NamedMapping(mapping=mapping.mapping, function=mapping.function, source_arn=mapping.source_arn)


def name_of(mapping: MappingStatus, mappings: Sequence[MappingStatus]) -> str:
    """The name of the function or of the source if only this mapping has it, else the mapping's id."""
    if len(mappings) > NAMED_MAX:
        return mapping.mapping
    everything = [named(each) for each in mappings]
    for name in (_function(mapping), _source(mapping)):
        try:
            if name and find_mapping(name, everything).mapping == mapping.mapping:
                return name
        except UnknownTarget:
            continue
    return mapping.mapping


def freeing_commands(
    mapping: MappingStatus,
    name: str,
    *,
    shard: ShardStatus | None,
    lane: LaneStatus | None,
    breaker: str = "",
    more: str = "",
) -> tuple[str, ...]:
    """The two commands that free something that is blocked: try it again now, which costs nothing, or give up what is at fault.

    While the breaker of its function is open, named `breaker`, the records are well: to close the breaker stands in place of the skip.
    Where a notice cannot be delivered, another skip with a notice would only wait as well: that skip sends none. `more` is added
    to each command, such as the address of the daemon. Without a lane it is the shard that cannot be read: only a retry helps it.
    """
    if lane is None:
        of = ["--shard", shard.shard] if shard is not None else []
        return (shlex.join(["poller", "retry", name, *of]) + more,)
    if shard is not None:
        of = ["--shard", shard.shard]
        of += ["--lane", lane.lane] if len(shard.lanes) > 1 and lane.lane.isdecimal() else []
        skip, kept = of, bool(mapping.destination) and lane.state != "discarding"
    elif lane.blocked_since is not None:
        skip = of = ["--group", lane.lane]
        kept = lane.attempts_max is not None
    else:
        skip, of = ["--records", lane.lane], []
        kept = lane.attempts_max is not None
    if breaker:
        close = shlex.join(["poller", "breaker", "close", breaker])
        return (close + more, shlex.join(["poller", "retry", name, *of]) + more)
    skip = skip if kept else [*skip, "--discard"]
    return tuple(
        shlex.join(["poller", verb, name, *rest]) + more for verb, rest in (("retry", of), ("skip", skip))
    )


def open_breaker(status: DaemonStatus, mapping: MappingStatus, worker: str) -> str:
    """The name of the mapping's function if its breaker is not closed at this worker; else empty."""
    for function in status.functions:
        if function.function in {mapping.function, _function(mapping)}:
            own = (
                ()
                if function.breaker is None
                else (WorkerBreaker(worker=status.worker, breaker=function.breaker),)
            )
            for each in function.breakers or own:
                if each.worker == (worker or status.worker) and each.breaker.state != BreakerState.CLOSED:
                    return function.function
    return ""


def _function(mapping: MappingStatus) -> str:
    try:
        return FunctionName.parse(mapping.function).name
    except ValueError:
        return mapping.function


def _source(mapping: MappingStatus) -> str:
    arn = Arn.read(mapping.source_arn)
    if arn is None:
        return ""
    kind, slash, name = arn.resource.partition("/")
    if not slash:
        return f"queue/{arn.resource}"
    return f"{kind}/{name.partition('/stream/')[0]}"
