"""A reader of an on-failure queue ends in time, and holds back what it works on."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from adapters.notices import sqs
from adapters.notices.objects import Objects
from adapters.notices.sqs import CLOSE_S_MAX, QueueNotices, QueueSettings, open_queue
from poller.domain.errors import ServiceUnavailable
from poller.domain.records import MappingId
from poller.plugins import Environment
from tests.virtual import run_virtual, virtual_clock

SETTINGS = QueueSettings(
    place="arn:aws:sqs:eu-west-1:111122223333:failed", mapping=MappingId("m"), hold_s=60.0
)


class Queue:
    """A client of a queue with so many messages. `hides` is what a change of visibility does before it is answered."""

    class meta:  # noqa: N801 - the name in botocore
        endpoint_url = "http://queue"

    def __init__(self, messages: int, hides: Callable[[], Any]) -> None:
        self._left = [str(number) for number in range(messages)]
        self._hides = hides
        self.hidden: list[dict[str, int]] = []
        """What each change of visibility was about, and for how long."""
        self.again: list[str] = []
        """Messages that are visible again."""
        self.lapsed: set[str] = set()
        """Receipts whose time is over."""

    async def receive_message(self, *, MaxNumberOfMessages: int, **_: Any) -> dict[str, Any]:  # noqa: N803
        there = self._left or self.again
        ids, there[:MaxNumberOfMessages] = there[:MaxNumberOfMessages], []
        return {"Messages": [{"MessageId": each, "ReceiptHandle": f"r{each}", "Body": "{}"} for each in ids]}

    async def change_message_visibility_batch(
        self,
        *,
        Entries: list[dict[str, Any]],  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        waits = self._hides()
        if waits is not None:
            await waits
        self.hidden.append({each["ReceiptHandle"]: each["VisibilityTimeout"] for each in Entries})
        failed = [
            {"Id": each["Id"], "Code": "MessageNotInflight"}
            for each in Entries
            if each["ReceiptHandle"] in self.lapsed
        ]
        done = {each["Id"] for each in Entries} - {each["Id"] for each in failed}
        return {"Successful": [{"Id": each} for each in sorted(done)], "Failed": failed}


def ended(monkeypatch: pytest.MonkeyPatch, queue: Queue, read: int, *, cancels: bool = False) -> float:
    """Reads so many messages; returns how long the end of the reader took, which is cancelled if it `cancels`."""

    async def client(*_: object) -> Queue:
        return queue

    async def opened() -> float:
        async with open_queue(SETTINGS, Environment(clock=virtual_clock())) as notices:
            for _ in range(read // 10 or 1):
                await notices.read(notices_max=min(read, 10))
            if cancels:
                await asyncio.sleep(1_000.0)
            began = asyncio.get_running_loop().time()
        return asyncio.get_running_loop().time() - began

    async def main() -> float:
        task = asyncio.ensure_future(opened())
        if not cancels:
            return await task
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return asyncio.get_running_loop().time() - 1.0

    monkeypatch.setattr(sqs, "client", client)
    return run_virtual(main())


@pytest.mark.parametrize("cancels", [False, True])
def test_a_reader_ends_soon_although_the_queue_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, *, cancels: bool
) -> None:
    queue = Queue(1, lambda: asyncio.Event().wait())
    assert ended(monkeypatch, queue, 1, cancels=cancels) == CLOSE_S_MAX


def test_a_reader_makes_many_messages_visible_in_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(20_000, lambda: asyncio.sleep(0.015))
    assert ended(monkeypatch, queue, 20_000) < CLOSE_S_MAX
    assert {len(each) for each in queue.hidden} == {10}
    assert dict.fromkeys((f"r{each}" for each in range(20000)), 0) == {
        receipt: each for call in queue.hidden for receipt, each in call.items()
    }


def test_a_reader_makes_the_others_visible_although_a_call_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter([ServiceUnavailable("busy")])

    def hides() -> None:
        for each in failures:
            raise each

    queue = Queue(50, hides)
    ended(monkeypatch, queue, 50)
    assert len(queue.hidden) == 4


def test_a_notice_is_held_back_anew_until_its_time_was_over() -> None:
    async def main() -> None:
        queue = Queue(1, lambda: None)
        notices = QueueNotices(queue, "url", Objects(Environment(clock=virtual_clock())), hold_s=60.0)
        (notice,) = await notices.read(notices_max=1)
        assert await notices.hold(notice)
        assert queue.hidden == [{"r0": 60}]
        queue.lapsed = {"r0"}
        assert not await notices.hold(notice)

    run_virtual(main())


def test_what_was_left_and_comes_again_is_hidden_for_longer_and_the_read_is_not_over() -> None:
    async def main() -> None:
        queue = Queue(1, lambda: None)
        notices = QueueNotices(queue, "url", Objects(Environment(clock=virtual_clock())), hold_s=60.0)
        (notice,) = await notices.read(notices_max=1)
        await notices.leave(notice)
        queue.again = ["0"] * sqs.RECEIVES_MAX
        assert await notices.read(notices_max=1) == []
        assert not notices.seen_all
        assert [each["r0"] for each in queue.hidden[:3]] == [120, 240, 480]
        assert await notices.read(notices_max=1) == []
        assert notices.seen_all

    run_virtual(main())
