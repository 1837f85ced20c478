"""Owns what a pattern sees of each source's records, and the filters of one mapping.

The payload (`data`, `dynamodb`, `body`) is decoded only when some pattern looks at it, and at most once a record.
A payload that a branch cannot be held against is a record that this branch does not match (9.2): text against a
JSON pattern, JSON against a plain pattern, bytes that are not base64 or not UTF-8 against either. Nothing here
raises for a record, so one odd record never fails its batch.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, Self

import msgspec
import orjson

from poller.rules.filtering.pattern import Pattern, compile_pattern
from poller.rules.filtering.structure import Branch

Source = Literal["kinesis", "dynamodb", "sqs"]

PAYLOAD_KEYS: Final[dict[Source, str]] = {"kinesis": "data", "dynamodb": "dynamodb", "sqs": "body"}
KINESIS_SCHEMA_VERSION: Final = "1.0"


class Form(StrEnum):
    """What a payload is, and what a branch asks a payload to be."""

    NONE = "none"
    """Branch: does not look at the payload."""
    PLAIN = "plain"
    """Payload: text that is not JSON. Branch: conditions on the payload itself."""
    JSON = "JSON"
    """Payload: any JSON, scalars included. Branch: conditions on members of the payload."""
    BOTH = "both"
    """Branch: asks for both, which no payload can be."""
    UNREADABLE = "unreadable"
    """Payload: not base64, or not UTF-8."""


class Payload(msgspec.Struct, frozen=True):
    """A decoded payload; `value` is the text, or the JSON value."""

    form: Form
    value: object


_UNREADABLE: Final = Payload(Form.UNREADABLE, None)


def decode_base64(data: str) -> Payload:
    """The payload of a Kinesis record.

    msgspec is as strict as the standard library's decoder is when asked to validate, and takes a third of its time.
    """
    try:
        raw = msgspec.convert(data, bytes)
    except msgspec.ValidationError:
        return _UNREADABLE
    return decode_bytes(raw)


def decode_bytes(raw: bytes) -> Payload:
    """JSON if it parses, else text if it is UTF-8."""
    try:
        return Payload(Form.JSON, orjson.loads(raw))
    except orjson.JSONDecodeError:
        pass
    try:
        return _decode_odd(raw.decode())
    except UnicodeDecodeError:
        return _UNREADABLE


def decode_text(body: object) -> Payload:
    """The payload of an SQS message: JSON if the body parses, else the text that it is."""
    if not isinstance(body, str):
        return Payload(Form.JSON, body)
    try:
        return Payload(Form.JSON, orjson.loads(body))
    except orjson.JSONDecodeError:
        return _decode_odd(body)


def _decode_odd(text: str) -> Payload:
    """JSON that orjson refuses and AWS takes (half of a surrogate pair, numbers beyond a double), else text."""
    try:
        return Payload(Form.JSON, json.loads(text, parse_constant=_refuse_constant))
    except (ValueError, RecursionError):
        return Payload(Form.PLAIN, text)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def form_of(branch: Branch, payload_key: str) -> Form:
    """What a branch asks the payload to be."""
    plain = any(each.path == payload_key for each in branch.fields)
    inner = any(each.path.startswith(payload_key + ".") for each in branch.fields)
    if plain and inner:
        return Form.BOTH
    if plain:
        return Form.PLAIN
    return Form.JSON if inner else Form.NONE


@dataclass(frozen=True, slots=True)
class Filter:
    """The filters of one mapping, any one of which lets a record pass; ask the method of the mapping's source."""

    source: Source
    looks_at_payload: bool
    _blind: tuple[Branch, ...]
    _plain: tuple[Branch, ...]
    _inner: tuple[Branch, ...]

    @classmethod
    def of(cls, patterns: Sequence[str], source: Source) -> Self | None:
        """Compile the patterns of a mapping's `FilterCriteria`; None, no filter at all, for no patterns.

        Raises InvalidPattern.
        """
        if not patterns:
            return None
        return cls.over([compile_pattern(text) for text in patterns], source)

    @classmethod
    def over(cls, patterns: Sequence[Pattern], source: Source) -> Self:
        """Join compiled patterns, at least one."""
        assert patterns
        by_form: dict[Form, list[Branch]] = {form: [] for form in Form}
        for branch in (branch for pattern in patterns for branch in pattern.branches):
            by_form[form_of(branch, PAYLOAD_KEYS[source])].append(branch)
        blind, plain, inner = (tuple(by_form[form]) for form in (Form.NONE, Form.PLAIN, Form.JSON))
        looks = len(blind) < sum(len(branches) for branches in by_form.values())
        return cls(source, looks, blind, plain, inner)

    def matches_kinesis(self, partition_key: str, sequence_number: str, arrived: float, data: str) -> bool:
        """Whether a record passes. `arrived` is in epoch seconds; `data` is base64, decoded only if looked at."""
        event = kinesis_view(partition_key, sequence_number, arrived)
        if _any_holds(self._blind, event):
            return True
        return self.looks_at_payload and self._payload_holds(event, decode_base64(data))

    def matches_dynamodb(self, record: dict[str, object]) -> bool:
        """Whether an event record, complete as the function would get it, passes."""
        if _any_holds(self._blind, record):
            return True
        return self.looks_at_payload and self._payload_holds(
            record, Payload(Form.JSON, record.get("dynamodb"))
        )

    def matches_sqs(self, record: dict[str, object]) -> bool:
        """Whether an event record, with `body` as the text it is, passes. The record is left as it is."""
        if _any_holds(self._blind, record):
            return True
        return self.looks_at_payload and self._payload_holds(record, decode_text(record.get("body")))

    def _payload_holds(self, event: dict[str, object], payload: Payload) -> bool:
        match payload.form:
            case Form.JSON:
                branches = self._inner
            case Form.PLAIN:
                branches = self._plain
            case _:
                return False
        return bool(branches) and _any_holds(branches, event | {PAYLOAD_KEYS[self.source]: payload.value})


def kinesis_view(partition_key: str, sequence_number: str, arrived: float) -> dict[str, object]:
    """What patterns see of a Kinesis record, without its `data`."""
    return {
        "partitionKey": partition_key,
        "sequenceNumber": sequence_number,
        "approximateArrivalTimestamp": arrived,
        "kinesisSchemaVersion": KINESIS_SCHEMA_VERSION,
    }


def _any_holds(branches: tuple[Branch, ...], event: dict[str, object]) -> bool:
    for branch in branches:  # noqa: SIM110 - any() with a generator costs a third of a small match
        if branch.holds(event):
            return True
    return False
