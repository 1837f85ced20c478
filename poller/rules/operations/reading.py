"""Owns how the document of a request is read, without regard to any mapping, and the refusal of a request.

Each refusal names the member, what is wrong, and what to write instead.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from poller.domain.operations import Action, OperationId, OperationRequest, OperationTarget
from poller.domain.records import ShardId
from poller.domain.untrusted.texts import line_of
from poller.rules.operations.members import (
    ACTION_MEMBERS,
    BATCH,
    BATCH_COUNT,
    BATCH_FIRST,
    ID_CHARS_MAX,
    ActionMember,
    Actions,
    Parser,
    identifier,
)

REASON_CHARS_MAX = 500
NAME_CHARS_MAX = 128
"""How much is kept of the name of somebody who asks, and how much of an unknown word is repeated in a refusal."""
LANES_MAX = 10
"""AWS's limit for ParallelizationFactor."""
_COMMON = ("action", "id", "reason", "shard", "lane", "group")
_OPERATION_ID = re.compile(r"[A-Za-z0-9_:-][A-Za-z0-9._:-]{0,127}", re.ASCII)
"""It is a part of paths. Clients take out those that are dots alone."""


class OperationRefused(Exception):
    """A request that does not become an operation. `member` is the member at fault; `text` says what is wrong, and the remedy.

    With `conflict` the request is well-formed, but another operation is in its way.
    """

    def __init__(self, member: str, text: str, *, conflict: bool = False) -> None:
        super().__init__(f"{member}: {text}")
        self.member = member
        self.text = text
        self.conflict = conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedOperation:
    """A request as it was read. `operation` is the client's own id, if it gave one. The shard of the target is as it was written."""

    operation: OperationId | None
    request: OperationRequest


def read_request(document: Any, actions: Actions = ACTION_MEMBERS) -> AskedOperation:
    """Reads the document of a request for one of these actions; raises OperationRefused."""
    if not isinstance(document, Mapping):
        raise OperationRefused("action", 'the request is no JSON object; write {"action": "retry"}')
    action = _action(document.get("action"), actions)
    given = {name: value for name, value in document.items() if name not in _COMMON}
    target = OperationTarget(
        shard=_optional(document, "shard", _shard), lane=_optional(document, "lane", _lane), group=_optional(document, "group", _group)
    )  # fmt: skip
    members = _members(action, given, actions[action])
    if action is Action.SKIP:
        members = _skip_members(members)
    request = OperationRequest(
        action=action, target=target, members=members, reason=_reason(document.get("reason"))
    )
    return AskedOperation(operation=_optional(document, "id", _operation_id), request=request)


def _action(value: Any, actions: Actions) -> Action:
    if isinstance(value, str):
        try:
            found = Action(value)
        except ValueError:
            pass
        else:
            if found in actions:
                return found
    raise OperationRefused("action", f"{_shown(value)} is no action; {one_of_actions(actions)}")


def one_of_actions(actions: Actions = ACTION_MEMBERS) -> str:
    """The actions that can be asked for, as a remedy."""
    return f"write one of {', '.join(actions)}"


def _members(action: Action, given: Mapping[str, Any], known: Mapping[str, ActionMember]) -> dict[str, Any]:
    for name in given:
        if name not in known:
            names = ", ".join((*_COMMON, *known))
            raise OperationRefused(
                _word(name), f"{action} has no member {_shown(name)}; its members are {names}"
            )
    found: dict[str, Any] = {}
    for name, member in known.items():
        if given.get(name) is None and not member.required:
            continue
        found[name] = _read(name, given.get(name), member.read)
    return found


def _skip_members(members: Mapping[str, Any]) -> dict[str, Any]:
    """With `send` and `discard` as they are meant, which are opposites of each other. One of them is enough."""
    _check_batch(members)
    discard = members.get("discard", False)
    send = members.get("send", not discard)
    if send and discard:
        raise OperationRefused("discard", "records are either sent or discarded; leave out send or discard")
    if not send and not discard:
        raise OperationRefused(
            "send", 'without a notice the records are lost; add "discard": true, or leave out send'
        )
    return {**members, "send": send, "discard": discard}


def _check_batch(members: Mapping[str, Any]) -> None:
    """Which batch is meant is said by both members or by none."""
    given = [name for name in (BATCH_FIRST, BATCH_COUNT) if name in members]
    if given and members["records"] != BATCH:
        raise OperationRefused(given[0], f'it is for "records": "{BATCH}" only; leave it out')
    if len(given) == 1:
        raise OperationRefused(given[0], f"write {BATCH_FIRST} and {BATCH_COUNT}, or none of them")


def _optional(document: Mapping[str, Any], name: str, read: Parser) -> Any:
    value = document.get(name)
    return None if value is None else _read(name, value, read)


def _read(name: str, value: Any, read: Parser) -> Any:
    try:
        return read(value)
    except ValueError as error:
        found = "it is missing" if value is None else f"{_shown(value)} cannot be used"
        raise OperationRefused(name, f"{found}; {error}") from error


def _shard(value: Any) -> ShardId:
    return ShardId(identifier(value))


def _group(value: Any) -> str:
    return identifier(value)


def _lane(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LANES_MAX:
        raise ValueError(f"write a whole number from 0 to {LANES_MAX - 1}")
    return value


def _operation_id(value: Any) -> OperationId:
    if not isinstance(value, str) or not _OPERATION_ID.fullmatch(value):
        raise ValueError(
            f"write 1 to {ID_CHARS_MAX} letters, digits, dots, colons, hyphens or underscores, and no dot first"
        )
    return OperationId(value)


def _reason(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise OperationRefused("reason", f"{_shown(value)} is no text; write why, in a sentence")
    return line_of(value, chars_max=REASON_CHARS_MAX).strip()


def _shown(value: Any) -> str:
    """A value of a request as a refusal repeats it. Large containers are not rendered."""
    if isinstance(value, str):
        return repr(line_of(value, chars_max=NAME_CHARS_MAX))
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, float):
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else "a number"
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, Mapping) else "a value"


def _word(name: Any) -> str:
    return line_of(str(name), chars_max=NAME_CHARS_MAX).strip() or "a member"
