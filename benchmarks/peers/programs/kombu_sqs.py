"""Drives kombu's SQS transport, which Celery uses: `kombu_sqs.py URL`. Prints how many messages it has had on each SIGUSR1.

It receives as many messages at once as SQS allows, as its documentation says for short tasks.
"""

import json
import os
import signal
import sys
from typing import Any
from urllib.parse import urlsplit

from kombu import Connection, Consumer, Queue

PREFETCH = 10
records = 0


def take(_body: object, message: Any) -> None:
    """One message."""
    global records
    records += 1
    message.ack()


def main(url: str) -> None:
    """Runs until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    options = {
        "region": "eu-west-1",
        "wait_time_seconds": 20,
        "polling_interval": 0,
        "is_secure": False,
        "predefined_queues": {"orders": {"url": f"{url}/111122223333/orders"}},
    }
    place = f"sqs://{os.environ['AWS_ACCESS_KEY_ID']}:{os.environ['AWS_SECRET_ACCESS_KEY']}@{urlsplit(url).netloc}"
    with Connection(place, transport_options=options) as connection:
        queue = Queue("orders")
        with Consumer(
            connection,
            queues=[queue],
            callbacks=[take],
            prefetch_count=PREFETCH,
            accept=["json", "text/plain"],
        ):
            signal.signal(signal.SIGUSR1, lambda *_: print(json.dumps([records, records]), flush=True))
            print("ready", flush=True)
            while True:
                connection.drain_events()


if __name__ == "__main__":
    main(sys.argv[1])
