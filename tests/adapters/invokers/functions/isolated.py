"""Functions for tests of processes: what they do is in the event; what they keep is their process's own."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from typing import Any

LOOP = asyncio.get_event_loop()
"""Code for Lambda makes one at module level."""
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
CALLS: list[int] = []
logger = logging.getLogger("shop")


def act(event: Any, _context: Any) -> Any:
    """Does what `event["do"]` says."""
    CALLS.append(1)
    match event["do"]:
        case "pid":
            return {"pid": os.getpid(), "calls": len(CALLS), "poller": sorted(_own())}
        case "loop":
            return LOOP.run_until_complete(asyncio.sleep(0, "ran"))
        case "exit":
            os._exit(3)
        case "quit":
            sys.exit(3)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            # What it started must not outlive it.
            child = subprocess.Popen(["sleep", "3600"])
            os.write(1, f"child {child.pid}\n".encode())
            time.sleep(3600)
        case "say":
            print("printed", flush=True)
            logger.info("logged")
            logger.warning("warned")
            print("to the other", file=sys.stderr)
            os.write(1, b"x" * event.get("bytes", 0) + b"\n")
        case "read":
            return sys.stdin.read()
        case "fail":
            raise ValueError("boom")
        case "sleep":
            time.sleep(event["s"])
            return "awake"
        case "large":
            return {"got": len(event["text"]), "text": "y" * event["bytes"]}
    return None


async def act_on_loop(event: Any, context: Any) -> Any:
    """Like `act`; leaves a cancellation of its own task behind when told to."""
    await asyncio.sleep(0)
    if event["do"] == "cancel":
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "done"
    return act(event, context)


def _own() -> list[str]:
    return [name for name in os.environ if name.startswith("POLLER_")]
