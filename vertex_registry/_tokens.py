"""Send google-auth's requests for tokens, with requests. Requests over gRPC to an emulator need none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import google.auth.transport.requests
import requests

if TYPE_CHECKING:
    from collections.abc import Callable


def without_netrc(session: requests.Session) -> requests.Session:
    """Keep a session from reading ``.netrc``, even after a redirect, and return it.

    ``trust_env = False`` would do that too, but it would also ignore proxies and CA bundles.
    """
    session.auth = _add_no_auth
    session.rebuild_auth = _rebuild_without_netrc(session)  # type: ignore[method-assign]  # requests has no setting for it
    return session


def _add_no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _rebuild_without_netrc(session: requests.Session) -> Callable[[Any, Any], None]:
    def rebuild_auth(request: requests.PreparedRequest, response: requests.Response) -> None:
        if session.should_strip_auth(response.request.url, request.url):  # type: ignore[no-untyped-call]  # upstream
            request.headers.pop("Authorization", None)

    return rebuild_auth


class TokenRequest(google.auth.transport.requests.Request):
    """Sends the requests of google-auth, and remembers the status of the last response.

    Args:
        timeout: How many seconds one request may take.
    """

    def __init__(self, timeout: float = 60.0) -> None:
        super().__init__(without_netrc(requests.Session()))
        self.timeout = timeout
        self.status = 0

    def __call__(self, *args: Any, timeout: float | None = None, **settings: Any) -> Any:
        """Send one request, and return its response."""
        self.status = 0
        seconds = self.timeout if timeout is None else min(timeout, self.timeout)
        response = super().__call__(*args, **settings | {"timeout": seconds})  # type: ignore[no-untyped-call]  # upstream
        self.status = response.status
        return response
