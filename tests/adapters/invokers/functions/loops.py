"""A module that runs a loop of its own while it is imported, and a handler that does to its loop what `event["do"]` says."""

import asyncio
import sys
from collections.abc import Awaitable
from typing import Any


async def _init() -> str:
    await asyncio.sleep(0)
    return "secret"


SECRET = asyncio.run(_init())


async def act_on_loop(event: Any, _context: Any) -> Any:
    """Meddles with its loop, waits, and answers with what the module got at its import."""
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    match event["do"]:
        case "stop":
            loop.stop()
        case "stop often":
            for _ in range(5):
                loop.stop()
                await asyncio.sleep(0)
        case "stop last":
            loop.call_soon(loop.stop)
            return SECRET
        case "close":
            loop.close()
        case "close soon":
            loop.call_soon(loop.close)
        case "forget":
            asyncio.set_event_loop(None)
        case "install":
            asyncio.set_event_loop(asyncio.new_event_loop())
        case "install closed":
            other = asyncio.new_event_loop()
            other.close()
            asyncio.set_event_loop(other)
        case "exit in a callback":
            loop.call_soon(sys.exit, 3)
        case "cancel all":
            for task in asyncio.all_tasks():
                task.cancel()
    await asyncio.sleep(0.001)
    return SECRET


def leaves_it_to_us(event: Any, context: Any) -> Awaitable[Any]:
    """Returns what is still to be awaited."""
    return act_on_loop(event, context)
