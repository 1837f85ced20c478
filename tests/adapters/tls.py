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


def authority_in(directory: Path) -> Path:
    """An authority of its own for client certificates, with its key in the same file."""
    return _made(directory, "authority", "/CN=authority", [])


def client_in(directory: Path, authority: Path, *, name: str = "client") -> tuple[Path, Path]:
    """A client certificate that the authority signed, and its key."""
    made = _made(directory, name, f"/CN={name}", ["-CA", str(authority), "-CAkey", str(authority)])
    return made.with_suffix(".crt"), made.with_suffix(".key")


def _made(directory: Path, name: str, subject: str, signed: list[str]) -> Path:
    out, key, both = (directory / f"{name}{suffix}" for suffix in (".crt", ".key", ".pem"))
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = [
        "openssl",
        "req",
        "-x509",
        *kind,
        "-subj",
        subject,
        *signed,
        "-keyout",
        str(key),
        "-out",
        str(out),
    ]
    subprocess.run(command, check=True, capture_output=True)
    both.write_bytes(out.read_bytes() + key.read_bytes())
    return both
