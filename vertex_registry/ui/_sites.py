"""One site for each registry of a server that has many: every project and every location there is one.

It knows of the server only what `Server` says, so an emulator can be one without either importing the other.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from vertex_registry import InvalidArgumentError, RegistryClient
from vertex_registry.ui import _rendering
from vertex_registry.ui._pages import Page, not_found
from vertex_registry.ui._responses import redirect, refuse_to_change, say
from vertex_registry.ui._site import Site, now, root_of, show, static_file
from vertex_registry.ui._snippets import Opening

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vertex_registry.ui._responses import Response

_PLACE: Final = re.compile(r"/projects/([A-Za-z0-9][A-Za-z0-9:._-]{0,99})/locations/([a-z][a-z0-9-]{0,62})(/.*)?")
_MOST_CLIENTS: Final = 16
_ROOT: Final = "../../../../"

_TLS: Final = (
    "With TLS there's no page here: it's a client of this server, which would have to trust its own certificate. "
    "Run `vertex-registry ui` instead."
)


class Server(Protocol):
    """A server that has registries, such as an emulator.

    Attributes:
        rest: Its address for REST, a URL.
    """

    rest: str

    def parents(self) -> Iterable[str]:
        """Return the registries that have models: ``projects/PROJECT/locations/LOCATION``."""


@attrs.define
class _OpenSite:
    """The site of a registry, and how many requests are using it."""

    site: Site
    client: RegistryClient
    requests: int = 0


class Sites:
    """A read-only site about each registry of a server, as a function that the server calls for each request.

    At ``/`` there's a list of them, or the only one. Each is a client of the server, so nothing is read in another way
    than everybody reads it. Nothing is opened before a page is requested. Close it when the server has ended.

    >>> from vertex_registry.emulator import Emulator
    >>> from vertex_registry.ui import Sites
    >>> with Emulator() as emulator:
    ...     emulator.mount(Sites(emulator))  # open emulator.rest in a browser

    Args:
        server: The server.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._sites: OrderedDict[tuple[str, str], _OpenSite] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, method: str, path: str, query: str = "", headers: Mapping[str, str] | None = None) -> Response:
        """Return the response to a request, as `Site` does."""
        del headers
        if path.startswith("/static/"):
            return refuse_to_change(method) or static_file(path.removeprefix("/static/"))
        try:
            _rendering.environment()
        except InvalidArgumentError as error:  # an extra is missing
            return say(503, str(error))
        return refuse_to_change(method) or self._page(method, path, query)

    def _page(self, method: str, path: str, query: str) -> Response:
        if self._server.rest.startswith("https"):
            return say(503, _TLS)
        if (place := _PLACE.fullmatch(path)) is None:
            return self._index(path, query)
        project, location, rest = place.groups()
        if rest is None:
            return redirect(_with_query(f"{location}/", query))
        try:
            opened = self._open(project, location)
        except InvalidArgumentError as error:  # that can't be a location
            return say(404, str(error))
        try:
            return opened.site(method, rest, query)
        finally:
            self._leave(opened)

    def _index(self, path: str, query: str) -> Response:
        parents = sorted(parent for parent in self._server.parents() if _PLACE.fullmatch(f"/{parent}"))
        if path == "/" and len(parents) == 1:
            return redirect(_with_query(f"{parents[0]}/", query))
        page = Page("registries.html", "Registries", {"registries": parents})
        if path not in {"/", "/index.json"}:
            page = not_found("This path is neither one of Vertex AI's nor a page.")
        head = _rendering.Head("", None, nested=False)
        twin = "index.json" if page.status == 200 else None  # noqa: PLR2004  # HTTP's OK
        return show(page, as_json=path.endswith(".json"), now=now(), head=head, twin=twin, root=root_of(path))

    def _open(self, project: str, location: str) -> _OpenSite:
        """Return the site of a registry. It isn't closed to make room for others until you leave it."""
        with self._lock:
            if (project, location) not in self._sites:
                address = _own_address(self._server.rest)
                client = RegistryClient(
                    project=project, location=location, endpoint=address, user_agent="vertex-registry-ui"
                )
                opening = Opening(settings={"project": project, "location": location, "endpoint": address})
                site = Site(client, registry_name=f"{project} · {location}", opening=opening, home=_ROOT)
                self._sites[project, location] = _OpenSite(site, client)
            self._sites.move_to_end((project, location))
            opened = self._sites[project, location]
            opened.requests += 1
            self._make_room()
            return opened

    def _leave(self, opened: _OpenSite) -> None:
        with self._lock:
            opened.requests -= 1
            self._make_room()

    def _make_room(self) -> None:
        """Close what hasn't been used for longest."""
        idle = [place for place, opened in self._sites.items() if not opened.requests]
        for place in idle[: max(len(self._sites) - _MOST_CLIENTS, 0)]:
            self._sites.pop(place).client.close()

    def close(self) -> None:
        """Close the clients."""
        with self._lock:
            for opened in self._sites.values():
                opened.client.close()
            self._sites.clear()


def _with_query(address: str, query: str) -> str:
    return f"{address}?{query}" if query else address


def _own_address(address: str) -> str:
    """Return the address for a client on the same machine. One that means every address can't be connected to."""
    for every, own in (("//0.0.0.0:", "//127.0.0.1:"), ("//[::]:", "//[::1]:")):
        address = address.replace(every, own)
    return address
