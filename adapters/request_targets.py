"""Owns what the target of an HTTP request says about its host. It says so only in absolute form, as clients send it to a proxy."""


def host_of_target(target: str) -> str | None:
    """Returns the host, with its port, in the target of a request line; None if the target is only a path.

    It counts in place of the header `Host` (RFC 9112, 3.2.2). What stands before the host, such as a user name, belongs to it here,
    so that nothing but a plain host is like a known one.
    """
    if target.startswith("/") or target == "*":
        return None
    before, found, after = target.partition("://")
    # The target of CONNECT is a host and a port only.
    rest = after if found else before
    ends = [place for place in map(rest.find, "/?#") if place >= 0]
    return rest[: min(ends, default=len(rest))]
