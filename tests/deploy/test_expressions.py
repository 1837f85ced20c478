"""Rules and dashboard ask for metrics that the daemon has, by labels that these have."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from adapters.observers.metrics import Figures
from adapters.observers.prometheus import PrometheusObserver
from deploy.checks.expressions import EMPTY, Expression, compared, filled, of_dashboard, of_rules
from poller.domain.records import Epoch, Monotonic

ROOT = Path(__file__).parents[2]
RULES = tuple(ROOT / "deploy" / "prometheus" / name for name in ("recording.yaml", "alerts.yaml"))
COSTS = ROOT / "docs" / "operate" / "scaling.md"
BOARD = ROOT / "deploy" / "grafana" / "poller.json"
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "info": ("",)}


class Still:
    """A clock that stands."""

    def now(self) -> Epoch:
        """Always the same."""
        return Epoch(1_000_000.0)

    def monotonic(self) -> Monotonic:
        """Always the same."""
        return Monotonic(0.0)


def expressions() -> list[Expression]:
    """All of them, rules first."""
    rules = [each for path in RULES for each in of_rules(yaml.safe_load(path.read_text()))]
    return [*rules, *of_dashboard(json.loads(BOARD.read_text()))]


def exposed() -> set[str]:
    """Names of all series that the daemon can have."""
    page = PrometheusObserver(Figures(Still()), Still()).exposition()[0].decode()
    return {
        family.name + suffix
        for family in text_string_to_metric_families(page)
        for suffix in SUFFIXES.get(family.type, ("",))
    }


def recorded() -> set[str]:
    """Names that the recording rules give."""
    document = yaml.safe_load(RULES[0].read_text())
    return {rule["record"] for group in document["groups"] for rule in group["rules"]}


def asked(expression: str) -> Iterator[str]:
    """The metrics in an expression, recorded ones too."""
    yield from re.findall(r"(?<![\w:])(?:[a-z_]+:)?(?:poller|process)_[a-z0-9_:]+", expression)


@pytest.mark.parametrize("expression", expressions(), ids=lambda each: each.place)
def test_an_expression_asks_for_metrics_that_there_are(expression: Expression) -> None:
    names = set(asked(expression.written))
    assert names
    assert names <= exposed() | recorded()


@pytest.mark.parametrize(
    ("written", "data"),
    [
        ("a > 300", "a"),
        ("a > 0.75 * 86400", "a"),
        ("a == 1 and b == 0", "a and b"),
        ("max by (x) (time() - a) > 300", "max by (x) (time() - a)"),
        ("absent(poller_build_info)", "poller_build_info"),
    ],
)
def test_the_data_of_an_alert_is_what_it_compares(written: str, data: str) -> None:
    assert compared(written) == data


def test_no_alert_fires_whenever_there_is_data() -> None:
    alerts = [each for each in expressions() if each.place.startswith("alert ")]
    assert alerts
    assert all(each.written != each.data for each in alerts)
    assert EMPTY.keys() <= {each.place for each in expressions()}


def test_the_dollars_in_the_document_are_the_ones_that_the_rules_are_tested_with() -> None:
    (written,) = re.findall(r"```promql\n(730 .+?)```", COSTS.read_text(), re.DOTALL)
    tests = yaml.safe_load((RULES[0].parent / "tests.yaml").read_text())["tests"]
    tested = [each["expr"] for test in tests for each in test.get("promql_expr_test", ())]
    assert written in tested
    assert set(asked(written)) <= exposed()


def test_grafanas_variables_are_filled_in() -> None:
    assert filled('rate(a{n=~"$namespace"}[$__rate_interval])') == 'rate(a{n=~".*"}[1m])'
    with pytest.raises(AssertionError, match=r"\$unknown"):
        filled("a{b=$unknown}")


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = json.loads(BOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (panel["gridPos"]["x"] + dx, panel["gridPos"]["y"] + dy)
        for panel in panels
        for dx in range(panel["gridPos"]["w"])
        for dy in range(panel["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))
    assert all(x < 24 for x, _ in places)
