"""What every place of notices does, when its destination has put notices there; over a real emulator and real files."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from adapters.aws.clients import client
from adapters.destinations.file import FileDestination
from adapters.notices import file, s3, sqs
from adapters.notices.file import SETTLED
from poller.domain.errors import InvalidConfiguration, PortError, ResourceMissing
from poller.operator_ports import NoticeSource
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


@pytest.mark.parametrize("scenario", NOTICE_SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_directory_is_a_place_of_notices(scenario: NoticeScenario, tmp_path: Path) -> None:
    async def run() -> None:
        async with destination("file", tmp_path.as_uri()) as found:
            await scenario(Place(found, "file", tmp_path.as_uri()))

    asyncio.run(run())


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
        moved = tmp_path / f"{MAPPING}.jsonl.redrive-1"
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
        beside = tmp_path / f"{MAPPING}.jsonl.redrive-1{SETTLED}"
        for number in range(3):
            await FileDestination(tmp_path).send(notice(number))
        async with notices("file", tmp_path.as_uri()) as stopped:
            (first, *_) = await stopped.read(notices_max=3)
            await settle_all()
            await stopped.remove(first)
        assert beside.exists()
        for number in range(3, 6):
            await FileDestination(tmp_path).send(notice(number))
        async with notices("file", tmp_path.as_uri()) as source:
            assert [name_of(each) for each in await read_all(source)] == ["r3", "r4", "r5"]
        await settle_all()

    asyncio.run(run())
    assert list(tmp_path.iterdir()) == []


def test_a_settled_line_counts_behind_one_that_was_cut_off(tmp_path: Path) -> None:
    async def run() -> None:
        for number in range(3):
            await FileDestination(tmp_path).send(notice(number))
        async with notices("file", tmp_path.as_uri()) as source:
            found = await read_all(source)
            with (tmp_path / f"{MAPPING}.jsonl.redrive-1{SETTLED}").open("wb") as torn:
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
