"""Owns the lineage in a trace header: how often each function was called in one chain of calls (aws-behaviour#recursion).

A trace header is `Root=…;Parent=…;Sampled=…;Lineage=HASH:COUNT|HASH:COUNT`. Whoever sends an event on passes the header on. So a loop of
functions that call each other shows as a count that grows. Anything that cannot be read counts as no lineage: the header comes from
outside, and a call must not fail because of it.
"""

import re
import zlib
from collections.abc import Mapping

from poller.domain.untrusted.numbers import whole

HEADER_CHARS_MAX = 1024
"""A longer trace header is ignored."""
FUNCTIONS_MAX = 32
"""Functions that a lineage keeps. The ones that were called least are dropped first."""
COUNT_MAX = 10**15
_LINEAGE = "lineage"
_HASH = re.compile(r"[0-9a-f]{8}", re.ASCII)
_PLAIN = re.compile(r"[\x21-\x7e]*", re.ASCII)


def usable(header: str) -> str:
    """The header if it can be passed on as one: a text of printable ASCII that is not too long; else empty."""
    return header if len(header) <= HEADER_CHARS_MAX and _PLAIN.fullmatch(header) else ""


def rounds_of(header: str, arn: str) -> int:
    """How often the function was called before in the chain of calls that a trace header belongs to."""
    return _counts(header).get(lineage_hash(arn), 0)


def extended(header: str, arn: str, *, root: str) -> str:
    """The trace header for a call of the function: the same chain, with one more call. `root` is used if there is no chain yet."""
    counts = dict(_counts(header))
    own = lineage_hash(arn)
    counts[own] = counts.get(own, 0) + 1
    kept = sorted(counts.items(), key=lambda each: (each[0] != own, -each[1], each[0]))[:FUNCTIONS_MAX]
    members = [each for each in _members(header) if each.partition("=")[0].lower() != _LINEAGE]
    if not any(each.lower().startswith("root=") for each in members):
        members = [f"Root={root}", *members]
    lineage = "|".join(f"{name}:{count}" for name, count in kept)
    return ";".join([*members, f"Lineage={lineage}"])


def lineage_hash(arn: str) -> str:
    """The name of a function in a lineage: eight hexadecimal digits, the same for all its versions and aliases."""
    parts = arn.split(":")
    return f"{zlib.crc32(':'.join(parts[:7]).encode('utf-8', 'replace')):08x}"


def _counts(header: str) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for member in _members(header):
        name, _, value = member.partition("=")
        if name.lower() != _LINEAGE:
            continue
        for entry in value.split("|"):
            # AWS has written HASH:COUNT, and also a number before them.
            found, _, count = entry.rpartition(":")
            found = found.rpartition(":")[2]
            number = whole(count, least=1, most=COUNT_MAX, default=None)
            if _HASH.fullmatch(found) and number is not None:
                counts[found] = max(number, counts.get(found, 0))
    return counts


def _members(header: str) -> list[str]:
    if len(header) > HEADER_CHARS_MAX or not _PLAIN.fullmatch(header):
        return []
    return [each for each in header.split(";") if "=" in each]
