"""Every expression of rules and dashboard, in a Prometheus that scrapes a real daemon under the demo's load."""

import asyncio
import json
import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.demo.daemon import journal_path
from adapters.demo.emulator import credentials
from adapters.demo.functions import JOURNAL, LIFE
from adapters.demo.load import load
from adapters.demo.processes import HOST, free_port, plain_environment, running
from adapters.demo.scenario import Scene, scene
from deploy.checks import demo, troubles
from deploy.checks.expressions import EMPTY, Expression, of_dashboard, of_rules, of_variables
from deploy.checks.rendering import ROOT

RULES = (ROOT / "deploy/prometheus/recording.yaml", ROOT / "deploy/prometheus/alerts.yaml")
BOARD = ROOT / "deploy/grafana/poller.json"
RECORDS, SEED = 800, 7
ANSWERS_S_MAX = 30.0
DATA_S_MAX = 60.0
"""Until the last expression has data: rates need two scrapes, recorded ones an evaluation."""
POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running Prometheus."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression returns now."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of the API; raises HTTPError for an expression that it does not take."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(
            f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10
        ) as answer:
            return json.load(answer)["data"]


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Server]:
    """A Prometheus that scrapes `target` every second and has the rules; ready to be asked."""
    program = shutil.which("prometheus")
    assert program, "prometheus is missing: install it (Debian: apt-get install prometheus)"
    port = free_port()
    (config := folder / "prometheus.yaml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "2s"},
                "rule_files": [str(path) for path in RULES],
                "scrape_configs": [{"job_name": "poller", "static_configs": [{"targets": [target]}]}],
            }
        )
    )
    options = {
        "config.file": config,
        "storage.tsdb.path": folder / "tsdb",
        "web.listen-address": f"{HOST}:{port}",
    }
    command = [program, *(f"--{name}={value}" for name, value in options.items())]
    with running("prometheus", command, plain_environment(), folder) as process:
        server = Server(f"http://{HOST}:{port}")
        asyncio.run(process.answers(f"{server.url}/-/ready", ANSWERS_S_MAX))
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prometheus that has scraped a daemon under the demo's load and with some trouble for a while."""
    folder = tmp_path_factory.mktemp("live")
    with asyncio.Runner() as runner:
        stage_of = scene(folder, load(RECORDS, SEED))
        stage = runner.run(stage_of.__aenter__())
        try:
            with daemon(runner, stage, folder) as target, prometheus(folder, target) as found:
                for items in stage.evidence.load.values():
                    runner.run(stage.writer().write(items))
                yield found
        finally:
            runner.run(stage_of.__aexit__(None, None, None))


@contextmanager
def daemon(runner: asyncio.Runner, stage: Scene, folder: Path) -> Iterator[str]:
    """A daemon with the demo's mappings and three in trouble; yields where it listens."""
    runner.run(troubles.prepare(stage, folder))
    listen = f"{HOST}:{free_port()}"
    document = demo.document(stage, listen=listen, store=folder / "state.db")
    document = troubles.troubled(document, runner.run(troubles.stream_arn(stage)))
    (config := folder / "poller.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    env = plain_environment() | credentials() | {JOURNAL: str(journal_path(folder)), LIFE: "1"}
    command = [str(ROOT / ".venv/bin/poller"), "run", "--config", str(config)]
    with running("daemon", command, env, folder) as process:
        runner.run(process.answers(f"http://{listen}/healthz", ANSWERS_S_MAX))
        yield listen


def expressions() -> list[Expression]:
    """All of them, rules first."""
    rules = [each for path in RULES for each in of_rules(yaml.safe_load(path.read_text()))]
    return [*rules, *of_dashboard(json.loads(BOARD.read_text()))]


@pytest.mark.parametrize("expression", expressions(), ids=lambda each: each.place)
def test_an_expression_returns_data(server: Server, expression: Expression) -> None:
    server.query(expression.written)
    if expression.place in EMPTY:
        assert not server.query(expression.data), "there is data: it is to be taken off the list"
        return
    deadline = time.monotonic() + DATA_S_MAX
    while not (found := server.query(expression.data)):
        assert time.monotonic() < deadline, f"{expression.place} returns nothing: {expression.data}"
        time.sleep(POLL_S)
    print(f"{expression.place}: {len(found)} series")


def test_values_are_there_to_choose_from(server: Server) -> None:
    board = json.loads(BOARD.read_text())
    found = {label: server.get("series", **{"match[]": series}) for series, label in of_variables(board)}
    assert found.keys() == {"namespace", "function"}
    assert {each["function"] for each in found["function"]} >= {"orders", "blocked"}
    assert found["namespace"]


def test_every_metric_of_the_expressions_is_scraped(server: Server) -> None:
    names = set(server.get("label/__name__/values"))
    wanted = {word for each in expressions() if each.place not in EMPTY for word in metrics(each.data)}
    assert wanted <= names


def metrics(expression: str) -> Iterator[str]:
    """The daemon's own metrics in an expression."""
    words = "".join(each if each.isalnum() or each in "_:" else " " for each in expression).split()
    return (word for word in words if word.startswith("poller_"))


def test_trouble_becomes_an_alert(server: Server) -> None:
    def alerts() -> set[str]:
        return {each["labels"]["alertname"] for each in server.get("alerts")["alerts"]}

    deadline = time.monotonic() + DATA_S_MAX
    while not (found := alerts()) >= {"PollerDestinationFailing", "PollerNobodyReads"}:
        assert time.monotonic() < deadline, f"only {found} are pending or firing"
        time.sleep(POLL_S)
    assert "PollerAbsent" not in found
