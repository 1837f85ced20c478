"""Owns `poller mappings`, which lists, shows and changes event source mappings through Lambda's API, of a daemon or of AWS."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from adapters.commands.endpoint import AWS, Failed, lambda_client, run_command
from adapters.commands.export import export_file, read_all, report_empty, write_export
from adapters.commands.given_members import wrong_members
from adapters.commands.remedies import UUIDS
from poller.commands.fitting import Screen, ScreenPage, show
from poller.commands.options import MARKUP, Json, Region, grouped
from poller.config.yaml_files import read_document
from poller.domain.arns import Arn
from poller.domain.errors import InvalidConfiguration

DAEMON = "http://127.0.0.1:8080"
INTERNAL = frozenset({"ResponseMetadata"})
MEMBER_LINES_MAX = 40
"""Lines of one member's value that are shown, since filters may be long."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    help="Event source mappings through Lambda's API: a daemon's (the default), or AWS's own with --aws.\n\nExample: poller mappings list --url http://127.0.0.1:8080",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Which API a command speaks to."""

    endpoint_url: Annotated[
        str, typer.Option("--url", "--endpoint-url", envvar="POLLER_URL", help="Where a daemon listens.")
    ] = DAEMON
    aws: Annotated[bool, typer.Option("--aws", help="AWS itself instead of a daemon.")] = False
    region: Region = None


Uuid = Annotated[str, typer.Argument(metavar="UUID", help="The mapping.")]
Members = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME=VALUE", help="Members in AWS's names; values are JSON or plain text."),
]
Input = Annotated[
    Path | None,
    typer.Option("--input", help="A file (YAML or JSON) with members; NAME=VALUE goes before it."),
]


@app.command("list")
@grouped
def list_mappings(
    *,
    function: Annotated[str | None, typer.Option("--function", help="Only those of this function.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="Only those of this source's ARN.")] = None,
    api: Api,
    as_json: Json = False,
) -> None:
    """Lists mappings with their state and what the last processing came to.

    Example: poller mappings list --function orders
    """

    def act(client: Any) -> None:
        asked = {"FunctionName": function, "EventSourceArn": source}
        given = {name: value for name, value in asked.items() if value is not None}
        found = read_all(client, given, quiet=as_json)
        if as_json:
            _print_json(found)
        else:
            show(lambda screen: _list_page(found, screen))

    _run(act, api)


@app.command()
@grouped
def get(uuid: Uuid, *, api: Api, as_json: Json = False) -> None:
    """Shows one mapping with all its members.

    Example: poller mappings get 0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11 --json
    """
    _run(lambda client: _show(client.get_event_source_mapping(UUID=_uuid(uuid)), as_json=as_json), api)


@app.command()
@grouped
def create(members: Members = None, *, input_file: Input = None, api: Api, as_json: Json = False) -> None:
    """Creates a mapping.

    Example: poller mappings create FunctionName=orders StartingPosition=TRIM_HORIZON BatchSize=50
    EventSourceArn=arn:aws:kinesis:eu-west-1:111122223333:stream/orders
    """

    def act(client: Any) -> None:
        request = _request(members, input_file)
        if not request:
            raise Failed(
                "no members; write FunctionName=orders EventSourceArn=ARN and what else it needs, or give --input"
            )
        _check_members(client, "CreateEventSourceMapping", request)
        _show(client.create_event_source_mapping(**request), as_json=as_json)

    _run(act, api)


@app.command()
@grouped
def update(
    uuid: Uuid, members: Members = None, *, input_file: Input = None, api: Api, as_json: Json = False
) -> None:
    """Changes a mapping; what is not named stays as it is.

    Example: poller mappings update 0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11 MaximumRetryAttempts=2
    """

    def act(client: Any) -> None:
        named = _uuid(uuid)
        request = _request(members, input_file)
        if not request:
            raise Failed("nothing to change; write members as MaximumRetryAttempts=2, or give --input")
        if "UUID" in request:
            raise Failed("UUID: is given as the argument; leave it out of the members")
        request["UUID"] = named
        _check_members(client, "UpdateEventSourceMapping", request)
        _show(client.update_event_source_mapping(**request), as_json=as_json)

    _run(act, api)


@app.command()
@grouped
def delete(uuid: Uuid, *, api: Api, as_json: Json = False) -> None:
    """Deletes a mapping and forgets its positions, once its running invocations have finished.

    Example: poller mappings delete 0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11
    """
    _run(lambda client: _show(client.delete_event_source_mapping(UUID=_uuid(uuid)), as_json=as_json), api)


@app.command()
@grouped
def enable(uuid: Uuid, *, api: Api, as_json: Json = False) -> None:
    """Lets a disabled mapping go on where it stopped.

    Example: poller mappings enable 0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11
    """
    _switch(uuid, api, enabled=True, as_json=as_json)


@app.command()
@grouped
def disable(uuid: Uuid, *, api: Api, as_json: Json = False) -> None:
    """Stops a mapping: running invocations finish, its position is kept.

    Example: poller mappings disable 0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11
    """
    _switch(uuid, api, enabled=False, as_json=as_json)


@app.command()
def export(
    *,
    from_aws: Annotated[
        bool, typer.Option("--from-aws", help="Of an AWS account, by the usual credentials.")
    ] = False,
    function: Annotated[
        list[str] | None, typer.Option("--function", help="Only those of this function; may be repeated.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="A file instead of stdout.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    endpoint_url: Annotated[
        str | None,
        typer.Option("--url", "--endpoint-url", help="Another endpoint than AWS's own, such as a daemon's."),
    ] = None,
    region: Region = None,
) -> None:
    """Writes a configuration file from the mappings that an AWS account has, and names what it cannot carry over.

    Example: poller mappings export --from-aws --region eu-west-1 --output poller.yaml
    """

    def act() -> None:
        if not from_aws and endpoint_url is None:
            raise Failed("of what? give --from-aws, or --url with a daemon's address")
        client = lambda_client(endpoint_url, region)
        found = {name: read_all(client, {"FunctionName": name}) for name in function or ()}
        found = found or {"": read_all(client, {})}
        report_empty(found, endpoint_url or f"AWS in {client.meta.region_name}")
        mappings = [mapping for each in found.values() for mapping in each]
        write_export(export_file(mappings, client.meta.region_name), output, force=force)

    raise typer.Exit(run_command(act, endpoint_url or AWS))


def _switch(uuid: str, api: Api, *, enabled: bool, as_json: bool) -> None:
    _run(
        lambda client: _show(
            client.update_event_source_mapping(UUID=_uuid(uuid), Enabled=enabled), as_json=as_json
        ),
        api,
    )


def _run(act: Callable[[Any], None], api: Api) -> None:
    url = None if api.aws else api.endpoint_url
    raise typer.Exit(run_command(lambda: act(lambda_client(url, api.region)), url or AWS))


def _uuid(text: str) -> str:
    """Returns the UUID as it was written; raises Failed if it is none."""
    try:
        UUID(text)
    except ValueError:
        raise Failed(f"{text!r} is no UUID; {UUIDS}") from None
    return text


def _check_members(client: Any, operation: str, request: Mapping[str, Any]) -> None:
    wrong = wrong_members(client, operation, request)
    if wrong:
        raise Failed(*wrong)


def _request(members: Sequence[str] | None, input_file: Path | None) -> dict[str, Any]:
    """Returns the members of a request: those of the file, overridden by those of the command line. Raises Failed."""
    request: dict[str, Any] = {}
    if input_file is not None:
        try:
            request = read_document(input_file)
        except InvalidConfiguration as error:
            raise Failed("; ".join(error.problems)) from error
    for member in members or ():
        name, equals, value = member.partition("=")
        if not equals or not name:
            raise Failed(f"{member!r} is no member; write NAME=VALUE, as BatchSize=10")
        request[name] = _value(value)
    return request


def _value(text: str) -> Any:
    """Parses a value as JSON, so that numbers, true and objects can be given; anything else is a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _show(mapping: Mapping[str, Any], *, as_json: bool) -> None:
    shown = {name: value for name, value in mapping.items() if name not in INTERNAL}
    if as_json:
        _print_json(shown)
        return
    show(lambda screen: _member_page(shown, screen))


def _member_page(members: Mapping[str, Any], screen: Screen | int) -> ScreenPage:
    """Shows all members, including those without a value."""
    page = ScreenPage(screen)
    for name, value in members.items():
        page.add(f"{name}: {_cell(value)}", lines_max=MEMBER_LINES_MAX)
    return _with_hint(page, "poller mappings get UUID --json has all of what is cut")


def _list_page(mappings: Sequence[Mapping[str, Any]], screen: Screen | int) -> ScreenPage:
    """Shows a few lines for each mapping, the first with its UUID."""
    page = ScreenPage(screen)
    for mapping in mappings:
        page.add(f"{mapping.get('UUID', '')} {mapping.get('State', '')}")
        arn = Arn.read(str(mapping.get("FunctionArn", "")))
        function = arn.function if arn is not None else ""
        page.add(f"{function} ← {mapping.get('EventSourceArn') or ''}", depth=1, lines_max=3)
        if mapping.get("LastProcessingResult"):
            page.add(f"last result {mapping['LastProcessingResult']}", depth=1)
        page.line(f"modified {_cell(mapping.get('LastModified'))}", depth=1)
    if not mappings:
        page.add("no event source mappings")
    return _with_hint(page, "poller mappings list --json has all of what is cut")


def _with_hint(page: ScreenPage, hint: str) -> ScreenPage:
    if page.shortened:
        page.line("")
        page.add(hint)
    return page


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return value.isoformat(timespec="seconds")
        case str():
            return value
        case _:
            return json.dumps(value, default=str)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=_cell))
