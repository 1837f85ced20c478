"""A function whose tenants come from message groups takes only mappings whose events are of one group."""

import json
from pathlib import Path
from typing import Any

import pytest

from poller.commands.shared import LoadablePlugins
from poller.config.loader import examine

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
FIFO = f"{QUEUE}.fifo"
REGISTRY = LoadablePlugins()
SEVERAL = (
    "an event may have messages of several groups, but a call of isolated is for one tenant (tenant_id_from); "
    "write BatchSize: 1"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "poller.yaml"


def problems(file: Path, entry: dict[str, Any], **mapping: Any) -> list[str]:
    """What keeps a daemon with one mapping from starting, without the file's name."""
    document = {
        "store": "memory://",
        "functions": {"isolated": entry},
        "mappings": [{"FunctionName": "isolated", "EventSourceArn": QUEUE, **mapping}],
    }
    file.write_text(json.dumps(document))
    return [line.removeprefix(f"{file}: ") for line in examine(file, {}, REGISTRY).problems]


@pytest.mark.parametrize(
    "mapping",
    [
        {"BatchSize": 1},
        {"BatchSize": "1"},
        {"EventSourceArn": FIFO, "BatchSize": 1},
        {"EventSourceArn": FIFO, "one_group_per_batch": True},
    ],
)
def test_a_mapping_whose_events_are_of_one_group_may_have_tenants_from_groups(
    file: Path, mapping: dict[str, Any]
) -> None:
    assert problems(file, {"tenant_id_from": "message_group"}, **mapping) == []


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        ({}, f"mappings[0].BatchSize: {SEVERAL}"),
        ({"BatchSize": 10}, f"mappings[0].BatchSize: value 10: {SEVERAL}"),
        (
            {"EventSourceArn": FIFO, "one_group_per_batch": False},
            f"mappings[0].BatchSize: {SEVERAL}, or one_group_per_batch: true",
        ),
        (
            {"EventSourceArn": STREAM, "StartingPosition": "LATEST"},
            f"mappings[0].EventSourceArn: value '{STREAM}': isolated takes its tenant from message groups (tenant_id_from), which "
            "records of a stream do not have; write tenant_id at functions.isolated, or another function",
        ),
    ],
    ids=["the default size", "ten", "FIFO", "a stream"],
)
def test_a_mapping_whose_events_are_not_of_one_group_is_refused(
    file: Path, mapping: dict[str, Any], text: str
) -> None:
    assert problems(file, {"tenant_id_from": "message_group"}, **mapping) == [text]
    assert problems(file, {"tenant_id": "blue"}, **mapping) == []


def test_settings_that_are_wrong_themselves_are_reported_alone(file: Path) -> None:
    (line,) = problems(file, {"tenant_id_from": "body"})
    assert (
        line
        == "functions.isolated.tenant_id_from: value 'body': not one of the choices; write 'message_group'"
    )
    (line,) = problems(file, {"client_context": {"a": "x" * 3000}})
    assert line.startswith("functions.isolated.client_context: has ")
    assert line.endswith(" bytes as base64; Lambda takes 3583, make it shorter")
