"""What the REST port answers: the RPCs, the emulator's own paths, and a site beside them."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from vertex_registry.emulator._control import CONTROL_PATHS
from vertex_registry.emulator._dispatch import FIELD_MASK, join_repeated, response_class
from vertex_registry.emulator._selection import parse_selection
from vertex_registry.emulator._status import bad_request, not_found
from vertex_registry.emulator._transcoding import FORM, ROUTES, Response, parse_request, render, with_form

if TYPE_CHECKING:
    from vertex_registry.emulator._dispatch import Dispatcher
    from vertex_registry.emulator._transcoding import Request, Route

#: A site: a function of the method, the decoded path, the encoded query, and the headers by their names in lower case.
#: It returns the status, the headers and the body. A slash in a part of the path stays %2F.
Site = Callable[[str, str, str, Mapping[str, str]], tuple[int, Mapping[str, str], bytes]]

# The paths that are the emulator's, whether they exist or not.
_RESERVED: Final = ("/v1/", "/v1beta1/", "/ui/", "/emulator/", "/token/")


class RestApi:
    """The paths of an emulator.

    Attributes:
        site: What answers GET and HEAD for the paths that aren't the emulator's.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.site: Site | None = None

    def answer(self, request: Request, step_aside: Callable[[], None]) -> Response:
        """Answer a request. ``step_aside`` is called before anything that may wait.

        Raises:
            Failure: The request fails.
            Dropped: The connection is to end without a response.
        """
        path = _decode(request.path)
        own = CONTROL_PATHS.get((request.method, path))
        if own is not None:
            return Response(200, json.dumps(own(self._dispatcher, request.body), indent=2).encode())
        method = _method(request)
        for route in ROUTES.get(method, ()):
            match = route.path.fullmatch(path)
            if match is not None:
                return self._call(route, match, request, step_aside, overridden=method != request.method)
        if self.site is not None and request.method in _READING and _is_sites(path):
            return _ask(self.site, request, step_aside)
        raise not_found(
            f"The method {method[:200]} {path[:200]} doesn't exist here. This is a local emulator of Vertex AI's model"
            " registry: it serves ModelService, its operations and locations."
        )

    def accepts_link(self, path: str) -> bool:
        """Return whether a link on another site may lead to an encoded path: to a page, and not to an RPC."""
        return self.site is not None and _is_sites(urllib.parse.unquote(path))

    def _call(
        self,
        route: Route,
        match: re.Match[str],
        request: Request,
        step_aside: Callable[[], None],
        *,
        overridden: bool,
    ) -> Response:
        query, body, api = request.query, request.body, match[1]
        if overridden and not route.body and _content_type(request) == FORM:
            # google-api-python-client moves a query that is too long for a URL into the body.
            query, body = with_form(query, body), b""
        message, form = parse_request(route, match, query, body, posted=request.method == "POST")
        # A parameter wins over a header. What the front end does isn't known.
        fields = form.fields or ",".join(request.get_all(FIELD_MASK))
        selection = parse_selection(fields, response_class(route.rpc, api).DESCRIPTOR)
        response = self._dispatcher.call(
            route.rpc,
            message,
            api=api,
            transport="rest",
            metadata=join_repeated(request.headers),
            step_aside=step_aside,
        )
        return Response(200, render(route.rpc, api, response, form, selection))


def _is_sites(path: str) -> bool:
    return not f"{path}/".startswith(_RESERVED)


def answer_with(site: Site) -> Callable[[Request, Callable[[], None]], Response]:
    """Return what answers requests with a site alone."""

    def answer(request: Request, step_aside: Callable[[], None]) -> Response:
        if request.method not in _READING:
            raise not_found(f"The method {request.method[:200]} doesn't exist here.")
        return _ask(site, request, step_aside)

    return answer


_READING: Final = frozenset({"GET", "HEAD"})


def _ask(site: Site, request: Request, step_aside: Callable[[], None]) -> Response:
    # For a browser, an encoded slash isn't one. If it was one here, the site's relative links would lead elsewhere.
    path = "%2F".join(map(_decode, _ENCODED_SLASH.split(request.path)))
    step_aside()  # a site may send requests to this very server
    status, headers, body = site(request.method, path, request.query, dict(request.headers))
    return Response(status, body, headers=headers)


_ENCODED_SLASH: Final = re.compile("%2f", re.IGNORECASE)


def _decode(encoded: str) -> str:
    try:
        path = urllib.parse.unquote(encoded, errors="strict")
        path.encode()  # an encoded half of a surrogate pair
    except UnicodeError:
        raise bad_request("The path is not UTF-8.") from None
    return path


def _method(request: Request) -> str:
    """Return the HTTP method of the request.

    X-HTTP-Method-Override, of Google's system parameters: "The intended HTTP method for the request. Some network
    proxies do not accept all HTTP methods."
    """
    given = set(request.get_all("x-http-method-override")) - {""}
    if len(given) > 1:
        raise bad_request("The request must have one X-HTTP-Method-Override.")
    return given.pop().upper() if given else request.method


def _content_type(request: Request) -> str:
    return "".join(request.get_all("content-type")).partition(";")[0].strip().lower()
