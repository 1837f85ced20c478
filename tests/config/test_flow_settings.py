"""Owns facts of the settings of a function's rate and breaker."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from poller.config.daemon_plan import daemon_plan
from poller.config.loader import load
from poller.domain.errors import InvalidConfiguration
from poller.domain.plan import FunctionPlan
from poller.domain.policies import BreakerPolicy, RatePolicy
from poller.rules.plan_changes import plan_changes


def planned(folder: Path, entry: dict[str, Any]) -> FunctionPlan:
    file = folder / "poller.yaml"
    file.write_text(yaml.safe_dump({"functions": {"orders": entry}}))
    return daemon_plan(load(file, {})).functions["orders"]


def problem(folder: Path, entry: dict[str, Any]) -> str:
    with pytest.raises(InvalidConfiguration) as caught:
        planned(folder, entry)
    (line,) = caught.value.problems
    return line.partition("functions.orders.")[2]


def test_a_function_has_neither_unless_it_is_written(tmp_path: Path) -> None:
    found = planned(tmp_path, {})
    assert (found.rate, found.breaker) == (None, None)


def test_what_is_written_reaches_the_plan_and_a_breaker_has_defaults(tmp_path: Path) -> None:
    found = planned(tmp_path, {"rate": {"records_per_s": 1000}, "breaker": {}})
    assert (found.rate, found.breaker) == (RatePolicy(None, 1000.0), BreakerPolicy(0.5, 60.0, 30.0))
    found = planned(
        tmp_path,
        {
            "rate": {"invocations_per_s": 0.5},
            "breaker": {"failures": 1, "window_s": 10, "open_s": 5},
            "handler": "a:b",
        },
    )
    assert (found.rate, found.breaker) == (RatePolicy(0.5), BreakerPolicy(1.0, 10.0, 5.0))
    assert found.settings == {"handler": "a:b"}, "the invoker gets neither"


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"rate": {}}, "rate.invocations_per_s: limits nothing; write a number, or one at records_per_s, or remove rate"),
        ({"rate": {"invocations_per_s": 0}}, "rate.invocations_per_s: value 0: too small; write 0.001 or more"),
        ({"rate": {"records_per_s": 2_000_000}}, "rate.records_per_s: value 2000000: too large; write 1000000 or less"),
        ({"rate": {"records_per_s": True}}, "rate.records_per_s: value true: not a number; write digits, without unit"),
        ({"rate": {"per_s": 5}}, "rate.per_s: unknown setting; remove it; known here: invocations_per_s, records_per_s"),
        ({"rate": 5}, "rate: value 5: not a mapping; write lines like `name: value` below it"),
        ({"breaker": {"failures": 0}}, "breaker.failures: value 0: too small; write more than 0"),
        ({"breaker": {"failures": 50}}, "breaker.failures: value 50: too large; write 1 or less"),
        ({"breaker": {"open_s": 0.5}}, "breaker.open_s: value 0.5: too small; write 1 or more"),
        ({"breaker": {"window_s": 100_000}}, "breaker.window_s: value 100000: too large; write 86400 or less"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_the_field_and_the_remedy(
    tmp_path: Path, entry: dict[str, Any], text: str
) -> None:
    assert problem(tmp_path, entry) == text


def test_a_reload_names_each_changed_number(tmp_path: Path) -> None:
    file = tmp_path / "poller.yaml"
    plans = []
    for entry in ({"rate": {"invocations_per_s": 5}}, {"rate": {"invocations_per_s": 7}, "breaker": {}}):
        file.write_text(yaml.safe_dump({"worker": "w", "functions": {"orders": entry}}))
        plans.append(daemon_plan(load(file, {})))
    assert plan_changes(*plans) == (
        "functions.orders.breaker.failures: none -> 0.5",
        "functions.orders.breaker.open_s: none -> 30.0",
        "functions.orders.breaker.window_s: none -> 60.0",
        "functions.orders.rate.invocations_per_s: 5.0 -> 7.0",
    )
