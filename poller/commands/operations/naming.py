"""Owns how commands name what they are about: the shortest name that fits one mapping only, and commands to be copied."""

from collections.abc import Sequence

from poller.commands.operations.shell import command_line
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
    function, source = _function(mapping), _source(mapping)
    for name in (function, source, f"function/{function}"):
        if name.startswith("-"):
            # It would be read as an option.
            continue
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

    Where records of a shard fail together, a third one comes first, which shows them: the error does not say which of them is at fault.

    While the breaker of its function is open, named `breaker`, the records are well: to close the breaker stands in place of the skip.
    Where a notice cannot be delivered, another skip with a notice would only wait as well: that skip sends none. `more` is added
    to each command, such as the address of the daemon. Without a lane it is the shard that cannot be read: only a retry helps it.
    """
    of = [] if shard is None else ["--shard", shard.shard]
    if lane is None:
        return (command_line(["poller", "retry", name, *of], more),)
    looking: list[str] = []
    if shard is not None:
        of += ["--lane", lane.lane] if len(shard.lanes) > 1 and lane.lane.isdecimal() else []
        skip, kept = of, bool(mapping.destination) and lane.state != "discarding"
        together = lane.records_count > 1 and lane.state != "discarding"
        looking = [command_line(["poller", "peek", name, shard.shard], more)] if together else []
    elif lane.blocked_since is not None:
        skip = of = ["--group", lane.lane]
        kept = lane.attempts_max is not None
    else:
        skip = ["--records", lane.lane]
        kept = lane.attempts_max is not None
    retry = command_line(["poller", "retry", name, *of], more)
    if breaker:
        return (close_command(breaker, more), retry)
    discard = [] if kept else ["--discard"]
    return (*looking, retry, command_line(["poller", "skip", name, *skip, *discard], more))


def close_command(function: str, more: str = "") -> str:
    """The command that closes the breaker of a function."""
    name = ["--", function] if function.startswith("-") else [function]
    return command_line(["poller", "breaker", "close", *name], more)


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
