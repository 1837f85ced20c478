"""Owns facts of the pacer, in real time."""

import asyncio
from itertools import pairwise

import pytest

from adapters.aws.pacing import READ_PERIOD_S, ThrottledPacer, shared_pacer
from tests.adapters.answers import environment, on_a_loop


async def passes(pacer: ThrottledPacer, key: str, times: int, seen: list[float]) -> None:
    """Passes `times` times and notes when."""
    for _ in range(times):
        await pacer.pace(key)
        seen.append(asyncio.get_running_loop().time())


@on_a_loop
async def test_callers_of_one_key_share_one_rate() -> None:
    pacer, seen = ThrottledPacer(), list[float]()
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(passes(pacer, "shard", 3, seen), name="reader")
    gaps = [later - earlier for earlier, later in pairwise(seen)]
    assert len(gaps) == 5
    assert min(gaps) >= READ_PERIOD_S * 0.99
    assert seen[5] - seen[0] > 1.0, "a sixth call within a second would be one too many"


@on_a_loop
async def test_different_keys_do_not_wait_for_each_other() -> None:
    pacer, seen = ThrottledPacer(period_s=60.0), list[float]()
    async with asyncio.timeout(5):
        for key in ("a", "b", "c"):
            await passes(pacer, key, 1, seen)
    assert len(seen) == 3


@on_a_loop
async def test_the_first_keys_to_go_are_those_used_longest_ago() -> None:
    pacer = ThrottledPacer(period_s=60.0, keys_max=2)
    for key in ("a", "b", "c", "a"):
        async with asyncio.timeout(5):
            await pacer.pace(key)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await pacer.pace("c")


@on_a_loop
async def test_a_daemon_has_one_pacer() -> None:
    async with environment(None) as env, environment(None) as other:
        assert await shared_pacer(env) is await shared_pacer(env)
        assert await shared_pacer(env) is not await shared_pacer(other)
