"""What becomes of the mapping of a resource, whichever worker sees which of them first."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.resources.resource import MappingResource, ResourceOrigin
from poller.rules.resources.following import MadeMapping, Presence, ResourceStep, step_for, step_without

RESOURCE = MappingResource(namespace="work", name="orders", uid="u1", generation=3, version="9", spec={})
ORIGIN = ResourceOrigin(namespace="work", namespace_uid="n1", name="orders", uid="u1", generation=3)
KNOWN = MadeMapping(origin=ORIGIN)


@pytest.mark.parametrize(
    ("resource", "known", "valid", "step"),
    [
        (RESOURCE, None, True, ResourceStep.CREATE),
        (RESOURCE, None, False, ResourceStep.NOTHING),
        (replace(RESOURCE, deleting=True), None, True, ResourceStep.NOTHING),
        (RESOURCE, KNOWN, True, ResourceStep.NOTHING),
        (replace(RESOURCE, generation=4), KNOWN, True, ResourceStep.CHANGE),
        (replace(RESOURCE, generation=4), KNOWN, False, ResourceStep.NOTHING),
        (replace(RESOURCE, generation=2), KNOWN, True, ResourceStep.NOTHING),
        (RESOURCE, MadeMapping(origin=replace(ORIGIN, selected=False)), True, ResourceStep.CHANGE),
        (replace(RESOURCE, deleting=True), KNOWN, False, ResourceStep.DELETE),
        (replace(RESOURCE, deleting=True), replace(KNOWN, deleting=True), True, ResourceStep.NOTHING),
        (RESOURCE, MadeMapping(origin=None), True, ResourceStep.CONFLICT),
        (RESOURCE, MadeMapping(origin=replace(ORIGIN, uid="u0")), True, ResourceStep.CONFLICT),
        (replace(RESOURCE, deleting=True), MadeMapping(origin=None), True, ResourceStep.NOTHING),
    ],
)
def test_what_a_resource_asks_for(
    resource: MappingResource, known: MadeMapping | None, valid: bool, step: ResourceStep
) -> None:
    assert step_for(resource, known, valid=valid) is step


@pytest.mark.parametrize(
    ("known", "presence", "step"),
    [
        (KNOWN, Presence.SELECTED, ResourceStep.NOTHING),
        (KNOWN, Presence.GONE, ResourceStep.DELETE),
        (KNOWN, Presence.UNSELECTED, ResourceStep.REST),
        (MadeMapping(origin=replace(ORIGIN, selected=False)), Presence.UNSELECTED, ResourceStep.NOTHING),
        (replace(KNOWN, deleting=True), Presence.GONE, ResourceStep.NOTHING),
        (MadeMapping(origin=None), Presence.GONE, ResourceStep.NOTHING),
    ],
)
def test_what_becomes_of_a_mapping_whose_resource_is_not_there(
    known: MadeMapping, presence: Presence, step: ResourceStep
) -> None:
    assert step_without(known, presence) is step


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=12))
def test_workers_that_see_the_generations_in_any_order_end_with_the_newest_valid_one(
    seen: list[tuple[int, bool]],
) -> None:
    valid = dict(seen)
    known: MadeMapping | None = None
    for generation, _ in seen:
        resource = replace(RESOURCE, generation=generation)
        if step_for(resource, known, valid=valid[generation]) in {ResourceStep.CREATE, ResourceStep.CHANGE}:
            known = MadeMapping(origin=replace(ORIGIN, generation=generation))
    newest = max((each for each in valid if valid[each]), default=None)
    assert (known.origin.generation if known is not None and known.origin is not None else None) == newest
