"""What tests of aliases share."""

import pytest


@pytest.fixture
def each_step_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets each step of progress be written, and not one every ten seconds."""
    monkeypatch.setattr("poller.output.progress_line.PLAIN_EVERY_S", 0.0)
