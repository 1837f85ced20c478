"""What several checks use."""

from pathlib import Path

import pytest

from deploy.checks.installing import make_environment, wheel


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel with what it requires, and nothing else."""
    return make_environment(tmp_path_factory.mktemp("installed") / "env", str(wheel()))
