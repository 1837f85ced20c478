"""Owns how images reach the cluster's container runtime without a registry."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from deploy.cluster.parts import PAUSE

CALL_S_MAX = 300.0


def pause(program: Path, archive: Path) -> None:
    """Writes the image of the process that holds a pod's namespaces: one static program and nothing else."""
    layer = _tar({"pause": program.read_bytes()}, mode=0o755)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    archive.write_bytes(_tar(files, mode=0o644))


def _tar(files: dict[str, bytes], *, mode: int) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def save(engine: Sequence[str], image: str, archive: Path) -> None:
    """Takes an image out of docker or podman."""
    _run(*engine, "save", "--output", str(archive), image)


def load(socket: Path, archive: Path, name: str, *, snapshotter: str) -> None:
    """Puts an archive's only image into containerd as `name`, whatever the engine that saved it calls it."""
    ctr = ("ctr", "--address", str(socket), "--namespace", "k8s.io", "images")
    before = _names(ctr)
    _run(*ctr, "import", "--snapshotter", snapshotter, str(archive))
    (found,) = _names(ctr) - before
    if found != name:
        _run(*ctr, "tag", found, name)


def _names(ctr: Sequence[str]) -> set[str]:
    """Without those that the container runtime makes itself, of digests."""
    return {each for each in _run(*ctr, "list", "--quiet").split() if not each.startswith("sha256:")}


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=CALL_S_MAX, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
