"""The site: a function from requests to responses that reads one registry and can't change it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vertex_registry import InvalidArgumentError, RegistryClient, RegistryError
from vertex_registry.ui import _pages, _rendering
from vertex_registry.ui._pages import PAGES, PARAMETERS, Query
from vertex_registry.ui._reading import Reader
from vertex_registry.ui._responses import refuse_to_change, respond, say
from vertex_registry.ui._snippets import Opening

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vertex_registry.ui._pages import Page
    from vertex_registry.ui._responses import Response

_JSON: Final = ".json"
_A_YEAR: Final = "private, max-age=31536000, immutable"


def now() -> dt.datetime:
    """Return the time."""
    return dt.datetime.now(dt.UTC)


class Site:
    """A read-only site about one registry, as a function that a web server calls for each request.

    Links are relative, so a server can mount it below any path that ends with a slash. Call it from any thread; it
    blocks while it reads the registry. The server is responsible for who may send requests.

    >>> from vertex_registry import local_registry
    >>> from vertex_registry.ui import Site
    >>> with local_registry() as registry:
    ...     version = registry.register_version("churn", "gs://models/churn/1")
    ...     status, headers, body = Site(registry)("GET", "/model.json", "name=churn")
    >>> status, headers["Content-Type"]
    (200, 'application/json')

    Args:
        registry: The registry.
        registry_name: Which registry it is, for the head of each page.
        opening: How to open the registry in Python and in a shell. Defaults to the project and location of each
            version's resource name.
        home: The address that the name in the head leads to, or None.
        now: A function that returns the time that ages are counted from.

    Raises:
        InvalidArgumentError: Jinja2 isn't installed, or an argument isn't what it has to be.
    """

    def __init__(
        self,
        registry: RegistryClient,
        *,
        registry_name: str = "",
        opening: Opening | None = None,
        home: str | None = None,
        now: Callable[[], dt.datetime] = now,
    ) -> None:
        _rendering.environment()
        for name, value, kinds, what in (
            ("registry", registry, RegistryClient, "a RegistryClient"),
            ("registry_name", registry_name, str, "text"),
            ("opening", opening, (Opening, type(None)), "an Opening"),
            ("home", home, (str, type(None)), "an address"),
            ("now", now, Callable, "a function"),
        ):
            if not isinstance(value, kinds):  # type: ignore[arg-type]  # mypy doesn't take a Callable for a class
                raise InvalidArgumentError(f"{name} has to be {what}, not {type(value).__name__}.")
        self._reader = Reader(registry)
        self._head = _rendering.Head(registry_name, home)
        self._opening = opening
        self._now = now

    def __call__(self, method: str, path: str, query: str = "", headers: Mapping[str, str] | None = None) -> Response:
        """Return the response to a request. Whatever the registry says, there's a page about it.

        Args:
            method: The HTTP method.
            path: The path after the place that the site is mounted at, with a slash at its beginning. It's decoded,
                except slashes in a part of it, ``%2F``.
            query: The query, still encoded, without its question mark.
            headers: The headers of the request. No page depends on them.
        """
        del headers
        if (refusal := refuse_to_change(method)) is not None:
            return refusal
        name = path.removeprefix("/")
        if name.startswith("static/"):
            return static_file(name.removeprefix("static/"))
        as_json = name.endswith(_JSON)
        key = name.removesuffix(_JSON) if as_json else name
        if key not in PAGES or name == _JSON:
            missing = _pages.not_found(f"There's no page {path[:200]!r}.")
            return show(missing, as_json=as_json, now=self._now(), head=self._head, root=root_of(path))
        twin = f"{key or 'models'}{_JSON}{'?' if query else ''}{query}"
        page = self._page(key, query, _JSON if as_json else "")
        return show(page, as_json=as_json, now=self._now(), head=self._head, twin=twin)

    def _page(self, key: str, query: str, ending: str) -> Page:
        parsed = Query()
        try:
            parsed = Query.parse(query)
            parsed.check_names(PARAMETERS[key])
            return PAGES[key](self._reader, parsed, self._opening)
        except RegistryError as error:
            return _pages.error(error, key, parsed, ending)


def root_of(path: str) -> str:
    """Return the way from a path back to the place that a site is mounted at, empty if that's where it is."""
    return "../" * (path.count("/") - 1)


def show(
    page: Page, *, as_json: bool, now: dt.datetime, head: _rendering.Head, twin: str | None = None, root: str = ""
) -> Response:
    """Return a page as a response, in HTML or as JSON."""
    if as_json:
        return respond(page.status, "application/json", json.dumps(page.data, indent=2).encode())
    text = _rendering.render(page, now, head, twin, root)
    return respond(page.status, "text/html; charset=utf-8", text.encode("utf-8", "replace"))


def static_file(name: str) -> Response:
    """Return the stylesheet, the script or the icon. Their addresses change with their content."""
    if name not in _rendering.static_files():
        return say(404, "There's no such file.")
    kind, content = _rendering.static_files()[name]
    return respond(200, kind, content, cache=_A_YEAR)
