"""Owns the part of each source's records that a pattern sees (aws-behaviour#what-a-pattern-sees), and the filters of one mapping.

The payload (`data`, `dynamodb`, `body`) is decoded only if a pattern reads it, and at most once for each record. A branch
matches only payloads of its own form (aws-behaviour#text-and-json-payloads): a JSON pattern does not match text, a plain pattern
does not match JSON, and neither matches bytes that are not base64 or not UTF-8. Nothing here raises for a record, so a record
never fails its batch.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, Self

import msgspec
import orjson

from poller.domain.records import JsonObject
from poller.domain.untrusted.numbers import json_whole
from poller.rules.events import encode_json
from poller.rules.filtering.alternatives import Alternatives
from poller.rules.filtering.conditions import Slices
from poller.rules.filtering.pattern import Pattern, compile_pattern
from poller.rules.filtering.reading import NotJson
from poller.rules.filtering.structure import Branch

Source = Literal["kinesis", "dynamodb", "sqs"]

PAYLOAD_KEYS: Final[dict[Source, str]] = {"kinesis": "data", "dynamodb": "dynamodb", "sqs": "body"}
KINESIS_SCHEMA_VERSION: Final = "1.0"
PARSED_BYTES_MAX: Final = 64 * 1024
"""Bytes of a payload that is parsed at once, whatever its content is."""
PARSE_STEPS_MAX: Final = 120_000
"""The cost up to which a longer payload is parsed at once, in steps of about 50 nanoseconds. Unusual payloads are parsed twice."""


class Form(StrEnum):
    """The form of a payload, and the form of payload that a branch needs."""

    NONE = "none"
    """Branch: does not read the payload."""
    PLAIN = "plain"
    """Payload: text that is not JSON. Branch: conditions on the payload itself."""
    JSON = "JSON"
    """Payload: any JSON, scalars included. Branch: conditions on members of the payload."""
    BOTH = "both"
    """Branch: needs both forms, so no payload matches."""
    UNREADABLE = "unreadable"
    """Payload: not base64, or not UTF-8."""
    DEEP = "nested too deeply to be parsed"
    """Payload: text that must be read without recursion."""


class Payload(msgspec.Struct, frozen=True, gc=False):
    """A decoded payload. `value` is the text or the JSON value."""

    form: Form
    value: object


_UNREADABLE: Final = Payload(Form.UNREADABLE, None)


def decode_base64(data: str) -> Payload:
    """The payload of a Kinesis record."""
    raw = _base64(data)
    return _UNREADABLE if raw is None else decode_bytes(raw)


def _base64(data: str) -> bytes | None:
    """The decoded bytes, or None. msgspec is as strict as the standard library's decoder with validation, and takes a third of its time."""
    try:
        return msgspec.convert(data, bytes)
    except msgspec.ValidationError:
        return None


def decode_bytes(raw: bytes) -> Payload:
    """The payload of bytes: JSON if they parse as JSON, else text if they are UTF-8."""
    try:
        return Payload(Form.JSON, orjson.loads(raw))
    except orjson.JSONDecodeError:
        pass
    try:
        return _decode_odd(raw.decode())
    except UnicodeDecodeError:
        return _UNREADABLE


def decode_text(body: object) -> Payload:
    """The payload of an SQS message: JSON if the body parses as JSON, else text."""
    if not isinstance(body, str):
        return Payload(Form.JSON, body)
    try:
        return Payload(Form.JSON, orjson.loads(body))
    except orjson.JSONDecodeError:
        return _decode_odd(body)


def _decode_odd(text: str) -> Payload:
    """The payload of a text that orjson refuses: JSON if AWS accepts it (half of a surrogate pair, numbers beyond a double), else text."""
    try:
        return Payload(Form.JSON, json.loads(text, parse_constant=_refuse_constant, parse_int=json_whole))
    except RecursionError:
        return Payload(Form.DEEP, text)
    except ValueError:
        return Payload(Form.PLAIN, text)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def form_of(branch: Branch, payload_key: str) -> Form:
    """The form of payload that a branch needs."""
    plain = any(each.path == payload_key for each in branch.fields)
    inner = any(each.path.startswith(payload_key + ".") for each in branch.fields)
    if plain and inner:
        return Form.BOTH
    if plain:
        return Form.PLAIN
    return Form.JSON if inner else Form.NONE


def is_light(text: str | bytes) -> bool:
    """Whether a JSON text is parsed within about ten milliseconds. The cost is estimated from its objects, arrays and values."""
    if len(text) <= PARSED_BYTES_MAX:
        return True
    if len(text) // 16 > PARSE_STEPS_MAX:
        return False
    if isinstance(text, str):
        opened, values = text.count("[") + text.count("{"), text.count(",")
    else:
        # The images of a DynamoDB change are raw parts of an answer, which have no `count`.
        text = bytes(text)
        opened, values = text.count(b"[") + text.count(b"{"), text.count(b",")
    return 3 * opened + values + len(text) // 16 <= PARSE_STEPS_MAX


type Answer = bool | Slices[bool]
"""Whether a record passes. It is a generator of slices if the work is too much for one step of the event loop."""


@dataclass(frozen=True, slots=True)
class Filter:
    """The filters of one mapping. A record passes if any of them matches (aws-behaviour#filters). Call the method of the mapping's source.

    A record also passes if its arrays are too complex to decide it: a function rather gets too many records than too few.
    """

    source: Source
    looks_at_payload: bool
    _blind: Alternatives
    _plain: Alternatives
    _inner: Alternatives

    @classmethod
    def of(cls, patterns: Sequence[str], source: Source) -> Self | None:
        """Compiles the patterns of a mapping's `FilterCriteria`. None if there are no patterns.

        Raises InvalidPattern.
        """
        if not patterns:
            return None
        return cls.over([compile_pattern(text) for text in patterns], source)

    @classmethod
    def over(cls, patterns: Sequence[Pattern], source: Source) -> Self:
        """Joins compiled patterns, at least one."""
        assert patterns
        by_form: dict[Form, list[Branch]] = {form: [] for form in Form}
        for branch in (branch for pattern in patterns for branch in pattern.branches):
            by_form[form_of(branch, PAYLOAD_KEYS[source])].append(branch)
        blind, plain, inner = (Alternatives(by_form[form]) for form in (Form.NONE, Form.PLAIN, Form.JSON))
        looks = len(blind.branches) < sum(map(len, by_form.values()))
        return cls(source, looks, blind, plain, inner)

    def matches_kinesis(
        self, partition_key: str | None, sequence_number: str, arrived: float, data: str
    ) -> Answer:
        """Whether a record passes. `arrived` is in epoch seconds. `data` is base64, and is decoded only if a pattern reads it."""
        event = kinesis_view(partition_key, sequence_number, arrived)
        blind = self._blind.holds(event) if self._blind.branches else False
        if blind or (blind is False and not self.looks_at_payload):
            return blind
        raw = _base64(data) if self.looks_at_payload else None
        if blind is None:
            return self._searched(event, raw)
        return raw is not None and self._with_payload(event, raw)

    def matches_dynamodb(self, record: JsonObject) -> Answer:
        """Whether a record passes, in the form in which a function gets it."""
        for branches in (self._blind, self._inner):
            held = branches.holds(record)
            if held:
                return True
            if held is None:
                return self.search_dynamodb(encode_json(record))
        return False

    def search_dynamodb(self, record: bytes) -> Slices[bool]:
        """The same for a record as JSON text that is not light (`is_light`)."""
        text = record.decode()
        for branches in (self._blind, self._inner):
            if branches.branches and (yield from branches.search("", text, "")):
                return True
        return False

    def matches_sqs(self, record: JsonObject) -> Answer:
        """Whether a record passes, in the form in which a function gets it, with `body` as text. The record is not changed."""
        blind = self._blind.holds(record) if self._blind.branches else False
        if blind or (blind is False and not self.looks_at_payload):
            return blind
        body = record.get("body")
        raw = body if isinstance(body, str) else "null"
        return self._searched(record, raw) if blind is None else self._with_payload(record.copy(), raw)

    def _with_payload(self, event: JsonObject, raw: bytes | str) -> Answer:
        """Whether an event passes after its payload was decoded and put into it."""
        if len(raw) > PARSED_BYTES_MAX and not is_light(raw):
            return self.search_text(event, raw)
        payload = decode_text(raw) if isinstance(raw, str) else decode_bytes(raw)
        if payload.form is Form.JSON:
            branches = self._inner
        elif payload.form is Form.DEEP:
            return self.search_text(event, raw)
        else:
            branches = self._plain
        if not branches.branches or payload.form is Form.UNREADABLE:
            return False
        event[PAYLOAD_KEYS[self.source]] = payload.value
        held = branches.holds(event)
        return self.search_text(event, raw) if held is None else held

    def search_text(self, event: JsonObject, raw: bytes | str) -> Slices[bool]:
        """Whether an event passes by branches that read its payload, which is JSON, or text if it is not JSON."""
        key = PAYLOAD_KEYS[self.source]
        yield
        try:
            text = raw if isinstance(raw, str) else raw.decode()
        except UnicodeDecodeError:
            return False
        envelope = encode_json({name: value for name, value in event.items() if name != key}).decode()
        try:
            return (yield from self._inner.search(envelope, text, key))
        except NotJson:
            return (yield from self._plain.search_plain(envelope, text, key))

    def _searched(self, event: JsonObject, raw: bytes | str | None) -> Slices[bool]:
        """As `_with_payload`, for an event whose other members are also too much for one step."""
        key = PAYLOAD_KEYS[self.source]
        envelope = encode_json({name: value for name, value in event.items() if name != key}).decode()
        if (yield from self._blind.search("", envelope, "")):
            return True
        answer = raw is not None and self.looks_at_payload and self._with_payload(event.copy(), raw)
        return answer if isinstance(answer, bool) else (yield from answer)


def kinesis_view(partition_key: str | None, sequence_number: str, arrived: float) -> dict[str, object]:
    """The part of a Kinesis record that patterns see, without its `data`."""
    return {
        "partitionKey": partition_key,
        "sequenceNumber": sequence_number,
        "approximateArrivalTimestamp": arrived,
        "kinesisSchemaVersion": KINESIS_SCHEMA_VERSION,
    }
