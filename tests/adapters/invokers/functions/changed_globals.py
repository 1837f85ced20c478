"""A module that changes what is global in its process, as the variable CHANGES says."""

import http.client
import json
import logging
import os
import select
import signal
import socket
import sys
from typing import Any, Never


def _fails(*_: object, **__: object) -> Never:
    raise AssertionError("something of the function's was used for the daemon's traffic")


def _rings(*_: object) -> Never:
    raise TimeoutError("an alarm of the function")


def _default_timeout() -> None:
    socket.setdefaulttimeout(0.2)


def _debug_level() -> None:
    http.client.HTTPConnection.debuglevel = 1


def _http_client() -> None:
    for name in ("request", "getresponse", "connect", "send", "putrequest"):
        setattr(http.client.HTTPConnection, name, _fails)


def _sockets() -> None:
    for name in ("connect", "sendall", "close"):
        setattr(socket.socket, name, _fails)
    module: Any = socket
    module.socket = module.create_connection = module.getaddrinfo = _fails


def _selects() -> None:
    module: Any = select
    module.poll = module.select = module.epoll = _fails


def _json() -> None:
    for name in ("dumps", "loads", "dump", "load", "JSONEncoder", "JSONDecoder"):
        setattr(json, name, _fails)


def _exits() -> None:
    for module, names in ((sys, ("exit",)), (os, ("_exit", "read", "killpg", "dup"))):
        for name in names:
            setattr(module, name, _fails)


def _signals() -> None:
    module: Any = signal
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    module.pthread_sigmask = module.valid_signals = module.signal = _fails


def _alarm() -> None:
    _set_handler(signal.SIGALRM, _rings)


CHANGES = {
    "default timeout": _default_timeout,
    "debug level": _debug_level,
    "http.client": _http_client,
    "sockets": _sockets,
    "selects": _selects,
    "json": _json,
    "exits": _exits,
    "signals": _signals,
    "alarm": _alarm,
}
_own_id = os.getpid()
_set_handler = signal.signal
_changes = [name for name in os.environ.get("CHANGES", "").split(",") if name]
for _name in _changes:
    CHANGES[_name]()


def handler(event: Any, _context: Any) -> Any:
    """Answers with the id of its process. Fails, logs with fields, and lets an alarm ring after the call, when told to."""
    if event.get("fails"):
        raise ValueError('boom "in quotes" 日本')
    if event.get("logs"):
        logging.getLogger("shop").warning("logged", extra={"order": 17})
    if event.get("rings"):
        signal.setitimer(signal.ITIMER_REAL, event["rings"])
    return _own_id
