"""Owns several daemons on one store that are asked for operations through their APIs, and what their function took."""

import json
import signal
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from adapters.demo.processes import HOST, Running, free_port, plain_environment, running
from tests.acceptance.clients.test_aws_clients import client
from tests.acceptance.operations.journal_function import JOURNAL, NAME, TAKES_S
from tests.conftest import REGION, fresh_account

MAPPING = "5d1f3a52-7f0e-4b52-9d9f-0c1c8a1b6a02"
FUNCTION = "taker"
READY_S_MAX = 60.0
POLL_S = 0.05


@dataclass
class Fleet:
    """The daemons of one test. `endpoints` has a URL for each service, `mapping` what the mapping has besides its id and function."""

    folder: Path
    endpoints: Mapping[str, str]
    account: str = field(default_factory=fresh_account)
    mapping: dict[str, Any] = field(default_factory=dict)
    takes_s: float = 0.0
    handler: str = "tests.acceptance.operations.journal_function:take"
    store: str = ""
    """The store's URL; empty: a SQLite file."""
    api: dict[str, Any] = field(default_factory=lambda: {"allow_unauthenticated": True})
    tuning: dict[str, Any] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)
    ports: dict[str, int] = field(default_factory=dict)
    """A worker that starts again has the port that it had."""
    workers: dict[str, Running] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)

    @property
    def journal(self) -> Path:
        """What the functions wrote down."""
        return self.folder / "journal.jsonl"

    def aws(self, service: str) -> Any:
        """A client of the emulator of this service."""
        return client(service, self.endpoints[service], self.account, "not-a-secret")

    def arn(self, service: str, rest: str) -> str:
        """An ARN of this account."""
        return f"arn:aws:{service}:{REGION}:{self.account}:{rest}"

    def fail(self, fails: bool) -> None:
        """Makes the function fail for everything, or for nothing."""
        mark = self.folder / "fails"
        mark.touch() if fails else mark.unlink(missing_ok=True)

    def start(self, name: str) -> str:
        """Starts a worker, and returns the URL of its API once it is ready."""
        port = self.ports.setdefault(name, free_port())
        config = self.folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(self._configuration(name, port)))
        env = plain_environment() | {
            "AWS_ACCESS_KEY_ID": self.account,
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONPATH": str(Path(__file__).parents[3]),
            JOURNAL: str(self.journal),
            NAME: name,
            TAKES_S: str(self.takes_s),
        }
        command = [sys.executable, "-m", "poller", "run", "--config", str(config)]
        process = self.stack.enter_context(running(name, command, env, self.folder))
        self.workers[name], self.urls[name] = process, f"http://{HOST}:{port}"
        until(
            lambda: _answers(f"{self.urls[name]}/readyz") or process.exit_status is not None,
            within_s=READY_S_MAX,
            told=process.tail,
        )
        assert process.exit_status is None, process.tail()
        return self.urls[name]

    def kill(self, name: str) -> None:
        """Ends a worker by SIGKILL."""
        self.workers[name].signal(signal.SIGKILL)
        until(lambda: self.workers[name].exit_status is not None, within_s=5.0)
        del self.workers[name], self.urls[name]

    def ask(self, request: Mapping[str, Any], *, of: str | None = None) -> str:
        """Asks a worker for an operation; returns its id."""
        url = self.urls[of or next(iter(self.urls))]
        found = answer("POST", f"{url}/v1/mappings/{MAPPING}/operations", request)
        assert isinstance(found["id"], str), found
        return str(found["id"])

    def operation(self, operation: str) -> dict[str, Any]:
        """An operation, as any worker shows it."""
        for url in self.urls.values():
            try:
                found: dict[str, Any] = answer("GET", f"{url}/v1/operations/{operation}")
            except OSError:
                # A worker that was stopped does not answer.
                continue
            return found
        raise AssertionError("no worker answers")

    def over(self, operation: str, *, within_s: float) -> dict[str, Any]:
        """The operation once it is over."""
        until(
            lambda: self.operation(operation)["state"] not in {"accepted", "running"},
            within_s=within_s,
            told=lambda: json.dumps(self.operation(operation)) + self.tails(),
        )
        return self.operation(operation)

    def carrying(self, operation: str, *, within_s: float = 10.0) -> str:
        """The worker that carries an operation out."""
        until(lambda: self.operation(operation)["notes"].get("worker"), within_s=within_s)
        return str(self.operation(operation)["notes"]["worker"])

    def status(self, name: str | None = None) -> dict[str, Any]:
        """What a worker says of the mapping."""
        url = self.urls[name or next(iter(self.urls))]
        found: dict[str, Any] = answer("GET", f"{url}/v1/mappings/{MAPPING}")
        return found

    def taken(self) -> list[str]:
        """The texts of all records that the function took, in order."""
        return [text for _, _, texts in self.lines() for text in texts]

    def counts(self) -> Counter[str]:
        """How often it took each."""
        return Counter(self.taken())

    def lines(self) -> list[tuple[float, str, list[str]]]:
        """The whole journal, in the order in which the calls began: when, on which worker, which records."""
        if not self.journal.exists():
            return []
        found = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return sorted((began, worker, texts) for began, worker, texts in found)

    def tails(self) -> str:
        """The last words of all workers."""
        return "\n".join(f"--- {name}\n{process.tail()}" for name, process in self.workers.items())

    def _configuration(self, name: str, port: int) -> dict[str, Any]:
        return {
            "region": REGION,
            "endpoint_urls": dict(self.endpoints),
            "listen": f"{HOST}:{port}",
            "store": self.store or f"sqlite://{self.folder / 'state.db'}",
            "worker": name,
            "api": self.api,
            "functions": {
                FUNCTION: {
                    "invoker": "python",
                    "handler": self.handler,
                    "timeout_s": 5,
                }
            },
            "mappings": [{"UUID": MAPPING, "FunctionName": FUNCTION, **self.mapping}],
            "tuning": {"idle_poll_s": 0.2, "grace_s": 5} | self.tuning,
        }


@contextmanager
def fleet(folder: Path, endpoints: Mapping[str, str], **more: Any) -> Iterator[Fleet]:
    """Daemons that end with the block."""
    with ExitStack() as stack:
        yield Fleet(folder, endpoints, stack=stack, **more)


def answer(method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
    """The JSON answer of a daemon, also of one that refuses."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, content, headers={"Content-Type": "application/json"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as found:
            return json.load(found)
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)


def until(holds: Callable[[], object], *, within_s: float, told: Callable[[], str] = str) -> float:
    """Seconds until `holds()`; fails otherwise, with what is `told` then."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within_s, f"did not come true within {within_s:g} s\n{told()}"
        time.sleep(POLL_S)
    return time.monotonic() - began


def in_order(texts: Sequence[str], *, key: Callable[[str], str], number: Callable[[str], int]) -> list[str]:
    """The texts before which one with a higher number of the same key was taken; each text counts where it came first."""
    last: dict[str, int] = {}
    seen: set[str] = set()
    wrong = []
    for text in texts:
        if text in seen:
            continue
        seen.add(text)
        if number(text) < last.get(key(text), -1):
            wrong.append(text)
        last[key(text)] = max(last.get(key(text), -1), number(text))
    return wrong


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
