"""Owns what people see of a queue mapping: failing and paused groups, working pollers, and since when a group is blocked.

It also compares the queue's visibility timeout with its function's time limit. Both may change while the mapping runs. AWS refuses a
mapping whose visibility timeout is shorter than its function's time limit. A mapping that runs already, or that is in the
configuration file, goes on, and people get a warning.
"""

from collections.abc import Mapping

from poller.domain.operations import OperatorPause
from poller.domain.records import Epoch, Message, QueueFacts
from poller.domain.status import FaultyRecord, LaneStatus, error_document, pause_status
from poller.domain.telemetry.mapping_events import GroupsBlocked, VisibilityTooShort
from poller.domain.untrusted.texts import line_of
from poller.rules.queues.failing import FailingItem
from poller.rules.queues.queue_checks import short_visibility_text
from poller.runtime.queues.context import QueueContext
from poller.runtime.queues.in_flight import InFlight
from poller.runtime.queues.queue_poller import QueuePoller

LANES_SHOWN_MAX = 200
FAULTY_RECORDS_MAX = 10
"""Messages of a failing group that the status lists."""
KEY_CHARACTERS_MAX = 256


class QueueStatus:
    """The status of one queue mapping. `pollers` are those that run, by number."""

    def __init__(self, parts: QueueContext, pollers: Mapping[int, QueuePoller]) -> None:
        self._parts = parts
        self._pollers = pollers
        self._blocked_since: Epoch | None = None

    def lanes(self, scope: InFlight, facts: QueueFacts | None) -> tuple[LaneStatus, ...]:
        """What fails, by message group or message, then paused groups and the working pollers."""
        groups, held = scope.controls.asked.groups, scope.controls.asked.held()
        items = self._failing_items(scope, facts)
        fifo, receives_max = self._parts.plan.fifo, _receives_max(facts)
        failing = [
            _failing(key, each, fifo=fifo, receives_max=receives_max, pause=groups.get(key))
            for key, each in items.items()
        ]
        paused = [
            _paused(group, pause, held.get(group, 0)) for group, pause in groups.items() if group not in items
        ]
        working = [lane for poller in self._pollers.values() if (lane := poller.status()) is not None]
        return tuple([*failing, *paused, *working][:LANES_SHOWN_MAX])

    def show_blocked(self, scope: InFlight, facts: QueueFacts | None) -> None:
        """Reports since when a message group is blocked, by failed messages or by a batch that the function refuses."""
        if not self._parts.plan.fifo:
            return
        moments = [item.since for item in self._failing_items(scope, facts).values()]
        refused = (poller.progress.blocked_since for poller in self._pollers.values())
        since = min([*moments, *(each for each in refused if each is not None)], default=None)
        if since != self._blocked_since:
            self._emit_blocked(since)

    def end(self) -> None:
        """Reports that nothing is blocked any more, because the mapping ends here."""
        if self._blocked_since is not None:
            self._emit_blocked(None)

    def _failing_items(self, scope: InFlight, facts: QueueFacts | None) -> dict[str, FailingItem]:
        """The items that fail now, also while they are tried again."""
        return scope.tracker.failing(self._parts.clock.now(), receives_max=_receives_max(facts))

    def _emit_blocked(self, since: Epoch | None) -> None:
        self._blocked_since = since
        self._parts.observer.on(GroupsBlocked(mapping=self._parts.plan.mapping, since=since))


class VisibilityCheck:
    """The comparison for one mapping. Each change for the worse is reported once."""

    def __init__(self, parts: QueueContext, visibility_s: int) -> None:
        self._parts = parts
        self._visibility_s = visibility_s
        self._reported: tuple[int, float] | None = None
        self.compare()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for people, one line each."""
        if self._reported is None:
            return ()
        return (f"mapping {self._parts.plan.mapping}: {short_visibility_text(*self._reported)}",)

    def queue_changed(self, visibility_s: int) -> None:
        """Takes the queue's present visibility timeout."""
        self._visibility_s = visibility_s
        self.compare()

    def compare(self) -> None:
        """Compares both values. It is called when the function's limit may have changed."""
        timeout_s = self._parts.function.known_limit_s(self._parts.plan.function_arn)
        short = timeout_s is not None and self._visibility_s < timeout_s
        found = (self._visibility_s, timeout_s) if timeout_s is not None and short else None
        if found is not None and found != self._reported:
            self._parts.observer.on(
                VisibilityTooShort(
                    mapping=self._parts.plan.mapping, visibility_s=found[0], timeout_s=found[1]
                )
            )
        self._reported = found


def _receives_max(facts: QueueFacts | None) -> int | None:
    """How often the queue gives a message out before it moves to the dead-letter queue; None without one."""
    return None if facts is None else facts.redrive_receives_max


def _paused(group: str, pause: OperatorPause, held: int) -> LaneStatus:
    """The status of a paused group, of which `held` messages wait here."""
    return LaneStatus(
        lane=line_of(group, chars_max=KEY_CHARACTERS_MAX),
        state="paused",
        records_count=held,
        paused=pause_status(pause),
    )


def _failing(
    key: str, item: FailingItem, *, fifo: bool, receives_max: int | None, pause: OperatorPause | None
) -> LaneStatus:
    """The status of a failing item. A failing group blocks the messages behind it; a message of a standard queue blocks nothing."""
    return LaneStatus(
        lane=line_of(key, chars_max=KEY_CHARACTERS_MAX),
        state="waiting" if pause is None else "paused",
        attempts=item.receives,
        attempts_max=receives_max,
        blocked_since=item.since if fifo else None,
        failing_since=None if fifo else item.since,
        next_try=item.next_try,
        last_error=item.error,
        error=error_document(item.cause),
        records=tuple(_faulty(message) for message in item.messages[:FAULTY_RECORDS_MAX]),
        records_count=len(item.messages),
        paused=None if pause is None else pause_status(pause),
    )


def _faulty(message: Message) -> FaultyRecord:
    return FaultyRecord(
        identifier=line_of(message.message_id, chars_max=KEY_CHARACTERS_MAX),
        key=line_of(message.attributes.get("MessageGroupId", ""), chars_max=KEY_CHARACTERS_MAX),
        arrived=message.sent,
    )
