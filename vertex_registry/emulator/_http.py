"""An HTTP server in a thread of this process: aiohttp, with limits, and with checks of its clients.

aiohttp's event loop reads and writes for all clients. What answers them runs on a worker's thread, so a slow answer
holds up nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import socket
import threading
import weakref
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web

from vertex_registry.emulator._bounds import LONGEST_REQUEST
from vertex_registry.emulator._data_file import DataFileError
from vertex_registry.emulator._dispatch import Dropped, data_file_failure
from vertex_registry.emulator._hosts import Hosts, split_target
from vertex_registry.emulator._status import Code, Failure, bad_request, internal
from vertex_registry.emulator._transcoding import Request, Response, error_response
from vertex_registry.emulator._worker import Worker

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

# The seconds that a connection may do nothing, within a request or between two.
_IDLE_SECONDS: Final = 60.0
# The seconds that requests under way have when the server stops.
_GRACE: Final = 2.0
_BACKLOG: Final = 128
# The most bytes of a request's first line and of a header. Clients repeat the name of a request in a header.
_LONGEST_LINE: Final = 64 * 1024
_MOST_HEADERS: Final = 100

# The errors of a process that has no descriptors or no memory left for another connection.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# The seconds to wait where no connection can be accepted, and those that a client has to send something.
_EXHAUSTED_WAIT: Final = 0.25
_EXHAUSTED_GRACE: Final = 1.0

_HEADERS: Final = {
    "Content-Type": "application/json; charset=UTF-8",
    "Vary": "Origin, X-Origin, Referer",
    "Cache-Control": "private",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "X-XSS-Protection": "0",
}
_REASONS: Final = {499: "Client Closed Request"}

_log = logging.getLogger(__name__)
# What aiohttp logs is about malformed requests and lost connections: the client's business. It may quote a label or a
# token, too.
_SILENT: Final = logging.getLogger("vertex_registry.emulator.aiohttp")
_SILENT.disabled = True


#: What answers a request. It runs on the worker's thread, and calls its second argument before it waits for something.
#: It may raise a Failure, or Dropped to end the connection without an answer.
Answer = Callable[[Request, Callable[[], None]], Response]


# What a browser sends if somebody follows a link, and not if a page loads something, frames it or sends a form by POST.
_FOLLOWED_LINK: Final = (("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"))


class HttpServer:
    """An HTTP server. It serves as soon as it's created.

    Args:
        answer: What answers the requests.
        host: The address to listen on.
        port: The port. 0 means any free port.
        tls: The context with the certificate. With it, the server speaks TLS.
        allowed_hosts: More names that the server answers to.
        accepts_link: Whether a link on another site may lead to this path. Its page can't read what it leads to.

    Attributes:
        address: The URL of the server, without a slash at the end.

    Raises:
        OSError: The address can't be listened on.
    """

    def __init__(
        self,
        answer: Answer,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        allowed_hosts: Iterable[str] = (),
        accepts_link: Callable[[str], bool] = lambda _path: False,
    ) -> None:
        self._answer = answer
        self._accepts_link = accepts_link
        self._tls = tls
        self._process = os.getpid()
        self._listener = _listen(host, port)
        bound, port = self._listener.getsockname()[:2]
        self._hosts = Hosts("http" if tls is None else "https", host, bound, port, allowed_hosts)
        self.address = self._hosts.address
        # When each connection was last used, or was begun; infinity means that a request of it is under way.
        self._used: weakref.WeakKeyDictionary[asyncio.Transport, float] = weakref.WeakKeyDictionary()
        self._begun: dict[asyncio.Task[None], float] = {}
        self._worker = Worker("vertex-emulator-rest")
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="vertex-emulator-rest-loop", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer the requests that are under way, end every connection, and stop.

        In a forked process, only that process's descriptor is closed: the server runs in its parent.
        """
        if os.getpid() == self._process and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
        self._listener.close()

    # --- connections ---------------------------------------------------------

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._serve())

    async def _serve(self) -> None:
        server = web.Server(
            self._respond,
            logger=_SILENT,
            access_log=None,
            keepalive_timeout=_IDLE_SECONDS,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
            max_headers=_MOST_HEADERS,
            auto_decompress=False,
        )
        self._loop.add_reader(self._listener, self._accept, server)
        await self._stopping.wait()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        await asyncio.sleep(0)  # until each task has begun, and owns its socket
        for task in self._begun:
            task.cancel()
        await asyncio.gather(*self._begun, return_exceptions=True)
        server.pre_shutdown()
        await server.shutdown(_GRACE)
        for transport in list(self._used):
            transport.abort()  # a client that doesn't confirm the end of TLS isn't waited for
        await asyncio.sleep(0)  # until every socket is closed
        # Nothing is left of a request before the store is closed, even if nobody waits for its response any more.
        self._worker.shutdown()

    def _accept(self, server: web.Server) -> None:
        """Accept a connection. If the process has no descriptor left for it, another connection is given up."""
        try:
            connected, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._loop.remove_reader(self._listener)
                self._loop.call_later(self._give_one_up(), self._accept_again, server)
            return
        connected.setblocking(False)
        # A task of its own, because a handshake may take long.
        task = self._loop.create_task(self._connect(server, connected))
        self._begun[task] = self._loop.time()
        task.add_done_callback(self._begun.pop)

    def _accept_again(self, server: web.Server) -> None:
        if not self._stopping.is_set():
            self._loop.add_reader(self._listener, self._accept, server)

    def _give_one_up(self) -> float:
        """End the connection that has done nothing for longest, and return the seconds to wait for a descriptor.

        One whose request is being carried out isn't ended, nor one that was active just now.
        """
        idle: dict[Callable[[], object], float] = {task.cancel: at for task, at in self._begun.items()}
        idle |= {each.abort: at for each, at in self._used.items() if not each.is_closing()}
        end = min(idle, key=idle.__getitem__, default=None)
        if end is None or idle[end] > self._loop.time() - _EXHAUSTED_GRACE:
            return _EXHAUSTED_WAIT
        end()
        return 0

    async def _connect(self, server: web.Server, connected: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client is gone, or doesn't speak TLS
            transport, _ = await self._loop.connect_accepted_socket(
                server, connected, ssl=self._tls, ssl_handshake_timeout=_IDLE_SECONDS if self._tls else None
            )
            self._used.setdefault(transport, self._loop.time())

    # --- requests ------------------------------------------------------------

    async def _respond(self, incoming: web.BaseRequest) -> web.StreamResponse:
        transport = incoming.transport
        if transport is None:  # the client is gone
            return web.Response()
        self._used[transport] = math.inf
        try:
            response = await self._serve_one(incoming)
        except Failure as failure:
            response = error_response(failure)
        except Dropped:
            transport.abort()
            return web.Response()
        finally:
            self._used[transport] = self._loop.time()
        headers = dict(_HEADERS if response.headers is None else response.headers)
        if response.retry_after is not None:
            # A number of whole seconds: RFC 9110.
            headers["Retry-After"] = str(-int(-response.retry_after // 1))
        return web.Response(
            status=response.status, reason=_REASONS.get(response.status), headers=headers, body=response.body
        )

    async def _serve_one(self, incoming: web.BaseRequest) -> Response:
        headers = tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t"))
            for name, value in incoming.raw_headers
        )
        # aiohttp refuses a second Host.
        host, target = split_target(incoming.raw_path, incoming.headers.get("Host", ""))
        path, _, query = target.partition("?")
        request = Request(incoming.method, path, query, headers, b"")
        # This comes before the body is read.
        is_link = request.method == "GET" and all(request.get_all(name) == [value] for name, value in _FOLLOWED_LINK)
        sites = [] if is_link and self._accepts_link(path) else request.get_all("sec-fetch-site")
        self._hosts.check(host, request.get_all("origin"), sites)
        if incoming.body_exists:
            request = request._replace(body=await _read_body(incoming))
        return await self._call(request)

    async def _call(self, request: Request) -> Response:
        """Let the worker answer a request, and wait for it."""
        future: asyncio.Future[Response | None] = self._loop.create_future()

        def settle(response: Response | None) -> None:
            if not future.done():  # somebody still waits for it
                future.set_result(response)

        self._worker.put(lambda: self._loop.call_soon_threadsafe(settle, self._answer_safely(request)))
        response = await future
        if response is None:
            raise Dropped
        return response

    def _answer_safely(self, request: Request) -> Response | None:
        """Return the response, or None if the connection is to end without one."""
        try:
            return self._answer(request, self._worker.take_over)
        except Failure as failure:
            return error_response(failure)
        except Dropped:
            return None
        except DataFileError as error:
            return error_response(data_file_failure(error))
        except BaseException as error:  # noqa: BLE001 - a bug has to be seen, also a site's, and the client must not hang
            _log.exception("A request failed")
            return error_response(internal(f"The emulator made a mistake: {type(error).__name__}."))


async def _read_body(incoming: web.BaseRequest) -> bytes:
    if (incoming.content_length or 0) > LONGEST_REQUEST:
        raise _too_long()
    parts: list[bytes] = []
    size = 0
    try:
        if incoming.headers.get("Expect", "").lower() == "100-continue" and not incoming.content.is_eof():
            await incoming.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not incoming.content.at_eof():
            async with asyncio.timeout(_IDLE_SECONDS):
                parts.append(await incoming.content.readany())
            size += len(parts[-1])
            if size > LONGEST_REQUEST:
                raise _too_long()
    except web.RequestPayloadError:
        raise bad_request("The body can't be read. Its length or its chunks are wrong.") from None
    except OSError:  # the client stopped sending, or is gone
        raise Dropped from None
    return b"".join(parts)


def _too_long() -> Failure:
    return Failure(
        Code.INVALID_ARGUMENT,
        f"The body is longer than {LONGEST_REQUEST} bytes.",
        http=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    )


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
