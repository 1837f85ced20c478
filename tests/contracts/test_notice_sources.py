"""What every place of notices does, when its destination has put notices there; over a real emulator and real files."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.aws.clients import client
from adapters.destinations.file import FileDestination
from adapters.notices import file, s3, sqs
from adapters.notices.file import SETTLED
from poller.domain.errors import InvalidConfiguration, PortError, ResourceMissing
from poller.operator_ports import HoldingNotices, NoticeSource
from poller.plugins import GivenPlugins, opened
from poller.ports import Destination
from poller.testing.destination import MAPPING, notice
from poller.testing.notice_source import NOTICE_SCENARIOS, NoticeScenario, name_of, read_all
from tests.contracts.destinations import REGION, destination
from tests.contracts.invokers import environment
from tests.contracts.worlds import fresh_name
from tests.emulators import Emulator, ministack

PLACES = GivenPlugins({("notices", each.plugin.name): each.plugin for each in (file, s3, sqs)})


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """SQS and S3."""
    with ministack() as running:
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account of its own in the emulator."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "111122223333")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unused")


class Place:
    """One place of notices."""

    def __init__(self, found: Destination, kind: str, place: str, url: str | None = None) -> None:
        self.destination = found
        self._kind = kind
        self._place = place
        self._url = url

    def opening(self) -> AbstractAsyncContextManager[NoticeSource]:
        return notices(self._kind, self._place, self._url)


@asynccontextmanager
async def notices(kind: str, place: str, url: str | None = None) -> AsyncIterator[NoticeSource]:
    """The notices of a place, open."""
    given = {"place": place, "mapping": MAPPING, "hold_s": 60.0}
    async with (
        environment(region=REGION, endpoint_url=url) as env,
        opened(PLACES, "notices", kind, given, env) as found,
    ):
        yield found


@asynccontextmanager
async def queue(emulator: Emulator) -> AsyncIterator[Place]:
    """A new queue."""
    name = fresh_name()
    arn = f"arn:aws:sqs:{REGION}:111122223333:{name}"
    async with environment(region=REGION, endpoint_url=emulator.url) as env:
        await (await client(env, "sqs", REGION)).create_queue(QueueName=name)
    async with destination("sqs", arn, emulator.url) as found:
        yield Place(found, "sqs", arn, emulator.url)


@asynccontextmanager
async def bucket(emulator: Emulator) -> AsyncIterator[Place]:
    """A new bucket."""
    name = fresh_name()
    async with environment(region=REGION, endpoint_url=emulator.url) as env:
        await (await client(env, "s3", REGION)).create_bucket(
            Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
    async with destination("s3", f"arn:aws:s3:::{name}", emulator.url) as found:
        yield Place(found, "s3", f"s3://{name}/aws/lambda/{MAPPING}", emulator.url)


@pytest.mark.parametrize("scenario", NOTICE_SCENARIOS, ids=lambda scenario: scenario.__name__)
@pytest.mark.parametrize("made", [queue, bucket], ids=["sqs", "s3"])
def test_a_service_of_aws_is_a_place_of_notices(
    scenario: NoticeScenario,
    made: Callable[[Emulator], AbstractAsyncContextManager[Place]],
    emulator: Emulator,
) -> None:
    async def run() -> None:
        async with made(emulator) as place:
            await scenario(place)

    asyncio.run(run())


def test_a_notice_of_a_queue_is_held_back_until_it_is_removed(emulator: Emulator) -> None:
    async def run() -> None:
        async with queue(emulator) as place, place.opening() as source, place.opening() as other:
            assert isinstance(source, HoldingNotices)
            assert isinstance(other, HoldingNotices)
            await place.destination.send(notice(1))
            (found,) = await source.read(notices_max=1)
            assert await source.hold(found)
            assert (await source.held_by_others(), await other.held_by_others()) == (0, 1)
            assert (await other.read(notices_max=1), other.seen_all) == ([], True)
            await source.remove(found)
            assert await other.held_by_others() == 0

    asyncio.run(run())


NAMES = {
    "no such bucket": ("there-is-none", "x"),
    "no name of a bucket": ("a/b?c#", "x"),
    "an ARN": ("arn:aws:s3:eu-west-1:111122223333:accesspoint/x", "x"),
    "half an ARN": ("arn:aws:s3:::", "x"),
    "a directory bucket": ("x--usw2-az1--x-s3", "x"),
    "a path": ("bucket", "../../x"),
    "line ends": ("bucket", "\r\n\0x"),
    "nothing": ("", ""),
    "long": ("b" * 3_000, "k" * 3_000),
    "half of a surrogate pair": ("bucket", "\ud800"),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES.keys())
def test_an_object_that_a_notice_names_and_that_cannot_be_is_an_error_of_the_port(
    names: tuple[str, str], emulator: Emulator
) -> None:
    """A notice is a text from outside, and one of them must not end the redrive of all others."""

    async def run() -> None:
        async with queue(emulator) as place, place.opening() as source:
            with pytest.raises(PortError):
                await source.payload(*names)

    asyncio.run(run())


@pytest.mark.parametrize("scenario", NOTICE_SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_directory_is_a_place_of_notices(scenario: NoticeScenario, tmp_path: Path) -> None:
    async def run() -> None:
        async with destination("file", tmp_path.as_uri()) as found:
            await scenario(Place(found, "file", tmp_path.as_uri()))

    asyncio.run(run())


def moved_files(folder: Path) -> list[Path]:
    """The files that were moved away."""
    found = folder.glob(f"{MAPPING}.jsonl.redrive-*")
    return sorted(each for each in found if not each.name.endswith(SETTLED))


def test_a_directory_without_notices_left_has_no_files_left(tmp_path: Path) -> None:
    async def run() -> None:
        for number in range(3):
            await FileDestination(tmp_path).send(notice(number))
        async with notices("file", tmp_path.as_uri()) as source:
            for each in await read_all(source):
                await source.remove(each)

    asyncio.run(run())
    assert list(tmp_path.iterdir()) == []


def test_who_was_killed_in_the_middle_leaves_what_is_not_settled_and_new_notices_come_behind_it(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        for number in range(4):
            await FileDestination(tmp_path).send(notice(number))
        killed = notices("file", tmp_path.as_uri())
        source = await killed.__aenter__()
        for each in (await source.read(notices_max=3))[:2]:
            await source.remove(each)
        (moved,) = moved_files(tmp_path)
        with moved.with_name(moved.name + SETTLED).open("ab") as torn:
            torn.write(b"12")
        await FileDestination(tmp_path).send(notice(4))
        async with notices("file", tmp_path.as_uri()) as again:
            assert [name_of(each) for each in await read_all(again)] == ["r2", "r3", "r4"]

    asyncio.run(run())


def test_a_line_counts_as_settled_only_in_the_file_that_it_was_settled_in(tmp_path: Path) -> None:
    """The places of settled lines outlive their file if a daemon is killed between the two, or goes on after it was stopped."""

    async def settle_all() -> None:
        async with notices("file", tmp_path.as_uri()) as source:
            for each in await read_all(source):
                await source.remove(each)

    async def run() -> None:
        for number in range(3):
            await FileDestination(tmp_path).send(notice(number))
        async with notices("file", tmp_path.as_uri()) as stopped:
            (moved,) = moved_files(tmp_path)
            (first, *_) = await stopped.read(notices_max=3)
            await settle_all()
            await stopped.remove(first)
        assert await asyncio.to_thread((tmp_path / f"{moved.name}{SETTLED}").exists)
        assert not await asyncio.to_thread(moved.exists)
        for number in range(3, 6):
            await FileDestination(tmp_path).send(notice(number))
        async with notices("file", tmp_path.as_uri()) as source:
            assert [name_of(each) for each in await read_all(source)] == ["r3", "r4", "r5"]
        await settle_all()

    asyncio.run(run())
    assert list(tmp_path.iterdir()) == []


async def settled(folder: Path, count: int) -> list[str]:
    """The next notices, which are removed."""
    async with notices("file", folder.as_uri()) as source:
        found = [each for _ in range(count) for each in await source.read(notices_max=1)]
        for each in found:
            await source.remove(each)
    return [name_of(each) for each in found]


@pytest.mark.parametrize("step", [(file, "_rename"), (Path, "unlink")], ids=["moving", "removing"])
def test_a_worker_that_is_stopped_in_the_middle_of_a_step_loses_no_notice_of_a_later_redrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str]
) -> None:
    """It has decided what it moves or removes, and goes on when another one has finished and a later redrive has begun."""
    made, do = FileDestination(tmp_path), getattr(*step)

    async def meanwhile() -> None:
        await settled(tmp_path, 3)
        await made.send(notice(3))
        await made.send(notice(4))
        assert await settled(tmp_path, 1) == ["r3"]
        await made.send(notice(5))

    def stopped(*given: Any, **more: Any) -> Any:
        monkeypatch.setattr(*step, do)
        asyncio.run(meanwhile())
        return do(*given, **more)

    async def run() -> list[str]:
        for number in range(3):
            await made.send(notice(number))
        monkeypatch.setattr(*step, stopped)
        taken = await settled(tmp_path, 3)
        return taken + await settled(tmp_path, 3)

    found = asyncio.run(run())
    assert {"r4", "r5"} <= set(found)
    assert list(tmp_path.iterdir()) == []


async def read_once(place: Path, *, look: bool) -> None:
    """Reads the notices of a directory. Raises TimeoutError if that holds somebody up."""
    opening = file.plugin.look if look else file.plugin.open
    assert opening is not None
    settings = file.DirectorySettings(place=place.as_uri(), mapping=MAPPING)
    async with asyncio.timeout(5), environment() as env, opening(settings, env) as found:
        assert isinstance(found, file.DirectoryNotices)
        await found.read(notices_max=5)


@pytest.mark.parametrize("name", ["", ".redrive-7", f".redrive-7{SETTLED}"])
@pytest.mark.parametrize("look", [False, True])
def test_what_is_no_file_is_an_error_and_holds_nobody_up(tmp_path: Path, name: str, look: bool) -> None:
    def link(path: Path) -> None:
        path.symlink_to(tmp_path / "elsewhere")

    (tmp_path / "elsewhere").touch()

    async def run() -> None:
        for odd in (os.mkfifo, Path.mkdir, link):
            place = tmp_path / odd.__name__
            place.mkdir()
            await FileDestination(place).send(notice(1))
            moved = place / f"{MAPPING}.jsonl.redrive-7"
            (place / f"{MAPPING}.jsonl").rename(moved)
            path = place / f"{MAPPING}.jsonl{name}"
            path.unlink(missing_ok=True)
            odd(path)
            with pytest.raises(PortError):
                await read_once(place, look=look)
            assert name != f".redrive-7{SETTLED}" or moved.exists()

    asyncio.run(run())


@pytest.mark.parametrize("look", [False, True])
def test_files_that_no_redrive_has_named_hold_nothing_up_and_stay(tmp_path: Path, look: bool) -> None:
    """As copies that people make. A number has one name only, so that no file is taken for another one."""
    present = tmp_path / f"{MAPPING}.jsonl"
    odd = [
        present.with_name(f"{present.name}{end}")
        for end in (".redrive-07", ".redrive-00", ".redrive-7.old", ".redrive-", ".redrive-٣", ".old")
    ]

    async def run() -> None:
        await FileDestination(tmp_path).send(notice(1))
        present.rename(present.with_name(f"{present.name}.redrive-7"))
        for each in odd:
            each.write_bytes(b"{}\n")
        await read_once(tmp_path, look=look)
        async with notices("file", tmp_path.as_uri()) as source:
            found = await read_all(source)
            assert [name_of(each) for each in found] == ["r1"]
            await source.remove(found[0])

    asyncio.run(run())
    assert sorted(tmp_path.iterdir()) == sorted(odd)


def test_a_settled_line_counts_behind_one_that_was_cut_off(tmp_path: Path) -> None:
    async def run() -> None:
        for number in range(3):
            await FileDestination(tmp_path).send(notice(number))
        async with notices("file", tmp_path.as_uri()) as source:
            found = await read_all(source)
            (moved,) = moved_files(tmp_path)
            with (tmp_path / f"{moved.name}{SETTLED}").open("wb") as torn:
                torn.write(b"1234")
            await source.remove(found[0])
            await source.remove(found[2])
        async with notices("file", tmp_path.as_uri()) as source:
            assert [name_of(each) for each in await read_all(source)] == ["r1"]

    asyncio.run(run())


def test_a_look_moves_no_file_away(tmp_path: Path) -> None:
    async def run() -> None:
        await FileDestination(tmp_path).send(notice(1))
        look = file.plugin.look
        assert look is not None
        settings = file.DirectorySettings(place=tmp_path.as_uri(), mapping=MAPPING)
        async with environment() as env, look(settings, env) as found:
            assert isinstance(found, file.DirectoryNotices)
            assert [name_of(each) for each in await read_all(found)] == ["r1"]

    asyncio.run(run())
    assert [each.name for each in tmp_path.iterdir()] == [f"{MAPPING}.jsonl"]


def test_lines_that_are_no_notices_are_read_too(tmp_path: Path) -> None:
    """The rules say what is wrong with them. An empty line is nothing."""

    async def run() -> None:
        (tmp_path / f"{MAPPING}.jsonl").write_bytes(b"{}\n\n\xff\xfe\ntorn")
        async with notices("file", tmp_path.as_uri()) as source:
            assert [each.document for each in await read_all(source)] == [b"{}\n", b"\xff\xfe\n", b"torn"]

    asyncio.run(run())


def test_no_notice_is_lost_while_a_file_is_moved_away(tmp_path: Path) -> None:
    """Writers that have opened the file when it is moved write into the new one."""
    written = 200

    async def run() -> None:
        found = FileDestination(tmp_path)
        read: list[str] = []

        async def write() -> None:
            for number in range(written):
                await found.send(notice(number))

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write())
            while not writing.done():
                async with notices("file", tmp_path.as_uri()) as source:
                    for each in await read_all(source):
                        read.append(name_of(each))
                        await source.remove(each)
        async with notices("file", tmp_path.as_uri()) as source:
            read += [name_of(each) for each in await read_all(source)]
        assert sorted(read) == sorted(f"r{number}" for number in range(written))

    asyncio.run(run())


@pytest.mark.parametrize(
    ("kind", "place", "error"),
    [
        ("file", "file:///there/is/no/such/directory", ResourceMissing),
        ("file", "file://host/directory", InvalidConfiguration),
        ("file", "file:///directory?of=what", InvalidConfiguration),
        ("file", "file:///directory#1", InvalidConfiguration),
        ("sqs", "arn:aws:sqs:eu-west-1:111122223333:failed.fifo", InvalidConfiguration),
        ("s3", "s3://", InvalidConfiguration),
        ("sqs", f"arn:aws:sqs:{REGION}:111122223333:missing", ResourceMissing),
        ("s3", "s3://missing-bucket/prefix", ResourceMissing),
    ],
)
def test_a_place_that_is_not_there_is_an_error(
    kind: str, place: str, error: type[PortError], emulator: Emulator
) -> None:
    async def run() -> None:
        async with notices(kind, place, emulator.url) as source:
            await source.read(notices_max=1)

    with pytest.raises(error):
        asyncio.run(run())
