"""A function that clients call through the Invoke API: it does what the event says."""

import time
from pathlib import Path
from typing import Any


def handler(event: Any, context: Any) -> Any:
    """Answers with the event and what the context says, after a line in the log; fails, sleeps, waits for a file or says nothing if it is asked to."""
    if not isinstance(event, dict):
        return event
    print(f"called with {event.get('n')}")
    if "until" in event:
        Path(event["mark"]).touch()
        while not Path(event["until"]).exists():
            time.sleep(0.02)
    if "sleep_s" in event:
        time.sleep(event["sleep_s"])
    if "fail" in event:
        raise ValueError(event["fail"])
    custom = context.client_context.custom if context.client_context is not None else None
    return {
        "n": event.get("n"),
        "request": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "custom": custom,
        "batch": len(event.get("Records", [])),
    }
