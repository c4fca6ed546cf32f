"""The site: a function from requests to responses that reads one registry and can't change it."""

from __future__ import annotations

import datetime as dt
import json
import logging
from typing import TYPE_CHECKING, Final

from vertex_registry import RegistryError
from vertex_registry.ui import _pages, _rendering
from vertex_registry.ui._messages import Response
from vertex_registry.ui._pages import PAGES, Query
from vertex_registry.ui._reading import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from vertex_registry import RegistryClient
    from vertex_registry.ui._messages import Request
    from vertex_registry.ui._pages import Page
    from vertex_registry.ui._snippets import Opening

_log = logging.getLogger(__name__)

_JSON: Final = ".json"
_HTML_TYPE: Final = "text/html; charset=utf-8"
_JSON_TYPE: Final = "application/json"

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
_A_YEAR: Final = "private, max-age=31536000, immutable"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Site:
    """A read-only site about one registry.

    Links are relative, so a server can mount it below any path that ends with a slash. Call it from any thread: it
    blocks while it reads the registry.

    >>> from vertex_registry import local_registry
    >>> from vertex_registry.ui import Request, Site
    >>> with local_registry() as registry:
    ...     version = registry.register_version("churn", "gs://models/churn/1")
    ...     Site(registry).handle(Request("GET", "/model.json", "name=churn")).status
    200

    Args:
        registry: The registry.
        heading: Which registry it is, for the head of each page.
        opening: How to open the registry in Python and in a shell. Defaults to the project and location of each
            version's resource name.
        now: A function that returns the time that ages are counted from.

    Raises:
        InvalidArgumentError: Jinja2 isn't installed.
    """

    def __init__(
        self,
        registry: RegistryClient,
        *,
        heading: str = "",
        opening: Opening | None = None,
        now: Callable[[], dt.datetime] = _now,
    ) -> None:
        _rendering.environment()
        self._reader = Reader(registry)
        self._heading = heading
        self._opening = opening
        self._now = now

    def handle(self, request: Request) -> Response:
        """Return the response to a request. Whatever the registry or the request does, it's a response."""
        if request.method not in {"GET", "HEAD"}:
            return refuse(405, "This site can only be read.", Allow="GET, HEAD")
        name = request.path.removeprefix("/")
        if name.startswith("static/"):
            return static_file(name.removeprefix("static/"))
        as_json = name.endswith(_JSON)
        key = name.removesuffix(_JSON) if as_json else name
        twin = None
        if key in PAGES and name != _JSON:
            twin = f"{key or 'models'}{_JSON}{'?' if request.query else ''}{request.query}"
            page = self._page(key, request.query)
        else:
            page = _pages.not_found(request.path)
        return respond(page, as_json=as_json, now=self._now(), twin=twin, heading=self._heading)

    def _page(self, key: str, query: str) -> Page:
        try:
            return PAGES[key](self._reader, Query.parse(query), self._opening)
        except RegistryError as error:
            return _pages.error(error)


def respond(page: Page, *, as_json: bool, now: dt.datetime, twin: str | None, heading: str) -> Response:
    """Return a page as a response, in HTML or as JSON."""
    if as_json:
        body, kind = json.dumps(page.data, indent=2), _JSON_TYPE
    else:
        body, kind = _rendering.render(page, now, twin, heading), _HTML_TYPE
    headers = {"Content-Type": kind, "Cache-Control": "private, no-cache"} | _SECURITY
    return Response(page.status, headers, body.encode("utf-8", "replace"))


def static_file(name: str) -> Response:
    """Return the stylesheet, the script or the icon."""
    if name not in _rendering.static_files():
        return refuse(404, "There's no such file.")
    kind, content = _rendering.static_files()[name]
    return Response(200, {"Content-Type": kind, "Cache-Control": _A_YEAR} | _SECURITY, content)


def refuse(status: int, why: str, **headers: str) -> Response:
    """Return a response of one line of text."""
    return Response(status, {"Content-Type": "text/plain; charset=utf-8"} | headers | _SECURITY, f"{why}\n".encode())
