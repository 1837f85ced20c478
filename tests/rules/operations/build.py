"""Owns operations and facts of mappings for tests of their rules."""

from typing import Any

from poller.domain.operations import Operation, OperationId
from poller.domain.records import Epoch, MappingId, ShardId, WorkerId
from poller.rules.operations.accepting import MappingFacts, accept
from poller.rules.operations.reading import read_request

ORDERS = MappingId("0f6a8a3e-0000-4000-8000-000000000001")
MAILS = MappingId("0f6a8a3e-0000-4000-8000-000000000002")
ONE, TWO, THREE = (ShardId(f"shardId-{number:012}") for number in (1, 2, 3))
ANN, BOB = WorkerId("ann"), WorkerId("bob")
NOW = Epoch(1_700_000_000.0)
STREAM = MappingFacts(
    mapping=ORDERS, queue=False, lanes=4, shards={ONE: ANN, TWO: BOB, THREE: None}, destination=True
)
QUEUE = MappingFacts(mapping=MAILS, queue=True, workers=(BOB, ANN), destination=True)
FIFO = MappingFacts(mapping=MAILS, queue=True, fifo=True, workers=(BOB, ANN), destination=True)


def accepted(
    document: Any,
    facts: MappingFacts = STREAM,
    *,
    name: str = "op-1",
    now: Epoch = NOW,
    others: tuple[Operation, ...] = (),
    open_bytes: int = 0,
) -> Operation:
    """The operation that a request becomes; raises OperationRefused."""
    asked = read_request(document)
    return accept(
        asked,
        facts,
        operation=OperationId(name),
        by="carol",
        now=now,
        open_operations=others,
        open_bytes=open_bytes,
    )
