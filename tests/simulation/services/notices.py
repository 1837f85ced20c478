"""Owns the fake on-failure queue that redrives read (pure state), a worker's reader of it, and who redrives what at present."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from random import Random
from typing import Any, Protocol

from poller.domain.errors import PortError, ResourceMissing
from poller.domain.invocations import Notice, StoredNotice, with_member, with_payload
from poller.domain.records import MappingId, Monotonic
from poller.domain.untrusted.json_values import json_value
from poller.held_notices import HeldNotices
from tests.simulation.services.contents import name_of, parse
from tests.simulation.services.faults import Line, Port, epoch

BUCKET = "large-events"
EMPTY_RECEIVES_MAX = 3
RECEIVES_MAX = 20
WAIT_S = 1.0
CLOSE_S_MAX = 5.0
STRAYS = (
    b"",
    b"no JSON \xf0\x9f\x92\xa9",
    b"[]",
    b'{"requestContext":null,"KinesisBatchInfo":{"streamArn":{}}}',
)
"""What else lies in an on-failure queue."""


class Form(StrEnum):
    """Where a notice has the event of its batch."""

    PLAIN = "read again from the stream"
    PAYLOAD = "event in the notice"
    OBJECT = "event in an object"


@dataclass(slots=True, eq=False)
class Kept:
    """A notice in the place; hidden until `hidden_until`. `notice` is None for a message that is no notice."""

    name: str
    document: bytes
    form: Form
    notice: Notice | None
    arrived: float
    hidden_until: float = 0.0
    receives: int = 0
    removed: bool = False

    @property
    def receipt(self) -> str:
        """The newest receipt."""
        return f"{self.name}#{self.receives}"


class NoticePlace:
    """An on-failure queue. Each notice gets one of `forms`, and some are followed by a stray message."""

    def __init__(self, *, rng: Random, forms: Sequence[Form] = (Form.PLAIN,), strays: float = 0.0) -> None:
        self.kept: dict[str, Kept] = {}
        self.objects: dict[str, bytes] = {}
        self._rng = rng
        self._forms = forms
        self._strays = strays

    def put(self, notice: Notice) -> None:
        """A notice arrives."""
        form = self._rng.choice(self._forms)
        document, key = notice.document, f"{notice.notice_id}-{len(self.kept)}"
        if form is Form.PAYLOAD:
            document = with_payload(notice)
        elif form is Form.OBJECT:
            self.objects[key] = with_payload(notice)
            document = with_member(notice, "payloadObject", {"bucket": BUCKET, "key": key})
        self._keep(document, form, notice)
        if self._strays and self._rng.random() < self._strays:
            self._keep(self._rng.choice(STRAYS), form, None)

    def receive(self, now: float, *, most: int, hold_s: float) -> list[Kept]:
        """Visible messages in any order; each is hidden for `hold_s`."""
        visible = [each for each in self.kept.values() if not each.removed and each.hidden_until <= now]
        taken = self._rng.sample(visible, min(most, len(visible)))
        for each in taken:
            each.receives += 1
            each.hidden_until = now + hold_s
        return taken

    def delete(self, receipt: str) -> Kept | None:
        """Deletes a message by its newest receipt; an older one does nothing. Returns what was deleted."""
        kept = self._owner(receipt)
        if kept.receipt != receipt or kept.removed:
            return None
        kept.removed = True
        return kept

    def show(self, now: float, receipt: str) -> None:
        """Makes a message visible."""
        kept = self._owner(receipt)
        if kept.receipt == receipt:
            kept.hidden_until = min(kept.hidden_until, now)

    def hide(self, now: float, receipt: str, hide_s: float) -> bool:
        """Hides a message for so long from now on. Returns whether it is hidden by this receipt."""
        kept = self._owner(receipt)
        hidden = kept.receipt == receipt and not kept.removed and kept.hidden_until > now
        if hidden:
            kept.hidden_until = now + hide_s
        return hidden

    def hidden(self, now: float) -> int:
        """How many messages readers hide."""
        return sum(not each.removed and each.hidden_until > now for each in self.kept.values())

    def left(self) -> list[Kept]:
        """What was not removed."""
        return [each for each in self.kept.values() if not each.removed]

    def _keep(self, document: bytes, form: Form, notice: Notice | None) -> None:
        name = f"notice-{len(self.kept)}"
        self.kept[name] = Kept(name, document, form, notice, epoch())

    def _owner(self, receipt: str) -> Kept:
        return self.kept[receipt.partition("#")[0]]


@dataclass(frozen=True, slots=True)
class InWork:
    """What a redrive has read last: what it is, the records of its batch, the event if it must be that very one, and where the event is."""

    name: str
    identifiers: tuple[str, ...]
    payload: bytes | None
    kind: str


@dataclass(slots=True, eq=False)
class Reader:
    """One opening of a place by a worker's redrive of a mapping."""

    line: Line
    place: str
    mapping: MappingId
    work: InWork | None = None


REDRIVING: ContextVar[Reader | None] = ContextVar("redriving", default=None)
"""The reader of the redrive that the present code belongs to. The call of a function has a task of its own, which inherits it."""


class RedriveWitness(Protocol):
    """Who is told of what redrives do."""

    def removes(self, reader: Reader, name: str) -> None:
        """A notice, or a message of a dead-letter queue, was removed."""
        ...


class SimNotices:
    """NoticeSource over a NoticePlace, as the adapter for queues is."""

    def __init__(self, place: NoticePlace, reader: Reader, witness: RedriveWitness, *, hold_s: float) -> None:
        self._place = place
        self._reader = reader
        self._witness = witness
        self._held = HeldNotices(hold_s)
        self.seen_all = False

    async def read(self, *, notices_max: int) -> Sequence[StoredNotice]:
        """The next notices."""
        REDRIVING.set(self._reader)
        empty, self.seen_all = 0, False
        for _ in range(RECEIVES_MAX):
            received, found = await self._receive(notices_max)
            if found:
                return found
            empty = 0 if received else empty + 1
            if empty == EMPTY_RECEIVES_MAX:
                self.seen_all = True
                break
        return []

    async def hold(self, notice: StoredNotice) -> bool:
        """Hides the message anew."""
        now, receipt = self._now(), self._held.receipt(notice.place)
        effect = partial(self._place.hide, epoch(), receipt, self._held.hold_s)
        if await self._call(f"hold {notice.place}", effect):
            self._held.kept(notice.place, now)
            return True
        self._held.lapsed(notice.place, now)
        return False

    async def remove(self, notice: StoredNotice) -> None:
        """Deletes the message."""
        if notice.place not in self._held:
            return
        receipt = self._held.receipt(notice.place)

        def effect() -> None:
            if self._place.delete(receipt) is not None:
                self._witness.removes(self._reader, notice.place)

        await self._call(f"remove {notice.place}", effect)
        self._held.removed(notice.place)

    async def leave(self, notice: StoredNotice) -> None:
        """Notes that this message is not returned again."""
        self._held.leave(notice.place)

    async def payload(self, bucket: str, key: str) -> bytes:
        """The object with the event of a batch."""

        def effect() -> bytes:
            if bucket != BUCKET or key not in self._place.objects:
                raise ResourceMissing(f"no object {bucket}/{key}")
            return self._place.objects[key]

        return await self._call(f"object {key}", effect)

    async def held_by_others(self) -> int:
        """How many messages others hide."""
        hidden = await self._call("count notices", lambda: self._place.hidden(epoch()))
        return max(0, hidden - self._held.hidden(self._now()))

    async def close(self) -> None:
        """Makes all messages visible that were not removed, if that is possible."""
        for receipt in self._held.receipts(self._now()):
            try:
                await self._call(f"show {receipt}", partial(self._show, receipt))
            except PortError:
                return

    def _show(self, receipt: str) -> None:
        self._place.show(epoch(), receipt)

    async def _receive(self, most: int) -> tuple[int, list[StoredNotice]]:
        def effect() -> list[Kept]:
            return self._place.receive(epoch(), most=most, hold_s=self._held.hold_s)

        now = self._now()
        messages = await self._call(f"receive notices {most}", effect)
        if not messages:
            await asyncio.sleep(WAIT_S)
        for each in messages:
            hide_s = self._held.received(each.name, each.receipt, now)
            self._place.hide(epoch(), each.receipt, hide_s)
        found = [each for each in messages if not self._held.left(each.name)]
        if found:
            self._reader.work = in_work(found[-1])
        return len(messages), [StoredNotice(each.name, each.document) for each in found]

    def _now(self) -> Monotonic:
        return Monotonic(epoch())

    async def _call[T](self, what: str, effect: Callable[[], T]) -> T:
        return await self._reader.line.call(Port.DESTINATION, what, effect)


def in_work(kept: Kept) -> InWork:
    """What a redrive of this notice is about."""
    if kept.notice is None:
        return InWork(kept.name, (), None, "no notice")
    payload = kept.notice.payload
    records = json_value(payload).get("Records", [])
    identifiers = tuple(number for each in records if (number := _number(each)) is not None)
    return InWork(kept.name, identifiers, None if kept.form is Form.PLAIN else payload, kept.form)


def _number(record: dict[str, Any]) -> Any:
    kinesis = record.get("kinesis")
    if kinesis is None:
        return record.get("dynamodb", {}).get("SequenceNumber")
    return name_of(kinesis["sequenceNumber"], parse(base64.b64decode(kinesis["data"])))


@asynccontextmanager
async def open_notices(
    place: NoticePlace, reader: Reader, witness: RedriveWitness, *, hold_s: float
) -> AsyncIterator[SimNotices]:
    """A reader of the place."""
    source = SimNotices(place, reader, witness, hold_s=hold_s)
    try:
        yield source
    finally:
        REDRIVING.set(None)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S_MAX):
                await source.close()
