"""HTTP sessions that send no credentials but those that were chosen, and read no answer without an end.

Requests itself takes credentials from ``.netrc``, and reads whatever a server sends into memory.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any, Final

import requests
import urllib3
from google.auth.transport.requests import AuthorizedSession

if TYPE_CHECKING:
    from collections.abc import Callable

#: The most bytes of an answer that isn't read piece by piece; a page of a listing has a few million.
MAX_ANSWER: Final = 64 * 2**20
#: The seconds that such an answer may take, from its first byte to its last.
MAX_SECONDS: Final = 600.0
#: The fewest bytes a second that an answer of many may come with, after a minute.
MIN_RATE: Final = 2**14
_BLOCK: Final = 2**18


def read(answer: Any, size: int, seconds: float, clock: Callable[[], float], *, decode: bool) -> bytes:
    """Return what comes of an answer, up to so many bytes.

    Args:
        answer: The answer, of which nothing was read.
        size: The most bytes to read.
        seconds: The most seconds that it may take; requests' own timeout starts over with every byte.
        clock: Returns the time.
        decode: Whether to decode what is encoded for the way.

    Raises:
        TimeoutError: It takes longer.
    """
    # `read1` returns as much as has come. urllib3 1 has none, and that of vcrpy's answers doesn't decode.
    ours = isinstance(answer.raw, urllib3.HTTPResponse)
    receive = getattr(answer.raw, "read1", answer.raw.read) if ours else answer.raw.read
    start, pieces, left = clock(), [], size
    while left and (data := receive(min(left, _BLOCK), decode_content=decode)):
        pieces.append(data)
        left -= len(data)
        if clock() - start > seconds:
            answer.raw.close()
            raise TimeoutError
    return b"".join(pieces)


def _unchanged(request: Any) -> Any:
    return request


class _Session(requests.Session):
    """A session that takes no credentials from ``.netrc`` or from an address, and reads no answer without an end."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.auth = _unchanged  # requests looks for credentials only if there's nothing here
        self.hooks["response"].append(self._limit)
        self.clock: Callable[[], float] = time.monotonic

    def _limit(self, answer: requests.Response, *_: Any, stream: bool = False, **__: Any) -> None:
        """Read an answer, if requests is going to, and no further than `MAX_ANSWER`."""
        if stream:
            return
        content = read(answer, MAX_ANSWER + 1, MAX_SECONDS, self.clock, decode=True)
        if len(content) > MAX_ANSWER:
            answer.raw.close()
            raise requests.ConnectionError("the answer doesn't end")
        answer.raw = io.BytesIO(content)

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
