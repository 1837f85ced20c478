"""Warnings about queues name the attribute, the value and the remedy."""

import pytest

from poller.domain.findings import LambdaConsumer, Severity
from poller.domain.records import QueueFacts
from poller.rules.queues.queue_checks import LambdaConsumers, lambda_consumers, queue_warnings


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


def consumer(state: str, number: int = 1) -> LambdaConsumer:
    return LambdaConsumer(f"uuid-{number}", "arn:aws:lambda:eu-west-1:111122223333:function:old", state)


@pytest.mark.parametrize(
    ("states", "policy", "enabled", "grade"),
    [
        ([], LambdaConsumers.REFUSE, True, Severity.OK),
        (["Enabled"], LambdaConsumers.REFUSE, True, Severity.PROBLEM),
        (["Creating"], LambdaConsumers.REFUSE, True, Severity.PROBLEM),
        (["Enabling"], LambdaConsumers.REFUSE, True, Severity.PROBLEM),
        (["Updating"], LambdaConsumers.REFUSE, True, Severity.PROBLEM),
        (["Disabled", "Disabling", "Deleting"], LambdaConsumers.REFUSE, True, Severity.OK),
        (["Disabled", "Enabled"], LambdaConsumers.REFUSE, True, Severity.PROBLEM),
        (["Enabled"], LambdaConsumers.REFUSE, False, Severity.WARNING),
        (["Enabled"], LambdaConsumers.WARN, True, Severity.WARNING),
        (["Enabled"], LambdaConsumers.IGNORE, True, Severity.OK),
    ],
)
def test_a_queue_that_lambda_consumes_is_refused_unless_a_setting_says_otherwise(
    states: list[str], policy: LambdaConsumers, enabled: bool, grade: Severity
) -> None:
    assert lambda_consumers([consumer(each) for each in states], policy, enabled=enabled).grade is grade


def test_consumers_are_named_five_at_most() -> None:
    found = lambda_consumers([consumer("Enabled", each) for each in range(8)], LambdaConsumers.REFUSE)
    assert "uuid-4 (arn:aws:lambda:eu-west-1:111122223333:function:old, Enabled) and 3 more:" in found.text
    assert "uuid-5" not in found.text
    assert "check.lambda_consumers" in found.remedy
