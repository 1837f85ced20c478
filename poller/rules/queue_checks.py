"""Owns what is worth saying about a queue before it is consumed (spec 2, 7.2)."""

from collections.abc import Sequence
from enum import StrEnum

from poller.findings import Finding, Grade, LambdaConsumer
from poller.records import QueueFacts

ADVISED_RECEIVES_MIN = 5
"""AWS's advice for maxReceiveCount, so that a few failures do not end in the dead-letter queue."""

LEAVING = frozenset({"Disabled", "Disabling", "Deleting"})
"""States in which an event source mapping of AWS Lambda takes nothing, or soon nothing more; it takes in all others."""
CONSUMERS_SHOWN_MAX = 5


class LambdaConsumers(StrEnum):
    """What to say of a queue that an event source mapping of AWS Lambda consumes as well."""

    REFUSE = "refuse"
    WARN = "warn"
    IGNORE = "ignore"


def queue_warnings(facts: QueueFacts, timeout_s: float) -> list[str]:
    """Warnings about a queue whose function may take `timeout_s` seconds; one line each, with the remedy."""
    warnings: list[str] = []
    if facts.visibility_timeout_s < timeout_s:
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
    """What a queue's consumers on AWS Lambda mean to a mapping; one that is not `enabled` is warned, not refused.

    Two consumers of one queue share its messages, each sees some of them.
    """
    check = "lambda consumers"
    taking = [each for each in found if each.state not in LEAVING]
    if not taking or policy is LambdaConsumers.IGNORE:
        return Finding(check, Grade.OK)
    refused = enabled and policy is LambdaConsumers.REFUSE
    shown = ", ".join(
        f"{each.uuid} ({each.function_arn}, {each.state})" for each in taking[:CONSUMERS_SHOWN_MAX]
    )
    more = f" and {len(taking) - CONSUMERS_SHOWN_MAX} more" if len(taking) > CONSUMERS_SHOWN_MAX else ""
    return Finding(
        check,
        Grade.PROBLEM if refused else Grade.WARNING,
        f"AWS Lambda consumes this queue too, by the event source mapping {shown}{more}: each gets a part of the messages",
        "disable that mapping, or this one, or set check.lambda_consumers to warn",
    )
