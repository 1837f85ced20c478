"""Owns the reading of notices from an on-failure queue."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from pydantic import AfterValidator

from adapters.aws.calls import calling, understood
from adapters.aws.clients import checked_arn, client
from adapters.notices.objects import Objects
from adapters.notices.settings import HOLD_S_MAX, PlaceSettings
from poller.domain.arns import Arn
from poller.domain.errors import PortError
from poller.domain.invocations import StoredNotice
from poller.domain.untrusted import numbers
from poller.plugins import Environment, Plugin

RECEIVED_MAX = 10
HIDDEN_MAX = 10**9
WAIT_S = 1
RECEIVES_MAX = 1_000
EMPTY_RECEIVES_MAX = 3
"""After so many receives in a row without a new notice, the queue counts as read. One alone may miss messages of a large queue."""

CANCELLED_CLOSE_S_MAX = 5.0
"""How long a reader that was cancelled tries to make visible what it leaves. The rest is visible when its time is over."""

_HIDDEN = "ApproximateNumberOfMessagesNotVisible"


def _queue(text: str) -> str:
    form = "the ARN of a standard queue; write arn:aws:sqs:REGION:ACCOUNT:NAME"
    return checked_arn(text, service="sqs", resource=r"[A-Za-z0-9_-]{1,80}", form=form)


class QueueSettings(PlaceSettings):
    """`place` is the ARN of a standard queue."""

    place: Annotated[str, AfterValidator(_queue)]


class QueueNotices:
    """The notices in one queue. What is read stays hidden for `hold_s`. What is left is visible again at the end."""

    def __init__(self, service: Any, queue_url: str, objects: Objects, *, hold_s: float) -> None:
        self._service = service
        self._queue_url = queue_url
        self._objects = objects
        self._hold_s = min(HOLD_S_MAX, max(1, round(hold_s)))
        self._receipts: dict[str, str] = {}
        self._hidden_until: dict[str, float] = {}
        """When the messages that were received and not deleted are visible again, at the earliest."""
        self._left: set[str] = set()

    async def read(self, *, notices_max: int) -> Sequence[StoredNotice]:
        """The next notices. A message that was left and comes again, because it was hidden too short, is not returned again."""
        empty = 0
        for _ in range(RECEIVES_MAX):
            received, found = await self._receive(min(notices_max, RECEIVED_MAX))
            if found:
                return found
            # Messages that were left are hidden again now, so that the others come.
            empty = 0 if received else empty + 1
            if empty == EMPTY_RECEIVES_MAX:
                break
        return []

    async def held_by_others(self) -> int:
        """About how many messages others have received and not deleted. What was left here may be visible again, and is not hidden then."""
        with calling("sqs GetQueueAttributes"):
            answer = await self._service.get_queue_attributes(
                QueueUrl=self._queue_url, AttributeNames=[_HIDDEN]
            )
        with understood("sqs GetQueueAttributes"):
            hidden = numbers.whole((answer.get("Attributes") or {}).get(_HIDDEN), most=HIDDEN_MAX, default=0)
        now = asyncio.get_running_loop().time()
        return max(0, hidden - sum(until > now for until in self._hidden_until.values()))

    async def _receive(self, messages_max: int) -> tuple[int, list[StoredNotice]]:
        """How many messages came, and the new ones among them."""
        until = asyncio.get_running_loop().time() + self._hold_s
        with calling("sqs ReceiveMessage"):
            answer = await self._service.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=messages_max,
                WaitTimeSeconds=WAIT_S,
                VisibilityTimeout=self._hold_s,
            )
        with understood("sqs ReceiveMessage"):
            messages = answer.get("Messages") or []
            self._receipts.update((each["MessageId"], each["ReceiptHandle"]) for each in messages)
            self._hidden_until.update((each["MessageId"], until) for each in messages)
            return len(messages), [
                StoredNotice(each["MessageId"], each["Body"].encode("utf-8", "surrogatepass"))
                for each in messages
                if each["MessageId"] not in self._left
            ]

    async def remove(self, notice: StoredNotice) -> None:
        """Deletes the message."""
        receipt = self._receipts.get(notice.place)
        if receipt is None:
            return
        with calling("sqs DeleteMessage"):
            await self._service.delete_message(QueueUrl=self._queue_url, ReceiptHandle=receipt)
        self._receipts.pop(notice.place, None)
        self._hidden_until.pop(notice.place, None)

    async def leave(self, notice: StoredNotice) -> None:
        """Notes that this message is not returned again."""
        self._left.add(notice.place)

    async def payload(self, bucket: str, key: str) -> bytes:
        """The object with the event of a large batch."""
        return await self._objects.read(bucket, key)

    async def close(self) -> None:
        """Makes all messages visible that were not removed. If that fails, they are when `hold_s` is over."""
        for receipt in self._receipts.values():
            try:
                with calling("sqs ChangeMessageVisibility"):
                    await self._service.change_message_visibility(
                        QueueUrl=self._queue_url, ReceiptHandle=receipt, VisibilityTimeout=0
                    )
            except PortError:
                return


@asynccontextmanager
async def open_queue(settings: QueueSettings, env: Environment) -> AsyncIterator[QueueNotices]:
    """Yields the notices of the queue."""
    arn = Arn.parse(settings.place)
    service = await client(env, "sqs", arn.region)
    queue_url = f"{str(service.meta.endpoint_url).rstrip('/')}/{arn.account}/{arn.resource}"
    notices = QueueNotices(service, queue_url, Objects(env), hold_s=settings.hold_s)
    limit_s = None
    try:
        yield notices
    except asyncio.CancelledError:
        # The worker is cancelled, and must end also when the queue does not answer.
        limit_s = CANCELLED_CLOSE_S_MAX
        raise
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await notices.close()


plugin = Plugin("sqs", QueueSettings, open_queue)
