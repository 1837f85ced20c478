"""Owns the PromQL of rules and dashboard: where each expression stands, and what must return data. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

VARIABLES = {"$__rate_interval": "1m", "$namespace": ".*", "$function": ".*"}
"""What Grafana puts in: everything chosen, a range that has four scrapes."""
_THRESHOLD = re.compile(r"\s(?:>|<|==|>=|<=)\s*(?:[0-9.]+(?:\s*\*\s*[0-9.]+)?)")
EMPTY = {
    "alert PollerStoreFailing": "a store that answers has no series of failures",
    "alert PollerGroupBlockedLong": "a FIFO queue has a series only while a message group is blocked",
    "alert PollerPausedLong": "a mapping has a series only while something of it is paused",
    "panel Paused by operators A": "a mapping has a series only while something of it is paused",
}
"""Alerts and panels whose data is rightly empty while all is well, and why."""
ABSENT = re.compile(r"absent\((?P<metric>[a-z_]+)\)")


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression, as written and in the form that must return data while a daemon runs."""

    place: str
    written: str
    data: str


def of_rules(document: Mapping[str, Any]) -> Iterator[Expression]:
    """Expressions of a rule file. An alert is quiet when all is well: its data is what it compares with a threshold."""
    for group in document["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                yield Expression(f"alert {rule['alert']}", rule["expr"], compared(rule["expr"]))
            else:
                yield Expression(f"record {rule['record']}", rule["expr"], rule["expr"])
                yield Expression(f"recorded {rule['record']}", rule["record"], rule["record"])


def compared(expression: str) -> str:
    """An alert's expression without its thresholds; of `absent`, the series that it misses."""
    if found := ABSENT.fullmatch(expression):
        return found["metric"]
    return _THRESHOLD.sub("", expression)


def of_dashboard(board: Mapping[str, Any]) -> Iterator[Expression]:
    """Expressions of all panels, with Grafana's variables filled in."""
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            text = filled(target["expr"])
            yield Expression(f"panel {panel['title']} {target['refId']}", text, text)


def filled(expression: str) -> str:
    """The expression with a value for each variable."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def of_variables(board: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Metric selector and label of each variable that asks Prometheus for its values."""
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(
                r"label_values\((?P<series>.+), (?P<label>\w+)\)", variable["query"]["query"]
            )
            assert found, variable["query"]
            yield filled(found["series"]), found["label"]
