"""`fan_out` beside a mapping: where it may stand, what is said elsewhere, and that the source is told for which mapping it is."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.sources.kinesis.plugin import KinesisSettings
from poller.commands.shared import LoadablePlugins
from poller.config.daemon_plan import daemon_plan
from poller.config.loader import examine
from poller.config.plugin_specs import source_of
from poller.config.settings import Settings
from poller.plugins import validated

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
TABLE = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026-01-01T00:00:00.000"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
CONSUMER = f"{STREAM}/consumer/poller:1700000000"
UUID = "0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11"


def document(arn: str, source: dict[str, Any], **more: Any) -> dict[str, Any]:
    start = {} if arn == QUEUE else {"StartingPosition": "LATEST"}
    return {
        "store": "memory://",
        "functions": {"reader": {"invoker": "http", "url": "http://127.0.0.1:1/"}},
        "mappings": [{"EventSourceArn": arn, "FunctionName": "reader", "source": source, **start, **more}],
    }


def told(folder: Path, arn: str, source: dict[str, Any]) -> list[str]:
    file = folder / "poller.yaml"
    file.write_text(yaml.safe_dump(document(arn, source)))
    found = examine(file, {}, LoadablePlugins())
    return [each.removeprefix(f"{file}: ") for each in (*found.problems, *found.lacking)]


def test_it_stands_beside_a_stream(tmp_path: Path) -> None:
    assert told(tmp_path, STREAM, {"fan_out": True}) == []
    assert told(tmp_path, CONSUMER, {"fan_out": False}) == []


def test_beside_a_consumer_it_contradicts_and_the_remedy_is_told(tmp_path: Path) -> None:
    (line,) = told(tmp_path, CONSUMER, {"fan_out": True})
    assert line.startswith("mappings[0].source.fan_out: ")
    assert "EventSourceArn names a consumer already; remove it, or write the stream's ARN" in line


@pytest.mark.parametrize("arn", [TABLE, QUEUE], ids=["dynamodb", "sqs"])
def test_other_sources_do_not_know_it(tmp_path: Path, arn: str) -> None:
    (line,) = told(tmp_path, arn, {"fan_out": True})
    assert line.startswith("mappings[0].source.fan_out: unknown setting")


@pytest.mark.parametrize("arn", [STREAM, TABLE, QUEUE], ids=["kinesis", "dynamodb", "sqs"])
def test_the_mapping_s_id_is_no_setting_of_users(tmp_path: Path, arn: str) -> None:
    (line,) = told(tmp_path, arn, {"mapping": UUID})
    assert line.startswith("mappings[0].source.mapping: unknown setting")


@pytest.mark.parametrize("more", [{"UUID": UUID}, {}], ids=["given", "computed"])
def test_the_source_is_told_for_which_mapping_it_is(more: dict[str, str]) -> None:
    (mapping,) = daemon_plan(Settings(**document(STREAM, {"fan_out": True}, **more))).mappings
    part = source_of(mapping)
    plugin = LoadablePlugins().plugin(part.kind, part.name)
    settings = validated(plugin, part.settings(plugin.settings), place="source")
    assert isinstance(settings, KinesisSettings)
    assert (settings.mapping, settings.fan_out) == (mapping.mapping, True)
    assert settings.mapping == more.get("UUID", settings.mapping) != ""
