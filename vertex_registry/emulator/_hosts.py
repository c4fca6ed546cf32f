"""The rules about which clients may send requests to an HTTP server on your machine.

No web page in a browser may reach it. So a request is answered only if it names the server's own address, and if no
page of another origin sent it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import TYPE_CHECKING, Final

from vertex_registry.emulator._status import permission_denied

if TYPE_CHECKING:
    from collections.abc import Iterable

# The beginning of a request's target in its absolute form, up to the path, as clients send it to a proxy.
_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def split_target(target: str, host: str) -> tuple[str, str]:
    """Return the host that a request is for, and the path with its query.

    RFC 9112: "When an origin server receives a request with an absolute-form of request-target, the origin server MUST
    ignore the received Host header field (if any) and instead use the host information of the request-target."

    Args:
        target: The target in the request's first line.
        host: Its Host header.
    """
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        return host, target
    return absolute[1], target[absolute.end() :]


class Hosts:
    """The addresses that a server answers to.

    Args:
        scheme: "http" or "https".
        host: The address that it was asked to listen on.
        bound: The number of the address that it listens on.
        port: The port that it listens on.
        allowed: More names that it answers to.
    """

    def __init__(self, scheme: str, host: str, bound: str, port: int, allowed: Iterable[str]) -> None:
        self._scheme = scheme
        self._port = port
        self._allowed = {name.lower() for name in allowed}
        self._own = {host.lower()}
        address = _ip(host)
        if address is None or address.is_loopback:
            self._own |= {"localhost", "127.0.0.1", "::1"}
        address = _ip(bound)
        self._is_everywhere = address is not None and address.is_unspecified
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{scheme}://{shown}:{port}"

    def check(self, host: str, origins: Iterable[str], sites: Iterable[str]) -> None:
        """Refuse a request that is for another address, or that a page of another origin sent.

        Of several headers every one counts, because an intermediary may read any of them.

        Args:
            host: The host that the request is for.
            origins: The values of its Origin headers.
            sites: The values of its Sec-Fetch-Site headers.

        Raises:
            Failure: PERMISSION_DENIED.
        """
        if not self._has(host):
            raise permission_denied(
                f"This server answers only at its own address, {self.address}. Start it with --allow-host (in Python, "
                "allowed_hosts) if it has another name, too."
            )
        # A page has the origin of the address that it was loaded from. It has to be the very address that this request
        # is for. Otherwise, on a server with many addresses, a page of one could reach the others.
        for origin in map(_origin, origins):
            if origin is None or origin != _origin(f"{self._scheme}://{host}"):
                raise permission_denied(_OTHER_SITE)
        if not {"none", "same-origin"}.issuperset(sites):
            raise permission_denied(_OTHER_SITE)

    def _has(self, host: str) -> bool:
        """Return whether a host is this server.

        A server that listens on every address answers to any number. Names are the danger, because the owner of a name
        decides where it leads.
        """
        name, port = _split_host(host.lower())
        if name in self._allowed:
            # On any port: the port that is published may be another one than this server's.
            return True
        if port != self._port and not (port is None and self._port == _DEFAULT_PORTS[self._scheme]):
            return False
        if name in self._own:
            return True
        return self._is_everywhere and (_ip(name) is not None or name in {"localhost", socket.gethostname().lower()})


_OTHER_SITE: Final = "This server doesn't answer the pages of other sites."


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _split_host(host: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"\[([0-9a-f:.]+)\](?::([0-9]{1,5}))?|([^:\[\]]+)(?::([0-9]{1,5}))?", host)
    if match is None:
        return "", None
    port = match[2] or match[4]
    return match[1] or match[3], int(port) if port else None


def _origin(text: str) -> tuple[str, str, int] | None:
    """Return the scheme, host and port of a web origin, or None if the text isn't one."""
    scheme, separator, host = text.lower().partition("://")
    name, port = _split_host(host)
    if not separator or not name or scheme not in _DEFAULT_PORTS:
        return None
    return scheme, name, _DEFAULT_PORTS[scheme] if port is None else port
