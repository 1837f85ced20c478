"""Owns what is worth saying about a queue before it is consumed (spec 2, 7.2)."""

from poller.records import QueueFacts

ADVISED_RECEIVES_MIN = 5
"""AWS's advice for maxReceiveCount, so that a few failures do not end in the dead-letter queue."""


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
