"""Owns how stored values become rows, and what becomes of a row with a damaged value.

A store outlives versions of poller and restores of backups, and people edit it by hand. A value that poller did not write is an
error that names the row, the attribute and the remedy. Only callers that need this row get the error. The value is never
guessed, ignored or overwritten: a guessed position would skip records.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from poller.domain.errors import ServiceUnavailable
from poller.domain.records import Epoch, MappingId, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, DigestRow, Lease, MappingRow, WorkerRow
from poller.domain.untrusted import numbers
from poller.domain.untrusted.numbers import MOMENT_MAX
from poller.domain.untrusted.texts import line_of

NUMBER_MAX = 1 << 53
"""The largest whole number that is read from a JSON text."""
SHOWN_CHARS_MAX = 200
COUNTER_UNKNOWN = -1
"""The counter of a damaged worker row. It does not change, so the worker counts as dead unless it writes its row again, which a
living worker does within a second."""
MAPPING_REMEDY = (
    "restore it from a backup or correct it; removed, a mapping of the file begins anew at its starting position, "
    "and one made through the API is gone"
)
LEASE_REMEDY = "restore it from a backup or correct it; removed, what the source has of the shard comes again"
PARSE_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of a value that poller did not write."""

type Values = Mapping[str, Any]
"""The attributes of a row by name, as plain values. Attributes without a value are absent."""


def mapping_row(values: Values) -> MappingRow:
    """Makes a mapping's row. If it cannot be read, `damage` says why, and only its id is meaningful."""
    try:
        return MappingRow(
            MappingId(_read(values, "mapping", text)),
            Epoch(_read(values, "fixed", moment)),
            seeded=_read(values, "seeded", flag),
            document=_read(values, "document", json_object),
            revision=_read(values, "revision", whole),
        )
    except ValueError as error:
        name = shown(values.get("mapping"))
        return MappingRow(
            MappingId(name), Epoch(0.0), damage=_damage_text(f"mapping {name}", error, MAPPING_REMEDY)
        )


def undamaged(row: MappingRow) -> MappingRow:
    """Returns the row; raises ServiceUnavailable if it is damaged."""
    if row.damage:
        raise ServiceUnavailable(row.damage)
    return row


def lease(values: Values, memo: bytes) -> Lease:
    """Makes a shard's lease; raises ServiceUnavailable if a value is damaged."""
    try:
        position = _read(values, "position", _position)
        if _read(values, "position_key", text) != position.sort_key():
            raise ValueError("position_key is not that of position")
        owner = _read(values, "owner", text) if values.get("owner") is not None else None
        return Lease(
            ShardId(_read(values, "shard", text)),
            _read(values, "parents", _names),
            Checkpoint(position, memo),
            WorkerId(owner) if owner is not None else None,
            _read(values, "epoch", whole),
        )
    except ValueError as error:
        raise ServiceUnavailable(
            _damage_text(f"shard {shown(values.get('shard'))}", error, LEASE_REMEDY)
        ) from error


def worker_row(values: Values) -> WorkerRow:
    """Makes a worker's row. Damaged values count as empty, since a living worker writes its row again within a second."""
    return WorkerRow(
        WorkerId(shown(values.get("worker"))),
        _or(COUNTER_UNKNOWN, values, "counter", whole),
        _or({}, values, "facts", json_object),
    )


def digest_row(worker: Any, content: Any) -> DigestRow:
    """Makes a worker's digest. A damaged one is empty, since a living worker writes it again within a minute."""
    return DigestRow(
        WorkerId(shown(worker)), bytes(content) if isinstance(content, bytes | bytearray) else b""
    )


def text(value: Any) -> str:
    """Checks a text that is not empty and can be encoded in UTF-8."""
    if not isinstance(value, str) or not value:
        raise ValueError("is no text")
    value.encode()
    return value


def flag(value: Any) -> bool:
    """Checks a bool, which may be stored as 0 or 1."""
    if value not in (0, 1):
        raise ValueError("is neither true nor false")
    return bool(value)


def whole(value: Any) -> int:
    """Checks a whole number that is not negative."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < NUMBER_MAX:
        raise ValueError("is no whole number in its range")
    return value


def moment(value: Any) -> float:
    """Checks a time in epoch seconds."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < MOMENT_MAX:
        raise ValueError("is no moment")
    return float(value)


def json_object(value: Any) -> dict[str, Any]:
    """Parses a JSON text that contains an object."""
    found = _json(value)
    if not isinstance(found, dict):
        raise ValueError("is no JSON object")
    return found


def json_list(value: Any) -> list[Any]:
    """Parses a JSON text that contains a list."""
    found = _json(value)
    if not isinstance(found, list):
        raise ValueError("is no JSON list")
    return found


def shown(name: Any) -> str:
    """Returns the name of a row in a form that can be shown, whatever type it has."""
    return name if is_text(name) else repr(name)[:SHOWN_CHARS_MAX]


def is_text(name: Any) -> bool:
    """Whether this is a text that `text` accepts."""
    try:
        return bool(text(name))
    except ValueError:
        return False


def _json(value: Any) -> Any:
    return json.loads(
        text(value), parse_constant=_no_number, parse_float=_finite, parse_int=numbers.bounded_json_whole
    )


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _position(value: Any) -> Position:
    found = Position.decode(text(value))
    if found.encode() != value:
        raise ValueError("is no position")
    return found


def _names(value: Any) -> tuple[ShardId, ...]:
    found = value if isinstance(value, list) else json_list(value)
    return tuple(ShardId(text(name)) for name in found)


def _read[T](values: Values, name: str, parse: Callable[[Any], T]) -> T:
    """Parses one attribute; raises ValueError that names it."""
    if name not in values:
        raise ValueError(f"{name} is missing")
    try:
        return parse(values[name])
    except PARSE_ERRORS as error:
        raise ValueError(f"{name}: {str(error) or type(error).__name__}") from error


def _or[T](otherwise: T, values: Values, name: str, parse: Callable[[Any], T]) -> T:
    try:
        return _read(values, name, parse)
    except ValueError:
        return otherwise


def _damage_text(row: str, error: ValueError, remedy: str) -> str:
    said, why = (line_of(each, chars_max=SHOWN_CHARS_MAX) for each in (row, str(error)))
    return f"the row of {said} in the store is damaged: {why}; {remedy}"
