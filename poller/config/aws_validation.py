"""Owns the validation of a mapping as on AWS: the constraints of the API model, then `member_rules` (aws-behaviour#mapping-members).

The checks get a whole mapping: a new one, or an existing one with an update merged in. They run in AWS's order and use AWS's
texts (aws-behaviour#error-texts). Where AWS's text is not known, the text is our own and has the same style.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice

from poller.config.mapping import EventSourceMapping, source_kind
from poller.config.member_rules import RULES, MemberRule, complete_failure, destination_rule
from poller.config.members import (
    CONCURRENCY_MIN,
    TABLE,
    JsonType,
    Member,
)
from poller.config.violations import VIOLATIONS_MAX, Violation, constraint, parameter
from poller.config_errors.meant_arns import FORMS, source_remedy
from poller.domain.arns import FUNCTION_NAME_CHARS_MAX, FunctionName
from poller.domain.plan import url_scheme
from poller.domain.records import Epoch
from poller.domain.untrusted.texts import cut


def violations(
    mapping: EventSourceMapping,
    *,
    now: Epoch,
    concurrency_min: int = CONCURRENCY_MIN,
    destination_urls: bool = False,
    destination_needed: bool = False,
) -> list[Violation]:
    """All violations that AWS would find without looking at the function or the source, in AWS's order as far as it is proven.

    `now` bounds StartingPositionTimestamp. With `destination_urls` a destination may be a URL, which its plug-in checks.
    With `destination_needed` an OnFailure must have a Destination, which may be empty: an update without it would leave open
    whether the destination stays.

    If a member's value could not be read, the mapping has no such attribute at all. Checks that need the member are left out.
    """
    found = [*islice(_constraints(mapping, concurrency_min), VIOLATIONS_MAX)]
    try:
        kind = source_kind(mapping.EventSourceArn or "")
    except AttributeError:
        if not _lacking(mapping):
            raise
        return found
    except ValueError:
        return [*found, _unrecognized(mapping)]
    by_url = destination_urls and url_scheme(getattr(mapping, "destination", "") or "") is not None
    unneeded: dict[MemberRule, bool] = {destination_rule: by_url, complete_failure: not destination_needed}
    checks = [each for each in RULES if not unneeded.get(each, False)]
    return found + [each for check in checks for each in _as_far_as_known(mapping, check(mapping, kind, now))]


def _as_far_as_known(mapping: EventSourceMapping, check: Iterator[Violation]) -> Iterator[Violation]:
    """The violations that a check finds until it reads a member that the mapping lacks."""
    try:
        yield from check
    except AttributeError:
        if not _lacking(mapping):
            raise


def _lacking(mapping: EventSourceMapping) -> bool:
    return not mapping.__dict__.keys() >= type(mapping).model_fields.keys()


def _unrecognized(mapping: EventSourceMapping) -> Violation:
    remedy = source_remedy(mapping.EventSourceArn) if mapping.EventSourceArn else f"add it: {FORMS}"
    return parameter("EventSourceArn", "Unrecognized event source.", remedy)


def _values(value: object, path: str) -> Iterator[object]:
    """All values at a path of the table; none if the mapping lacks a member of the path."""
    head, _, rest = path.partition(".")
    for mark, items in (("[]", _items), ("{key}", _keys), ("{}", _map_values)):
        if head.endswith(mark):
            inner = getattr(value, head.removesuffix(mark), None)
            found = items(inner)
            break
    else:
        found = [getattr(value, head, None)]
    for each in found:
        if rest:
            yield from _values(each, rest)
        elif each is not None:
            yield each


def _items(value: object) -> Iterable[object]:
    return value if isinstance(value, tuple) else ()


def _keys(value: object) -> Iterable[object]:
    return value if isinstance(value, dict) else ()


def _map_values(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else ()


def _constraints(mapping: EventSourceMapping, concurrency_min: int) -> Iterator[Violation]:
    """Violations of the API model: ranges, choices, lengths, in this order."""
    yield from _as_far_as_known(mapping, _names(mapping))
    given = [(each, tuple(_values(mapping, each.path))) for each in TABLE if each.path != "FunctionName"]
    for check in (partial(_range, concurrency_min), _choices, _lengths):
        for member, values in given:
            for value in values:
                yield from check(member, value)


def _names(mapping: EventSourceMapping) -> Iterator[Violation]:
    name = mapping.FunctionName
    if not 1 <= len(name) <= FUNCTION_NAME_CHARS_MAX:
        bound = (
            "greater than or equal to 1" if not name else f"less than or equal to {FUNCTION_NAME_CHARS_MAX}"
        )
        yield constraint("FunctionName", name, f"have length {bound}", "write the function's name")
        return
    try:
        FunctionName.parse(name)
    except ValueError:
        pattern = "a function name, partial ARN or ARN with an optional qualifier"
        remedy = "write NAME, ACCOUNT:function:NAME or an ARN, each with :QUALIFIER or without"
        yield constraint("FunctionName", name, f"satisfy regular expression pattern: {pattern}", remedy)


def _range(concurrency_min: int, member: Member, value: object) -> Iterator[Violation]:
    if member.type is not JsonType.WHOLE or member.span is None or not isinstance(value, int):
        return
    least, most = member.span
    if member.path == "ScalingConfig.MaximumConcurrency":
        least = concurrency_min
    remedy = f"write {least} to {most}"
    if value < least:
        yield constraint(member.path, value, f"have value greater than or equal to {least}", remedy)
    if value > most:
        yield constraint(member.path, value, f"have value less than or equal to {most}", remedy)


def _choices(member: Member, value: object) -> Iterator[Violation]:
    if member.choices and value not in member.choices:
        allowed = ", ".join(member.choices)
        must, remedy = f"satisfy enum value set: [{allowed}]", f"write one of {allowed}"
        yield constraint(member.field, value, must, remedy)


def _lengths(member: Member, value: object) -> Iterator[Violation]:
    if (
        member.length is None
        or not isinstance(value, str | tuple)
        or len(value) <= (most := member.length[1])
    ):
        return
    shown = cut(value, 80) if isinstance(value, str) else f"[{', '.join(value)}]"
    yield constraint(member.field, shown, f"have length less than or equal to {most}", f"keep it to {most}")
