"""A supervisor and its processes, as real processes: one port, ends of processes, wrong configurations, the supervisor's own end."""

import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from poller.rules.supervision.restarts import STARTS_MAX
from tests.acceptance.daemons import alive, wait_until
from tests.acceptance.processes.supervised import END_S_MAX, READY_S_MAX, Supervised, supervised

pytestmark = pytest.mark.acceptance

ARN = "arn:aws:sqs:eu-west-1:000000000000:orders"


def _mapping(handler: str) -> dict[str, Any]:
    return {
        "endpoint_url": "http://127.0.0.1:9",
        "functions": {"orders": {"invoker": "python", "handler": handler}},
        "mappings": [{"FunctionName": "orders", "EventSourceArn": ARN}],
    }


def test_one_port_answers_for_all_processes_also_after_one_of_them_was_killed(tmp_path: Path) -> None:
    with supervised(tmp_path) as daemon:
        daemon.ready()
        assert daemon.metric("poller_process_up") == {"0": 1, "1": 1}
        assert daemon.metric("process_resident_memory_bytes").keys() == {"0", "1"}
        assert daemon.metric("poller_process_restarts_total") == {"0": 0, "1": 0}
        _started_again(daemon)
        daemon.running.signal(signal.SIGTERM)
        assert daemon.ended() == 0
    ends = daemon.log("daemon_ended")
    assert {(each["process"], each["exit_status"]) for each in ends} == {(0, 0), (1, 0)}


def _started_again(daemon: Supervised) -> None:
    """Kills the process that serves the port."""
    front, other = daemon.processes()
    os.kill(front, signal.SIGKILL)
    daemon.until(lambda: daemon.log("process_ended"), "the end is logged", within_s=10)
    (line,) = daemon.log("process_ended")
    assert (line["level"], line["restarts"]) == ("warning", 1)
    assert line["message"].startswith("process 0: it has ended (SIGKILL) after ")
    # The other process has the port now, and says what is missing.
    daemon.until(lambda: daemon.get("/healthz")[0] == 200, "the port answers", within_s=10)
    if (body := daemon.probe())["problems"]:
        assert any(each.startswith("process 0: ") for each in body["problems"])
    daemon.ready()
    assert other in daemon.processes()
    assert front not in daemon.processes()
    assert daemon.metric("poller_process_restarts_total") == {"0": 1, "1": 0}
    assert daemon.metric("poller_process_up") == {"0": 1, "1": 1}


def test_signals_to_all_processes_at_once_drain_them_as_one_signal_does(tmp_path: Path) -> None:
    """A terminal and some service managers send a signal to every process, and the supervisor sends another one."""
    with supervised(tmp_path) as daemon:
        daemon.ready()
        os.killpg(daemon.running.pid, signal.SIGINT)
        assert daemon.ended() == 0
    assert [each["exit_status"] for each in daemon.log("daemon_ended")] == [0, 0]


def test_a_signal_while_the_processes_start_ends_them_with_status_0(tmp_path: Path) -> None:
    with supervised(tmp_path) as daemon:
        daemon.until(daemon.processes, "the first process")
        pids = daemon.processes()
        daemon.running.signal(signal.SIGTERM)
        assert daemon.ended() == 0
    assert not any(map(alive, pids))


def test_a_wrong_configuration_is_told_once(tmp_path: Path) -> None:
    with supervised(tmp_path, **_mapping("no_module:take")) as daemon:
        assert daemon.ended(within_s=READY_S_MAX) == 2
    text = daemon.running.log.read_text()
    assert text.count("no_module:take") == 1, text


def test_an_error_that_only_a_started_process_can_find_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('found at the import')\n")
    with supervised(tmp_path, **_mapping("broken:take")) as daemon:
        assert daemon.ended(within_s=READY_S_MAX) == 2
    told = [line for line in daemon.running.log.read_text().splitlines() if line.startswith("poller: ")]
    assert len([line for line in told if "found at the import" in line]) == 1, told
    assert {each["process"] for each in daemon.log("daemon_starting")} <= {0}


@pytest.mark.timeout(400)
def test_processes_that_end_at_once_again_and_again_wait_longer_each_time_until_the_daemon_gives_up(
    tmp_path: Path,
) -> None:
    (tmp_path / "ending.py").write_text("import os\nos._exit(7)\n")
    with supervised(tmp_path, **_mapping("ending:take")) as daemon:
        assert daemon.ended(within_s=300) == 1
    lines = daemon.log("process_ended")
    assert [each["restarts"] for each in lines] == list(range(1, STARTS_MAX))
    assert all("exit status 7" in each["message"] for each in lines)
    waits = [float(each["message"].partition("again in ")[2].partition(" s")[0]) for each in lines]
    assert all(low <= wait <= 2 * low for wait, low in zip(waits, (0.5, 1, 2, 4), strict=True)), waits
    assert all(before <= after for before, after in pairwise(waits))
    (given_up,) = daemon.log("processes_given_up")
    assert given_up["message"].startswith(f"no process could begin its work: {STARTS_MAX} have ended")


def test_processes_end_by_themselves_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    with supervised(tmp_path) as daemon:
        daemon.ready()
        pids = daemon.processes()
        daemon.running.signal(signal.SIGKILL)
        daemon.ended()
        wait_until(lambda: not any(map(alive, pids)), within_s=END_S_MAX)
    assert [each["exit_status"] for each in daemon.log("daemon_ended")] == [0, 0]


def test_a_process_that_stands_still_makes_the_daemon_not_alive(tmp_path: Path) -> None:
    with supervised(tmp_path) as daemon:
        daemon.ready()
        _, still = daemon.processes()
        os.kill(still, signal.SIGSTOP)
        try:
            daemon.until(lambda: daemon.get("/healthz")[0] == 503, "not alive", within_s=20)
            assert daemon.probe("/healthz")["problems"] == [
                "process 1: does not answer: its event loop is blocked"
            ]
            assert daemon.metric("poller_process_up") == {"0": 1, "1": 0}
        finally:
            os.kill(still, signal.SIGCONT)
        daemon.until(lambda: daemon.get("/healthz")[0] == 200, "alive again", within_s=20)


@pytest.mark.parametrize(
    ("members", "options", "text"),
    [
        ({"store": "memory://"}, (), "store: memory:// is the memory of one process"),
        ({"tuning": {"memory_mb": 100}}, (), "tuning.memory_mb: 100 is for all 2 processes together"),
        ({"worker": "w" * 127}, (), "worker: too long for --processes"),
        ({}, ("--as-process", "{}"), "--as-process is for poller run itself"),
    ],
)
def test_what_several_processes_cannot_share_is_refused_once(
    members: dict[str, Any], options: tuple[str, ...], text: str, tmp_path: Path
) -> None:
    with supervised(tmp_path, *options, **members) as daemon:
        assert daemon.ended(within_s=READY_S_MAX) == 2
    # A long line is folded for people.
    told = " ".join(daemon.running.log.read_text().split())
    assert told.count(text) == 1, told


def test_a_port_in_use_is_told_once(tmp_path: Path) -> None:
    with supervised(tmp_path) as daemon:
        daemon.until(lambda: daemon.get("/healthz")[0], "the port answers")
        other = tmp_path / "other"
        other.mkdir()
        with supervised(other, listen=f"127.0.0.1:{daemon.port}") as second:
            assert second.ended(within_s=READY_S_MAX) == 2
    assert second.running.log.read_text().count("in use") == 1


def test_each_process_holds_its_share_of_the_memory(tmp_path: Path) -> None:
    with supervised(tmp_path, **_mapping("json:loads"), tuning={"memory_mb": 300}) as daemon:
        daemon.until(lambda: len(daemon.metric("poller_memory_limit_bytes")) == 2, "both hold records")
        assert daemon.metric("poller_memory_limit_bytes") == {"0": 150 * 2**20, "1": 150 * 2**20}
