"""A whole daemon, started with a relative configuration, one of whose functions goes elsewhere: real processes."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from adapters.demo.processes import free_port
from tests.acceptance.daemons import wait_until
from tests.conftest import give_credentials

pytestmark = pytest.mark.acceptance

GOES = "import os, tempfile\nwith tempfile.TemporaryDirectory() as place: os.chdir(place)\n"
ACT = "def act(event, context): pass\n"
ARN = "arn:aws:kinesis:eu-west-1:000000000000:stream"


def configuration(port: int, functions: dict[str, dict[str, Any]]) -> str:
    mappings = [
        {"FunctionName": name, "EventSourceArn": f"{ARN}/{name}", "StartingPosition": "LATEST"}
        for name in functions
    ]
    document = {
        "listen": f"127.0.0.1:{port}",
        "store": "sqlite:state.db",
        "region": "eu-west-1",
        "endpoint_url": "http://127.0.0.1:9",
        "functions": functions,
        "mappings": mappings,
    }
    return json.dumps(document)


def mappings(port: int) -> set[str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/mappings", timeout=2) as answer:
            return {each["function"] for each in json.load(answer)["mappings"]}
    except OSError:
        return set()


def test_a_daemon_follows_its_file_and_opens_functions_after_one_of_them_went_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_credentials(monkeypatch, "000000000000")
    port = free_port()
    functions: dict[str, dict[str, Any]] = {"goes": {"invoker": "python", "handler": "goes.act"}}
    for name, text in {"goes.py": GOES + ACT, "later.py": ACT, "run.sh": "#!/bin/sh\nsleep 60\n"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "run.sh").chmod(0o700)
    (tmp_path / "c.yaml").write_text(configuration(port, functions))
    program = str(Path(sys.executable).with_name("poller"))
    with (tmp_path / "daemon.log").open("wb") as log:
        process = subprocess.Popen([program, "run", "--config", "c.yaml"], cwd=tmp_path, stderr=log)
    try:
        wait_until(lambda: mappings(port) == {"goes"}, within_s=60)
        assert os.readlink(f"/proc/{process.pid}/cwd").endswith(" (deleted)")
        functions |= {
            "later": {"invoker": "python", "handler": "later.act"},
            "apart": {"invoker": "python", "handler": "later.act", "isolation": "process"},
            "shell": {"invoker": "process", "command": ["./run.sh"]},
        }
        (tmp_path / "c.yaml").write_text(configuration(port, functions))
        wait_until(lambda: mappings(port) == set(functions), within_s=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert (tmp_path / "state.db").is_file()
    said = (tmp_path / "daemon.log").read_text()
    assert "refused" not in said, said
