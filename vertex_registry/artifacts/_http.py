"""HTTP sessions that send no credentials but those that were chosen, and read no answer without an end.

Requests itself takes credentials from ``.netrc``, and reads whatever a server sends into memory.
"""

from __future__ import annotations

import contextlib
import io
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

import requests
import urllib3
from google.auth.transport.requests import AuthorizedSession

from vertex_registry.artifacts import _reused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: The most bytes of an answer that isn't read piece by piece; a page of a listing has a few million.
MAX_ANSWER: Final = 64 * 2**20
#: The seconds that such an answer may take, from its first byte to its last.
MAX_SECONDS: Final = 600.0
#: The fewest bytes a second that an answer of many may come with, after a minute.
MIN_RATE: Final = 2**14
_BLOCK: Final = 2**18
_UNAUTHORIZED: Final = 401
_CONTENT: Final = (200, 206)

#: No retry and no redirect.
_ONCE: Final = urllib3.Retry(0, read=False)


def read(raw: Any, size: int, seconds: float, clock: Callable[[], float], *, decode: bool) -> Iterator[bytes]:
    """Yield what comes of an answer, up to so many bytes.

    Args:
        raw: The answer of urllib3, of which nothing was read.
        size: The most bytes to read.
        seconds: The most seconds that it may take; requests' own timeout starts over with every byte.
        clock: Returns the time.
        decode: Whether to decode what is encoded for the way.

    Raises:
        TimeoutError: It takes longer.
    """
    # `read1` returns as much as has come. urllib3 1 has none, and that of vcrpy's answers doesn't decode.
    receive = getattr(raw, "read1", raw.read) if isinstance(raw, urllib3.HTTPResponse) else raw.read
    start, left = clock(), size
    while left and (data := receive(min(left, _BLOCK), decode_content=decode)):
        yield data
        left -= len(data)
        if clock() - start > seconds:
            raw.close()
            raise TimeoutError


def _unchanged(request: Any) -> Any:
    return request


class _Session(requests.Session):
    """A session that takes no credentials from ``.netrc`` or from an address, and reads no answer without an end."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.auth = _unchanged  # requests looks for credentials only if there's nothing here
        self.hooks["response"].append(self._limit)
        self.clock: Callable[[], float] = time.monotonic
        self._pools: dict[str, Any] = {}
        self._unusual: set[str] = set()

    @contextlib.contextmanager
    def open_stream(
        self,
        endpoint: str,
        path: str,
        headers: Mapping[str, str],
        timeout: float,
        *,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Send a request, and yield the status and the answer, of which nothing was read. Redirects aren't followed.

        A request straight through the session's pool of connections takes half the processor time, and one over a
        connection that's open half of that. The session itself is only used with a proxy, and to fetch another token
        for one that was refused.
        """
        if (pool := self._pool(endpoint)) is not None:
            signed: dict[str, Any] = {**self.headers, **headers}
            self.sign(method, f"{endpoint}{path}", signed)
            url = urllib.parse.urlsplit(endpoint)
            target = f"{url.path}{path}"
            raw: Any = None
            if endpoint not in self._unusual:
                raw = _reused.send(pool, _reused.Request(method, url.netloc, target, signed, body), timeout)
                if raw is not None and raw.status in _CONTENT and not isinstance(raw, _reused.Content):
                    self._unusual.add(endpoint)  # its connections would never be used again
            if raw is None:
                raw = pool.urlopen(
                    method,
                    target,
                    body=body,
                    headers=signed,
                    timeout=timeout,
                    retries=_ONCE,
                    redirect=False,
                    preload_content=False,
                )
            try:
                if raw.status != _UNAUTHORIZED:
                    yield raw.status, raw
                    return
            finally:
                raw.close()  # a connection whose answer was read to its end is in the pool already
        with self.request(
            method,
            f"{endpoint}{path}",
            data=body,
            headers=headers,
            timeout=timeout,
            stream=True,
            allow_redirects=False,
        ) as got:
            yield got.status_code, got.raw

    def sign(self, method: str, url: str, headers: dict[str, Any]) -> None:
        """Add the credentials that the request is sent with."""

    def _pool(self, endpoint: str) -> Any:
        """Return the pool of connections to a host, with the session's certificates, or None if there's a proxy."""
        if endpoint not in self._pools:
            settings: Any = self.merge_environment_settings(endpoint, {}, True, None, None)
            request = requests.Request("GET", endpoint).prepare()
            adapter: Any = self.get_adapter(endpoint)
            self._pools[endpoint] = (
                None
                if requests.utils.select_proxy(endpoint, settings["proxies"])
                else adapter.get_connection_with_tls_context(request, settings["verify"], cert=settings["cert"])
            )
        return self._pools[endpoint]

    def _limit(self, answer: requests.Response, *_: Any, stream: bool = False, **__: Any) -> None:
        """Read an answer, if requests is going to, and no further than `MAX_ANSWER`."""
        if stream:
            return
        content = b"".join(read(answer.raw, MAX_ANSWER + 1, MAX_SECONDS, self.clock, decode=True))
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

    def sign(self, method: str, url: str, headers: dict[str, Any]) -> None:
        """Add a token, which is fetched if the one that there is has expired."""
        self.credentials.before_request(self._auth_request, method, url, headers)
