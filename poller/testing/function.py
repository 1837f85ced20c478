"""Owns the function for tests of invokers. `event["do"]` says what it does.

| `do` | the function |
|---|---|
| `echo` | returns `{"echo": event}` |
| `nothing` | returns nothing |
| `fail` | raises `ValueError("boom " + event["text"])` |
| `sleep` | waits `event["s"]` seconds and returns `"awake"` |
| `huge` | returns a string of 7 MiB, more than a function may answer |

`python -m poller.testing.function` reads an event from stdin and prints the answer. A failure is one line of JSON on stderr,
`{"errorType": ..., "errorMessage": ...}`, and exit status 1.
"""

import asyncio
import json
import sys
import time
from typing import Any

ANSWER_LARGE = 7 * 1024 * 1024


def act(event: Any, context: Any) -> Any:
    """Does what `event["do"]` says, and returns the answer."""
    del context
    if event["do"] == "sleep":
        time.sleep(event["s"])
        return "awake"
    return answer(event)


async def act_on_loop(event: Any, context: Any) -> Any:
    """Like `act`, but it sleeps on the event loop."""
    if event["do"] == "sleep":
        await asyncio.sleep(event["s"])
        return "awake"
    return act(event, context)


def answer(event: Any) -> Any:
    """The part of `act` that does not wait."""
    match event["do"]:
        case "echo":
            return {"echo": event}
        case "nothing":
            return None
        case "fail":
            raise ValueError("boom " + event.get("text", ""))
        case "huge":
            return "x" * ANSWER_LARGE
        case other:
            raise AssertionError(other)


def main() -> int:
    """Reads an event from stdin, acts, and prints; returns the exit status."""
    event = json.loads(sys.stdin.buffer.read())
    try:
        result = act(event, None)
    except ValueError as error:
        failure = {"errorType": type(error).__name__, "errorMessage": str(error)}
        print(json.dumps(failure), file=sys.stderr)
        return 1
    sys.stdout.write(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
