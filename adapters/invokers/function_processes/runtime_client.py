"""Owns a child process's own connection to the daemon's Runtime API.

A function may change whatever is global in its process: default timeouts, the classes of `socket` and `http.client`, `json`,
handlers of signals. None of that may break or show the traffic with the daemon. So this client uses the kernel's sockets beneath
those classes, sets their options itself, binds what it needs before the function's module is imported, and speaks as much HTTP as
the daemon's own server does.

The function's signal handlers run only while the client waits, since they may raise anything: a wait can begin anew, and a message
that is half sent cannot.
"""

import errno
import sys
import traceback
from _signal import (  # type: ignore[import-not-found]  # CPython's own, which has no stubs
    SIG_BLOCK,
    SIG_SETMASK,
    pthread_sigmask,
    valid_signals,
)
from _socket import IPPROTO_TCP, TCP_NODELAY
from _socket import socket as kernel_socket
from collections.abc import Collection, Mapping
from select import POLLIN, poll

from poller.forked_copies import end_copy, process_id

PREFIX = "/2018-06-01/runtime"
HEAD_BYTES_MAX = 64 * 1024
RECEIVED_BYTES_MAX = 256 * 1024
"""Bytes that are taken from the socket at once."""
OK = 200
_FOREIGN = {errno.EBADF, errno.ENOTSOCK}
"""Errors of a descriptor that the function has closed, and that may be something else of the function's by now."""
_ALL = valid_signals()
"""As numbers. The module `signal` would make an object of each of the 64 on each call, which costs more than the request itself."""
_report = traceback.print_exc

type Headers = Mapping[str, str]
"""The headers of an answer. Their names are in lower case."""


class DaemonGone(Exception):
    """The daemon does not answer any more. End this process."""


class RuntimeClient:
    """A client of the daemon's Runtime API at `address` (host:port).

    Its methods raise DaemonGone. Making one raises OSError if nobody listens there.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = host, int(port)
        self._process = process_id()
        self._socket = self._connected()

    def next(self) -> tuple[Headers, bytes]:
        """Waits for the next call; returns its headers and its event."""
        status, headers, event = self._exchange("GET", "invocation/next", b"")
        if status != OK:
            raise DaemonGone(f"status {status}")
        return headers, event

    def get(self, path: str) -> bytes:
        """Returns a document of the daemon's."""
        return self._exchange("GET", path, b"")[2]

    def post(self, path: str, body: bytes) -> None:
        """Sends an answer."""
        self._exchange("POST", path, body)

    def _exchange(self, method: str, path: str, body: bytes) -> tuple[int, Headers, bytes]:
        if process_id() != self._process:
            # A forked copy that got here shares the connection with its original, which alone may use it.
            end_copy(None)
        head = (
            f"{method} {PREFIX}/{path} HTTP/1.1\r\nHost: {self._address[0]}:{self._address[1]}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        before = pthread_sigmask(SIG_BLOCK, _ALL)
        try:
            found = self._answer_to(head.encode() + body, before)
        except OSError as error:
            raise DaemonGone(str(error)) from error
        finally:
            _handle_signals(before)
        return found

    def _answer_to(self, request: bytes, mask: Collection[int]) -> tuple[int, Headers, bytes]:
        """Sends a request; returns status, headers and body of the answer.

        A connection that turns out to be closed is made anew once: a server closes one that was idle during a very long call.
        """
        try:
            begun = self._begun(request, mask)
        except OSError as error:
            if error.errno in _FOREIGN:
                self._socket.detach()
            self._socket.close()
            self._socket = self._connected()
            begun = self._begun(request, mask)
        return self._rest_of(begun)

    def _begun(self, request: bytes, mask: Collection[int]) -> bytes:
        """Sends a request; returns the beginning of the answer."""
        self._socket.sendall(request)
        self._wait(mask)
        return self._received()

    def _wait(self, mask: Collection[int]) -> None:
        """Waits for an answer. The function's handlers run meanwhile; an error of theirs is told, and SystemExit ends the process."""
        waiting = poll()
        waiting.register(self._socket.fileno(), POLLIN)
        _handle_signals(mask)
        while True:
            try:
                waiting.poll()
                break
            except Exception:  # noqa: BLE001 - of a signal handler of the function
                _tell()
        while True:
            try:
                pthread_sigmask(SIG_BLOCK, _ALL)
                break
            except Exception:  # noqa: BLE001 - of a signal handler of the function
                _tell()

    def _rest_of(self, begun: bytes) -> tuple[int, Headers, bytes]:
        got = bytearray(begun)
        while (end := got.find(b"\r\n\r\n")) < 0:
            if len(got) > HEAD_BYTES_MAX:
                raise OSError("an answer without an end of its head")
            got += self._received()
        first, *lines = got[:end].decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body, length = got[end + 4 :], int(headers.get("content-length", "0"))
        while len(body) < length:
            body += self._received()
        return int(first.split(" ")[1]), headers, bytes(body)

    def _received(self) -> bytes:
        """Takes what has come, at least a byte; raises OSError at the end of the connection."""
        found = self._socket.recv(RECEIVED_BYTES_MAX)
        if not found:
            raise OSError(errno.ECONNRESET, "the connection was closed")
        return found

    def _connected(self) -> kernel_socket:
        found = kernel_socket()
        # The function may have set another default.
        found.settimeout(None)
        found.connect(self._address)
        found.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        return found


def _handle_signals(mask: Collection[int]) -> None:
    """Sets the mask of signals. Handlers of signals that came meanwhile run here."""
    while True:
        try:
            pthread_sigmask(SIG_SETMASK, mask)
            return
        except Exception:  # noqa: BLE001 - of a signal handler of the function
            _tell()


def _tell() -> None:
    try:
        _report(file=sys.stderr)
    except Exception:  # noqa: BLE001 - the stream may be a function's own
        return
