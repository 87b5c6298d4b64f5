"""Which requests are let in: those for a host that is served, from its own pages or pages that the user trusts.

Every web page that a user visits can send requests to 127.0.0.1. By itself a page cannot read the answers, but by DNS
rebinding (its own name is made to point to 127.0.0.1) it becomes the same site as the server. So a request has to name
a host that is served, and one that a foreign page sends is refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from http import HTTPStatus

from starlette.datastructures import Headers

from keylm.common.errors import UserError
from keylm.serve.schema import RequestError

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::[0-9]{1,5})?", re.IGNORECASE)
# Not of http alone: apps and extensions of browsers have schemes of their own.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+")


class Access:
    """The hosts that a server answers for, and the pages that may ask it.

    Args:
        address: The address that the server listens on. On one that stands for all of the machine's (0.0.0.0 and ::),
            every IP address is a host that is served: rebinding needs a name.
        hosts: Further names of the server, such as that of a proxy in front of it.
        origins: Origins (`https://example.org`) of other sites whose pages may ask the server.

    Raises:
        UserError: A name or an origin is malformed.
    """

    def __init__(self, address: str, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        names = [address, *hosts]
        for name in names:
            if not _is_address(name) and not re.fullmatch(r"[A-Za-z0-9._-]+", name):
                raise UserError(f"{name!r} is not the name of a host: give one such as chat.example.org")
        self._hosts = _LOOPBACK | {name.lower() for name in names}
        self._any_address = _is_address(address) and ipaddress.ip_address(address).is_unspecified
        self.origins = [origin.lower().rstrip("/") for origin in origins]
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise UserError(f"{origin!r} is not an origin: give one such as https://chat.example.org")

    def check(self, headers: Headers) -> None:
        """Check the headers of a request.

        Raises:
            RequestError: The request names no host that is served, or comes from a page of another site.
        """
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            raise RequestError(HTTPStatus.BAD_REQUEST, "the request needs one Host header")
        if not self._serves(hosts[0]):
            message = f"{hosts[0]:.100} is not a host that is served here: name it with --allow-host"
            raise RequestError(HTTPStatus.MISDIRECTED_REQUEST, message)
        for origin in headers.getlist("origin"):
            is_own = origin.lower() in (f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}")
            if not is_own and origin.lower() not in self.origins:
                message = f"pages of {origin:.100} may not ask this server: allow it with --cors"
                raise RequestError(HTTPStatus.FORBIDDEN, message)

    def _serves(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if not match:
            return False
        name = (match["ipv6"] or match["name"]).lower()
        return name in self._hosts or (self._any_address and _is_address(name))


def check_is_json(headers: Headers) -> None:
    """Check that the body of a request is declared as JSON: without asking first, a foreign page can send only others.

    Raises:
        RequestError: It is not.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        message = "the request needs the header Content-Type: application/json"
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
