"""Ten mappings of one stream in a whole daemon: the stream is asked as for one, and the daemon counts what it asks."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from benchmarks.function import LATENCIES
from benchmarks.shared_reads.measuring import CASES, Case, counts, started
from benchmarks.subjects import Cores, Daemon, get, stub

pytestmark = pytest.mark.acceptance

GAP_S = 0.05
SETTLE_S = 3.0
WATCHED_S = 5.0
READS_S_MAX = 5.0
COME_S_MAX = 30.0
PROCESSED = "poller_records_processed_total"


def calls(daemon: Daemon, call: str) -> float:
    """How often all mappings together made a call, as the metric says."""
    series = [line for line in get(f"{daemon.url}/metrics").splitlines() if f'call="{call}"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in series)


async def all_have_records(daemon: Daemon, mappings: int) -> None:
    """Returns when each mapping has processed a record, and so knows where it is."""
    async with asyncio.timeout(COME_S_MAX):
        while True:
            lines = get(f"{daemon.url}/metrics").splitlines()
            counted = [line.rpartition(" ")[2] for line in lines if line.startswith(PROCESSED + "{")]
            if len(counted) == mappings and all(float(each) for each in counted):
                return
            await asyncio.sleep(0.2)


async def watched(case: Case, folder: Path) -> tuple[dict[str, int], float]:
    """What the stream was asked and gave while it was watched, and how many records all functions got meanwhile."""
    cores = Cores(apart=False)
    async with AsyncExitStack() as stack:
        url = stack.enter_context(stub(cores, "limited-kinesis", "--shards", "2", "--gap", str(GAP_S)))
        (daemon,) = await started(stack, case, folder, url, cores)
        await all_have_records(daemon, case.mappings)
        await asyncio.sleep(SETTLE_S)
        before, processed = counts(url), await daemon.count()
        await asyncio.sleep(WATCHED_S)
        after = counts(url)
        processed = await daemon.count() - processed
        low, counted, high = counts(url)["reads"], calls(daemon, "GetRecords"), counts(url)["reads"]
        # A page of metrics may be a moment old, and a call is counted just before it is sent.
        assert low - 5 <= counted <= high + 2
        assert calls(daemon, "ListShards") >= 1
        return {name: after[name] - before[name] for name in after}, processed


def test_ten_mappings_of_a_busy_stream_read_each_record_once_and_those_that_do_not_share_ten_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LATENCIES, str(tmp_path / "latencies"))
    ten = {case.shared: case for case in CASES if (case.daemons, case.mappings) == (1, 10)}
    for shares, times in ((True, 1), (False, 10)):
        folder = tmp_path / f"shares {shares}"
        folder.mkdir()
        asked, processed = asyncio.run(watched(ten[shares], folder))
        # Where the machine is busy, reads may come a little closer to each other than they were sent.
        assert asked["refused"] <= asked["reads"] / 10
        assert 2 <= asked["reads"] / WATCHED_S / 2 <= READS_S_MAX
        # Ten functions get each record. What the stream gave for that is each record once, or once for each mapping.
        given = asked["records"] / (processed / 10)
        assert 0.6 * times <= given <= 1.6 * times
