"""A daemon that listens beyond loopback, as a process: who reads and who changes, through the commands."""

import asyncio
import json
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from adapters.demo.processes import HOST, Running, free_port, plain_environment, running
from tests.acceptance.daemons import Ended, command

pytestmark = pytest.mark.acceptance

READY_S_MAX = 30.0
END_S_MAX = 15.0
VIEW, ADMIN, KEY, SECRET = "look-and-no-more", "change-it-all", "AKIDOPERATOR", "a-long-random-text"
NOBODY = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null"}
SIGNED = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}


@dataclass(frozen=True, slots=True)
class Asked:
    """What commands and requests came to."""

    ended: dict[str, Ended]
    statuses: dict[str, int]
    changes: list[dict[str, str]]
    """`api_change` of the log."""


def test_beyond_loopback_reads_need_a_token_and_changes_an_admin_s(tmp_path: Path) -> None:
    found = asyncio.run(_asked(tmp_path))
    assert {name: each.status for name, each in found.ended.items()} == {
        "status": 2,
        "status, wrong token": 2,
        "status, token": 0,
        "status, file": 0,
        "list": 2,
        "list, key": 0,
    }
    assert "the daemon needs a token; set POLLER_TOKEN, or give --token-file" in found.ended["status"].err
    assert "does not know the token that was sent" in found.ended["status, wrong token"].err
    assert "worker w: ready" in found.ended["status, token"].out
    assert "reads too where the daemon's api.reads is token" in found.ended["list"].err
    assert found.statuses == {"probe": 200, "metrics": 200, "view": 403, "admin": 404}
    told = [(each["who"], each["role"], each["operation"]) for each in found.changes]
    assert told == [("dashboard", "view", "disable"), ("deploy", "admin", "disable")]


async def _asked(folder: Path) -> Asked:
    port = free_port()
    url = f"http://{HOST}:{port}"
    (folder / "tokens.yaml").write_text(
        f"dashboard: {{token: {VIEW}, role: view}}\ndeploy:\n  token: {ADMIN}\n  role: admin\n"
    )
    (folder / "keys.yaml").write_text(f"{KEY}: {SECRET}\n")
    (folder / "token").write_text(f"{VIEW}\n")
    config = folder / "poller.yaml"
    api = {"tokens_file": str(folder / "tokens.yaml"), "access_keys_file": str(folder / "keys.yaml")}
    document = {"listen": f"0.0.0.0:{port}", "store": "memory://", "worker": "w", "mappings": [], "api": api}
    config.write_text(yaml.safe_dump({"region": "eu-west-1", **document}))
    words = [sys.executable, "-m", "poller", "run", "--config", str(config)]
    with running("daemon", words, plain_environment() | SIGNED, folder) as daemon:
        await daemon.answers(f"{url}/readyz", READY_S_MAX)
        ended = await asyncio.to_thread(_commands, url, folder)
        statuses = await asyncio.to_thread(_statuses, url)
        daemon.signal(signal.SIGTERM)
        assert await daemon.ended(END_S_MAX) == 0
        return Asked(ended, statuses, _changes(daemon))


def _commands(url: str, folder: Path) -> dict[str, Ended]:
    def asked(*words: str, env: Mapping[str, str]) -> Ended:
        return command(*words, "--url", url, env=NOBODY | dict(env))

    return {
        "status": asked("status", env={}),
        "status, wrong token": asked("status", env={"POLLER_TOKEN": "guess"}),
        "status, token": asked("status", env={"POLLER_TOKEN": VIEW}),
        "status, file": asked("status", "--token-file", str(folder / "token"), env={}),
        "list": asked("mappings", "list", env={}),
        "list, key": asked("mappings", "list", env=SIGNED),
    }


def _statuses(url: str) -> dict[str, int]:
    disable = f"{url}/v1/mappings/0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11/disable"
    return {
        "probe": _status("GET", f"{url}/healthz"),
        "metrics": _status("GET", f"{url}/metrics"),
        "view": _status("POST", disable, VIEW),
        "admin": _status("POST", disable, ADMIN),
    }


def _status(method: str, url: str, token: str = "") -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=END_S_MAX) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _changes(daemon: Running) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    return [line for line in lines if line["event"] == "api_change"]
