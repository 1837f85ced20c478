"""Owns a relay in front of an emulator: a port that passes connections on, or refuses them as a service does that is down."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from adapters.demo.processes import HOST, free_port

CHUNK_BYTES = 65_536


class Relay:
    """Passes connections on to `url` while it is open; use it as a context manager. Clients have the URL `url` of the relay."""

    def __init__(self, url: str) -> None:
        port = urlsplit(url).port
        assert port is not None
        self._to = HOST, port
        self._port = free_port()
        self._lock = threading.Lock()
        self._listening: socket.socket | None = None
        self._open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        """Where clients find the emulator."""
        return f"http://{HOST}:{self._port}"

    def __enter__(self) -> Self:
        """Opens the relay."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()

    def open(self) -> None:
        """From now on connections are passed on."""
        self._listening = listening = socket.create_server((HOST, self._port), backlog=100)
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def close(self) -> None:
        """Breaks all connections; new ones are refused."""
        ends, self._listening = [self._listening] if self._listening else [], None
        with self._lock:
            ends += self._open
            self._open.clear()
        for each in ends:
            _end(each)
            each.close()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                service = socket.create_connection(self._to)
                with self._lock:
                    self._open |= {client, service}
                for source, target in ((client, service), (service, client)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while sent := source.recv(CHUNK_BYTES):
                target.sendall(sent)
        _end(source)
        _end(target)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
