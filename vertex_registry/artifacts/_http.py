"""HTTP sessions that send no credentials but those that were chosen, and read no answer without an end.

Requests itself takes credentials from ``.netrc``, and reads whatever a server sends into memory.
"""

from __future__ import annotations

import io
from typing import Any, Final

import requests
from google.auth.transport.requests import AuthorizedSession

#: The most bytes of an answer that isn't read piece by piece; a page of a listing has a few million.
MAX_ANSWER: Final = 64 * 2**20
_BLOCK: Final = 2**16


def _limit(answer: requests.Response, *_: Any, stream: bool = False, **__: Any) -> None:
    """Read an answer, if requests is going to, and no further than `MAX_ANSWER`."""
    if stream:
        return
    content = bytearray()
    while data := answer.raw.read(_BLOCK, decode_content=True):
        content += data
        if len(content) > MAX_ANSWER:
            answer.raw.close()
            raise requests.ConnectionError("the answer doesn't end")
    answer.raw = io.BytesIO(content)


def _unchanged(request: Any) -> Any:
    return request


class _Session(requests.Session):
    """A session that takes no credentials from ``.netrc`` or from an address, and reads no answer without an end."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.auth = _unchanged  # requests looks for credentials only if there's nothing here
        self.hooks["response"].append(_limit)

    def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
        """Remove credentials that aren't for the host of a redirection, and add none."""
        if self.should_strip_auth(response.request.url, prepared_request.url):  # type: ignore[no-untyped-call]  # stubs
            prepared_request.headers.pop("Authorization", None)


class PlainSession(_Session):
    """A session that sends no credentials at all.

    Args:
        proxies: Whether to use the proxies that the environment names. Defaults to yes.
    """

    def __init__(self, *, proxies: bool = True) -> None:
        super().__init__()
        self.trust_env = proxies


class SignedSession(_Session, AuthorizedSession):
    """A session that signs requests with Google's credentials."""
