"""Owns the options and the help of `poller calls`. What it does is imported when it is called."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from poller.commands.operations.declared import AskedDaemon, How
from poller.commands.options import MARKUP, Json, grouped, one_of

LIST = "list"
Function = Annotated[
    str, typer.Argument(help="Name of the function in the configuration.", show_default=False)
]
Ids = Annotated[
    list[str] | None,
    typer.Option("--id", help="The id of a call; may be given several times.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="All calls of the function that wait now.")]


class CallsGroup(TyperGroup):
    """`poller calls FUNCTION` is `poller calls list FUNCTION`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Finds the command that the first word names, or else lists."""
        known = bool(args) and self.get_command(ctx, args[0]) is not None
        return super().resolve_command(ctx, args if known else [LIST, *args])


calls_app = typer.Typer(
    cls=CallsGroup,
    no_args_is_help=True,
    rich_markup_mode=MARKUP,
    help="Work with the asynchronous calls of functions that are not over.\n\nExample: poller calls orders --state undelivered",
)


@calls_app.command(name=LIST)
@grouped
def list_calls(
    function: Function,
    *,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            help="Only waiting, running or undelivered ones.",
            autocompletion=one_of("waiting", "running", "undelivered"),
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="How many at most.")] = 50,
    marker: Annotated[
        str | None, typer.Option("--marker", help="Where the page before ended.", show_default=False)
    ] = None,
    as_json: Json = False,
    daemon: AskedDaemon,
) -> None:
    """Lists the asynchronous calls of a function, the longest due first: id, times, attempts, who works on it, last error.

    `poller calls orders` is short for `poller calls list orders`.

    Example: poller calls list orders --state undelivered
    """
    from poller.commands.calls.command import show_calls
    from poller.commands.daemon_client import client_or_exit

    client = client_or_exit(daemon.url, daemon.token_file)
    raise typer.Exit(show_calls(client, function, state=state, limit=limit, marker=marker, as_json=as_json))


@calls_app.command(name="retry")
@grouped
def retry_calls(
    function: Function, *, ids: Ids = None, everything: All = False, how: How, daemon: AskedDaemon
) -> None:
    """Tries calls now, and delivers now what is over. No attempt is used up. Without --id all calls are meant.

    Exit status 0: done; 1: failed, cancelled or not over in time; 2: refused.

    Example: poller calls retry orders --all
    """
    _operate("retry", function, ids, everything=everything or not ids, discard=False, how=how, daemon=daemon)


@calls_app.command(name="skip")
@grouped
def skip_calls(
    function: Function,
    *,
    ids: Ids = None,
    everything: All = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="Drop the calls, without a document to their destinations.")
    ] = False,
    how: How,
    daemon: AskedDaemon,
) -> None:
    """Gives calls up: they are not made again, and their on-failure destination and dead-letter queue get them.

    A call that runs is waited for. If it has failed, it is skipped then.

    Exit status 0: done; 1: failed, cancelled or not over in time; 2: refused.

    Example: poller calls skip orders --id 6c3ca2b4-0f10-4a30-9d4f-6b0b1f3c2a11 --reason "ticket 4711"
    """
    _operate("skip", function, ids, everything=everything, discard=discard, how=how, daemon=daemon)


@calls_app.command(name="redrive")
@grouped
def redrive_calls(
    function: Function,
    *,
    place: Annotated[
        str,
        typer.Option(
            "--from", help="ARN of the on-failure queue or the dead-letter queue.", show_default=False
        ),
    ],
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Messages at most.", show_default=False)
    ] = None,
    messages_per_s: Annotated[
        float | None,
        typer.Option("--messages-per-s", min=0.001, help="Messages a second.", show_default=False),
    ] = None,
    how: How,
    daemon: AskedDaemon,
) -> None:
    """Takes failed calls back from a queue and makes them anew. Each message is removed when the store has its call.

    Exit status 0: done; 1: some stay, cancelled or not over in time; 2: refused.

    Example: poller calls redrive orders --from arn:aws:sqs:eu-west-1:111122223333:orders-failed --dry-run
    """
    given = {"from": place, "limit": limit, "messages_per_s": messages_per_s}
    members = {name: value for name, value in given.items() if value is not None}
    _submit("redrive", function, members, how=how, daemon=daemon)


def _operate(
    action: str,
    function: str,
    ids: list[str] | None,
    *,
    everything: bool,
    discard: bool,
    how: How,
    daemon: AskedDaemon,
) -> None:
    if everything is bool(ids):
        typer.echo(f"poller: calls {action}: name calls with --id, or write --all, one of them", err=True)
        raise typer.Exit(2)
    members = {"calls": ids or "all"} | ({"discard": True} if discard else {})
    _submit(action, function, members, how=how, daemon=daemon)


def _submit(action: str, function: str, members: dict[str, Any], *, how: How, daemon: AskedDaemon) -> None:
    from poller.commands.calls.command import operate_on_calls
    from poller.commands.daemon_client import client_or_exit
    from poller.commands.operations.command import Manner
    from poller.commands.operations.daemon_api import DaemonApi
    from poller.domain.operations import Action

    manner = Manner(
        dry_run=how.dry_run,
        yes=how.yes,
        as_json=how.as_json,
        wait=how.wait,
        wait_s=how.wait_s,
        reason=how.reason,
    )
    api = DaemonApi(client_or_exit(daemon.url, daemon.token_file))
    raise typer.Exit(operate_on_calls(api, Action(action), function, members, manner=manner))
