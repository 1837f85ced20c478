"""The built image, started as a cluster would: its own user, a read-only root, a memory limit; it works and drains."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from adapters.demo.daemon import GRACE_S, journal_path
from adapters.demo.emulator import credentials
from adapters.demo.functions import JOURNAL, LIFE, PAUSE_S
from adapters.demo.load import load
from adapters.demo.processes import HOST, Running, free_port, plain_environment, running
from adapters.demo.report import make_report
from adapters.demo.scenario import Scene, scene
from deploy.checks import demo

IMAGE = os.environ.get("IMAGE", "poller") + ":" + os.environ.get("TAG", version("esm-poller"))
NAME = f"poller-check-{os.getpid()}"
USER = "65532:65532"
MEMORY = "256m"
RECORDS, SEED = 800, 7
READY_S_MAX = 60.0
SETTLED_S_MAX = 180.0
DRAINED_S_MAX = GRACE_S + 15.0
CALL_S_MAX = 120.0
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
"""For podman without systemd, and under a user limit; a docker engine needs none of it."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The command that runs containers: docker if its engine answers, else podman."""
    if (
        shutil.which("docker")
        and not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        yield ["docker"]
        return
    program = shutil.which("podman")
    assert program, "neither docker nor podman: install podman and runc"
    (config := tmp_path_factory.mktemp("podman") / "containers.conf").write_text(CONTAINERS_CONF)
    storage = os.environ.get("STORAGE_DRIVER", "vfs")
    yield ["env", f"CONTAINERS_CONF={config}", f"STORAGE_DRIVER={storage}", program]


def said(engine: list[str], *words: str, entry: str | None = None) -> str:
    """What a command in a container prints; it has no network."""
    entries = ["--entrypoint", entry] if entry else []
    command = [*engine, "run", "--rm", "--network", "none", "--read-only", *entries, IMAGE, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CALL_S_MAX, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_image_says_what_it_is(engine: list[str]) -> None:
    assert said(engine, "--version").startswith("poller 0.")
    asked = subprocess.run([*engine, "image", "inspect", IMAGE], capture_output=True, text=True, check=True)
    (found,) = json.loads(asked.stdout)
    labels = found["Config"]["Labels"]
    assert found["Config"]["User"] == USER
    assert not found["Config"].get("Healthcheck")
    assert labels["org.opencontainers.image.title"] == "poller"
    assert {
        f"org.opencontainers.image.{name}" for name in ("version", "revision", "created", "licenses")
    } <= labels.keys()
    print(f"size: {found['Size'] / 1e6:.0f} MB, base included")


def test_the_image_has_no_tools_to_build_with(engine: list[str]) -> None:
    code = "import shutil, importlib.util as u; print([t for t in ('gcc', 'cc', 'make', 'pip', 'uv') if shutil.which(t)], u.find_spec('pip'))"
    assert said(engine, "-c", code, entry="/opt/poller/bin/python").strip() == "[] None"
    code = "import hatchling"
    with pytest.raises(AssertionError, match="No module named 'hatchling'"):
        said(engine, "-c", code, entry="/opt/poller/bin/python")


def test_the_image_carries_the_licence(engine: list[str]) -> None:
    code = "from importlib.metadata import distribution as d; print(d('esm-poller').read_text('licenses/LICENSE')[:60])"
    assert "Apache License" in said(engine, "-c", code, entry="/opt/poller/bin/python")


def test_the_user_can_write_nowhere_but_where_state_belongs(engine: list[str]) -> None:
    code = "import os; print(os.getuid(), [p for p in ('/', '/app', '/opt/poller', '/etc/poller', '/usr/local') if os.access(p, os.W_OK)])"
    assert said(engine, "-c", code, entry="/opt/poller/bin/python").strip() == "65532 []"


def test_a_container_does_the_demos_load_and_drains_on_sigterm(engine: list[str], tmp_path: Path) -> None:
    asyncio.run(_works(engine, tmp_path))


async def _works(engine: list[str], folder: Path) -> None:
    async with scene(folder, load(RECORDS, SEED)) as stage:
        with container(engine, stage, folder) as (process, url):
            await process.answers(f"{url}/readyz", READY_S_MAX)
            async with asyncio.TaskGroup() as scope:
                for source, items in stage.evidence.load.items():
                    scope.create_task(stage.writer().write(items), name=f"write {source}")
            await settled(stage, process)
            limits = facts(engine)
            process.signal(signal.SIGTERM)
            assert await process.ended(DRAINED_S_MAX) == 0, process.tail()
        await stage.look()
        found = make_report(stage.evidence)
        assert not found.problems, found.problems
        print(f"{RECORDS} records settled, exit status 0; {limits}")


async def settled(stage: Scene, process: Running) -> None:
    """Returns when every record is where it should be; raises TimeoutError otherwise."""
    async with asyncio.timeout(SETTLED_S_MAX):
        while not stage.evidence.complete:
            assert process.exit_status is None, process.tail()
            await asyncio.sleep(0.3)
            await stage.look()


def facts(engine: list[str]) -> Mapping[str, object]:
    """How the container was started, and what memory it takes, as the engine tells."""
    asked = subprocess.run([*engine, "inspect", NAME], capture_output=True, text=True, check=True)
    (found,) = json.loads(asked.stdout)
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["Memory"] == 256 * 1024 * 1024
    assert found["Config"]["User"] == USER
    # Process 1 is the init, the daemon is its child.
    init = found["State"]["Pid"]
    assert Path(f"/proc/{init}/comm").read_text() == "tini\n"
    (pid,) = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Uid"].split() == ["65532"] * 4
    assert status["CapEff"].strip() == "0" * 16
    assert status["NoNewPrivs"].strip() == "1"
    assert memory_limit(pid) == 256 * 1024 * 1024
    return {
        "resident, highest": status["VmHWM"].strip(),
        "limit": MEMORY,
        "user": USER,
        "capabilities": "none",
    }


def memory_limit(pid: str) -> int:
    """What the kernel allows a process, in bytes, by its control group (version 2 or 1)."""
    groups = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    found = {name: group for _, names, group in groups for name in names.split(",")}
    if "memory" in found:
        return int(Path(f"/sys/fs/cgroup/memory{found['memory']}/memory.limit_in_bytes").read_text())
    return int(Path(f"/sys/fs/cgroup{found['']}/memory.max").read_text())


@contextmanager
def container(engine: list[str], stage: Scene, folder: Path) -> Iterator[tuple[Running, str]]:
    """The daemon in a container, as the manifests start it; its functions are the demo's, which are in the image."""
    listen = f"{HOST}:{free_port()}"
    document = demo.document(stage, listen=listen, store=Path("/var/lib/poller/state.db"))
    (config := folder / "config").mkdir()
    (config / "poller.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    (state := folder / "state").mkdir()
    # The functions write their journal, and beside it what they have seen, into the demo's folder.
    for writable in (state, folder):
        os.chown(writable, 65532, 65532)
    options = f"--name {NAME} --network host --read-only --tmpfs /tmp:size=64m --memory {MEMORY}".split()
    options += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    volumes = {config: "/etc/poller:ro", state: "/var/lib/poller", folder: "/journal"}
    options += [word for source, target in volumes.items() for word in ("--volume", f"{source}:{target}")]
    own = {JOURNAL: f"/journal/{journal_path(folder).name}", LIFE: "1", PAUSE_S: "0"}
    variables = {**credentials(), **own}
    options += [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    try:
        with running("container", [*engine, "run", *options, IMAGE], plain_environment(), folder) as process:
            yield process, f"http://{listen}"
    finally:
        removal = [*engine, "rm", "--force", NAME]
        subprocess.run(removal, capture_output=True, timeout=CALL_S_MAX, check=False)
