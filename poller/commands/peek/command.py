"""Owns how `poller peek` asks a daemon, and what it prints when there is no answer."""

import json
from dataclasses import dataclass
from urllib.parse import urlencode

from poller.commands.daemon_client import DaemonClient, Unanswered, decoded, quoted
from poller.commands.fitting import show
from poller.commands.peek.page import records_page
from poller.commands.root.problems import FAILED, print_problems
from poller.domain.peeking.answers import PeekAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which records are asked for."""

    mapping: str
    shard: str
    start: str
    limit: int

    @property
    def path(self) -> str:
        """The path of the request, with its query."""
        given = {"shard": self.shard, "from": self.start, "limit": str(self.limit)}
        query = urlencode({name: value for name, value in given.items() if value}, errors="replace")
        return f"/v1/mappings/{quoted(self.mapping)}/records?{query}"


def show_records(daemon: DaemonClient, asked: Asked, *, as_json: bool) -> int:
    """Asks and prints; returns the exit status."""
    if not asked.mapping.strip():
        print_problems(["peek: MAPPING: is empty; write a UUID or a name, as `poller status` shows them"])
        return FAILED
    try:
        body = daemon.get(asked.path)
        answer = decoded(body, PeekAnswer, "list of records")
    except Unanswered as error:
        print_problems([str(error)])
        return FAILED
    if as_json:
        # Payloads may contain what controls a terminal, so everything but plain ASCII is escaped.
        print(json.dumps(json.loads(body)))
    else:
        show(lambda screen: records_page(answer, screen))
    return 0
