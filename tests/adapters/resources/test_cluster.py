"""The adapter of custom resources against a small API server on loopback."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from adapters.resources import answers, cluster
from adapters.resources.plugin import plugin
from adapters.resources.settings import KubernetesSettings
from poller.clock import LoopClock
from poller.domain.errors import (
    AccessDenied,
    CursorExpired,
    InvalidConfiguration,
    PortError,
    ResourceMissing,
    RowChanged,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.records import Epoch
from poller.domain.resources.resource import MappingResource, ResourceCondition, ResourceEvent, ResourceStatus
from poller.plugins import Environment
from poller.resource_ports.resources import MappingResources, ResourceChange, ResourceChanged, ResourceRemoved
from tests.adapters.resources.api_server import BASE, TOKEN, ApiServer, running

SPEC = {"functionName": "reader", "eventSourceARN": "arn:aws:sqs:eu-west-1:111122223333:jobs"}
WAIT_S = 10.0


def kubeconfig(folder: Path, url: str, *, token: str = TOKEN) -> str:
    """A kubeconfig for the server."""
    path = folder / "kubeconfig"
    content = {
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "pipelines"}}
        ],
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"token": token}}],
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


@asynccontextmanager
async def opened(*, token: str = TOKEN, **settings: Any) -> AsyncIterator[tuple[ApiServer, MappingResources]]:
    with TemporaryDirectory() as folder:
        async with running() as server:
            path = kubeconfig(Path(folder), server.url, token=token)
            given = KubernetesSettings(kubeconfig=path, **settings)
            async with plugin.open(given, Environment(clock=LoopClock())) as resources:
                yield server, resources


def play(script: Callable[[ApiServer, MappingResources], Awaitable[None]], **given: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(WAIT_S * 2), opened(**given) as (server, resources):
            await script(server, resources)

    asyncio.run(main())


async def one(resources: MappingResources, name: str) -> MappingResource:
    found = await resources.get("pipelines", name)
    assert found is not None
    return found


async def taken(changes: AsyncIterator[ResourceChange], count: int) -> list[tuple[type, str]]:
    """The next changes: what happened to which resource."""
    found = []
    async with asyncio.timeout(WAIT_S):
        for _ in range(count):
            change = await anext(changes)
            found.append((type(change), change.resource.name))
    return found


def status(**changes: Any) -> ResourceStatus:
    condition = ResourceCondition(
        type="Ready",
        holds=True,
        reason="Running",
        message="the mapping runs",
        since=Epoch(1_767_225_600.0),
        generation=1,
    )
    given: dict[str, Any] = {
        "generation": 1,
        "conditions": (condition,),
        "uuid": "u",
        "shards": 2,
        "lag_s": 185,
    }
    return ResourceStatus(**(given | changes))


def test_all_pages_of_a_list_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PAGE_MAX", 2)

    async def script(server: ApiServer, resources: MappingResources) -> None:
        for number in range(5):
            await server.put(f"m{number}", spec=SPEC)
        found = await resources.list()
        assert [each.name for each in found.resources] == ["m0", "m1", "m2", "m3", "m4"]
        assert found.version == "5"
        assert found.resources[0].spec == SPEC
        assert found.resources[0].created == 1_767_225_600.0
        assert [query.get("continue") for _, _, query, _ in server.requests] == [None, "2", "4"]

    play(script)


def test_a_selector_is_passed_to_list_and_watch() -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        await server.put("blue", spec=SPEC, labels={"fleet": "blue"})
        await server.put("green", spec=SPEC, labels={"fleet": "green"})
        found = await resources.list()
        assert [each.name for each in found.resources] == ["blue"]
        async with resources.changes("0") as changes:
            await taken(changes, 1)
        assert {query["labelSelector"] for _, _, query, _ in server.requests} == {"fleet=blue"}

    play(script, selector="fleet=blue")


def test_changes_arrive_in_order_and_a_watch_that_ends_goes_on_where_it_was() -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        server.watch_s = 0.2
        await server.put("a", spec=SPEC)
        async with resources.changes("0") as changes:
            assert await taken(changes, 1) == [(ResourceChanged, "a")]
            await asyncio.sleep(0.5)
            await server.put("b", spec=SPEC)
            await server.put("a", spec=SPEC, generation=2)
            await server.remove("b")
            assert await taken(changes, 3) == [
                (ResourceChanged, "b"),
                (ResourceChanged, "a"),
                (ResourceRemoved, "b"),
            ]
        assert [query["resourceVersion"] for _, _, query, _ in server.requests][:2] == ["0", "1"]

    play(script)


def test_a_bookmark_moves_the_place_from_which_the_next_watch_begins() -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        server.watch_s, server.version = 0.1, 900
        server.lines = [
            b'{"type":"BOOKMARK","object":{"kind":"EventSourceMapping","metadata":{"resourceVersion":"777"}}}\n'
        ]
        async with resources.changes("5") as changes:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await anext(changes)
        assert [query["resourceVersion"] for _, _, query, _ in server.requests][:2] == ["5", "777"]

    play(script)


GONE = json.dumps(
    {
        "type": "ERROR",
        "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"},
    }
).encode()


@pytest.mark.parametrize("in_the_watch", [True, False])
def test_a_version_that_is_too_old_asks_for_a_new_list(in_the_watch: bool) -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        if in_the_watch:
            server.lines = [GONE + b"\n"]
        else:
            server.oldest = 10
        with pytest.raises(CursorExpired, match="too old resource version"):
            async with resources.changes("5") as changes:
                await anext(changes)

    play(script)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([b"{not json}\n"], "no JSON"),
        ([b"[" * 100_000 + b"\n"], "no JSON"),
        ([b"[]\n"], "no JSON object"),
        ([b'{"type":"ERROR","object":7}\n'], "says 0"),
        ([b"x" * 2_000_000], "more than 1000000 bytes"),
    ],
)
def test_a_watch_with_something_else_in_it_is_broken_off(
    lines: list[bytes], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "LINE_BYTES_MAX", 1_000_000)

    async def script(server: ApiServer, resources: MappingResources) -> None:
        server.lines = lines
        with pytest.raises(ServiceUnavailable, match=text):
            async with resources.changes("0") as changes:
                await anext(changes)

    play(script)


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"metadata": None},
        {"metadata": {"name": 7, "namespace": "pipelines", "uid": "u", "resourceVersion": "9"}},
        {"metadata": {"name": "a\nb", "namespace": "pipelines", "uid": "u", "resourceVersion": "9"}},
        {"metadata": {"name": "n" * 300, "namespace": "pipelines", "uid": "u", "resourceVersion": "9"}},
    ],
)
def test_objects_without_a_usable_name_are_passed_over(odd: dict[str, Any]) -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        server.lines = [json.dumps({"type": "ADDED", "object": odd}).encode() + b"\n"]
        await server.put("good", spec=SPEC)
        async with resources.changes("0") as changes:
            assert await taken(changes, 1) == [(ResourceChanged, "good")]

    play(script)


@pytest.mark.parametrize(
    "odd", [None, 7, [], {"conditions": 7}, {"conditions": [None, {"type": "Ready"}, {"type": 7}]}]
)
def test_a_status_that_cannot_be_read_counts_as_not_written(odd: Any) -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        await server.put("odd", spec=SPEC)
        server.objects["odd"]["status"] = odd
        found = await one(resources, "odd")
        assert found.written is None or not found.written.conditions

    play(script)


def test_a_spec_that_is_no_table_is_an_empty_one() -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        await server.put("odd", spec=["x"])
        assert (await one(resources, "odd")).spec == {}

    play(script)


def test_a_status_is_applied_and_read_back_as_it_was() -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        await server.put("a", spec=SPEC)
        written = status(state="Enabled", last_result="OK")
        await resources.put_status(await one(resources, "a"), written)
        assert (await one(resources, "a")).written == written
        shown = server.objects["a"]["status"]
        assert (shown["lag"], shown["lagSeconds"], shown["observedGeneration"]) == ("3m5s", 185, 1)
        assert shown["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
        method, path, query, _ = server.requests[1]
        assert (method, path) == ("PATCH", f"{BASE}/a/status")
        assert query == {"fieldManager": "poller", "force": "true"}

    play(script)


def test_a_status_is_refused_when_the_resource_was_changed_meanwhile() -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        await server.put("a", spec=SPEC)
        seen = await one(resources, "a")
        await server.put("a", spec=SPEC, generation=2)
        with pytest.raises(RowChanged):
            await resources.put_status(seen, status())
        assert server.objects["a"]["status"] == {}

    play(script)


def test_writing_to_a_resource_that_is_gone_is_no_error() -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        await server.put("a", spec=SPEC)
        seen = await one(resources, "a")
        await server.remove("a")
        await resources.put_status(seen, status())
        assert await resources.get("pipelines", "a") is None
        assert server.objects == {}

    play(script)


def test_a_resource_that_another_finalizer_keeps_is_one_that_is_being_deleted() -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        await server.put(
            "a", spec=SPEC, finalizers=["example.com/other"], deletionTimestamp="2026-01-01T00:00:00Z"
        )
        assert (await one(resources, "a")).deleting
        await server.put("b", spec=SPEC)
        assert not (await one(resources, "b")).deleting

    play(script)


def test_the_uid_of_the_namespace_is_read_of_the_namespace() -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        assert await resources.namespace_uid() == server.namespace_uid
        server.namespace_uid = ""
        with pytest.raises(ServiceUnavailable, match="the namespace pipelines has no UID"):
            await resources.namespace_uid()

    play(script)


def test_a_namespace_that_does_not_exist_is_said() -> None:
    async def script(_: ApiServer, resources: MappingResources) -> None:
        with pytest.raises(ResourceMissing, match="404"):
            await resources.namespace_uid()

    play(script, namespace="other")


def test_an_event_is_told_once_and_names_the_resource() -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        await server.put("a", spec=SPEC)
        seen = await one(resources, "a")
        event = ResourceEvent(
            key="k", reason="Blocked", note="shard 1 is blocked", warning=True, at=Epoch(1_767_225_600.0)
        )
        await resources.put_event(seen, event)
        await resources.put_event(seen, event)
        (told,) = server.events.values()
        assert (told["reason"], told["type"], told["note"]) == ("Blocked", "Warning", "shard 1 is blocked")
        assert told["regarding"]["uid"] == "uid-a"
        assert told["eventTime"] == "2026-01-01T00:00:00.000000Z"

    play(script)


STATUS = b'{"kind":"Status","message":"told\\nso"}'


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (401, AccessDenied),
        (403, AccessDenied),
        (404, ResourceMissing),
        (410, CursorExpired),
        (422, ServiceUnavailable),
        (429, ServiceThrottled),
        (500, ServiceUnavailable),
        (503, ServiceUnavailable),
    ],
)
def test_answers_of_the_api_server_are_errors_of_the_port(code: int, error: type[PortError]) -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        # Credentials are tried once more, in case they were renewed.
        server.fail = [(code, STATUS), (code, STATUS)]
        with pytest.raises(error, match=rf"the API server says {code}: told so"):
            await resources.list()

    play(script)


def test_a_404_that_does_not_speak_of_the_object_is_not_taken_for_its_end() -> None:
    async def script(server: ApiServer, resources: MappingResources) -> None:
        await server.put("a", spec=SPEC)
        for body in (
            b"404 page not found",
            b'{"kind":"Status","reason":"NotFound","details":{"name":"other"}}',
        ):
            server.fail = [(404, body)]
            with pytest.raises(ResourceMissing, match=r"is the definition .* installed\?"):
                await resources.get("pipelines", "a")

    play(script)


def test_a_list_that_is_too_long_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "RESOURCES_MAX", 3)

    async def script(server: ApiServer, resources: MappingResources) -> None:
        for number in range(4):
            await server.put(f"m{number}", spec=SPEC)
        with pytest.raises(ServiceUnavailable, match="more than 3 resources"):
            await resources.list()

    play(script)


def test_wrong_credentials_are_said() -> None:
    async def script(_: ApiServer, resources: MappingResources) -> None:
        with pytest.raises(AccessDenied, match="401"):
            await resources.list()

    play(script, token="wrong")


def test_a_server_that_is_not_there_is_said() -> None:
    async def main(path: Path) -> None:
        given = KubernetesSettings(kubeconfig=kubeconfig(path, "http://127.0.0.1:9"))
        async with plugin.open(given, Environment(clock=LoopClock())) as resources:
            with pytest.raises(ServiceUnavailable, match="does not answer"):
                await resources.list()

    with TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))


def test_a_watch_that_falls_silent_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "SILENCE_S", 0.3)

    async def script(_: ApiServer, resources: MappingResources) -> None:
        with pytest.raises(ServiceUnavailable, match="ReadTimeout"):
            async with resources.changes("0") as changes:
                await anext(changes)

    play(script)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", "clusters: []\ncontexts: []\n", "current-context: here\nclusters: []\ncontexts: []\n"],
)
def test_a_kubeconfig_that_names_no_cluster_is_refused_before_anything_runs(
    content: str, tmp_path: Path
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)

    async def main() -> None:
        async with plugin.open(KubernetesSettings(kubeconfig=str(path)), Environment(clock=LoopClock())):
            pass

    with pytest.raises(InvalidConfiguration, match="no way to a cluster"):
        asyncio.run(main())
