"""Owns the contract of every NoticeSource: scenarios on a `NoticeWorld`. The name of each states the fact that it checks."""

import json
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from poller.domain.invocations import StoredNotice
from poller.operator_ports import NoticeSource
from poller.ports import Destination
from poller.testing.destination import notice

MANY = 25
READ_AT_ONCE = 10


class NoticeWorld(Protocol):
    """An empty place of notices."""

    @property
    def destination(self) -> Destination:
        """Where notices are sent."""
        ...

    def opening(self) -> AbstractAsyncContextManager[NoticeSource]:
        """A reader of what is there now."""
        ...


type NoticeScenario = Callable[[NoticeWorld], Coroutine[Any, Any, None]]


def name_of(found: StoredNotice) -> str:
    """Which notice it is."""
    request: str = json.loads(found.document)["requestContext"]["requestId"]
    return request


async def read_all(source: NoticeSource) -> list[StoredNotice]:
    """All notices, read to the end."""
    found: list[StoredNotice] = []
    while some := await source.read(notices_max=READ_AT_ONCE):
        found += some
    return found


async def nothing_is_read_where_nothing_is(world: NoticeWorld) -> None:
    async with world.opening() as source:
        assert await source.read(notices_max=1) == []


async def each_notice_is_read_once(world: NoticeWorld) -> None:
    for number in range(MANY):
        await world.destination.send(notice(number))
    async with world.opening() as source:
        found = await read_all(source)
        assert sorted(map(name_of, found)) == sorted(f"r{number}" for number in range(MANY))
        assert await source.read(notices_max=1) == []


async def no_more_are_read_than_were_asked_for(world: NoticeWorld) -> None:
    for number in range(3):
        await world.destination.send(notice(number))
    async with world.opening() as source:
        assert len(await source.read(notices_max=1)) == 1


async def what_was_removed_is_not_there_any_more_and_the_rest_is(world: NoticeWorld) -> None:
    for number in range(4):
        await world.destination.send(notice(number))
    async with world.opening() as source:
        for each in await read_all(source):
            await (source.remove(each) if name_of(each) in {"r1", "r2"} else source.leave(each))
        assert await source.read(notices_max=READ_AT_ONCE) == []
    async with world.opening() as source:
        assert sorted(map(name_of, await read_all(source))) == ["r0", "r3"]


async def removing_twice_is_no_error(world: NoticeWorld) -> None:
    await world.destination.send(notice(1))
    async with world.opening() as source:
        (found,) = await read_all(source)
        await source.remove(found)
        await source.remove(found)


async def what_comes_later_is_read_by_the_next_reader(world: NoticeWorld) -> None:
    await world.destination.send(notice(1))
    async with world.opening() as source:
        for each in await read_all(source):
            await source.remove(each)
    await world.destination.send(notice(2))
    async with world.opening() as source:
        assert [name_of(each) for each in await read_all(source)] == ["r2"]


NOTICE_SCENARIOS: tuple[NoticeScenario, ...] = (
    nothing_is_read_where_nothing_is,
    each_notice_is_read_once,
    no_more_are_read_than_were_asked_for,
    what_was_removed_is_not_there_any_more_and_the_rest_is,
    removing_twice_is_no_error,
    what_comes_later_is_read_by_the_next_reader,
)
