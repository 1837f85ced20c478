"""A function that is called asynchronously. It writes each call that succeeds into a journal, and fails or takes long if the event says so."""

import os
import time
from typing import Any


def handler(event: Any, context: Any) -> Any:
    """Fails `fail` times for each call, by the number of its lines in the journal; sleeps `sleep_s` seconds."""
    journal = os.environ["JOURNAL"]
    time.sleep(event.get("sleep_s", 0.0))
    tried = f"{journal}.{context.aws_request_id}"
    with open(tried, "a") as lines:
        lines.write("tried\n")
    if os.path.getsize(tried) <= len("tried\n") * event.get("fail", 0):
        raise ValueError("not yet")
    with open(journal, "a") as lines:
        lines.write(f"{context.aws_request_id}\n")
    return {"n": event["n"]}
