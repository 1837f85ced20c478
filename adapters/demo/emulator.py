"""Owns the emulator of AWS that the demo runs against, and clients of it."""

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from adapters.demo.processes import HOST, Unusable, free_port, plain_environment, running

REGION = "eu-west-1"
ACCOUNT = "111122223333"
SECRET = "emulated"
READY_S_MAX = 30.0
CALL_S_MAX = 30.0
CONNECTIONS_MAX = 64
SERVICES = ("kinesis", "dynamodb", "sqs", "s3")

type Clients = Mapping[str, Any]
"""AWS clients by service."""


def require() -> None:
    """Raises Unusable with the remedy when the emulator is not installed."""
    if find_spec("ministack") is None:
        raise Unusable(
            "the emulator ministack is not installed; install it with: pip install 'esm-poller[demo]'"
        )


@asynccontextmanager
async def emulator(folder: Path) -> AsyncIterator[str]:
    """Runs an emulator and yields its URL; its output goes to `folder`."""
    require()
    port = free_port()
    env = plain_environment() | {
        "BIND_HOST": HOST,
        "MINISTACK_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "LOG_LEVEL": "WARNING",
        "MINISTACK_REGION": REGION,
    }
    url = f"http://{HOST}:{port}"
    with running("emulator", [sys.executable, "-m", "ministack"], env, folder) as process:
        await process.answers(f"{url}/_ministack/health", READY_S_MAX)
        yield url


def credentials() -> dict[str, str]:
    """Returns variables with which an AWS client uses the emulator's account and none of the user's files."""
    return {
        "AWS_ACCESS_KEY_ID": ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@asynccontextmanager
async def clients(url: str) -> AsyncIterator[Clients]:
    """Yields clients of all services that the demo uses."""
    nowhere = (None, None, os.devnull, None)
    session = AioSession(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": nowhere,
            "credentials_file": nowhere,
        }
    )
    config = AioConfig(
        connect_timeout=CALL_S_MAX,
        read_timeout=CALL_S_MAX,
        max_pool_connections=CONNECTIONS_MAX,
        retries={"mode": "standard", "total_max_attempts": 3},
        proxies={},
        s3={"addressing_style": "path"},
    )
    async with AsyncExitStack() as stack:
        yield {
            service: await stack.enter_async_context(
                session.create_client(
                    service,
                    region_name=REGION,
                    endpoint_url=url,
                    aws_access_key_id=ACCOUNT,
                    aws_secret_access_key=SECRET,
                    config=config,
                )
            )
            for service in SERVICES
        }
