"""A handler that runs work on the thread's loop, as code for Lambda does, and closes it when `event["do"]` says so."""

import asyncio
from typing import Any


def act(event: Any, _context: Any) -> Any:
    """Answers with what ran on the thread's loop, or lets the caller await it."""
    match event["do"]:
        case "close":
            asyncio.get_event_loop().close()
            return "closed"
        case "await":
            return asyncio.sleep(0, "ran")
        case _:
            return asyncio.get_event_loop().run_until_complete(asyncio.sleep(0, "ran"))
