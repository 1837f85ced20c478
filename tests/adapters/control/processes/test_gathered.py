"""What the front answers for all processes of a daemon, over a real socket."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from adapters.control.server import inherited, listening, open_server
from adapters.control.settings import ServerSettings
from poller.config.field_types import Address
from poller.domain.records import WorkerId
from poller.domain.supervision.processes import ProcessAnswer, ProcessAnswers, ProcessQuestion, ProcessState
from poller.plugins import Environment
from poller.testing.telemetry_events import SetClock
from tests.adapters.control.serving import STATUS, Page, Running, Setting, View, serving

PAGE = b"# HELP a b\n# TYPE a gauge\na 1\n"
FINE: dict[str, Any] = {"alive": True, "ready": True, "problems": [], "notes": []}


def _running(index: int, **more: Any) -> ProcessState:
    return ProcessState(index=index, worker=WorkerId(f"w-{index}"), pid=100 + index, begun=True, **more)


@dataclass
class Others:
    """The other processes: their states, and what they answer. Process 0 is the front; None is no answer."""

    known: list[ProcessState] = field(default_factory=lambda: [_running(0), _running(1)])
    health: dict[int, dict[str, Any]] = field(default_factory=lambda: {1: FINE})
    pages: dict[int, bytes] = field(default_factory=lambda: {1: b"# HELP a b\n# TYPE a gauge\na 2\n"})
    answers: ProcessAnswers = field(default_factory=dict)
    index: int = 0
    is_front: asyncio.Event = field(default_factory=asyncio.Event)

    def states(self) -> Sequence[ProcessState]:
        return self.known

    def answer_with(self, answers: ProcessAnswers) -> None:
        self.answers = answers

    async def ask(self, question: ProcessQuestion) -> Sequence[ProcessAnswer]:
        if question is ProcessQuestion.HEALTH:
            return [ProcessAnswer(index, json.dumps(body).encode()) for index, body in self.health.items()]
        return [ProcessAnswer(index, page) for index, page in self.pages.items()]

    async def front(self) -> None:
        await self.is_front.wait()


def _asked(others: Others, *paths: str, view: View | None = None) -> list[tuple[int, Any]]:
    others.is_front.set()

    async def use(running: Running) -> list[tuple[int, Any]]:
        return [(await running.get(path))[:2] for path in paths]

    return serving(use, Setting(view=view or View(), expositions=(Page(PAGE),), processes=others))


def test_probes_are_answered_for_all_processes() -> None:
    body = {**FINE, "problems": [], "notes": []}
    assert _asked(Others(), "/healthz", "/readyz") == [(200, body), (200, body)]


def test_a_process_that_is_not_ready_makes_the_daemon_not_ready_and_is_named() -> None:
    lacking = {**FINE, "ready": False, "problems": ["not everything is open yet"]}
    (health, ready) = _asked(Others(health={1: lacking}), "/healthz", "/readyz")
    assert health[0] == 200
    assert ready[0] == 503
    assert ready[1]["problems"] == ["process 1: not everything is open yet"]


def test_a_process_that_does_not_answer_is_not_alive() -> None:
    (health, ready) = _asked(Others(health={}), "/healthz", "/readyz")
    assert (health[0], ready[0]) == (503, 503)
    assert health[1]["problems"] == ["process 1: does not answer: its event loop is blocked"]


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (replace(_running(1), begun=False), "process 1: is starting"),
        (
            replace(_running(1), begun=False, pid=None, ended="it has ended (SIGKILL)"),
            "process 1: it has ended (SIGKILL)",
        ),
    ],
)
def test_a_process_that_starts_or_is_started_again_is_not_ready_and_no_reason_to_restart_the_daemon(
    state: ProcessState, problem: str
) -> None:
    (health, ready) = _asked(Others(known=[_running(0), state], health={}), "/healthz", "/readyz")
    assert (health[0], ready[0]) == (200, 503)
    assert ready[1]["problems"] == [problem]


def test_a_note_of_all_processes_is_told_once_and_a_note_of_one_with_its_process() -> None:
    own = View(replace(STATUS, notes=("the same",)))
    others = Others(health={1: {**FINE, "notes": ["the same", "its own"]}})
    ((_, body),) = _asked(others, "/readyz", view=own)
    assert body["notes"] == ["the same", "process 1: its own"]


def test_a_process_that_is_not_the_front_answers_the_front_as_it_would_answer_probes() -> None:
    others = Others()

    async def use(_: Running) -> tuple[bytes, bytes]:
        return (
            await others.answers[ProcessQuestion.HEALTH](),
            await others.answers[ProcessQuestion.METRICS](),
        )

    others.is_front.set()
    health, page = serving(use, Setting(expositions=(Page(PAGE),), processes=others))
    assert json.loads(health) == {"alive": True, "ready": True, "problems": [], "notes": []}
    assert page.startswith(PAGE)


def test_metrics_of_all_processes_are_one_page() -> None:
    ((status, page),) = _asked(Others(), "/metrics")
    lines = page.decode().splitlines()
    assert status == 200
    assert [line for line in lines if line.startswith("a{")] == ['a{process="0"} 1', 'a{process="1"} 2']
    assert 'poller_process_up{process="1"} 1' in lines


def test_a_process_without_an_answer_is_missing_in_the_metrics_and_shown_as_down() -> None:
    ((_, page),) = _asked(Others(pages={}), "/metrics")
    lines = page.decode().splitlines()
    assert [line for line in lines if line.startswith("a{")] == ['a{process="0"} 1']
    assert 'poller_process_up{process="1"} 0' in lines


def test_a_server_on_an_inherited_socket_answers_only_when_its_process_is_the_front() -> None:
    async def main() -> tuple[bool, bytes]:
        sock = await listening(Address("127.0.0.1", 0))
        host, port = sock.getsockname()[:2]
        others = Others()
        settings = ServerSettings(listen=f"{host}:{port}", listening=sock.dup().detach())
        async with open_server(settings, Environment(clock=SetClock())) as server, asyncio.timeout(30):
            assert server.address == Address(host, port)
            async with asyncio.TaskGroup() as tasks:
                served = tasks.create_task(server.serve(View(), (), processes=others), name="serve")
                # The system accepts the connection; nobody answers it yet.
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
                asking = tasks.create_task(reader.read(), name="answer")
                done, _ = await asyncio.wait([asking], timeout=0.3)
                others.is_front.set()
                answer = await asking
                writer.close()
                served.cancel()
        sock.close()
        return bool(done), answer

    early, answer = asyncio.run(main())
    assert not early
    assert answer.startswith(b"HTTP/1.0 200")


def test_an_inherited_socket_does_not_block_the_loop() -> None:
    async def main() -> bool:
        with await listening(Address("127.0.0.1", 0)) as sock:
            sock.setblocking(True)
            with inherited(sock.dup().detach()) as ours:
                return ours.getblocking()

    assert not asyncio.run(main())
