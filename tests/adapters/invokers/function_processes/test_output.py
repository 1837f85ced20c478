"""What function processes write: lines of the function log at their level, with the id of the call, whatever they write."""

import asyncio
import base64
import json
import logging
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from adapters.invokers.function_processes import output
from adapters.invokers.function_processes.output import (
    BYTES_PER_SECOND_MAX,
    LINES_PER_SECOND_MAX,
    ParsedLine,
    parse_line,
)
from adapters.invokers.function_processes.process_settings import ProcessSettings
from adapters.invokers.process import open_process
from adapters.invokers.python import PythonSettings, open_python
from poller.domain.invocations import EncodedEvent, FunctionError, Invocation, Outcome, Succeeded
from poller.output.function_log import LINE_CHARS_MAX, FunctionLine, FunctionLog
from poller.testing.invoker import ARN
from tests.adapters.invokers.function_processes.test_process_invoker import RUNTIME
from tests.bounds.loop_steps import longest_step
from tests.contracts.invokers import environment
from tests.hostile_texts import HOSTILE

STEP_S = 0.15
"""CPU time; steps take 20 to 80 ms, which depends on what else runs on the machine."""
LOOKS = 3
"""A step that is too long is measured again: what is really long stays so."""
on_both_loops = pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@dataclass
class Kept:
    """The lines that came."""

    lines: list[FunctionLine] = field(default_factory=list)
    more: int = 0

    def line(self, line: FunctionLine) -> None:
        self.lines.append(line)

    def dropped(self, function: str, lines: int) -> None:
        self.more += lines


def call(event: Any, request_id: str = "r-1") -> Invocation:
    return Invocation(ARN, request_id, EncodedEvent(json.dumps(event).encode()), 120.0)


async def ran(
    command: list[str], *calls: Invocation, together: bool = False, **settings: Any
) -> tuple[list[Outcome], Kept]:
    """The outcomes of calls, and the lines that came meanwhile."""
    kept = Kept()
    given = ProcessSettings.model_validate({"function": "orders", "command": command, **settings})
    async with environment(function_log=FunctionLog(kept)) as env, open_process(given, env) as invoker:
        if not together:
            return [await invoker.invoke(each) for each in calls], kept
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(invoker.invoke(each)) for each in calls]
    return [task.result() for task in running], kept


def wrote(program: str, *calls: Invocation, runner: Any = asyncio.run, **more: Any) -> Kept:
    """The lines of a process that runs `program` after RUNTIME."""
    kept: Kept
    outcomes, kept = runner(ran([sys.executable, "-c", RUNTIME + program], *calls, **more))
    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)
    return kept


TALK = """
print("starting", flush=True)
while True:
    headers, event = taken()
    for number in range(5):
        print(event, "prints", number, flush=True)
        print(event, "warns", number, file=sys.stderr)
    answered(headers, 1)
"""


@on_both_loops
def test_lines_have_the_id_of_the_call_that_wrote_them(runner: Any) -> None:
    calls = [call(f"e-{number}", f"r-{number}") for number in range(6)]
    kept = wrote(TALK, *calls, runner=runner)
    assert kept.lines[0] == FunctionLine("orders", "starting", logging.INFO, None)
    texts = [text for number in range(5) for text in (f"prints {number}", f"warns {number}")]
    expected = [(f"r-{number}", f"e-{number} {text}") for number in range(6) for text in texts]
    assert [(line.request_id, line.text) for line in kept.lines[1:]] == expected


def test_lines_of_processes_that_run_together_are_kept_apart() -> None:
    calls = [call(f"e-{number}", f"r-{number}") for number in range(6)]
    kept = wrote(TALK, *calls, together=True)
    said = [line for line in kept.lines if line.text != "starting"]
    assert len(said) == 60
    assert all(line.text.split()[0][2:] == (line.request_id or "")[2:] for line in said)


def aws(handler: str, *calls: Invocation) -> tuple[list[Outcome], Kept]:
    """What a function says that awslambdaric runs."""
    return asyncio.run(
        ran(
            [sys.executable, "-m", "awslambdaric", f"tests.adapters.invokers.functions.talking.{handler}"],
            *calls,
        )
    )


REQUEST_ID = "3e2f4c1a-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("way", "level"), [("warning", logging.WARNING), ("root", logging.ERROR), ("print", logging.INFO)]
)
def test_what_lambda_s_own_runtime_writes_is_reported_without_its_prefix(way: str, level: int) -> None:
    _, kept = aws("talk", call({"way": way, "text": "hello"}, REQUEST_ID))
    assert kept.lines == [FunctionLine("orders", "hello", level, REQUEST_ID)]


def test_an_error_of_lambda_s_own_runtime_is_one_line_and_an_outcome_with_its_stack() -> None:
    [outcome], kept = aws("deep", call({"depth": 1}, REQUEST_ID))
    assert isinstance(outcome, FunctionError)
    assert outcome.error_type == "LookupError"
    assert outcome.stack_trace[-1] == '    raise LookupError("at the bottom")'
    [line] = kept.lines
    assert line.text.startswith("[ERROR] LookupError: at the bottom\nTraceback (most recent call last):\n")
    assert (line.level, line.request_id) == (logging.ERROR, REQUEST_ID)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_whatever_a_process_writes_becomes_lines(text: str) -> None:
    data = base64.b64encode(text.encode("utf-8", "surrogatepass") + b"\xff\xfe\n").decode()
    program = """
import base64
headers, event = taken()
sys.stdout.buffer.write(base64.b64decode(event))
sys.stdout.flush()
answered(headers, 1)
headers, event = taken()
print("after", flush=True)
answered(headers, 1)
taken()
"""
    kept = wrote(program, call(data, "r-1"), call(2, "r-2"))
    assert kept.more > 0 or (kept.lines[-1].text, kept.lines[-1].request_id) == ("after", "r-2")
    json.dumps([line.text for line in kept.lines], ensure_ascii=False).encode()


def test_a_line_without_an_end_belongs_to_the_call_that_began_it() -> None:
    program = """
while True:
    headers, event = taken()
    print(event, end="", flush=True)
    answered(headers, 1)
"""
    kept = wrote(program, call("a", "r-1"), call("b", "r-2"))
    assert [(line.text, line.request_id) for line in kept.lines] == [("a", "r-1"), ("b", "r-2")]


@pytest.mark.parametrize("char", ["x", "\N{GRINNING FACE}"], ids=["one byte", "four bytes"])
def test_a_line_that_is_too_long_is_one_line_that_says_how_long_it_was(char: str) -> None:
    count = 1_000_000 // len(char.encode())
    program = f"""
part = {char!r} * ({count} // 100)
def end():
    headers, event = taken()
    answered(headers, 1)
headers, event = taken()
os.write(1, part.encode() * 100)
answered(headers, 1)
headers, event = taken()
print(part * 100, flush=True)
answered(headers, 1)
headers, event = taken()
for _ in range(100):
    os.write(1, part.encode())
answered(headers, 1)
end()
taken()
"""
    kept = wrote(program, *(call(number, f"r-{number}") for number in range(4)))
    assert {len(line.text) for line in kept.lines} == {LINE_CHARS_MAX}
    assert [line.text.lstrip(char) for line in kept.lines] == [f"… ({count:,} characters)"] * 3


def test_the_last_words_of_a_process_that_dies_are_reported() -> None:
    program = """
headers, event = taken()
print("[ERROR] out of memory", flush=True)
os._exit(3)
"""
    [outcome], kept = asyncio.run(ran([sys.executable, "-c", RUNTIME + program], call(1, "r-9")))
    assert isinstance(outcome, FunctionError)
    assert [(line.text, line.level, line.request_id) for line in kept.lines] == [
        ("[ERROR] out of memory", logging.ERROR, "r-9")
    ]


def test_what_a_process_says_that_does_not_start_is_reported() -> None:
    command = [sys.executable, "-c", "import sys; print('no licence', flush=True); sys.exit(4)"]
    _, kept = asyncio.run(ran(command, call(1)))
    assert [(line.text, line.request_id) for line in kept.lines] == [("no licence", None)]


@on_both_loops
def test_a_process_that_writes_without_end_is_counted_and_held_back(runner: Any) -> None:
    size = 2 * BYTES_PER_SECOND_MAX
    program = f"""
headers, event = taken()
for _ in range({size // 65536}):
    os.write(1, b"y\\n" * 32768)
answered(headers, 1)
taken()
"""
    turns: list[float] = []

    async def run() -> Kept:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(ran([sys.executable, "-c", RUNTIME + program], call(1)))
            while not running.done():
                began = time.monotonic()
                await asyncio.sleep(0.01)
                turns.append(time.monotonic() - began)
        return running.result()[1]

    began = time.monotonic()
    kept: Kept = runner(run())
    took_s = time.monotonic() - began
    assert took_s > 1
    assert len(kept.lines) + kept.more == size // 2
    assert len(kept.lines) <= LINES_PER_SECOND_MAX * (took_s + 2)
    assert sorted(turns)[len(turns) * 9 // 10] < 0.3


@pytest.mark.parametrize("unit", [":sig", "pw:", ":sig\0", "a:b@"])
@pytest.mark.parametrize("chars", [100, 16_000, 64_000], ids=["short", "long", "too long"])
def test_lines_of_nothing_but_names_of_credentials_never_hold_up_the_loop(unit: str, chars: int) -> None:
    line = f"{unit!r}.encode() * {chars // len(unit)}"
    count = 2_000_000 // chars
    program = f"""
headers, event = taken()
for _ in range({count}):
    os.write(1, {line} + b"\\n")
answered(headers, 1)
headers, event = taken()
answered(headers, 1)
taken()
"""
    for look in range(1, LOOKS + 1):
        with longest_step() as longest:
            kept = wrote(program, call(1, "r-1"), call(2, "r-2"))
        assert kept.lines
        assert len(kept.lines) + kept.more == count
        if longest.seconds < STEP_S:
            return
        assert look < LOOKS, f"{longest.seconds} {longest.what}"


@pytest.mark.parametrize("limit", ["TURN_CPU_S", "SECOND_CPU_S"])
def test_lines_beyond_their_share_of_the_processor_are_counted(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
headers, event = taken()
os.write(1, b"one\\ntwo\\nthree\\n")
answered(headers, 1)
taken()
"""
    monkeypatch.setattr(output, limit, 1e-5)
    kept = wrote(program, call(1))
    assert ([line.text for line in kept.lines], kept.more) == (["one"], 2)


NAMED = f"[INFO shop]\t2026-01-01T00:00:00.000Z\t{REQUEST_ID}\t"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f'{NAMED}\x1e{{"order": 17}}\x1etext', ParsedLine("text", 20, REQUEST_ID, "shop", {"order": 17})),
        (f"{NAMED}\x1e[1]\x1etext", ParsedLine("\x1e[1]\x1etext", 20, REQUEST_ID, "shop")),
        (f'{NAMED}\x1e{{"order"', ParsedLine('\x1e{"order"', 20, REQUEST_ID, "shop")),
        (f"{NAMED}\x1e{'[' * 60000}\x1e", ParsedLine(f"\x1e{'[' * 60000}\x1e", 20, REQUEST_ID, "shop")),
        ("plain", ParsedLine("plain", logging.INFO)),
        (
            f"[WARNING]\t2026-01-01T00:00:00.000Z\t{REQUEST_ID}\tcareful\tnow",
            ParsedLine("careful\tnow", logging.WARNING, REQUEST_ID),
        ),
        (f"2026-01-01T00:00:00.000Z\t{REQUEST_ID}\tERROR\tno", ParsedLine("no", logging.ERROR, REQUEST_ID)),
        ("[INFO]\t2026-01-01T00:00:00.000Z\t\tat import", ParsedLine("at import", logging.INFO)),
        ("[ERROR a]\t2026-01-01T00:00:00.000Z\t\tno", ParsedLine("no", logging.ERROR, logger="a")),
        ("2026-01-01T00:00:00.000Z\tundefined\tWARN\tno", ParsedLine("no", logging.WARNING)),
        ("[ERROR] ValueError: no", ParsedLine("[ERROR] ValueError: no", logging.ERROR)),
        ("[INFO]\tyesterday\tid\tx", ParsedLine("[INFO]\tyesterday\tid\tx", logging.INFO)),
        ('{"level": "WARN"}', ParsedLine('{"level": "WARN"}', logging.WARNING)),
    ],
)
def test_a_runtime_s_prefix_says_level_and_request(line: str, said: ParsedLine) -> None:
    assert parse_line(line) == said


WAYS = {
    "info": logging.INFO,
    "warning": logging.WARNING,
    "root": logging.ERROR,
    "arguments that do not fit": logging.INFO,
    "arguments without text": logging.INFO,
    "exception": logging.ERROR,
    "print": logging.INFO,
    "print in pieces": logging.INFO,
    "stdout bytes": logging.INFO,
    "stderr": logging.INFO,
    "thread": logging.INFO,
    "pool": logging.INFO,
    "context": logging.INFO,
}


def test_what_an_isolated_python_function_says_is_one_line_at_its_level() -> None:
    kept = Kept()
    handler = "tests.adapters.invokers.functions.talking:talk"
    settings = PythonSettings(function="orders", handler=handler, isolation="process", processes=1)

    async def run() -> None:
        async with environment(function_log=FunctionLog(kept)) as env, open_python(settings, env) as invoker:
            for place, way in enumerate(WAYS):
                given = {"way": way, "text": f"hello {way}"}
                await invoker.invoke(call(given, f"{REQUEST_ID[:-2]}{place:02d}"))

    asyncio.run(run())
    assert [(line.level, (line.request_id or "")[-2:]) for line in kept.lines] == [
        (level, f"{place:02d}") for place, level in enumerate(WAYS.values())
    ]
    assert all(f"hello {way}" in line.text for way, line in zip(WAYS, kept.lines, strict=True))
