"""Owns one call of a Python handler: what it returned or raised becomes an outcome, whatever that is.

A handler's objects are foreign code too: their `__class__`, `__str__`, `items` and `__await__` may raise anything or lie.
Nothing of theirs is touched outside a guard, and what is kept of them is plain text and plain bytes.
"""

import inspect
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any

from adapters.invokers.handlers.context import FunctionContext
from adapters.invokers.handlers.output import speaking
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

MARSHAL_ERROR = "Runtime.MarshalError"
LOOKS_MAX = 100_000
"""Values that are looked at of an answer before it is encoded; one cycle of lists would be looked at for ever."""
NO_TEXT = "(its text could not be made)"

type Handler = Callable[[Any, FunctionContext], Any]

_name_of = type.__dict__["__name__"].__get__
"""A class's true name: a metaclass may have a `__name__` of its own that raises."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The handler returned something that has still to be awaited."""

    awaitable: Awaitable[Any]


def called(handler: Handler, event: Event, context: FunctionContext) -> Outcome | Pending:
    """The outcome of calling the handler, or what has still to be awaited.

    Raises what reading the event raises, which is no fault of the handler.
    """
    given = event.decoded()
    try:
        with speaking(context.function_name, context.aws_request_id):
            result = handler(given, context)
    except BaseException as error:  # noqa: BLE001 - user code: whatever it raises, SystemExit too, is its failure
        return raised(error)
    return Pending(result) if _awaitable(result) else answered(result)


async def completed(handler: Handler, event: Event, context: FunctionContext) -> Outcome:
    """The outcome of calling the handler, and of awaiting what it returned where that has to be awaited.

    As `called` and `finished` one after the other; the function speaks once, since that costs something for each call.
    """
    given = event.decoded()
    try:
        with speaking(context.function_name, context.aws_request_id):
            result = handler(given, context)
            if _awaitable(result):
                result = await result
    except BaseException as error:  # noqa: BLE001 - user code: whatever it raises, SystemExit too, is its failure
        return raised(error)
    return answered(result)


async def finished(pending: Pending, context: FunctionContext) -> Outcome:
    """The outcome of awaiting what a handler returned.

    A cancellation is the handler's failure like anything else: this runs in a task that is the handler's own.
    """
    try:
        with speaking(context.function_name, context.aws_request_id):
            result = await pending.awaitable
    except BaseException as error:  # noqa: BLE001 - user code: whatever it raises, SystemExit too, is its failure
        return raised(error)
    return answered(result)


def raised(error: BaseException) -> FunctionError:
    """The outcome of a handler that raised, named by type as Lambda's Python runtime does."""
    return failed(name_of(error), text_of(error), stack_trace=_stack_of(error))


def answered(result: Any) -> Outcome:
    """The outcome of a handler that returned `result`: its JSON, or Runtime.MarshalError when it has none."""
    if result is None:
        # What most handlers return that report no failures.
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
    """The name of an exception's class as far as it is kept."""
    return plain(_name_of(type(error)), ERROR_TYPE_CHARS_MAX)


def text_of(error: BaseException) -> str:
    """An exception's text as far as it is kept."""
    try:
        return plain(str(error), ERROR_MESSAGE_CHARS_MAX)
    except BaseException:  # noqa: BLE001 - user code: __str__ of an exception may fail like anything else
        return NO_TEXT


def plain(text: str, chars_max: int) -> str:
    """A string of no class but str, longer than `chars_max` when there was more, so that whoever cuts it knows."""
    return str.__getitem__(text, slice(0, 4 * chars_max))


def _awaitable(result: Any) -> bool:
    try:
        return result is not None and inspect.isawaitable(result)
    except BaseException:  # noqa: BLE001 - user code: an answer is asked for its `__class__`
        return False


def _decimal(value: Any) -> float:
    # Numbers that come out of DynamoDB are Decimals in Python; Lambda's runtime answers them as numbers.
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"Object of type {_name_of(type(value))} is not JSON serializable")


_encode = json.JSONEncoder(default=_decimal).encode
"""Bound here: a function may put something else in the place of `json.dumps`."""


def least_bytes(result: Any) -> int:
    """What the JSON of `result` has at least; stops counting where that is too much.

    The encoder lets nothing else of this process run until it has ended, which takes seconds for some hundred megabytes.
    Only strings, lists and dictionaries are looked into, and only by their own classes' means, so that nothing of a user's runs.
    """
    found, left, looks = 0, [result], LOOKS_MAX
    while left and found <= ANSWER_BYTES_MAX and looks:
        looks -= 1
        value = left.pop()
        kind = type(value)
        if kind is str:
            found += len(value)
        elif kind is list or kind is tuple:
            found += len(value)
            left.extend(value if len(value) <= looks else value[:looks])
        elif kind is dict:
            found += 4 * len(value)
            left.extend(value.values() if len(value) <= looks else islice(value.values(), looks))
    return found


def is_coroutine_function(handler: Handler) -> bool:
    """Whether calling `handler` gives a coroutine; knows objects with an asynchronous `__call__` too."""
    try:
        call = getattr(handler, "__call__", None)  # noqa: B004 - its kind is asked for, not whether it exists
        return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)
    except BaseException:  # noqa: BLE001 - user code: attributes of a handler may fail like anything else
        return False
