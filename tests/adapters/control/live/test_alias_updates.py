"""Aliases in the stream of updates: they come with the first events, then whenever they differ, and not at all if there are none."""

import asyncio
from typing import Any

import pytest

from adapters.control.live import alias_looks, producer
from adapters.control.live.alias_looks import AliasLooks
from poller.domain.functions.alias_control import AliasChange, ShiftRequest
from poller.domain.functions.shift_strategies import strategy
from poller.domain.mapping_api import ApiError, ApiErrorType
from tests.adapters.control.invoke.callers import CallerModel
from tests.adapters.control.live.test_updates import FIRST, reading
from tests.adapters.control.serving import Running, Setting, serving

CANARY = ShiftRequest(to="2", strategy=strategy("Canary10Percent5Minutes"), shift="mine")


def versioned() -> CallerModel:
    return CallerModel(versions=("1", "2"))


def test_a_reader_gets_the_aliases_first_and_then_what_becomes_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(producer, "LOOK_S", 0.02)
    monkeypatch.setattr(producer, "LOOK_S_MAX", 0.05)
    caller = versioned()

    async def use(run: Running) -> None:
        await caller.aliases.create("orders", "live", AliasChange(version="1"))
        async with reading(run) as stream:
            first = [await stream.next() for _ in (*FIRST, "aliases")]
            assert [name for name, _ in first] == ["caller", "status", "operations", "aliases", "history"]
            (alias,) = dict(first)["aliases"]
            assert (alias["function"], alias["name"], alias["version"]) == ("orders", "live", "1")
            await caller.aliases.shift("orders", "live", CANARY)
            (alias,) = await stream.until("aliases")
            assert (alias["weights"], alias["shift"]["state"]) == ({"2": 0.1}, "shifting")
            await caller.aliases.delete("orders", "live")
            assert await stream.until("aliases") == []

    serving(use, Setting(calls=caller))


def test_without_aliases_there_is_no_event() -> None:
    async def use(run: Running) -> None:
        async with reading(run) as stream:
            assert list(await stream.first()) == FIRST

    serving(use, Setting(calls=versioned()))


class Closing(CallerModel):
    """Functions of a daemon that may be ending."""

    ending = False

    def functions(self) -> Any:
        if self.ending:
            raise ApiError(ApiErrorType.SERVICE, "The daemon is starting or stopping.")
        return super().functions()


def test_aliases_that_are_as_before_are_not_sent_and_many_not_often() -> None:
    caller = Closing(versions=("1", "2"))
    looks = AliasLooks(caller)
    assert (looks.changed(0.0), looks.event) == (False, b"")

    async def make(count: int) -> None:
        for number in range(count):
            await caller.aliases.create("orders", f"a{number}", AliasChange(version="1"))

    asyncio.run(make(1000))
    assert looks.changed(1.0)
    taken_s = len(looks.event) / alias_looks.BYTES_PER_S
    assert taken_s > 1
    asyncio.run(caller.aliases.delete("orders", "a0"))
    assert not looks.changed(1.0 + taken_s / 2)
    assert looks.changed(1.0 + taken_s)
    assert not looks.changed(100.0)
    caller.ending = True
    known = looks.event
    assert (looks.changed(200.0), looks.event) == (False, known)
    assert not AliasLooks(None).changed(0.0)
