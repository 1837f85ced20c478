"""Owns the exceptions that a port may raise. The docstring of each says what the caller does next."""

from poller.domain.untrusted.texts import line_of, lines_of

REASON_CHARS_MAX = 1024
PROBLEM_CHARS_MAX = 4096


class PortError(Exception):
    """An expected failure at a port. `reason` is one line for people, without secrets or payloads; it is cleaned and cut here."""

    def __init__(self, reason: str) -> None:
        self.reason = line_of(reason, chars_max=REASON_CHARS_MAX)
        super().__init__(self.reason)


class ServiceThrottled(PortError):
    """The service has no room. Wait with back-off and jitter, then repeat the call."""


class ServiceUnavailable(PortError):
    """No answer, a broken answer or a fault of the service. Wait with back-off, then repeat the call."""


class AccessDenied(PortError):
    """The credentials do not allow this call. Show the error, wait long, then repeat: somebody may grant the permission."""


class ResourceMissing(PortError):
    """The stream, queue, shard or target does not exist. Show the error, wait long, then repeat."""


class CursorExpired(PortError):
    """The read token is too old. Take a new cursor from the last position that was read."""


class PositionTrimmed(PortError):
    """The position is older than the oldest record that the source keeps. Count the loss and go on at the trim horizon."""


class RecordUnreadable(PortError):
    """The next record of a shard is malformed. Show the error, wait, then read again. Do not skip the record."""


class LeaseLost(PortError):
    """Another owner has the shard. Stop at once and write nothing more."""


class RowChanged(PortError):
    """Somebody else changed the row after it was read. Read it again, decide again, and repeat the write."""


class InvalidConfiguration(Exception):
    """Something that a user wrote is wrong. `problems` name the place, the value and the remedy, one line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = [lines_of(problem, chars_max=PROBLEM_CHARS_MAX) for problem in problems]
        super().__init__("\n".join(self.problems))
