"""Functions that log and print in every way that functions do; which way is in the event."""

import asyncio
import contextlib
import importlib
import io
import json
import logging
import logging.config
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

logger = logging.getLogger("shop.orders")


class Unloggable:
    """An argument whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def _exception(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("it failed")


def _in_thread(text: str) -> None:
    thread = threading.Thread(target=logger.info, args=(text,))
    thread.start()
    thread.join()


def _in_pool(text: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        pool.submit(print, text).result()


def _with_own_root_handler(text: str) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    for handler in before:
        root.removeHandler(handler)
    logging.basicConfig(level=logging.DEBUG, format="%(levelname)s:%(message)s")
    logger.warning(text)
    root.setLevel(level)


def _with_dict_config(text: str) -> None:
    settings = {
        "version": 1,
        "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}},
        "root": {"level": "INFO", "handlers": ["out"]},
        "disable_existing_loggers": False,
    }
    logging.config.dictConfig(settings)
    logger.info(text)


def _structlog(text: str) -> None:
    structlog.reset_defaults()
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    structlog.get_logger().info(text)


def _powertools(text: str) -> None:
    powertools = importlib.import_module("aws_lambda_powertools")
    powertools.Logger(service=f"orders-{uuid.uuid4()}", level="INFO").warning(text)


def _redirected(text: str) -> None:
    hidden = io.StringIO()
    with contextlib.redirect_stdout(hidden):
        print("not shown")
    print(text)


def _with_disabling_config(text: str) -> None:
    settings = {"version": 1, "loggers": {"shop.orders": {"level": "INFO"}}}
    logging.config.dictConfig(settings)
    logger.info(text)


def _shut_down(text: str) -> None:
    logging.shutdown()
    logger.info(text)


def _disabled(text: str) -> None:
    logging.disable(logging.CRITICAL)
    print(text)


WAYS: dict[str, Callable[[str], Any]] = {
    "info": logger.info,
    "warning": logger.warning,
    "root": logging.getLogger().error,
    "adapter": lambda text: logging.LoggerAdapter(logger, {"a": 1}).info(text),
    "arguments that do not fit": lambda text: logger.info(text + " %d %s", "x"),
    "arguments without text": lambda text: logger.info(text + " %s", Unloggable()),
    "exception": _exception,
    "print": print,
    "print in pieces": lambda text: print(*text.split(" "), sep=" "),
    "print without end": lambda text: print(text, end=""),
    "stdout": lambda text: sys.stdout.write(text + "\n"),
    "stdout bytes": lambda text: sys.stdout.buffer.write(text.encode() + b"\n"),
    "stdout lines": lambda text: sys.stdout.writelines([text, "\n"]),
    "stderr": lambda text: print(text, file=sys.stderr, flush=True),
    "thread": _in_thread,
    "pool": _in_pool,
    "own root handler": _with_own_root_handler,
    "dictConfig": _with_dict_config,
    "structlog": _structlog,
    "powertools": _powertools,
    "redirected": _redirected,
    "disabled": _disabled,
    "dictConfig that disables": _with_disabling_config,
    "shutdown": _shut_down,
}
"""Name of a way to what says a text in it."""


def talk(event: Any, context: Any) -> Any:
    """Says `event["text"]` in the way `event["way"]`."""
    if event["way"] == "context":
        context.log(event["text"])
    elif event["way"] == "silently":
        logger.debug(event["text"])
    else:
        WAYS[event["way"]](event["text"])
    return len(json.dumps(event))


async def talk_on_loop(event: Any, context: Any) -> Any:
    """Like `talk`, on the loop."""
    await asyncio.sleep(0)
    return talk(event, context)


_pool = ThreadPoolExecutor(4)
"""One for all calls, as code for Lambda has it."""


def chat(event: Any, context: Any) -> Any:
    """Says its own request id, in turns with others, also in a pool that it shares with them."""
    for future in [_pool.submit(print, context.aws_request_id, "in a pool") for _ in range(5)]:
        future.result()
    for number in range(20):
        logger.info("%s logs %d", context.aws_request_id, number)
        print(context.aws_request_id, "prints", number)


async def chat_on_loop(event: Any, context: Any) -> Any:
    """Like `chat`, on the loop, also from tasks and threads that it starts."""
    for number in range(10):
        logger.info("%s logs %d", context.aws_request_id, number)
        await asyncio.sleep(0)
        print(context.aws_request_id, "prints", number)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.to_thread(print, context.aws_request_id, "in a thread"))
        tasks.create_task(_say(context.aws_request_id))
    await asyncio.get_running_loop().run_in_executor(None, print, context.aws_request_id, "in an executor")


async def _say(text: str) -> None:
    await asyncio.sleep(0.01)
    logger.info("%s in a task", text)


def deep(event: Any, context: Any) -> Any:
    """Fails some calls down."""
    return _deeper(event["depth"])


async def deep_on_loop(event: Any, context: Any) -> Any:
    """Like `deep`, on the loop."""
    await asyncio.sleep(0)
    return _deeper(event["depth"])


def _deeper(depth: int) -> Any:
    secret = "hunter2"  # noqa: F841 - a value that must not be told
    if depth:
        return _deeper(depth - 1)
    raise LookupError("at the bottom")


def logs_by_name(event: Any, _context: Any) -> None:
    """One record of any logger at any level."""
    logging.getLogger(event["logger"]).log(event["level"], "it said\tthis\nand that")


def logs_with_extra(event: Any, _context: Any) -> None:
    """A record with the fields that are in the event."""
    logger.info("it said", extra=event)
