"""Owns how the mappings of an AWS account become a configuration file, and the report of what cannot be exported."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from adapters.commands.endpoint import Failed
from adapters.private_files import private_opener
from poller.commands.root.problems import print_problems
from poller.config.loader import load
from poller.config.mapping import EventSourceMapping, as_shown, as_written, source_kind
from poller.config.settings import MAPPINGS_MAX, FileMapping
from poller.config_errors.error_messages import Layer, complaints, lines
from poller.domain.arns import Arn, FunctionName
from poller.domain.errors import InvalidConfiguration
from poller.domain.wording.numbers_of import number_of
from poller.output.progress_line import ProgressLine

OFF = frozenset({"Disabled", "Disabling"})
GOING = "Deleting"
HEADER = """\
# Written by `poller mappings export`. Functions run where they ran before, on AWS Lambda; give one an entry under
# `functions` to run it elsewhere.
# Not carried over: tags, and positions. A stream begins at its StartingPosition; docs/use/from-lambda.md says how to leave no gap.
# As long as a mapping is enabled in AWS too, each record of its stream is worked twice, and its queue's messages are divided.
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """The text of the file, and one line for each thing that was left out."""

    text: str
    left: Sequence[str]


def read_all(client: Any, asked: Mapping[str, str], *, quiet: bool = False) -> list[dict[str, Any]]:
    """Reads all pages of the mappings that a request selects; raises what the client raises, and Failed. `quiet`: without progress."""
    found: list[dict[str, Any]] = []
    with ProgressLine(quiet=quiet) as progress:
        for page in client.get_paginator("list_event_source_mappings").paginate(**asked):
            found += page["EventSourceMappings"]
            if len(found) > MAPPINGS_MAX:
                raise Failed(f"more than {MAPPINGS_MAX} mappings; name functions with --function")
            progress.say(f"read {number_of(len(found), 'mapping')}")
    return found


def report_empty(found: Mapping[str, Sequence[Any]], where: str) -> None:
    """Reports on stderr which functions have no mapping ("": all functions); raises Failed if none of the named ones has one."""
    empty = [
        f"{where}: there is no mapping{f' of function {name}' if name else ''}"
        for name, mappings in found.items()
        if not mappings
    ]
    if "" not in found and len(empty) == len(found):
        raise Failed(*empty, "nothing is exported; look at the names of the functions, and at the region")
    print_problems(empty)


def export_file(mappings: Sequence[Mapping[str, Any]], region: str) -> Exported:
    """Makes a configuration file of mappings in the form of Lambda's API, and checks it with our own loader. Raises Failed."""
    kept: list[dict[str, Any]] = []
    left: list[str] = []
    for mapping in {str(each["UUID"]): each for each in mappings}.values():
        obstacle = _export_obstacle(mapping)
        if obstacle:
            left.append(f"{_name(mapping)}: {obstacle}")
            continue
        converted = file_mapping(mapping)
        problems = _problems(converted)
        left += [f"{_name(mapping)}: left out: {problem}" for problem in problems]
        if not problems:
            kept.append(converted)
    body = yaml.safe_dump(
        {"region": region, "mappings": kept}, sort_keys=False, allow_unicode=True, width=110
    )
    comments = "".join(f"# Not carried over: {line}\n" for line in left)
    found = Exported(HEADER + comments + body, left)
    _check_loads(found.text)
    return found


def write_export(found: Exported, output: Path | None, *, force: bool) -> None:
    """Writes the text to stdout or to a file, and what is left out to stderr; raises Failed."""
    for line in found.left:
        print(f"poller: not carried over: {line}", file=sys.stderr)
    if output is None:
        print(found.text, end="")
        return
    try:
        with open(output, "w" if force else "x", encoding="utf-8", opener=private_opener) as file:
            file.write(found.text)
    except FileExistsError:
        raise Failed(f"{output}: is there already; choose another name, or --force to replace it") from None
    except OSError as error:
        raise Failed(f"{output}: cannot be written: {error.strerror}") from error


def file_mapping(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Turns a mapping in the form of Lambda's API into one of a configuration file: AWS's names, without default values."""
    names = EventSourceMapping.model_fields
    given = {name: mapping[name] for name in names if mapping.get(name) is not None}
    moment = given.get("StartingPositionTimestamp")
    if isinstance(moment, datetime):
        given["StartingPositionTimestamp"] = moment.timestamp()
    given["FunctionName"] = _function(str(mapping["FunctionArn"]), str(mapping["EventSourceArn"]))
    parsed = EventSourceMapping.model_validate(given)
    bare = EventSourceMapping(
        FunctionName=parsed.FunctionName,
        EventSourceArn=parsed.EventSourceArn,
        StartingPosition=parsed.StartingPosition,
    )
    named = {"FunctionName", "EventSourceArn", "StartingPosition"}
    defaults = {name: value for name, value in as_shown(bare).items() if name not in named}
    own = {name: value for name, value in as_written(parsed).items() if defaults.get(name) != value}
    off = {"Enabled": False} if mapping.get("State") in OFF else {}
    return {"UUID": mapping["UUID"], **own, **off}


def _export_obstacle(mapping: Mapping[str, Any]) -> str:
    """Returns why a mapping cannot be exported; empty if it can."""
    arn = mapping.get("EventSourceArn") or ""
    if mapping.get("State") == GOING:
        return "is being deleted"
    if not arn:
        return "a self-managed Kafka cluster; only Kinesis, DynamoDB Streams and SQS are read"
    try:
        source_kind(arn)
    except ValueError:
        return f"source {arn}; only Kinesis, DynamoDB Streams and SQS are read"
    if mapping.get("FilterCriteriaError"):
        return "its filters are encrypted and cannot be read with these credentials"
    return ""


def _name(mapping: Mapping[str, Any]) -> str:
    arn = Arn.read(str(mapping.get("FunctionArn", "")))
    function = arn.function if arn is not None else ""
    return f"mapping {mapping['UUID']} of function {function}"


def _function(arn: str, source_arn: str) -> str:
    """Returns the short name of a function if its region and account are those of the source, else its ARN."""
    name, source = FunctionName.parse(arn), Arn.parse(source_arn)
    short = f"{name.name}:{name.qualifier}" if name.qualifier else name.name
    return short if FunctionName.parse(short).arn(source) == arn else arn


def _problems(mapping: Mapping[str, Any]) -> list[str]:
    try:
        FileMapping.model_validate(dict(mapping))
    except ValidationError as error:
        return lines(complaints(error, FileMapping), [Layer("mapping", dict(mapping))])
    return []


def _check_loads(text: str) -> None:
    """Raises Failed if a daemon would refuse the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "poller.yaml"
        with open(path, "x", encoding="utf-8", opener=private_opener) as file:
            file.write(text)
        try:
            load(path)
        except InvalidConfiguration as error:
            lines = [problem.removeprefix(f"{path}: ") for problem in error.problems]
            raise Failed("; ".join(lines)) from error
