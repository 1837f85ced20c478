"""Owns the reading of notices from an on-failure queue."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import batched
from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator

from adapters.aws.calls import calling, understood
from adapters.aws.clients import checked_arn, client
from adapters.aws.sqs_batches import BatchAnswer, undone
from adapters.notices.objects import Objects
from adapters.notices.settings import PlaceSettings
from poller.domain.arns import Arn
from poller.domain.errors import PortError, ServiceUnavailable
from poller.domain.invocations import StoredNotice
from poller.domain.records import Monotonic, Undone
from poller.domain.untrusted import numbers
from poller.held_notices import HeldNotices
from poller.plugins import Environment, Plugin

RECEIVED_MAX = 10
HIDDEN_MAX = 10**9
WAIT_S = 1
RECEIVES_MAX = 100
"""Receives of one read, after which its caller looks whether it shall stop."""
EMPTY_RECEIVES_MAX = 3
"""After so many receives in a row without a new notice, the queue counts as read. One alone may miss messages of a large queue."""

CLOSE_S_MAX = 5.0
"""How long a reader tries at its end to make visible what it leaves. The rest is visible when its time is over."""
CLOSES_AT_ONCE = 8

ATTRIBUTES = ("RequestID", "ErrorCode", "ErrorMessage")
"""What dead letters of asynchronous calls have beside the event."""
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
        self._held = HeldNotices(hold_s)
        self.seen_all = False

    async def read(self, *, notices_max: int) -> Sequence[StoredNotice]:
        """The next notices. A message that was left and comes again, because it was hidden too short, is not returned again."""
        empty, self.seen_all = 0, False
        for _ in range(RECEIVES_MAX):
            received, found = await self._receive(min(notices_max, RECEIVED_MAX))
            if found:
                return found
            # Messages that were left are hidden again now, so that the others come.
            empty = 0 if received else empty + 1
            if empty == EMPTY_RECEIVES_MAX:
                self.seen_all = True
                break
        return []

    async def hold(self, notice: StoredNotice) -> bool:
        """As `HoldingNotices.hold`."""
        now = _now()
        undone = await self._hide([self._held.receipt(notice.place)], [self._held.hold_s])
        if not undone:
            self._held.kept(notice.place, now)
        elif undone[0].lapsed:
            self._held.lapsed(notice.place, now)
        else:
            raise ServiceUnavailable(undone[0].reason)
        return not undone

    async def held_by_others(self) -> int:
        """About how many messages others have received and not deleted. What was left here may be visible again, and is not hidden then."""
        with calling("sqs GetQueueAttributes"):
            answer = await self._service.get_queue_attributes(
                QueueUrl=self._queue_url, AttributeNames=[_HIDDEN]
            )
        with understood("sqs GetQueueAttributes"):
            hidden = numbers.whole((answer.get("Attributes") or {}).get(_HIDDEN), most=HIDDEN_MAX, default=0)
        return max(0, hidden - self._held.hidden(_now()))

    async def _receive(self, messages_max: int) -> tuple[int, list[StoredNotice]]:
        """How many messages came, and the new ones among them."""
        now = _now()
        with calling("sqs ReceiveMessage"):
            answer = await self._service.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=messages_max,
                WaitTimeSeconds=WAIT_S,
                VisibilityTimeout=self._held.hold_s,
                MessageAttributeNames=list(ATTRIBUTES),
            )
        with understood("sqs ReceiveMessage"):
            messages = answer.get("Messages") or []
            hide_s = {
                each["MessageId"]: self._held.received(each["MessageId"], each["ReceiptHandle"], now)
                for each in messages
            }
            found = [
                StoredNotice(
                    each["MessageId"],
                    each["Body"].encode("utf-8", "surrogatepass"),
                    attributes=_attributes(each),
                )
                for each in messages
                if not self._held.left(each["MessageId"])
            ]
        await self._hide_longer(
            {name: each for name, each in hide_s.items() if each > self._held.hold_s}, now
        )
        return len(messages), found

    async def _hide_longer(self, hide_s: Mapping[str, int], now: Monotonic) -> None:
        """Hides messages that were left, and were received at `now`, for longer than the others."""
        receipts, refused = [self._held.receipt(each) for each in hide_s], set(hide_s)
        if receipts:
            with suppress(PortError):
                undone = await self._hide(receipts, list(hide_s.values()))
                refused = {
                    name for name in hide_s if self._held.receipt(name) in {each.receipt for each in undone}
                }
        for name in refused:
            self._held.kept(name, now)

    async def remove(self, notice: StoredNotice) -> None:
        """Deletes the message."""
        if notice.place not in self._held:
            return
        receipt = self._held.receipt(notice.place)
        with calling("sqs DeleteMessage"):
            await self._service.delete_message(QueueUrl=self._queue_url, ReceiptHandle=receipt)
        self._held.removed(notice.place)

    async def leave(self, notice: StoredNotice) -> None:
        """Notes that this message is not returned again."""
        self._held.leave(notice.place)

    async def payload(self, bucket: str, key: str) -> bytes:
        """The object with the event of a large batch."""
        return await self._objects.read(bucket, key)

    async def close(self) -> None:
        """Makes all messages visible that were not removed. Those for which that fails are when their time is over."""
        tens = iter(list(batched(self._held.receipts(_now()), RECEIVED_MAX, strict=False)))

        async def show() -> None:
            for ten in tens:
                with suppress(PortError):
                    await self._hide(ten, [0] * len(ten))

        async with asyncio.TaskGroup() as group:
            for number in range(CLOSES_AT_ONCE):
                group.create_task(show(), name=f"show {number}")

    async def _hide(self, receipts: Sequence[str], visibility_s: Sequence[int]) -> Sequence[Undone]:
        """Hides up to ten messages for so long from now on, each. Returns those that it could not change."""
        entries = [
            {"Id": str(index), "ReceiptHandle": receipt, "VisibilityTimeout": each}
            for index, (receipt, each) in enumerate(zip(receipts, visibility_s, strict=True))
        ]
        with calling("sqs ChangeMessageVisibilityBatch"):
            answer = await self._service.change_message_visibility_batch(
                QueueUrl=self._queue_url, Entries=entries
            )
        with understood("sqs ChangeMessageVisibilityBatch"):
            return undone(receipts, msgspec.convert(answer, type=BatchAnswer))


def _attributes(message: Mapping[str, Any]) -> dict[str, str]:
    """The attributes of a dead letter that are texts."""
    found = message.get("MessageAttributes")
    values = {name: found[name].get("StringValue") for name in ATTRIBUTES if name in found} if found else {}
    return {name: value for name, value in values.items() if isinstance(value, str)}


def _now() -> Monotonic:
    return Monotonic(asyncio.get_running_loop().time())


@asynccontextmanager
async def open_queue(settings: QueueSettings, env: Environment) -> AsyncIterator[QueueNotices]:
    """Yields the notices of the queue."""
    arn = Arn.parse(settings.place)
    service = await client(env, "sqs", arn.region)
    queue_url = f"{str(service.meta.endpoint_url).rstrip('/')}/{arn.account}/{arn.resource}"
    notices = QueueNotices(service, queue_url, Objects(env), hold_s=settings.hold_s)
    try:
        yield notices
    finally:
        # The worker may be cancelled, and a mapping that is changed waits for this.
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S_MAX):
                await notices.close()


plugin = Plugin("sqs", QueueSettings, open_queue)
