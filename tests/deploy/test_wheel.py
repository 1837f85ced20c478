"""What the wheel and the source distribution that are built from this tree carry."""

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest
from packaging.metadata import Metadata

from adapters.control.live.page_files import FOLDER
from hatch_build import PAGES, VARIABLE, absolute

ROOT = Path(__file__).parents[2]
HOME = "https://git.example.com/team/poller"


def build(root: Path, target: str, folder: Path, home: str) -> Path:
    """Builds a wheel or a source distribution and returns its path."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)],
        cwd=root,
        env={**os.environ, VARIABLE: home},
        capture_output=True,
        check=True,
        timeout=120,
    )
    (built,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("source"), HOME)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """The files of the wheel by their names."""
    return files(build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"), HOME))


def files(wheel: Path) -> Mapping[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def raw_metadata(wheel: Mapping[str, bytes]) -> bytes:
    return next(text for name, text in wheel.items() if name.endswith("/METADATA"))


def metadata(wheel: Mapping[str, bytes]) -> Message:
    return BytesParser().parsebytes(raw_metadata(wheel))


def test_the_wheel_carries_both_packages_and_nothing_else(wheel: Mapping[str, bytes]) -> None:
    ours = {
        str(file.relative_to(ROOT))
        for package in ("poller", "adapters")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {name for name in wheel if ".dist-info/" not in name} == ours
    assert {"poller/py.typed", "adapters/py.typed"} <= ours
    assert str((FOLDER / "index.html").relative_to(ROOT)) in ours


def test_the_metadata_are_complete(wheel: Mapping[str, bytes]) -> None:
    found = metadata(wheel)
    # Raises what is wrong with the fields, by the rules of the packaging specifications.
    Metadata.from_email(raw_metadata(wheel), validate=True)
    assert found["Name"] == "esm-poller"
    assert found["License-Expression"] == "Apache-2.0"
    assert found["Requires-Python"] == ">=3.13"
    assert found["Description-Content-Type"] == "text/markdown"
    assert all(found[name] for name in ("Summary", "Author", "Keywords"))
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.13"} <= set(
        found.get_all("Classifier", [])
    )
    assert found.get_all("Provides-Extra") == ["demo", "kubernetes", "otel", "postgresql", "testing"]
    assert (
        next(text for name, text in wheel.items() if name.endswith("/licenses/LICENSE"))
        == (ROOT / "LICENSE").read_bytes()
    )


def test_the_urls_and_the_links_of_the_description_lead_to_the_repository(wheel: Mapping[str, bytes]) -> None:
    found = metadata(wheel)
    assert found.get_all("Project-URL") == [f"{name}, {HOME}{path}" for name, path in PAGES.items()]
    for path in PAGES.values():
        if path.startswith("/blob/main/"):
            assert (ROOT / path.removeprefix("/blob/main/")).is_file()
    payload = found.get_payload(decode=True)
    assert isinstance(payload, bytes)
    text = payload.decode()
    assert text == absolute((ROOT / "README.md").read_text(), HOME)
    assert f"({HOME}/blob/main/docs/use/demo.md)" in text
    assert "](docs/" not in text


def test_links_that_lead_elsewhere_or_stay_on_the_page_are_kept() -> None:
    page = "[a](#below) [b](https://example.com/x) [c](docs/README.md#part) [d](mailto:a@example.com)"
    expected = f"[a](#below) [b](https://example.com/x) [c]({HOME}/blob/main/docs/README.md#part) [d](mailto:a@example.com)"
    assert absolute(page, HOME) == expected


def test_a_wheel_of_the_source_distribution_is_that_of_the_tree(
    source: Path, wheel: Mapping[str, bytes], tmp_path: Path
) -> None:
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    assert files(build(root, "wheel", tmp_path / "dist", "")) == wheel


@pytest.mark.parametrize(
    "home", ["http://git.example.com/p", "git.example.com/p", "https://x/?a", "https://#"]
)
def test_an_address_that_is_no_page_is_refused(home: str, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        build(ROOT, "wheel", tmp_path, home)
    assert f"{VARIABLE}: value '{home}'".encode() in refused.value.stderr
