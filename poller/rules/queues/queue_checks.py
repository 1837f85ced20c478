"""Owns the warnings about a queue before it is consumed (aws-behaviour#visibility-against-time-limit)."""

from collections.abc import Sequence
from enum import StrEnum

from poller.domain.findings import Finding, LambdaConsumer, Severity
from poller.domain.records import QueueFacts

ADVISED_RECEIVES_MIN = 5
"""AWS's advice for maxReceiveCount: with less, a few failures move a message to the dead-letter queue (aws-behaviour#dead-letter-queue)."""

LEAVING = frozenset({"Disabled", "Disabling", "Deleting"})
"""States in which an event source mapping of AWS Lambda receives no messages, or is about to stop."""
CONSUMERS_SHOWN_MAX = 5


class LambdaConsumers(StrEnum):
    """How to report a queue that an event source mapping of AWS Lambda also consumes."""

    REFUSE = "refuse"
    WARN = "warn"
    IGNORE = "ignore"


def short_visibility_text(visibility_s: int, timeout_s: float) -> str:
    """AWS's text for a queue whose messages become visible before the function has to be done."""
    return (
        f"Queue visibility timeout: {visibility_s} seconds is less than "
        f"Function timeout: {timeout_s:g} seconds"
    )


def queue_warnings(facts: QueueFacts, timeout_s: float | None) -> list[str]:
    """Warnings about a queue whose function may take `timeout_s` seconds (None: not known); one line each, with the remedy."""
    warnings: list[str] = []
    if timeout_s is not None and facts.visibility_timeout_s < timeout_s:
        warnings.append(
            f"VisibilityTimeout: {facts.visibility_timeout_s} s is shorter than the function's limit of {timeout_s:g} s;"
            f" set it to {timeout_s:g} s or more (AWS refuses such a mapping, six times the limit is its advice)"
        )
    if facts.redrive_receives_max is None:
        warnings.append(
            "RedrivePolicy: none, so a message that always fails comes again until it expires"
            f"{' and blocks its group' if facts.fifo else ''}; give the queue a dead-letter queue"
        )
    elif facts.redrive_receives_max < ADVISED_RECEIVES_MIN:
        warnings.append(
            f"RedrivePolicy: maxReceiveCount {facts.redrive_receives_max} sends messages to the dead-letter queue after"
            f" few failures; set it to {ADVISED_RECEIVES_MIN} or more"
        )
    return warnings


def lambda_consumers(
    found: Sequence[LambdaConsumer], policy: LambdaConsumers, *, enabled: bool = True
) -> Finding:
    """The finding about a queue's consumers on AWS Lambda. For a mapping that is not `enabled` it is only a warning.

    Two consumers of one queue share its messages, so each gets only some of them.
    """
    check = "lambda consumers"
    taking = [each for each in found if each.state not in LEAVING]
    if not taking or policy is LambdaConsumers.IGNORE:
        return Finding(check, Severity.OK)
    refused = enabled and policy is LambdaConsumers.REFUSE
    shown = ", ".join(
        f"{each.uuid} ({each.function_arn}, {each.state})" for each in taking[:CONSUMERS_SHOWN_MAX]
    )
    more = f" and {len(taking) - CONSUMERS_SHOWN_MAX} more" if len(taking) > CONSUMERS_SHOWN_MAX else ""
    return Finding(
        check,
        Severity.PROBLEM if refused else Severity.WARNING,
        f"AWS Lambda consumes this queue too, by the event source mapping {shown}{more}: each gets a part of the messages",
        "disable that mapping, or this one, or set check.lambda_consumers to warn",
    )
