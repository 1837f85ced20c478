"""Owns the tally of a redrive: how many notices were read, what became of them, and the result for people."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from poller.domain.operations import OperationState, PartResult
from poller.domain.wording.numbers_of import inflected, number_of

REASONS_MAX = 5
"""Different reasons that a result names."""
STAY_MAX = 50_000
"""Notices that one redrive leaves. Their ids and receipts are kept until its end, and SQS hides 120,000 messages of a queue at most."""


class NoticeRefused(Exception):
    """A notice whose batch cannot be tried again from it. It stays where it is. The text says why, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveTally:
    """The notices of a redrive so far.

    `settled` were removed: their batches succeeded. `failed` stay since the function failed again, `refused` since the batch
    could not be called. `records` counts the records of settled batches. `reasons` has why some stay, with how many.
    """

    settled: int = 0
    records: int = 0
    failed: int = 0
    refused: int = 0
    reasons: tuple[tuple[str, int], ...] = ()
    full: bool = False
    """Whether so many stay that no more were read."""

    @classmethod
    def of(cls, progress: Mapping[str, int]) -> Self:
        """The tally so far, from the progress of an operation. Notices that stay are counted when they are read again."""
        return cls(settled=progress.get("settled", 0), records=progress.get("records", 0))

    @property
    def notices(self) -> int:
        """How many notices were read."""
        return self.settled + self.failed + self.refused

    def progress(self) -> dict[str, int]:
        """The counts, for the progress of an operation."""
        return {
            "settled": self.settled,
            "records": self.records,
            "failed": self.failed,
            "refused": self.refused,
        }

    def succeeded(self, records: int) -> "RedriveTally":
        """One more batch is settled."""
        return replace(self, settled=self.settled + 1, records=self.records + records)

    def stays(self, reason: str, *, refused: bool, count: int = 1) -> "RedriveTally":
        """One more notice stays where it is, or `count` more."""
        known = dict(self.reasons)
        if reason in known or len(known) < REASONS_MAX:
            known[reason] = known.get(reason, 0) + count
        failed = 0 if refused else count
        return replace(
            self,
            failed=self.failed + failed,
            refused=self.refused + count - failed,
            reasons=tuple(known.items()),
        )

    def result(self) -> PartResult:
        """What came of it. It failed if any notice stays."""
        text = f"{number_of(self.settled, 'batch', 'batches')} settled ({number_of(self.records, 'record')})"
        if self.failed:
            text += f"; {self.failed} failed again and {inflected(self.failed, 'stays', 'stay')}"
        if self.refused:
            text += f"; {self.refused} could not be called and {inflected(self.refused, 'stays', 'stay')}"
        reasons = [f"{reason} ({count})" if count > 1 else reason for reason, count in self.reasons]
        if reasons:
            text += f": {'; '.join(reasons)}"
        if self.full:
            text += "; no more were read, because so many stay"
        state = OperationState.FAILED if self.failed or self.refused else OperationState.DONE
        return PartResult(state=state, result=text)
