"""The destinations of asynchronous calls in a file: each is checked by its plug-in, and looked at by `check --live`."""

import json
from pathlib import Path
from typing import Any

import pytest

from poller.commands.check_live import call_destination_targets
from poller.commands.shared import LoadablePlugins
from poller.config.daemon_plan import daemon_plan
from poller.config.loader import examine
from poller.config.settings import Settings

QUEUE = "arn:aws:sqs:eu-west-1:111122223333:failed"
TOPIC = "arn:aws:sns:eu-west-1:111122223333:failed"
BUCKET = "arn:aws:s3:::failed"
BUS = "arn:aws:events:eu-west-1:111122223333:event-bus/failed"
FUNCTION = "arn:aws:lambda:eu-west-1:111122223333:function:failed:live"
URL = "https://host.example/secret?x=1"


def functions(**entries: dict[str, Any]) -> dict[str, Any]:
    return {"store": "memory://", "functions": entries}


def ends(success: str | None = None, failure: str | None = None) -> dict[str, Any]:
    given = {"OnSuccess": success, "OnFailure": failure}
    return {
        "DestinationConfig": {end: {"Destination": each} for end, each in given.items() if each is not None}
    }


def problems(folder: Path, document: dict[str, Any]) -> list[str]:
    """What is wrong with a file."""
    file = folder / "poller.yaml"
    file.write_text(json.dumps(document))
    return [line.removeprefix(f"{file}: ") for line in examine(file, {}, LoadablePlugins()).problems]


@pytest.mark.parametrize("destination", [QUEUE, TOPIC, BUCKET, BUS, FUNCTION, URL])
def test_each_kind_of_destination_is_taken(destination: str, tmp_path: Path) -> None:
    config = ends(destination, destination)
    document = functions(orders={"event_invoke_config": config, "event_invoke_configs": {"live": config}})
    assert problems(tmp_path, document) == []


@pytest.mark.parametrize(
    ("destination", "wrong"),
    [
        (f"{QUEUE}.fifo", "name a standard one"),
        (f"{TOPIC}.fifo", "name a standard one"),
        (f"{BUCKET}/key", "write arn:aws:s3:::NAME"),
        ("arn:aws:events:eu-west-1:111122223333:rule/x", "arn:aws:events:REGION:ACCOUNT:event-bus/NAME"),
        ("arn:aws:lambda:eu-west-1:111122223333:layer:x", "arn:aws:lambda:REGION:ACCOUNT:function:NAME"),
        ("arn:aws:glue:eu-west-1:111122223333:job/x", "glue"),
    ],
)
def test_a_wrong_destination_is_told_at_its_place_with_the_remedy(
    destination: str, wrong: str, tmp_path: Path
) -> None:
    document = functions(orders={"event_invoke_configs": {"live": ends(failure=destination)}})
    [problem] = problems(tmp_path, document)
    place = "functions.orders.event_invoke_configs.live.DestinationConfig.OnFailure.Destination: "
    assert problem.startswith(place)
    assert wrong in problem


def test_a_fifo_queue_as_a_dead_letter_target_is_told(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, functions(orders={"dead_letter": f"{QUEUE}.fifo"}))
    assert problem.startswith("functions.orders.dead_letter: ")
    assert "name a standard one" in problem


def test_the_live_check_looks_at_each_destination_once() -> None:
    document = functions(
        orders={"event_invoke_config": ends(BUS, QUEUE), "dead_letter": TOPIC},
        mails={"event_invoke_configs": {"live": ends(URL, QUEUE)}, "dead_letter": TOPIC},
        plain={},
    )
    found = list(call_destination_targets(daemon_plan(Settings.model_validate(document))))
    assert [(each.place, each.name, each.part.name, each.part.given["arn"]) for each in found] == [
        ("functions.orders", BUS, "events", BUS),
        ("functions.orders", QUEUE, "sqs", QUEUE),
        ("functions.orders", TOPIC, "sns", TOPIC),
        ("functions.mails", "https://host.example/[hidden]", "http", URL),
    ]
