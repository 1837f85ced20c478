"""Calls wait for room in memory, for so long as they may, and give everything back."""

import asyncio
from pathlib import Path

import pytest

from poller.memory.answers import AnswerTooLarge, answering, make_room, spare_room
from poller.rules.memory.byte_budget import IDLE_PATIENCE_S, UNIT_BYTES
from poller.rules.memory.sizes import CALL_BYTES_MIN
from poller.runtime.memory.limits import MEMORY_MB, MEMORY_MB_MIN, fitting_mb
from poller.runtime.memory.pool import CallRoom, MemoryAccount, MemoryPool
from tests.virtual import run_virtual

MB = 1024 * 1024


def now() -> float:
    """The time of the loop."""
    return asyncio.get_running_loop().time()


def limited() -> MemoryPool:
    """A pool of 64 MB."""
    pool = MemoryPool()
    pool.follow(64)
    return pool


async def roomy(account: MemoryAccount, size: int) -> CallRoom:
    """Room that a call has waited for."""
    room = await account.room(least=size, most=size)
    assert room is not None
    return room


def test_what_is_counted_after_the_end_is_not_held() -> None:
    async def main() -> None:
        pool = limited()
        account = pool.account()
        account.hold(MB)
        account.close()
        account.hold(2 * MB)
        assert pool.budget.used == 0

    run_virtual(main())


def test_a_call_waits_until_there_is_room() -> None:
    async def main() -> None:
        pool = limited()
        full, idle = pool.account(), pool.account()
        full.hold(64 * MB)
        asyncio.get_running_loop().call_later(0.5, full.hold, 10 * MB)
        room = await roomy(idle, MB)
        assert now() == pytest.approx(0.5)
        assert room.granted == MB
        room.close()
        idle.close()
        full.close()
        assert pool.budget.used == 0

    run_virtual(main())


def test_who_holds_nothing_waits_a_second_at_most() -> None:
    async def main() -> None:
        pool = limited()
        pool.account().hold(64 * MB)
        room = await roomy(pool.account(), UNIT_BYTES)
        assert now() == pytest.approx(IDLE_PATIENCE_S)
        assert pool.budget.used == 64 * MB + UNIT_BYTES
        assert "of 64 MB" in pool.notes()[0]
        room.close()
        assert pool.notes() == []

    run_virtual(main())


def test_a_cancelled_wait_gives_everything_back() -> None:
    async def main() -> None:
        pool = limited()
        pool.account().hold(64 * MB)
        waiting = asyncio.ensure_future(pool.account().room(least=MB, most=MB))
        await asyncio.sleep(0.1)
        assert pool.budget.waiting == 1
        waiting.cancel()
        await asyncio.wait([waiting])
        assert (pool.budget.waiting, pool.budget.used) == (0, 64 * MB)

    run_virtual(main())


def test_an_answer_within_its_estimate_waits_for_nothing() -> None:
    async def main() -> None:
        pool = limited()
        full = pool.account()
        room = await roomy(pool.account(), MB)
        full.hold(63 * MB)
        with answering(room):
            await make_room(MB)
        assert now() == 0.0

    run_virtual(main())


def test_an_answer_beyond_its_estimate_waits_without_keeping_the_estimate() -> None:
    async def main() -> None:
        pool = limited()
        full = pool.account()
        room = await roomy(pool.account(), MB)
        full.hold(62 * MB)
        loop = asyncio.get_running_loop()
        loop.call_later(0.25, lambda: used.append(pool.budget.used))
        loop.call_later(0.5, full.hold, 0)
        used: list[int] = []
        with answering(room):
            await make_room(10 * MB)
        assert now() == pytest.approx(0.5)
        assert used == [62 * MB]
        assert pool.budget.used == 10 * MB
        room.close()
        assert pool.budget.used == 0

    run_virtual(main())


def test_an_answer_that_finds_no_room_in_its_time_is_given_up() -> None:
    async def main() -> None:
        pool = limited()
        full, reader = pool.account(), pool.account()
        reader.hold(1)
        room = await roomy(reader, MB)
        room.answer_s = 1.0
        full.hold(62 * MB)
        with answering(room), pytest.raises(AnswerTooLarge):
            await make_room(10 * MB)
        assert now() == pytest.approx(1.0)
        assert (pool.budget.used, pool.budget.waiting) == (62 * MB + 1, 0)
        room.close()
        assert pool.budget.used == 62 * MB + 1

    run_virtual(main())


def test_an_answer_that_finds_room_behind_the_end_of_its_call_gives_it_back() -> None:
    async def main() -> None:
        pool = limited()
        full, reader = pool.account(), pool.account()
        room = await roomy(reader, MB)
        full.hold(62 * MB)
        with answering(room):
            coming = asyncio.ensure_future(make_room(10 * MB))
        await asyncio.sleep(0.25)
        room.close()
        full.hold(0)
        await coming
        assert now() == pytest.approx(0.25)
        assert (pool.budget.used, pool.budget.waiting) == (0, 0)

    run_virtual(main())


def test_a_call_that_is_not_sent_for_long_leaves_its_room_to_others() -> None:
    async def main() -> None:
        pool = limited()
        first, second = pool.account(), pool.account()
        second.hold(1)
        room = await roomy(first, 40 * MB)
        with answering(room):
            asyncio.get_running_loop().call_later(0.5, spare_room)
        other = await roomy(second, 40 * MB)
        assert now() == pytest.approx(0.5)
        assert pool.budget.used == 40 * MB + CALL_BYTES_MIN + 1
        other.close()
        with answering(room):
            await make_room(20 * MB)
        assert pool.budget.used == 20 * MB + 1
        room.close()
        assert pool.budget.used == 1

    run_virtual(main())


def test_answers_ask_for_nothing_outside_of_a_call() -> None:
    async def main() -> None:
        pool = limited()
        room = await roomy(pool.account(), MB)
        with answering(room):
            pass
        await make_room(10 * MB)
        assert pool.budget.used == MB

    run_virtual(main())


OWN_V2 = "0::/system.slice/poller.service\n"
OWN_V1 = "5:cpu,cpuacct:/a\n4:memory:/system.slice/poller.service\n"
SERVICE = "system.slice/poller.service"
HUGE = str(2**63 - 4096)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (None, {}, MEMORY_MB),
        ("0::/\n", {"memory.max": "536870912\n"}, 256),
        ("0::/\n", {"memory.max": "max\n"}, MEMORY_MB),
        ("0::/\n", {"memory.max": "1048576"}, MEMORY_MB_MIN),
        ("0::/\n", {"memory.max": ""}, MEMORY_MB),
        (None, {"memory/memory.limit_in_bytes": "1073741824"}, 512),
        (None, {"memory/memory.limit_in_bytes": HUGE}, MEMORY_MB),
        (OWN_V2, {f"{SERVICE}/memory.max": "1073741824"}, 512),
        (OWN_V2, {f"{SERVICE}/memory.max": "max", "system.slice/memory.max": "2147483648"}, 1024),
        (OWN_V2, {f"{SERVICE}/memory.max": "4294967296", "system.slice/memory.max": "2147483648"}, 1024),
        (OWN_V1, {f"memory/{SERVICE}/memory.limit_in_bytes": "1073741824", "a/memory.max": "1"}, 512),
        ("0::/../../else\n", {"memory.max": "1073741824"}, 512),
        ("\x00\xff:::\n\n::", {"memory.max": "1073741824"}, 512),
        ("0::/a\n" * 10, {"a/memory.max": "-1"}, MEMORY_MB),
    ],
)
def test_without_a_setting_it_is_half_of_the_smallest_limit_of_the_control_groups(
    tmp_path: Path, own: str | None, files: dict[str, str], expected: int
) -> None:
    for name, text in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    if own is not None:
        (tmp_path / "own").write_bytes(own.encode("latin-1"))
    assert fitting_mb(tmp_path / "groups", tmp_path / "own") == expected
