"""Owns the messages of asynchronous calls to services that take texts of a limited size (aws-behaviour#async-destinations).

A destination gets the document of a call. If the service takes no message of its size, it gets the next shorter form of the
document, which says what is left out. A queue, topic or bus may have a limit of its own below the service's. It shows when a message
is refused, and the next shorter form is sent then, too.

A dead-letter queue or topic gets the payload as it is, with the error in attributes. A payload that is refused is never cut: the
call stays in the store, and is sent again later.
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Protocol

from botocore.exceptions import ClientError

from adapters.aws.clients import status_of
from poller.domain.errors import ServiceUnavailable
from poller.domain.functions.call_notices import CallNotice

REFUSED_STATUSES = frozenset({400, 413})
"""HTTP statuses of a message that the service takes in no case, such as one that is too long."""
EMPTY = "{}"
"""What stands for a payload without a byte, which no message can have. Lambda calls a function with it, too."""
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""Characters that SQS refuses in a message. JSON can escape all of them."""

type SendMessage = Callable[[str], Awaitable[None]]
type Attributes = Mapping[str, Mapping[str, str]]
"""Message attributes as SQS and SNS take them, by name."""


class SendWithAttributes(Protocol):
    """Sends one message of a queue or topic."""

    async def __call__(self, text: str, attributes: Attributes, /) -> None:
        """Returns when the message is there. Raises as `Destination.send` does."""
        ...


def message_text(content: bytes) -> str:
    """JSON as the text of a message. Characters that SQS refuses are escaped, bytes that are no UTF-8 become U+FFFD."""
    return _NO_TEXT.sub(_escaped, content.decode("utf-8", "replace"))


def refused(error: ServiceUnavailable) -> bool:
    """Whether the service takes such a message in no case."""
    cause = error.__cause__
    return isinstance(cause, ClientError) and status_of(cause) in REFUSED_STATUSES


async def send_document(notice: CallNotice, bytes_max: int, message: SendMessage) -> None:
    """Sends the longest form of the document that is taken. Raises what `message` raises."""
    *longer, shortest = notice.documents
    for document in longer:
        if len(document) > bytes_max:
            continue
        text = message_text(document)
        if _size(text) > bytes_max:
            continue
        try:
            await message(text)
        except ServiceUnavailable as error:
            if not refused(error):
                raise
        else:
            return
    await message(message_text(shortest))


async def send_dead_letter(notice: CallNotice, bytes_max: int, message: SendWithAttributes) -> None:
    """Sends the payload with the attributes of a dead letter, or with fewer if they do not fit. Raises what `message` raises."""
    text = message_text(notice.payload) or EMPTY
    *more, least = _attributes(notice)
    for attributes in more:
        if _size(text) + _attributes_size(attributes) > bytes_max:
            continue
        try:
            await message(text, attributes)
        except ServiceUnavailable as error:
            if not refused(error):
                raise
        else:
            return
    try:
        await message(text, least)
    except ServiceUnavailable as error:
        if not refused(error):
            raise
        raise ServiceUnavailable(f"{error.reason}; the payload has {_size(text)} bytes") from error


def no_dead_letter(destination: str) -> ServiceUnavailable:
    """The error of a destination that takes documents alone."""
    return ServiceUnavailable(
        f"{destination} takes no dead letters; as the dead-letter target name a standard queue or topic, or make it the on-failure destination"
    )


def _attributes(notice: CallNotice) -> Iterator[Attributes]:
    """The attributes of a dead letter, then fewer of them, then none."""
    known = {
        "RequestID": {"DataType": "String", "StringValue": notice.call},
        "ErrorCode": {"DataType": "Number", "StringValue": notice.error_code},
    }
    if said := message_text(notice.error_message.encode()):
        yield {**known, "ErrorMessage": {"DataType": "String", "StringValue": said}}
    yield known
    yield {}


def _attributes_size(attributes: Attributes) -> int:
    """The bytes of attributes as services count them: names, types and values."""
    return sum(_size(name) + sum(map(_size, each.values())) for name, each in attributes.items())


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
