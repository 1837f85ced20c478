"""Owns how an operation becomes a row, and what becomes of a row that cannot be read.

The row has the operation's id, its revision and its content, which is a JSON text. A newer version of poller may write actions or
states that this one does not know, and people edit rows by hand. Such an operation is left out of listings and logged once, since
the others must go on. It stays in the store for those who can read it. A call for it alone raises ServiceUnavailable.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from adapters.stores.stored_rows import (
    PARSE_ERRORS,
    SHOWN_CHARS_MAX,
    Values,
    json_object,
    moment,
    shown,
    text,
    whole,
)
from poller.domain.errors import ServiceUnavailable
from poller.domain.operations import (
    Action,
    EndedOperation,
    Operation,
    OperationId,
    OperationRequest,
    OperationState,
    OperationTarget,
    PartResult,
)
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.untrusted.texts import line_of
from poller.output.log_fields import EVENT

LOGGED_MAX = 1_000
"""Unreadable operations that are remembered, so that each is logged once. When there are more, all are forgotten."""
DEPTH_MAX = 50
"""How deep members and notes may be nested. They are copied recursively."""
NOTED_TEXTS = ("records", "settled", "results", "pauses")
"""Notes that are lists of texts. The others are only checked to be JSON."""
REMEDY = "run a version that knows it, or remove the row"

log = logging.getLogger("poller.stores")


def content(operation: Operation) -> str:
    """Returns everything except id and revision as a JSON text. The same content is always the same text."""
    request, target = operation.request, operation.request.target
    return json.dumps(
        {
            "mapping": operation.mapping,
            "action": request.action,
            "target": {"shard": target.shard, "lane": target.lane, "group": target.group},
            "members": dict(request.members),
            "reason": request.reason,
            "by": operation.by,
            "created": float(operation.created),
            "state": operation.state,
            "ended": None if operation.ended is None else float(operation.ended),
            "wanted": operation.wanted,
            "parts": {name: [part.state, part.result] for name, part in operation.parts.items()},
            "progress": dict(operation.progress),
            "notes": dict(operation.notes),
            "result": operation.result,
        },
        allow_nan=False,
        sort_keys=True,
        separators=(",", ":"),
    )


def parsed(values: Values) -> Operation:
    """Makes an operation of `operation`, `revision` and `content`; raises ServiceUnavailable if it cannot be read."""
    try:
        return _operation(values["operation"], values["revision"], json_object(values["content"]))
    except PARSE_ERRORS as error:
        name, why = shown(values.get("operation")), _why(error)
        said = f"operation {name} in the store cannot be read: {why}; {REMEDY}"
        raise ServiceUnavailable(line_of(said, chars_max=3 * SHOWN_CHARS_MAX)) from error


def copied(operation: Operation) -> Operation:
    """Returns the operation as it is read back from a store. It shares no mutable part with the given one."""
    row = {
        "operation": operation.operation,
        "revision": operation.revision,
        "content": content(operation),
    }
    return parsed(row)


def unshared(operation: Operation) -> Operation:
    """Returns the same operation without a mutable part of the given one. It is cheaper than `copied`."""
    members = json_copy(operation.request.members)
    return replace(
        operation,
        request=replace(operation.request, members=members),
        parts=dict(operation.parts),
        progress=dict(operation.progress),
        notes=json_copy(operation.notes),
    )


def json_copy(value: Any, *, depth_max: int = DEPTH_MAX) -> Any:
    """Copies what a JSON text was parsed to; raises ValueError if it is nested too deep."""
    if not isinstance(value, dict | list):
        return value
    if depth_max <= 0:
        raise ValueError("is nested too deep")
    if isinstance(value, dict):
        return {name: json_copy(each, depth_max=depth_max - 1) for name, each in value.items()}
    return [each if isinstance(each, str) else json_copy(each, depth_max=depth_max - 1) for each in value]


def ended_of(operation: Operation) -> EndedOperation:
    """Returns how the history counts an operation that is over."""
    ended = operation.created if operation.ended is None else operation.ended
    return EndedOperation(
        operation=operation.operation, ended=ended, stored_bytes=len(content(operation).encode())
    )


def ended_row(operation: Any, ended: Any, stored_bytes: Any) -> EndedOperation | None:
    """Makes of three values what the history counts; None if they are not what they should be."""
    try:
        return EndedOperation(
            operation=OperationId(text(operation)),
            ended=Epoch(moment(ended)),
            stored_bytes=whole(stored_bytes),
        )
    except PARSE_ERRORS:
        return None


class OperationReader:
    """Reads listed rows, and logs each that cannot be read once."""

    def __init__(self) -> None:
        self._logged: set[str] = set()
        self._open: dict[str, tuple[Any, Any, Operation]] = {}
        """The revision, the content and the operation of each row that `open_ones` has read last."""

    def open_ones(self, rows: Iterable[Values]) -> list[Operation]:
        """As `listed`, for the operations that are not over, which are read all the time: only rows that have changed are parsed."""
        before, self._open = self._open, {}
        for row in rows:
            name, revision, kept = row.get("operation"), row.get("revision"), row.get("content")
            known = before.get(name) if isinstance(name, str) else None
            if known is None or known[:2] != (revision, kept):
                operation = self._readable(row)
                if operation is None:
                    continue
                known = revision, kept, operation
            self._open[known[2].operation] = known
        found = [unshared(operation) for _, _, operation in self._open.values()]
        return sorted(found, key=lambda each: (each.created, each.operation))

    def listed(self, rows: Iterable[Values]) -> list[Operation]:
        """Returns the operations that can be read, oldest first."""
        found = [operation for row in rows if (operation := self._readable(row)) is not None]
        return sorted(found, key=lambda each: (each.created, each.operation))

    def _readable(self, row: Values) -> Operation | None:
        try:
            return parsed(row)
        except ServiceUnavailable as unreadable:
            self._log(shown(row.get("operation")), unreadable.reason)
            return None

    def _log(self, name: str, why: str) -> None:
        if name in self._logged:
            return
        if len(self._logged) >= LOGGED_MAX:
            self._logged.clear()
        self._logged.add(name)
        log.warning("store: %s", why, extra={EVENT: "operation_unreadable", "operation": name})


def _operation(name: Any, revision: Any, found: Mapping[str, Any]) -> Operation:
    return Operation(
        operation=OperationId(text(name)),
        mapping=MappingId(text(found["mapping"])),
        request=OperationRequest(
            action=Action(found["action"]),
            target=_target(_object(found["target"])),
            members=json_copy(_object(found["members"])),
            reason=_text(found["reason"]),
        ),
        by=_text(found["by"]),
        created=Epoch(moment(found["created"])),
        state=OperationState(found["state"]),
        ended=None if found["ended"] is None else Epoch(moment(found["ended"])),
        wanted=tuple(text(each) for each in found["wanted"]),
        parts={name: _part(each) for name, each in _object(found["parts"]).items()},
        progress={name: whole(each) for name, each in _object(found["progress"]).items()},
        notes=_notes(_object(found["notes"])),
        result=_text(found["result"]),
        revision=whole(revision),
    )


def _why(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error) or type(error).__name__


def _target(found: Mapping[str, Any]) -> OperationTarget:
    shard, lane, group = found["shard"], found["lane"], found["group"]
    return OperationTarget(
        shard=None if shard is None else ShardId(text(shard)),
        lane=None if lane is None else whole(lane),
        group=None if group is None else text(group),
    )


def _part(found: Any) -> PartResult:
    state, result = found
    return PartResult(state=OperationState(state), result=_text(result))


def _notes(found: dict[str, Any]) -> dict[str, Any]:
    for name in NOTED_TEXTS:
        if name in found and not (
            isinstance(found[name], list) and all(isinstance(each, str) for each in found[name])
        ):
            raise ValueError(f"{name} of its notes is no list of texts")
    copied_notes: dict[str, Any] = json_copy(found)
    return copied_notes


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("is no JSON object")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("is no text")
    return value
