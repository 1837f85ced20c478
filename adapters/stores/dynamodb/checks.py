"""Owns the checks of the table that a daemon would use. No table is made and no row is changed."""

import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import MappingProxyType
from typing import Any

from adapters.aws.permission_checks import STEP_S_MAX, asked, tried, untried
from adapters.stores.dynamodb.calls import Table
from adapters.stores.dynamodb.table import MAPPINGS, Item, check_keys, key, mapping_of
from poller.domain.errors import InvalidConfiguration, PortError, ResourceMissing
from poller.domain.findings import Finding, Severity
from poller.domain.records import MappingId
from poller.domain.rows import Lease, MappingRow

_ROW_ACTIONS = (
    "dynamodb:Query",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
    "dynamodb:DeleteItem",
)


class _Refused(PortError):
    """The condition did not hold. The check writes with conditions that never hold."""


_SPECIAL = MappingProxyType({"ConditionalCheckFailedException": _Refused})


class TableProbe:
    """A Probe, MappingList and LeaseList of a DynamoDB table. With `create` the daemon would make a missing table.

    `read_leases` reads the leases of a mapping with their memos.
    """

    def __init__(
        self,
        client: Any,
        table: str,
        *,
        create: bool,
        read_leases: Callable[[MappingId], Awaitable[Sequence[Lease]]],
    ) -> None:
        self._client = client
        self._table = table
        self._create = create
        self._read_leases = read_leases

    async def probe(self) -> list[Finding]:
        """Describes the table, reads a row that does not exist, and writes with conditions that cannot hold."""
        action = "dynamodb:DescribeTable"
        call = asked(self._client, "DescribeTable", TableName=self._table)
        described = await tried(action, call, on=f"table {self._table}")
        if isinstance(described.error, ResourceMissing):
            return self._missing()
        if described.answer is None and not described.denied:
            return [described.finding, *untried(_ROW_ACTIONS, "the table could not be asked")]
        keys = [] if described.answer is None else list(_keys(described.answer["Table"], self._table))
        return [described.finding, *keys, *await self._rows()]

    async def mappings(self) -> list[MappingRow]:
        """Returns all rows; none if there is no table. Raises port errors."""
        try:
            items = await Table(self._client, self._table, call_timeout_s=STEP_S_MAX).query(MAPPINGS)
        except ResourceMissing:
            return []
        return [mapping_of(item) for item in items]

    async def leases(self, mapping: MappingId) -> Sequence[Lease]:
        """Returns all leases of one mapping; none if there is no table. Raises port errors."""
        try:
            return await self._read_leases(mapping)
        except ResourceMissing:
            return []

    def _missing(self) -> list[Finding]:
        action = "dynamodb:DescribeTable"
        if self._create:
            why = f"there is no table {self._table} yet, the first run makes it"
            return [Finding(action, Severity.OK), *untried(("dynamodb:CreateTable", *_ROW_ACTIONS), why)]
        text, remedy = (
            f"there is no DynamoDB table {self._table}",
            f"make it, or write dynamodb://{self._table}?create=true",
        )
        return [Finding(action, Severity.PROBLEM, text, remedy)]

    async def _rows(self) -> list[Finding]:
        absent = key("check", uuid.uuid4().hex)
        never = {"TableName": self._table, "ConditionExpression": "attribute_exists(pk)"}
        queried = {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": absent["pk"]}}
        calls: list[tuple[str, Item]] = [
            ("Query", {"TableName": self._table, "ConsistentRead": True, **queried}),
            ("GetItem", {"TableName": self._table, "Key": absent}),
            ("PutItem", {**never, "Item": absent}),
            ("UpdateItem", {**never, "Key": absent}),
            ("DeleteItem", {**never, "Key": absent}),
        ]
        return [await self._row(operation, parameters) for operation, parameters in calls]

    async def _row(self, operation: str, parameters: Item) -> Finding:
        call = asked(self._client, operation, _SPECIAL, **parameters)
        on = f"table {self._table}"
        return (await tried(f"dynamodb:{operation}", call, on=on, granted=(_Refused,))).finding


def _keys(described: Item, table: str) -> Iterator[Finding]:
    try:
        check_keys(described, table)
    except InvalidConfiguration as error:
        yield from (Finding("keys", Severity.PROBLEM, problem) for problem in error.problems)
