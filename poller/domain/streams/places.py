"""Owns the places of records in a shard: by their sequence numbers, and by parts where an aggregated record is taken apart.

    place         of                                                    begins       ends
    700           a whole record                                        700, 0       700, last
    700:0/3       the first part of an aggregated record of three       700, 0       700, 0
    700:2/3       its last part                                         700, 2       700, last

Each place is a range of numbers, so that places can be compared whether a record was taken apart or not: a whole record begins where its
first part begins, and ends where its last part ends. `name_of` is what functions and people call it: 700, or 700:2.
"""

import re

NAME_CHARS_MAX = 129 + 8
"""AWS's limit for sequence numbers, and a part."""
_NAME = re.compile(r"[0-9]{1,129}(:[0-9]{1,7})?", re.ASCII)
PART_BITS = 24
"""A record of 10 MiB has fewer parts than 2 to this power."""
WHOLE = (1 << PART_BITS) - 1
"""Stands for the last part, however many there are."""


def begin_of(place: str) -> int:
    """Where a place, or one with this name, begins."""
    try:
        return int(place) << PART_BITS
    except ValueError:
        sequence, part, _ = _parts(place)
        return int(sequence) << PART_BITS | part


def end_of(place: str) -> int:
    """Where a place, or one with this name, ends. The name of a last part does not say that it is the last."""
    try:
        return int(place) << PART_BITS | WHOLE
    except ValueError:
        sequence, part, last = _parts(place)
        return int(sequence) << PART_BITS | (WHOLE if last else part)


def place_of_part(sequence_number: str, part: int, parts: int) -> str:
    """The place of one part of an aggregated record. Parts count from 0."""
    return f"{sequence_number}:{part}/{parts}"


def name_of(place: str) -> str:
    """What functions and people call the place."""
    return place.partition("/")[0]


def is_called(place: str, name: str) -> bool:
    """Whether the record at a place has this name. A sequence number alone is also the name of a record's first part."""
    return begin_of(place) == begin_of(name)


def sequence_of(place: str) -> str:
    """The sequence number of the whole record, as the service wrote it."""
    return place.partition(":")[0]


def before_part(name: str) -> str | None:
    """The name of the part before this one; None for a first part, and for a whole record."""
    part = begin_of(name) & WHOLE
    return f"{sequence_of(name)}:{part - 1}" if part else None


def text_of_begin(begin: int) -> str:
    """The name of the place that begins here. It has no part where that is the first one, or the record is whole."""
    sequence, part = begin >> PART_BITS, begin & WHOLE
    return f"{sequence}:{part}" if part else str(sequence)


def text_of_end(end: int) -> str:
    """The name of the place that ends here. It has no part where that is the last one, or the record is whole."""
    sequence, part = end >> PART_BITS, end & WHOLE
    return str(sequence) if part == WHOLE else f"{sequence}:{part}"


def is_name(text: str) -> bool:
    """Whether a text from outside is the name of a place."""
    return len(text) <= NAME_CHARS_MAX and _NAME.fullmatch(text) is not None


def _parts(place: str) -> tuple[str, int, bool]:
    """The sequence number, the part, and whether it is known to be the last one."""
    sequence, _, rest = place.partition(":")
    part, _, parts = rest.partition("/")
    return sequence, int(part), bool(parts) and int(part) + 1 == int(parts)
