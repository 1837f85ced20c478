"""Owns the options and the help of `poller dry-run`. What it does is imported when it is called."""

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from poller.commands.options import CommonOptions, Config, Json, given_options, grouped

CALLS_MAX = 1_000_000
SECONDS_MAX = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunLimits:
    """When a dry run ends although there is more to read."""

    limit: Annotated[int, typer.Option("--limit", min=1, max=CALLS_MAX, help="End after so many calls.")] = (
        1000
    )
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=SECONDS_MAX, help="End after so many seconds.")
    ] = 60.0


@grouped
def dry_run(
    config: Config,
    *,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--mapping", help="UUID, source or function of a mapping; may be repeated."),
    ] = None,
    receive: Annotated[
        bool, typer.Option("--receive", help="Receive from queues, too: receive counts rise.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin at each StartingPosition, without the store.")
    ] = False,
    events: Annotated[bool, typer.Option("--events", help="Print the events with their payloads.")] = False,
    as_json: Json = False,
    limits: DryRunLimits,
    places: CommonOptions,
) -> None:
    """Reads, filters and batches as the daemon would, and prints what would be called with what.

    Nothing is invoked, checkpointed, deleted or sent, and no function is imported. It begins where the daemon stands by its store,
    which is only read, and ends when every shard is read to its end, at a limit, or at SIGINT.

    Queues are read only with --receive. A receive raises the receive count of a message and hides it until the end. So a message may
    lose one of the tries that its queue's maxReceiveCount allows. A queue with maxReceiveCount 1 is always refused.

    Exit status 0: it ran; 1: something could not be read; 2: the configuration is wrong.

    Example: poller dry-run --config poller.yaml --mapping stream/orders --limit 10 --events
    """
    from poller.commands.dry_run.command import DryOutput, DryRunOptions
    from poller.commands.dry_run.command import dry_run as run
    from poller.commands.shared import LoadablePlugins
    from poller.config.loader import examine

    registry = LoadablePlugins()
    found = examine(config, given_options(asdict(places)), registry)
    warnings = [*found.doubts, *found.lacking]
    if found.settings is None:
        output = DryOutput(typer.echo, as_json=as_json)
        output.warn(warnings)
        raise typer.Exit(output.refuse(found.problems))
    options = DryRunOptions(
        mappings=tuple(mapping or ()),
        receive=receive,
        fresh=fresh,
        calls_max=limits.limit,
        seconds_max=limits.seconds,
        events=events,
        as_json=as_json,
    )
    status = run(found.settings, registry, options, place=str(config), print_line=typer.echo, doubts=warnings)
    raise typer.Exit(status)
