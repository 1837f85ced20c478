"""The wheel works where it is installed into an empty environment, in an empty folder, away from the checkout."""

import asyncio
import json
import signal
from pathlib import Path

import aiohttp
import pytest
import yaml

from adapters.demo.processes import HOST, free_port, running
from deploy.checks.installing import ROOT, call, make_environment, variables, wheel

QUEUE = "arn:aws:sqs:eu-west-1:111122223333:mails"
ANSWERS = ["--source", QUEUE, "--function", "mails", "--invoker", "http", "--url", "http://127.0.0.1:9/"]
READY_S_MAX = 60.0
DEMO_S_MAX = 240.0


@pytest.fixture
def user(programs: Path, tmp_path: Path) -> dict[str, str]:
    """The variables of a user; the home folder is empty."""
    (home := tmp_path / "home").mkdir()
    return variables(programs, home)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    (folder := tmp_path / "empty").mkdir()
    return folder


def test_what_is_installed_is_the_wheel(user: dict[str, str], empty: Path) -> None:
    done = call(["version", "--json"], user, empty)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["installed"] == {"by": "uv", "from": "a file"}
    assert {name: each["installed"] for name, each in found["extras"].items()} == {
        "demo": False,
        "kubernetes": False,
        "otel": False,
        "postgresql": False,
        "testing": False,
    }
    assert str(ROOT) not in done.stdout
    assert str(empty.parent) not in done.stdout


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["version"], ["schema"], ["completion", "zsh"]], ids=" ".join)  # fmt: skip
def test_a_command_that_needs_no_file_works(words: list[str], user: dict[str, str], empty: Path) -> None:
    done = call(words, user, empty)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert list(empty.iterdir()) == []


def test_a_first_configuration_is_accepted(user: dict[str, str], empty: Path) -> None:
    printed = call(["init", *ANSWERS, "--output", "-"], user, empty)
    assert printed.returncode == 0, printed.stderr
    (empty / "poller.yaml").write_text(printed.stdout)
    checked = call(["check", "--config", "poller.yaml"], user, empty)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "configuration is valid" in checked.stdout


def test_a_daemon_serves_its_page(user: dict[str, str], empty: Path) -> None:
    asyncio.run(_serves(user, empty))


async def _serves(user: dict[str, str], empty: Path) -> None:
    url = f"http://{HOST}:{(port := free_port())}"
    document = {"store": "sqlite:state.db", "listen": f"{HOST}:{port}", "region": "eu-west-1", "mappings": []}
    (empty / "poller.yaml").write_text(yaml.safe_dump(document))
    poller = next(str(Path(each) / "poller") for each in user["PATH"].split(":"))
    with running("daemon", [poller, "run", "--config", "poller.yaml"], user, empty) as process:
        await process.answers(f"{url}/readyz", READY_S_MAX)
        async with aiohttp.ClientSession() as session:
            for path in ("/", "/page/main.js", "/page/views/views.css", "/v1/mappings", "/metrics"):
                async with session.get(url + path) as answer:
                    assert answer.status == 200, path
        process.signal(signal.SIGTERM)
        assert await process.ended(READY_S_MAX) == 0, process.tail()


def test_a_command_without_its_extra_says_which_one_to_install(user: dict[str, str], empty: Path) -> None:
    done = call(["demo"], user, empty)
    assert (done.returncode, done.stdout) == (2, "")
    remedy = "install it with: pip install 'esm-poller[demo]'"
    assert done.stderr == f"poller: demo: the emulator ministack is not installed; {remedy}\n"


def test_the_demo_runs_with_its_extra(tmp_path: Path, empty: Path) -> None:
    programs = make_environment(tmp_path / "env", f"{wheel()}[demo]")
    (home := tmp_path / "home").mkdir()
    words = ["demo", "--records", "200", "--seed", "7", "--json"]
    done = call(words, variables(programs, home), empty, time_s=DEMO_S_MAX)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["problems"] == []
    assert list(empty.iterdir()) == []
