"""Owns the options and the help of `poller store`. What it does is imported when it is called."""

from typing import Annotated

import typer

from poller.commands.options import MARKUP

Url = Annotated[
    str, typer.Argument(help="The URL, as it stands in the configuration's store.", show_default=False)
]
Region = Annotated[
    str | None, typer.Option("--region", help="AWS region, for stores on AWS.", show_default=False)
]

store_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=MARKUP,
    help="Makes, migrates or checks a store before a daemon uses it.\n\n"
    "Example: poller store check postgresql://poller@db.example.com/poller",
)


@store_app.callback()
def _group() -> None:
    return


@store_app.command(name="init")
def init_store(url: Url, *, region: Region = None) -> None:
    """Makes what the store needs: a schema with its tables, a table, a file. Does nothing if it is there.

    The role or user of this command has to be allowed to make it. The daemon's own need not be.

    Exit status 0: it is there; 2: it could not be made.

    Example: poller store init "postgresql://owner@db.example.com/poller?sslmode=verify-full"
    """
    from poller.commands.store.command import init

    raise typer.Exit(init(url, region=region))


@store_app.command(name="migrate")
def migrate_store(url: Url, *, region: Region = None) -> None:
    """Brings an existing store to the version that this poller needs, in one step that succeeds or changes nothing.

    Older daemons that share the store may go on until they are restarted, unless the changelog says otherwise.

    Exit status 0: it has the version; 2: it could not be migrated, or there is none.

    Example: poller store migrate postgresql://owner@db.example.com/poller
    """
    from poller.commands.store.command import migrate

    raise typer.Exit(migrate(url, region=region))


@store_app.command(name="check")
def check_store(url: Url, *, region: Region = None) -> None:
    """Checks whether a daemon could use the store: connection, version, permissions. Makes and changes nothing.

    Exit status 0: it could; 2: there is a problem.

    Example: poller store check "postgresql://poller@db.example.com/poller?password_file=/run/secrets/db"
    """
    from poller.commands.store.command import check

    raise typer.Exit(check(url, region=region))
