"""Owns how text is parsed as an IP address or a range of addresses, as Event Ruler does."""

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address

from poller.rules.filtering.errors import InvalidPattern

Address = bytes
"""An address in network byte order: 4 bytes for IPv4, 16 for IPv6."""

_IPV4 = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
_IPV6 = re.compile(r"[0-9a-fA-F:]*:[0-9a-fA-F:]*")
_MASK = re.compile(r"[+-]?[0-9]{1,10}")
_IPV4_CHARS_MAX = 15
_IPV6_CHARS_MAX = 39
_OCTET_MAX = 255
_MASK_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class AddressRange:
    """All addresses of one family from `low` to `high`, both included."""

    low: Address
    high: Address

    def __contains__(self, address: Address) -> bool:
        return len(address) == len(self.low) and self.low <= address <= self.high


class AddressSet:
    """The union of address ranges. A text is parsed once for all of them, and found in the time of a binary search."""

    def __init__(self, ranges: Iterable[AddressRange]) -> None:
        self._bounds: dict[int, tuple[list[Address], list[Address]]] = {}
        """By the length of an address: the lows and the highs of ranges that do not overlap, in order."""
        for each in sorted(ranges, key=lambda each: (len(each.low), each.low)):
            lows, highs = self._bounds.setdefault(len(each.low), ([], []))
            if highs and each.low <= highs[-1]:
                highs[-1] = max(highs[-1], each.high)
            else:
                lows.append(each.low)
                highs.append(each.high)

    def holds(self, text: str) -> bool:
        """Whether the text is an address in one of the ranges."""
        address = parse_address(text)
        if address is None or len(address) not in self._bounds:
            return False
        lows, highs = self._bounds[len(address)]
        at = bisect_right(lows, address) - 1
        return at >= 0 and address <= highs[at]


def parse_address(text: str) -> Address | None:
    """The address in `text`, or None if it is not one. An IPv4 address inside IPv6 (`::ffff:a00:5`) is IPv4."""
    if len(text) > _IPV6_CHARS_MAX:
        # The limit also bounds the time: the search for the colons of an IPv6 address is quadratic in a text of colons.
        return None
    if _IPV4.fullmatch(text):
        return _parse_ipv4(text)
    if _IPV6.fullmatch(text):
        return _parse_ipv6(text)
    return None


def parse_cidr(text: str) -> AddressRange:
    """The block of addresses of a CIDR text: `10.0.0.5/24` is 10.0.0.0 to 10.0.0.255.

    Raises InvalidPattern for a malformed address or mask. The mask must be below 32 (IPv4) or 128 (IPv6).
    """
    parts = text.split("/")
    if len(parts) != 2:
        raise InvalidPattern("Malformed CIDR, one '/' required")
    mask = _parse_mask(parts[1])
    address = parse_address(parts[0])
    if address is None:
        raise InvalidPattern(f"Nonstandard IP address: {parts[0]}")
    bits = 8 * len(address)
    if mask >= bits:
        raise InvalidPattern(f"IPv{4 if bits == 32 else 6} mask bits must be < {bits}")
    free = (1 << (bits - mask)) - 1
    low = int.from_bytes(address) & ~free
    return AddressRange(low.to_bytes(len(address)), (low | free).to_bytes(len(address)))


def _parse_mask(text: str) -> int:
    if not _MASK.fullmatch(text) or abs(int(text)) > _MASK_MAX:
        raise InvalidPattern("Malformed CIDR, mask bits must be an integer")
    mask = int(text)
    if mask < 0:
        raise InvalidPattern("Malformed CIDR, mask bits must not be negative")
    return mask


def _parse_ipv4(text: str) -> Address | None:
    if len(text) > _IPV4_CHARS_MAX:
        return None
    # Numbers with leading zeros are read as decimal, as Event Ruler does. Python's own parser refuses them.
    octets = [int(part) for part in text.split(".")]
    return bytes(octets) if max(octets) <= _OCTET_MAX else None


def _parse_ipv6(text: str) -> Address | None:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        return None
    mapped = address.ipv4_mapped
    return address.packed if mapped is None else mapped.packed
