"""A reader of an on-failure queue ends in time."""

import asyncio
from typing import Any

import pytest

from adapters.notices import sqs
from adapters.notices.sqs import CANCELLED_CLOSE_S_MAX, QueueSettings, open_queue
from poller.domain.records import MappingId
from poller.plugins import Environment
from tests.virtual import run_virtual, virtual_clock

SETTINGS = QueueSettings(
    place="arn:aws:sqs:eu-west-1:111122223333:failed", mapping=MappingId("m"), hold_s=60.0
)


class Silent:
    """A client that receives a message, and has no answer when that is to be made visible."""

    class meta:  # noqa: N801 - the name in botocore
        endpoint_url = "http://queue"

    async def receive_message(self, **_: Any) -> dict[str, Any]:
        return {"Messages": [{"MessageId": "1", "ReceiptHandle": "r", "Body": "{}"}]}

    async def change_message_visibility(self, **_: Any) -> None:
        await asyncio.Event().wait()


def test_a_reader_that_is_cancelled_ends_soon_although_the_queue_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def client(*_: object) -> Silent:
        return Silent()

    async def read() -> None:
        async with open_queue(SETTINGS, Environment(clock=virtual_clock())) as notices:
            await notices.read(notices_max=1)
            await asyncio.sleep(1_000.0)

    async def main() -> float:
        task = asyncio.ensure_future(read())
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return asyncio.get_running_loop().time()

    monkeypatch.setattr(sqs, "client", client)
    assert run_virtual(main()) == 1.0 + CANCELLED_CLOSE_S_MAX
