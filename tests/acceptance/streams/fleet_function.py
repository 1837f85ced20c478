"""Owns the function of the test of the view of all workers: it accepts every record but those of one key."""

import base64
import json
from typing import Any

BAD = "bad"
ERROR = "no\x1b[31m stock\nfor this"
"""A text as a function may write it: with terminal control and a line break."""


async def sell(event: dict[str, Any], _: Any) -> None:
    """Fails for a batch with a record of the key BAD."""
    keys = {json.loads(base64.b64decode(each["kinesis"]["data"]))["key"] for each in event["Records"]}
    if BAD in keys:
        raise ValueError(ERROR)
