"""Owns explanations of why an event does not match a pattern: which conditions failed, and on which values."""

from collections.abc import Sequence
from dataclasses import dataclass

from poller.rules.filtering.pattern import STEPS_MAX, Pattern
from poller.rules.filtering.structure import Branch, FoundLeaf, StepBudget, TooMuchWork
from poller.rules.filtering.views import (
    PAYLOAD_KEYS,
    Filter,
    Form,
    Payload,
    Source,
    decode_base64,
    decode_text,
    form_of,
    kinesis_view,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """One condition that did not hold: the values found at `path`, and a sentence that says why."""

    path: str
    condition: str
    seen: tuple[object, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether an event matches; if not, the failures of each alternative (one, unless the pattern uses `$or`)."""

    matched: bool
    alternatives: tuple[tuple[Failure, ...], ...]

    @property
    def failures(self) -> tuple[Failure, ...]:
        """All failures in one list; empty if the event matches."""
        return tuple(failure for alternative in self.alternatives for failure in alternative)


MATCHED = Explanation(True, ())
TOO_DEEP = "the payload is nested too deeply to tell which condition fails; leave out what no condition reads"


def explain(pattern: Pattern, event: object) -> Explanation:
    """Why an event matches a pattern or not. The result is the same as that of `Pattern.matches`."""
    if not isinstance(event, dict):
        failure = Failure("", "", (event,), "the event is not a JSON object")
        return Explanation(False, ((failure,),))
    return _alternatives([explain_branch(branch, event) for branch in pattern.branches])


def explain_branch(
    branch: Branch, event: dict[str, object], *, steps_max: int = STEPS_MAX
) -> tuple[Failure, ...]:
    """The failures of one branch. Empty if it holds, or if the event's arrays are too complex to decide it in `steps_max` steps."""
    steps = StepBudget(steps_max)
    try:
        seen = branch.look(event, steps)
        at = branch.holding(seen, steps)
    except TooMuchWork:
        return ()
    if at is None:
        return ()
    alone = tuple(
        Failure(each.path, each.text, _values(leaves), _why(leaves))
        for each, leaves in zip(branch.fields, seen, strict=True)
        if not each.holds(leaves)
    )
    return alone or (_together(branch, seen, at),)


def explain_record(
    pattern: Pattern, source: Source, record: dict[str, object], *, steps_max: int = STEPS_MAX
) -> Explanation:
    """Why a record passes a filter or not. The record has the form in which a function gets it.

    Of a payload that is nested too deeply to be parsed it is only told whether a branch holds. Raises ValueError for a Kinesis record
    without its member `kinesis`.
    """
    event, payload = _opened(source, record)
    return _alternatives(
        [_explain_view(branch, source, event, payload, steps_max=steps_max) for branch in pattern.branches]
    )


def _alternatives(failures: Sequence[tuple[Failure, ...]]) -> Explanation:
    return Explanation(False, tuple(failures)) if all(failures) else MATCHED


def _explain_view(
    branch: Branch, source: Source, event: dict[str, object], payload: Payload, *, steps_max: int
) -> tuple[Failure, ...]:
    key = PAYLOAD_KEYS[source]
    form = form_of(branch, key)
    if payload.form is Form.DEEP and form is not Form.NONE:
        alone = Filter.over([Pattern((branch,), frozenset((key,)))], source)
        return () if _passes(alone, event, str(payload.value)) else (Failure(key, "", (), TOO_DEEP),)
    if form not in (Form.NONE, payload.form):
        asked = ", ".join(
            f"{each.path}: {each.text}" for each in branch.fields if each.path.split(".")[0] == key
        )
        why = f"the payload is {payload.form} and these conditions are for {form}"
        return (Failure(key, asked, (payload.value,), why),)
    return explain_branch(branch, event | {key: payload.value}, steps_max=steps_max)


def _passes(alone: Filter, event: dict[str, object], payload: str) -> bool:
    """Whether an event with this text as its payload passes a filter of one branch."""
    slices = alone.search_text(event, payload)
    while True:
        try:
            next(slices)
        except StopIteration as ended:
            return bool(ended.value)


def _opened(source: Source, record: dict[str, object]) -> tuple[dict[str, object], Payload]:
    match source:
        case "dynamodb":
            return record, Payload(Form.JSON, record.get("dynamodb"))
        case "sqs":
            return record, decode_text(record.get("body"))
    match record:
        case {
            "kinesis": {
                "partitionKey": (str() | None) as key,
                "sequenceNumber": str(number),
                "approximateArrivalTimestamp": int() | float() as arrived,
                "data": str(data),
            }
        }:
            return kinesis_view(key, number, arrived), decode_base64(data)
        case _:
            raise ValueError(
                "a Kinesis record has a member kinesis with partitionKey, sequenceNumber, "
                "approximateArrivalTimestamp and data (base64)"
            )


def _together(branch: Branch, seen: Sequence[Sequence[FoundLeaf]], at: int) -> Failure:
    each = branch.fields[at]
    others = ", ".join(before.path for before in branch.fields[:at])
    why = f"no single array element satisfies this together with the conditions on {others}"
    return Failure(each.path, each.text, _values(seen[at]), why)


def _values(leaves: Sequence[FoundLeaf]) -> tuple[object, ...]:
    return tuple(leaf.value for leaf in leaves)


def _why(leaves: Sequence[FoundLeaf]) -> str:
    return "none of the values satisfies it" if leaves else "there is no value at this path"
