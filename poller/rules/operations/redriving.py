"""Owns the tally of a redrive: how many notices were read, what became of them, and the result for people."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from poller.domain.operations import OperationState, PartResult
from poller.domain.wording.numbers_of import inflected, number_of

REASONS_MAX = 5
"""Different reasons that a result names."""


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

    def stays(self, reason: str, *, refused: bool) -> "RedriveTally":
        """One more notice stays where it is."""
        known = dict(self.reasons)
        if reason in known or len(known) < REASONS_MAX:
            known[reason] = known.get(reason, 0) + 1
        counted = (
            replace(self, refused=self.refused + 1) if refused else replace(self, failed=self.failed + 1)
        )
        return replace(counted, reasons=tuple(known.items()))

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
        state = OperationState.FAILED if self.failed or self.refused else OperationState.DONE
        return PartResult(state=state, result=text)
