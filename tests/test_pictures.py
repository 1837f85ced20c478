"""The pictures in the documentation are there, are what their names claim, and none lies there unused."""

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.control.page.browser import NARROW, WIDE
from tests.adapters.control.page.pictures import pictures
from tests.adapters.control.page.small_png import SIGNATURE

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "use" / "pictures"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_PICTURE = re.compile(r"!\[(?P<says>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_CLAIMED = re.compile(r"-(?P<width>\d+)\.png$")
HEIGHT_MIN = 400


def shown() -> Iterator[tuple[Path, str, Path]]:
    """Each picture that a page shows: the page, the text for those who do not see it, and its file."""
    for page in PAGES:
        for found in _PICTURE.finditer(page.read_text(encoding="utf-8")):
            yield page, found["says"], (page.parent / found["target"]).resolve()


def size(png: bytes) -> tuple[int, int]:
    """The width and height of a PNG in points. Raises AssertionError for anything that is no whole PNG."""
    assert png.startswith(SIGNATURE), "no PNG"
    at, names, found = len(SIGNATURE), [], (0, 0)
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        name, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length) == (zlib.crc32(name + body),), "damaged"
        if name == b"IHDR":
            found = struct.unpack_from(">II", body)
        names.append(name)
        at += 12 + length
    assert (names[0], names[-1]) == (b"IHDR", b"IEND"), "not whole"
    return found


def test_each_picture_that_a_page_shows_is_a_png_of_the_width_that_its_name_claims() -> None:
    for page, says, file in shown():
        claimed = _CLAIMED.search(file.name)
        assert claimed, f"{page}: {file.name} does not end with its width"
        width, height = size(file.read_bytes())
        assert width == int(claimed["width"]), file.name
        assert height >= HEIGHT_MIN, file.name
        assert len(says) > len(file.stem), f"{page}: {file.name} has no text for those who do not see it"


def test_pages_show_each_picture_of_the_folder_and_each_that_is_made() -> None:
    files = {file.resolve() for file in FOLDER.iterdir()}
    made = {FOLDER / f"page-{picture.name}-{width}.png" for picture in pictures() for width in (NARROW, WIDE)}
    assert {file for _, _, file in shown()} == files
    assert files == made


@pytest.mark.parametrize("place", [0, 60, -8])
def test_a_damaged_picture_is_seen(place: int) -> None:
    png = bytearray((FOLDER / f"page-blocked-shard-{WIDE}.png").read_bytes())
    png[place] ^= 1
    with pytest.raises(AssertionError):
        size(bytes(png))


def test_half_a_picture_is_seen() -> None:
    png = (FOLDER / f"page-blocked-shard-{WIDE}.png").read_bytes()
    with pytest.raises((AssertionError, struct.error)):
        size(png[: len(png) // 2])
