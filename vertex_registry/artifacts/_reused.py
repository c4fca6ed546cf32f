"""Requests over connections that a pool has open, without urllib3's and http.client's work for each of them.

Only answers that succeed and have a length are read here, as Cloud Storage sends them. The standard library reads all
others, from the same bytes.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import urllib3

if TYPE_CHECKING:
    from collections.abc import Mapping

_BLOCK: Final = 2**18
#: Where the classes of connections are defined that are used here. A library that records requests has others.
_CONNECTIONS: Final = "urllib3.connection"

#: The most bytes of a status line and headers that are read here.
_MAX_HEAD: Final = 2**16
_STATUS: Final = re.compile(rb"HTTP/1\.1 (200|206)(?: [^\r\n]*)?\r\n")
_HEADERS_END: Final = b"\r\n\r\n"
#: The standard library ends a line at each of these. A server that ends lines otherwise is left to it.
_BARE_LINE_END: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)")
#: The headers that decide where an answer ends, whether another may follow, and what its bytes mean. The first group is
#: a length, and the second one is whatever isn't read here.
_FRAMING: Final = re.compile(
    rb"\r\n(?:content-length:[ \t]*([0-9]{1,18})[ \t]*(?=\r)"
    rb"|connection:[ \t]*keep-alive[ \t]*(?=\r)"
    rb"|content-encoding:[ \t]*identity[ \t]*(?=\r)"
    rb"|(content-length|connection|transfer-encoding|content-encoding))",
    re.IGNORECASE,
)


_METHODS: Final = frozenset({"GET", "POST"})
_TARGET: Final = re.compile(r"[!-~]+")
_HEADER: Final = re.compile(r"[!-9;-~]+: [\t -~]*")


class Request(NamedTuple):
    """A request.

    Attributes:
        method: GET or POST.
        host: The host and perhaps a port, as in the URL.
        target: The path and the query.
        headers: The headers, except ``Host`` and ``Content-Length``.
        body: The body, or None if the method has none.
    """

    method: str
    host: str
    target: str
    headers: Mapping[str, Any]
    body: bytes | None = None

    def head(self) -> bytes | None:
        """Return what is sent before the body, or None if it isn't valid, or has to be encoded."""
        headers = [f"{name}: {value}" for name, value in self.headers.items() if isinstance(value, str)]
        names = {name.lower() for name in self.headers}
        if (
            self.method not in _METHODS
            or not _TARGET.fullmatch(self.target)
            or not len(headers) == len(names) == len(self.headers)
            or not all(map(_HEADER.fullmatch, headers))
        ):
            return None
        lines = [f"{self.method} {self.target} HTTP/1.1", f"Host: {self.host}", *headers]
        if self.body is not None:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join((*lines, "", "")).encode()


def send(pool: Any, request: Request, timeout: float) -> Any:
    """Send a request over an open connection, and return the answer, whose content is still to be read.

    Args:
        pool: urllib3's pool of connections to the host.
        request: The request.
        timeout: The most seconds to wait until the request is sent, and then for the next bytes.

    Returns:
        A `Content`, or an answer of urllib3 if it's another. None if nothing was sent, because no connection is open or
        the request can't be sent as it is.

    Raises:
        urllib3.exceptions.ProtocolError: The connection broke.
    """
    head = request.head()
    if head is None or not hasattr(pool, "_get_conn"):
        return None
    borrowed = _Borrowed(pool)
    if borrowed.socket is None:
        borrowed.give_back(reusable=True)
        return None
    try:
        borrowed.socket.settimeout(timeout)
        with contextlib.suppress(BrokenPipeError):  # it may have answered before it had read everything
            _send_all(borrowed.socket, head, request.body or b"")
        received = borrowed.socket.recv(_BLOCK)
        while _needs_more(received) and (more := borrowed.socket.recv(_BLOCK)):
            received += more
        if (content := _content_in(received)) is not None:
            status, start, length = content
            return Content(borrowed, status, received[start:], length)
        return _parse(_Received(borrowed, received), request.method)
    except BaseException as error:
        borrowed.give_back(reusable=False)
        if isinstance(error, (OSError, http.client.HTTPException)):
            raise urllib3.exceptions.ProtocolError("The connection broke.", error) from error
        raise


def _send_all(sock: Any, head: bytes, body: bytes) -> None:
    if len(body) <= _BLOCK:
        sock.sendall(head + body)
    else:
        sock.sendall(head)
        sock.sendall(body)


class _Borrowed:
    """A connection of a pool, which nobody else uses until it's given back.

    Attributes:
        socket: Its socket, or None if it isn't open or isn't one of urllib3's own.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._connection = pool._get_conn()  # noqa: SLF001  # urllib3 has no public way
        known = type(self._connection).__module__ == _CONNECTIONS
        self.socket: Any = self._connection.sock if known else None

    def has_decrypted(self) -> bool:
        """Return whether TLS has decrypted bytes that nobody has read. The socket itself shows nothing of them."""
        pending = getattr(self.socket, "pending", None)
        return pending is not None and pending() > 0

    def give_back(self, *, reusable: bool) -> None:
        """Return the connection to the pool, or close it if it can't be used again. It's fine to do so twice."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if not reusable:
            connection.close()
        self._pool._put_conn(connection if reusable else None)  # noqa: SLF001  # the counterpart of `_get_conn`


class Content:
    """An answer with content, whose length is known.

    Attributes:
        status: Its HTTP status.
    """

    def __init__(self, borrowed: _Borrowed, status: int, received: bytes, length: int) -> None:
        self.status = status
        self._borrowed = borrowed
        self._received = received[:length]
        self._surplus = len(received) > length
        self._left = length

    def read(self, size: int, *, decode_content: bool) -> bytes:
        """Return the next bytes, as soon as some have come; none at the end, or if the connection ends early."""
        del decode_content  # it's as it was stored
        if self._received:
            data, self._received = self._received[:size], self._received[size:]
        elif self._left:
            try:
                data = self._borrowed.socket.recv(min(size, self._left, _BLOCK))
            except OSError as error:
                raise urllib3.exceptions.ProtocolError("The connection broke.", error) from error
        else:
            return b""
        self._left -= len(data)
        return data

    def close(self) -> None:
        """Return the connection, which can be used again if the answer was read to its end, and nothing followed."""
        surplus = self._surplus or self._borrowed.has_decrypted()
        self._borrowed.give_back(reusable=not self._left and not surplus)


def _needs_more(received: bytes) -> bool:
    """Return whether this is the beginning of an answer with content, without all of its headers."""
    begun = b"\n" not in received or _STATUS.match(received) is not None
    return begun and bool(received) and len(received) < _MAX_HEAD and _HEADERS_END not in received


def _content_in(received: bytes) -> tuple[int, int, int] | None:
    """Return the status of an answer with content, where this begins, and its length; None if the answer is another."""
    end, status = received.find(_HEADERS_END), _STATUS.match(received)
    if end < 0 or status is None:
        return None
    if _BARE_LINE_END.search(received, 0, end + len(_HEADERS_END)):
        return None
    found = _FRAMING.findall(received, 0, end + 1)
    lengths = [length for length, _ in found if length]
    if len(lengths) != 1 or any(other for _, other in found):
        return None
    return int(status[1]), end + len(_HEADERS_END), int(lengths[0])


class _Received(io.RawIOBase):
    """What a connection has received, and then what it receives. Closing it closes the connection."""

    def __init__(self, borrowed: _Borrowed, received: bytes) -> None:
        self._borrowed = borrowed
        self._received = received

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._received:
            return int(self._borrowed.socket.recv_into(buffer))
        data, self._received = self._received[: len(buffer)], self._received[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a file, as a socket does."""
        return io.BufferedReader(self)

    def close(self) -> None:
        self._borrowed.give_back(reusable=False)
        super().close()


def _parse(received: Any, method: str) -> urllib3.HTTPResponse:
    """Return the answer that a connection has received."""
    answer = http.client.HTTPResponse(received, method=method)
    answer.begin()
    return urllib3.HTTPResponse(
        answer,
        urllib3.HTTPHeaderDict(answer.getheaders()),
        answer.status,
        reason=answer.reason,
        preload_content=False,
        original_response=answer,
        request_method=method,
    )
