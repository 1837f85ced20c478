"""Clients of four kinds that come again as soon as they are sent away, in a process of their own.

`python -m tests.adapters.control.bad_clients HOST PORT COUNT` runs so many of each kind until its standard input ends.
"""

import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

GET = b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n"
UPLOAD = b"POST /v1/mappings/x/enable HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n"


def slow(sock: socket.socket) -> None:
    """Sends its headers a byte at a time."""
    for byte in GET[:-2] % b"/healthz" + b"X: " + b"a" * 4000:
        sock.sendall(bytes([byte]))
        time.sleep(0.05)


def pipelines(sock: socket.socket) -> None:
    """Asks again and again, and takes the answers."""
    while True:
        sock.sendall(GET % b"/v1/mappings" * 500)
        while sock.recv(1 << 16):
            pass


def breaks_off(sock: socket.socket) -> None:
    """Sends half of a body, and goes."""
    sock.sendall(UPLOAD + b"a" * 500_000)


def reads_nothing(sock: socket.socket) -> None:
    """Asks for long answers, and takes none."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    while True:
        sock.sendall(GET % b"/metrics" * 4)
        time.sleep(0.2)


KINDS = (slow, pipelines, breaks_off, reads_nothing)


def _again(kind: Callable[[socket.socket], None], where: tuple[str, int], own: str) -> None:
    while True:
        with (
            suppress(OSError),
            socket.create_connection(where, timeout=1, source_address=(own, 0)) as sock,
        ):
            kind(sock)
        time.sleep(0.001)


def main() -> None:
    """Begins, says so, and goes on until nobody is there any more."""
    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for number, kind in enumerate(KINDS):
        for _ in range(count):
            given = (kind, (host, port), f"127.0.0.{2 + number}")
            threading.Thread(target=_again, args=given, daemon=True).start()
    print("begun", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
