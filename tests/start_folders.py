"""Owns how a test acts as if its process had been started in another folder, or had left that folder since."""

from pathlib import Path

import pytest


def start_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Makes `folder` the current directory, and the folder of the start."""
    patch.chdir(folder)
    patch.setattr("poller.start_folder._STARTED_IN", folder)


def go_elsewhere(elsewhere: Path, patch: pytest.MonkeyPatch, *, removed: bool) -> None:
    """Changes the current directory to `elsewhere`, which is made, and is removed again if `removed`."""
    elsewhere.mkdir()
    patch.chdir(elsewhere)
    if removed:
        elsewhere.rmdir()
