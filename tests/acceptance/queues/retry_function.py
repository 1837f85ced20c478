"""A user's function with Powertools' batch processor, which says for each failed message when to try it again.

Bodies are JSON: `name`, how often it fails (`fails`), and how many seconds it asks for then (`later`, none without it). Each try is
a line of the journal that the environment variable QUEUE_JOURNAL names.
"""

import json
import os
import time
from collections import Counter
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from tests.acceptance.queues.queue_function import JOURNAL

processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
tries: Counter[str] = Counter()


class Later(Exception):
    """The message is to be tried again in so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"in {seconds:g} s")
        self.seconds = seconds


def accept(record: SQSRecord) -> None:
    """Raises Later or ValueError as often as the message says."""
    message = json.loads(record.body)
    name = message["name"]
    tries[name] += 1
    with open(os.environ[JOURNAL], "a") as journal:
        journal.write(json.dumps({"name": name, "at": time.monotonic()}) + "\n")
    if tries[name] <= message.get("fails", 0):
        raise Later(message["later"]) if "later" in message else ValueError(name)


def handle(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Processes a batch; what failed with Later has its `retryAfterSeconds` in the report."""
    with processor(event["Records"], accept):
        processor.process()
    waits: dict[str, float] = {}
    for record, (_, error, _) in zip(processor.fail_messages, processor.exceptions, strict=True):
        if isinstance(record, SQSRecord) and isinstance(error, Later):
            waits[record.message_id] = error.seconds
    report: dict[str, Any] = dict(processor.response())
    for item in report["batchItemFailures"]:
        if (seconds := waits.get(item["itemIdentifier"])) is not None:
            item["retryAfterSeconds"] = seconds
    return report
