"""A redrive of asynchronous calls of whole daemons on virtual time: what becomes of each message, and when it is removed."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from poller.domain.errors import ServiceUnavailable
from poller.domain.functions.queued_calls import CallEnd
from poller.domain.invocations import FunctionError, StoredNotice
from poller.domain.mapping_api import ApiError
from poller.domain.operations import OperationState
from poller.rules.functions.redriven_calls import redriven_call, redriven_id
from poller.rules.operations.redriving import NoticeRefused
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import FAILED, now, play, until
from tests.runtime.functions.test_call_operations import ask, over
from tests.runtime.functions.test_queued_calls import ARN, DEAD, Called, Place, plan, ready, stored

ERROR = {"RequestID": "request-9", "ErrorCode": "200", "ErrorMessage": "ValueError: no"}


class Letters:
    """A NoticeSource: the messages of one queue. `removes` says how often a removal fails first."""

    def __init__(self, *messages: StoredNotice) -> None:
        self.there = {each.place: each for each in messages}
        self.left: set[str] = set()
        self.removed: list[str] = []
        self.refuses = 0

    async def read(self, *, notices_max: int) -> Sequence[StoredNotice]:
        found = [each for name, each in self.there.items() if name not in self.left]
        return found[:notices_max]

    async def remove(self, notice: StoredNotice) -> None:
        if self.refuses:
            self.refuses -= 1
            raise ServiceUnavailable("no answer")
        self.removed.append(notice.place)
        del self.there[notice.place]

    async def leave(self, notice: StoredNotice) -> None:
        self.left.add(notice.place)

    async def payload(self, bucket: str, key: str) -> bytes:
        raise AssertionError("a call names no object")


def failed(
    place: str, payload: str = '{"n": 1.50}', *, arn: str = f"{ARN}:$LATEST", **context: Any
) -> StoredNotice:
    """A failure document, whose event is as it was to the byte."""
    said = {"requestId": "request-1", "functionArn": arn, "condition": "RetriesExhausted", **context}
    head = json.dumps({"version": "1.0", "requestContext": said})
    return StoredNotice(place, f'{head[:-1]},"requestPayload":{payload}}}'.encode())


def test_failed_calls_and_dead_letters_are_made_again_and_then_removed() -> None:
    function = Called()
    place = Place(function)
    letters = Letters(failed("one"), StoredNotice("two", b'{"n": 2}', attributes=ERROR))
    place.notices[FAILED] = letters

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        asked = await ask(daemon, action="redrive", **{"from": FAILED})
        done = await over(daemon, asked)
        assert (done.state, done.result) == (OperationState.DONE, "2 calls are made again")
        assert letters.removed == ["one", "two"]
        await until(lambda: place.ended() == [CallEnd.SUCCESS] * 2, within_s=5)
        assert [event for _, _, event in function.got] == [{"n": 1.5}, {"n": 2}]
        assert {name for _, name, _ in function.got} == {
            redriven_id(FAILED, "one"),
            redriven_id(FAILED, "two"),
        }

    play(lambda: place.daemon(plan()), script)


def test_a_call_that_fails_again_goes_to_its_destination_again() -> None:
    function = Called(lambda _: FunctionError("ValueError", "no"))
    place = Place(function)
    place.notices[DEAD] = Letters(failed("one"))

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        await over(daemon, await ask(daemon, action="redrive", **{"from": DEAD}))
        await until(lambda: place.ended() == [CallEnd.RETRIES], within_s=400)
        assert len(function.got) == 3
        assert place.sent(FAILED) == place.sent(DEAD) == [redriven_id(DEAD, "one")]

    play(lambda: place.daemon(plan()), script)


def test_what_is_no_failed_call_of_the_function_stays_and_is_told() -> None:
    place = Place(Called())
    letters = Letters(
        failed("other", arn=ARN.replace("alone", "reader")),
        failed("good", condition="Success"),
        StoredNotice("odd", b"{}"),
        failed("short", payload="null"),
        StoredNotice("text", b"hello", attributes=ERROR),
        StoredNotice("not a number", b"[NaN]", attributes=ERROR),
        StoredNotice("bytes", '{"n": 1}'.encode("utf-16"), attributes=ERROR),
        failed("one"),
    )
    place.notices[FAILED] = letters

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        done = await over(daemon, await ask(daemon, action="redrive", **{"from": FAILED}))
        assert done.state is OperationState.FAILED
        assert done.result.startswith(
            "1 call is made again; 7 messages stay: it is a call of another function"
        )
        assert "its event is no JSON (3)" in done.result
        assert letters.removed == ["one"]
        assert done.progress == {"settled": 1, "records": 1, "failed": 0, "refused": 7}

    play(lambda: place.daemon(plan()), script)


def test_a_message_is_removed_only_after_the_store_has_its_call() -> None:
    function = Called(takes_s=500.0)
    place = Place(function)
    letters = Letters(failed("one"))
    letters.refuses = 3
    place.notices[FAILED] = letters
    queue: Any = place.store.call_queue
    put_, refused = queue.put, [ServiceUnavailable("the disk is full")] * 2

    async def putting(call: Any) -> None:
        assert letters.removed == []
        if refused:
            raise refused.pop()
        await put_(call)

    queue.put = putting

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        done = await over(daemon, await ask(daemon, action="redrive", **{"from": FAILED}))
        assert done.result == "1 call is made again"
        assert letters.removed == ["one"]
        assert [each.call for each in stored(place.store)] == [redriven_id(FAILED, "one")]

    play(lambda: place.daemon(plan()), script)


def test_a_dry_run_changes_nothing_and_a_limit_and_a_rate_hold() -> None:
    function = Called()
    place = Place(function)
    letters = Letters(*(failed(f"m-{number}") for number in range(6)))
    place.notices[FAILED] = letters

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        looked = await over(daemon, await ask(daemon, action="redrive", dry_run=True, **{"from": FAILED}))
        assert looked.result == "would make 6 calls"
        assert len(looked.notes["plan"]) == 6
        assert (letters.removed, function.got) == ([], [])
        letters.left.clear()
        began = now()
        members: dict[str, Any] = {"from": FAILED, "limit": 4, "messages_per_s": 0.5}
        done = await over(daemon, await ask(daemon, action="redrive", **members))
        assert done.result == "4 calls are made again"
        assert now() - began >= 6.0
        assert len(letters.there) == 2

    play(lambda: place.daemon(plan()), script)


def test_a_redrive_can_be_cancelled_and_runs_once_at_a_time() -> None:
    place = Place(Called())
    letters = Letters(*(failed(f"m-{number}") for number in range(100)))
    place.notices[FAILED] = letters

    async def script(daemon: Daemon) -> None:
        await ready(daemon)
        first = await ask(daemon, action="redrive", messages_per_s=1, **{"from": FAILED})
        await asyncio.sleep(5)
        with pytest.raises(ApiError, match="of this function is not over"):
            await ask(daemon, action="redrive", **{"from": FAILED})
        await daemon.operations.cancel(first.operation, by="ann")
        with pytest.raises(ApiError, match="is no place that can be redriven"):
            await ask(daemon, action="redrive", **{"from": "s3://bucket"})
        count = len(letters.removed)
        assert 3 <= count <= 8
        await asyncio.sleep(30)
        assert len(letters.removed) <= count + 1

    play(lambda: place.daemon(plan()), script)


def test_a_message_keeps_its_qualifier_and_its_event_to_the_byte() -> None:
    payload = '{ "price" : 1.50, "big": 123456789012345678901234567890 }'
    found = redriven_call(failed("one", payload, arn=f"{ARN}:live"), "alone")
    assert (found.payload, found.qualifier, found.request) == (payload.encode(), "live", "request-1")
    with pytest.raises(NoticeRefused, match="cannot be read"):
        redriven_call(StoredNotice("one", b"", "cannot be read"), "alone")
    with pytest.raises(NoticeRefused, match="no document"):
        redriven_call(StoredNotice("one", b"[" * 100_000), "alone")


def test_the_same_message_is_the_same_call_while_that_waits() -> None:
    assert redriven_id("q", "one") == redriven_id("q", "one") != redriven_id("q", "two")
    assert redriven_id("q", "one") != redriven_id("r", "one")
