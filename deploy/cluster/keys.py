"""Owns how the parts of a cluster know each other: tokens towards the API server, a certificate towards the kubelet."""

import json
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

NODE = "local"
USERS = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}
"""Part: its user and group in Kubernetes. All but the administrator have only the rights that Kubernetes gives such users."""
CERTIFICATE_DAYS = 2


@dataclass(frozen=True, slots=True)
class Keys:
    """Files with secrets, readable for their owner only."""

    folder: Path

    @property
    def tokens(self) -> Path:
        """Static tokens for the API server."""
        return self.folder / "tokens.csv"

    def file(self, name: str) -> Path:
        """One of the key files that make() writes."""
        return self.folder / name

    def kubeconfig(self, part: str) -> Path:
        """How one part reaches the API server."""
        return self.folder / f"{part}.kubeconfig"


def make(folder: Path, api_url: str, authority: Path) -> Keys:
    """Writes tokens, a kubeconfig for each part, and keys; `authority` is what the API server's certificate is checked against."""
    folder.mkdir(mode=0o700)
    keys = Keys(folder)
    tokens = {part: secrets.token_hex(16) for part in USERS}
    lines = [f'{tokens[part]},{user},{user},"{group}"\n' for part, (user, group) in USERS.items()]
    keys.tokens.write_text("".join(lines))
    for part in USERS:
        document = _kubeconfig(api_url, authority, tokens[part])
        keys.kubeconfig(part).write_text(json.dumps(document))
    _openssl("genrsa", "-out", str(keys.file("accounts.key")), "2048")
    _client_certificate(keys)
    return keys


def _kubeconfig(api_url: str, authority: Path, token: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "local", "cluster": {"server": api_url, "certificate-authority": str(authority)}}
        ],
        "users": [{"name": "own", "user": {"token": token}}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "own"}}],
        "current-context": "local",
    }


def _client_certificate(keys: Keys) -> None:
    """An authority of one certificate: the API server shows it to the kubelet for logs and exec."""
    days = str(CERTIFICATE_DAYS)
    authority, authority_key = str(keys.file("client-ca.crt")), str(keys.file("client-ca.key"))
    request = str(keys.file("client.csr"))
    fresh = ("req", "-newkey", "rsa:2048", "-nodes")
    _openssl(*fresh, "-x509", "-days", days, "-subj", "/CN=ca", "-keyout", authority_key, "-out", authority)
    _openssl(*fresh, "-subj", "/CN=kube-apiserver", "-keyout", str(keys.file("client.key")), "-out", request)
    signing = ("-CA", authority, "-CAkey", authority_key, "-CAcreateserial", "-days", days)
    _openssl("x509", "-req", "-in", request, *signing, "-out", str(keys.file("client.crt")))


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60.0)
