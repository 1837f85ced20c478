"""Owns what a destination gets of an asynchronous call that is over."""

from dataclasses import dataclass

from poller.domain.invocations import dated_key


@dataclass(frozen=True, slots=True, kw_only=True)
class CallNotice:
    """One ended call for its destinations.

    `documents` has the JSON for a destination, and then shorter forms of it without the payloads, for a destination that takes no more.
    `payload` is the call's own payload for a dead-letter queue or topic, with `error_code` and `error_message` as its attributes.
    `detail_type` and `function_arn` name the event on an event bus. `timestamp` is the document's text of the time.
    """

    call: str
    function: str
    function_arn: str
    timestamp: str
    detail_type: str
    documents: tuple[bytes, ...]
    payload: bytes
    error_code: str
    error_message: str

    def document(self, bytes_max: int) -> bytes:
        """The longest form of the document that has at most so many bytes; the shortest if none has."""
        fitting = (each for each in self.documents if len(each) <= bytes_max)
        return next(fitting, self.documents[-1])


def call_object_key(notice: CallNotice) -> str:
    """The key of the S3 object: the function, the day, the document's time in whole seconds, and the request id (aws-behaviour#async-destinations)."""
    return f"aws/lambda/async/{notice.function}/{dated_key(notice.timestamp, notice.call)}"
