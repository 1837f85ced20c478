"""Versions of real functions: python handlers in threads and processes, and programs. Each sees which version it is."""

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from adapters.stores.memory import MemoryStore
from poller.clock import LoopClock
from poller.domain.functions.versions import AliasPlan, VersionPlan
from poller.domain.invocations import EncodedEvent, Invocation, Succeeded
from poller.domain.plan import FunctionPlan
from poller.domain.policies import Backoff
from poller.domain.records import MappingId, WorkerId
from poller.plugins import Environment, InstalledPlugins
from poller.runtime.functions.versions.alias_states import AliasStates
from poller.runtime.mappings.components import DaemonContext, FunctionPool
from poller.runtime.watched_tasks import WatchedTasks
from poller.runtime.workers.membership import Alone
from tests.runtime.fakes import Seen

ARN = "arn:aws:lambda:eu-west-1:111122223333:function:orders"
CODE = """
def handler(event, context):
    return {{"code": {name!r}, "version": context.function_version, "arn": context.invoked_function_arn}}
"""


def invocation(qualifier: str) -> Invocation:
    return Invocation(f"{ARN}:{qualifier}" if qualifier else ARN, "r-1", EncodedEvent(b"{}"), 20.0)


async def answers(plan: FunctionPlan, *qualifiers: str) -> dict[str, Any]:
    """What a function of this plan answers by each qualifier, and which version its outcome names."""
    clock, observer, store = LoopClock(), Seen(), MemoryStore()
    states = AliasStates(store, clock, observer)
    states.take(await store.mappings())
    tools = DaemonContext(
        registry=InstalledPlugins(),
        env=Environment(clock=clock),
        worker=WorkerId("one"),
        store=store,
        workers=Alone(WorkerId("one")),
        observer=observer,
        rng=Random(1),
        port_backoff=Backoff(),
        aliases=states,
    )
    found: dict[str, Any] = {}
    async with WatchedTasks(observer) as scope, FunctionPool(tools, scope).using(plan, _lost) as function:
        for each in qualifiers:
            await function.slots.acquire()
            outcome = await function.call(invocation(each), mapping=MappingId("m"))
            function.slots.release()
            assert isinstance(outcome, Succeeded), outcome
            found[each] = (outcome.executed_version, json.loads(outcome.payload))
    return found


def _lost() -> None:
    raise AssertionError("the function is gone although nothing closed it")


def folder(place: Path, name: str) -> str:
    made = place / name
    made.mkdir()
    (made / "app.py").write_text(CODE.format(name=name))
    return str(made)


@pytest.mark.parametrize("more", [{}, {"isolation": "process", "processes": 1}])
def test_python_handlers_of_one_name_have_the_code_and_the_number_of_their_version(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    own = {"handler": "app.handler", "code": folder(tmp_path, "newest"), **more}
    plan = FunctionPlan(
        name="orders",
        invoker="python",
        settings=own,
        versions={
            number: VersionPlan(
                number=number,
                invoker="python",
                settings={**own, "code": folder(tmp_path, f"release-{number}")},
            )
            for number in ("1", "2")
        },
        aliases={"live": AliasPlan(version="2")},
    )
    found = asyncio.run(answers(plan, "", "1", "live"))
    assert found == {
        "": ("$LATEST", {"code": "newest", "version": "$LATEST", "arn": ARN}),
        "1": ("1", {"code": "release-1", "version": "1", "arn": f"{ARN}:1"}),
        "live": ("2", {"code": "release-2", "version": "2", "arn": f"{ARN}:live"}),
    }
