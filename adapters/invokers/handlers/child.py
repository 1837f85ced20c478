"""Owns the child process of a Python function with `isolation: process`: it imports the handler and runs one call at a time.

It gets calls from Lambda's Runtime API, which the daemon serves, and answers there. Everything runs in the main thread, as on
Lambda, so that code may set signal handlers and keep an event loop. The daemon has the other end of this process's standard
input. When that closes, the daemon has ended, and this process ends with all that it started.

The function's module may change whatever is global here. So this module binds what it needs before it imports that one.
"""

import argparse
import asyncio
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Coroutine
from importlib.machinery import PathFinder
from json.encoder import encode_basestring_ascii as quoted
from os import killpg, read
from typing import Any

from adapters.invokers.function_code.kept_sources import KeptSources, OwnModules
from adapters.invokers.function_processes.output import FIELDS_MARK
from adapters.invokers.function_processes.runtime_client import DaemonGone, Headers, RuntimeClient
from adapters.invokers.function_processes.shared_code import CODE_PATH, decoded, encoded
from adapters.invokers.handlers.calling import (
    Handler,
    Pending,
    call_handler,
    finish_pending,
    outcome_of_error,
)
from adapters.invokers.handlers.context import FunctionContext, client_context
from adapters.invokers.handlers.loading import load_handler
from adapters.invokers.handlers.output import attributed_to, record_text
from adapters.invokers.handlers.own_packages import give_way
from adapters.invokers.outcomes import WHOLE_ERROR_HEADER
from adapters.invokers.printed_levels import standard_name
from poller.domain.errors import InvalidConfiguration
from poller.domain.functions.tracing import of_trace_header
from poller.domain.invocations import EncodedEvent, FunctionError, Outcome, Succeeded
from poller.domain.untrusted.texts import cut
from poller.forked_copies import ends_copies
from poller.output.function_log import LOGGER_CHARS_MAX
from poller.output.log_fields import fields_of_record
from poller.start_folder import start_folder

API = "AWS_LAMBDA_RUNTIME_API"
TRACE_VARIABLE = "_X_AMZN_TRACE_ID"
WRONG = "InvalidConfiguration"
"""The error type of a start that failed because of the configuration. The message says what to correct."""

_encode_fields = json.JSONEncoder(ensure_ascii=False).encode
_new_loop, _current_loop, _set_current_loop = (
    asyncio.new_event_loop,
    asyncio.get_event_loop,
    asyncio.set_event_loop,
)
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
            text = f"{FIELDS_MARK}{_encode_fields(fields)}{FIELDS_MARK}{text}"
        logger = _NO_NAME.sub("_", cut(record.name, LOGGER_CHARS_MAX)) or "root"
        return f"[{level} {logger}]\t{self.formatTime(record)}Z\t{self.request_id}\t{text}"


class Calls:
    """Runs the handler, one call after another, in the main thread. Awaitables run on `loop`.

    It is the thread's loop when the function's module is imported. Later asyncio may name another one or none, for example after
    `asyncio.run`, so it is not asked again.
    """

    def __init__(
        self,
        handler: Handler,
        loop: asyncio.AbstractEventLoop,
        *,
        function: str,
        memory_mb: int,
        stream: str,
        version: str,
    ) -> None:
        self._handler = handler
        self._loop = loop
        self._function = function
        self._memory_mb = memory_mb
        self._stream = stream
        self._version = version

    def run(self, headers: Headers, event: bytes) -> Outcome:
        """Runs one call."""
        whole_for = whole_of(headers)
        self._replace_closed_loop()
        trace = headers.get("lambda-runtime-trace-id", "")
        _set_trace(trace)
        span = of_trace_header(trace)
        deadline_ms = int(headers["lambda-runtime-deadline-ms"])
        context = FunctionContext(
            function=self._function,
            arn=headers["lambda-runtime-invoked-function-arn"],
            request_id=headers["lambda-runtime-aws-request-id"],
            memory_mb=self._memory_mb,
            stream=self._stream,
            timeout_s=deadline_ms / 1000.0 - time.time(),
            client_context=client_context(headers.get("lambda-runtime-client-context", "")),
            version=self._version,
            traceparent="" if span is None else span.traceparent,
        )
        found = call_handler(self._handler, EncodedEvent(event), context, whole_for=whole_for)
        return self._awaited(found, context, whole_for) if isinstance(found, Pending) else found

    def _awaited(self, pending: Pending, context: FunctionContext, whole_for: str) -> Outcome:
        outcomes: list[Outcome] = []

        async def carry() -> None:
            outcomes.append(await finish_pending(pending, context, whole_for=whole_for))

        try:
            with ends_copies():
                _run_to_end(self._loop, carry())
        except BaseException as error:  # noqa: BLE001 - user code: it may have cancelled the task, or ended the loop
            outcomes.append(outcome_of_error(error, whole_for=whole_for))
        return outcomes[0]

    def _replace_closed_loop(self) -> None:
        """Makes a new loop if the function has closed the old one. It is the thread's loop unless the function has set one that is open."""
        if not self._loop.is_closed():
            return
        self._loop = _new_loop()
        try:
            usable = not _current_loop().is_closed()
        except RuntimeError:
            usable = False
        if not usable:
            _set_current_loop(self._loop)


def _run_to_end(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` on the loop to its end, however often the function stops the loop meanwhile."""
    task = loop.create_task(work)
    task.add_done_callback(lambda _: loop.stop())
    try:
        while not task.done():
            loop.run_forever()
    finally:
        task.cancel()
    task.result()


def whole_of(headers: Headers) -> str:
    """Returns the request id of a call whose failure needs its whole document, else nothing."""
    return headers["lambda-runtime-aws-request-id"] if WHOLE_ERROR_HEADER.lower() in headers else ""


def error_body(error: FunctionError, request_id: str = "") -> bytes:
    """Returns an error document in the form of Lambda's runtimes; without `request_id` it names no call."""
    if error.document:
        return error.document
    trace = ",".join(map(quoted, error.stack_trace))
    words = f'"errorType":{quoted(error.error_type)},"errorMessage":{quoted(error.message)}'
    named = f'"requestId":{quoted(request_id)},' if request_id else ""
    return f'{{{words},{named}"stackTrace":[{trace}]}}'.encode()


def end_with_daemon() -> None:
    """Kills this process and all that it started as soon as the daemon's end of standard input is closed."""
    line = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def wait() -> None:
        while read(line, 1):
            continue
        killpg(0, kill)

    kill = signal.SIGKILL
    # Signals are for the main thread, which runs the function's handlers. It would not be woken by one that this thread takes.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    threading.Thread(target=wait, name="daemon's end", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


class OwnCode:
    """The function's own modules in this process, of which the daemon is told, so that it sees when their files change."""

    def __init__(self, folder: str, client: RuntimeClient) -> None:
        self._client = client
        self._sources = KeptSources(decoded(client.get(CODE_PATH)))
        self._sources.show_lines()
        self._reported = 0
        # Before Python's own finder of files, and behind those for what has no file.
        sys.meta_path.insert(sys.meta_path.index(PathFinder), OwnModules(folder, self._sources))

    def report(self) -> None:
        """Sends the sources of modules that were imported since the last report."""
        new = list(self._sources.read.items())[self._reported :]
        if new:
            self._client.post(CODE_PATH, encoded(dict(new)))
            self._reported += len(new)


def serve(client: RuntimeClient, calls: Calls, lines: _Lines, code: OwnCode | None) -> None:
    """Runs calls until the daemon has ended."""
    while True:
        if code is not None:
            code.report()
        headers, event = client.next()
        request_id = headers["lambda-runtime-aws-request-id"]
        lines.request_id = request_id
        try:
            outcome = calls.run(headers, event)
        except Exception as error:  # noqa: BLE001 - of a signal handler of the function, between its code and ours
            outcome = outcome_of_error(error, whole_for=whole_of(headers))
        match outcome:
            case Succeeded(payload):
                client.post(f"invocation/{request_id}/response", payload)
            case FunctionError():
                client.post(f"invocation/{request_id}/error", error_body(outcome, request_id))
            case _:
                raise AssertionError(outcome)


def main() -> None:
    """Runs until the daemon ends this process or has ended itself."""
    parser = argparse.ArgumentParser()
    parser.add_argument("function")
    parser.add_argument("handler")
    parser.add_argument("--log-level", default="INFO")
    parser.add_argument("--folder", default=str(start_folder()))
    parser.add_argument("--reload", action="store_true")
    given = parser.parse_args()
    end_with_daemon()
    client = RuntimeClient(os.environ.pop(API))
    lines = _Lines()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(lines)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(given.log_level)
    loop = _new_loop()
    _set_current_loop(loop)
    give_way(given.handler.partition(":")[0])
    code = OwnCode(given.folder, client) if given.reload else None
    try:
        with attributed_to(given.function):
            found = load_handler(given.function, given.handler, folder=given.folder)
    except InvalidConfiguration as error:
        if code is not None:
            code.report()
        client.post("init/error", error_body(FunctionError(WRONG, error.problems[0])))
        raise SystemExit(1) from error
    calls = Calls(
        found,
        loop,
        function=given.function,
        memory_mb=int(os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]),
        stream=os.environ["AWS_LAMBDA_LOG_STREAM_NAME"],
        version=os.environ["AWS_LAMBDA_FUNCTION_VERSION"],
    )
    try:
        serve(client, calls, lines, code)
    except DaemonGone:
        raise SystemExit(0) from None


def _set_trace(header: str) -> None:
    """Gives the handler the trace header of its call, where AWS's SDKs look for it."""
    if header:
        os.environ[TRACE_VARIABLE] = header
    else:
        os.environ.pop(TRACE_VARIABLE, None)
