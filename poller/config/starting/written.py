"""Owns how a draft is written as a YAML file with comments. Texts are quoted unless they cannot be anything but a text.

Every text may come from outside. One that does not show, or that has line breaks, cannot leave its comment or its quotes.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from poller.config.starting.draft import Draft, FunctionDraft, MappingDraft
from poller.config_errors.error_messages import printable
from poller.domain.untrusted.texts import line_of

SCHEMA_FILE = "poller.schema.json"
MODELINE = f"# yaml-language-server: $schema=./{SCHEMA_FILE}"
COMMENT_CHARS_MAX = 500
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./:$-]{0,2000}(?<!:)|[0-9]{1,3}(?:\.[0-9]{1,3}){3}:[0-9]{1,5}")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def written(draft: Draft) -> str:
    """The text of the file."""
    return "\n".join(_lines(draft)) + "\n"


def _lines(draft: Draft) -> Iterator[str]:
    yield MODELINE
    yield f"# An editor reads {SCHEMA_FILE} beside this file; `poller schema > {SCHEMA_FILE}` makes it."
    yield from map(_comment, draft.comments)
    yield ""
    if draft.region:
        yield f"region: {scalar(draft.region)}"
    yield f"store: {scalar(draft.store)}    # where positions are kept; several workers: dynamodb://TABLE"
    yield f"listen: {scalar(draft.listen)}    # API, health, metrics, status; 0.0.0.0:8080 in a container"
    yield ""
    yield (
        "functions:    # how each function is called: invoker python, http, process or lambda"
        if draft.functions
        else "functions: {}"
    )
    for function in draft.functions:
        yield from _function(function)
    yield ""
    yield "mappings:    # AWS's own names, limits and defaults" if draft.mappings else "mappings: []"
    for mapping in draft.mappings:
        yield from _mapping(mapping)


def _function(function: FunctionDraft) -> Iterator[str]:
    yield from (f"  {_comment(each)}" for each in function.comments)
    yield f"  {scalar(function.name)}:"
    yield from _entries(function.settings, "    ")


def _mapping(mapping: MappingDraft) -> Iterator[str]:
    yield from (f"  {_comment(each)}" for each in mapping.comments)
    lines = list(_entries(mapping.members, "    "))
    first, rest = (lines[0], lines[1:]) if lines else ("    {}", [])
    yield f"  - {first.strip()}"
    yield from rest
    for mark in mapping.marks:
        yield f"    {_comment(f'{mark.member}: {mark.written}')}"
        yield f"    {_comment(f'^ not carried over: {mark.why}')}"


def _entries(table: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in table.items():
        match value:
            case dict() if value:
                yield f"{indent}{scalar(name)}:"
                yield from _entries(value, indent + "  ")
            case list() | tuple() if value and all(isinstance(each, dict) and each for each in value):
                yield f"{indent}{scalar(name)}:"
                for each in value:
                    lines = list(_entries(each, indent + "    "))
                    yield f"{indent}  - {lines[0].strip()}"
                    yield from lines[1:]
            case list() | tuple():
                yield f"{indent}{scalar(name)}: [{', '.join(map(scalar, value))}]"
            case _:
                yield f"{indent}{scalar(name)}: {scalar(value)}"


def scalar(value: object) -> str:
    """A value in one line of YAML."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str() if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        case str() if value.isascii() and value.isprintable() and "'" not in value:
            return f"'{value}'"
        case str():
            text = yaml.safe_dump(value, default_style='"', allow_unicode=False, width=1 << 30)
            return text.rstrip("\n")
        case _:
            return "{}" if value == {} else "null"


def _comment(text: str) -> str:
    return f"# {printable(line_of(text, chars_max=COMMENT_CHARS_MAX))}".rstrip()
