"""Lists and maps of a mapping with far too many entries are refused by their number, before anything looks at the entries."""

from typing import Any

import pytest
from pydantic import ValidationError

from poller.commands import shared
from poller.config.mapping import EventSourceMapping
from poller.config.members import ENTRIES_MAX, JsonType, Member, RequestKind, requested
from poller.config.settings import FileMapping, FunctionEntry, Settings
from poller.config_errors.known_names import one_letter_apart
from tests.bounds.growth import assert_linear

LONG = [each for each in requested(RequestKind.CREATE) if each.type in {JsonType.LIST, JsonType.MAP}]
ENTRIES: dict[str, Any] = {"text": "", "number": 1, "nothing": None, "map": {}, "list": []}


def document(member: Member, entry: Any, entries: int) -> dict[str, Any]:
    """A mapping in which a member has so many entries."""
    inner: Any = [entry] * entries
    if member.type is JsonType.MAP:
        inner = {str(number): entry for number in range(entries)}
    for name in reversed(member.path.split(".")):
        inner = {name: inner}
    return {"FunctionName": "f", **inner}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
@pytest.mark.parametrize("member", LONG, ids=lambda each: each.path)
def test_too_many_entries_are_one_error(member: Member, entry: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        EventSourceMapping.model_validate(document(member, entry, ENTRIES_MAX + 1))
    (error,) = refused.value.errors()
    assert ".".join(map(str, error["loc"])) == member.path
    assert error["msg"] == "Value error, has 1001 entries; write 1000 at most"


@pytest.mark.parametrize("member", LONG, ids=lambda each: each.path)
def test_the_time_for_entries_grows_with_their_number_at_most(member: Member) -> None:
    def refuse(given: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            EventSourceMapping.model_validate(given)

    assert_linear(refuse, lambda entries: document(member, 1, entries), 20_000)


def test_tags_as_a_list_may_be_as_many_as_in_a_map() -> None:
    tags = [{"Key": str(number), "Value": ""} for number in range(ENTRIES_MAX + 1)]
    with pytest.raises(ValidationError, match="has 1001 entries; write 1000 at most"):
        EventSourceMapping.model_validate({"FunctionName": "f", "Tags": tags})
    mapping = EventSourceMapping.model_validate({"FunctionName": "f", "Tags": tags[:ENTRIES_MAX]})
    assert len(mapping.Tags or {}) == ENTRIES_MAX


def test_names_of_very_many_functions_are_not_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    real = one_letter_apart

    def counted(one: str, other: str) -> bool:
        nonlocal compared
        compared += 1
        return real(one, other)

    monkeypatch.setattr(shared, "one_letter_apart", counted)
    settings = Settings.model_construct(
        functions={f"f{number}": FunctionEntry(invoker="lambda") for number in range(1_000)},
        mappings=[FileMapping.model_construct(FunctionName=f"ff{number}") for number in range(1_500)],
    )
    lines = shared.unlike_names(settings)
    assert compared == shared.COMPARISONS_MAX
    assert lines[0].startswith("mappings[0].FunctionName: 'ff0' is not below functions")
