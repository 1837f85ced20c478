"""Terraform's `aws_lambda_alias` against a daemon that is a process: it is made, changed, shifted beside Terraform, and destroyed."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.clients.test_terraform_binary import (
    NO_DIFFERENCE,
    Workspace,
)
from tests.acceptance.clients.test_terraform_binary import pytestmark as where_terraform_is
from tests.acceptance.functions.test_aliases import ARN, alias, asked
from tests.acceptance.test_invoke import KEY, SECRET

pytestmark = where_terraform_is


class Aliases(Workspace):
    """A workspace with one alias."""

    def write(self, **arguments: Any) -> None:
        """Writes the configuration with these arguments of `aws_lambda_alias`."""
        self.configure({})
        place = self.folder / "main.tf.json"
        document = json.loads(place.read_text())
        document["provider"]["aws"] |= {"access_key": KEY, "secret_key": SECRET}
        made = {"name": "beta", "function_name": "orders", **arguments}
        document["resource"] = {"aws_lambda_alias": {"beta": made}}
        place.write_text(json.dumps(document))

    def settle(self, **arguments: Any) -> None:
        """Applies a configuration; a plan after it finds no difference."""
        self.write(**arguments)
        self.run("apply", "-input=false", "-auto-approve")
        self.run("plan", "-input=false", "-detailed-exitcode", expected=NO_DIFFERENCE)


def test_terraform_makes_changes_and_destroys_an_alias(tmp_path: Path) -> None:
    def use(caller: Any, url: str) -> None:
        place = Aliases(tmp_path / "terraform", url)
        place.write(function_version="1", description="for us")
        place.run("init", "-input=false")
        place.run("apply", "-input=false", "-auto-approve")
        made = caller.get_alias(FunctionName="orders", Name="beta")
        assert (made["AliasArn"], made["FunctionVersion"], made["Description"]) == (
            f"{ARN}:beta",
            "1",
            "for us",
        )

        weights = {"additional_version_weights": {"2": 0.25}}
        place.settle(function_version="1", description="", routing_config=weights)
        changed = caller.get_alias(FunctionName="orders", Name="beta")
        assert changed["RoutingConfig"] == {"AdditionalVersionWeights": {"2": 0.25}}
        assert changed["Description"] == ""

        # The version that had a share becomes the alias's own, and the share ends in the same request.
        place.settle(function_version="2")
        moved = caller.get_alias(FunctionName="orders", Name="beta")
        assert (moved["FunctionVersion"], moved.get("RoutingConfig")) == ("2", None)

        words = ("shift", "orders", "beta", "--to", "1", "--yes", "--strategy", "Canary10Percent60Minutes")
        assert alias(url, *words).status == 0
        # GetAlias shows the share, so Terraform sees a difference, and may not change it.
        place.run("apply", "-input=false", "-auto-approve", expected=1)
        assert alias(url, "rollback", "orders", "beta", "--yes").status == 0

        place.run("destroy", "-input=false", "-auto-approve")
        with pytest.raises(caller.exceptions.ResourceNotFoundException):
            caller.get_alias(FunctionName="orders", Name="beta")

    asked(tmp_path, use)
