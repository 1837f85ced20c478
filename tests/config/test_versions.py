"""Owns facts of how versions and aliases of functions are written, checked and planned."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from poller.config.daemon_plan import daemon_plan
from poller.config.loader import load, load_all
from poller.domain.errors import InvalidConfiguration
from poller.domain.functions.versions import AliasPlan, VersionPlan
from poller.domain.plan import FunctionPlan
from poller.plugins import InstalledPlugins
from poller.rules.functions.aliases.alias_state import fingerprint, service_arns
from poller.rules.plan_changes import plan_changes

QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
ARN = "arn:aws:lambda:eu-west-1:111122223333:function:orders"


def document(entry: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"functions": {"orders": entry}, "store": "memory://", **more}


def planned(folder: Path, entry: dict[str, Any], **more: Any) -> FunctionPlan:
    file = folder / "poller.yaml"
    file.write_text(yaml.safe_dump(document(entry, **more)))
    return daemon_plan(load_all(file, {}, InstalledPlugins())).functions["orders"]


def problems(folder: Path, entry: dict[str, Any], **more: Any) -> list[str]:
    with pytest.raises(InvalidConfiguration) as caught:
        planned(folder, entry, **more)
    return [line.partition("poller.yaml: ")[2] or line for line in caught.value.problems]


PYTHON = {"invoker": "python", "handler": "json.loads", "memory_mb": 256}


def test_versions_are_laid_over_the_functions_own_settings(tmp_path: Path) -> None:
    found = planned(
        tmp_path,
        {
            **PYTHON,
            "timeout_s": 5,
            "versions": {
                "1": {},
                "2": {"handler": "json.dumps", "timeout_s": 9, "description": "faster"},
                "3": {"invoker": "process", "command": ["true"]},
            },
            "aliases": {"live": {"version": 2, "weights": {"1": 0.25}, "description": "all"}},
        },
    )
    own = {"handler": "json.loads", "memory_mb": 256}
    assert found.settings == own
    assert found.versions == {
        "1": VersionPlan(number="1", invoker="python", settings=own),
        "2": VersionPlan(
            number="2",
            invoker="python",
            settings={"handler": "json.dumps", "memory_mb": 256},
            timeout_s=9.0,
            description="faster",
        ),
        "3": VersionPlan(number="3", invoker="process", settings={"command": ["true"]}),
    }
    assert found.aliases == {"live": AliasPlan(version="2", weights={"1": 0.25}, description="all")}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"versions": {"0": {}}}, "no version number"),
    ({"versions": {"live": {}}}, "no version number"),
    ({"versions": {1: {}}}, "functions.orders.versions[1]: its name is not a text; put the name in quotes"),
    ({"versions": {"1": {"handler": "nothing"}}}, "functions.orders.versions.1.handler"),
    ({"versions": {"1": {"handlr": "json.loads"}}}, "functions.orders.versions.1.handlr"),
    ({"versions": {"1": {"max_concurrency": 2}}}, "functions.orders.versions.1.max_concurrency"),
    ({"versions": {"1": {"function_version": "7"}}}, "functions.orders.versions.1.function_version"),
    ({"versions": {"1": {"timeout_s": 0}}}, "functions.orders.versions.1.timeout_s"),
    ({"versions": {"1": {"invoker": "lambda", "identity": "other"}}}, "functions.orders.versions.1.identity"),
    ({"aliases": {"7": {"version": "$LATEST"}}}, "functions.orders.aliases"),
    (
        {"aliases": {"live": {"version": "8"}}},
        "functions.orders.aliases.live.version: value '8': version 8 is not below",
    ),
    ({"aliases": {"live": {"version": "one"}}}, "functions.orders.aliases.live.version"),
    (
        {"versions": {"1": {}}, "aliases": {"live": {"version": "1", "weights": {"2": 0.1}}}},
        "functions.orders.aliases.live.weights: version 2 is not below versions (there: 1); add versions.2",
    ),
    (
        {"versions": {"1": {}, "2": {}}, "aliases": {"live": {"version": "1", "weights": {"2": 1}}}},
        "functions.orders.aliases.live.weights.2",
    ),
    (
        {"versions": {"1": {}}, "aliases": {"live": {"version": "1", "weights": {"1": 0.5}}}},
        "functions.orders.aliases.live.weights[1]: is the alias's own version",
    ),
    (
        {"versions": {"1": {}}, "aliases": {"live": {"version": "$LATEST", "weights": {"1": 0.5}}}},
        "functions.orders.aliases.live.weights: an alias of $LATEST has no weights",
    ),
]


@pytest.mark.parametrize(("entry", "said"), WRONG)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, entry: dict[str, Any], said: str) -> None:
    found = problems(tmp_path, {**PYTHON, **entry})
    assert len(found) == 1, found
    assert said in found[0]


def test_a_mistake_in_what_versions_take_over_is_told_once(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, {**PYTHON, "memory_mb": 0, "versions": {"1": {}, "2": {}}})
    assert "functions.orders.memory_mb" in line


def test_a_mapping_names_a_version_or_an_alias_that_there_is(tmp_path: Path) -> None:
    entry = {**PYTHON, "versions": {"1": {}}, "aliases": {"live": {"version": "1"}}}
    for qualifier in ("", ":1", ":live", ":$LATEST"):
        mapping = {"FunctionName": f"orders{qualifier}", "EventSourceArn": QUEUE}
        assert planned(tmp_path, entry, mappings=[mapping]).versions
    mapping = {"FunctionName": f"{ARN}:gone", "EventSourceArn": QUEUE}
    (line,) = problems(tmp_path, entry, mappings=[mapping])
    assert line.startswith("mappings[0].FunctionName: ")
    assert "orders has no version or alias gone; write one of $LATEST, 1, live" in line
    assert planned(tmp_path, {"invoker": "lambda", "versions": {"1": {}}}, mappings=[mapping]).versions
    assert not planned(tmp_path, PYTHON, mappings=[mapping]).versions


def test_a_reload_tells_which_versions_and_aliases_changed_without_their_values(tmp_path: Path) -> None:
    def plan(entry: dict[str, Any]) -> Any:
        file = tmp_path / "poller.yaml"
        file.write_text(yaml.safe_dump(document({**PYTHON, **entry})))
        return daemon_plan(load(file, {"worker": "one"}))

    before = plan({"versions": {"1": {}, "2": {}}, "aliases": {"live": {"version": "1"}}})
    after = plan(
        {"versions": {"2": {"handler": "secret.name"}, "3": {}}, "aliases": {"live": {"version": "2"}}}
    )
    assert plan_changes(before, after) == (
        "functions.orders.versions.1: removed",
        "functions.orders.versions.2: changed",
        "functions.orders.versions.3: added",
        "functions.orders.aliases.live: changed",
    )


def test_a_fingerprint_depends_on_what_decides_the_call_and_has_no_setting_in_it() -> None:
    version = VersionPlan(number="1", invoker="http", settings={"url": "https://x", "password": "hidden"})
    found = fingerprint(version)
    same = VersionPlan(
        number="1", invoker="http", settings={"password": "hidden", "url": "https://x"}, description="x"
    )
    assert fingerprint(same) == found
    assert "hidden" not in found
    for other in (
        VersionPlan(number="1", invoker="http", settings={"url": "https://x"}),
        VersionPlan(number="1", invoker="lambda", settings=version.settings),
        VersionPlan(number="1", invoker="http", settings=version.settings, timeout_s=3.0),
    ):
        assert fingerprint(other) != found


def test_a_service_is_asked_about_the_versions_of_an_alias() -> None:
    alias = AliasPlan(version="1", weights={"2": 0.1})
    plan = FunctionPlan(name="orders", invoker="lambda", aliases={"live": alias})
    assert service_arns(plan, f"{ARN}:live") == (f"{ARN}:1", f"{ARN}:2")
    assert service_arns(plan, f"{ARN}:other") == (f"{ARN}:other",)
    assert service_arns(plan, ARN) == (ARN,)
