"""Owns the slow way to read an answer of GetRecords: record by record, when it does not have the documented form.

An odd record does not keep back the records before it. A record that cannot be read at all blocks its shard until the service
returns it in another form or drops it, since no record may be skipped silently.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from poller.domain.errors import RecordUnreadable
from poller.domain.records import SEQUENCE_DIGITS_MAX, Epoch, JsonObject, Record
from poller.domain.untrusted import numbers

BEHIND_MS_MAX = 10**12
"""Thirty years. A larger number is taken for this one."""
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="


@dataclass(frozen=True, slots=True)
class Read[R: Record]:
    """The records of one answer up to the first unreadable one; `trouble` says which one that is and why, or is empty."""

    records: list[R]
    following: str | None
    behind_ms: int | None = None
    trouble: str = ""
    ended: bool = False
    """Whether the shard ends here: the service named its child shards."""

    def followed_by(self, again: Self) -> str | None:
        """Returns the iterator that follows these records, if the answer `again` has exactly them; None otherwise."""
        numbers, others = ([each.sequence_number for each in read.records] for read in (self, again))
        return None if again.trouble or numbers != others else again.following

    def check(self, operation: str) -> None:
        """Raises RecordUnreadable if the first record is the unreadable one."""
        if self.trouble and not self.records:
            raise RecordUnreadable(f"{operation}: {self.trouble}")


def read_singly[R: Record](body: bytes, read: Callable[[JsonObject], R]) -> Read[R]:
    """Reads the records of an answer one by one; raises ValueError if it is no answer at all.

    `read` must raise ValueError for an unreadable record.
    """
    return read_members(json_object(body), read)


def read_members[R: Record](answer: JsonObject, read: Callable[[JsonObject], R]) -> Read[R]:
    """The same of an answer that is parsed already."""
    following, behind_ms = answer.get("NextShardIterator"), answer.get("MillisBehindLatest")
    wires = answer.get("Records")
    if not isinstance(following, str | None) or not isinstance(wires, list):
        # An answer without Records may have lost some, and its iterator may already be after them.
        raise ValueError("members of other types")
    ended = bool(answer.get("ChildShards")) and following is None
    found: Read[R] = Read([], following, behind_of(behind_ms), ended=ended)
    for wire in wires:
        try:
            found.records.append(read(wire))
        except ValueError as error:
            return Read(
                found.records, following, found.behind_ms, f"{_record_name(wire)} cannot be read: {error}"
            )
    return found


def behind_of(behind_ms: object) -> int | None:
    """How many milliseconds a reader is behind, by what an answer says; None if that is no number.

    Below 0 stands for 0: by the clock that the service compares with, the reader is ahead of the last record.
    """
    return numbers.whole(behind_ms, most=BEHIND_MS_MAX, default=None, clamp=True)


def json_object(text: bytes) -> dict[str, Any]:
    """Parses a JSON object, which may contain lone surrogates; raises ValueError for anything else."""
    value = json.loads(text, parse_constant=_no_number, parse_int=numbers.bounded_json_whole)
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def member(wire: object, name: str) -> Any:
    """Returns a member of an object, None if it is absent or null; raises ValueError if `wire` is no object."""
    if not isinstance(wire, dict):
        raise ValueError(f"there is no object that could have {name}")
    return wire.get(name)


def text(wire: object, name: str) -> str | None:
    """Returns a text member, None if it is absent or null; raises ValueError for another type."""
    value = member(wire, name)
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"{name} is no text")


def sequence_number(wire: object) -> str:
    """Returns the member SequenceNumber; raises ValueError if it is not a valid one."""
    number = text(wire, "SequenceNumber")
    if number is None or not are_numbers([number]):
        raise ValueError("SequenceNumber is no sequence number")
    return number


def are_numbers(texts: Sequence[str]) -> bool:
    """Whether these texts are sequence numbers, that is decimal digits. They are checked together, since a page has thousands."""
    if not texts:
        return True
    together, lengths = "".join(texts), set(map(len, texts))
    # `str.isdecimal` takes ten times as long as `bytes.isdigit`.
    digits = together.isascii() and together.encode().isdigit()
    return digits and min(lengths) > 0 and max(lengths) <= SEQUENCE_DIGITS_MAX


def is_base64(data: str) -> bool:
    """Whether a text consists of base64 characters only."""
    # A regular expression takes nearly twice as long.
    return data.isascii() and not data.encode().translate(None, _BASE64)


def moment(wire: object, name: str) -> Epoch | None:
    """Returns a member as epoch seconds; None if it is absent or not a time that a date can show."""
    value = member(wire, name)
    found = None if isinstance(value, str) else numbers.moment(value, default=None)
    return None if found is None else Epoch(found)


def _record_name(wire: object) -> str:
    """Names a record in an error text. An operator may need its number to skip it."""
    inner = wire.get("dynamodb", wire) if isinstance(wire, dict) else None
    number = inner.get("SequenceNumber") if isinstance(inner, dict) else None
    known = isinstance(number, str) and are_numbers([number])
    return f"record {number}" if known else "a record without sequence number"


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
