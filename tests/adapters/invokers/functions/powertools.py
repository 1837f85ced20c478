"""Handlers as the documentation of Powertools for AWS Lambda (Python) writes them: a processor at module level, used by every call.

Those that end in `_threads` are the same code made safe to run beside itself: a processor for each call.
"""

import asyncio
import json
import random
import time
from typing import Any

from aws_lambda_powertools.utilities.batch import (
    AsyncBatchProcessor,
    BatchProcessor,
    EventType,
    SqsFifoPartialProcessor,
    async_process_partial_response,
    process_partial_response,
)
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord
from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamRecord
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

PAUSE_S = 0.001

sqs_processor = BatchProcessor(event_type=EventType.SQS)
fifo_processor = SqsFifoPartialProcessor()
kinesis_processor = BatchProcessor(event_type=EventType.KinesisDataStreams)
dynamodb_processor = BatchProcessor(event_type=EventType.DynamoDBStreams)
async_processor = AsyncBatchProcessor(event_type=EventType.SQS)


def work(number: int) -> None:
    """Takes a moment; every tenth is bad."""
    time.sleep(random.uniform(0, PAUSE_S))
    if number % 10 == 7:
        raise ValueError(f"{number} is bad")


def message(record: SQSRecord) -> None:
    """Works on a message."""
    work(json.loads(record.body)["n"])


async def message_on_loop(record: SQSRecord) -> None:
    """Works on a message beside others."""
    await asyncio.sleep(random.uniform(0, PAUSE_S))
    message(record)


def reading(record: KinesisStreamRecord) -> None:
    """Works on a record of a Kinesis stream."""
    work(json.loads(record.kinesis.data_as_text())["n"])


def change(record: DynamoDBRecord) -> None:
    """Works on a record of a DynamoDB stream."""
    assert record.dynamodb is not None
    work(int(record.dynamodb.new_image["n"]))


def sqs(event: Any, context: Any) -> Any:
    """Standard queues."""
    return process_partial_response(
        event=event, record_handler=message, processor=sqs_processor, context=context
    )


def fifo(event: Any, context: Any) -> Any:
    """FIFO queues: stops at the first failure."""
    return process_partial_response(
        event=event, record_handler=message, processor=fifo_processor, context=context
    )


def kinesis(event: Any, context: Any) -> Any:
    """Kinesis streams."""
    return process_partial_response(
        event=event, record_handler=reading, processor=kinesis_processor, context=context
    )


def dynamodb(event: Any, context: Any) -> Any:
    """DynamoDB streams."""
    return process_partial_response(
        event=event, record_handler=change, processor=dynamodb_processor, context=context
    )


def asynchronous(event: Any, context: Any) -> Any:
    """Records of a batch beside each other."""
    return async_process_partial_response(
        event=event, record_handler=message_on_loop, processor=async_processor, context=context
    )


def sqs_threads(event: Any, context: Any) -> Any:
    """Standard queues."""
    processor = BatchProcessor(event_type=EventType.SQS)
    return process_partial_response(event=event, record_handler=message, processor=processor, context=context)


def fifo_threads(event: Any, context: Any) -> Any:
    """FIFO queues."""
    processor = SqsFifoPartialProcessor()
    return process_partial_response(event=event, record_handler=message, processor=processor, context=context)


def kinesis_threads(event: Any, context: Any) -> Any:
    """Kinesis streams."""
    processor = BatchProcessor(event_type=EventType.KinesisDataStreams)
    return process_partial_response(event=event, record_handler=reading, processor=processor, context=context)


def dynamodb_threads(event: Any, context: Any) -> Any:
    """DynamoDB streams."""
    processor = BatchProcessor(event_type=EventType.DynamoDBStreams)
    return process_partial_response(event=event, record_handler=change, processor=processor, context=context)


def asynchronous_threads(event: Any, context: Any) -> Any:
    """Records of a batch beside each other."""
    processor = AsyncBatchProcessor(event_type=EventType.SQS)
    return async_process_partial_response(
        event=event, record_handler=message_on_loop, processor=processor, context=context
    )
