"""Owns the command line of every part of a cluster, and the files that containerd and the kubelet read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.demo.processes import HOST
from deploy.cluster import network
from deploy.cluster.keys import NODE, Keys

PAUSE = "docker.io/library/poller-pause:local"
# Without the right to lower it, runc cannot start a pod whose score for the kernel's out-of-memory killer is below ours.
CONTAINERD = """
version = 2
root = "{root}/containerd"
state = "{run}/containerd"
[grpc]
  address = "{run}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{root}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Of the loopback address, except the kubelet's."""

    etcd: int
    peers: int
    api: int
    controllers: int
    scheduler: int
    kubelet: int
    health: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cluster lives: programs, its files, and a short path for sockets and mounts."""

    programs: Path
    root: Path
    run: Path
    ports: Ports
    snapshotter: str

    @property
    def api_url(self) -> str:
        """Of the API server."""
        return f"https://{HOST}:{self.ports.api}"

    @property
    def certificate(self) -> Path:
        """The API server makes it for itself."""
        return self.root / "api" / "apiserver.crt"

    @property
    def containerd(self) -> Path:
        """The socket of the container runtime."""
        return self.run / "containerd.sock"


def etcd(place: Place) -> Sequence[str]:
    """The API server's data."""
    clients = f"http://{HOST}:{place.ports.etcd}"
    peers = f"http://{HOST}:{place.ports.peers}"
    return [
        "etcd",
        f"--data-dir={place.root / 'etcd'}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
    ]


def api_server(place: Place, keys: Keys) -> Sequence[str]:
    """Kubernetes' API, with its own authorization: nodes by name, all others by RBAC."""
    accounts = keys.file("accounts.key")
    return [
        str(place.programs / "kube-apiserver"),
        f"--etcd-servers=http://{HOST}:{place.ports.etcd}",
        f"--bind-address={HOST}",
        f"--advertise-address={network.HOST}",
        f"--secure-port={place.ports.api}",
        f"--cert-dir={place.certificate.parent}",
        f"--token-auth-file={keys.tokens}",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={accounts}",
        f"--service-account-key-file={accounts}",
        "--service-cluster-ip-range=10.213.78.0/24",
        f"--kubelet-client-certificate={keys.file('client.crt')}",
        f"--kubelet-client-key={keys.file('client.key')}",
        "--kubelet-preferred-address-types=InternalIP",
    ]


def controller_manager(place: Place, keys: Keys) -> Sequence[str]:
    """Deployments, endpoints, disruption budgets and the rest."""
    return [
        str(place.programs / "kube-controller-manager"),
        f"--kubeconfig={keys.kubeconfig('controller-manager')}",
        f"--bind-address={HOST}",
        f"--secure-port={place.ports.controllers}",
        "--port=0",
        f"--cert-dir={place.root / 'controllers'}",
        f"--service-account-private-key-file={keys.file('accounts.key')}",
        f"--root-ca-file={place.certificate}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
    ]


def scheduler(place: Place, keys: Keys) -> Sequence[str]:
    """Places pods on the node."""
    return [
        str(place.programs / "kube-scheduler"),
        f"--kubeconfig={keys.kubeconfig('scheduler')}",
        f"--bind-address={HOST}",
        f"--secure-port={place.ports.scheduler}",
        "--port=0",
        f"--cert-dir={place.root / 'scheduler'}",
        "--leader-elect=false",
    ]


def containerd(place: Place) -> Sequence[str]:
    """The container runtime, with runc."""
    file = place.root / "containerd.toml"
    file.write_text(
        CONTAINERD.format(
            root=place.root,
            run=place.run,
            pause=PAUSE,
            plugins=network.PLUGINS,
            snapshotter=place.snapshotter,
        )
    )
    return ["containerd", f"--config={file}"]


def kubelet(place: Place, keys: Keys) -> Sequence[str]:
    """The node. Pods ask nothing of it: its port wants the API server's certificate."""
    document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network.HOST,
        "port": place.ports.kubelet,
        "readOnlyPort": 0,
        "healthzBindAddress": HOST,
        "healthzPort": place.ports.health,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(keys.file("client-ca.crt"))},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        # Only what was imported is there, so nothing may be thrown away to make room.
        "imageGCHighThresholdPercent": 100,
    }
    (file := place.root / "kubelet.json").write_text(json.dumps(document))
    return [
        str(place.programs / "kubelet"),
        f"--config={file}",
        f"--kubeconfig={keys.kubeconfig('kubelet')}",
        f"--root-dir={place.run / 'kubelet'}",
        f"--cert-dir={place.root / 'kubelet'}",
        f"--hostname-override={NODE}",
        f"--node-ip={network.HOST}",
        "--container-runtime=remote",
        f"--container-runtime-endpoint=unix://{place.containerd}",
        f"--image-service-endpoint=unix://{place.containerd}",
    ]
