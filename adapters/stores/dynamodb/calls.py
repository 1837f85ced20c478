"""Owns the calls to one DynamoDB table: their time limit, their errors, reading all pages, and several calls at once."""

import asyncio
from collections.abc import Coroutine, Iterable
from itertools import batched
from typing import Any

from botocore.exceptions import ClientError

from adapters.aws.calls import calling
from adapters.aws.clients import code_of
from adapters.stores.dynamodb.table import Item
from poller.domain.errors import PortError, ServiceThrottled, ServiceUnavailable

CALLS_MAX = 16
"""Calls that one method of the store makes at once."""
PAGES_MAX = 10_000
"""Pages of one listing; a page has up to 1 MB."""


class Refused(PortError):
    """The condition of a write did not hold."""


_SPECIAL = {
    "ConditionalCheckFailedException": Refused,
    "TransactionConflictException": ServiceThrottled,
    "TransactionInProgressException": ServiceThrottled,
}
_CANCELED = "TransactionCanceledException"
_CAUSES: tuple[tuple[str, type[PortError]], ...] = (
    ("ConditionalCheckFailed", Refused),
    ("TransactionConflict", ServiceThrottled),
    ("ThrottlingError", ServiceThrottled),
    ("ProvisionedThroughputExceeded", ServiceThrottled),
)
"""Why a transaction is canceled, the one that counts first. Each of its writes has a reason of its own."""

type Write = tuple[str, Item]
"""One write of a transaction: `Put`, `Update` or `Delete`, and its arguments without the table."""


class Table:
    """One table of a DynamoDB client. Every method raises port errors, and Refused if its condition does not hold."""

    def __init__(self, client: Any, name: str, *, call_timeout_s: float) -> None:
        self._client = client
        self.name = name
        self._call_timeout_s = call_timeout_s

    async def call(self, operation: str, **arguments: Any) -> Any:
        """Calls the client's method `operation` on this table; raises ServiceUnavailable if there is no answer in time."""
        with calling(f"dynamodb {operation}", _SPECIAL):
            async with asyncio.timeout(self._call_timeout_s):
                return await getattr(self._client, operation)(TableName=self.name, **arguments)

    async def transact(self, *writes: Write) -> None:
        """Carries out all writes or none of them; raises Refused if the condition of one does not hold."""
        members = [{verb: {"TableName": self.name, **arguments}} for verb, arguments in writes]
        with calling("dynamodb transact_write_items", _SPECIAL):
            async with asyncio.timeout(self._call_timeout_s):
                try:
                    await self._client.transact_write_items(TransactItems=members)
                except ClientError as error:
                    if code_of(error) != _CANCELED:
                        raise
                    raise _canceled(error) from error

    async def get(self, row: Item) -> Item | None:
        """Reads the item with the key `row`, with strong consistency."""
        answer = await self.call("get_item", Key=row, ConsistentRead=True)
        found: Item | None = answer.get("Item")
        return found

    async def update(
        self,
        row: Item,
        *,
        change: str,
        values: Item,
        condition: str | None = None,
        names: Iterable[str] = (),
        returned: str = "NONE",
    ) -> Item:
        """Changes one item. Expressions write attribute names as `#name`; `names` defaults to the names of all values."""
        answer = await self.call(
            "update_item",
            Key=row,
            UpdateExpression=change,
            ExpressionAttributeNames={f"#{name}": name for name in names or values},
            ExpressionAttributeValues={f":{name}": value for name, value in values.items()},
            ReturnValues=returned,
            **({"ConditionExpression": condition} if condition else {}),
        )
        changed: Item = answer.get("Attributes", {})
        return changed

    async def query(self, partition: str, *names: str, between: tuple[str, str] | None = None) -> list[Item]:
        """Reads all items of one partition, page by page as `page` does."""
        found: list[Item] = []
        start: Item | None = None
        for _ in range(PAGES_MAX):
            items, start = await self.page(partition, *names, between=between, start=start)
            found += items
            if start is None:
                return found
        raise ServiceUnavailable(f"{partition} has more than {PAGES_MAX} pages in DynamoDB table {self.name}")

    async def page(
        self,
        partition: str,
        *names: str,
        between: tuple[str, str] | None = None,
        rows_max: int | None = None,
        start: Item | None = None,
    ) -> tuple[list[Item], Item | None]:
        """Reads items of one partition, sorted by sort key and with strong consistency; returns where the next page starts.

        If there are `names`, only these attributes. `between` has the lowest and the highest sort key that are wanted. A page
        has up to 1 MB and `rows_max` items.
        """
        wanted: Item = {}
        if names:
            wanted["ProjectionExpression"] = ", ".join(f"#{name}" for name in names)
            wanted["ExpressionAttributeNames"] = {f"#{name}": name for name in names}
        if rows_max is not None:
            wanted["Limit"] = rows_max
        if start is not None:
            wanted["ExclusiveStartKey"] = start
        first, last = ({":first": {"S": between[0]}}, {":last": {"S": between[1]}}) if between else ({}, {})
        page = await self.call(
            "query",
            KeyConditionExpression="pk = :pk" + (" AND sk BETWEEN :first AND :last" if between else ""),
            ExpressionAttributeValues={":pk": {"S": partition}, **first, **last},
            ConsistentRead=True,
            **wanted,
        )
        return page["Items"], page.get("LastEvaluatedKey") or None

    async def count(self, partition: str, *, start: Item, pages_max: int) -> int:
        """Counts the items of one partition behind `start`, those of `pages_max` pages at most, as they were a moment ago."""
        counted = 0
        for _ in range(pages_max):
            page = await self.call(
                "query",
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": partition}},
                Select="COUNT",
                ExclusiveStartKey=start,
            )
            counted += page["Count"]
            if not page.get("LastEvaluatedKey"):
                break
            start = page["LastEvaluatedKey"]
        return counted


def _canceled(error: ClientError) -> PortError:
    reasons = error.response.get("CancellationReasons")
    codes = [each.get("Code") for each in reasons or ()]
    cause, kind = next(
        ((code, kind) for code, kind in _CAUSES if code in codes), (_CANCELED, ServiceUnavailable)
    )
    return kind(f"dynamodb transact_write_items: {cause}")


async def each[T](calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Awaits calls, `CALLS_MAX` at a time, and returns their results. An error is raised when the calls beside it have ended."""
    results: list[T] = []
    for some in batched(calls, CALLS_MAX, strict=False):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_tried(call), name="store call") for call in some]
        for task in tasks:
            outcome = task.result()
            if isinstance(outcome, PortError):
                raise outcome
            results.append(outcome)
    return results


async def _tried[T](call: Coroutine[Any, Any, T]) -> T | PortError:
    try:
        return await call
    except PortError as error:
        return error
