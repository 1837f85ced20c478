"""Owns the canned answers of the stub: records of 1 KB, in order, as the services write them.

Stream pages are rendered once, so that the stub sends them without touching their bytes; a shard goes through the
pages in order and ends in empty reads behind the last one. Receives are rendered for each call, since no two messages
may have the same id.
"""

import base64
import hashlib
import json
import random
import time
import uuid
from dataclasses import dataclass
from itertools import accumulate

PAYLOAD_BYTES = 1_024
PAGE_RECORDS = 1_000
"""One megabyte of data: what GetRecords of DynamoDB Streams gives at most, and a shard of Kinesis takes in a second."""
MESSAGES = 10
FIRST_SEQUENCE = 49_650_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000
STEP_S = 0.001
_PAYLOADS = 97
_NUMBER = b"%(n)012d"


@dataclass(frozen=True, slots=True)
class Page:
    """A page's members behind its head, and the last byte of it; `records` in number, and where each of them ends."""

    tail: bytes
    records: int
    ends: tuple[int, ...] = ()

    def cut(self, first: int, count: int) -> "Page":
        """Some of its records."""
        if not first and count >= self.records:
            return self
        last = min(first + count, self.records)
        start = self.ends[first - 1] + 1 if first else len(_OPEN)
        return Page(b"%b%b]}" % (_OPEN, self.tail[start : self.ends[last - 1]]), last - first)


_OPEN = b'"Records":['
EMPTY = Page(b'"Records":[]}', 0)


def payloads(seed: int, kind: str) -> list[str]:
    """Texts of PAYLOAD_BYTES bytes that are JSON objects; one in two has `kind`."""
    rng = random.Random(seed)
    texts = []
    for number in range(_PAYLOADS):
        body = {"kind": kind if number % 2 else "other", "device": f"device-{number}", "filler": ""}
        left = PAYLOAD_BYTES - len(json.dumps(body))
        body["filler"] = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789 ", k=left))
        texts.append(json.dumps(body))
    return texts


def kinesis_pages(count: int, page_records: int = PAGE_RECORDS) -> list[Page]:
    """`count` pages of Kinesis records."""
    datas = [base64.b64encode(text.encode()).decode() for text in payloads(1, "alarm")]
    started = time.time()
    return [
        _page(
            {
                "SequenceNumber": str(FIRST_SEQUENCE + index),
                "ApproximateArrivalTimestamp": round(started + index * STEP_S / count, 3),
                "Data": datas[index % _PAYLOADS],
                "PartitionKey": f"device-{index % 1_009}",
                "EncryptionType": "NONE",
            }
            for index in range(page * page_records, (page + 1) * page_records)
        )
        for page in range(count)
    ]


def dynamo_pages(count: int, page_records: int = PAGE_RECORDS) -> list[Page]:
    """`count` pages of DynamoDB stream records with an image of 1 KB."""
    texts = payloads(2, "alarm")
    started = int(time.time())
    return [
        _page(
            {
                "eventID": f"{index:032x}",
                "eventName": "INSERT",
                "eventVersion": "1.1",
                "eventSource": "aws:dynamodb",
                "awsRegion": "eu-west-1",
                "dynamodb": {
                    "ApproximateCreationDateTime": started,
                    "Keys": {"pk": {"S": f"device-{index % 1_009}"}},
                    "NewImage": {
                        "pk": {"S": f"device-{index % 1_009}"},
                        "kind": {"S": "alarm" if index % 2 else "other"},
                        "level": {"N": str(index % 7)},
                        "body": {"S": texts[index % _PAYLOADS][100:]},
                    },
                    "SequenceNumber": str(100_000_000_000_000_000_000 + index),
                    "SizeBytes": PAYLOAD_BYTES,
                    "StreamViewType": "NEW_IMAGE",
                },
            }
            for index in range(page * page_records, (page + 1) * page_records)
        )
        for page in range(count)
    ]


def _page(records: "object") -> Page:
    listed = [json.dumps(each, separators=(",", ":")).encode() for each in records]  # type: ignore[attr-defined]  # any iterable of JSON objects
    ends = tuple(accumulate((len(each) + 1 for each in listed), initial=len(_OPEN) - 1))[1:]
    return Page(b"%b%b]}" % (_OPEN, b",".join(listed)), len(listed), ends)


def messages_template(*, fifo: bool, messages: int = MESSAGES) -> bytes:
    """A ReceiveMessage answer whose ids, receipts, groups and sequence numbers hold %(n)012d."""
    texts = payloads(3, "alarm")
    made = [_message(place, texts[place], fifo=fifo) for place in range(messages)]
    return (
        json.dumps({"Messages": made}, separators=(",", ":"))
        .replace("%", "%%")
        .encode()
        .replace(b"@NUMBER@@@@@", _NUMBER)
    )


def _message(place: int, body: str, *, fifo: bool) -> dict[str, object]:
    attributes = {
        "SenderId": "AIDAEXAMPLE",
        "ApproximateFirstReceiveTimestamp": str(int(time.time() * 1000)),
        "ApproximateReceiveCount": "1",
        "SentTimestamp": str(int(time.time() * 1000)),
    }
    if fifo:
        attributes |= {
            "SequenceNumber": f"18{'@NUMBER@@@@@'}{place:06d}",
            "MessageGroupId": "group-@NUMBER@@@@@",
            "MessageDeduplicationId": str(uuid.UUID(int=place)),
        }
    return {
        "MessageId": f"0000000{place}-0000-4000-8000-@NUMBER@@@@@",
        "ReceiptHandle": f"AQEB{'x' * 180}-{place}-@NUMBER@@@@@",
        "MD5OfBody": hashlib.md5(body.encode(), usedforsecurity=False).hexdigest(),
        "Body": body,
        "Attributes": attributes,
    }
