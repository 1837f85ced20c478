"""Drives async-kinesis: `async_kinesis.py URL`. Prints how many records it has had on each SIGUSR1.

Set up as its documentation says for a single consumer: as many reads a second as a shard allows, ListShards in place of DescribeStream.
"""

import asyncio
import json
import os
import signal
import sys

from kinesis import Consumer, StringProcessor


async def main(url: str) -> None:
    """Runs until SIGTERM."""
    records = 0
    loop = asyncio.get_running_loop()
    # It takes seconds to stop by itself.
    loop.add_signal_handler(signal.SIGTERM, lambda: os._exit(0))
    async with Consumer(
        stream_name="orders",
        endpoint_url=url,
        region_name="eu-west-1",
        shard_fetch_rate=5,
        use_list_shards=True,
        processor=StringProcessor(),
    ) as consumer:
        loop.add_signal_handler(signal.SIGUSR1, lambda: print(json.dumps([records, records]), flush=True))
        print("ready", flush=True)
        while True:
            async for _ in consumer:
                records += 1


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
