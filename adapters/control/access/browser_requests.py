"""Owns how requests of web pages are recognized and refused.

A web page of another site has no credential, but it runs in a browser that may be able to reach this server. It has two ways
to attack. It can send a change without seeing the answer; then the browser adds `Origin` and `Sec-Fetch-Site`. Or it can make
its own host name resolve to this server, so that the browser takes our answers for those of the page's site (DNS rebinding);
then `Host` has that name.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from adapters.control.aws_errors import PREFIXES, RejectionType, RequestRejected, fault
from adapters.control.responses import refusal
from adapters.request_targets import host_of_target
from poller.config.field_types import Address
from poller.domain.telemetry.labels import Listener, RefusedFor
from poller.refused_requests import Strangers

TEXTS = {
    RefusedFor.HOST: "The Host header has no name of this server: write localhost or an IP address of this machine in the URL, "
    "or add the name to api.allowed_hosts",
    RefusedFor.ORIGIN: "Changes and updates are not for web pages of other sites; send no Origin and no Sec-Fetch-Site header",
}
READS = {"GET", "HEAD", "OPTIONS"}
HELD = frozenset({"/v1/updates"})
"""Reads that do not end by themselves. A page of another site sees nothing of the answer, but it could take all places."""
FORMS = {"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"}
"""Content types that a page may send to other sites without a preflight request."""

_HOST = re.compile(r"(?:\[([0-9a-f:.]{2,45})\]|([^\[\]:]{1,253}))(?::[0-9]{0,5})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Names:
    """The names that `Host` may have.

    `loopback`: only this machine reaches the server, so that loopback names are enough. Otherwise the daemon cannot know its
    own names, nor the addresses by which probes and proxies call it. Then every name is accepted if `allowed` is empty, and
    else those in `allowed` and every IP address: no page can make an IP address its own host name.
    """

    loopback: bool
    allowed: frozenset[str] = frozenset()

    def includes(self, host: str) -> bool:
        """Whether the name in a `Host` header, with or without a port, is one of them."""
        if not self.loopback and not self.allowed:
            return True
        found = _HOST.fullmatch(host)
        name = plain(found[1] or found[2]) if found else ""
        if name in self.allowed or name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self.loopback


def plain(name: str) -> str:
    """Returns a host name in lower case and without a dot at its end."""
    return name.lower().removesuffix(".")


def names_of(bound: Address, listen: Address, allowed: Iterable[str]) -> Names:
    """Returns the names of a server that is bound to `bound` and that the settings call `listen`."""
    given = [*allowed, listen.host] if bound.loopback else allowed
    return Names(bound.loopback, frozenset(map(plain, given)))


def refused_for(request: web.Request, names: Names, *, everybody: bool) -> RefusedFor | None:
    """Returns what shows that a web page sent a request, or None.

    `everybody`: changes need no credential, so that not even a page of this server may send one.
    """
    hosts = request.headers.getall("Host", [])
    if len(hosts) > 1 or not all(map(names.includes, hosts)):
        return RefusedFor.HOST
    target = host_of_target(request.raw_path)
    if target is not None:
        if not names.includes(target):
            return RefusedFor.HOST
        hosts = [target]
    read = request.method in READS
    if read and request.path not in HELD:
        return None
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    own = origin is not None and hosts and origin.partition("://")[2].lower() == hosts[0].lower()
    if everybody and not read:
        foreign = origin is not None or site != "none"
    else:
        foreign = (origin is not None and not own) or site in {"cross-site", "same-site"}
    return RefusedFor.ORIGIN if foreign else None


def no_web_pages(names: Names, strangers: Strangers, *, everybody: bool) -> Middleware:
    """Refuses and counts requests of web pages. The answer has the form of the API that the path belongs to."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        reason = refused_for(request, names, everybody=everybody)
        if reason is None:
            return await handler(request)
        strangers.refused(Listener.PORT, reason)
        if request.path.startswith(PREFIXES):
            return fault(RequestRejected(RejectionType.DENIED, TEXTS[reason]))
        return refusal(HTTPStatus.FORBIDDEN, TEXTS[reason])

    return guarded
