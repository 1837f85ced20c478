"""Owns the child process of a Python function with `isolation: process`: it imports the handler and runs one call at a time.

It gets calls from Lambda's Runtime API, which the daemon serves, and answers there. Everything runs in the main thread, as on
Lambda, so that code may set signal handlers and keep an event loop. The daemon has the other end of this process's standard
input. When that closes, the daemon has ended, and this process ends with all that it started.
"""

import argparse
import asyncio
import http.client
import json
import logging
import os
import re
import signal
import sys
import threading
import time

from adapters.invokers.function_processes.output import FIELDS_MARK
from adapters.invokers.handlers.calling import (
    Handler,
    Pending,
    call_handler,
    finish_pending,
    outcome_of_error,
)
from adapters.invokers.handlers.context import FunctionContext
from adapters.invokers.handlers.loading import load_handler
from adapters.invokers.handlers.output import record_text
from adapters.invokers.handlers.own_packages import give_way
from adapters.invokers.printed_levels import standard_name
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import EncodedEvent, FunctionError, Outcome, Succeeded
from poller.domain.untrusted.texts import cut
from poller.output.function_log import LOGGER_CHARS_MAX
from poller.output.log_fields import fields_of_record

API = "AWS_LAMBDA_RUNTIME_API"
PREFIX = "/2018-06-01/runtime"
WRONG = "InvalidConfiguration"
"""The error type of a start that failed because of the configuration. The message says what to correct."""


class RuntimeClient:
    """A client of the daemon's Runtime API. Any connection error means that the daemon has ended."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address)

    def next(self) -> tuple[http.client.HTTPMessage, bytes]:
        """Waits for the next call; returns its headers and its event."""
        self._connection.request("GET", f"{PREFIX}/invocation/next")
        response = self._connection.getresponse()
        return response.headers, response.read()

    def post(self, path: str, body: bytes) -> None:
        """Sends an answer."""
        self._connection.request("POST", f"{PREFIX}/{path}", body, {"Content-Type": "application/json"})
        self._connection.getresponse().read()


_NO_NAME = re.compile(r"[\x00-\x1f\]]")
"""Characters that would end a logger's name in the prefix of a line."""


class _Lines(logging.Formatter):
    """Formats each record as one line, like Lambda's Python runtime, with the logger's name and the fields of `extra=`.

    The daemon parses the line and logs it at its level.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03d"
    request_id = ""
    """The running call's; empty while the module is imported."""

    def format(self, record: logging.LogRecord) -> str:
        level, text = standard_name(record.levelno), record_text(record)
        # The daemon turns the carriage returns into line feeds again.
        text = text.replace("\n", "\r").replace(FIELDS_MARK, " ")
        fields = fields_of_record(record)
        if fields:
            text = f"{FIELDS_MARK}{json.dumps(fields, ensure_ascii=False)}{FIELDS_MARK}{text}"
        logger = _NO_NAME.sub("_", cut(record.name, LOGGER_CHARS_MAX)) or "root"
        return f"[{level} {logger}]\t{self.formatTime(record)}Z\t{self.request_id}\t{text}"


class Calls:
    """Runs the handler, one call after another, in the main thread. Awaitables run on that thread's event loop."""

    def __init__(self, handler: Handler, *, function: str, memory_mb: int, stream: str) -> None:
        self._handler = handler
        self._function = function
        self._memory_mb = memory_mb
        self._stream = stream

    def run(self, headers: http.client.HTTPMessage, event: bytes) -> Outcome:
        """Runs one call."""
        deadline_ms = int(headers["Lambda-Runtime-Deadline-Ms"])
        context = FunctionContext(
            function=self._function,
            arn=headers["Lambda-Runtime-Invoked-Function-Arn"],
            request_id=headers["Lambda-Runtime-Aws-Request-Id"],
            memory_mb=self._memory_mb,
            stream=self._stream,
            timeout_s=deadline_ms / 1000.0 - time.time(),
        )
        found = call_handler(self._handler, EncodedEvent(event), context)
        return self._awaited(found, context) if isinstance(found, Pending) else found

    def _awaited(self, pending: Pending, context: FunctionContext) -> Outcome:
        outcomes: list[Outcome] = []

        async def carry() -> None:
            outcomes.append(await finish_pending(pending, context))

        try:
            asyncio.get_event_loop().run_until_complete(carry())
        except BaseException as error:  # noqa: BLE001 - user code: it may have cancelled the task, or ended the loop
            outcomes.append(outcome_of_error(error))
        return outcomes[0]


def error_body(error: FunctionError) -> bytes:
    """Returns an error document in the form of Lambda's runtimes."""
    document = {
        "errorType": error.error_type,
        "errorMessage": error.message,
        "stackTrace": list(error.stack_trace),
    }
    return json.dumps(document).encode()


def end_with_daemon() -> None:
    """Kills this process and all that it started as soon as the daemon's end of standard input is closed."""
    line = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def wait() -> None:
        while os.read(line, 1):
            continue
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="daemon's end", daemon=True).start()


def serve(client: RuntimeClient, calls: Calls, lines: _Lines) -> None:
    """Runs calls until the daemon has ended."""
    while True:
        headers, event = client.next()
        request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        lines.request_id = request_id
        outcome = calls.run(headers, event)
        match outcome:
            case Succeeded(payload):
                client.post(f"invocation/{request_id}/response", payload)
            case FunctionError():
                client.post(f"invocation/{request_id}/error", error_body(outcome))
            case _:
                raise AssertionError(outcome)


def main() -> None:
    """Runs until the daemon ends this process or has ended itself."""
    parser = argparse.ArgumentParser()
    parser.add_argument("function")
    parser.add_argument("handler")
    parser.add_argument("--log-level", default="INFO")
    given = parser.parse_args()
    end_with_daemon()
    client = RuntimeClient(os.environ.pop(API))
    lines = _Lines()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(lines)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(given.log_level)
    asyncio.set_event_loop(asyncio.new_event_loop())
    give_way(given.handler.partition(":")[0])
    try:
        found = load_handler(given.function, given.handler)
    except InvalidConfiguration as error:
        document = {"errorType": WRONG, "errorMessage": error.problems[0], "stackTrace": []}
        client.post("init/error", json.dumps(document).encode())
        sys.exit(1)
    calls = Calls(
        found,
        function=given.function,
        memory_mb=int(os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]),
        stream=os.environ["AWS_LAMBDA_LOG_STREAM_NAME"],
    )
    try:
        serve(client, calls, lines)
    except (OSError, http.client.HTTPException):
        sys.exit(0)
