"""A function that takes one CloudEvent in a request has only mappings whose events are of one record."""

import json
from pathlib import Path
from typing import Any

import pytest

from poller.commands.shared import LoadablePlugins
from poller.config.loader import examine

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
ONE = "and a larger batch is never sent; write BatchSize: 1, or cloud_events: batched at functions.orders"
WINDOW = {
    "EventSourceArn": STREAM,
    "StartingPosition": "LATEST",
    "BatchSize": 1,
    "TumblingWindowInSeconds": 30,
}


def problems(tmp_path: Path, mode: str | None, **mapping: Any) -> list[str]:
    """What keeps a daemon with one mapping from starting, without the file's name."""
    entry = {"invoker": "http", "url": "http://orders.internal/"} | ({"cloud_events": mode} if mode else {})
    document = {
        "store": "memory://",
        "functions": {"orders": entry},
        "mappings": [{"FunctionName": "orders", "EventSourceArn": QUEUE, **mapping}],
    }
    file = tmp_path / "poller.yaml"
    file.write_text(json.dumps(document))
    return [line.removeprefix(f"{file}: ") for line in examine(file, {}, LoadablePlugins()).problems]


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_one_record_in_a_request_needs_batches_of_one(tmp_path: Path, mode: str) -> None:
    assert problems(tmp_path, mode, BatchSize=1) == []
    for mapping in ({}, {"BatchSize": 10}, {"EventSourceArn": STREAM, "StartingPosition": "LATEST"}):
        (found,) = problems(tmp_path, mode, **mapping)
        assert found.startswith("mappings[0].BatchSize: ")
        assert f"orders takes one record in a request (cloud_events: {mode}), {ONE}" in found


def test_batched_events_and_plain_ones_take_any_batch(tmp_path: Path) -> None:
    for mode in ("batched", None):
        assert problems(tmp_path, mode, BatchSize=10) == []
    assert problems(tmp_path, None, **WINDOW) == []


@pytest.mark.parametrize("mode", ["binary", "batched"])
def test_the_state_of_a_window_has_no_place_in_a_cloud_event(tmp_path: Path, mode: str) -> None:
    (found,) = problems(tmp_path, mode, **WINDOW)
    assert found.startswith("mappings[0].TumblingWindowInSeconds: value 30: a CloudEvent has no place")
    assert problems(tmp_path, mode, **WINDOW | {"TumblingWindowInSeconds": 0}) == []
