"""Owns functions behind a Unix socket: what a path must be like, and whether somebody listens there.

The socket takes the place of the URL's host and port. The URL still says the path and what the header `Host` has. Such a
function is on the same machine, as in another container of the pod that shares a folder, and no network reaches it.
"""

import asyncio

from poller.domain.findings import Finding, Severity

PATH_BYTES_MAX = 107
"""Of the path of a Unix socket: the kernel has room for 108, the zero at the end included."""
CONNECT_S_MAX = 5.0


def usable_socket(path: str) -> str:
    """Returns the path; raises ValueError if no socket can be there."""
    if not path.startswith("/") or "\x00" in path:
        raise ValueError("is no absolute path; write the whole path of the socket")
    if len(path.encode(errors="replace")) > PATH_BYTES_MAX:
        raise ValueError(f"has more than {PATH_BYTES_MAX} bytes; a socket needs a shorter path")
    return path


async def listening(path: str) -> Finding:
    """Whether somebody takes connections at a Unix socket; nothing is sent."""
    check = "connect"
    try:
        async with asyncio.timeout(CONNECT_S_MAX):
            _, writer = await asyncio.open_unix_connection(path)
    except (OSError, TimeoutError) as error:
        text = f"no connection to the socket {path} ({type(error).__name__})"
        remedy = "does the function run, is its folder shared with the daemon, and may the daemon's user write to the socket?"
        return Finding(check, Severity.PROBLEM, text, remedy)
    writer.close()
    return Finding(check, Severity.OK)
