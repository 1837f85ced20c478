"""Owns the options and the help of `poller peek`. What it does is imported when it is called."""

from typing import Annotated

import typer

from poller.commands.options import Json, TokenFile
from poller.domain.peeking.answers import LIMIT_DEFAULT, LIMIT_MAX

DAEMON = "http://127.0.0.1:8080"


def peek(
    mapping: Annotated[
        str,
        typer.Argument(
            metavar="MAPPING", help="UUID, or a name: of its source or function.", show_default=False
        ),
    ],
    shard: Annotated[
        str,
        typer.Argument(
            metavar="SHARD", help="Its id, its number, or an ending that only it has.", show_default=False
        ),
    ] = "",
    *,
    start: Annotated[
        str,
        typer.Option("--from", metavar="POSITION", help="Where to begin; see above.", show_default=False),
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=LIMIT_MAX, help="How many records.")
    ] = LIMIT_DEFAULT,
    url: Annotated[
        str, typer.Option("--url", "--endpoint-url", envvar="POLLER_URL", help="Where a daemon listens.")
    ] = DAEMON,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Shows records of a shard: the batch that blocks it, or those at a position. Nothing moves by it.

    Each record is shown with its key, time, size and what the mapping's filters say of it. Payloads are decoded: text, JSON, gzip,
    records of producer libraries. They are shown if the daemon has `api.show_payloads: true` and the token has the role operate.

    POSITION is fault (the batch that blocks the shard), position (where the mapping goes on), TRIM_HORIZON, LATEST, a time
    (2026-01-31T08:00:00Z, or seconds since 1970), a sequence number, or AFTER: and a sequence number. SEQUENCE:PART is one user record
    of an aggregated record. Without POSITION the batch at fault is shown if the shard is blocked, else what comes next. SHARD can
    be left out if there is one shard, or one that is blocked.

    Any daemon that has the mapping can be asked, also if another one has the shard.

    Example: poller peek stream/orders 3 --from fault --limit 5
    """
    from poller.commands.daemon_client import client_or_exit
    from poller.commands.peek.command import Asked, show_records

    asked = Asked(mapping=mapping, shard=shard, start=start, limit=limit)
    raise typer.Exit(show_records(client_or_exit(url, token_file), asked, as_json=as_json))
