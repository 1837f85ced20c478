"""Owns how commands ask a daemon's API for operations."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from poller.commands.daemon_client import DaemonClient, decoded, quoted
from poller.domain.operations import OperationPage, OperationView
from poller.domain.peeking.answers import PeekAnswer
from poller.domain.records import ShardId
from poller.domain.status import DaemonStatus

TRIES_MAX = 2
"""A request that got no answer is sent once more. An operation has an id of the command's own, so that it is stored once."""
OPERATION = "operation"


@dataclass(frozen=True, slots=True)
class DaemonApi:
    """The API of a daemon. Each method raises Unanswered."""

    client: DaemonClient

    def status(self) -> DaemonStatus:
        """What runs."""
        return decoded(self.client.get("/v1/mappings"), DaemonStatus, "status")

    def peek(self, mapping: str, *, shard: ShardId, start: str, limit: int) -> PeekAnswer:
        """Records of a shard."""
        query = urlencode({"shard": shard, "from": start, "limit": limit})
        body = self.client.get(f"/v1/mappings/{quoted(mapping)}/records?{query}")
        return decoded(body, PeekAnswer, "list of records")

    def submit(self, mapping: str, request: dict[str, Any]) -> OperationView:
        """Asks for an operation."""
        body = self._ask("POST", f"/v1/mappings/{quoted(mapping)}/operations", request)
        return decoded(body, OperationView, OPERATION)

    def operation(self, operation: str) -> OperationView:
        """One operation."""
        return decoded(self._ask("GET", f"/v1/operations/{quoted(operation)}"), OperationView, OPERATION)

    def cancel(self, operation: str) -> OperationView:
        """Cancels an operation."""
        return decoded(self._ask("DELETE", f"/v1/operations/{quoted(operation)}"), OperationView, OPERATION)

    def operations(self, **query: str | int | None) -> OperationPage:
        """A page of operations."""
        given = {name: value for name, value in query.items() if value is not None}
        return decoded(self._ask("GET", f"/v1/operations?{urlencode(given)}"), OperationPage, OPERATION)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        return self.client.ask(method, path, body, tries=TRIES_MAX)
