"""Owns the options and the help of `poller seek` and `poller redrive`."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from poller.commands.operations.declared import AskedDaemon, Mapping, operate_on
from poller.commands.options import Json, grouped


@dataclass(frozen=True, slots=True, kw_only=True)
class HowLong:
    """How a command goes about what may take long."""

    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be done; move, call and remove nothing.")
    ] = False
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False
    reason: Annotated[str, typer.Option("--reason", help="Why; others see it with the operation.")] = ""
    as_json: Json = False
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until it is over, and show how far it is.")
    ] = True
    wait_s: Annotated[float, typer.Option("--wait-s", min=1, max=86_400, help="Seconds to wait at most.")] = (
        86_400.0
    )


@grouped
def seek(
    mapping: Mapping,
    *,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="TRIM_HORIZON, LATEST, a time such as 2026-11-29T08:00:00Z, or a sequence number of one shard.",
            show_default=False,
        ),
    ],
    shard: Annotated[
        list[str] | None,
        typer.Option("--shard", help="A shard: its id, or the number in it. Again for more; none: all."),
    ] = None,
    skip: Annotated[
        bool, typer.Option("--skip", help="Leave out records that were not processed, on the way forward.")
    ] = False,
    how: HowLong,
    daemon: AskedDaemon,
) -> None:
    """Makes a stream go on at another position: back, to process records once more, or forward, to leave records out.

    --dry-run lists from where to where each shard would go, and what would be left out.

    Exit status 0: done; 1: failed, cancelled or not over in time; 2: refused.

    Example: poller seek orders --to 2026-11-29T08:00:00Z --reason "wrong totals since eight"
    """
    members: dict[str, Any] = {"to": to}
    if shard:
        members["shards"] = shard
    if skip:
        members["skip"] = True
    operate_on("seek", mapping, members, how=how, daemon=daemon)


@grouped
def redrive(
    mapping: Mapping,
    *,
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            help="The ARN of an on-failure queue or dead-letter queue, s3://BUCKET/PREFIX, or file:///DIRECTORY.",
            show_default=False,
        ),
    ],
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, max=1_000_000_000, help="How many notices at most.")
    ] = None,
    messages_per_s: Annotated[
        float | None,
        typer.Option(
            "--messages-per-s", min=0.001, max=1_000_000, help="How many notices in a second at most."
        ),
    ] = None,
    how: HowLong,
    daemon: AskedDaemon,
) -> None:
    """Calls the function again with batches that were given up, and removes the notice of each that succeeds.

    --dry-run lists what would be called.

    Exit status 0: done; 1: failed, cancelled, not over in time, or some notices stay; 2: refused.

    Example: poller redrive orders --from arn:aws:sqs:eu-west-1:111122223333:orders-failed
    """
    given = {"from": from_, "limit": limit, "messages_per_s": messages_per_s}
    members = {name: value for name, value in given.items() if value is not None}
    operate_on("redrive", mapping, members, how=how, daemon=daemon)


def add_long_commands(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (seek, redrive):
        app.command()(command)
