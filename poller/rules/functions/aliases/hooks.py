"""Owns what a hook of a shift is called with, and how its answer is read (aws-behaviour#aliases)."""

from typing import Any

import orjson

from poller.domain.functions.shifts import Shift
from poller.domain.invocations import Outcome, Succeeded
from poller.domain.untrusted.texts import line_of
from poller.rules import responses
from poller.rules.functions.aliases.shift_steps import HookAnswer
from poller.rules.responses import ResponseReading

SUCCEEDED = "Succeeded"
SHOWN_CHARS_MAX = 200
ANSWER_BYTES_MAX = 64 * 1024
"""A longer answer is not read."""


def payload(shift: Shift) -> bytes:
    """The event of a hook, with the members that CodeDeploy sends."""
    return orjson.dumps(
        {"DeploymentId": shift.shift, "LifecycleEventHookExecutionId": f"{shift.shift}:{shift.state.value}"}
    )


def answer_of(shift: Shift, outcome: Outcome) -> HookAnswer:
    """What the hook of the shift's present state answered."""
    if not isinstance(outcome, Succeeded):
        _, _, error = responses.described(responses.parse(outcome, (), ResponseReading()), 0)
        return HookAnswer(shift.state, succeeded=False, reason=error)
    if _status(outcome.payload) == SUCCEEDED:
        return HookAnswer(shift.state, succeeded=True)
    shown = line_of(outcome.payload[:SHOWN_CHARS_MAX].decode("utf-8", "replace"), chars_max=SHOWN_CHARS_MAX)
    return HookAnswer(shift.state, succeeded=False, reason=f"it answered {shown or 'nothing'}")


def _status(body: bytes) -> Any:
    try:
        found = orjson.loads(body) if len(body) <= ANSWER_BYTES_MAX else None
    except orjson.JSONDecodeError:
        return None
    return found.get("status") if isinstance(found, dict) else found
