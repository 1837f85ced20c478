"""Owns the answers of the batched calls of SQS: which entries they changed, and which not."""

from collections.abc import Sequence

import msgspec

from adapters.aws.clients import bare
from poller.domain.records import Undone

LAPSED_CODES = frozenset(
    {
        "ReceiptHandleIsInvalid",
        "InvalidParameterValue",
        "InvalidParameterValueException",
        "MessageNotInflight",
    }
)
"""Codes with which SQS refuses a receipt that is no longer valid. A FIFO queue refuses an expired one as InvalidParameterValue."""


class _Done(msgspec.Struct, frozen=True, rename="pascal"):
    id: str


class _Refused(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    code: str = "Unknown"


class BatchAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    """The answer of a batched call: which entries succeeded and which failed."""

    successful: list[_Done] | None = None
    failed: list[_Refused] | None = None


BATCH_ANSWER = msgspec.json.Decoder(BatchAnswer)


def undone(receipts: Sequence[str], reply: BatchAnswer) -> list[Undone]:
    """Returns the entries that a batched call left undone: those that failed, and those that the answer does not mention."""
    done = {entry.id for entry in reply.successful or ()}
    failed = {entry.id: bare(entry.code) for entry in reply.failed or ()}
    return [
        Undone(receipt, code := failed.get(str(index), "no answer"), lapsed=code in LAPSED_CODES)
        for index, receipt in enumerate(receipts)
        if str(index) not in done
    ]
