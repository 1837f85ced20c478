"""Whole daemons that follow custom resources on virtual time: made, changed, wrong, paused, deleted, and the cluster away and back."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.domain.mapping_api import ApiErrorType
from poller.domain.plan import ResourcePlan
from poller.domain.records import MappingId, WorkerId
from poller.domain.resources.resource import ConditionType as Is
from poller.runtime.daemon import Daemon
from poller.runtime.resources.resource_status import STAND_IN_S
from tests.runtime.daemons import Site, now, play, until
from tests.runtime.fakes import STREAM_ARN, FakeStream, records
from tests.runtime.mappings.controlled import plan, reader, refusal, site
from tests.runtime.resources.cluster import ClusterDoor, FakeCluster

SPEC = {"eventSourceARN": STREAM_ARN, "functionName": "reader", "startingPosition": "TRIM_HORIZON"}
ROUNDS_S = 15.0
QUIET_S = 60.0
"""So long nothing may happen before a test says that it does not."""


class Followed:
    """A site with a cluster, and daemons that follow it."""

    def __init__(self, answer: Callable[[list[int]], Outcome] | None = None, *, takes_s: float = 0.0) -> None:
        self.place: Site = site(answer, takes_s=takes_s)
        self.cluster = FakeCluster()
        self.daemons: dict[str, Daemon] = {}

    def daemon(self, worker: str = "ann", *, selector: str = "", **changes: Any) -> Daemon:
        """A daemon that has not started."""
        given = replace(plan(), worker=WorkerId(worker), resources=ResourcePlan(**changes))
        self.place.resources = ClusterDoor(self.cluster, worker, selector=selector)
        self.daemons[worker] = self.place.daemon(given)
        return self.daemons[worker]

    def play(self, script: Callable[[Daemon], Awaitable[None]], *workers: str) -> None:
        """Runs the script against daemons that are ready."""
        first, *others = workers or ("ann",)
        play(lambda: self.daemon(first), script, *(lambda name=each: self.daemon(name) for each in others))

    async def is_(self, name: str, type_: Is, holds: bool = True, *, within_s: float = 60.0) -> float:
        """Waits until a condition is as given, about the spec as it is now."""
        return await until(lambda: self.cluster.holds(name, type_) is holds, within_s=within_s)

    async def tells(self, name: str, *reasons: str) -> None:
        """Waits until exactly these events were told of a resource, and sees that no other follows."""
        await until(lambda: self.cluster.told(name) == [*reasons])
        await until_quiet()
        assert self.cluster.told(name) == [*reasons]

    async def gone(self, name: str) -> float:
        """Waits until a resource is removed."""
        return await until(lambda: name not in self.cluster.resources)

    def read(self) -> list[int]:
        """The records that the function got, in order."""
        return [number for call in reader(self.place).calls for number in call]

    def kept(self, uid: MappingId) -> Mapping[str, Any]:
        """The parameters of a mapping in the store."""
        parameters: Mapping[str, Any] = self.place.store._rows[MappingId(f"api:{uid}")].document["parameters"]
        return parameters

    def mappings(self) -> set[MappingId]:
        """The mappings in the store."""
        return {
            MappingId(row.removeprefix("api:")) for row in self.place.store._rows if row.startswith("api:")
        }


async def until_quiet() -> None:
    """Lets several rounds of the status go by."""
    ends = now() + ROUNDS_S
    await until(lambda: now() >= ends)


def test_a_resource_that_is_made_becomes_a_mapping_that_runs() -> None:
    world = Followed()

    async def script(_: Daemon) -> None:
        made = world.cluster.create("readings", SPEC)
        took_s = await world.is_("readings", Is.READY)
        assert took_s < 5
        assert sorted(world.read()) == [1, 2, 3, 4, 5]
        status = world.cluster.status("readings")
        assert status is not None
        assert (status.uuid, status.generation, status.shards, status.state) == (made.uid, 1, 1, "Enabled")
        assert {each.type: each.holds for each in status.conditions} == {
            "Ready": True,
            "Blocked": False,
            "Paused": False,
            "Degraded": False,
        }

    world.play(script)


def test_a_changed_spec_changes_the_mapping_once() -> None:
    world = Followed()

    async def script(daemon: Daemon) -> None:
        world.cluster.create("readings", SPEC)
        await world.is_("readings", Is.READY)
        world.cluster.change("readings", SPEC | {"batchSize": 2})
        await world.is_("readings", Is.READY)
        stream = world.place.sources[STREAM_ARN]
        assert isinstance(stream, FakeStream)
        stream.put(*records(6, 7, 8))
        await until(lambda: 8 in world.read())
        assert max(len(each) for each in reader(world.place).calls[1:]) == 2
        (view,) = daemon.control.views()
        assert view.parameters["BatchSize"] == 2
        status = world.cluster.status("readings")
        assert status is not None
        assert status.generation == 2

    world.play(script)


def test_a_wrong_spec_is_said_and_the_mapping_goes_on_as_before() -> None:
    world = Followed()

    async def script(daemon: Daemon) -> None:
        world.cluster.create("readings", SPEC)
        await world.is_("readings", Is.READY)
        world.cluster.change("readings", SPEC | {"batchSize": 0})
        await world.is_("readings", Is.STALLED)
        ready = world.cluster.resources["readings"].condition(Is.READY)
        assert ready is not None
        assert not ready.holds
        assert ready.reason == "Invalid"
        assert "batchSize" in ready.message
        assert ready.message.endswith("; the mapping goes on as before the change")
        await world.tells("readings", "Invalid")
        (view,) = daemon.control.views()
        assert view.state.value == "Enabled"
        world.cluster.change("readings", SPEC)
        await world.is_("readings", Is.READY)
        assert world.cluster.resources["readings"].condition(Is.STALLED) is None

    world.play(script)


def test_a_resource_that_was_wrong_from_the_beginning_makes_no_mapping_and_can_be_deleted() -> None:
    world = Followed()

    async def script(_: Daemon) -> None:
        world.cluster.create("readings", SPEC | {"startingPosition": "YESTERDAY"})
        await world.is_("readings", Is.STALLED)
        assert world.mappings() == set()
        world.cluster.delete("readings")
        await world.gone("readings")

    world.play(script)


def test_another_source_in_a_spec_is_refused_because_it_would_be_another_mapping() -> None:
    world = Followed()

    async def script(_: Daemon) -> None:
        world.cluster.create("readings", SPEC)
        await world.is_("readings", Is.READY)
        world.cluster.change("readings", SPEC | {"eventSourceARN": STREAM_ARN + "2"})
        await world.is_("readings", Is.STALLED)
        ready = world.cluster.resources["readings"].condition(Is.READY)
        assert ready is not None
        assert ready.message.startswith("eventSourceARN cannot be changed")

    world.play(script)


def test_a_resource_that_is_disabled_rests_and_goes_on_where_it_was() -> None:
    world = Followed()

    async def script(_: Daemon) -> None:
        world.cluster.create("readings", SPEC)
        await world.is_("readings", Is.READY)
        world.cluster.change("readings", SPEC | {"enabled": False})
        await world.is_("readings", Is.PAUSED)
        await until(lambda: world.cluster.reason("readings", Is.READY) == "Disabled")
        assert world.cluster.holds("readings", Is.READY)
        calls = len(reader(world.place).calls)
        stream = world.place.sources[STREAM_ARN]
        assert isinstance(stream, FakeStream)
        stream.put(*records(6))
        world.cluster.change("readings", SPEC)
        await world.is_("readings", Is.PAUSED, False)
        await until(lambda: len(reader(world.place).calls) > calls)
        assert reader(world.place).calls[calls:] == [[6]]
        await world.tells("readings", "Paused", "Resumed")

    world.play(script)


def test_a_deleted_resource_goes_at_once_and_its_mapping_drains() -> None:
    world = Followed(takes_s=20.0)

    async def script(_: Daemon) -> None:
        world.cluster.create("readings", SPEC)
        await until(lambda: reader(world.place).in_flight == 1)
        world.cluster.delete("readings")
        assert "readings" not in world.cluster.resources
        await until(lambda: not world.mappings())
        assert reader(world.place).in_flight == 0
        assert reader(world.place).calls == [[1, 2, 3, 4, 5]]

    world.play(script)


def test_a_deleted_resource_that_another_finalizer_keeps_shows_that_its_mapping_drains() -> None:
    world = Followed(takes_s=20.0)

    async def script(_: Daemon) -> None:
        world.cluster.create("readings", SPEC)
        world.cluster.kept.add("readings")
        await until(lambda: reader(world.place).in_flight == 1)
        world.cluster.delete("readings")
        await until(lambda: world.cluster.reason("readings", Is.READY) == "Deleting")
        assert reader(world.place).in_flight == 1
        await until(lambda: not world.mappings())
        assert reader(world.place).calls == [[1, 2, 3, 4, 5]]
        writes = len(world.cluster.status_writes)
        await until_quiet()
        assert len(world.cluster.status_writes) == writes
        assert world.mappings() == set()

    world.play(script)


def test_a_resource_that_was_deleted_while_no_daemon_ran_loses_its_mapping_when_one_starts() -> None:
    world = Followed()

    async def first(_: Daemon) -> None:
        world.cluster.create("readings", SPEC)
        await world.is_("readings", Is.READY)

    async def second(_: Daemon) -> None:
        world.cluster.delete("readings")
        assert "readings" not in world.cluster.resources
        await until(lambda: not world.mappings())

    world.play(first)
    world.play(second)


def test_two_workers_make_one_mapping_and_one_of_them_writes_the_status() -> None:
    world = Followed()

    async def script(daemon: Daemon) -> None:
        await until(lambda: daemon.status().ready)
        for number in range(6):
            arn = f"{STREAM_ARN}-{number}"
            world.place.sources[arn] = FakeStream()
            world.cluster.create(f"readings-{number}", SPEC | {"eventSourceARN": arn})
        for number in range(6):
            await world.is_(f"readings-{number}", Is.READY)
        assert len(world.mappings()) == 6
        writers = {
            name: {worker for worker, written, _ in world.cluster.status_writes if written == name}
            for name in world.cluster.resources
        }
        assert all(len(each) == 1 for each in writers.values())
        assert set().union(*writers.values()) == {"ann", "bob"}

    world.play(script, "ann", "bob")


def test_when_the_worker_that_writes_stops_another_one_writes() -> None:
    world = Followed()

    async def script(daemon: Daemon) -> None:
        await until(lambda: daemon.status().ready)
        world.cluster.create("readings", SPEC)
        await world.is_("readings", Is.READY)
        (writer,) = {worker for worker, _, _ in world.cluster.status_writes}
        world.daemons[writer].stop()
        await until_quiet()
        world.cluster.change("readings", SPEC | {"batchSize": 3})
        await world.is_("readings", Is.READY)
        assert world.cluster.status_writes[-1][0] != writer

    world.play(script, "ann", "bob")


def test_a_worker_that_follows_no_resources_keeps_no_status_from_being_written() -> None:
    world = Followed()

    def other() -> Daemon:
        world.daemons["bob"] = world.place.daemon(replace(plan(), worker=WorkerId("bob")))
        return world.daemons["bob"]

    async def script(daemon: Daemon) -> None:
        await until(lambda: daemon.status().ready)
        for number in range(6):
            arn = f"{STREAM_ARN}-{number}"
            world.place.sources[arn] = FakeStream()
            world.cluster.create(f"readings-{number}", SPEC | {"eventSourceARN": arn})
        took = [await world.is_(f"readings-{number}", Is.READY) for number in range(6)]
        assert max(took) < STAND_IN_S + ROUNDS_S
        assert {worker for worker, _, _ in world.cluster.status_writes} == {"ann"}

    play(lambda: world.daemon("ann"), script, other)


def test_a_daemon_that_looks_at_another_cluster_is_not_ready_and_deletes_nothing() -> None:
    world = Followed()

    async def first(_: Daemon) -> None:
        world.cluster.create("readings", SPEC)
        await world.is_("readings", Is.READY)

    async def elsewhere(daemon: Daemon) -> None:
        world.cluster.create("other", SPEC | {"eventSourceARN": STREAM_ARN + "2"})
        await until(lambda: bool(daemon.status().problems))
        await until_quiet()
        (problem,) = daemon.status().problems
        assert not daemon.status().ready
        assert f"UID {uid}, and" in problem
        assert "forget_namespace: " + uid in problem
        assert world.mappings() == made
        assert world.cluster.status("other") is None
        assert [each.mapping for each in daemon.status().mappings] == [*made]

    async def forgetting(daemon: Daemon) -> None:
        await world.is_("other", Is.READY)
        assert world.mappings() == {MappingId(world.cluster.resources["other"].uid)}
        assert daemon.status().ready

    uid = world.cluster.namespace_uid
    world.play(first)
    made = world.mappings()
    world.cluster = FakeCluster(namespace_uid="22222222-0000-4000-8000-000000000002", _made=7)
    world.place.sources[STREAM_ARN + "2"] = FakeStream()
    world.play(elsewhere)
    play(lambda: world.daemon(forget_namespace=uid), forgetting)


def test_a_status_that_says_the_same_is_not_written_again() -> None:
    world = Followed()

    async def script(_: Daemon) -> None:
        world.cluster.create("readings", SPEC)
        await world.is_("readings", Is.READY)
        await until(lambda: now() >= QUIET_S, within_s=QUIET_S * 2)
        before = len(world.cluster.status_writes)
        await until(lambda: now() >= QUIET_S * 3, within_s=QUIET_S * 3)
        assert len(world.cluster.status_writes) == before
        assert world.cluster.lists == 1

    world.play(script)


def test_a_blocked_shard_shows_with_an_event_and_so_does_its_end() -> None:
    failing = [True]
    world = Followed(lambda _: FunctionError("ValueError", "poison") if failing[0] else Succeeded(b""))

    async def script(_: Daemon) -> None:
        world.cluster.create("readings", SPEC)
        await world.is_("readings", Is.BLOCKED)
        await world.tells("readings", "Blocked")
        blocked = world.cluster.resources["readings"].condition(Is.BLOCKED)
        assert blocked is not None
        assert "poison" in blocked.message
        failing[0] = False
        await world.is_("readings", Is.BLOCKED, False, within_s=300)
        await world.tells("readings", "Blocked", "Freed")
        (begun, ended) = world.cluster.events.values()
        assert (begun.warning, ended.warning) == (True, False)

    world.play(script)


def test_mappings_run_on_while_the_cluster_is_away_and_what_changed_meanwhile_is_carried_out() -> None:
    world = Followed()

    async def script(daemon: Daemon) -> None:
        world.cluster.create("readings", SPEC)
        world.cluster.create("other", SPEC | {"eventSourceARN": STREAM_ARN + "2"})
        world.place.sources[STREAM_ARN + "2"] = FakeStream()
        await world.is_("readings", Is.READY)
        await world.is_("other", Is.READY)
        world.cluster.go_away()
        await until(lambda: any("connection refused" in each for each in daemon.status().notes))
        stream = world.place.sources[STREAM_ARN]
        assert isinstance(stream, FakeStream)
        stream.put(*records(6))
        await until(lambda: 6 in world.read())
        world.cluster.change("readings", SPEC | {"batchSize": 7})
        world.cluster.delete("other")
        assert len(world.mappings()) == 2
        world.cluster.come_back()
        await world.is_("readings", Is.READY)
        await world.gone("other")
        assert len(world.mappings()) == 1
        (view,) = daemon.control.views()
        assert view.parameters["BatchSize"] == 7
        await until(lambda: not any("custom resources" in each for each in daemon.status().notes))

    world.play(script)


def test_a_resource_that_is_no_longer_selected_rests_and_keeps_its_positions() -> None:
    world = Followed()

    async def script(_: Daemon) -> None:
        uid = MappingId(world.cluster.create("readings", SPEC, label="blue").uid)
        await world.is_("readings", Is.READY)
        world.cluster.label("readings", "green")
        await until(lambda: world.kept(uid).get("Enabled") is False)
        assert world.mappings() == {uid}
        world.cluster.label("readings", "blue")
        await world.is_("readings", Is.READY)
        await until(lambda: "Enabled" not in world.kept(uid))

    play(lambda: world.daemon(selector="blue"), script)


def test_the_api_refuses_changes_of_a_mapping_that_comes_from_a_resource() -> None:
    world = Followed()

    async def script(daemon: Daemon) -> None:
        uid = MappingId(world.cluster.create("readings", SPEC).uid)
        await world.is_("readings", Is.READY)
        text = (
            "This event source mapping comes from the custom resource pipelines/readings and cannot be changed through "
            "the API. Change or delete the resource."
        )
        assert await refusal(daemon.control.delete(uid)) == (ApiErrorType.CONFLICT, text)
        assert await refusal(daemon.control.update(uid, {"BatchSize": 3})) == (ApiErrorType.CONFLICT, text)
        assert await refusal(daemon.control.tag(uid, {"a": "b"})) == (ApiErrorType.CONFLICT, text)

    world.play(script)


def test_a_second_resource_for_the_same_source_and_function_says_what_is_in_its_way() -> None:
    world = Followed()

    async def script(_: Daemon) -> None:
        first = world.cluster.create("readings", SPEC)
        await world.is_("readings", Is.READY)
        world.cluster.create("twin", SPEC)
        await world.is_("twin", Is.STALLED)
        ready = world.cluster.resources["twin"].condition(Is.READY)
        assert ready is not None
        assert ready.reason == "Conflict"
        assert first.uid in ready.message
        world.cluster.delete("readings")
        await world.gone("readings")
        await world.is_("twin", Is.READY)

    world.play(script)
