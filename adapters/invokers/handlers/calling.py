"""Owns one call of a Python handler: whatever it returns or raises becomes an outcome.

A handler's objects are foreign code too: their `__class__`, `__str__`, `items` and `__await__` may raise anything or give wrong
results. So they are used only inside a `try`, and only plain text and plain bytes are kept of them.

A handler may fork. `attributed_to` ends the copy where the handler's code ends in it, so that one call has one outcome.
"""

import inspect
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from adapters.invokers.handlers.context import FunctionContext
from adapters.invokers.handlers.output import attributed_to
from adapters.invokers.outcomes import ANSWER_BYTES_MAX, failed, too_large
from adapters.invokers.stack_traces import stack_of
from poller.domain.invocations import (
    ERROR_MESSAGE_CHARS_MAX,
    ERROR_TYPE_CHARS_MAX,
    Event,
    FunctionError,
    Outcome,
    Succeeded,
)
from poller.forked_copies import ends_copies_that_await

MARSHAL_ERROR = "Runtime.MarshalError"
VALUES_COUNTED_MAX = 100_000
"""Values of an answer that are counted before it is encoded. Without a limit, a list that contains itself would never end."""
NO_TEXT = "(its text could not be made)"

type Handler = Callable[[Any, FunctionContext], Any]

_name_of = type.__dict__["__name__"].__get__
"""Reads a class's real name, since a metaclass may define a `__name__` that raises."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The handler returned an awaitable, which must still be awaited."""

    awaitable: Awaitable[Any]


def call_handler(
    handler: Handler, event: Event, context: FunctionContext, *, whole_for: str = ""
) -> Outcome | Pending:
    """Calls the handler; returns the outcome, or what must still be awaited.

    `whole_for` is the call's request id if a failure needs its document, which names it.
    Raises what decoding the event raises, which is not the handler's fault.
    """
    given = event.decoded()
    try:
        with attributed_to(context.function_name, context.aws_request_id):
            result = handler(given, context)
    except BaseException as error:  # noqa: BLE001 - user code: whatever it raises, SystemExit too, is its failure
        return outcome_of_error(error, whole_for=whole_for)
    return Pending(result) if _awaitable(result) else outcome_of_result(result)


@ends_copies_that_await
async def call_and_await(
    handler: Handler, event: Event, context: FunctionContext, *, whole_for: str = ""
) -> Outcome:
    """Calls the handler and awaits its result if that is awaitable; returns the outcome.

    Does the same as `call_handler` and `finish_pending` together, but attributes output only once, which makes each call faster.
    """
    given = event.decoded()
    try:
        with attributed_to(context.function_name, context.aws_request_id):
            result = handler(given, context)
            if _awaitable(result):
                result = await result
    except BaseException as error:  # noqa: BLE001 - user code: whatever it raises, SystemExit too, is its failure
        return outcome_of_error(error, whole_for=whole_for)
    return outcome_of_result(result)


@ends_copies_that_await
async def finish_pending(pending: Pending, context: FunctionContext, *, whole_for: str = "") -> Outcome:
    """Awaits what a handler returned; returns the outcome.

    A cancellation counts as the handler's failure too, since this runs in a task of the handler's own.
    """
    try:
        with attributed_to(context.function_name, context.aws_request_id):
            result = await pending.awaitable
    except BaseException as error:  # noqa: BLE001 - user code: whatever it raises, SystemExit too, is its failure
        return outcome_of_error(error, whole_for=whole_for)
    return outcome_of_result(result)


def outcome_of_error(error: BaseException, *, whole_for: str = "") -> FunctionError:
    """Returns the outcome of a handler that raised. As in Lambda's Python runtime, its error type is the exception's class."""
    stack = _stack_of(error)
    document = whole_document(error, stack, whole_for) if whole_for else b""
    return failed(name_of(error), text_of(error), stack_trace=stack, document=document)


def whole_document(error: BaseException, stack: list[str], request_id: str) -> bytes:
    """Returns the error with nothing cut, as Lambda's Python runtime writes it; empty if it has more bytes than an answer may have."""
    text = _text_of(error, ANSWER_BYTES_MAX + 1)
    if len(text) > ANSWER_BYTES_MAX:
        return b""
    trace = ", ".join(quoted(f"{entry}\n") for entry in stack)
    members = (
        f'"errorMessage": {quoted(text)}',
        f'"errorType": {quoted(name_of(error))}',
        f'"requestId": {quoted(request_id)}',
        f'"stackTrace": [{trace}]',
    )
    document = f"{{{', '.join(members)}}}".encode()
    return document if len(document) <= ANSWER_BYTES_MAX else b""


def outcome_of_result(result: Any) -> Outcome:
    """Returns the outcome of a handler that returned `result`: its JSON, or Runtime.MarshalError if it cannot be encoded."""
    if result is None:
        # The usual result of handlers that report no failures.
        return Succeeded(b"null")
    try:
        if least_bytes(result) > ANSWER_BYTES_MAX:
            return too_large(ANSWER_BYTES_MAX)
        payload = _encode(result).encode()
    except BaseException as error:  # noqa: BLE001 - an answer's own methods run while it is encoded
        return failed(MARSHAL_ERROR, f"Unable to marshal response: {text_of(error)}")
    return Succeeded(payload) if len(payload) <= ANSWER_BYTES_MAX else too_large(ANSWER_BYTES_MAX)


def _stack_of(error: BaseException) -> list[str]:
    try:
        return stack_of(error)
    except BaseException:  # noqa: BLE001 - user code: a module may load its source by its own means
        return []


def name_of(error: BaseException) -> str:
    """Returns the name of an exception's class, cut to what is kept."""
    return plain(_name_of(type(error)), ERROR_TYPE_CHARS_MAX)


def text_of(error: BaseException) -> str:
    """Returns an exception's text, cut to what is kept."""
    return _text_of(error, 4 * ERROR_MESSAGE_CHARS_MAX)


def _text_of(error: BaseException, chars_max: int) -> str:
    try:
        return str.__getitem__(str(error), slice(0, chars_max))
    except BaseException:  # noqa: BLE001 - user code: __str__ of an exception may fail like anything else
        return NO_TEXT


def plain(text: str, chars_max: int) -> str:
    """Returns a plain `str`. If the text is too long, it stays longer than `chars_max`, so that a later cut can mark that."""
    return str.__getitem__(text, slice(0, 4 * chars_max))


def _awaitable(result: Any) -> bool:
    try:
        return result is not None and inspect.isawaitable(result)
    except BaseException:  # noqa: BLE001 - user code: an answer is asked for its `__class__`
        return False


def _decimal(value: Any) -> float:
    # boto3 returns numbers of DynamoDB as Decimal. Lambda's runtime encodes these as numbers.
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"Object of type {_name_of(type(value))} is not JSON serializable")


_encode = json.JSONEncoder(default=_decimal).encode
"""Bound at import, since a function may replace `json.dumps`."""


def least_bytes(result: Any) -> int:
    """Returns a lower bound of the size of `result` as JSON; stops counting when it is too large.

    The encoder blocks the whole process, for seconds if there are some hundred megabytes. Only strings, lists and dictionaries of
    exactly these classes are counted, so that no user code runs.
    """
    found, left, values_left = 0, [result], VALUES_COUNTED_MAX
    while left and found <= ANSWER_BYTES_MAX and values_left:
        values_left -= 1
        value = left.pop()
        kind = type(value)
        if kind is str:
            found += len(value)
        elif kind is list or kind is tuple:
            found += len(value)
            left.extend(value if len(value) <= values_left else value[:values_left])
        elif kind is dict:
            found += 4 * len(value)
            left.extend(value.values() if len(value) <= values_left else islice(value.values(), values_left))
    return found


def is_coroutine_function(handler: Handler) -> bool:
    """Whether calling `handler` returns a coroutine, also for an object with an asynchronous `__call__`."""
    try:
        call = getattr(handler, "__call__", None)  # noqa: B004 - its kind is asked for, not whether it exists
        return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)
    except BaseException:  # noqa: BLE001 - user code: attributes of a handler may fail like anything else
        return False
