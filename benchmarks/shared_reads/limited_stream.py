"""Owns a stream that takes five reads of a shard in any second and refuses more, as AWS does."""

import json
import re
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

READS_MAX = 5
"""Reads of one shard in a second."""
SECOND_S = 1.0
_SHARD = re.compile(rb'"ShardIterator": ?"(\d+):')
_RECORD = b'"SequenceNumber"'
_REFUSED = json.dumps(
    {"__type": "ProvisionedThroughputExceededException", "message": "Rate exceeded for shard"}
).encode()

type Parts = tuple[bytes, ...]
type Answer = Callable[[bytes], Parts | Awaitable[Parts] | AsyncIterator[bytes]]


class Refusal(tuple[bytes, ...]):
    """An answer that refuses the request."""

    __slots__ = ()


class LimitedReads:
    """The answers of a stream, with the limit; counts reads, those that it refused, and the records that it gave."""

    def __init__(self, answers: Mapping[bytes, Answer]) -> None:
        self._answers = answers
        self._taken: defaultdict[bytes, deque[float]] = defaultdict(lambda: deque(maxlen=READS_MAX))
        self._counts = {"reads": 0, "refused": 0, "records": 0}

    def answers(self) -> dict[bytes, Answer]:
        """By operation."""
        return {**self._answers, b"GetRecords": self._read, b"/counts": self._counted}

    def _read(self, body: bytes) -> Parts:
        found = _SHARD.search(body)
        assert found is not None
        self._counts["reads"] += 1
        taken, now = self._taken[found[1]], time.monotonic()
        if len(taken) == READS_MAX and now - taken[0] < SECOND_S:
            self._counts["refused"] += 1
            return Refusal((_REFUSED,))
        taken.append(now)
        parts = self._answers[b"GetRecords"](body)
        assert isinstance(parts, tuple)
        self._counts["records"] += sum(part.count(_RECORD) for part in parts)
        return parts

    def _counted(self, _: bytes) -> Parts:
        return (json.dumps(self._counts).encode(),)
