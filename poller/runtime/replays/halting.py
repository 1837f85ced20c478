"""Owns how a replay ends at the first batch that fails: in place of a destination, it takes the notice and says which records they are."""

from collections.abc import Callable

import msgspec

from poller.domain.errors import ServiceUnavailable
from poller.domain.invocations import Notice
from poller.domain.wording.numbers_of import number_of

HALTED = "the replay has ended at this batch"


class HaltingDestination:
    """A Destination that takes no notice. So the batch is never settled, and nothing behind it is called."""

    def __init__(self, halt: Callable[[str], None]) -> None:
        self._halt = halt

    async def send(self, notice: Notice) -> None:
        """Ends the replay, and raises ServiceUnavailable."""
        self._halt(failed_batch(notice))
        raise ServiceUnavailable(HALTED)


def failed_batch(notice: Notice) -> str:
    """One line about a batch that was given up: its shard, its records and why."""
    document = msgspec.json.decode(notice.document)
    info = document.get("KinesisBatchInfo") or document.get("DDBStreamBatchInfo") or {}
    condition = document.get("requestContext", {}).get("condition", "")
    first, last, size = (info.get(key) for key in ("startSequenceNumber", "endSequenceNumber", "batchSize"))
    if not size:
        return f"a call without records failed on shard {notice.shard} ({condition})"
    named = f"record {first}" if size == 1 else f"{number_of(size, 'record')} from {first} to {last}"
    return f"{named} of shard {notice.shard} failed ({condition}); nothing behind was called"
