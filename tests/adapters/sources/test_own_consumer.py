"""A consumer of the mapping's own on virtual time, with a service that follows a script: found, registered, awaited, lost and refused."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError

from adapters.sources.kinesis.consumers import AGAIN_S, AGAIN_S_MAX, LOOK_S_MAX, OwnConsumer
from poller.clock import LoopClock
from poller.domain.errors import AccessDenied, PortError, ServiceThrottled, ServiceUnavailable
from poller.domain.records import JsonObject, MappingId
from poller.domain.streams.consumer_names import consumer_name
from poller.domain.telemetry.labels import SourceCall
from tests.virtual import run_virtual

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
MAPPING = MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11")
NAME = f"poller-{MAPPING}"
BY_NAME = {"StreamARN": STREAM, "ConsumerName": NAME}

COUNTED_AS = {
    "describe": SourceCall.DESCRIBE_STREAM_CONSUMER,
    "register": SourceCall.REGISTER_STREAM_CONSUMER,
}

type Step = JsonObject | Exception | float


def arn(made: int = 1) -> str:
    return f"{STREAM}/consumer/{NAME}:{1_700_000_000 + made}"


def consumer(status: str, made: int = 1) -> JsonObject:
    return {"ConsumerName": NAME, "ConsumerARN": arn(made), "ConsumerStatus": status}


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "any")


NONE = refused("ResourceNotFoundException")


@dataclass
class Service:
    """The two calls. Each takes the next step of its script, the last one again and again: a consumer, an error, or a silence."""

    describe: list[Step]
    register: list[Step] = field(default_factory=list)
    calls: list[tuple[float, str]] = field(default_factory=list)

    async def describe_stream_consumer(self, **parameters: Any) -> JsonObject:
        return {"ConsumerDescription": await self._next("describe", self.describe, parameters)}

    async def register_stream_consumer(self, **parameters: Any) -> JsonObject:
        return {"Consumer": await self._next("register", self.register, parameters)}

    async def _next(self, name: str, script: list[Step], parameters: JsonObject) -> JsonObject:
        assert parameters == BY_NAME
        self.calls.append((asyncio.get_running_loop().time(), name))
        step = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(step, Exception):
            raise step
        if isinstance(step, float):
            await asyncio.sleep(step)
            return consumer("ACTIVE")
        return step

    @property
    def made(self) -> list[str]:
        return [name for _, name in self.calls]


def play(service: Service, scenario: Callable[[OwnConsumer], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        own = OwnConsumer(service, stream=STREAM, mapping=MAPPING, clock=LoopClock())
        counted: list[SourceCall] = []
        own.count_calls(counted.append)
        await scenario(own)
        assert counted == [COUNTED_AS[name] for _, name in service.calls]

    run_virtual(run())


async def why(own: OwnConsumer) -> str:
    """Why it is not active."""
    with pytest.raises(PortError) as trouble:
        await own.active()
    return trouble.value.reason


def test_a_consumer_that_is_there_is_found_by_one_call_and_not_registered() -> None:
    service = Service([consumer("ACTIVE")])

    async def scenario(own: OwnConsumer) -> None:
        assert await own.named() == arn()
        assert [await own.active() for _ in range(3)] == [arn()] * 3

    play(service, scenario)
    assert service.made == ["describe"]
    assert consumer_name(MAPPING) == NAME


def test_a_consumer_that_is_missing_is_registered_and_named_before_it_is_active() -> None:
    service = Service([NONE, consumer("CREATING"), consumer("ACTIVE")], [consumer("CREATING")])

    async def scenario(own: OwnConsumer) -> None:
        assert await own.named() == arn()
        for _ in range(2):
            assert "it is being registered (CREATING)" in await why(own)
            await asyncio.sleep(2 * AGAIN_S)
        assert await own.active() == arn()

    play(service, scenario)
    assert service.made == ["describe", "register", "describe", "describe"]


def test_what_another_worker_registers_at_the_same_time_is_taken() -> None:
    service = Service([NONE, consumer("ACTIVE")], [refused("ResourceInUseException")])

    async def scenario(own: OwnConsumer) -> None:
        assert await own.active() == arn()

    play(service, scenario)
    assert service.made == ["describe", "register", "describe"]


def test_a_consumer_that_is_being_removed_is_awaited_and_registered_again() -> None:
    service = Service([consumer("DELETING"), NONE], [consumer("ACTIVE", 2)])

    async def scenario(own: OwnConsumer) -> None:
        assert await own.named() == ""
        assert "it is being removed (DELETING)" in await why(own)
        await asyncio.sleep(AGAIN_S)
        assert await own.active() == arn(2)
        assert await own.named() == arn(2)

    play(service, scenario)


def test_a_lost_consumer_is_registered_again_and_events_name_the_old_one_until_then() -> None:
    denied = refused("AccessDeniedException")
    service = Service([consumer("ACTIVE"), NONE], [denied, consumer("ACTIVE", 2)])

    async def scenario(own: OwnConsumer) -> None:
        assert await own.active() == arn()
        own.lost()
        assert "AccessDeniedException" in await why(own)
        assert await own.named() == arn()
        await asyncio.sleep(AGAIN_S)
        assert await own.active() == arn(2)

    play(service, scenario)


@pytest.mark.parametrize(
    ("service", "kind", "told"),
    [
        (
            Service([NONE], [refused("LimitExceededException")]),
            ServiceThrottled,
            "as many consumers as it may have",
        ),
        (Service([NONE], [refused("AccessDeniedException")]), AccessDenied, "RegisterStreamConsumer"),
        (Service([refused("AccessDeniedException")]), AccessDenied, "DescribeStreamConsumer"),
        (Service([refused("InternalFailure")]), ServiceUnavailable, "InternalFailure"),
        (Service([NONE], [refused("ResourceInUseException")]), ServiceUnavailable, "none to be described"),
        (Service([{"ConsumerStatus": "ACTIVE"}]), ServiceUnavailable, "not as documented"),
        (
            Service([{"ConsumerStatus": "ACTIVE", "ConsumerARN": "orders"}]),
            ServiceUnavailable,
            "not as documented",
        ),
        (Service([consumer("RESTING")]), ServiceUnavailable, "its status is RESTING"),
    ],
    ids=["no room", "register denied", "describe denied", "down", "odd", "no arn", "odd arn", "odd status"],
)
def test_trouble_is_told_without_a_call_each_time_and_tried_again_at_growing_intervals(
    service: Service, kind: type[PortError], told: str
) -> None:
    async def scenario(own: OwnConsumer) -> None:
        while asyncio.get_running_loop().time() < 400:
            with pytest.raises(kind, match=told):
                await own.active()
            await asyncio.sleep(0.5)

    play(service, scenario)
    tries = [at for at, name in service.calls if name == "describe"]
    if "register" in service.made and told == "none to be described":
        tries = tries[::2]
    waits = [round(later - before) for before, later in itertools.pairwise(tries)]
    assert waits[:5] == [2, 4, 8, 16, 32]
    assert set(waits[5:]) == {AGAIN_S_MAX}


def test_a_silent_service_keeps_one_reader_for_a_while_and_no_other() -> None:
    service = Service([60.0, consumer("ACTIVE")])

    async def scenario(own: OwnConsumer) -> None:
        loop = asyncio.get_running_loop()
        first = asyncio.ensure_future(why(own))
        await asyncio.sleep(1)
        assert "is being looked for" in await why(own)
        assert loop.time() == 1
        assert f"no answer within {LOOK_S_MAX:g} s" in await first
        assert loop.time() == LOOK_S_MAX
        await asyncio.sleep(AGAIN_S)
        assert await own.active() == arn()

    play(service, scenario)


def test_a_try_that_is_cancelled_is_as_if_it_had_not_been() -> None:
    service = Service([5.0, consumer("ACTIVE")])

    async def scenario(own: OwnConsumer) -> None:
        trying = asyncio.ensure_future(own.active())
        await asyncio.sleep(1)
        trying.cancel()
        await asyncio.wait({trying})
        assert await own.active() == arn()

    play(service, scenario)


@pytest.mark.parametrize(
    "status",
    ["\x1b[31mACTIVE", "A\nB", "\0", "\u202eEVITCA", "X" * 10_000, "AKIAIOSFODNN7EXAMPLE", "active"],
    ids=ascii,
)
def test_a_status_that_is_none_is_told_as_one_short_line_without_credentials(status: str) -> None:
    service = Service([consumer(status)])

    async def scenario(own: OwnConsumer) -> None:
        told = await why(own)
        assert told.isprintable()
        assert len(told) < 200
        assert "AKIAIOSFODNN7EXAMPLE" not in told

    play(service, scenario)
