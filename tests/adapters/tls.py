"""Owns certificates for servers on the loopback address."""

import subprocess
from pathlib import Path


def certificate_in(directory: Path) -> Path:
    """A certificate of 127.0.0.1 that signs itself, with its key in the same file."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    path, key, out = directory / "tls.pem", directory / "key.pem", directory / "cert.pem"
    subprocess.run([*command, *names, "-keyout", key, "-out", out], check=True, capture_output=True)
    path.write_bytes(out.read_bytes() + key.read_bytes())
    return path
