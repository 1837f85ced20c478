"""Owns answers of GetRecords with something in them that is not documented: read record by record.

One odd record stops none that came before it. A record that cannot be read at all stops its shard until the source
gives it in another form or drops it, since nothing may be passed over in silence.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from poller.domain.errors import RecordUnreadable
from poller.domain.records import SEQUENCE_DIGITS_MAX, Epoch, JsonObject, Record
from poller.domain.untrusted import numbers

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_WHOLE_MAX = 10**100


@dataclass(frozen=True, slots=True)
class Read[R: Record]:
    """The records of one answer up to the first that cannot be read; `trouble` says which and why, or is empty."""

    records: list[R]
    following: str | None
    behind_ms: int | None = None
    trouble: str = ""
    ended: bool = False
    """Whether the service names the shards that follow."""

    def followed_by(self, again: Self) -> str | None:
        """The iterator behind these records, which were asked for alone; None when the answer has not just them."""
        numbers, others = ([each.sequence_number for each in read.records] for read in (self, again))
        return None if again.trouble or numbers != others else again.following

    def check(self, operation: str) -> None:
        """Raises RecordUnreadable when the first record is the one that cannot be read."""
        if self.trouble and not self.records:
            raise RecordUnreadable(f"{operation}: {self.trouble}")


def read_singly[R: Record](body: bytes, read: Callable[[JsonObject], R]) -> Read[R]:
    """An answer whose records are read one by one; raises ValueError when it is no answer at all.

    `read` raises ValueError for a record that cannot be read.
    """
    answer = json_object(body)
    following, behind_ms = answer.get("NextShardIterator"), answer.get("MillisBehindLatest")
    wires = answer.get("Records")
    if not isinstance(following, str | None) or not isinstance(wires, list):
        # Without Records it is not known whether there were any; the iterator may be behind them.
        raise ValueError("members of other types")
    ended = bool(answer.get("ChildShards")) and following is None
    found: Read[R] = Read([], following, behind_ms if isinstance(behind_ms, int) else None, ended=ended)
    for wire in wires:
        try:
            found.records.append(read(wire))
        except ValueError as error:
            return Read(found.records, following, found.behind_ms, f"{_named(wire)} cannot be read: {error}")
    return found


def json_object(text: bytes) -> dict[str, Any]:
    """A JSON object, half surrogate pairs included; raises ValueError for anything else."""
    value = json.loads(text, parse_constant=_no_number, parse_int=_whole)
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _whole(digits: str) -> int:
    found = numbers.whole(digits, least=-_WHOLE_MAX, most=_WHOLE_MAX, default=None)
    if found is None:
        raise ValueError("a number is too large")
    return found


def member(wire: object, name: str) -> Any:
    """A member of an object, None when it is absent or null; raises ValueError when there is no object."""
    if not isinstance(wire, dict):
        raise ValueError(f"there is no object that could have {name}")
    return wire.get(name)


def text(wire: object, name: str) -> str | None:
    """A text, None when it is absent or null; raises ValueError for another type."""
    value = member(wire, name)
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"{name} is no text")


def sequence_number(wire: object) -> str:
    """The SequenceNumber; raises ValueError when it is none."""
    number = text(wire, "SequenceNumber")
    if number is None or not are_numbers([number]):
        raise ValueError("SequenceNumber is no sequence number")
    return number


def are_numbers(texts: Sequence[str]) -> bool:
    """Whether these texts are sequence numbers: decimal digits. Looked at together, since a page has thousands."""
    if not texts:
        return True
    together, lengths = "".join(texts), set(map(len, texts))
    # A text's own isdecimal takes ten times as long as that of its bytes.
    digits = together.isascii() and together.encode().isdigit()
    return digits and min(lengths) > 0 and max(lengths) <= SEQUENCE_DIGITS_MAX


def is_base64(data: str) -> bool:
    """Whether a text has nothing but base64's characters."""
    # A regular expression takes nearly twice as long.
    return data.isascii() and not data.encode().translate(None, _BASE64)


def moment(wire: object, name: str, *, otherwise: Epoch) -> Epoch:
    """Epoch seconds; `otherwise` when the member is absent or no time that a date can show."""
    value = member(wire, name)
    if isinstance(value, str):
        return otherwise
    return Epoch(numbers.moment(value, default=otherwise))


def _named(wire: object) -> str:
    """A record for people, who may have to step over it."""
    inner = wire.get("dynamodb", wire) if isinstance(wire, dict) else None
    number = inner.get("SequenceNumber") if isinstance(inner, dict) else None
    known = isinstance(number, str) and are_numbers([number])
    return f"record {number}" if known else "a record without sequence number"


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
