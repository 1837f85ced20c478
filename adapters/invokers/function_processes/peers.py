"""Owns how the process at the other end of a loopback connection is found.

First the kernel is asked for the peer's socket by its two addresses. This uses the netlink protocol sock_diag, or the tables in
/proc/net if the kernel does not have it. Then the process is found that has the socket's inode among its descriptors in /proc.
A process of another container of the same pod shares the loopback device but not /proc, so it is never found.
"""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

SUPPORTED = sys.platform == "linux"
"""Whether this system can tell which process has a socket."""

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
    """A socket, by its inode, and the user who made it."""

    uid: int
    inode: int


def socket_of(peer: Endpoint, own: Endpoint) -> PeerSocket | None:
    """Returns the connected socket at `peer`, whose other end is ours at `own`; None if no process has it any more."""
    found = socket_by_netlink(peer, own)
    if found is None and socket_by_netlink(own, peer) is None:
        # The kernel does not even find our own end, so sock_diag does not work here.
        found = socket_in_tables(peer, own)
    # The kernel keeps a socket for a while after its process has ended. Its inode is then 0.
    return found if found is not None and found.inode else None


def holds(pid: int, inode: int) -> bool:
    """Whether a process has a socket among its descriptors; False if its descriptors cannot be read."""
    wanted = f"socket:[{inode}]"
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        for each in descriptors:
            with suppress(OSError):
                if os.readlink(each.path) == wanted:
                    return True
    return False


def tree(leader: int) -> Iterator[int]:
    """Yields a process and its descendants whose parents all live, if the kernel lists children. Fast."""
    found, seen = [leader], {leader}
    for pid in found:
        yield pid
        children = {child for child in _children(pid) if child not in seen}
        seen |= children
        found += children


def session(leader: int) -> list[int]:
    """Returns all processes of the session of `leader` and their descendants. Reads every process of the machine."""
    facts = {
        int(name): parents
        for name in os.listdir("/proc")
        if name.isdigit() and (parents := _parent_and_session(name))
    }
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
    """Whether a process descends from `ancestor` through living parents, in at most ANCESTORS_MAX generations. Fast."""
    for _ in range(ANCESTORS_MAX):
        if pid == ancestor:
            return True
        parents = _parent_and_session(str(pid))
        if parents is None:
            break
        pid = parents[0]
    return False


def _children(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                yield from map(int, file.read().split())


def _parent_and_session(name: str) -> tuple[int, int] | None:
    """Returns parent and session of a process."""
    try:
        with open(f"/proc/{name}/stat", "rb") as file:
            # The name stands in parentheses, and may contain blanks and parentheses itself.
            words = file.read().rpartition(b")")[2].split()
        return int(words[1]), int(words[3])
    except (OSError, IndexError):
        return None


def socket_by_netlink(local: Endpoint, remote: Endpoint) -> PeerSocket | None:
    """Asks the kernel for the socket at `local` that is connected to `remote`; None if there is none or sock_diag fails."""
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


def socket_in_tables(peer: Endpoint, own: Endpoint) -> PeerSocket | None:
    """Finds the same socket in the tables of all connections, which is slow if there are many."""
    for table, mapped in (("tcp", ""), ("tcp6", "0000000000000000FFFF0000")):
        line_start = f"{mapped}{_hexadecimal(peer)} {mapped}{_hexadecimal(own)}".encode()
        with suppress(OSError), open(f"/proc/net/{table}", "rb") as file:
            for line in file:
                if line_start in line:
                    words = line.split()
                    return PeerSocket(int(words[7]), int(words[9]))
    return None


def _hexadecimal(endpoint: Endpoint) -> str:
    (address,) = struct.unpack("=I", socket.inet_aton(endpoint[0]))
    return f"{address:08X}:{endpoint[1]:04X}"
