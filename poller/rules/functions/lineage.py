"""Owns the lineage in a trace header: how often each function was called in one chain of calls (aws-behaviour#recursion).

A trace header is `Root=…;Parent=…;Sampled=…;Lineage=HASH:COUNT|HASH:COUNT`. Whoever sends an event on passes the header on. So a loop of
functions that call each other shows as a count that grows. Anything that cannot be read counts as no lineage: the header comes from
outside, and a call must not fail because of it.
"""

import re
import zlib
from collections.abc import Iterator, Mapping

from poller.domain.functions.tracing import fitting, members
from poller.domain.untrusted.numbers import whole

FUNCTIONS_MAX = 32
"""Functions that a lineage keeps. The ones that were called least are dropped first."""
COUNT_MAX = 10**15
LINEAGE_CHARS_MAX = 512
"""A longer lineage is cut, so that it has its place in any header."""
MEMBER_CHARS_MAX = 128
"""How long root, parent and sampling may be. Longer ones are none, and are left out."""
_LINEAGE = "lineage"
_NAMES = frozenset({"root", "parent", "sampled"})
_HASH = re.compile(r"[0-9a-f]{8}", re.ASCII)


def usable(header: str) -> str:
    """The header as it can be passed on: its members, if it is a text of printable ASCII that is not too long; else empty."""
    return ";".join(members(header))


def rounds_of(header: str, arn: str) -> int:
    """How often the function was called before in the chain of calls that a trace header belongs to."""
    return _counts(header).get(lineage_hash(arn), 0)


def extended(header: str, arn: str, *, root: str) -> str:
    """The trace header for a call of the function: the same chain, with one more call. `root` is used if there is no chain yet.

    It is never longer than a header may be, and always has the lineage: otherwise a loop would be noticed by nobody.
    """
    counts = dict(_counts(header))
    own = lineage_hash(arn)
    counts[own] = counts.get(own, 0) + 1
    ordered = sorted(counts.items(), key=lambda each: (each[0] != own, -each[1], each[0]))[:FUNCTIONS_MAX]
    kept = list(_others(header))
    if not any(_name(each) == "root" for each in kept):
        kept = [f"Root={root}", *kept]
    return fitting([*kept, f"Lineage={_text(ordered)}"])


def _others(header: str) -> Iterator[str]:
    """The members of a header without its lineage. Of root, parent and sampling there is one each."""
    seen: set[str] = set()
    for each in members(header):
        name = _name(each)
        known = name in _NAMES
        if name == _LINEAGE or (known and (name in seen or len(each) > MEMBER_CHARS_MAX)):
            continue
        seen.add(name)
        yield each


def _text(counts: list[tuple[str, int]]) -> str:
    text = ""
    for name, count in counts:
        longer = f"{text}|{name}:{count}" if text else f"{name}:{count}"
        if len(longer) > LINEAGE_CHARS_MAX:
            break
        text = longer
    return text


def lineage_hash(arn: str) -> str:
    """The name of a function in a lineage: eight hexadecimal digits, the same for all its versions and aliases."""
    parts = arn.split(":")
    return f"{zlib.crc32(':'.join(parts[:7]).encode('utf-8', 'replace')):08x}"


def _counts(header: str) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for member in members(header):
        if _name(member) != _LINEAGE:
            continue
        for entry in member.partition("=")[2].split("|"):
            # AWS has written HASH:COUNT, and also a number before them.
            found, _, count = entry.rpartition(":")
            found = found.rpartition(":")[2]
            number = whole(count, least=1, most=COUNT_MAX, default=None)
            if _HASH.fullmatch(found) and number is not None:
                counts[found] = max(number, counts.get(found, 0))
    return counts


def _name(member: str) -> str:
    return member.partition("=")[0].strip().lower()
