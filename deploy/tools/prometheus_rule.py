"""Writes the rules of deploy/prometheus as a PrometheusRule, for kustomize, which cannot embed one file in another."""

from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[1]
TARGET = DEPLOY / "kubernetes" / "monitoring" / "prometheusrule.yaml"
HEAD = "# Made of deploy/prometheus by `make rules`; change it there.\n"


def document() -> dict[str, Any]:
    """The PrometheusRule with all groups, recording rules first."""
    groups = [
        group
        for name in ("recording.yaml", "alerts.yaml")
        for group in yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["groups"]
    ]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "poller"},
        "spec": {"groups": groups},
    }


def text() -> str:
    """The document as it is kept in the repository."""
    return HEAD + yaml.safe_dump(document(), sort_keys=False, width=110, allow_unicode=True)


if __name__ == "__main__":
    TARGET.write_text(text())
