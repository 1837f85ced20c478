"""Owns the pods' network: a bridge that no other machine can be reached from, whose first address is this machine."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BRIDGE = "poller-pods"
HOST = "10.213.77.1"
"""This machine, as pods see it; nothing is forwarded, so a pod reaches it and other pods and nothing else."""
SUBNET = "10.213.77.0/24"
PLUGINS = Path("/usr/lib/cni")


@contextmanager
def bridge() -> Iterator[None]:
    """The bridge exists until the block ends."""
    _ip("link", "add", BRIDGE, "type", "bridge")
    try:
        _ip("address", "add", f"{HOST}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        yield
    finally:
        _ip("link", "delete", BRIDGE)


def configuration(folder: Path, state: Path) -> None:
    """Writes what containerd tells CNI's plug-ins; addresses in use are noted in `state`."""
    folder.mkdir()
    addresses = {"type": "host-local", "subnet": SUBNET, "gateway": HOST, "dataDir": str(state)}
    pods = {"type": "bridge", "bridge": BRIDGE, "isGateway": False, "ipMasq": False, "ipam": addresses}
    document = {"cniVersion": "0.4.0", "name": "pods", "plugins": [pods]}
    (folder / "pods.conflist").write_text(json.dumps(document))


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10.0)
