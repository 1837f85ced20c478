"""Owns the browser that the tests of this folder share, and the room that each of them has."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.control.page.browser import Browser, browser
from tests.adapters.control.page.scenes import Room


@pytest.fixture(scope="session")
def shared_browser() -> Iterator[Browser]:
    """One browser for this process of the test run; each page in it is fresh."""
    with browser() as found:
        yield found


@pytest.fixture
def room(shared_browser: Browser, tmp_path: Path) -> Room:
    """A folder of its own, and the browser."""
    return Room(tmp_path, shared_browser)
