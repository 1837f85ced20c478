"""Plans of mappings for tests, which name the fields of a policy without the policy."""

from dataclasses import fields
from typing import Any

from poller.domain.plan import DiscardPolicy, MappingPlan, StreamPolicy


def mapping_plan(**given: Any) -> MappingPlan:
    """A plan with these fields. Those of its stream and discard policies stand among the others: `lanes=2`, `destination=ARN`."""
    stream, discard = (
        {each.name: given.pop(each.name) for each in fields(policy) if each.name in given}
        for policy in (StreamPolicy, DiscardPolicy)
    )
    return MappingPlan(stream=StreamPolicy(**stream), discard=DiscardPolicy(**discard), **given)
