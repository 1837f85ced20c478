"""The stream of updates over real sockets: what comes first and then, who gets it, and what becomes of readers that are slow or many."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import pytest

from adapters.control.live import producer, readers
from adapters.control.live.events import ENDED_MAX, OPERATION_BYTES_MAX, encoded
from adapters.control.live.page_files import page_files, version
from adapters.control.live.readers import PIECE_BYTES_MAX, READERS_MAX, readers_max
from adapters.control.openapi.document import document
from adapters.control.server import open_server
from adapters.control.settings import ApiSettings, ServerSettings
from poller.domain.access import Reads
from poller.domain.mapping_api import ApiError, ApiErrorType
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationRequest,
    OperationState,
    PartResult,
)
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.rows import MappingState
from poller.domain.status import DaemonStatus, LaneStatus, ShardStatus
from poller.domain.telemetry.history import HistoryPoint, MappingHistory, MappingPoint, RecentHistory
from poller.domain.untrusted.rendering import as_json
from poller.output.log_fields import EVENT
from poller.plugins import Environment
from poller.refused_requests import Strangers
from poller.testing.telemetry_events import MAPPING, SetClock
from tests.adapters.control.operation_control import OperationModel
from tests.adapters.control.serving import (
    STATUS,
    STREAM,
    LoopFactory,
    Running,
    Setting,
    View,
    on_both_loops,
    on_loop,
    serving,
    validate,
)

PAGE = version(page_files())
FIRST = ["caller", "status", "operations", "history"]
TOKENS = "looker: {token: see-1, role: view}\ncarer: {token: run-2, role: operate}\nboss: all-3\n"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of the product takes some hundredths here."""
    monkeypatch.setattr(producer, "LOOK_S", 0.02)
    monkeypatch.setattr(producer, "LOOK_S_MAX", 0.05)
    monkeypatch.setattr(producer, "ENDED_AGAIN_S", 0.02)
    monkeypatch.setattr(producer, "WORKERS_S", 0.05)
    monkeypatch.setattr(readers, "COMMENT_S", 0.05)
    monkeypatch.setattr(readers, "CHECK_S", 0.1)


@pytest.fixture(name="tokens")
def _tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.yaml"
    file.write_text(TOKENS)
    file.chmod(0o600)
    return file


@dataclass
class Kept:
    """A history that tests move on."""

    ended: int = 0

    def steps(self) -> int:
        return self.ended

    def point(self) -> HistoryPoint:
        return HistoryPoint(
            now=Epoch(15.0 * self.ended), mappings={MAPPING: MappingPoint(failures=self.ended)}
        )

    def slices(self, mapping: MappingId | None = None) -> Generator[None, None, RecentHistory]:
        yield
        failures = tuple(range(1, self.ended + 1))
        found = MappingHistory(records_per_s=tuple(map(float, failures)), failures=failures)
        known = {MAPPING: found} if mapping in {None, MAPPING} else {}
        return RecentHistory(worker="w", now=Epoch(15.0 * self.ended), mappings=known)


class Stream:
    """What a reader gets."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._read = bytearray()
        self.comments = 0

    async def next(self) -> tuple[str, Any]:
        """The next event; raises EOFError at the end."""
        name = ""
        while True:
            word, _, text = (await self._line()).partition(": ")
            match word:
                case "event":
                    name = text
                case "data":
                    return name, json.loads(text)
                case ":":
                    self.comments += 1

    async def _line(self) -> str:
        while (end := self._read.find(b"\n")) < 0:
            more = await self._response.content.readany()
            if not more:
                raise EOFError
            self._read += more
        line = self._read[:end].decode()
        del self._read[: end + 1]
        return line

    async def first(self) -> dict[str, Any]:
        """The first events."""
        found = [await self.next() for _ in FIRST]
        assert [name for name, _ in found] == FIRST
        return dict(found)

    async def until(self, wanted: str) -> Any:
        """The value of the next event of this name."""
        while True:
            name, value = await self.next()
            if name == wanted:
                return value

    async def end(self) -> str:
        """Waits for the end, and says whether it is whole or broken off."""
        try:
            while True:
                await self.next()
        except EOFError:
            return "whole"
        except aiohttp.ClientError:
            return "broken off"


@asynccontextmanager
async def reading(run: Running, token: str = "") -> AsyncIterator[Stream]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with run.client.get(run.url + "/v1/updates", headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield Stream(response)


@asynccontextmanager
async def deaf(run: Running) -> AsyncIterator[socket.socket]:
    """A client that asks for updates and reads nothing."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, (run.server.address.host, run.server.address.port))
        await loop.sock_sendall(sock, b"GET /v1/updates HTTP/1.1\r\nHost: h\r\n\r\n")
        yield sock


async def wait_for_end(sock: socket.socket) -> None:
    """Reads until the server has ended the connection. A stream that goes on would never end."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        while await loop.sock_recv(sock, 1 << 16):
            pass


def write(file: Path, text: str) -> None:
    file.write_text(text)


@on_both_loops
def test_a_reader_gets_everything_first_and_then_what_changes(loop_factory: LoopFactory) -> None:
    async def use(run: Running) -> None:
        async with reading(run) as stream:
            first = await stream.first()
            assert first["caller"] == {"name": None, "role": None, "writes": False, "page": PAGE}
            validate(first["status"], "DaemonStatus")
            assert first["status"] == (await run.get("/v1/mappings"))[1]
            assert first["operations"] == {"open": [], "ended": []}
            validate(first["history"], "RecentHistory")
            run.view.now = replace(STATUS, ready=False, problems=("no",))
            assert await stream.until("changed") == {"ready": False, "problems": ["no"]}
            run.view.now = replace(STATUS, mappings=(STREAM,))
            assert (await stream.until("status"))["mappings"] == first["status"]["mappings"][:1]

    serving(use, Setting(loop_factory=loop_factory))


def test_what_changes_of_a_mapping_and_of_a_shard() -> None:
    async def use(run: Running) -> None:
        async with reading(run) as stream:
            await stream.first()
            shard = replace(STREAM.shards[0], state="blocked")
            changed = replace(STREAM, state=MappingState.BROKEN, shards=(shard,))
            run.view.now = replace(STATUS, mappings=(changed, *STATUS.mappings[1:]))
            found = await stream.until("changed")
            assert set(found) == {"mappings", "shards"}
            assert [each["state"] for each in found["mappings"]] == ["Broken"]
            assert [each["state"] for each in found["shards"][MAPPING]] == ["blocked"]

    serving(use)


def test_all_readers_get_the_same_and_one_that_comes_later_gets_everything() -> None:
    async def use(run: Running) -> None:
        async with reading(run) as one, reading(run) as other:
            await one.first()
            await other.first()
            run.view.now = replace(STATUS, notes=("n",))
            assert await one.until("changed") == await other.until("changed") == {"notes": ["n"]}
            async with reading(run) as late:
                assert (await late.first())["status"]["notes"] == ["n"]
                run.view.now = replace(STATUS, notes=("m",))
                for each in (one, other, late):
                    assert await each.until("changed") == {"notes": ["m"]}

    serving(use)


def test_an_update_of_a_thousand_busy_shards_is_small() -> None:
    """Each of them reads and calls its function all the time."""

    def busy(number: int) -> DaemonStatus:
        lanes = (LaneStatus(lane="0", state="invoking" if number % 2 else "idle", attempts=1),)
        shards = tuple(
            ShardStatus(
                shard=ShardId(f"shardId-{shard:012d}"),
                state="reading",
                position=f"AFTER:{number:056d}",
                behind_ms=number,
                owner="poller-0",
                lanes=lanes,
            )
            for shard in range(1_000)
        )
        return replace(STATUS, mappings=(replace(STREAM, shards=shards),))

    async def use(run: Running) -> None:
        run.view.now = busy(0)
        async with reading(run) as stream:
            status = (await stream.first())["status"]
            assert len(status["mappings"][0]["shards"]) == 1_000
            assert len(as_json(status)) < 500_000
            for number in range(1, 8):
                run.view.now = busy(number)
                found = await stream.until("changed")
                assert [each["behind_ms"] for each in found["shards"][MAPPING]] == [number] * 200
                assert len(as_json(found)) < 100_000
            run.view.now = replace(run.view.now, mappings=(replace(STREAM, shards=()),))
            assert (await stream.until("status"))["mappings"][0]["shards"] == []

    serving(use)


def test_a_comment_shows_that_the_connection_lives() -> None:
    async def use(run: Running) -> None:
        async with reading(run) as stream:
            await stream.first()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await stream.next()
            assert stream.comments > 0

    serving(use)


def test_nothing_is_asked_for_while_nobody_reads() -> None:
    @dataclass
    class Counting(View):
        asked: int = 0

        async def fleet(self, **_: Any) -> DaemonStatus:
            self.asked += 1
            return self.now

    view = Counting()

    async def use(run: Running) -> None:
        async with reading(run) as stream:
            await stream.first()
        # The server notices with the next comment that the reader has gone.
        before = -1
        while before != view.asked + view.refreshed:
            before = view.asked + view.refreshed
            await asyncio.sleep(0.3)
        async with reading(run) as stream:
            await stream.first()
        assert view.asked > 1

    serving(use, Setting(view))


def test_a_bug_in_a_look_ends_the_readers_and_not_the_port(caplog: pytest.LogCaptureFixture) -> None:
    @dataclass
    class Broken(View):
        broken: bool = False

        async def fleet(self, **_: Any) -> DaemonStatus:
            if self.broken:
                raise RuntimeError("a bug")
            return self.now

    view = Broken()

    async def use(run: Running) -> None:
        async with reading(run) as stream:
            await stream.first()
            view.broken = True
            assert await stream.end() == "whole"
        assert (await run.get("/healthz"))[0] == 200
        view.broken = False
        async with reading(run) as stream:
            await stream.first()

    serving(use, Setting(view))
    assert {getattr(each, EVENT, "") for each in caplog.records if each.levelname == "ERROR"} == {
        "updates_failed"
    }
    assert "a bug" in caplog.text


def test_the_history_comes_whole_and_then_step_by_step() -> None:
    kept = Kept(2)

    async def use(run: Running) -> None:
        async with reading(run) as stream:
            history = (await stream.first())["history"]
            assert history["mappings"][MAPPING]["failures"] == [1, 2]
            kept.ended = 3
            point = await stream.until("point")
            assert (point["now"], point["mappings"][MAPPING]["failures"]) == (45.0, 3)
            # Steps were missed, so that a point would leave a gap.
            kept.ended = 6
            assert (await stream.until("history"))["mappings"][MAPPING]["failures"] == [1, 2, 3, 4, 5, 6]

    serving(use, Setting(history=kept))


def test_the_history_can_be_read_alone() -> None:
    async def use(run: Running) -> None:
        status, body, _ = await run.get("/v1/history")
        validate(body, "RecentHistory")
        assert (status, body["step_s"], list(body["mappings"])) == (200, 15.0, [MAPPING])
        status, body, _ = await run.get(f"/v1/history?mapping={MAPPING.upper()}")
        assert (status, list(body["mappings"])) == (200, [MAPPING])
        status, body, _ = await run.get("/v1/history?mapping=x")
        assert (status, body["error"]) == (404, "not_found")
        validate(body, "Error")

    serving(use, Setting(history=Kept(1), api=ApiSettings(page=False, allowed_hosts=("h",))))
    assert serving(lambda run: run.get("/v1/history"))[0] == 501


def operation(name: str, *, ended: float | None = None, **more: Any) -> Operation:
    return Operation(
        operation=OperationId(name),
        mapping=MAPPING,
        request=OperationRequest(action=Action.SKIP, **more),
        created=Epoch(1.0),
        state=OperationState.RUNNING if ended is None else OperationState.DONE,
        ended=None if ended is None else Epoch(ended),
    )


def test_operations_come_when_they_change_and_those_that_ended_last() -> None:
    model = OperationModel()
    model.known = {OperationId(f"old-{n}"): operation(f"old-{n}", ended=n) for n in range(ENDED_MAX + 5)}

    async def use(run: Running) -> None:
        async with reading(run) as stream:
            found = (await stream.first())["operations"]
            if not found["ended"]:
                # The store is asked beside the first look.
                found = await stream.until("operations")
            assert [each["id"] for each in found["ended"][:2]] == [
                f"old-{ENDED_MAX + 4}",
                f"old-{ENDED_MAX + 3}",
            ]
            assert (found["open"], len(found["ended"])) == ([], ENDED_MAX)
            validate(found["ended"][0], "OperationView")
            submitted = await model.submit(MAPPING, {"action": "retry"}, by="b")
            assert [each["id"] for each in (await stream.until("operations"))["open"]] == [
                submitted.operation
            ]
            await model.cancel(submitted.operation, by="b")
            model.known[submitted.operation] = replace(model.known[submitted.operation], ended=Epoch(1e9))
            found = await stream.until("operations")
            while found["ended"][0]["id"] != submitted.operation:
                assert found["open"] == []
                found = await stream.until("operations")
            assert found["ended"][0]["state"] == "cancelled"

    serving(use, Setting(operations=model))


def test_updates_come_while_the_store_does_not_list_operations() -> None:
    model = OperationModel(refusal=ApiError(ApiErrorType.SERVICE, "no answer"))

    async def use(run: Running) -> None:
        async with reading(run) as stream:
            assert (await stream.first())["operations"] == {"open": [], "ended": []}
            run.view.now = replace(STATUS, ready=False)
            assert await stream.until("changed") == {"ready": False}
            model.known = {OperationId("old"): operation("old", ended=1.0)}
            model.refusal = None
            assert [each["id"] for each in (await stream.until("operations"))["ended"]] == ["old"]

    serving(use, Setting(operations=model))


def test_a_long_operation_is_cut() -> None:
    parts = {f"shard-{n}": PartResult(state=OperationState.DONE, result="x" * 100) for n in range(500)}
    records = [str(n) for n in range(50_000)]
    long = replace(
        operation("long", members={"records": records}),
        notes={"records": records},
        parts=parts,
        wanted=tuple(parts),
    )
    found = json.loads(encoded(long))
    validate(found, "OperationView")
    assert (found["members"], found["notes"]) == ({}, {})
    assert list(found["parts"]) == list(parts)[: len(found["parts"])] != []
    assert len(encoded(long)) <= OPERATION_BYTES_MAX
    assert json.loads(encoded(operation("short", members={"discard": True})))["members"] == {"discard": True}


CALLERS = {
    "": {"name": None, "role": None, "writes": False, "page": PAGE},
    "unknown": {"name": None, "role": None, "writes": False, "page": PAGE},
    "see-1": {"name": "looker", "role": "view", "writes": False, "page": PAGE},
    "run-2": {"name": "carer", "role": "operate", "writes": True, "page": PAGE},
    "all-3": {"name": "boss", "role": "admin", "writes": True, "page": PAGE},
}


@pytest.mark.parametrize("token", CALLERS)
def test_the_first_event_says_who_reads(token: str, tokens: Path) -> None:
    async def use(run: Running) -> None:
        async with reading(run, token) as stream:
            assert (await stream.first())["caller"] == CALLERS[token]

    serving(use, Setting(api=ApiSettings(tokens_file=tokens)))


def test_where_changes_need_no_credential_no_page_may_ask_for_one(tokens: Path) -> None:
    async def use(run: Running) -> None:
        async with reading(run, "all-3") as stream:
            assert (await stream.first())["caller"] == {
                "name": "boss",
                "role": "admin",
                "writes": False,
                "page": PAGE,
            }

    serving(use, Setting(api=ApiSettings(tokens_file=tokens, allow_unauthenticated=True)))


def closed(tokens: Path) -> Setting:
    return Setting(api=ApiSettings(tokens_file=tokens, reads=Reads.TOKEN))


def test_without_a_token_there_is_nothing_where_reads_need_one(tokens: Path) -> None:
    async def use(run: Running) -> None:
        for path in ("/v1/updates", "/v1/history"):
            assert (await run.get(path))[0] == 401
        assert (await run.get("/"))[0] == 200

    serving(use, closed(tokens))


def test_a_token_that_is_taken_away_ends_its_stream_and_no_other(tokens: Path) -> None:
    async def use(run: Running) -> None:
        async with reading(run, "see-1") as one, reading(run, "run-2") as other:
            await one.first()
            await other.first()
            write(tokens, "carer: {token: run-2, role: operate}\n")
            assert await one.end() == "whole"
            run.view.now = replace(STATUS, ready=False)
            assert await other.until("changed") == {"ready": False}

    serving(use, closed(tokens))


def test_a_token_that_gets_another_role_is_shown_with_it(tokens: Path) -> None:
    async def use(run: Running) -> None:
        async with reading(run, "see-1") as stream:
            await stream.first()
            write(tokens, "looker: {token: see-1, role: admin}\n")
            assert await stream.until("caller") == {
                "name": "looker",
                "role": "admin",
                "writes": True,
                "page": PAGE,
            }

    serving(use, closed(tokens))


def test_the_thirty_third_reader_is_refused_and_comes_in_when_another_has_gone() -> None:
    async def use(run: Running) -> None:
        async with asyncio.TaskGroup() as tasks:
            leave = asyncio.Event()

            async def stay() -> None:
                async with reading(run) as stream:
                    await stream.first()
                    inside.release()
                    await leave.wait()

            inside = asyncio.Semaphore(0)
            for _ in range(READERS_MAX):
                tasks.create_task(stay(), name="reader")
            for _ in range(READERS_MAX):
                await inside.acquire()
            status, body, headers = await run.get("/v1/updates")
            assert (status, body["error"], headers["Retry-After"]) == (503, "service_unavailable", "15")
            assert (await run.get("/healthz"))[0] == 200
            leave.set()
        for _ in range(1_000):
            status, _, _ = await run.get("/v1/updates")
            if status == 200:
                break
            await asyncio.sleep(0.02)
        assert status == 200

    serving(use)


@pytest.mark.parametrize(("connections", "expected"), [(1, 1), (3, 1), (40, 10), (256, 32), (10_000, 32)])
def test_a_port_of_few_connections_has_few_readers(connections: int, expected: int) -> None:
    assert readers_max(connections) == expected


@on_both_loops
def test_a_reader_that_takes_nothing_is_ended_and_the_others_go_on(loop_factory: LoopFactory) -> None:
    long = tuple("x" * 1000 for _ in range(2_000))

    async def use(run: Running) -> None:
        async with deaf(run) as sock, reading(run) as stream:
            await stream.first()
            # Each update has two megabytes. What waits for one reader is limited.
            for number in range(readers.WAITING_MAX + 20):
                run.view.now = replace(STATUS, notes=(*long, str(number)))
                assert (await stream.until("changed"))["notes"][-1] == str(number)
            await wait_for_end(sock)
            run.view.now = STATUS
            assert (await stream.until("changed"))["notes"] == []

    serving(use, Setting(loop_factory=loop_factory))


@on_both_loops
def test_a_reader_that_takes_no_piece_in_time_is_ended(
    loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "TAKE_S", 0.2)

    async def use(run: Running) -> None:
        run.view.now = replace(STATUS, notes=tuple("x" * PIECE_BYTES_MAX for _ in range(400)))
        async with deaf(run) as sock:
            await asyncio.sleep(1.0)
            await wait_for_end(sock)
        async with reading(run) as stream:
            await stream.first()

    serving(use, Setting(loop_factory=loop_factory))


@on_both_loops
@pytest.mark.parametrize("slow", [False, True], ids=["reading", "with a client that reads nothing"])
def test_the_end_of_the_server_ends_streams(loop_factory: LoopFactory, slow: bool) -> None:
    """A stream ends whole. One that went on would be broken off after CLOSE_S, and the client would see an error."""
    view = View(replace(STATUS, notes=tuple("x" * PIECE_BYTES_MAX for _ in range(400)))) if slow else View()

    async def run() -> str:
        settings = ServerSettings(listen="127.0.0.1:0", api=ApiSettings(allowed_hosts=("h",)))
        async with open_server(settings, Environment(clock=SetClock(), strangers=Strangers())) as server:
            async with asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as client:
                served = tasks.create_task(server.serve(view, ()), name="serve")
                await server.bound()
                running = Running(server, client, view)
                async with AsyncExitStack() as stack:
                    waiting = [await stack.enter_async_context(deaf(running))] if slow else []
                    await asyncio.sleep(0.3 if slow else 0.0)
                    stream = await stack.enter_async_context(reading(running))
                    await stream.first()
                    served.cancel()
                    ended = await stream.end()
                    for sock in waiting:
                        await wait_for_end(sock)
            return ended

    assert on_loop(loop_factory, run()) == "whole"


def test_a_head_of_the_stream_has_its_type_alone() -> None:
    status, body, headers = serving(lambda run: run.exact("HEAD", "/v1/updates"))
    assert (status, body) == (200, b"")
    assert headers["Content-Type"].startswith("text/event-stream")


def test_a_client_of_the_old_http_reads_until_the_end() -> None:
    async def use(run: Running) -> None:
        address = run.server.address
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"GET /v1/updates HTTP/1.0\r\nHost: h\r\n\r\n")
        found = await reader.readuntil(b"event: history\n")
        assert b"Transfer-Encoding" not in found
        assert b"\r\n\r\nevent: caller\ndata: " in found
        writer.close()

    serving(use)


def test_without_the_page_there_are_no_updates() -> None:
    assert serving(lambda run: run.get("/v1/updates"), Setting(api=ApiSettings(page=False)))[0] == 404


def test_hostile_texts_stay_within_one_line_of_data() -> None:
    text = "a\nevent: caller\r\ndata: {}\n\n\u2028\x00\ud800</script>"

    async def use(run: Running) -> None:
        run.view.now = replace(STATUS, notes=(text,))
        async with reading(run) as stream:
            (note,) = (await stream.first())["status"]["notes"]
            assert note.replace("\ufffd", "") == text.replace("\ud800", "")
            run.view.now = replace(STATUS, notes=(text, text))
            assert len((await stream.until("changed"))["notes"]) == 2

    serving(use)


def test_the_document_describes_what_a_stream_is() -> None:
    operation = document(open_reads=False)["paths"]["/v1/updates"]["get"]
    assert list(operation["responses"]["200"]["content"]) == ["text/event-stream"]
    assert operation["security"] == [{"token": []}]
    jsonschema_rs.validate({"required": ["401", "404", "503"]}, operation["responses"])
