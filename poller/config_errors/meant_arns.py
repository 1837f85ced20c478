"""Owns hints for texts that people write in place of an ARN: queue URLs, bare names, and ARNs of related resources."""

import re

from poller.domain.arns import ACCOUNT, Arn

_QUEUE_URL = re.compile(
    rf"https?://([A-Za-z0-9.-]{{1,253}})(?::[0-9]{{1,5}})?/({ACCOUNT})/([A-Za-z0-9_-]{{1,80}}(?:\.fifo)?)/?"
)
_REGION_OF_HOST = re.compile(r"(?:sqs\.([a-z0-9-]{1,32})\.|([a-z0-9-]{1,32})\.queue\.|queue\.).{1,200}")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_AWS = (".amazonaws.com", ".amazonaws.com.cn")
FORMS = "arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL or arn:aws:sqs:REGION:ACCOUNT:NAME"
"""The forms of the ARNs of event sources."""
ASK = "`aws kinesis describe-stream-summary`, `aws dynamodb describe-table` and `aws sqs get-queue-attributes` say it"
ASK_FOR_STREAM = "`aws dynamodb describe-table --table-name NAME` says it as LatestStreamArn"


def queue_arn(url: str) -> str | None:
    """The ARN of the queue with this URL, with `REGION` if the URL does not have the region. None for any other text."""
    found = _QUEUE_URL.fullmatch(url)
    if found is None:
        return None
    host, account, name = found.groups()
    of_host = _REGION_OF_HOST.fullmatch(host)
    region = ((of_host[1] or of_host[2] or "us-east-1") if of_host else "") or "REGION"
    return f"arn:{'aws-cn' if host.endswith('.cn') else 'aws'}:sqs:{region}:{account}:{name}"


def aws_queue_arn(url: str) -> str | None:
    """The same for queue URLs of AWS only. Other servers may have such URLs for something else."""
    host = url.partition("://")[2].partition("/")[0]
    return queue_arn(url) if host.endswith(_AWS) else None


def source_remedy(text: str) -> str:
    """What to write at EventSourceArn in place of a text that is not the ARN of a source, and how to find the ARN."""
    if text != text.strip():
        return "remove the blanks around it"
    if arn := queue_arn(text):
        return f"this is the queue's URL; write its ARN, {arn}"
    try:
        parsed = Arn.parse(text)
    except ValueError:
        what = "this is a name alone" if _NAME.fullmatch(text) else "this is no ARN"
        return f"{what}; write {FORMS} ({ASK})"
    place = (
        f"arn:{parsed.partition}:{parsed.service}:{parsed.region or 'REGION'}:{parsed.account or 'ACCOUNT'}"
    )
    match parsed.service, parsed.resource.replace(":", "/").split("/"):
        case "sqs" | "kinesis" | "dynamodb", _ if not (parsed.region and parsed.account):
            return f"it has no region or no account; write {place}:{parsed.resource}"
        case "dynamodb", ["table", name]:
            ask = ASK_FOR_STREAM.replace("NAME", name)
            return f"this is a table; write the ARN of its stream, {place}:table/{name}/stream/LABEL ({ask})"
        case "kinesis", [name] | ["stream", name]:
            return f"write {place}:stream/{name}"
        case "kinesis" | "dynamodb" | "sqs", _:
            return f"write {FORMS}"
    return f"this is of {parsed.service}, which is no event source here; write {FORMS}"


def destination_remedy(text: str) -> str:
    """What to write at Destination in place of a text that is not a destination."""
    if text != text.strip():
        return "remove the blanks around it"
    return (
        "write the ARN of a standard SQS queue (arn:aws:sqs:REGION:ACCOUNT:NAME), a standard SNS topic (arn:aws:sns:REGION:ACCOUNT:NAME) "
        "or an S3 bucket (arn:aws:s3:::NAME); or file:///DIRECTORY, https://HOST/PATH, http://HOST/PATH"
    )
