"""Owns the command that the measurements of one daemon share."""

import argparse
import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def command[R: DataclassInstance](
    name: str,
    run: Callable[[float], Coroutine[Any, Any, list[R]]],
    table: Callable[[list[R]], str],
    *,
    seconds: float,
) -> None:
    """Runs `python -m benchmarks.NAME`: all cases for so long, as a table and, if it was asked for, as JSON."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    rows = asyncio.run(run(given.seconds))
    print(table(rows))
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
