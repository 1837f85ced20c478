"""Owns how a picture of a browser becomes small: rare colours become their neighbours, and a point is one byte, not three."""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import partial

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TRUE_COLOUR, PALETTE, TRUE_COLOUR_ALPHA = 2, 3, 6
COLOURS_MAX = 256


def small_png(png: bytes) -> bytes:
    """The same picture, with 256 colours at most. `png` has eight bits a part and is not interlaced."""
    chunks = list(_chunks(png))
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, interlaced) == (8, 0)
    bytes_a_point = {TRUE_COLOUR: 3, TRUE_COLOUR_ALPHA: 4}[kind]
    data = zlib.decompress(b"".join(body for name, body in chunks if name == b"IDAT"))
    points = [
        row[at : at + 3]
        for row in _rows(data, width * bytes_a_point, bytes_a_point)
        for at in range(0, width * bytes_a_point, bytes_a_point)
    ]
    colours = _few_colours(points)
    palette = sorted(set(colours.values()))
    place = {colour: number for number, colour in enumerate(palette)}
    indexed = {colour: place[nearest] for colour, nearest in colours.items()}
    flat = bytes(indexed[point] for point in points)
    lines = b"".join(b"\0" + flat[at : at + width] for at in range(0, width * height, width))
    header = struct.pack(">IIBBBBB", width, height, 8, PALETTE, 0, 0, 0)
    made = (
        (b"IHDR", header),
        (b"PLTE", b"".join(palette)),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    return SIGNATURE + b"".join(_chunk(name, body) for name, body in made)


def _few_colours(points: list[bytes]) -> dict[bytes, bytes]:
    """For each colour the one that stands for it: itself if it is common, else the common one that is nearest."""
    counts = Counter(points)
    common = [colour for colour, _ in counts.most_common(COLOURS_MAX)]
    return {colour: min(common, key=partial(_distance, colour)) for colour in counts}


def _distance(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    assert png.startswith(SIGNATURE)
    at = len(SIGNATURE)
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _rows(data: bytes, length: int, step: int) -> Iterator[bytes]:
    """The rows without their filters, each of which says how a byte differs from those left of and above it."""
    above = bytearray(length)
    for at in range(0, len(data), length + 1):
        kind, row = data[at], bytearray(data[at + 1 : at + 1 + length])
        for place in range(length):
            left = row[place - step] if place >= step else 0
            corner = above[place - step] if place >= step else 0
            row[place] = (row[place] + _predicted(kind, left, above[place], corner)) & 0xFF
        yield bytes(row)
        above = row


def _predicted(kind: int, left: int, up: int, corner: int) -> int:
    match kind:
        case 0:
            return 0
        case 1:
            return left
        case 2:
            return up
        case 3:
            return (left + up) // 2
        case _:
            nearest = left + up - corner
            distances = (abs(nearest - left), abs(nearest - up), abs(nearest - corner))
            return (left, up, corner)[distances.index(min(distances))]
