"""What is installed is one version, whatever it is installed by."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_chart_installs_this_version() -> None:
    chart = yaml.safe_load((ROOT / "deploy/helm/poller/Chart.yaml").read_text())
    assert chart["appVersion"] == VERSION


def test_the_overlays_install_this_version() -> None:
    files = sorted((ROOT / "deploy/kubernetes/overlays").glob("*/kustomization.yaml"))
    images = [yaml.safe_load(file.read_text())["images"] for file in files]
    assert images == [[{"name": "poller", "newName": "poller", "newTag": VERSION}]] * len(files)
    assert files


def test_the_image_has_the_python_that_the_project_needs() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    base = next(
        line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("ARG BASE=")
    )
    assert wanted == ">=3.13"
    assert base.startswith("ARG BASE=python:3.13-")


def test_the_image_keeps_what_is_not_its_own_outside() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all((ROOT / path).exists() for path in kept)
    copied = [
        word
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    assert sorted(copied) == sorted(kept)
