"""Owns which version a call of an alias gets, by a hash, so that the same choice text always leads to the same version.

The hash gives each text a point in [0, 1). A call goes to the new version if its point is below the share of the new version. So a
share that grows moves calls from the old version to the new one and none back, and the tries of one batch stay together.
"""

from collections.abc import Mapping
from hashlib import blake2b

_BYTES = 8
_POINTS = 2**53
"""A float has so many bits: more of them could round up to 1."""


def point(text: str) -> float:
    """The point of a choice text in [0, 1)."""
    found = int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest())
    return found % _POINTS / _POINTS


def chosen(version: str, weights: Mapping[str, float], text: str) -> str:
    """`version`, or one of the others, each of which has its share of all texts."""
    if not weights:
        return version
    left = point(text)
    for other, share in weights.items():
        if left < share:
            return other
        left -= share
    return version
