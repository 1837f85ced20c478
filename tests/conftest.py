"""Owns what tests of all kinds share: emulators, started when the first test asks for one, and an AWS account per test."""

import faulthandler
import os
import uuid
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests import emulators
from tests.emulators import Emulator
from tests.postgres import Postgres, postgres

REGION = "eu-west-1"
# How fast a machine is says nothing about what is tested.
settings.register_profile("poller", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("poller")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What tests of hostile texts print and log has lone surrogates; a report on its way between processes cannot."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def no_last_resort() -> Iterator[None]:
    """A daemon that a test ran in this process leaves its last resort armed while threads run: it would end the tests."""
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One ministack for this process of the test run."""
    with emulators.ministack(tmp_path_factory.mktemp("ministack")) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def kinesis_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One kinesis-local for this process of the test run."""
    with emulators.kinesis_local(tmp_path_factory.mktemp("kinesis-local")) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def microburst(ministack: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A proxy with faults in front of this process's ministack."""
    with emulators.microburst(ministack.url, tmp_path_factory.mktemp("microburst")) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One PostgreSQL server for this process of the test run. Each store has a schema of its own in it."""
    with postgres() as running:
        yield running


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh account id, which is also the access key: emulators keep accounts apart by it."""
    number = fresh_account()
    give_credentials(monkeypatch, number)
    return number


def fresh_account() -> str:
    """Twelve digits that no other test has."""
    return f"{1 + uuid.uuid4().int % (10**12 - 1):012d}"


def give_credentials(patch: pytest.MonkeyPatch, account: str) -> None:
    """Makes `account` the access key of this process and hides every other AWS setting of the host."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    patch.setenv("AWS_ACCESS_KEY_ID", account)
    patch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
    patch.setenv("AWS_CONFIG_FILE", os.devnull)
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
