"""Owns `poller demo`: its options, its folder, its signals and its exit status."""

import asyncio
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from adapters.demo.console import Screen, print_json, print_report
from adapters.demo.emulator import require
from adapters.demo.load import RECORDS_MAX, RECORDS_MIN, Item, Source, load
from adapters.demo.processes import Unusable
from adapters.demo.report import Report
from adapters.demo.scenario import play
from poller.domain.wording.numbers_of import number_of
from poller.output.progress_line import ticking

RECORDS = 1200
TIMEOUT_S = 120.0
PROBLEMS_FOUND = 1
"""Exit status if some record is not where it should be."""
FAILED = 2
"""Exit status if the demo could not run."""
INTERRUPTED = 130
SEEDS = 2**32


def demo(
    *,
    records: Annotated[
        int,
        typer.Option("--records", min=RECORDS_MIN, max=RECORDS_MAX, help="Records to write, of all sources."),
    ] = RECORDS,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=SEEDS, help="For the same load again; else a random one."),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=1, max=3600, help="Seconds for everything to settle.")
    ] = TIMEOUT_S,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave configuration, store, logs and journal, and say where.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The account as JSON on stdout; progress goes to stderr.")
    ] = False,
) -> None:
    """Runs the main job on this machine alone, and accounts for every record.

    Starts an emulator of AWS, creates a Kinesis stream, a DynamoDB stream, an SQS queue and an SQS FIFO queue, writes
    records with poison among them, and runs the daemon as a process of its own. Exit status 0: every record was
    delivered in order, or is where poison goes. 1: some was not; the account says which. 2: the demo could not run.

    Example: poller demo --records 5000 --seed 7
    """
    console = Console(stderr=as_json)
    seed = random.randrange(SEEDS) if seed is None else seed
    report: Report | None = None
    status = FAILED
    try:
        with _folder(console, keep=keep) as folder:
            report = _run_demo(folder, records, seed, timeout_s=timeout_s, console=console)
    except* Unusable as group:
        for error in _leaves(group):
            print(f"poller: demo: {error}", file=sys.stderr)
    except* (KeyboardInterrupt, asyncio.CancelledError):
        status = INTERRUPTED
        print("poller: demo: interrupted; everything that it started has ended", file=sys.stderr)
    if report is None:
        raise typer.Exit(status)
    if as_json:
        print_json(report)
    else:
        print_report(report, console)
    raise typer.Exit(PROBLEMS_FOUND if report.problems else 0)


def _leaves(group: BaseExceptionGroup[Unusable]) -> Iterator[Unusable]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


def _run_demo(folder: Path, records: int, seed: int, *, timeout_s: float, console: Console) -> Report:
    require()
    items = load(records, seed)
    with Screen(console) as screen, asyncio.Runner() as runner:
        screen.print_line(f"{number_of(sum(map(len, items.values())), 'record')}, seed {seed}")
        return runner.run(_until_signal(folder, items, timeout_s=timeout_s, screen=screen))


async def _until_signal(
    folder: Path, items: Mapping[Source, Sequence[Item]], *, timeout_s: float, screen: Screen
) -> Report:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    # The runner itself cancels its task on Ctrl-C.
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    with ticking(screen.progress):
        return await play(
            folder,
            items,
            timeout_s=timeout_s,
            print_line=screen.print_line,
            show=screen.show,
            doing=screen.doing,
        )


@contextmanager
def _folder(console: Console, *, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="poller-demo-"))
    try:
        yield folder
    finally:
        if keep:
            console.print(f"configuration, store, logs and journal are in {folder}", soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
