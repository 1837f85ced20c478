"""Warnings about queues name the attribute, the value and the remedy."""

import pytest

from poller.records import QueueFacts
from poller.rules.queue_checks import queue_warnings


def test_a_sound_queue_has_no_warnings() -> None:
    assert queue_warnings(QueueFacts(180, False, 5), 30.0) == []


@pytest.mark.parametrize(("visibility_s", "warned"), [(29, True), (30, False), (31, False)])
def test_a_visibility_timeout_must_last_as_long_as_the_function(visibility_s: int, warned: bool) -> None:
    warnings = queue_warnings(QueueFacts(visibility_s, False, 5), 30.0)
    assert any(each.startswith("VisibilityTimeout: 29 s is shorter") for each in warnings) is warned


@pytest.mark.parametrize("fifo", [True, False])
def test_a_queue_without_a_redrive_policy_is_warned_about(fifo: bool) -> None:
    (warning,) = queue_warnings(QueueFacts(60, fifo, None), 30.0)
    assert warning.startswith("RedrivePolicy: none")
    assert ("blocks its group" in warning) is fifo


def test_a_low_receive_limit_is_warned_about() -> None:
    (warning,) = queue_warnings(QueueFacts(60, False, 1), 30.0)
    assert "maxReceiveCount 1" in warning
