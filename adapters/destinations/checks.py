"""Owns the checks of destinations: whether each exists. Nothing is sent, since a document would arrive."""

import os
import stat
from pathlib import Path
from typing import Any

from adapters.aws.permission_checks import asked, for_the_check_alone, tried, untried
from poller.domain.findings import Finding, Severity

EXISTS = "whether it exists"
ARRIVES = "a document would arrive"


async def probe_queue(service: Any, queue_url: str, arn: str) -> list[Finding]:
    """Reads the attributes of the queue to which documents are sent."""
    call = asked(service, "GetQueueAttributes", QueueUrl=queue_url, AttributeNames=["QueueArn"])
    trial = await tried("sqs:GetQueueAttributes", call, on=arn)
    return [for_the_check_alone(trial, EXISTS), *untried(("sqs:SendMessage",), ARRIVES)]


async def probe_topic(service: Any, arn: str) -> list[Finding]:
    """Reads the topic's attributes."""
    trial = await tried("sns:GetTopicAttributes", asked(service, "GetTopicAttributes", TopicArn=arn), on=arn)
    return [for_the_check_alone(trial, EXISTS), *untried(("sns:Publish",), ARRIVES)]


async def probe_bucket(service: Any, bucket: str) -> list[Finding]:
    """Calls HeadBucket, which tells whether the bucket exists."""
    trial = await tried(
        "s3:ListBucket", asked(service, "HeadBucket", Bucket=bucket), on=f"arn:aws:s3:::{bucket}"
    )
    return [for_the_check_alone(trial, EXISTS), *untried(("s3:PutObject",), ARRIVES)]


def check_directory(path: Path) -> Finding:
    """Checks whether files can be made in a directory, by its modes."""
    check = "directory"
    if not path.is_dir():
        return Finding(check, Severity.PROBLEM, f"{path} is no directory", "make it, or correct the path")
    if not os.access(path, os.W_OK | os.X_OK):
        text = f"{path} may not be written by this user"
        return Finding(check, Severity.PROBLEM, text, "correct its owner or mode")
    if path.stat().st_mode & stat.S_IWOTH:
        text = f"every user of this machine may make files in {path}"
        return Finding(check, Severity.WARNING, text, "make it 0700")
    return Finding(check, Severity.OK)
