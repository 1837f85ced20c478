"""Owns the picture of what fails on a queue: by message group, or by message on a standard queue; for people."""

from collections.abc import Sequence
from dataclasses import dataclass

from poller.records import Epoch, Message

TROUBLES_MAX = 100
"""Groups or messages that are remembered; the oldest go first."""
STALE_S = 60.0
"""What did not come again so long after its time was deleted by somebody else, expired, or went to the dead-letter queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One failing group or message: since when, the last error, its messages, when it is tried again."""

    since: Epoch
    error: str
    receives: int
    next_try: Epoch
    messages: tuple[Message, ...]


class Troubles:
    """What failed last and has not gone through since, oldest first."""

    def __init__(self) -> None:
        self._troubles: dict[str, Trouble] = {}

    def failed(self, messages: Sequence[Message], error: str, *, now: Epoch, next_try: Epoch) -> None:
        """These messages failed and are visible again at `next_try`."""
        by_key: dict[str, list[Message]] = {}
        for message in messages:
            by_key.setdefault(_key(message), []).append(message)
        for key, members in by_key.items():
            earlier = self._troubles.get(key)
            self._troubles[key] = Trouble(
                since=earlier.since if earlier is not None else now,
                error=error,
                receives=int(members[0].attributes.get("ApproximateReceiveCount", "1")),
                next_try=next_try,
                messages=tuple(members),
            )
        while len(self._troubles) > TROUBLES_MAX:
            del self._troubles[next(iter(self._troubles))]

    def done(self, messages: Sequence[Message]) -> None:
        """These messages went through."""
        if self._troubles:
            for message in messages:
                self._troubles.pop(_key(message), None)

    def current(self, now: Epoch) -> dict[str, Trouble]:
        """What fails now, by group or message id."""
        self._troubles = {key: each for key, each in self._troubles.items() if now < each.next_try + STALE_S}
        return dict(self._troubles)


def _key(message: Message) -> str:
    return message.group or message.message_id
