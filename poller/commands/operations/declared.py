"""Owns the options and the help of the commands that do something to what runs. What they do is imported when they are called."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poller.commands.options import MARKUP, Json, grouped

if TYPE_CHECKING:
    from poller.commands.operations.daemon_api import DaemonApi
    from poller.commands.operations.declared_long import HowLong

MANY = 1_000

Mapping = Annotated[
    str,
    typer.Argument(
        help="The mapping: its id, function or source, as `ship` or `stream/orders`.", show_default=False
    ),
]
Shard = Annotated[str | None, typer.Option("--shard", help="A shard: its id, or the number in it.")]
Lane = Annotated[int | None, typer.Option("--lane", min=0, help="A lane of the shard.")]
Group = Annotated[str | None, typer.Option("--group", help="A message group of a FIFO queue.")]
OperationName = Annotated[str, typer.Argument(help="The operation's id.", show_default=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedDaemon:
    """Which daemon is asked. Any worker of the store will do."""

    url: Annotated[
        str, typer.Option("--url", "--endpoint-url", envvar="POLLER_URL", help="Where a daemon listens.")
    ] = "http://127.0.0.1:8080"
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            help="A file with a token whose role is operate or admin; else POLLER_TOKEN is sent.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a command goes about it."""

    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; send nothing.")] = False
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False
    reason: Annotated[str, typer.Option("--reason", help="Why; others see it with the operation.")] = ""
    as_json: Json = False
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is over.")] = True
    wait_s: Annotated[float, typer.Option("--wait-s", min=1, max=86_400, help="Seconds to wait at most.")] = (
        60.0
    )


@grouped
def retry(
    mapping: Mapping,
    *,
    shard: Shard = None,
    lane: Lane = None,
    group: Group = None,
    how: How,
    daemon: AskedDaemon,
) -> None:
    """Makes the next try now. The back-off begins again, and no attempt is used up.

    Exit status 0: done; 1: failed, cancelled or not over in time; 2: refused.

    Example: poller retry ship --shard 0
    """
    _operate("retry", mapping, {}, shard=shard, lane=lane, group=group, how=how, daemon=daemon)


@grouped
def reset(mapping: Mapping, *, shard: Shard = None, lane: Lane = None, how: How, daemon: AskedDaemon) -> None:
    """Lets attempts and age of what fails in a stream count from now.

    Exit status 0: done; 1: failed, cancelled or not over in time; 2: refused.

    Example: poller reset stream/orders --reason "the function is repaired"
    """
    _operate("reset", mapping, {}, shard=shard, lane=lane, group=None, how=how, daemon=daemon)


@grouped
def skip(
    mapping: Mapping,
    *,
    shard: Shard = None,
    lane: Lane = None,
    group: Group = None,
    records: Annotated[
        str,
        typer.Option("--records", help="first or batch (of what is at fault), or ids with commas between."),
    ] = "first",
    discard: Annotated[
        bool, typer.Option("--discard", help="Drop the records, without a notice to the destination.")
    ] = False,
    how: How,
    daemon: AskedDaemon,
) -> None:
    """Gives records up, so that what is behind them goes on. Their notice goes to the on-failure destination.

    Without --shard the only blocked shard is meant. Messages of a queue are moved to its dead-letter queue.

    Exit status 0: done; 1: failed, cancelled or not over in time; 2: refused.

    Example: poller skip ship --shard 0 --records first --reason "ticket 4711"
    """
    chosen: Any = records if records in {"first", "batch"} else [each.strip() for each in records.split(",")]
    members = {"records": chosen} | ({"discard": True} if discard else {})
    _operate("skip", mapping, members, shard=shard, lane=lane, group=group, how=how, daemon=daemon)


@grouped
def pause(
    mapping: Mapping,
    *,
    shard: Shard = None,
    lane: Lane = None,
    group: Group = None,
    how: How,
    daemon: AskedDaemon,
) -> None:
    """Begins no call of the function until somebody resumes it. A call that runs finishes and counts.

    Exit status 0: paused; 1: failed or cancelled; 2: refused.

    Example: poller pause ship --reason "repair of the database"
    """
    _operate("pause", mapping, {}, shard=shard, lane=lane, group=group, how=how, daemon=daemon)


@grouped
def resume(
    mapping: Mapping,
    *,
    shard: Shard = None,
    lane: Lane = None,
    group: Group = None,
    how: How,
    daemon: AskedDaemon,
) -> None:
    """Ends the pauses of the target. Without an option: all pauses of the mapping.

    Exit status 0: done; 1: failed, cancelled or not over in time; 2: refused.

    Example: poller resume ship
    """
    _operate("resume", mapping, {}, shard=shard, lane=lane, group=group, how=how, daemon=daemon)


@grouped
def replay(
    mapping: Mapping,
    *,
    since: Annotated[
        str,
        typer.Option("--from", help="TRIM_HORIZON or a time, as 2026-01-31T08:00:00Z.", show_default=False),
    ],
    until: Annotated[
        str, typer.Option("--to", help="LATEST (now) or a time, a day ahead at most.")
    ] = "LATEST",
    function: Annotated[
        str | None,
        typer.Option("--function", help="Another function: its configured name or ARN.", show_default=False),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option("--filter", help="A filter pattern, in place of the mapping's.", show_default=False),
    ] = None,
    records_per_s: Annotated[
        float | None,
        typer.Option(
            "--records-per-s",
            min=0.001,
            help="Records a second, of all workers together.",
            show_default=False,
        ),
    ] = None,
    on_failure: Annotated[
        str,
        typer.Option(
            "--on-failure",
            help="What a batch that fails does: stop, skip, or the ARN or URL of a destination.",
        ),
    ] = "stop",
    how: How,
    daemon: AskedDaemon,
) -> None:
    """Calls the function once more with older records of a stream, beside the mapping, whose position does not move.

    Exit status 0: done; 1: failed, cancelled or not over in time; 2: refused.

    Example: poller replay stream/orders --from 2026-01-31T08:00:00Z --to 2026-01-31T09:00:00Z --function audit
    """
    given = {"function": function, "filter": pattern, "records_per_s": records_per_s}
    members: dict[str, Any] = {"from": since, "to": until, "on_failure": on_failure}
    members |= {name: value for name, value in given.items() if value is not None}
    _operate("replay", mapping, members, shard=None, lane=None, group=None, how=how, daemon=daemon)


@grouped
def list_all(
    context: typer.Context,
    *,
    mapping: Annotated[
        str | None, typer.Option("--mapping", help="Only those on this mapping: id, function or source.")
    ] = None,
    state: Annotated[
        str | None, typer.Option("--state", help="accepted, running, done, failed or cancelled.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=MANY, help="How many at most.")] = 20,
    as_json: Json = False,
    daemon: AskedDaemon,
) -> None:
    """Lists operations on what runs, newest first."""
    if context.invoked_subcommand is not None:
        return
    from poller.commands.operations.listing import list_operations
    from poller.commands.root.problems import FAILED, print_problems
    from poller.domain.operations import OperationState

    try:
        wanted = OperationState(state) if state is not None else None
    except ValueError:
        print_problems([f"--state: value {state!r}: write one of {', '.join(OperationState)}"])
        raise typer.Exit(FAILED) from None
    api = _api(daemon)
    raise typer.Exit(list_operations(api, mapping=mapping, state=wanted, limit=limit, as_json=as_json))


@grouped
def show_one(operation: OperationName, *, as_json: Json = False, daemon: AskedDaemon) -> None:
    """Shows one operation: what was asked, by whom and why, and what came of each part.

    Example: poller operations show 5f1c7b1e-8f0f-4a8e-9d1b-0c5a3a1f6e11
    """
    from poller.commands.operations.listing import show_operation

    raise typer.Exit(show_operation(_api(daemon), operation, as_json=as_json))


@grouped
def cancel_one(operation: OperationName, *, as_json: Json = False, daemon: AskedDaemon) -> None:
    """Cancels an operation that is not over. To cancel a pause is to end it.

    Example: poller operations cancel 5f1c7b1e-8f0f-4a8e-9d1b-0c5a3a1f6e11
    """
    from poller.commands.operations.listing import cancel_operation

    raise typer.Exit(cancel_operation(_api(daemon), operation, as_json=as_json))


def add_commands(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (retry, reset, skip, pause, resume, replay):
        app.command()(command)
    operations = typer.Typer(
        rich_markup_mode=MARKUP,
        help="Lists operations on what runs, newest first; shows or cancels one.\n\nExample: poller operations --state running",
        invoke_without_command=True,
    )
    operations.callback()(list_all)
    operations.command(name="show")(show_one)
    operations.command(name="cancel")(cancel_one)
    app.add_typer(operations, name="operations")


def operate_on(
    action: str, mapping: str, members: dict[str, Any], *, how: "How | HowLong", daemon: AskedDaemon
) -> None:
    """Carries out a command on a whole mapping."""
    _operate(action, mapping, members, shard=None, lane=None, group=None, how=how, daemon=daemon)


def _operate(
    action: str,
    mapping: str,
    members: dict[str, Any],
    *,
    shard: str | None,
    lane: int | None,
    group: str | None,
    how: "How | HowLong",
    daemon: AskedDaemon,
) -> None:
    from poller.commands.operations.command import Manner, operate
    from poller.commands.operations.targets import TargetWords
    from poller.domain.operations import Action

    manner = Manner(
        dry_run=how.dry_run,
        yes=how.yes,
        as_json=how.as_json,
        wait=how.wait,
        wait_s=how.wait_s,
        reason=how.reason,
    )
    words = TargetWords(mapping=mapping, shard=shard, lane=lane, group=group)
    raise typer.Exit(operate(_api(daemon), Action(action), words, members, manner=manner))


def _api(daemon: AskedDaemon) -> "DaemonApi":
    from poller.commands.daemon_client import client_or_exit
    from poller.commands.operations.daemon_api import DaemonApi

    return DaemonApi(client_or_exit(daemon.url, daemon.token_file))
