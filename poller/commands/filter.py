"""Owns the text and the exit status of `poller filter explain`. The caller reads the input and prints the text."""

import json
from typing import Final, cast

import orjson

from poller.domain.untrusted.texts import cut
from poller.rules.filtering import (
    Explanation,
    Failure,
    InvalidPattern,
    Source,
    compile_pattern,
    explain,
    explain_record,
)
from poller.rules.filtering.reading import DEPTH_MAX
from poller.rules.filtering.views import Form, decode_text

MATCHES: Final = 0
DOES_NOT_MATCH: Final = 1
INVALID: Final = 2

_SOURCES: Final = ("kinesis", "dynamodb", "sqs")
_SEEN_CHARS_MAX = 200
TOO_DEEP: Final = (
    f"nested too deeply to be explained, about {DEPTH_MAX:,} levels; leave out what no condition reads, "
    "the answer stays the same"
)


def explain_command(pattern: str, event: str, source: str | None) -> tuple[int, str]:
    """The exit status (0: matches, 1: does not match, 2: pattern, event or source is invalid) and the text to print.

    Without `source` the event is what the pattern sees, with its payload already parsed. With `source` the event is one record,
    as a function would get it.
    """
    status, text = _answer(pattern, event, source)
    # JSON may have half of a surrogate pair, which cannot be printed.
    return status, text.encode("utf-8", "backslashreplace").decode()


def _answer(pattern: str, event: str, source: str | None) -> tuple[int, str]:
    if source is not None and source not in _SOURCES:
        return INVALID, f"source: {source!r} is none of {', '.join(_SOURCES)}"
    try:
        compiled = compile_pattern(pattern)
    except InvalidPattern as invalid:
        return INVALID, f"pattern: {invalid}\nreason: {invalid.reason}"
    payload = decode_text(event)
    if payload.form is Form.DEEP:
        return INVALID, f"event: {TOO_DEEP}"
    try:
        parsed = payload.value if payload.form is Form.JSON else orjson.loads(event)
    except ValueError as error:
        return (
            INVALID,
            f"event: not JSON: {error}; write one JSON text, with names and texts in double quotes",
        )
    if source is None:
        return _report(explain(compiled, parsed))
    if not isinstance(parsed, dict):
        return INVALID, "event: a record is a JSON object"
    try:
        return _report(explain_record(compiled, cast("Source", source), parsed))
    except ValueError as error:
        return INVALID, f"event: {error}"


def _report(explanation: Explanation) -> tuple[int, str]:
    if explanation.matched:
        return MATCHES, "matches"
    alternatives = explanation.alternatives
    lines = ["does not match"]
    for number, failures in enumerate(alternatives, 1):
        if len(alternatives) > 1:
            lines.append(f"alternative {number} of {len(alternatives)}:")
        lines += [line for failure in failures for line in _failure_lines(failure)]
    return DOES_NOT_MATCH, "\n".join(lines)


def _failure_lines(failure: Failure) -> list[str]:
    lines = [f"  {failure.path or 'event'}: {failure.why}"]
    if failure.condition:
        lines.append(f"    condition: {failure.condition}")
    if failure.seen:
        values = ", ".join(map(_shown, failure.seen))
        lines.append(f"    values: {cut(values, _SEEN_CHARS_MAX)}")
    return lines


def _shown(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(nested too deeply to be shown)"
