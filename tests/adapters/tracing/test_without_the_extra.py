"""Tracing that is asked for where OpenTelemetry is not installed, or refuses its variables: it is said, with what to do."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.tracing.plugin import TracingSettings, open_tracer
from poller.clock import LoopClock
from poller.commands.check import check
from poller.config.loader import examine, load_all
from poller.domain.errors import InvalidConfiguration
from poller.plugins import Environment, InstalledPlugins

SAID = "tracing.enabled"
REMEDY = "install esm-poller[otel], or set tracing.enabled: false"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without OpenTelemetry."""
    known = [each for each in sys.modules if each.partition(".")[0] == "opentelemetry"]
    for name in [*known, "opentelemetry", "opentelemetry.sdk"]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("adapters.tracing.provider", "adapters.tracing.tracer"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def written(tmp_path: Path, enabled: object) -> Path:
    path = tmp_path / "poller.json"
    path.write_text(json.dumps({"store": "memory://", "tracing": {"enabled": enabled}}))
    return path


def lacking(path: Path) -> list[str]:
    found = examine(path, {}, InstalledPlugins())
    assert found.problems == []
    return found.lacking


@pytest.mark.usefixtures("bare")
def test_the_check_says_that_the_extra_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, enabled=True)
    (line,) = lacking(path)
    assert SAID in line
    assert REMEDY in line
    found = examine(path, {}, InstalledPlugins())
    assert found.settings is not None
    for live, status in ((False, 0), (True, 1)):
        ended = check(
            found.settings,
            InstalledPlugins(),
            place=str(path),
            live=live,
            as_json=False,
            lacking=found.lacking,
        )
        assert bool(ended) is bool(status)
        assert REMEDY in capsys.readouterr().err


@pytest.mark.usefixtures("bare")
def test_the_daemon_does_not_start_without_the_extra(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        load_all(written(tmp_path, enabled=True), {}, InstalledPlugins())
    assert any(REMEDY in each for each in refused.value.problems)

    async def opening() -> None:
        async with open_tracer(TracingSettings(), Environment(clock=LoopClock())):
            pytest.fail("it opened")

    with pytest.raises(InvalidConfiguration) as refused:
        asyncio.run(opening())
    assert REMEDY in refused.value.problems[0]


@pytest.mark.usefixtures("bare")
def test_a_daemon_that_does_not_trace_needs_nothing(tmp_path: Path) -> None:
    assert lacking(written(tmp_path, enabled=False)) == []


def test_with_the_extra_nothing_is_missing(tmp_path: Path) -> None:
    assert lacking(written(tmp_path, enabled=True)) == []


REFUSED = [
    {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "99999"},
    {"OTEL_BSP_MAX_QUEUE_SIZE": "-1"},
    {"OTEL_BSP_SCHEDULE_DELAY": "-5"},
    {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "x"},
    {"OTEL_SPAN_LINK_COUNT_LIMIT": "-1"},
    {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
    {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_COMPRESSION": "zip"},
    {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TIMEOUT": "abc"},
    {"OTEL_TRACES_EXPORTER": "zipkin"},
]


@pytest.mark.parametrize("variables", REFUSED)
def test_variables_that_are_refused_are_a_problem_of_the_configuration(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    async def opening() -> None:
        async with open_tracer(TracingSettings(), Environment(clock=LoopClock())):
            pytest.fail("it opened")

    with pytest.raises(InvalidConfiguration) as refused:
        asyncio.run(opening())
    (problem,) = refused.value.problems
    assert any(name in problem for name in variables)


def test_the_check_tells_of_a_variable_that_is_refused_when_the_sdk_is_imported(tmp_path: Path) -> None:
    variable, path = "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", written(tmp_path, enabled=True)
    asked = [sys.executable, "-m", "poller", "check", "--config", str(path)]
    ended = subprocess.run(
        asked, env={**os.environ, variable: "x"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in ended.stderr
    assert f"{variable} must be a non-negative integer" in " ".join(ended.stderr.split())
