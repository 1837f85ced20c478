"""Owns the words of `poller consumers` on the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from adapters.commands.consumers.command import ConsumersAsked, list_consumers, remove_consumers
from adapters.commands.consumers.configured import NamedStream, checked_stream
from poller.commands.operations.command import Manner
from poller.commands.options import MARKUP, Config, Endpoint, Json, grouped
from poller.commands.root.problems import FAILED, print_problems
from poller.commands.shared import LoadablePlugins
from poller.config.loader import load
from poller.domain.errors import InvalidConfiguration

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    help="The consumers of Kinesis streams that mappings have of their own. AWS charges for each.\n\nExample: poller consumers list --config poller.yaml",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where the streams are."""

    stream: Annotated[
        list[str] | None,
        typer.Option("--stream", help="ARN of a stream that no mapping reads any more; may be repeated."),
    ] = None
    identity: Annotated[
        str | None,
        typer.Option("--identity", help="As whom these streams are asked: an entry below identities."),
    ] = None
    endpoint_url: Endpoint = None


@app.command("list")
@grouped
def list_them(*, config: Config, where: Where, as_json: Json = False) -> None:
    """Lists the consumers of the configuration's streams whose names begin with poller-, and the mapping that each is for.

    Example: poller consumers list --config poller.yaml --json
    """
    raise typer.Exit(list_consumers(_asked(config, where), as_json=as_json))


@app.command()
@grouped
def remove(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The consumer.")] = None,
    *,
    config: Config,
    where: Where,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="All that no mapping of the configuration wants.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen; remove nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Removes a consumer that no mapping wants any more. Asks before it does so.

    Example: poller consumers remove poller-0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11 --config poller.yaml
    """
    manner = Manner(dry_run=dry_run, yes=yes, as_json=as_json)
    raise typer.Exit(remove_consumers(_asked(config, where), name, orphans=orphans, manner=manner))


def _asked(config: Path, where: Where) -> ConsumersAsked:
    given = {} if where.endpoint_url is None else {"endpoint_url": where.endpoint_url}
    try:
        settings = load(config, given)
        others = [NamedStream(checked_stream(each), where.identity) for each in where.stream or ()]
        if where.identity is not None and where.identity not in settings.identities:
            raise InvalidConfiguration([f"--identity: {where.identity!r} is no entry below identities"])
    except InvalidConfiguration as error:
        print_problems(error.problems)
        raise typer.Exit(FAILED) from None
    return ConsumersAsked(settings=settings, registry=LoadablePlugins(), others=others)
