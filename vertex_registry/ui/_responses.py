"""Responses: a status, headers and a body. Every one says that nothing from elsewhere may run, read or frame it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

# Nothing is loaded from elsewhere, nothing inline runs, forms lead here, and no other page may frame this one.
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_SECURITY: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_READ_ONLY: Final = frozenset({"GET", "HEAD"})


class Response(NamedTuple):
    """What a site answers. A server leaves the body out if the method is HEAD."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def respond(status: int, kind: str, body: bytes, *, cache: str = "private, no-cache") -> Response:
    """Return a response with the headers that every response has."""
    return Response(status, {"Content-Type": kind, "Cache-Control": cache} | _SECURITY, body)


def say(status: int, text: str) -> Response:
    """Return a response of one line of text."""
    return respond(status, "text/plain; charset=utf-8", f"{text}\n".encode("utf-8", "replace"))


def redirect(location: str) -> Response:
    """Return a response that leads to another address of this server, which the body names too."""
    response = say(302, f"This page is at {location}")
    return response._replace(headers={**response.headers, "Location": location})


def refuse_to_change(method: str) -> Response | None:
    """Return a refusal if a request isn't one that only reads."""
    if method in _READ_ONLY:
        return None
    response = say(405, "This site can only be read.")
    return response._replace(headers={**response.headers, "Allow": "GET, HEAD"})
