"""The process invoker: processes that die, refuse to start, hang, or speak the Runtime API wrongly."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from adapters.invokers.function_processes.process_settings import ProcessSettings, environment
from adapters.invokers.process import ProcessInvoker, open_process
from poller.domain.errors import InvalidConfiguration
from poller.domain.invocations import FunctionError, Outcome, Succeeded, TimedOut, Unreachable
from poller.domain.plan import FunctionPlan
from poller.domain.records import MappingId
from poller.runtime.invoking import Function
from poller.testing.invoker import ARN, REQUEST_ID, invocation
from tests.contracts import invokers
from tests.runtime.fakes import Seen

RUNTIME = """
import json, os, signal, sys, time, urllib.error, urllib.request
API = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime"
def ask(path, body=None, headers={}):
    try:
        with urllib.request.urlopen(urllib.request.Request(API + path, body, headers)) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as answer:
        return answer.status, dict(answer.headers), answer.read()
def taken():
    _, headers, body = ask("/invocation/next")
    return {name.lower(): value for name, value in headers.items()}, json.loads(body)
def answered(headers, value):
    return ask(f"/invocation/{headers['lambda-runtime-aws-request-id']}/response", json.dumps(value).encode())
"""
"""A runtime of a few lines; tests add what it does."""


@asynccontextmanager
async def running(program: str, **settings: Any) -> AsyncIterator[ProcessInvoker]:
    """An invoker whose processes run a Python program after RUNTIME."""
    command = [sys.executable, "-c", RUNTIME + program]
    given = ProcessSettings.model_validate({"function": "orders", "command": command, **settings})
    async with invokers.environment(region="eu-west-1") as env, open_process(given, env) as invoker:
        yield invoker


async def called(program: str, *events: Any, timeout_s: float = 10.0, **settings: Any) -> list[Outcome]:
    """The outcomes of calls, one after another."""
    async with running(program, **settings) as invoker:
        return [await invoker.invoke(invocation(event, timeout_s=timeout_s)) for event in events]


def gone(pid: int) -> bool:
    """Whether a process has ended, within five seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


ECHO = """
while True:
    headers, event = taken()
    answered(headers, [os.getpid(), headers, dict(os.environ), event])
"""


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_process_gets_what_lambda_gives_and_serves_many_calls(runner: Any) -> None:
    first, second = runner(called(ECHO, {"n": 1}, {"n": 2}, env={"GREETING": "hello"}, handler="app.act"))
    assert isinstance(first, Succeeded)
    assert isinstance(second, Succeeded)
    pid, headers, variables, event = json.loads(first.payload)
    assert event == {"n": 1}
    assert json.loads(second.payload)[0] == pid
    assert headers["lambda-runtime-aws-request-id"] == REQUEST_ID
    assert headers["lambda-runtime-invoked-function-arn"] == ARN
    assert 8_000 < int(headers["lambda-runtime-deadline-ms"]) - time.time() * 1000 + 2_000 < 14_000
    expected = {
        "AWS_LAMBDA_FUNCTION_NAME": "orders",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_REGION": "eu-west-1",
        "_HANDLER": "app.act",
        "LAMBDA_TASK_ROOT": os.getcwd(),
        "GREETING": "hello",
    }
    assert expected.items() <= variables.items()
    assert gone(pid)


def test_the_daemons_own_variables_stay_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLLER_API__TOKEN", "hidden")
    given = ProcessSettings(function="orders", command=["x"])
    assert "hidden" not in environment(given, "127.0.0.1:1", region=None).values()


def test_a_process_that_dies_at_work_is_a_function_error_and_is_replaced() -> None:
    program = """
headers, event = taken()
if event["die"]:
    os._exit(7)
answered(headers, "alive")
taken()
"""
    died, after, killed = asyncio.run(called(program, {"die": 1}, {"die": 0}, {"die": 1}))
    assert died == FunctionError(
        "Runtime.ExitError", "Runtime exited without providing a reason: exit status 7"
    )
    assert after == Succeeded(b'"alive"')
    assert isinstance(killed, FunctionError)


def test_a_process_that_a_signal_ends_says_which() -> None:
    [outcome] = asyncio.run(called("taken(); os.kill(os.getpid(), signal.SIGSEGV)", {}))
    assert outcome == FunctionError(
        "Runtime.ExitError", "Runtime exited without providing a reason: signal 11"
    )


def test_a_process_that_ends_between_calls_is_replaced_without_a_failure() -> None:
    program = "headers, event = taken(); answered(headers, os.getpid())"
    outcomes = asyncio.run(called(program, {}, {}, {}))
    assert [type(outcome) for outcome in outcomes] == [Succeeded] * 3
    assert len({outcome.payload for outcome in outcomes if isinstance(outcome, Succeeded)}) == 3


def test_a_time_out_kills_the_process_and_its_children(tmp_path: Path) -> None:
    program = f"""
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
headers, event = taken()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
"""
    assert asyncio.run(called(program, {}, timeout_s=0.5)) == [TimedOut(0.5)]
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_a_process_that_does_not_start_is_unreachable_and_rests_longer_each_time() -> None:
    async def run() -> list[Outcome]:
        outcomes = []
        async with running("sys.exit(9)") as invoker:
            for _ in range(2):
                outcomes += [await invoker.invoke(invocation({})), await invoker.invoke(invocation({}))]
                await asyncio.sleep(0.5)
        return outcomes

    first, resting, second, longer = asyncio.run(run())
    assert isinstance(first, Unreachable)
    assert isinstance(second, Unreachable)
    assert "exit status 9" in first.reason
    assert "exit status 9" in second.reason
    assert isinstance(resting, Unreachable)
    assert isinstance(longer, Unreachable)
    assert 0.3 < (resting.retry_after_s or 0) <= 0.5 < (longer.retry_after_s or 0) <= 1.0


def test_an_error_while_starting_is_unreachable_with_what_it_says() -> None:
    program = """
ask("/init/error", b'{"errorType": "Runtime.ImportModuleError", "errorMessage": "no module app"}')
time.sleep(60)
"""
    [outcome] = asyncio.run(called(program, {}))
    assert isinstance(outcome, Unreachable)
    assert outcome.reason.endswith("Runtime.ImportModuleError: no module app")


def test_awslambdaric_without_its_handler_is_unreachable_with_what_it_says() -> None:
    async def run() -> Outcome:
        command = [sys.executable, "-m", "awslambdaric", "tests.adapters.nowhere.act"]
        given = ProcessSettings(function="orders", command=command)
        async with invokers.environment() as env, open_process(given, env) as invoker:
            return await invoker.invoke(invocation({}))

    outcome = asyncio.run(run())
    assert isinstance(outcome, Unreachable)
    assert "Runtime.ImportModuleError" in outcome.reason


def test_a_process_that_never_asks_for_work_is_unreachable() -> None:
    [outcome] = asyncio.run(called("time.sleep(60)", {}, init_timeout_s=0.3))
    assert outcome == Unreachable("the function's process did not start: it was not ready in 0.3 seconds")


def test_answers_to_nothing_and_early_questions_are_refused() -> None:
    program = """
headers, event = taken()
early = ask("/invocation/next")
stranger = ask("/invocation/another/response", b"1")
fault = ask("/invocation/another/error", b"not json")
answered(headers, [early[0], stranger[0], fault[0]])
taken()
"""
    assert asyncio.run(called(program, {})) == [Succeeded(b"[403, 400, 400]")]


def test_an_error_without_a_document_goes_by_its_header() -> None:
    program = """
headers, event = taken()
path = f"/invocation/{headers['lambda-runtime-aws-request-id']}/error"
ask(path, b"oops", {"Lambda-Runtime-Function-Error-Type": "Function.Odd"})
taken()
"""
    assert asyncio.run(called(program, {})) == [FunctionError("Function.Odd", "")]


def test_what_a_process_prints_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    program = "headers, event = taken(); print('printed', flush=True); answered(headers, 1); taken()"
    asyncio.run(called(program, {}))
    captured = capfd.readouterr()
    assert "printed" in captured.err
    assert captured.out == ""


def test_closing_ends_a_process_that_ignores_it(tmp_path: Path) -> None:
    program = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
headers, event = taken()
answered(headers, os.getpid())
while True: time.sleep(1)
"""
    [outcome] = asyncio.run(called(program, {}, stop_grace_s=0.2))
    assert isinstance(outcome, Succeeded)
    assert gone(int(outcome.payload))


def test_closing_asks_first(tmp_path: Path) -> None:
    path = tmp_path / "socket_by_netlink"
    program = f"""
def leave(*_):
    open({str(path)!r}, "w").write("yes")
    os._exit(0)
signal.signal(signal.SIGTERM, leave)
headers, event = taken()
answered(headers, 1)
while True: time.sleep(0.05)
"""
    asyncio.run(called(program, {}))
    assert path.read_text() == "yes"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"command": ["no-such-program"]},
            "functions.orders.command: no program 'no-such-program'; install it",
        ),
        ({"command": ["/no/such"]}, "functions.orders.command: no program '/no/such'"),
        (
            {"command": ["sh"], "cwd": "/no/such"},
            "functions.orders.cwd: '/no/such' is no directory; name one",
        ),
    ],
)
def test_a_wrong_command_is_refused_when_it_is_opened(given: dict[str, Any], words: str) -> None:
    async def run() -> None:
        settings = ProcessSettings.model_validate({"function": "orders", **given})
        async with invokers.environment() as env, open_process(settings, env):
            raise AssertionError("opened")

    with pytest.raises(InvalidConfiguration) as raised:
        asyncio.run(run())
    assert words in str(raised.value)


def test_the_engine_does_not_give_a_call_up_while_its_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poller.runtime.invoking.GUARD_S", 0.1)

    async def run() -> Outcome:
        async with running("time.sleep(1.5)\nanswered(taken()[0], 1)\ntime.sleep(60)") as invoker:
            function = Function(
                FunctionPlan(name="orders", invoker="process", timeout_s=0.5), invoker, Seen()
            )
            await function.slots.acquire()
            return await function.call(
                invocation({}, timeout_s=function.limit_s(ARN)), mapping=MappingId("m")
            )

    assert asyncio.run(run()) == Succeeded(b"1")
