"""Owns the calls to one DynamoDB table: their time limit, their errors, reading all pages, and several calls at once."""

import asyncio
from collections.abc import Coroutine, Iterable
from itertools import batched
from typing import Any

from adapters.aws.calls import calling
from adapters.stores.dynamodb.table import Item
from poller.domain.errors import PortError, ServiceThrottled, ServiceUnavailable

CALLS_MAX = 16
"""Calls that one method of the store makes at once."""
PAGES_MAX = 10_000
"""Pages of one listing; a page has up to 1 MB."""


class Refused(PortError):
    """The condition of a write did not hold."""


_SPECIAL = {"ConditionalCheckFailedException": Refused, "TransactionConflictException": ServiceThrottled}


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
        """Reads all items of one partition, sorted by sort key and with strong consistency.

        If there are `names`, only these attributes. `between` has the lowest and the highest sort key that are wanted.
        """
        wanted: Item = {}
        if names:
            wanted["ProjectionExpression"] = ", ".join(f"#{name}" for name in names)
            wanted["ExpressionAttributeNames"] = {f"#{name}": name for name in names}
        first, last = ({":first": {"S": between[0]}}, {":last": {"S": between[1]}}) if between else ({}, {})
        start: Item = {}
        found: list[Item] = []
        for _ in range(PAGES_MAX):
            page = await self.call(
                "query",
                KeyConditionExpression="pk = :pk" + (" AND sk BETWEEN :first AND :last" if between else ""),
                ExpressionAttributeValues={":pk": {"S": partition}, **first, **last},
                ConsistentRead=True,
                **wanted,
                **start,
            )
            found += page["Items"]
            if not page.get("LastEvaluatedKey"):
                return found
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        raise ServiceUnavailable(f"{partition} has more than {PAGES_MAX} pages in DynamoDB table {self.name}")


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
