"""Owns who is at the other end of a loopback connection: which process holds the socket, as the kernel tells.

The kernel is asked for the peer's socket by the two addresses (sock_diag; where it has none, the table in /proc/net is
searched). The socket's inode then stands among the descriptors of whoever holds it, in /proc. A process of another
container shares the loopback device with its pod but not /proc, so that it is nobody's process here.
"""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

SUPPORTED = sys.platform == "linux"
"""Elsewhere the kernel does not tell whose a socket is."""

type Endpoint = tuple[str, int]
"""An IPv4 address and a port."""

ANCESTORS_MAX = 64

_SOCK_DIAG = 4
"""The netlink protocol NETLINK_SOCK_DIAG."""
_BY_FAMILY = 20
_REQUEST = 1
_WAIT_S = 1.0
_ANSWER_BYTES_MAX = 8192
_ANY = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")
"""Length, type, flags, sequence number and port of a netlink message."""
_SOCKET = struct.Struct("=BBBBI HH 16s 16s III")
"""Family, protocol, extensions, nothing, states; the socket: ports, addresses, interface and cookie."""
_ANSWERED = struct.Struct("=BBBB HH 16s 16s III IIIII")
"""Family, state, timer, tries; the socket; when it expires, its queues, and at the end owner and inode."""


@dataclass(frozen=True, slots=True)
class PeerSocket:
    """A socket, and the user who made it."""

    uid: int
    inode: int


def socket_of(peer: Endpoint, own: Endpoint) -> PeerSocket | None:
    """The connected socket at `peer`, whose other end is ours at `own`; None when nobody holds it any more."""
    found = asked(peer, own)
    if found is None and asked(own, peer) is None:
        # It does not even know our end, so that it cannot be asked.
        found = searched(peer, own)
    # The kernel keeps a socket for a while after its process is gone.
    return found if found is not None and found.inode else None


def holds(pid: int, inode: int) -> bool:
    """Whether a process has a socket among its descriptors; no when its descriptors cannot be seen."""
    wanted = f"socket:[{inode}]"
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        for each in descriptors:
            with suppress(OSError):
                if os.readlink(each.path) == wanted:
                    return True
    return False


def tree(leader: int) -> Iterator[int]:
    """A process and its descendants whose parents all live, as far as this kernel lists them; cheap."""
    found, seen = [leader], {leader}
    for pid in found:
        yield pid
        children = {child for child in _children(pid) if child not in seen}
        seen |= children
        found += children


def session(leader: int) -> list[int]:
    """Everybody in the session of `leader`, and all descendants of these; looks at every process of the machine."""
    facts = {int(name): fact for name in os.listdir("/proc") if name.isdigit() and (fact := _fact(name))}
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in facts.items():
        children.setdefault(parent, []).append(pid)
    found = [pid for pid, (_, own) in facts.items() if own == leader]
    seen = set(found)
    for pid in found:
        fresh = [child for child in children.get(pid, ()) if child not in seen]
        seen.update(fresh)
        found += fresh
    return found


def descends(pid: int, ancestor: int) -> bool:
    """Whether a process comes from `ancestor`, as far as parents live; cheap, and says no beyond ANCESTORS_MAX generations."""
    for _ in range(ANCESTORS_MAX):
        if pid == ancestor:
            return True
        fact = _fact(str(pid))
        if fact is None:
            break
        pid = fact[0]
    return False


def _children(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                yield from map(int, file.read().split())


def _fact(name: str) -> tuple[int, int] | None:
    """Parent and session of a process."""
    try:
        with open(f"/proc/{name}/stat", "rb") as file:
            # The name in brackets may have blanks and brackets of its own.
            words = file.read().rpartition(b")")[2].split()
        return int(words[1]), int(words[3])
    except (OSError, IndexError):
        return None


def asked(local: Endpoint, remote: Endpoint) -> PeerSocket | None:
    """The socket at `local` that is connected to `remote`; None when there is none, or when the kernel cannot be asked."""
    ends = (
        socket.htons(local[1]),
        socket.htons(remote[1]),
        *(socket.inet_aton(end[0]) for end in (local, remote)),
    )
    wanted = _SOCKET.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _ANY, *ends, 0, _ANY, _ANY)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as kernel:
            kernel.settimeout(_WAIT_S)
            kernel.send(_HEADER.pack(_HEADER.size + len(wanted), _BY_FAMILY, _REQUEST, 0, 0) + wanted)
            answer = kernel.recv(_ANSWER_BYTES_MAX)
    except OSError:
        return None
    if _HEADER.unpack_from(answer)[1] != _BY_FAMILY:
        return None
    *_, uid, inode = _ANSWERED.unpack_from(answer, _HEADER.size)
    return PeerSocket(uid, inode)


def searched(peer: Endpoint, own: Endpoint) -> PeerSocket | None:
    """The same from the tables of all connections, which takes long where there are many."""
    for table, mapped in (("tcp", ""), ("tcp6", "0000000000000000FFFF0000")):
        line_start = f"{mapped}{_written(peer)} {mapped}{_written(own)}".encode()
        with suppress(OSError), open(f"/proc/net/{table}", "rb") as file:
            for line in file:
                if line_start in line:
                    words = line.split()
                    return PeerSocket(int(words[7]), int(words[9]))
    return None


def _written(endpoint: Endpoint) -> str:
    (address,) = struct.unpack("=I", socket.inet_aton(endpoint[0]))
    return f"{address:08X}:{endpoint[1]:04X}"
