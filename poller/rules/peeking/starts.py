"""Owns how an operator writes where in a shard to look, and what that means."""

from dataclasses import dataclass

from poller.domain.records import SEQUENCE_DIGITS_MAX, Epoch, Position
from poller.domain.streams.places import before_part, is_name
from poller.domain.untrusted import numbers
from poller.domain.untrusted.texts import line_of

SECONDS_DIGITS_MAX = 12
"""A longer number is a sequence number, which has 20 digits or more at AWS."""
SHOWN_CHARS_MAX = 100
FORMS = (
    "write TRIM_HORIZON, LATEST, fault, position, a time (2026-01-31T08:00:00Z, or seconds since 1970), "
    "a sequence number, or AFTER: and a sequence number"
)


class UnknownStart(ValueError):
    """A text that names no place in a shard. The text of the error says what to write."""


@dataclass(frozen=True, slots=True)
class FromFault:
    """At the batch that blocks the shard. `required`: an error if nothing blocks it; else where the mapping goes on."""

    required: bool


@dataclass(frozen=True, slots=True)
class FromStored:
    """Where the mapping goes on: behind what it has settled."""


@dataclass(frozen=True, slots=True)
class FromLatest:
    """Behind the newest record."""


@dataclass(frozen=True, slots=True)
class FromRecord:
    """At the record with this sequence number."""

    sequence_number: str


@dataclass(frozen=True, slots=True)
class FromPosition:
    """At the first record behind a position."""

    position: Position


type PeekStart = FromFault | FromStored | FromLatest | FromRecord | FromPosition

_WORDS: dict[str, PeekStart] = {
    "": FromFault(required=False),
    "fault": FromFault(required=True),
    "position": FromStored(),
    "latest": FromLatest(),
    "trim_horizon": FromPosition(Position.horizon()),
}


def parse_start(text: str) -> PeekStart:
    """The place that a text names; raises UnknownStart. Positions as a status shows them are understood, too."""
    wanted = text.strip()
    word = _WORDS.get(wanted.lower().replace("-", "_"))
    if word is not None:
        return word
    kind, colon, number = wanted.partition(":")
    if colon and kind.upper() in {"AFTER", "AT"} and _is_sequence(number):
        return FromRecord(number) if kind.upper() == "AT" else FromPosition(Position.after(number))
    if wanted.startswith(("AT_TIMESTAMP:", "AFTER:")):
        return _stored(wanted)
    if _is_sequence(wanted) and len(wanted) > SECONDS_DIGITS_MAX:
        return FromRecord(wanted)
    if colon and is_name(wanted) and len(kind) > SECONDS_DIGITS_MAX:
        before = before_part(wanted)
        return FromRecord(kind) if before is None else FromPosition(Position.after(before))
    moment = numbers.iso_moment(wanted, default=None)
    if moment is None or wanted.isdecimal():
        # A date without dashes is a number, too.
        moment = numbers.moment(wanted, default=None)
    if moment is None:
        raise UnknownStart(f"{_shown(text)} is no place in a shard; {FORMS}")
    return FromPosition(Position.at(Epoch(moment)))


def _stored(text: str) -> FromPosition:
    try:
        return FromPosition(Position.decode(text))
    except ValueError:
        raise UnknownStart(f"{_shown(text)} is no position; {FORMS}") from None


def _is_sequence(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= SEQUENCE_DIGITS_MAX


def _shown(text: str) -> str:
    return repr(line_of(text, chars_max=SHOWN_CHARS_MAX))
