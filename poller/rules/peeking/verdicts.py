"""Owns what a mapping's filters say of one record: whether it passes, by which pattern, or which conditions fail.

Whether it passes is decided by the same filters as when the shard is processed. Reasons name conditions, which are configuration,
and no values of the record, so that they can be shown to everybody who may see the mapping.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from poller.domain.peeking.answers import FilterVerdict
from poller.domain.records import DynamoRecord, JsonObject, KinesisRecord, Record
from poller.domain.untrusted.texts import line_of
from poller.rules.events import DynamoEncoder
from poller.rules.filtering import (
    Answer,
    Filter,
    Pattern,
    Slices,
    Source,
    compile_pattern,
    explain_record,
    is_light,
)
from poller.rules.filtering.views import PARSED_BYTES_MAX

REASONS_MAX = 10
"""Reasons that are named for one record."""
REASON_CHARS_MAX = 300
BRANCHES_MAX = 20
"""A pattern with more alternatives is not explained."""
STEPS_MAX = 20_000
"""The work on one alternative; about ten milliseconds."""
TOO_MUCH = "(the record or the patterns are too large to say which condition fails)"


@dataclass(frozen=True, slots=True)
class RecordVerdict:
    """The verdict on one record. `pattern` is the first that matches, counted from 1."""

    verdict: FilterVerdict
    pattern: int | None = None
    reasons: tuple[str, ...] = ()


_NO_FILTERS = RecordVerdict(FilterVerdict.PASSES)


class RecordFilters:
    """The filters of one mapping. `encoder` makes the form of a DynamoDB record that a pattern sees."""

    def __init__(self, patterns: Sequence[str], source: Source, encoder: DynamoEncoder) -> None:
        self._source = source
        self._encoder = encoder
        self._whole = Filter.of(patterns, source)
        self._patterns = [compile_pattern(text) for text in patterns]
        self._each = [Filter.over([pattern], source) for pattern in self._patterns]

    def judge(self, record: Record) -> Slices[RecordVerdict]:
        """The verdict on a record, in slices of work."""
        if self._whole is None:
            return _NO_FILTERS
        if not (yield from self._passes(self._whole, record)):
            return RecordVerdict(FilterVerdict.FILTERED, None, (yield from self._reasons(record)))
        for number, criteria in enumerate(self._each, 1):
            if (yield from self._passes(criteria, record)):
                return RecordVerdict(FilterVerdict.PASSES, number)
        return RecordVerdict(FilterVerdict.PASSES)

    def _passes(self, criteria: Filter, record: Record) -> Slices[bool]:
        yield
        answer = self._answer(criteria, record)
        return answer if isinstance(answer, bool) else (yield from answer)

    def _answer(self, criteria: Filter, record: Record) -> Answer:
        match record:
            case KinesisRecord():
                return criteria.matches_kinesis(record.key, record.outer, record.arrived, record.data)
            case DynamoRecord():
                change = record.change
                if is_light(change.new_image) and is_light(change.old_image):
                    return criteria.matches_dynamodb(self._encoder.view(record))
                return criteria.search_dynamodb(self._encoder.encode(record))
            case _:
                assert_never(record)

    def _reasons(self, record: Record) -> Slices[tuple[str, ...]]:
        view = self._view(record)
        if view is None:
            return (TOO_MUCH,)
        found: list[str] = []
        for number, pattern in enumerate(self._patterns, 1):
            yield
            if len(pattern.branches) > BRANCHES_MAX:
                found.append(TOO_MUCH)
                continue
            prefix = f"pattern {number}: " if len(self._patterns) > 1 else ""
            found += [prefix + text for text in _failures(pattern, self._source, view)]
        return tuple(dict.fromkeys(found))[:REASONS_MAX]

    def _view(self, record: Record) -> JsonObject | None:
        """The record as functions get it; None if it is too large to be looked at at once."""
        match record:
            case KinesisRecord():
                if len(record.data) > PARSED_BYTES_MAX:
                    return None
                return {
                    "kinesis": {
                        "partitionKey": record.key,
                        "sequenceNumber": record.outer,
                        "approximateArrivalTimestamp": float(record.arrived),
                        "data": record.data,
                    }
                }
            case DynamoRecord():
                change = record.change
                if len(change.new_image) + len(change.old_image) > PARSED_BYTES_MAX:
                    return None
                return self._encoder.view(record)
            case _:
                assert_never(record)


def _failures(pattern: Pattern, source: Source, view: JsonObject) -> Iterator[str]:
    explanation = explain_record(pattern, source, view, steps_max=STEPS_MAX)
    if explanation.matched:
        yield TOO_MUCH
        return
    several = len(explanation.alternatives) > 1
    for number, failures in enumerate(explanation.alternatives, 1):
        prefix = f"alternative {number}: " if several else ""
        for failure in failures:
            condition = f" (condition: {failure.condition})" if failure.condition else ""
            text = f"{prefix}{failure.path or 'event'}: {failure.why}{condition}"
            yield line_of(text, chars_max=REASON_CHARS_MAX)
