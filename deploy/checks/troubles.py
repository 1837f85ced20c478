"""Owns what must go wrong so that every metric has a series: a daemon's configuration beyond the demo's."""

from pathlib import Path
from typing import Any

from adapters.demo.emulator import REGION
from adapters.demo.scenario import Scene

STREAM = "troubled"
ACTIVE_TRIES_MAX = 20
CODE = """
def broken(event, context):
    raise ValueError("this function fails on everything")
"""


async def prepare(stage: Scene, folder: Path) -> None:
    """A stream with a few records, and the function that fails on them."""
    (folder / "troubles_handlers.py").write_text(CODE)
    kinesis = stage.clients["kinesis"]
    await kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    waiter = kinesis.get_waiter("stream_exists")
    await waiter.wait(StreamName=STREAM, WaiterConfig={"Delay": 1, "MaxAttempts": ACTIVE_TRIES_MAX})
    for number in range(10):
        await kinesis.put_record(StreamName=STREAM, PartitionKey=str(number), Data=b"{}")


async def stream_arn(stage: Scene) -> str:
    """The troubled stream's ARN."""
    return str((await _described(stage.clients["kinesis"]))["StreamARN"])


async def _described(kinesis: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await kinesis.describe_stream_summary(StreamName=STREAM)
    found: dict[str, Any] = answer["StreamDescriptionSummary"]
    return found


def troubled(document: dict[str, Any], arn: str) -> dict[str, Any]:
    """The demo's configuration with a blocked shard, a destination that is gone and a stream that is gone."""
    missing = {
        "stream": arn.replace(f"/{STREAM}", "/gone"),
        "queue": f"arn:aws:sqs:{REGION}:{arn.split(':')[4]}:gone",
    }
    failing = {"invoker": "python", "handler": "troubles_handlers:broken"}
    start = {"StartingPosition": "TRIM_HORIZON"}
    functions = {"blocked": failing, "gives-up": failing, "waits": failing}
    mappings = [
        {"FunctionName": "blocked", "EventSourceArn": arn, **start},
        {
            "FunctionName": "gives-up",
            "EventSourceArn": arn,
            "MaximumRetryAttempts": 0,
            "DestinationConfig": {"OnFailure": {"Destination": missing["queue"]}},
            **start,
        },
        {"FunctionName": "waits", "EventSourceArn": missing["stream"], **start},
    ]
    orders = {**document["functions"]["orders"], "max_concurrency": 8}
    return {
        **document,
        "functions": {**document["functions"], "orders": orders, **functions},
        "mappings": [*document["mappings"], *mappings],
    }
