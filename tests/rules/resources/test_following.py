"""What becomes of the mapping of a resource, whichever worker sees which of them first."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.resources.resource import MappingResource, ResourceOrigin
from poller.rules.resources.following import KnownMapping, Presence, Step, step_for, step_without

RESOURCE = MappingResource(namespace="work", name="orders", uid="u1", generation=3, version="9", spec={})
ORIGIN = ResourceOrigin(namespace="work", namespace_uid="n1", name="orders", uid="u1", generation=3)
KNOWN = KnownMapping(origin=ORIGIN)


@pytest.mark.parametrize(
    ("resource", "known", "valid", "step"),
    [
        (RESOURCE, None, True, Step.CREATE),
        (RESOURCE, None, False, Step.NOTHING),
        (replace(RESOURCE, deleting=True), None, True, Step.NOTHING),
        (RESOURCE, KNOWN, True, Step.NOTHING),
        (replace(RESOURCE, generation=4), KNOWN, True, Step.CHANGE),
        (replace(RESOURCE, generation=4), KNOWN, False, Step.NOTHING),
        (replace(RESOURCE, generation=2), KNOWN, True, Step.NOTHING),
        (RESOURCE, KnownMapping(origin=replace(ORIGIN, selected=False)), True, Step.CHANGE),
        (replace(RESOURCE, deleting=True), KNOWN, False, Step.DELETE),
        (replace(RESOURCE, deleting=True), replace(KNOWN, deleting=True), True, Step.NOTHING),
        (RESOURCE, KnownMapping(origin=None), True, Step.CONFLICT),
        (RESOURCE, KnownMapping(origin=replace(ORIGIN, uid="u0")), True, Step.CONFLICT),
        (replace(RESOURCE, deleting=True), KnownMapping(origin=None), True, Step.NOTHING),
    ],
)
def test_what_a_resource_asks_for(
    resource: MappingResource, known: KnownMapping | None, valid: bool, step: Step
) -> None:
    assert step_for(resource, known, valid=valid) is step


@pytest.mark.parametrize(
    ("known", "presence", "step"),
    [
        (KNOWN, Presence.SELECTED, Step.NOTHING),
        (KNOWN, Presence.GONE, Step.DELETE),
        (KNOWN, Presence.UNSELECTED, Step.REST),
        (KnownMapping(origin=replace(ORIGIN, selected=False)), Presence.UNSELECTED, Step.NOTHING),
        (replace(KNOWN, deleting=True), Presence.GONE, Step.NOTHING),
        (KnownMapping(origin=None), Presence.GONE, Step.NOTHING),
    ],
)
def test_what_becomes_of_a_mapping_whose_resource_is_not_there(
    known: KnownMapping, presence: Presence, step: Step
) -> None:
    assert step_without(known, presence) is step


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=12))
def test_workers_that_see_the_generations_in_any_order_end_with_the_newest_valid_one(
    seen: list[tuple[int, bool]],
) -> None:
    valid = dict(seen)
    known: KnownMapping | None = None
    for generation, _ in seen:
        resource = replace(RESOURCE, generation=generation)
        if step_for(resource, known, valid=valid[generation]) in {Step.CREATE, Step.CHANGE}:
            known = KnownMapping(origin=replace(ORIGIN, generation=generation))
    newest = max((each for each in valid if valid[each]), default=None)
    assert (known.origin.generation if known is not None and known.origin is not None else None) == newest
