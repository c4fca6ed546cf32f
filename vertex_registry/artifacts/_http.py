"""HTTP sessions that send no credentials but those that were chosen: requests takes them from ``.netrc`` as well."""

from __future__ import annotations

from typing import Any

import requests
from google.auth.transport.requests import AuthorizedSession


def _unchanged(request: Any) -> Any:
    return request


class _WithoutNetrc(requests.Session):
    """A session that takes no credentials from ``.netrc`` or from an address."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.auth = _unchanged  # requests looks for credentials only if there's nothing here

    def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
        """Remove credentials that aren't for the host of a redirection, and add none."""
        if self.should_strip_auth(response.request.url, prepared_request.url):  # type: ignore[no-untyped-call]  # stubs
            prepared_request.headers.pop("Authorization", None)


class PlainSession(_WithoutNetrc):
    """A session that sends no credentials at all.

    Args:
        proxies: Whether to use the proxies that the environment names. Defaults to yes.
    """

    def __init__(self, *, proxies: bool = True) -> None:
        super().__init__()
        self.trust_env = proxies


class SignedSession(_WithoutNetrc, AuthorizedSession):
    """A session that signs requests with Google's credentials."""
