"""A request for a page, its response, and which requests come from a page of another site."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

_BLANKS: Final = " \t"


def _pairs(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name.lower(), value.strip(_BLANKS)) for name, value in headers)


@attrs.frozen
class Request:
    """A request, as a site sees it.

    Attributes:
        method: The HTTP method.
        path: The path after the place that the site is mounted at; it begins with a slash.
        query: The query, still encoded, without its question mark.
        headers: The headers as pairs, in any case and order. A header may come more than once.
    """

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_pairs)

    def values(self, name: str) -> list[str]:
        """Return every value of a header, whose name is in lower case."""
        return [value for each, value in self.headers if each == name]


@attrs.frozen
class Response:
    """What a site answers: a status, the headers, and the body. A server leaves the body out if the method is HEAD."""

    status: int
    headers: dict[str, str]
    body: bytes


@attrs.frozen
class Address:
    """The address that a server listens on, and the names that it answers to.

    A name that somebody else owns may lead to this server (DNS rebinding). So a request has to name the server's own
    address in ``Host``, and a page of another site may not send one.

    Attributes:
        host: The name or number that the server listens on.
        port: Its port.
        allowed_hosts: Further names that it answers to, on any port.
    """

    host: str
    port: int
    allowed_hosts: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The address for a browser."""
        host = "127.0.0.1" if self.host == "0.0.0.0" else "::1" if self.host == "::" else self.host  # noqa: S104  # what it listens on
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def why_refused(self, request: Request) -> str | None:
        """Return why a request isn't answered, or None if it is."""
        hosts = request.values("host")
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            return f"This server answers only at its own address, {self.url}."
        if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in request.values("origin")):
            return "This server doesn't answer the pages of other sites."
        sites = set(request.values("sec-fetch-site"))
        # A link may lead here from anywhere: nothing is changed, and the other page can't read what's shown.
        is_followed_link = request.values("sec-fetch-mode") == ["navigate"] and request.values("sec-fetch-dest") == [
            "document"
        ]
        if not sites <= {"none", "same-origin"} and not is_followed_link:
            return "This server doesn't answer the pages of other sites."
        return None

    def _is_own(self, host: str) -> bool:
        name, port = _split(host.lower())
        if name in {each.lower() for each in self.allowed_hosts}:
            return True
        if port != self.port:
            return False
        bound, number = _number(self.host), _number(name)
        if name == self.host.lower() or (name == "localhost" and (bound is None or _is_local(bound))):
            return True
        if number is None:
            return False
        # Who listens on every address answers to any number: a number can't be made to lead elsewhere, as a name can.
        return bound is not None and (bound.is_unspecified or (bound.is_loopback and number.is_loopback))


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host."""
    number = _number(host)
    return host.lower() == "localhost" if number is None else number.is_loopback


def _is_local(number: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return number.is_loopback or number.is_unspecified


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _split(host: str) -> tuple[str, int | None]:
    """Return the name and the port in a Host header. Without a port it's 80."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":") if rest.startswith(":") or not rest else "?"
    else:
        name, _, port = host.partition(":")
    if not port:
        return name, 80
    return name, int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else None  # noqa: PLR2004  # digits
