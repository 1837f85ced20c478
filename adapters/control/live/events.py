"""Owns the form of server-sent events, and how operations are cut so that an event of many stays small."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from poller.domain.operations import Operation, OperationId, OperationView
from poller.domain.untrusted.rendering import as_json

OPERATION_BYTES_MAX = 16 * 1024
"""A longer operation is sent without its members, notes and most of its parts. `GET /v1/operations/{id}` has all of them."""
PARTS_MAX = 20
ENDED_MAX = 50
"""Operations that are over and are sent: those that ended last."""


def event(name: str, value: Any) -> bytes:
    """One event with a JSON value, which has no line breaks."""
    return event_of(name, as_json(value))


def event_of(name: str, encoded: bytes) -> bytes:
    """One event with a value that is JSON already."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encoded)


def newest(operations: Iterable[Operation]) -> list[Operation]:
    """Of operations that are over, those that ended last, the newest first."""
    over = [each for each in operations if each.state.over]
    return sorted(over, key=lambda each: (-(each.ended or each.created), each.operation))[:ENDED_MAX]


class OperationEvents:
    """Encodes the operations. What has not changed is not encoded again."""

    def __init__(self) -> None:
        self._encoded: dict[tuple[OperationId, int], bytes] = {}

    def event(self, open_operations: Iterable[Operation], ended: Iterable[Operation]) -> bytes:
        """The event of these operations."""
        before, self._encoded = self._encoded, {}
        lists = [b",".join(self._all(each, before)) for each in (open_operations, ended)]
        return event_of("operations", b'{"open":[%b],"ended":[%b]}' % (lists[0], lists[1]))

    def _all(
        self, operations: Iterable[Operation], before: dict[tuple[OperationId, int], bytes]
    ) -> Iterator[bytes]:
        for each in operations:
            key = each.operation, each.revision
            self._encoded[key] = before.get(key) or encoded(each)
            yield self._encoded[key]


def encoded(operation: Operation) -> bytes:
    """An operation as JSON, cut if it is long."""
    view = OperationView.of(operation)
    whole = as_json(view)
    if len(whole) <= OPERATION_BYTES_MAX:
        return whole
    parts = dict(islice(view.parts.items(), PARTS_MAX))
    return as_json(replace(view, members={}, notes={}, wanted=view.wanted[:PARTS_MAX], parts=parts))
