"""Owns how moments and durations are written for people."""

from datetime import UTC, datetime

from poller.domain.records import Epoch

SECOND_MS = 1000


def moment(when: Epoch) -> str:
    """`when` as ISO text in UTC. A moment outside the calendar is shown as a number of seconds."""
    try:
        return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{when:g}"


def span(seconds: float) -> str:
    """A duration in short form: 0.4 s, 12 s, 5 min, 3 h, 2 d."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
