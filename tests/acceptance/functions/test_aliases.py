"""Versions and aliases of a daemon that is a process, by AWS's own clients and by the commands: calls, shifts and rollbacks."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from adapters.demo.processes import HOST, free_port, plain_environment, running
from tests.acceptance.daemons import Ended, command, wait_until
from tests.acceptance.test_invoke import END_S_MAX, KEY, READY_S_MAX, SECRET, SIGNED, client, invoke

pytestmark = pytest.mark.acceptance

ARN = "arn:aws:lambda:eu-west-1:111122223333:function:orders"
MODULE = "tests.acceptance.functions.versioned_function"
TOKEN = "carer-1"
CALLS = 200
MOVED_S_MAX = 30.0


def configuration(folder: Path, port: int) -> dict[str, Any]:
    return {
        "region": "eu-west-1",
        "listen": f"{HOST}:{port}",
        "store": f"sqlite://{folder}/state.db",
        "mappings": [],
        "functions": {
            "orders": {
                "invoker": "python",
                "handler": f"{MODULE}.old",
                "arn": ARN,
                "versions": {"1": {"description": "the first"}, "2": {"handler": f"{MODULE}.new"}},
                "aliases": {"live": {"version": "1"}},
            },
            "check": {"invoker": "python", "handler": f"{MODULE}.check"},
        },
        "api": {"access_keys_file": str(folder / "keys.yaml"), "tokens_file": str(folder / "tokens.yaml")},
    }


def asked(folder: Path, use: Callable[[Any, str], None]) -> None:
    """Gives `use` a client of a daemon and its URL. The daemon ends in peace afterwards."""

    async def run() -> None:
        port = free_port()
        for name, line in (
            ("keys", f"{KEY}: {SECRET}"),
            ("tokens", f"carer: {{token: {TOKEN}, role: operate}}"),
        ):
            (folder / f"{name}.yaml").write_text(f"{line}\n")
            (folder / f"{name}.yaml").chmod(0o600)
        (folder / "poller.yaml").write_text(yaml.safe_dump(configuration(folder, port)))
        words = [sys.executable, "-m", "poller", "run", "--config", str(folder / "poller.yaml")]
        env = plain_environment() | SIGNED | {"PYTHONPATH": os.getcwd()}
        with running("daemon", words, env, folder) as process:
            await process.answers(f"http://{HOST}:{port}/readyz", READY_S_MAX)
            url = f"http://{HOST}:{port}"
            await asyncio.to_thread(use, client(url), url)
            process.signal(signal.SIGTERM)
            assert await process.ended(END_S_MAX) == 0

    asyncio.run(run())


def alias(url: str, *words: str) -> Ended:
    """`poller alias` with a token of the role operate."""
    return command("alias", *words, "--url", url, env={"POLLER_TOKEN": TOKEN})


def shares(caller: Any, qualifier: str, event: dict[str, Any]) -> Counter[str]:
    """How many of some calls each version gets."""
    return Counter(
        invoke(caller, "orders", event, Qualifier=qualifier)[1]["ExecutedVersion"] for _ in range(CALLS)
    )


def test_boto3_makes_aliases_and_calls_by_them(tmp_path: Path) -> None:
    def use(caller: Any, _: str) -> None:
        versions = caller.list_versions_by_function(FunctionName="orders")["Versions"]
        assert [each["FunctionArn"] for each in versions] == [
            f"{ARN}:{each}" for each in ("$LATEST", "1", "2")
        ]
        made = caller.create_alias(FunctionName=ARN, Name="beta", FunctionVersion="2", Description="for us")
        assert (made["ResponseMetadata"]["HTTPStatusCode"], made["AliasArn"]) == (201, f"{ARN}:beta")
        with pytest.raises(ClientError, match=f"Alias already exists: {ARN}:beta"):
            caller.create_alias(FunctionName="orders", Name="beta", FunctionVersion="2")
        payload, answer = invoke(caller, "orders", {}, Qualifier="beta")
        assert payload == {"code": "new", "version": "2", "arn": f"{ARN}:beta"}
        assert answer["ExecutedVersion"] == "2"
        given = {"FunctionName": "orders", "Name": "beta"}
        changed = caller.update_alias(
            **given, RoutingConfig={"AdditionalVersionWeights": {"1": 0.5}}, RevisionId=made["RevisionId"]
        )
        assert changed["RoutingConfig"] == {"AdditionalVersionWeights": {"1": 0.5}}
        both = shares(caller, "beta", {})
        assert both.total() == CALLS
        assert min(both["1"], both["2"]) > CALLS / 5
        with pytest.raises(caller.exceptions.PreconditionFailedException):
            caller.update_alias(**given, FunctionVersion="1", RevisionId=made["RevisionId"])
        shown = caller.get_function_configuration(FunctionName="orders", Qualifier="beta")
        assert (shown["Version"], shown["FunctionArn"], shown["Handler"]) == (
            "2",
            f"{ARN}:beta",
            f"{MODULE}.new",
        )
        listed = caller.list_aliases(FunctionName="orders", FunctionVersion="1")["Aliases"]
        assert [each["Name"] for each in listed] == ["beta", "live"]
        assert caller.delete_alias(**given)["ResponseMetadata"]["HTTPStatusCode"] == 204
        with pytest.raises(
            caller.exceptions.ResourceNotFoundException, match=f"Cannot find alias arn: {ARN}:beta"
        ):
            caller.get_alias(**given)
        with pytest.raises(caller.exceptions.ResourceNotFoundException):
            invoke(caller, "orders", {}, Qualifier="beta")

    asked(tmp_path, use)


def test_commands_shift_an_alias_and_roll_it_back(tmp_path: Path) -> None:
    def use(caller: Any, url: str) -> None:
        words = ("shift", "orders", "live", "--to", "2", "--yes", "--reason", "release 2")
        begun = alias(url, *words, "--percent", "50", "--interval-s", "3600", "--before", "check")
        assert (begun.status, begun.err) == (0, "")
        wait_until(lambda: shares(caller, "live", {})["2"] > 0, within_s=MOVED_S_MAX)
        again = alias(url, *words, "--strategy", "AllAtOnce")
        assert again.status == 2
        with pytest.raises(caller.exceptions.ResourceConflictException):
            caller.update_alias(FunctionName="orders", Name="live", FunctionVersion="2")
        seen = alias(url, "status", "orders", "live")
        text = " ".join(seen.out.split())
        assert "version 1 50 %, version 2 50 %, of the configuration file" in text
        assert "shift from version 1 to 2: shifting, " in text
        assert "by carer: release 2" in text
        back = alias(url, "rollback", "orders", "live", "--yes", "--reason", "errors since the release")
        assert (back.status, back.out) == (0, "alias live of function orders: all calls go to version 1\n")
        assert shares(caller, "live", {}) == {"1": CALLS}
        once_more = alias(url, "rollback", "orders", "live", "--yes")
        assert (once_more.status, "no shift of alias live" in once_more.err) == (2, True)
        done = alias(url, *words, "--strategy", "AllAtOnce", "--after", "check", "--wait", "--wait-s", "60")
        assert (done.status, "version 2; shift from version 1 to 2: done" in done.out) == (0, True), done
        assert shares(caller, "live", {}) == {"2": CALLS}
        undone = alias(url, "rollback", "orders", "live")
        assert (
            "poller alias shift orders live --to 1 --strategy AllAtOnce goes back to version 1" in undone.err
        )

    asked(tmp_path, use)


def test_a_new_version_that_fails_is_rolled_back_by_its_failure_rate(tmp_path: Path) -> None:
    def use(caller: Any, url: str) -> None:
        words = ("--to", "2", "--strategy", "Canary50Percent60Minutes", "--failure-rate", "0.1", "--yes")
        assert alias(url, "shift", "orders", "live", *words).status == 0

        def rolled_back() -> bool:
            for _ in range(20):
                invoke(caller, "orders", {"fail": True}, Qualifier="live")
            found = json.loads(alias(url, "status", "orders", "live", "--json").out)
            return bool(found["shift"]["state"] == "rolled_back")

        wait_until(rolled_back, within_s=MOVED_S_MAX)
        assert shares(caller, "live", {"fail": True}) == {"1": CALLS}

    asked(tmp_path, use)


def test_the_aws_cli_makes_shows_and_deletes_aliases(tmp_path: Path) -> None:
    def use(_: Any, url: str) -> None:
        def cli(*words: str) -> subprocess.CompletedProcess[str]:
            env = plain_environment() | SIGNED | {"AWS_CONFIG_FILE": "/dev/null", "AWS_PAGER": ""}
            words = ("lambda", *words, "--function-name", "orders", "--endpoint-url", url, "--output", "json")
            return subprocess.run(
                [sys.executable, "-m", "awscli", *words],
                env=env,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )

        made = cli("create-alias", "--name", "beta", "--function-version", "2")
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["AliasArn"] == f"{ARN}:beta"
        weights = ("--routing-config", "AdditionalVersionWeights={1=0.25}")
        changed = json.loads(cli("update-alias", "--name", "beta", *weights).stdout)
        assert changed["RoutingConfig"] == {"AdditionalVersionWeights": {"1": 0.25}}
        assert json.loads(cli("get-alias", "--name", "beta").stdout) == changed
        listed = json.loads(cli("list-aliases").stdout)["Aliases"]
        assert [each["Name"] for each in listed] == ["beta", "live"]
        versions = json.loads(cli("list-versions-by-function").stdout)["Versions"]
        assert [each["Version"] for each in versions] == ["$LATEST", "1", "2"]
        assert cli("delete-alias", "--name", "beta").returncode == 0
        gone = cli("get-alias", "--name", "beta")
        assert "ResourceNotFoundException" in gone.stderr

    asked(tmp_path, use)
