"""Owns the options and the help of `poller breaker`. What it does is imported when it is called."""

from typing import Annotated

import typer

from poller.commands.options import MARKUP, Json, TokenFile

breaker_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=MARKUP,
    help="Work with the circuit breakers of functions.\n\nExample: poller breaker close orders --reason 'the database is back'",
)


@breaker_app.callback()
def _group() -> None:
    return


@breaker_app.command(name="close")
def close_breaker(
    function: Annotated[str, typer.Argument(help="Name of the function in the configuration.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the log and the status.")] = "",
    url: Annotated[
        str, typer.Option("--url", "--endpoint-url", envvar="POLLER_URL", help="Where a daemon listens.")
    ] = "http://127.0.0.1:8080",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Closes the circuit breaker of a function, so that its calls begin again. It says where the breaker is open, and asks.

    Exit status 0: done; 1: not meant; 2: refused.

    It closes at the asked worker at once, and at the other workers of the store within seconds. It opens again when calls fail again.

    Example: poller breaker close orders --reason 'the database is back'
    """
    from poller.commands.breaker.close import close
    from poller.commands.daemon_client import client_or_exit
    from poller.commands.operations.command import Manner

    manner = Manner(dry_run=dry_run, yes=yes, as_json=as_json, reason=reason)
    raise typer.Exit(close(client_or_exit(url, token_file), function, manner=manner))
