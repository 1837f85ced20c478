"""The alert and recording rules: they speak of metrics that exist, and each has a runbook and a test."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.observers.metrics import Figures
from adapters.observers.prometheus import PrometheusObserver
from poller.testing.telemetry_events import SetClock

ROOT = Path(__file__).parents[3]
RULES = ROOT / "deploy" / "prometheus"
RUNBOOKS = ROOT / "docs" / "operate" / "runbooks"
METRIC = re.compile(r"(?<![\w:])poller_\w+")


def loaded(name: str) -> Any:
    return yaml.safe_load((RULES / name).read_text(encoding="utf-8"))


def rules(name: str) -> list[dict[str, Any]]:
    return [rule for group in loaded(name)["groups"] for rule in group["rules"]]


ALERTS = [pytest.param(rule, id=rule["alert"]) for rule in rules("alerts.yaml")]
ALL = [*ALERTS, *(pytest.param(rule, id=rule["record"]) for rule in rules("recording.yaml"))]


def shown() -> set[str]:
    """Names of all metrics, histograms' series included."""
    clock = SetClock()
    body, _ = PrometheusObserver(Figures(clock), clock).exposition()
    kinds = [line.split()[2:4] for line in body.decode().splitlines() if line.startswith("# TYPE")]
    parts = {
        f"{name}_{end}" for name, kind in kinds if kind == "histogram" for end in ("bucket", "sum", "count")
    }
    return {name for name, _ in kinds} | parts


@pytest.mark.parametrize("rule", ALL)
def test_a_rule_speaks_of_metrics_that_exist(rule: dict[str, Any]) -> None:
    recorded = {each["record"] for each in rules("recording.yaml")}
    named = set(METRIC.findall(rule["expr"]))
    records = set(re.findall(r"\w+:poller_\w+:\w+", rule["expr"]))
    assert named | records
    assert named <= shown()
    assert records <= recorded


@pytest.mark.parametrize("rule", ALERTS)
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    runbook = ROOT / rule["annotations"]["runbook_url"]
    assert rule["alert"] in runbook.read_text(encoding="utf-8")


@pytest.mark.parametrize("rule", ALERTS)
def test_an_alert_is_tested_and_in_the_document(rule: dict[str, Any]) -> None:
    tested = {
        case["alertname"]
        for test in loaded("tests.yaml")["tests"]
        for case in test.get("alert_rule_test", ())
        if case["exp_alerts"]
    }
    assert rule["alert"] in tested
    assert f"| {rule['alert']} |" in (ROOT / "docs" / "operate" / "observability.md").read_text(
        encoding="utf-8"
    )


def test_every_runbook_belongs_to_an_alert() -> None:
    linked = {Path(rule["annotations"]["runbook_url"]).name for rule in rules("alerts.yaml")}
    assert {path.name for path in RUNBOOKS.glob("*.md")} == linked


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_a_runbook_speaks_of_metrics_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert set(METRIC.findall(text)) <= shown()
    assert all((path.parent / link).is_file() for link in re.findall(r"\]\(([\w-]+\.md)\)", text))
