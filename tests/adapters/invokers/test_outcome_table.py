"""The tables of outcomes by invoker and cause in the documentation: each cell is made for real, and is what the engine reports."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from adapters.demo.processes import free_port
from adapters.invokers.lambda_api import open_lambda
from adapters.invokers.lambda_calls.settings import LambdaSettings
from poller.clock import LoopClock
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import EncodedEvent, Ended
from poller.domain.plan import FunctionPlan
from poller.domain.telemetry.mapping_events import InvocationFinished
from poller.ports import Invoker
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, ResponseReading, Verdict
from poller.runtime.invoking import BatchInvoker, Function, InvocationBatch
from poller.runtime.stopping import Stop
from poller.testing.invoker import ARN, REQUEST_ID
from tests.adapters.invokers.functions.plain import act_on_loop
from tests.contracts import invokers
from tests.runtime.fakes import Seen, mapping

type Opener = Callable[..., AbstractAsyncContextManager[Invoker]]
type Column = dict[str, str]

PAGE = (Path(__file__).parents[3] / "docs/use/functions.md").read_text()
IDS = ("m-1", "m-2")
EVENT_BYTES_MAX = 6 * 1024 * 1024
LIMIT_S = 20.0
SHORT_S = 1.0
"""The limit of the call that is late. A function that is there takes it much sooner."""
AT_START = "refused at the start"

RETURNS, REPORTS, MALFORMED = "it returns", "it reports records that failed", "its report is malformed"
NO_JSON, RAISES = "it returns what is no JSON", "it raises `ValueError`"
QUITS, KILLED = "it calls `sys.exit`", "it is killed: `os._exit`, a signal, out of memory"
LARGE, LATE = "it answers more than 6 MB", "its time is over"
NO_HANDLER = "its module cannot be imported, or has no handler"
NO_PROGRAM = "there is no such program, or nothing listens"
MANY, OVERSIZED = "there are more calls at once than it has places", "the event has more than 6 MB"
NO_ANSWER, REDIRECT = "a connection that ends without an answer", "a redirect"
DOES = {
    RETURNS: "nothing",
    REPORTS: "report",
    MALFORMED: "malformed",
    NO_JSON: "set",
    RAISES: "fail",
    QUITS: "quit",
    KILLED: "exit",
    LARGE: "huge",
}
"""What makes the function do it."""
STATUSES = {REDIRECT: 302, **{str(status): status for status in (400, 403, 404, 429, 500, 502, 503, 504)}}


def table(head: str) -> list[dict[str, str]]:
    """The rows of the page's tables whose head begins with these columns."""
    found, names = [], list[str]()
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith(head):
            names = cells
        elif not line.startswith("|"):
            names = []
        elif names and not set(line) <= set("|-"):
            found.append(dict(zip(names, cells, strict=True)))
    return found


def column(name: str) -> Column:
    """What the page says of one invoker."""
    rows = [*table("| cause | python |"), *table("| cause | http |")]
    return {row["cause"]: row[name] for row in rows if name in row}


async def ended(invoker: Invoker, do: str, *, limit_s: float = LIMIT_S, pad: int = 0, **more: Any) -> str:
    """How a batch ends whose event makes the function do this, as a mapping that reads reports tells it."""
    seen = Seen()
    event = {"do": do, "Records": [{"messageId": each} for each in IDS], "pad": "x" * pad, **more}
    function = Function(FunctionPlan(name="orders", invoker="any", timeout_s=limit_s), invoker, seen)
    batch = InvocationBatch(
        event=EncodedEvent(json.dumps(event).encode()), identifiers=IDS, request_id=REQUEST_ID, attempt=1
    )
    calls = BatchInvoker(
        function,
        mapping(function_arn=ARN),
        ResponseReading(report_failures=True),
        clock=LoopClock(),
        observer=seen,
    )
    verdict = await calls.invoke_in_slot(batch, Stop())
    (finished,) = seen.of(InvocationFinished)
    assert verdict is not None
    assert uses_up_a_retry(verdict) == RETRIES[word(finished.ended)]
    return word(finished.ended) + (f" `{finished.error_type}`" if finished.error_type else "")


def word(how: Ended) -> str:
    return how.value.replace("_", " ")


def uses_up_a_retry(verdict: Verdict) -> str:
    match verdict:
        case Rejected() | Partial():
            return "yes"
        case Accepted() | Deferred():
            return "no"


RETRIES = {row["ended"]: row["uses up a retry"] for row in table("| ended | uses up a retry |")}


async def opened(opener: Opener, make: Callable[[Invoker], Awaitable[str]], **settings: Any) -> str:
    """What `make` finds with an invoker of these settings; AT_START if they are refused."""
    try:
        async with opener(**settings) as invoker:
            return await make(invoker)
    except InvalidConfiguration:
        return AT_START


async def done(invoker: Invoker, *, but: tuple[str, ...] = ()) -> Column:
    """The causes that one open invoker can have, without these."""
    found = {cause: await ended(invoker, do, text="no") for cause, do in DOES.items() if cause not in but}
    # A process may have to start first, which takes none of the call's time.
    await ended(invoker, "nothing")
    found[LATE] = await ended(invoker, "sleep", s=3.0, limit_s=SHORT_S)
    found[OVERSIZED] = await ended(invoker, "nothing", pad=EVENT_BYTES_MAX)
    return found


async def beyond_the_places(invoker: Invoker) -> str:
    """How the second of two calls ends that begin together."""
    async with asyncio.TaskGroup() as tasks:
        both = [tasks.create_task(ended(invoker, "sleep", s=0.5)) for _ in range(2)]
    return both[1].result()


def without_handler(opener: Opener, **settings: Any) -> Awaitable[str]:
    return opened(opener, lambda invoker: ended(invoker, "nothing"), **settings)


async def end_of_daemon() -> str:
    """What becomes of a process in which the function ends the process."""
    program = (
        "import asyncio\n"
        "from poller.testing.invoker import call\n"
        "from tests.contracts.invokers import python_in_threads\n"
        "async def main():\n"
        "    async with python_in_threads() as invoker:\n"
        "        await call(invoker, 'exit')\n"
        "asyncio.run(main())\n"
    )
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await daemon.wait() == 3
    return "the daemon ends"


async def of_python() -> Column:
    opener = invokers.python_in_threads
    async with opener() as invoker:
        found = await done(invoker, but=(KILLED,))
    return found | {
        KILLED: await end_of_daemon(),
        NO_HANDLER: await without_handler(opener, handler="nowhere.at_all:handler"),
        MANY: await opened(opener, beyond_the_places, workers=1),
    }


async def of_python_in_processes() -> Column:
    opener = invokers.python_in_processes
    async with opener() as invoker:
        found = await done(invoker)
    return found | {
        NO_HANDLER: await without_handler(opener, handler="nowhere.at_all:handler"),
        MANY: await opened(opener, beyond_the_places, processes=1),
    }


async def of_process() -> Column:
    opener = invokers.in_processes
    async with opener() as invoker:
        found = await done(invoker)
    no_handler = [sys.executable, "-m", "awslambdaric", "nowhere.handler"]
    return found | {
        NO_HANDLER: await without_handler(opener, command=no_handler),
        NO_PROGRAM: await without_handler(opener, command=["no-such-program"]),
        MANY: await opened(opener, beyond_the_places, processes=1),
    }


FATAL = """
import http.server, os
class Fatal(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        os._exit(1)
server = http.server.HTTPServer(("127.0.0.1", 0), Fatal)
print(server.server_port, flush=True)
server.serve_forever()
"""
"""A server whose function ends the process."""


@asynccontextmanager
async def fatal_server() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FATAL, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def behind_url(request: web.Request) -> web.StreamResponse:
    """Answers as a runtime interface emulator, or with the status that the event names."""
    event = await request.json()
    match event["do"]:
        case "status":
            return web.Response(status=event["status"], headers={"Location": "/elsewhere"})
        case "hang up":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        case "set":
            return web.Response(text="{1, 2}")
    return await invokers.emulated(request)


async def of_http() -> Column:
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/", behind_url)
    async with invokers.served(app) as url, invokers.behind_url(url=url) as invoker:
        found = await done(invoker, but=(QUITS, KILLED))
        for cause, status in STATUSES.items():
            found[cause] = await ended(invoker, "status", status=status)
        found[NO_ANSWER] = await ended(invoker, "hang up")
    async with fatal_server() as url, invokers.behind_url(url=url) as invoker:
        found[KILLED] = await ended(invoker, "nothing")
    async with invokers.behind_url(url=f"http://127.0.0.1:{free_port()}") as invoker:
        found[NO_PROGRAM] = await ended(invoker, "nothing")
    return found


ERROR_TYPES = {
    "set": "Runtime.MarshalError",
    "fail": "ValueError",
    "quit": "Runtime.ExitError",
    "exit": "Runtime.ExitError",
    "huge": "Function.ResponseSizeTooLarge",
    "sleep": "Sandbox.Timedout",
    "import": "Runtime.ImportModuleError",
}
"""How Lambda itself names what its functions do."""
CODES: Mapping[int, str] = {
    400: "InvalidParameterValueException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    429: "TooManyRequestsException",
    500: "ServiceException",
    502: "EC2UnexpectedException",
}


async def on_lambda(request: web.Request) -> web.StreamResponse:
    """Answers as Lambda does."""
    event = await request.json()
    do = event["do"]
    if do in ERROR_TYPES:
        document = {"errorType": ERROR_TYPES[do], "errorMessage": "no"}
        return web.json_response(document, headers={"X-Amz-Function-Error": "Unhandled"})
    if do == "status":
        code = CODES.get(event["status"], HTTPStatus(event["status"]).phrase.replace(" ", ""))
        headers = {"x-amzn-errortype": code, "Location": "/elsewhere"}
        return web.json_response({"message": "no"}, status=event["status"], headers=headers)
    if do == "hang up":
        assert request.transport is not None
        request.transport.abort()
    return web.json_response(await act_on_loop(event, None) if do != "hang up" else None)


async def of_lambda(monkeypatch: pytest.MonkeyPatch) -> Column:
    monkeypatch.setattr(invokers, "lambda_service", on_lambda)
    async with invokers.on_lambda() as invoker:
        found = await done(invoker)
        found[NO_HANDLER] = await ended(invoker, "import")
        for cause, status in STATUSES.items():
            found[cause] = await ended(invoker, "status", status=status)
        found[NO_ANSWER] = await ended(invoker, "hang up")
        found[MANY] = found["429"]
    nowhere = {"lambda": f"http://127.0.0.1:{free_port()}"}
    async with (
        invokers.environment(endpoint_urls=nowhere) as env,
        open_lambda(LambdaSettings(function="orders"), env) as invoker,
    ):
        found[NO_PROGRAM] = await ended(invoker, "nothing")
    return found


@pytest.fixture(autouse=True)
def credentials(account: str) -> None:
    """Credentials that no service checks."""


COLUMNS: dict[str, Callable[[pytest.MonkeyPatch], Awaitable[Column]]] = {
    "python": lambda _: of_python(),
    "isolation: process": lambda _: of_python_in_processes(),
    "process": lambda _: of_process(),
    "http": lambda _: of_http(),
    "lambda": of_lambda,
}


@pytest.mark.parametrize("name", COLUMNS)
def test_each_outcome_is_the_one_that_the_page_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> Column:
        return await COLUMNS[name](monkeypatch)

    said, found = column(name), asyncio.run(run())
    impossible = {cause: cell for cause, cell in said.items() if cell.startswith("–")}
    assert all(re.fullmatch(r"– \(.+\)", cell) for cell in impossible.values()), "a reason is missing"
    assert found == {cause: cell for cause, cell in said.items() if cause not in impossible}


def test_the_page_names_every_way_in_which_a_call_ends() -> None:
    assert set(RETRIES) == {word(how) for how in Ended}
    assert set(COLUMNS) == set(table("| cause | python |")[0]) - {"cause"}
