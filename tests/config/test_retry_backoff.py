"""`retry_backoff` beside a queue's mapping: what it may be, where it goes, and how a wrong one is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from poller.config.daemon_plan import daemon_plan
from poller.config.loader import load
from poller.domain.errors import InvalidConfiguration
from poller.domain.policies import RetryBackoff

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:mails"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "poller.yaml"


@pytest.mark.parametrize(
    ("written", "policy"),
    [
        ({"base_s": 10}, RetryBackoff(10.0, 2.0, 900.0)),
        ({"base_s": 0.5, "factor": 1.5, "cap_s": 60}, RetryBackoff(0.5, 1.5, 60.0)),
        ({"base_s": 1000}, RetryBackoff(1000.0, 2.0, 1000.0)),
        ({"base_s": 43_200, "factor": 100, "cap_s": 43_200}, RetryBackoff(43_200.0, 100.0, 43_200.0)),
    ],
)
def test_a_retry_backoff_reaches_the_plan(
    file: Path, written: dict[str, float], policy: RetryBackoff
) -> None:
    file.write_text(
        yaml.safe_dump(
            {"mappings": [{"FunctionName": "f", "EventSourceArn": QUEUE, "retry_backoff": written}]}
        )
    )
    (plan,) = daemon_plan(load(file, {})).mappings
    assert plan.queue.retry_backoff == policy


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"retry_backoff": {}}, "retry_backoff.base_s: "),
        ({"retry_backoff": {"base_s": 0}}, "retry_backoff.base_s: value 0: "),
        ({"retry_backoff": {"base_s": -1}}, "retry_backoff.base_s: value -1: "),
        ({"retry_backoff": {"base_s": True}}, "retry_backoff.base_s: value true: not a number"),
        (
            {"retry_backoff": {"base_s": 43_201}},
            "retry_backoff.base_s: value 43201: too large; write 43200 or less",
        ),
        ({"retry_backoff": {"base_s": float("nan")}}, "retry_backoff.base_s: "),
        (
            {"retry_backoff": {"base_s": 1, "factor": 0.9}},
            "retry_backoff.factor: value 0.9: too small; write 1 or more",
        ),
        (
            {"retry_backoff": {"base_s": 1, "factor": 101}},
            "retry_backoff.factor: value 101: too large; write 100 or less",
        ),
        (
            {"retry_backoff": {"base_s": 10, "cap_s": 5}},
            "retry_backoff.cap_s: value 5: less than base_s; write 10 or more",
        ),
        (
            {"retry_backoff": {"base": 10, "base_s": 1}},
            "retry_backoff.base: unknown setting; did you mean base_s?",
        ),
        ({"retry_backoff": 10}, "retry_backoff: value 10: not a mapping"),
        (
            {"retry_backoff": {"base_s": 10}, "EventSourceArn": STREAM, "StartingPosition": "LATEST"},
            "retry_backoff: is for SQS queues only; remove it",
        ),
    ],
)
def test_a_wrong_retry_backoff_is_refused_with_its_place(
    file: Path, changes: dict[str, Any], line: str
) -> None:
    given_mapping = {"FunctionName": "f", "EventSourceArn": QUEUE, **changes}
    file.write_text(yaml.safe_dump({"mappings": [given_mapping]}))
    with pytest.raises(InvalidConfiguration) as found:
        load(file, {})
    assert f"mappings[0].{line}" in str(found.value)
