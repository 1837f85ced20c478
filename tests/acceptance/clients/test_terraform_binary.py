"""Terraform itself, with the AWS provider, against a daemon that is a real process.

Terraform comes from no package registry. These tests run where a `terraform` binary is on the PATH and a filesystem mirror of
providers lies in a folder named `tf-plugins`; elsewhere they are skipped, and test_terraform.py makes the same calls.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.demo.processes import plain_environment
from tests.acceptance.clients.test_aws_clients import KEY, SECRET, World, a_queue, a_stream, a_table_stream
from tests.conftest import REGION, fresh_account
from tests.emulators import Emulator

COMMAND_S_MAX = 180.0
"""Each command starts the provider, which takes seconds of a core by itself."""
NO_DIFFERENCE, SOME_DIFFERENCE = 0, 2
"""What `terraform plan -detailed-exitcode` ends with."""
PROVIDER = "registry.terraform.io/hashicorp/aws"
MIRROR_PLACES = (Path("/opt"), Path("/usr/local"), Path("/usr/local/share"), Path("/usr/share"), Path.home())


def mirror() -> Path | None:
    """The folder with the AWS provider; None where there is none."""
    folders = [place / "tf-plugins" for place in MIRROR_PLACES]
    return next((folder for folder in folders if (folder / PROVIDER).is_dir()), None)


pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("terraform") is None, reason="there is no terraform on the PATH"),
    pytest.mark.skipif(mirror() is None, reason="there is no folder tf-plugins with the AWS provider"),
]

type Resources = Mapping[str, Mapping[str, Any]]
"""Arguments of aws_lambda_event_source_mapping by the resource's name."""


@dataclass
class Workspace:
    """A folder that Terraform works in, pointed at a daemon."""

    folder: Path
    url: str

    def configure(self, resources: Resources, imports: Mapping[str, str] | None = None) -> None:
        """Writes the configuration, with one provider that has the daemon's address and key; `imports` are UUIDs by name."""
        provider = {
            "region": REGION,
            "access_key": KEY,
            "secret_key": SECRET,
            "skip_credentials_validation": True,
            "skip_requesting_account_id": True,
            "endpoints": [{"lambda": self.url}],
        }
        document: dict[str, Any] = {
            "terraform": {"required_providers": {"aws": {"source": "hashicorp/aws"}}},
            "provider": {"aws": provider},
        }
        if resources:
            document["resource"] = {"aws_lambda_event_source_mapping": resources}
        if imports:
            document["import"] = [
                {"to": f"aws_lambda_event_source_mapping.{name}", "id": uuid}
                for name, uuid in imports.items()
            ]
        self.folder.mkdir(exist_ok=True)
        (self.folder / "main.tf.json").write_text(json.dumps(document))
        settings = self.folder / "terraform.rc"
        settings.write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{mirror()}" }}\n}}\n')

    def run(self, *words: str, expected: int = 0) -> str:
        """What `terraform WORDS` prints; fails when it ends with another status than expected."""
        env = plain_environment() | {
            "TF_CLI_CONFIG_FILE": str(self.folder / "terraform.rc"),
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        done = subprocess.run(
            ["terraform", words[0], "-no-color", *words[1:]],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )
        assert done.returncode == expected, f"terraform {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def apply(self, resources: Resources) -> None:
        """Applies a configuration; a plan after it finds no difference."""
        self.configure(resources)
        self.run("apply", "-input=false", "-auto-approve")
        self.run("plan", "-input=false", "-detailed-exitcode", expected=NO_DIFFERENCE)

    def ids(self) -> dict[str, str]:
        """The UUIDs of the mappings in the state."""
        state = json.loads(self.run("show", "-json"))
        resources = state["values"]["root_module"]["resources"]
        return {each["name"]: each["values"]["uuid"] for each in resources}


@pytest.fixture
def world(ministack: Emulator, tmp_path: Path) -> World:
    return World(ministack.url, fresh_account(), tmp_path)


def four_kinds(world: World) -> dict[str, dict[str, Any]]:
    """A mapping of each kind of source, with as little as can be said."""
    reader = world.arn("lambda", "function:reader")
    start = {"starting_position": "TRIM_HORIZON"}
    return {
        "kinesis": {"event_source_arn": a_stream(world), "function_name": reader, **start},
        "dynamodb": {"event_source_arn": a_table_stream(world), "function_name": "reader", **start},
        "standard": {"event_source_arn": a_queue(world), "function_name": reader},
        "fifo": {"event_source_arn": a_queue(world, "a.fifo"), "function_name": f"{reader}:live"},
    }


def more(world: World, failed: str) -> dict[str, dict[str, Any]]:
    """What is changed of each kind."""
    stream = {
        "batch_size": 50,
        "bisect_batch_on_function_error": True,
        "destination_config": {"on_failure": {"destination_arn": failed}},
        "function_response_types": ["ReportBatchItemFailures"],
        "maximum_record_age_in_seconds": 600,
        "maximum_retry_attempts": 3,
        "parallelization_factor": 2,
    }
    return {
        "kinesis": {**stream, "filter_criteria": {"filter": [{"pattern": '{"data":{"a":["b"]}}'}]}},
        "dynamodb": stream | {"maximum_batching_window_in_seconds": 2},
        "standard": {
            "batch_size": 100,
            "maximum_batching_window_in_seconds": 1,
            "scaling_config": {"maximum_concurrency": 5},
            "function_name": world.arn("lambda", "function:writer"),
            "tags": {"team": "a"},
        },
        "fifo": {"batch_size": 5, "enabled": False},
    }


def test_terraform_applies_plans_changes_imports_and_destroys_the_four_kinds_of_mapping(world: World) -> None:
    first, failed = four_kinds(world), a_queue(world, "failed")
    second = {name: {**first[name], **extra} for name, extra in more(world, failed).items()}
    with world.daemon():
        made = Workspace(world.folder / "made", world.url)
        made.configure(first)
        made.run("init", "-input=false")
        made.apply(first)
        ids = made.ids()
        listed = world.api().list_event_source_mappings()["EventSourceMappings"]
        assert sorted(ids.values()) == sorted(each["UUID"] for each in listed)

        made.apply(second)
        assert made.ids() == ids
        kinesis = world.api().get_event_source_mapping(UUID=ids["kinesis"])
        assert (kinesis["BatchSize"], kinesis["ParallelizationFactor"]) == (50, 2)
        assert world.api().get_event_source_mapping(UUID=ids["fifo"])["State"] == "Disabled"

        imported = Workspace(world.folder / "imported", world.url)
        imported.configure(second, imports=ids)
        imported.run("init", "-input=false")
        told = imported.run("apply", "-input=false", "-auto-approve")
        assert "4 imported, 0 added, 0 changed, 0 destroyed" in told
        imported.run("plan", "-input=false", "-detailed-exitcode", expected=NO_DIFFERENCE)
        assert imported.ids() == ids

        imported.run("destroy", "-input=false", "-auto-approve")
        assert world.api().list_event_source_mappings()["EventSourceMappings"] == []


def test_terraform_shows_a_difference_for_a_bare_name_with_a_qualifier(world: World) -> None:
    """The provider takes a bare name and its ARN as the same, but not `name:qualifier`: write the ARN (docs/use/api.md)."""
    name = {"event_source_arn": a_queue(world), "function_name": "reader:live"}
    arn = name | {"function_name": world.arn("lambda", "function:reader:live")}
    with world.daemon():
        workspace = Workspace(world.folder / "qualified", world.url)
        workspace.configure({"queue": name})
        workspace.run("init", "-input=false")
        workspace.run("apply", "-input=false", "-auto-approve")
        plan = workspace.run("plan", "-input=false", "-detailed-exitcode", expected=SOME_DIFFERENCE)
        assert "function_name" in plan
        workspace.configure({"queue": arn})
        workspace.run("plan", "-input=false", "-detailed-exitcode", expected=NO_DIFFERENCE)
