"""Aliases and shifts in trouble: a store that is down or was not read, workers with different files, versions that cannot be called."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import ServiceUnavailable
from poller.domain.functions.alias_control import AliasChange, ShiftRequest
from poller.domain.functions.calls import FunctionCall
from poller.domain.functions.shift_strategies import own_strategy
from poller.domain.functions.shifts import ShiftState
from poller.domain.functions.versions import AliasPlan
from poller.domain.functions.waiting_calls import CallsRequest
from poller.domain.invocations import Succeeded, Throttled, Unreachable
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.plan import DaemonPlan, FunctionPlan, Tuning
from poller.domain.records import Epoch, MappingId, WorkerId
from poller.domain.rows import FUNCTION_PREFIX, MappingRow
from poller.runtime.daemon import Daemon
from poller.runtime.functions.versions.alias_states import STORE_S_MAX
from tests.runtime.daemons import now, play, until
from tests.runtime.functions.versions.test_shifting import (
    CHECK,
    REFUSED,
    SUCCEEDED,
    Hook,
    Load,
    alias,
    request,
    state,
    under_load,
)
from tests.runtime.functions.versions.test_versions import (
    Place,
    Service,
    Version,
    call,
    failing,
    function,
    ready,
    version_of,
)
from tests.runtime.functions.versions.test_versions import plan as steady_plan

ROW = MappingId(f"{FUNCTION_PREFIX}reader")


class Outages(MemoryStore):
    """A store that answers nothing while it is `down`, and no listing of mappings while it is `unlisted`. Rows take `hangs_s`.

    While it `loses`, what is written is kept, and the answer does not arrive.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.unlisted = False
        self.hangs_s = 0.0
        self.loses = False

    def _check(self) -> None:
        if self.down:
            raise ServiceUnavailable("the store is down")

    async def create(self, row: MappingRow) -> MappingRow:
        self._check()
        await asyncio.sleep(self.hangs_s)
        return await super().create(row)

    async def update(self, row: MappingRow) -> None:
        self._check()
        await self._written(row)
        if self.loses:
            raise ServiceUnavailable("the answer was lost")

    async def _written(self, row: MappingRow) -> None:
        await super().update(row)

    async def mappings(self) -> Sequence[MappingRow]:
        self._check()
        if self.unlisted:
            raise ServiceUnavailable("the store lists nothing")
        return await super().mappings()

    async def beat(self, worker: WorkerId, counter: int, *, facts: Mapping[str, Any]) -> None:
        self._check()
        await super().beat(worker, counter, facts=facts)


def plan(made: FunctionPlan, qualifier: str = "", worker: str = "worker-1") -> DaemonPlan:
    """A plan whose ports are tried again after a while."""
    return replace(steady_plan(made, qualifier, worker), tuning=Tuning())


def half(**changes: Any) -> ShiftRequest:
    return request(strategy=own_strategy(50, 3600, False), **changes)


def test_before_the_store_was_read_nobody_is_told_that_an_alias_does_not_exist() -> None:
    place = Place(v1=Version(), v2=Version())
    store = place.store = Outages()

    async def first(daemon: Daemon) -> None:
        await ready(daemon)
        await daemon.control.calls.aliases.create("reader", "mine", AliasChange(version="2"))

    async def second(daemon: Daemon) -> None:
        await asyncio.sleep(20)
        for ask in (
            lambda: daemon.control.calls.aliases.alias("reader", "mine"),
            lambda: daemon.control.calls.aliases.alias("reader", "live"),
            lambda: daemon.control.calls.aliases.aliases("reader"),
        ):
            with pytest.raises(ApiError) as refused:
                ask()
            assert refused.value.fault is ApiErrorType.SERVICE
        with pytest.raises(ApiError) as refused:
            await call(daemon, "mine")
        assert refused.value.fault is ApiErrorType.SERVICE
        store.unlisted = False
        await until(lambda: daemon.status().complete)
        assert version_of(await call(daemon, "mine")) == "2"

    made = function("1", "2")
    play(lambda: place.daemon(plan(made, "")), first)
    store.unlisted = True
    play(lambda: place.daemon(plan(made, "")), second)


def test_a_service_gets_no_call_of_an_alias_of_the_api_before_the_store_was_read() -> None:
    place = Place(v1=Service(60.0))
    latest = place.functions["reader"] = Service(30.0)
    store = place.store = Outages()
    made = replace(function("1", aliases={}), invoker="lambda")
    made = replace(made, versions={"1": replace(made.versions["1"], invoker="lambda")})

    async def first(daemon: Daemon) -> None:
        await ready(daemon)
        await daemon.control.calls.aliases.create("reader", "mine", AliasChange(version="1"))

    async def second(daemon: Daemon) -> None:
        await asyncio.sleep(20)
        answer = await call(daemon, "mine")
        assert isinstance(answer.outcome, Unreachable)
        assert latest.got == []
        store.unlisted = False
        await until(lambda: daemon.status().complete)
        assert version_of(await call(daemon, "mine")) == "1"
        assert latest.got == []

    play(lambda: place.daemon(plan(made, "")), first)
    store.unlisted = True
    play(lambda: place.daemon(plan(made, "")), second)


def test_a_row_that_cannot_be_read_sends_no_call_to_where_the_file_says() -> None:
    place = Place(v1=Version(), v2=Version())

    async def script(daemon: Daemon) -> None:
        await place.store.create(MappingRow(ROW, Epoch(0.0), document={"aliases": "none"}))
        await ready(daemon)
        await asyncio.sleep(10)
        answer = await call(daemon, "live")
        assert isinstance(answer.outcome, Unreachable)
        assert "cannot be read" in answer.outcome.reason
        assert place.versions["v1"].got == []

    play(lambda: place.daemon(plan(function("1", "2"), "")), script)


def test_a_worker_with_another_file_deletes_no_alias_of_a_file() -> None:
    place = Place(v1=Version(), v2=Version())
    begun: list[Daemon] = []

    def one(worker: str, **aliases: AliasPlan) -> Daemon:
        begun.append(place.daemon(plan(function("1", "2", aliases=aliases), "", worker=worker)))
        return begun[-1]

    async def script(first: Daemon) -> None:
        for each in begun:
            await ready(each)
        await first.control.calls.aliases.shift("reader", "live", half())
        await asyncio.sleep(5)
        await begun[1].control.calls.aliases.delete("reader", "live")
        await asyncio.sleep(5)
        found = alias(first).shift
        assert found is not None
        assert found.state is ShiftState.SHIFTING

    play(lambda: one("worker-1", live=AliasPlan(version="1")), script, lambda: one("worker-2"))


def test_a_shift_goes_on_although_the_first_worker_does_not_have_the_alias() -> None:
    place = Place(v1=Version(), v2=Version())
    hook = place.functions["check"] = Hook(SUCCEEDED, SUCCEEDED, takes_s=100.0)
    begun: list[Daemon] = []

    def one(worker: str, **aliases: AliasPlan) -> Daemon:
        found = plan(function("1", "2", aliases=aliases), "", worker=worker)
        begun.append(place.daemon(replace(found, functions={**found.functions, "check": CHECK})))
        return begun[-1]

    async def script(_: Daemon) -> None:
        for each in begun:
            await ready(each)
        asked = request(before="check", after="check", strategy=own_strategy(50, 60, False))
        await begun[1].control.calls.aliases.shift("reader", "live", asked)
        await until(lambda: state(begun[1]) is ShiftState.DONE, within_s=600)
        assert len(hook.got) == 2

    live = AliasPlan(version="1")
    play(
        lambda: one("worker-1"),
        script,
        lambda: one("worker-2", live=live),
        lambda: one("worker-3", live=live),
    )


def test_a_store_that_is_down_does_not_keep_a_failing_version_in_the_shift() -> None:
    place = Place(v1=Version(), v2=Version(failing))
    store = place.store = Outages()
    begun: list[Daemon] = []

    def one(worker: str) -> Daemon:
        begun.append(place.daemon(plan(function("1", "2"), worker=worker)))
        return begun[-1]

    async def work(loads: list[Load]) -> None:
        await call(begun[0], "2")
        await begun[0].control.calls.aliases.shift("reader", "live", half(failure_rate=0.5))
        await asyncio.sleep(5)
        store.down = True
        await asyncio.sleep(60)
        calm = now()
        await asyncio.sleep(540)
        for load in loads:
            assert load.between(calm, now()).keys() == {"1"}
        for each in begun:
            (note,) = [found for found in each.status().notes if found.startswith("alias live of reader: ")]
            assert note.endswith(
                "here all calls go to version 1, and the store has not taken the rollback yet"
            )
        store.down = False
        await until(lambda: all(state(each) is ShiftState.ROLLED_BACK for each in begun), within_s=120)
        assert not any("rollback yet" in found for each in begun for found in each.status().notes)

    async def script(_: Daemon) -> None:
        await under_load(begun, work)

    play(lambda: one("worker-1"), script, lambda: one("worker-2"))


@pytest.mark.parametrize("trouble", ["hangs", "gone"])
def test_a_version_that_never_opens_or_is_not_there_is_a_failed_one(trouble: str) -> None:
    place = Place(v1=Version(), v2=Version())
    made = function("1", "2")
    without = replace(made, versions={"1": made.versions["1"]})
    if trouble == "hangs":
        place.opening_s["reader:2"] = 900.0

    begun: list[Daemon] = []

    def one(worker: str) -> Daemon:
        found = without if (trouble, worker) == ("gone", "worker-2") else made
        begun.append(place.daemon(plan(found, "", worker=worker)))
        return begun[-1]

    async def script(first: Daemon) -> None:
        for each in begun:
            await ready(each)
        await first.control.calls.aliases.shift("reader", "live", half(failure_rate=0.5))
        for number in range(200):
            if state(first) is ShiftState.ROLLED_BACK:
                break
            await call(begun[1], "live", n=number)
            await asyncio.sleep(1)
        assert state(first) is ShiftState.ROLLED_BACK

    play(lambda: one("worker-1"), script, lambda: one("worker-2"))


def test_a_hook_without_room_is_called_again_and_one_that_refuses_is_not() -> None:
    place = Place(v1=Version(), v2=Version())
    hook = place.functions["check"] = Hook(
        Throttled("busy"), Throttled("busy"), SUCCEEDED, REFUSED, takes_s=1.0
    )
    found = plan(function("1", "2"))

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        asked = request(before="check", after="check", strategy=own_strategy(50, 60, False))
        await daemon.control.calls.aliases.shift("reader", "live", asked)
        await until(lambda: state(daemon) is ShiftState.SHIFTING, within_s=60)
        await until(lambda: state(daemon) is ShiftState.ROLLED_BACK, within_s=120)
        assert len(hook.got) == 4

    play(lambda: place.daemon(replace(found, functions={**found.functions, "check": CHECK})), script)


def test_an_alias_that_was_gone_from_the_file_is_the_files_again_when_it_is_back() -> None:
    place = Place(v1=Version(), v2=Version(), v3=Version())
    made = function("1", "2")
    without = replace(made, aliases={})

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        await until(lambda: version_of_sync(daemon) == "1")
        daemon.replan(plan(without, ""))
        await asyncio.sleep(10)
        await daemon.control.calls.aliases.create("reader", "live", AliasChange(version="2"))
        assert version_of(await call(daemon, "live")) == "2"
        daemon.replan(plan(made, ""))
        await asyncio.sleep(10)
        assert version_of(await call(daemon, "live")) == "1"

    def version_of_sync(daemon: Daemon) -> str:
        return alias(daemon).version

    play(lambda: place.daemon(plan(made, "")), script)


@pytest.mark.parametrize("gone", ["alias", "function"])
def test_a_worker_whose_file_has_the_alias_no_more_leaves_its_shift_to_another(gone: str) -> None:
    place = Place(v1=Version(), v2=Version())
    hook = place.functions["check"] = Hook(SUCCEEDED, takes_s=1.0)
    begun: list[Daemon] = []

    def one(worker: str) -> Daemon:
        found = plan(function("1", "2"), worker=worker)
        begun.append(place.daemon(replace(found, functions={**found.functions, "check": CHECK})))
        return begun[-1]

    async def script(first: Daemon) -> None:
        for each in begun:
            await ready(each)
        asked = request(after="check", strategy=own_strategy(50, 60, False))
        await first.control.calls.aliases.shift("reader", "live", asked)
        await asyncio.sleep(5)
        left = plan(function("1", "2", aliases={}))
        if gone == "function":
            left = replace(left, functions={"check": CHECK}, mappings=())
        first.replan(left)
        await until(lambda: state(begun[1]) is ShiftState.DONE, within_s=120)
        assert len(hook.got) == 1

    play(lambda: one("worker-1"), script, lambda: one("worker-2"))


def test_requests_that_wait_for_one_another_all_end_in_time_when_the_store_hangs() -> None:
    place = Place(v1=Version(), v2=Version())
    store = place.store = Outages()

    async def ends(daemon: Daemon, name: str) -> float:
        with pytest.raises(ApiError) as refused:
            await daemon.control.calls.aliases.create("reader", name, AliasChange(version="1"))
        assert refused.value.fault is ApiErrorType.SERVICE
        return now()

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        began, store.hangs_s = now(), 100.0
        async with asyncio.TaskGroup() as scope:
            asked = [scope.create_task(ends(daemon, f"a{number}")) for number in range(5)]
        store.hangs_s = 0.0
        assert [each.result() - began for each in asked] == [STORE_S_MAX] * 5

    play(lambda: place.daemon(plan(function("1", "2"))), script)


def test_a_new_description_in_the_file_leads_the_alias_back_nowhere() -> None:
    place = Place(v1=Version(), v2=Version(), v3=Version())

    def defined(version: str, said: str) -> DaemonPlan:
        return plan(function("1", "2", "3", aliases={"live": AliasPlan(version=version, description=said)}))

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        aliases = daemon.control.calls.aliases
        await aliases.update("reader", "live", AliasChange(version="2"))
        daemon.replan(defined("1", "new"))
        await asyncio.sleep(10)
        shown = alias(daemon)
        assert (shown.version, shown.description) == ("2", "new")
        await aliases.shift("reader", "live", request(to="3"))
        daemon.replan(defined("1", "newer"))
        await asyncio.sleep(10)
        assert (state(daemon), alias(daemon).description) == (ShiftState.SHIFTING, "newer")
        daemon.replan(defined("2", "newer"))
        await asyncio.sleep(10)
        assert (state(daemon), alias(daemon).version) == (ShiftState.ROLLED_BACK, "2")

    play(lambda: place.daemon(defined("1", "old")), script)


def test_no_calls_are_moved_to_a_version_that_may_not_be_called_because_it_has_changed() -> None:
    place = Place(v1=Version(), v2=Version())
    made = function("1", "2")
    other = replace(made.versions["2"], settings={"code": "other"})
    changed = replace(made, versions={**made.versions, "2": other})

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        await call(daemon, "2")
        daemon.replan(plan(changed))
        await asyncio.sleep(5)
        with pytest.raises(ApiError, match="to: version 2 of reader has other settings than") as refused:
            await daemon.control.calls.aliases.shift("reader", "live", request())
        assert refused.value.fault is ApiErrorType.PARAMETER
        daemon.replan(plan(made))
        await asyncio.sleep(5)
        await daemon.control.calls.aliases.shift("reader", "live", request())
        assert state(daemon) is ShiftState.SHIFTING

    play(lambda: place.daemon(plan(made)), script)


def test_an_asynchronous_call_by_an_alias_that_was_deleted_waits_and_is_not_lost() -> None:
    place = Place(v1=Version(), v2=Version(takes_s=30.0))

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        calls = daemon.control.calls
        await calls.aliases.create("reader", "mine", AliasChange(version="1"))
        place.versions["v1"].answers = lambda _: Throttled("busy")
        await calls.enqueue(FunctionCall(function="reader", qualifier="mine", payload=b"{}"))
        await until(lambda: bool(place.versions["v1"].got), within_s=30)
        await calls.aliases.delete("reader", "mine")
        await asyncio.sleep(600)
        page = await calls.queued_calls("reader", CallsRequest())
        assert [each.last_error for each in page.calls] == [
            "reader has no version or alias mine; it has $LATEST, 1, 2, live"
        ]
        assert place.versions["latest"].got == []
        place.versions["v1"].answers = lambda _: Succeeded(b"{}")
        await calls.aliases.create("reader", "mine", AliasChange(version="1"))
        await until(lambda: len(place.versions["v1"].got) >= 2, within_s=600)

    play(lambda: place.daemon(plan(function("1", "2"))), script)


def test_what_one_worker_has_written_another_one_shows_at_once_and_in_an_outage_what_it_knew() -> None:
    place = Place(v1=Version(), v2=Version())
    store = place.store = Outages()
    begun: list[Daemon] = []

    def one(worker: str) -> Daemon:
        begun.append(place.daemon(plan(function("1", "2"), worker=worker)))
        return begun[-1]

    async def script(_: Daemon) -> None:
        for each in begun:
            await ready(each)
        first, second = (each.control.calls.aliases for each in begun)
        await first.create("reader", "mine", AliasChange(version="2"))
        await second.refresh("reader")
        assert second.alias("reader", "mine").version == "2"
        store.down = True
        await second.refresh("reader")
        assert second.alias("reader", "mine").version == "2"
        with pytest.raises(ApiError, match="Function not found"):
            await second.refresh("nothing")

    play(lambda: one("worker-1"), script, lambda: one("worker-2"))


@pytest.mark.parametrize(
    "other",
    [
        {"to": "3"},
        {"strategy": own_strategy(50, 60, False)},
        {"before": "check"},
        {"after": "check"},
        {"failure_rate": 0.5},
    ],
)
def test_another_shift_under_the_same_id_is_refused(other: dict[str, Any]) -> None:
    place = Place(v1=Version(), v2=Version(), v3=Version())
    found = plan(function("1", "2", "3"))

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        aliases = daemon.control.calls.aliases
        begun = await aliases.shift("reader", "live", request(shift="mine"))
        again = await aliases.shift("reader", "live", request(shift="mine", by="you", reason="again"))
        assert again.shift == begun.shift
        with pytest.raises(ApiError, match="id: mine is another shift, from version 1 to 2") as refused:
            await aliases.shift("reader", "live", request(shift="mine", **other))
        assert refused.value.fault is ApiErrorType.CONFLICT

    play(lambda: place.daemon(replace(found, functions={**found.functions, "check": CHECK})), script)
