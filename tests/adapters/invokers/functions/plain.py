"""Functions that tests call through the invokers; what they do is in the event."""

import asyncio
import os
import sys
from typing import Any

from poller.testing import function

NOT_CALLABLE = 7


class Unprintable(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Holder:
    """Has a handler as an attribute."""

    @staticmethod
    def handler(event: Any, context: Any) -> Any:
        """Answers like `act`."""
        return act(event, context)


def act(event: Any, context: Any) -> Any:
    """Does what `event["do"]` says and answers."""
    match event["do"]:
        case "exit":
            os._exit(3)
        case "context":
            return described(context)
        case "mutate":
            event["seen"] = event.get("seen", 0) + 1
            return event["seen"]
        case other:
            return answer(other, event, context)


async def act_on_loop(event: Any, context: Any) -> Any:
    """Like `act`, on the loop."""
    match event["do"]:
        case "sleep":
            return await function.act_on_loop(event, context)
        case "cancelled":
            raise asyncio.CancelledError
        case "late":
            raise TimeoutError("of its own")
        case "stubborn":
            return await stubborn(event["s"])
        case _:
            return act(event, context)


async def stubborn(sleep_s: float) -> str:
    """Sleeps, and goes on when it is cancelled."""
    try:
        await asyncio.sleep(sleep_s)
    except asyncio.CancelledError:
        await asyncio.sleep(0)
    return "went on"


def hands_on(event: Any, context: Any) -> Any:
    """A plain function that answers something to be awaited."""
    return act_on_loop(event, context)


def answer(do: str, event: Any, context: Any) -> Any:
    """The parts of `act` that do not end the process."""
    match do:
        case "quit":
            sys.exit("enough")
        case "interrupt":
            raise KeyboardInterrupt
        case "unprintable":
            raise Unprintable
        case "set":
            return {1, 2}
        case "fail" if "times" in event:
            raise ValueError("boom " + "x" * event["times"])
        case "report":
            return {"batchItemFailures": [{"itemIdentifier": event["Records"][0]["messageId"]}]}
        case "malformed":
            return {"batchItemFailures": [{"itemIdentifier": "of no record"}]}
    return function.act(event, context)


def described(context: Any) -> dict[str, Any]:
    """What the context says."""
    names = (
        "function_name",
        "function_version",
        "invoked_function_arn",
        "memory_limit_in_mb",
        "aws_request_id",
    )
    logs = ("log_group_name", "log_stream_name")
    return {
        **{name: getattr(context, name) for name in (*names, *logs)},
        "remaining_ms": context.get_remaining_time_in_millis(),
        "client_context": context.client_context,
    }
