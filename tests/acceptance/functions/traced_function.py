"""A function that writes down which trace context it got."""

import json
import os
from typing import Any


def handler(event: Any, context: Any) -> None:
    """Writes a line into the journal."""
    found = {
        "function": context.function_name,
        "header": os.environ.get("_X_AMZN_TRACE_ID", ""),
        "w3c": context.w3c(),
        "bodies": [each["body"] for each in event["Records"]],
    }
    with open(os.environ["JOURNAL"], "a") as lines:
        lines.write(json.dumps(found) + "\n")
