"""Makes a queue and a stream in the emulator, with the AWS client that the image of poller has. Doing it again changes nothing."""

import asyncio

from aiobotocore.session import get_session

QUEUE = "mails"
STREAM = "orders"


async def main() -> None:
    """Ends when both can be read. Endpoint, region and keys are in the environment."""
    session = get_session()
    async with session.create_client("sqs") as sqs, session.create_client("kinesis") as kinesis:
        failed = await sqs.create_queue(QueueName=f"{QUEUE}-failed")
        found = await sqs.get_queue_attributes(QueueUrl=failed["QueueUrl"], AttributeNames=["QueueArn"])
        arn = found["Attributes"]["QueueArn"]
        redrive = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": "5"}}'
        await sqs.create_queue(QueueName=QUEUE, Attributes={"RedrivePolicy": redrive})
        try:
            await kinesis.create_stream(StreamName=STREAM, ShardCount=2)
        except kinesis.exceptions.ResourceInUseException:
            print(f"the stream {STREAM} is there already")
        await kinesis.get_waiter("stream_exists").wait(StreamName=STREAM)
        print(f"the queue {QUEUE} and the stream {STREAM} are there")


asyncio.run(main())
