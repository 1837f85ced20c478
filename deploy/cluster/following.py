"""Owns daemons beside a cluster without a node: processes that follow its custom resources with the rights of the role in deploy/."""

import asyncio
import base64
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from adapters.demo.emulator import ACCOUNT, REGION, Clients, clients, credentials, emulator
from adapters.demo.processes import HOST, Running, free_port, plain_environment, running
from deploy.checks.rendering import ROOT
from deploy.cluster.control import Cluster, control_plane

NAMESPACE = "poller"
ACCOUNT_NAME = f"system:serviceaccount:{NAMESPACE}:poller"
KUBERNETES = ROOT / "deploy" / "kubernetes"
DEFINITION = KUBERNETES / "definition" / "eventsourcemappings.poller.dev.yaml"
FUNCTION = "keeper"
POISON = "poison"
READY_S_MAX = 60.0
CALL_S_MAX = 60.0
LOOK_S = 0.1


@dataclass(slots=True)
class Keeper:
    """A function: what it took, in order. While it is `failing` it takes no record whose text begins with POISON."""

    url: str
    took: list[str] = field(default_factory=list)
    failing: bool = True


@dataclass(slots=True)
class Followed:
    """A cluster, an account of an emulator, a function, and daemons by name."""

    cluster: Cluster
    aws: Clients
    keeper: Keeper
    endpoint: str
    folder: Path
    loop: asyncio.AbstractEventLoop
    daemons: dict[str, Running] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)

    def kubectl(self, *words: str, given: str | None = None) -> str:
        """What a kubectl command in the namespace prints."""
        return self.cluster.kubectl("--namespace", NAMESPACE, *words, given=given)

    def apply(self, name: str, **spec: Any) -> None:
        """Makes or changes a resource as a user does."""
        document = {
            "apiVersion": "poller.dev/v1",
            "kind": "EventSourceMapping",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"functionName": FUNCTION, **spec},
        }
        self.kubectl("apply", "--filename=-", given=json.dumps(document))

    def shown(self, name: str) -> Any:
        """A resource as the API has it."""
        return self.cluster.get("eventsourcemapping", name, "--namespace", NAMESPACE)

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        """A condition of a resource; empty if it is not there, or about another generation."""
        found = self.shown(name)
        for each in found.get("status", {}).get("conditions", ()):
            if each["type"] == kind and each["observedGeneration"] == found["metadata"]["generation"]:
                return dict(each)
        return {}

    def is_(self, name: str, kind: str, status: str = "True", *, reason: str = "") -> dict[str, Any]:
        """Waits until a condition of a resource is so."""

        def holds() -> bool:
            found = self.condition(name, kind)
            return found.get("status") == status and reason in ("", found["reason"])

        self.until(holds, lambda: json.dumps(self.shown(name).get("status"), indent=1))
        return self.condition(name, kind)

    def events(self, name: str) -> list[str]:
        """The reasons of a resource's events, in order."""
        found = self.cluster.get("events.v1.events.k8s.io", "--namespace", NAMESPACE)["items"]
        own = [each for each in found if each["regarding"]["name"] == name]
        return [each["reason"] for each in sorted(own, key=lambda each: str(each["eventTime"]))]

    def until(self, holds: Callable[[], object], told: Callable[[], str] = str) -> None:
        """Returns when it holds; fails, with what is `told` and the ends of the daemons' logs, if that takes too long."""
        deadline = time.monotonic() + READY_S_MAX
        while not holds():
            logs = "\n".join(each.tail() for each in self.daemons.values())
            assert time.monotonic() < deadline, f"{told()}\n{logs}"
            time.sleep(LOOK_S)

    def call(self, service: str, operation: str, **given: Any) -> Any:
        """A call of the emulator."""
        work = getattr(self.aws[service], operation)(**given)
        waiting: Future[Any] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return waiting.result(CALL_S_MAX)

    def stream(self, name: str) -> str:
        """A stream of one shard; returns its ARN."""
        self.call("kinesis", "create_stream", StreamName=name, ShardCount=1)
        self.until(lambda: self._is_active(name))
        return f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}"

    def _is_active(self, name: str) -> bool:
        found = self.call("kinesis", "describe_stream_summary", StreamName=name)
        return bool(found["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE")

    def put(self, stream: str, *texts: str) -> None:
        """Writes records, in order."""
        for text in texts:
            self.call("kinesis", "put_record", StreamName=stream, Data=text.encode(), PartitionKey="k")

    def took(self, *texts: str) -> None:
        """Waits until the function has taken these texts, and sees that it took them in this order, some again perhaps."""
        self.until(lambda: set(texts) <= set(self.keeper.took), lambda: str(self.keeper.took))
        assert [text for text in dict.fromkeys(self.keeper.took) if text in texts] == [*texts]

    def namespace_again(self) -> None:
        """Deletes the namespace with all that is in it, and makes it again."""
        self.cluster.kubectl("delete", "namespace", NAMESPACE, f"--timeout={READY_S_MAX:g}s")
        _namespace(self.cluster, self.folder)

    @contextmanager
    def daemon(self, name: str, *, ready: bool = True, forgets: str = "") -> Iterator[Running]:
        """A daemon that follows the resources with the role's rights, until the block ends. Without `ready` it need only be alive."""
        listen = f"{HOST}:{free_port()}"
        (folder := self.folder / name).mkdir(exist_ok=True)
        configuration = {
            "region": REGION,
            "endpoint_url": self.endpoint,
            "listen": listen,
            "worker": name,
            "store": "dynamodb://poller-state?create=true",
            "functions": {FUNCTION: {"invoker": "http", "url": self.keeper.url, "timeout_s": 20}},
            "resources": {
                "enabled": True,
                "kubeconfig": str(self.folder / "poller.kubeconfig"),
                **({"forget_namespace": forgets} if forgets else {}),
            },
            "tuning": {"idle_poll_s": 0.5, "grace_s": 10},
        }
        (file := folder / "poller.yaml").write_text(yaml.safe_dump(configuration))
        command = [sys.executable, "-m", "poller", "run", "--config", str(file)]
        env = plain_environment() | credentials() | {"PYTHONPATH": str(ROOT)}
        with running("poller", command, env, folder) as process:
            self.daemons[name], self.urls[name] = process, f"http://{listen}"
            try:
                page = "readyz" if ready else "healthz"
                asyncio.run(process.answers(f"http://{listen}/{page}", READY_S_MAX))
                yield process
            finally:
                self.daemons.pop(name)
                self.urls.pop(name, None)


@contextmanager
def followed(programs: Path, folder: Path) -> Iterator[Followed]:
    """Everything but daemons runs until the block ends; its loop is in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        opened = AsyncExitStack()
        try:
            yield _done(loop, _opened(opened, programs, folder))
        finally:
            _done(loop, opened.aclose())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _done(loop: asyncio.AbstractEventLoop, work: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(work, loop).result()


async def _opened(stack: AsyncExitStack, programs: Path, folder: Path) -> Followed:
    cluster = await stack.enter_async_context(control_plane(programs, folder))
    await asyncio.to_thread(_defined, cluster)
    await asyncio.to_thread(_namespace, cluster, folder)
    (emulated := folder / "emulated").mkdir()
    endpoint = await stack.enter_async_context(emulator(emulated))
    aws = await stack.enter_async_context(clients(endpoint))
    keeper = await stack.enter_async_context(_function())
    return Followed(cluster, aws, keeper, endpoint, folder, asyncio.get_running_loop())


def _defined(cluster: Cluster) -> None:
    # This kubectl does not know rules in CEL, and would refuse them; the API server of its age leaves them out.
    cluster.kubectl("apply", "--validate=false", f"--filename={DEFINITION}")
    cluster.kubectl("wait", "--for=condition=Established", "crd/eventsourcemappings.poller.dev")


def _namespace(cluster: Cluster, folder: Path) -> None:
    """The namespace, and the role of the overlays' component, bound to the daemon's account; a kubeconfig has its token."""
    cluster.kubectl("create", "namespace", NAMESPACE)
    inside = ("--namespace", NAMESPACE)
    cluster.kubectl(*inside, "create", "serviceaccount", "poller")
    cluster.kubectl(*inside, "apply", f"--filename={KUBERNETES / 'custom-resources' / 'role.yaml'}")
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/poller/token"
    made = json.loads(cluster.kubectl("create", f"--raw={path}", "--filename=-", given=json.dumps(asked)))
    (folder / "poller.kubeconfig").write_text(yaml.safe_dump(_kubeconfig(cluster, made)))


def _kubeconfig(cluster: Cluster, made: Mapping[str, Any]) -> dict[str, Any]:
    server = {"server": cluster.place.api_url, "certificate-authority": str(cluster.place.certificate)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": server}],
        "users": [{"name": "own", "user": {"token": made["status"]["token"]}}],
        "contexts": [
            {"name": "local", "context": {"cluster": "local", "user": "own", "namespace": NAMESPACE}}
        ],
        "current-context": "local",
    }


@asynccontextmanager
async def _function() -> AsyncIterator[Keeper]:
    """The function behind HTTP, on a free port of loopback."""
    keeper = Keeper("")

    async def invoke(request: web.Request) -> web.Response:
        texts = [_text(record) for record in (await request.json())["Records"]]
        if keeper.failing and any(text.startswith(POISON) for text in texts):
            return web.json_response({"errorType": "Poison", "errorMessage": "not this one"}, status=500)
        keeper.took += texts
        return web.json_response({})

    application = web.Application()
    application.router.add_post("/keeper", invoke)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        keeper.url = f"http://{HOST}:{runner.addresses[0][1]}/keeper"
        yield keeper
    finally:
        await runner.cleanup()


def _text(record: Mapping[str, Any]) -> str:
    return base64.b64decode(record["kinesis"]["data"]).decode()
