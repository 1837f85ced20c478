"""Owns the command line: names, options and help of every command. A command's module is imported when the command is called."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import EntryPoint, entry_points
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poller.commands.alias.declared import alias_app
from poller.commands.breaker.declared import breaker_app
from poller.commands.calls.declared import calls_app
from poller.commands.dry_run.declared import dry_run
from poller.commands.init.declared import init, schema
from poller.commands.operations.declared import add_commands
from poller.commands.operations.declared_long import add_long_commands
from poller.commands.options import (
    MARKUP,
    CommonOptions,
    Config,
    Json,
    TokenFile,
    given_options,
    grouped,
    loaded_or_exit,
    one_of,
)
from poller.commands.peek.declared import peek
from poller.commands.root.completion import PROGRAM, asked
from poller.commands.root.declared import completion, version
from poller.commands.root.plugin_commands import COMMANDS, add_plugin_commands, group_of
from poller.commands.run.declared import run
from poller.commands.store.declared import store_app

if TYPE_CHECKING:
    from poller.config.settings import Settings

DISTRIBUTION = "esm-poller"
FAILED = 2
ARGUMENT_BYTES_MAX = 10 * 1024 * 1024

Url = Annotated[
    str, typer.Option("--url", "--endpoint-url", envvar="POLLER_URL", help="Where a daemon listens.")
]


@grouped
def check(
    config: Config,
    *,
    live: Annotated[
        bool, typer.Option("--live", help="Also ask the sources, open the destinations, import the handlers.")
    ] = False,
    as_json: Json = False,
    places: CommonOptions,
) -> None:
    """Checks the configuration and shows what would run; starts nothing.

    Example: poller check --config poller.yaml --live
    """
    from poller.commands.check import check as check_settings
    from poller.commands.check import refuse
    from poller.commands.shared import LoadablePlugins
    from poller.config.loader import examine

    registry = LoadablePlugins()
    found = examine(config, given_options(asdict(places)), registry)
    if found.settings is None:
        raise typer.Exit(refuse(found, as_json=as_json))
    raise typer.Exit(
        check_settings(
            found.settings,
            registry,
            place=str(config),
            live=live,
            as_json=as_json,
            lacking=found.lacking,
            doubts=found.doubts,
        )
    )


def status(
    *,
    url: Url = "http://127.0.0.1:8080",
    token_file: TokenFile = None,
    worker: Annotated[
        str, typer.Option("--worker", help="Show this worker alone; any worker can be asked.")
    ] = "",
    as_json: Json = False,
    everything: Annotated[bool, typer.Option("--all", help="Shorten no list.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until interrupted.")] = False,
    every_s: Annotated[
        float, typer.Option("--every-s", min=0.5, max=3600, help="Seconds between pictures.")
    ] = 2.0,
) -> None:
    """Shows mappings and shards of all workers: owner, position, state, what blocks it, next try.

    Any worker can be asked. What was last heard more than five seconds ago is marked with its age.

    Example: poller status --url http://127.0.0.1:8080 --watch
    """
    import time

    from poller.commands.daemon_client import client_or_exit
    from poller.commands.status.command import show_status, watch_status

    daemon = client_or_exit(url, token_file)
    if not watch or as_json:
        raise typer.Exit(show_status(daemon, as_json=as_json, worker=worker, everything=everything))
    try:
        raise typer.Exit(
            watch_status(
                daemon,
                every_s=every_s,
                pictures=None,
                sleep=time.sleep,
                worker=worker,
                everything=everything,
            )
        )
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def explain(
    *,
    pattern: Annotated[
        str, typer.Option("--pattern", help="The pattern's JSON text; @FILE reads it, @- from stdin.")
    ],
    event: Annotated[
        str, typer.Option("--event", help="The event's JSON text; @FILE reads it, @- from stdin.")
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            help="kinesis, dynamodb or sqs: the event is one record of it.",
            autocompletion=one_of("kinesis", "dynamodb", "sqs"),
        ),
    ] = None,
) -> None:
    """Says whether a filter pattern matches an event, and which condition fails if not.

    Exit status 0: matches; 1: does not; 2: pattern or event is wrong.

    Example: poller filter explain --pattern '{"body": {"n": [1]}}' --event @message.json --source sqs
    """
    from poller.commands.filter import explain_command
    from poller.commands.fitting import print_lines

    exit_status, text = explain_command(_argument("--pattern", pattern), _argument("--event", event), source)
    print_lines(text.splitlines(), sys.stderr if exit_status == FAILED else sys.stdout)
    raise typer.Exit(exit_status)


FILTERS = "Work with filter patterns.\n\nExample: poller filter explain --pattern @pattern.json --event @event.json --source sqs"
POSITIONS = "Keep and set where shards stand.\n\nExample: poller checkpoints export --config poller.yaml > checkpoints.jsonl"
OneMapping = Annotated[str | None, typer.Option("--mapping", help="UUID of one mapping.")]


@grouped
def export_checkpoints(
    config: Config,
    *,
    mapping: OneMapping = None,
    places: CommonOptions,
) -> None:
    """Writes where every shard stands to standard output, a JSON line each.

    Example: poller checkpoints export --config poller.yaml > checkpoints.jsonl
    """
    from poller.commands.checkpoints import export
    from poller.commands.shared import LoadablePlugins

    settings = _settings(config, asdict(places))
    raise typer.Exit(export(settings, LoadablePlugins(), mapping=mapping, print_line=typer.echo))


@grouped
def import_checkpoints(
    config: Config,
    file: Annotated[
        str | None, typer.Argument(help="What export has written; - for stdin.", show_default=False)
    ] = None,
    *,
    from_kcl: Annotated[
        str | None, typer.Option("--from-kcl", help="Lease table of a Kinesis Client Library application.")
    ] = None,
    inside_record: Annotated[
        str,
        typer.Option(
            "--inside-record",
            help="A KCL checkpoint inside an aggregated record: refuse, part, done or again.",
        ),
    ] = "refuse",
    mapping: OneMapping = None,
    force: Annotated[bool, typer.Option("--force", help="Let positions go back, too.")] = False,
    places: CommonOptions,
) -> None:
    """Sets where shards stand, from a file or from the lease table of a KCL application that has stopped.

    A position never goes back without --force, and none is set while a living worker has the shard.

    Example: poller checkpoints import --config poller.yaml --from-kcl orders-app
    """
    from poller.commands.checkpoints import import_file, import_foreign
    from poller.commands.shared import LoadablePlugins

    if (file is None) is (from_kcl is None):
        typer.echo("poller: checkpoints import: name a file or --from-kcl, one of them", err=True)
        raise typer.Exit(FAILED)
    settings = _settings(config, asdict(places))
    if file is not None:
        text = _read("FILE", file, shown=file)
        raise typer.Exit(import_file(settings, LoadablePlugins(), text, force=force, print_line=typer.echo))
    given = {"table": from_kcl, "inside_record": inside_record}
    raise typer.Exit(
        import_foreign(
            settings, LoadablePlugins(), "kcl", given, mapping=mapping, force=force, print_line=typer.echo
        )
    )


def application(points: Iterable[EntryPoint], *, completing: bool = False) -> typer.Typer:
    """The whole command line. `points` are plug-in commands; each is imported when it is called, or when a shell completes its words."""
    plugin_commands = {point.name: point for point in points}
    app = typer.Typer(
        name="poller",
        cls=group_of(plugin_commands),
        no_args_is_help=True,
        add_completion=completing,
        pretty_exceptions_enable=False,
        rich_markup_mode=MARKUP,
        help=_ROOT_HELP,
    )
    app.callback()(_root)
    for command in (init, run, check, schema, status, peek, completion, version):
        app.command()(command)
    app.command(name="dry-run")(dry_run)
    add_commands(app)
    add_long_commands(app)
    filters = typer.Typer(no_args_is_help=True, rich_markup_mode=MARKUP, help=FILTERS)
    filters.command(name="explain")(explain)
    # With a single command and no callback, typer would drop the name `explain` from the command line.
    filters.callback()(_nothing)
    app.add_typer(filters, name="filter")
    positions = typer.Typer(no_args_is_help=True, rich_markup_mode=MARKUP, help=POSITIONS)
    positions.command(name="export")(export_checkpoints)
    positions.command(name="import")(import_checkpoints)
    app.add_typer(positions, name="checkpoints")
    app.add_typer(breaker_app, name="breaker")
    app.add_typer(alias_app, name="alias")
    app.add_typer(calls_app, name="calls")
    app.add_typer(store_app, name="store")
    add_plugin_commands(app, plugin_commands)
    return app


_ROOT_HELP = "Lambda's event source mappings, outside Lambda: Kinesis, DynamoDB Streams and SQS to functions."


def main() -> None:
    """Entry point of the `poller` script."""
    app = application(entry_points(group=COMMANDS), completing=asked())
    if asked():
        app(prog_name=PROGRAM)
    elif sys.argv[1:2] == ["run"]:
        # Its output has a queue and a writer of its own.
        app()
    else:
        from poller.commands.unwritable_output import with_output

        with_output(app)


def _nothing() -> None:
    return


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"poller {installed_version(DISTRIBUTION)}")
        raise typer.Exit


def _root(
    *,
    show_version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="The version."),
    ] = False,
) -> None:
    return


def _settings(config: Path, given: Mapping[str, Any]) -> "Settings":
    from poller.config.loader import load

    return loaded_or_exit(lambda: load(config, given_options(given)))


def _argument(option: str, text: str) -> str:
    """The text itself, or for `@FILE` the content of the file."""
    return _read(option, text[1:], shown=text) if text.startswith("@") else text


def _read(option: str, place: str, *, shown: str) -> str:
    """The content of a file, or of stdin if its name is `-`. If it cannot be read, prints an error with `shown` and ends the command."""
    try:
        if place == "-":
            content = sys.stdin.buffer.read(ARGUMENT_BYTES_MAX + 1)
        else:
            with Path(place).open("rb") as file:
                content = file.read(ARGUMENT_BYTES_MAX + 1)
        decoded = content.decode()
    except (OSError, ValueError) as error:
        typer.echo(f"poller: {option}: value {shown!r}: cannot be read: {error}; name a UTF-8 file", err=True)
        raise typer.Exit(FAILED) from None
    if len(content) > ARGUMENT_BYTES_MAX:
        typer.echo(
            f"poller: {option}: value {shown!r}: larger than {ARGUMENT_BYTES_MAX} bytes; cut it", err=True
        )
        raise typer.Exit(FAILED)
    return decoded
