"""Owns the looks at stores: what would stand in a daemon's way. Nothing is made and no row is changed."""

import asyncio
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

from adapters.probing import asked, tried, untried
from adapters.stores.dynamodb_table import Item, check_keys, key
from adapters.stores.sqlite_file import APPLICATION_ID
from poller.errors import InvalidConfiguration, PortError, ResourceMissing
from poller.findings import Finding, Grade

SQLITE_MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
_APPLICATION = slice(68, 72)
"""Where SQLite's header has the application id, high byte first."""
_ROW_ACTIONS = (
    "dynamodb:Query",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
    "dynamodb:DeleteItem",
)


class _Refused(PortError):
    """The condition did not hold, as it never does here."""


_SPECIAL = MappingProxyType({"ConditionalCheckFailedException": _Refused})


class TableProbe:
    """A Probe over a DynamoDB table, which the daemon would make if `create` is set."""

    def __init__(self, client: Any, table: str, *, create: bool) -> None:
        self._client = client
        self._table = table
        self._create = create

    async def probe(self) -> list[Finding]:
        """Asks for the table, reads a row that does not exist, and writes under conditions that cannot hold."""
        action = "dynamodb:DescribeTable"
        call = asked(self._client, "DescribeTable", TableName=self._table)
        described = await tried(action, call, on=f"table {self._table}")
        if isinstance(described.error, ResourceMissing):
            return self._missing()
        if described.answer is None and not described.denied:
            return [described.finding, *untried(_ROW_ACTIONS, "the table could not be asked")]
        keys = [] if described.answer is None else list(_keys(described.answer["Table"], self._table))
        return [described.finding, *keys, *await self._rows()]

    def _missing(self) -> list[Finding]:
        action = "dynamodb:DescribeTable"
        if self._create:
            why = f"there is no table {self._table} yet, the first run makes it"
            return [Finding(action, Grade.OK), *untried(("dynamodb:CreateTable", *_ROW_ACTIONS), why)]
        text, remedy = (
            f"there is no DynamoDB table {self._table}",
            f"make it, or write dynamodb://{self._table}?create=true",
        )
        return [Finding(action, Grade.PROBLEM, text, remedy)]

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
        yield from (Finding("keys", Grade.PROBLEM, problem) for problem in error.problems)


class FileProbe:
    """A Probe over the file of the SQLite store, which need not exist."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def probe(self) -> list[Finding]:
        """Looks at directory and file; opens no database, since that makes files."""
        return await asyncio.to_thread(lambda: list(_file(self._path)))


def _file(path: Path) -> Iterator[Finding]:
    yield _directory(path)
    if path.exists():
        yield _content(path)


def _directory(path: Path) -> Finding:
    """The directory has to be writable, or the nearest one above it that exists: the daemon makes the others."""
    check = "directory"
    nearest = next(each for each in path.absolute().parents if each.exists())
    if not nearest.is_dir():
        return Finding(check, Grade.PROBLEM, f"{nearest} is no directory", "correct the path")
    if not os.access(nearest, os.W_OK | os.X_OK):
        text = f"{nearest} may not be written by this user"
        return Finding(check, Grade.PROBLEM, text, "correct its owner or mode, or put the store elsewhere")
    return Finding(check, Grade.OK)


def _content(path: Path) -> Finding:
    check = "file"
    if not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
        text = f"{path} is no file that this user may read and write"
        return Finding(check, Grade.PROBLEM, text, "correct its owner or mode, or put the store elsewhere")
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if header and not header.startswith(SQLITE_MAGIC):
        return Finding(check, Grade.PROBLEM, f"{path} is no SQLite database", "choose another file")
    if header and int.from_bytes(header[_APPLICATION]) not in {0, APPLICATION_ID}:
        return Finding(
            check, Grade.PROBLEM, f"{path} is a database of another program", "choose another file"
        )
    return Finding(check, Grade.OK)
