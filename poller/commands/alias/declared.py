"""Owns the options and the help of `poller alias`. What it does is imported when it is called."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from poller.commands.operations.declared import AskedDaemon
from poller.commands.options import MARKUP, Json, TokenFile, grouped

if TYPE_CHECKING:
    from poller.commands.alias.client import AliasClient
    from poller.commands.operations.command import Manner

SHIFT_S_MAX = 172_800
Function = Annotated[str, typer.Argument(help="The function's name or ARN.", show_default=False)]
Alias = Annotated[str, typer.Argument(help="The alias.", show_default=False)]

alias_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=MARKUP,
    help="Shows aliases of functions, shifts one to another version, rolls one back.\n\n"
    "Example: poller alias shift orders live --to 2 --strategy Canary10Percent5Minutes",
)


@alias_app.callback()
def _group() -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Sure:
    """How a command that changes something goes about it."""

    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; send nothing.")] = False
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False
    reason: Annotated[str, typer.Option("--reason", help="Why; others see it with the alias.")] = ""
    as_json: Json = False


@alias_app.command(name="shift")
@grouped
def shift_alias(
    function: Function,
    alias: Alias,
    *,
    to: Annotated[str, typer.Option("--to", help="The version that gets the calls.", show_default=False)],
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            help="AllAtOnce, Canary10Percent5Minutes, Linear10PercentEvery1Minute or one of this form.",
            show_default=False,
        ),
    ] = None,
    percent: Annotated[
        float | None,
        typer.Option(
            "--percent",
            min=0.1,
            max=100,
            help="In place of --strategy: so much at once.",
            show_default=False,
        ),
    ] = None,
    interval_s: Annotated[
        float | None,
        typer.Option(
            "--interval-s", min=0, help="With --percent: the rest after so long.", show_default=False
        ),
    ] = None,
    linear: Annotated[
        bool, typer.Option("--linear", help="With --percent: so much more after each interval, not the rest.")
    ] = False,
    before: Annotated[
        str | None,
        typer.Option(
            "--before", help="A function that has to answer Succeeded before it begins.", show_default=False
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            "--after", help="A function that has to answer Succeeded at its end.", show_default=False
        ),
    ] = None,
    failure_rate: Annotated[
        float | None,
        typer.Option(
            "--failure-rate",
            min=0,
            max=1,
            help="Roll back when a greater share of the new version's calls fails, as 0.05.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it is over, and show how far it is.")
    ] = False,
    wait_s: Annotated[
        float, typer.Option("--wait-s", min=1, max=SHIFT_S_MAX, help="Seconds to wait at most.")
    ] = SHIFT_S_MAX,
    sure: Sure,
    daemon: AskedDaemon,
) -> None:
    """Moves the calls of an alias to another version, by and by. It says what will happen, and asks.

    Exit status 0: it has begun, with --wait it is done; 1: not meant, rolled back or not over in time; 2: refused.

    Example: poller alias shift orders live --to 2 --strategy Canary10Percent5Minutes --failure-rate 0.05 --wait
    """
    from poller.commands.alias.command import ShiftWords, shift

    words = ShiftWords(
        to=to,
        strategy=strategy,
        percent=percent,
        interval_s=interval_s,
        linear=linear,
        before=before,
        after=after,
        failure_rate=failure_rate,
    )
    manner = _manner(sure, wait=wait, wait_s=wait_s)
    raise typer.Exit(shift(_client(daemon), function, alias, words, manner=manner))


@alias_app.command(name="rollback")
@grouped
def roll_back_alias(function: Function, alias: Alias, *, sure: Sure, daemon: AskedDaemon) -> None:
    """Ends the running shift of an alias: all calls go to the old version at once. It says what will happen, and asks.

    Exit status 0: done; 1: not meant; 2: refused, also if no shift runs: it says how to go back then.

    Example: poller alias rollback orders live --reason "errors since the release"
    """
    from poller.commands.alias.command import roll_back

    raise typer.Exit(roll_back(_client(daemon), function, alias, manner=_manner(sure)))


@alias_app.command(name="status")
def show_aliases(
    function: Annotated[str | None, typer.Argument(help="Only this function.", show_default=False)] = None,
    alias: Annotated[str | None, typer.Argument(help="Only this alias of it.", show_default=False)] = None,
    *,
    url: Annotated[
        str, typer.Option("--url", "--endpoint-url", envvar="POLLER_URL", help="Where a daemon listens.")
    ] = "http://127.0.0.1:8080",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Shows which version gets how many of an alias's calls, its shift, and the versions of the function.

    Failed calls are those that the asked worker has counted since the shift began.

    Example: poller alias status orders
    """
    from poller.commands.alias.client import AliasClient
    from poller.commands.alias.command import status
    from poller.commands.daemon_client import client_or_exit

    client = AliasClient(client_or_exit(url, token_file))
    raise typer.Exit(status(client, function, alias, as_json=as_json))


def _manner(sure: Sure, *, wait: bool = False, wait_s: float = SHIFT_S_MAX) -> "Manner":
    from poller.commands.operations.command import Manner

    return Manner(
        dry_run=sure.dry_run,
        yes=sure.yes,
        as_json=sure.as_json,
        reason=sure.reason,
        wait=wait,
        wait_s=wait_s,
    )


def _client(daemon: AskedDaemon) -> "AliasClient":
    from poller.commands.alias.client import AliasClient
    from poller.commands.daemon_client import client_or_exit

    return AliasClient(client_or_exit(daemon.url, daemon.token_file))
