"""Owns the settings of a function that runs as child processes, and the variables that its processes get."""

import os
import sys
import uuid
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from poller.config_errors.error_messages import FieldError, refused
from poller.domain.plan import LATEST
from poller.start_folder import from_start_folder

PROCESSES_DEFAULT = 64
"""Processes that one function may have if no setting limits them. They are started when needed."""
PROCESSES_MAX = 1000
INIT_TIMEOUT_S = 10.0
STOP_GRACE_S = 2.0
MEMORY_MB_DEFAULT = 128
_OWN_PREFIX = "poller_"
"""The prefix of the daemon's own variables, in lower case: the daemon accepts them in any case."""


class ProcessSettings(BaseModel):
    """Settings of one function that runs as child processes; `cwd` None: the folder in which the daemon was started.

    The daemon sets `max_concurrency` to the function's own limit, and `function_version` to the version that is opened. Without
    `processes` there are as many processes as `max_concurrency`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    function: str
    command: list[str] = Field(
        min_length=1, max_length=1000, description="The program, which speaks Lambda's Runtime API."
    )
    env: dict[str, str] = Field(default_factory=dict, description="Added to the daemon's variables.")
    cwd: Path | None = Field(default=None, description="The directory in which the command is started.")
    handler: str = Field(default="", description="_HANDLER. Default: the last word of the command.")
    processes: int | None = Field(
        default=None, ge=1, le=PROCESSES_MAX, description="Processes at most, one call each."
    )
    max_concurrency: int | None = None
    function_version: str = LATEST
    init_timeout_s: float = Field(
        default=INIT_TIMEOUT_S, gt=0, le=900, description="Seconds until a started process must be ready."
    )
    stop_grace_s: float = Field(
        default=STOP_GRACE_S, ge=0, le=60, description="Seconds from SIGTERM to SIGKILL at the end."
    )
    memory_mb: int = Field(
        default=MEMORY_MB_DEFAULT, ge=1, description="AWS_LAMBDA_FUNCTION_MEMORY_SIZE. Nothing enforces it."
    )

    @property
    def processes_max(self) -> int:
        """The largest number of processes."""
        return self.processes or min(self.max_concurrency or PROCESSES_DEFAULT, PROCESSES_MAX)

    @property
    def folder(self) -> Path:
        """The absolute path of the directory in which the command is started."""
        return from_start_folder(self.cwd or "")

    @field_validator("command")
    @classmethod
    def _check_command(cls, command: list[str]) -> list[str]:
        if not command or not command[0] or any("\0" in send for send in command):
            raise ValueError(
                "a command starts with a program and has no NUL characters; write [program, argument, …]"
            )
        return command

    @field_validator("cwd")
    @classmethod
    def _check_cwd(cls, cwd: Path | None) -> Path | None:
        if cwd is not None and "\0" in str(cwd):
            raise ValueError("a path has no NUL characters; write a directory's path")
        return cwd

    @field_validator("env")
    @classmethod
    def _check_variables(cls, env: dict[str, str]) -> dict[str, str]:
        odd = [name for name, value in env.items() if not name or "=" in name or "\0" in name + value]
        if odd:
            remedy = "remove '=' and NUL characters"
            raise refused(FieldError("", f"{name!r} cannot be a variable", remedy) for name in odd)
        return env


def environment(settings: ProcessSettings, api: str, *, region: str | None) -> dict[str, str]:
    """Returns the variables of a function process: the daemon's, then the user's, then Lambda's. Later ones win."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.lower().startswith(_OWN_PREFIX)
    }
    # A command should find `python` even if the daemon's virtual environment is not activated.
    path = os.pathsep.join(filter(None, [inherited.get("PATH"), os.path.dirname(sys.executable)]))
    regions = {"AWS_REGION": region, "AWS_DEFAULT_REGION": region} if region else {}
    return {
        **regions,
        **inherited,
        "PATH": path,
        **settings.env,
        "AWS_LAMBDA_RUNTIME_API": api,
        "AWS_LAMBDA_FUNCTION_NAME": settings.function,
        "AWS_LAMBDA_FUNCTION_VERSION": settings.function_version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(settings.memory_mb),
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{settings.function}",
        "AWS_LAMBDA_LOG_STREAM_NAME": uuid.uuid4().hex,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "LAMBDA_TASK_ROOT": str(settings.folder.resolve()),
        "_HANDLER": settings.handler or settings.command[-1],
    }
