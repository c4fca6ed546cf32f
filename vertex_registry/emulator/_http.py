"""The HTTP server: connections, heads and bodies of requests, and who may send them.

No web page in somebody's browser may reach their registry. So a request is answered only
if it names this server's own address, and if no page of another origin sent it.
"""

from __future__ import annotations

import contextlib
import email.errors
import enum
import errno
import ipaddress
import json
import logging
import re
import selectors
import socket
import threading
import time
import urllib.parse
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, Final

from vertex_registry.emulator._bounds import LONGEST_REQUEST
from vertex_registry.emulator._control import CONTROL_PATHS
from vertex_registry.emulator._data_file import DataFileError
from vertex_registry.emulator._dispatch import FIELD_MASK, Dropped, response_class
from vertex_registry.emulator._selection import parse_selection
from vertex_registry.emulator._status import Code, Failure, bad_request, internal, not_found, permission_denied
from vertex_registry.emulator._transcoding import (
    FORM,
    ROUTES,
    Response,
    error_response,
    parse_request,
    render,
    with_form,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from vertex_registry.emulator._dispatch import Dispatcher

_log = logging.getLogger(__name__)

# RFC 9110: "A field value does not include leading or trailing whitespace."
_BLANKS: Final = " \t"
_IDLE_SECONDS: Final = 60.0
# A refused client is read from until it sends nothing for so many seconds, in chunks of so many bytes.
_LINGER_SECONDS: Final = 1.0
_CHUNK: Final = 65536
# The beginning of a request's target in its absolute form, up to the path, as clients send it to a proxy.
_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)

_HEADERS: Final = (
    "Content-Type: application/json; charset=UTF-8\r\n"
    "Vary: Origin, X-Origin, Referer\r\n"
    "Cache-Control: private\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "X-Frame-Options: SAMEORIGIN\r\n"
    "X-XSS-Protection: 0\r\n"
)

# The defects that Python's parser finds in a head. Others are about a body, which it doesn't see.
_NO_HEADERS: Final = (
    email.errors.MissingHeaderBodySeparatorDefect,
    email.errors.FirstHeaderLineIsContinuationDefect,
    email.errors.MisplacedEnvelopeHeaderDefect,
    email.errors.InvalidHeaderDefect,
)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: RestServer
    raw_requestline: bytes
    timeout = _IDLE_SECONDS
    disable_nagle_algorithm = True

    def _respond(self) -> None:
        try:
            self._write(self._serve())
        except Dropped:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do_HEAD = do_OPTIONS = _respond  # noqa: N815 - http.server's names

    def _serve(self) -> Response:
        try:
            body = self._read_body()
            self.server.set_state(_State.BUSY)
            self._check_origin()
            return self._route(body)
        except Failure as failure:
            return error_response(failure)
        except Dropped:
            raise
        except DataFileError as error:
            return error_response(internal(str(error)))
        except Exception as error:  # noqa: BLE001 - a bug here has to be seen, and the client must not hang
            _log.exception("A request failed")
            return error_response(internal(f"The emulator made a mistake: {type(error).__name__}."))

    def parse_request(self) -> bool:
        """Read the head of a request, and return whether it is one."""
        self.server.set_state(_State.READING)
        # RFC 9112: "a server that is expecting to receive and parse a request-line SHOULD ignore at least one empty
        # line (CRLF) received prior to the request-line."
        if not self.raw_requestline.strip(b"\r\n"):
            self.raw_requestline = self.rfile.readline(_CHUNK)
        return super().parse_request()

    def _read_body(self) -> bytes:
        self.close_connection, kept = True, self.close_connection
        # RFC 9112: "A server MUST reject, with a response status code of 400 (Bad Request), any received request
        # message that contains whitespace between a header field name and colon." What follows is read as no header.
        if self._has_stray_line():
            raise bad_request("A line of the request's head isn't a header.")
        if "Transfer-Encoding" in self.headers:
            raise Failure(
                Code.INVALID_ARGUMENT, "Send the body with a Content-Length.", http=HTTPStatus.LENGTH_REQUIRED
            )
        length = self.headers.get("Content-Length", "0").strip(_BLANKS)
        if len(self.headers.get_all("Content-Length", [])) > 1 or not re.fullmatch(r"[0-9]{1,18}", length):
            raise bad_request("The Content-Length is not a number.")
        if int(length) > LONGEST_REQUEST:
            raise Failure(
                Code.INVALID_ARGUMENT,
                f"The body is longer than {LONGEST_REQUEST} bytes.",
                http=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )
        try:
            body = self.rfile.read(int(length))
        except OSError:  # the client stopped sending, or is gone
            raise Dropped from None
        if len(body) < int(length):
            raise Dropped
        self.close_connection = kept
        return body

    def _has_stray_line(self) -> bool:
        """Return whether a line isn't a header. Python's parser for mail may take it for the message's start or end."""
        rest = self.headers.get_payload()
        begun = self.headers.get_unixfrom() is not None
        return (
            begun
            or (isinstance(rest, str) and rest != "")
            or any(isinstance(defect, _NO_HEADERS) for defect in self.headers.defects)
        )

    def _check_origin(self) -> None:
        # RFC 9112: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
        # lacks a Host header field and to any request message that contains more than one Host header field line".
        hosts = len(self.headers.get_all("Host", []))
        if hosts > 1 or (not hosts and self.request_version == "HTTP/1.1"):
            raise bad_request("The request must have one Host.")
        if not self.server.is_own(self._split_target()[0]):
            raise Failure(
                Code.PERMISSION_DENIED, f"This server answers only at its own address, {self.server.address}."
            )
        # A page has the origin of the address that it was loaded from. It has to be the very address that this request
        # is for. Otherwise, on a server with many addresses, a page of one could reach the others. Of several headers
        # every one counts, because an intermediary may read any of them.
        own = _origin(f"{self.server.scheme}://{self._split_target()[0]}")
        origins = [_origin(value.strip(_BLANKS)) for value in self.headers.get_all("Origin", [])]
        sites = {value.strip(_BLANKS) for value in self.headers.get_all("Sec-Fetch-Site", [])}
        if any(origin is None or origin != own for origin in origins) or not sites <= {"none", "same-origin"}:
            raise permission_denied("This server doesn't answer the pages of other sites.")

    def _split_target(self) -> tuple[str, str]:
        """Return the host that the request is for, and the path with its query.

        RFC 9112: "When an origin server receives a request with an absolute-form of request-target, the origin server
        MUST ignore the received Host header field (if any) and instead use the host information of the request-target."
        """
        absolute = _ABSOLUTE.match(self.path)
        if absolute is None:
            return self.headers.get("Host", "").strip(_BLANKS), self.path
        return absolute[1], self.path[absolute.end() :]

    def _route(self, body: bytes) -> Response:
        encoded, _, query = self._split_target()[1].partition("?")
        try:
            path = urllib.parse.unquote(encoded, errors="strict")
        except UnicodeDecodeError:
            raise bad_request("The path is not UTF-8.") from None
        own = CONTROL_PATHS.get((self.command, path))
        if own is not None:
            return Response(200, json.dumps(own(self.server.dispatcher, body), indent=2).encode())
        method = self._method()
        for route in ROUTES.get(method, ()):
            match = route.path.fullmatch(path)
            if match is not None:
                api = match[1]
                if method != self.command and not route.body and self.headers.get_content_type() == FORM:
                    # google-api-python-client moves a query that is too long for a URL into the body.
                    query, body = with_form(query, body), b""
                message, form = parse_request(route, match, query, body, posted=self.command == "POST")
                # A parameter wins over a header. What the front end does isn't known.
                fields = form.fields or ",".join(self.headers.get_all(FIELD_MASK, []))
                selection = parse_selection(fields, response_class(route.rpc, api).DESCRIPTOR)
                metadata = {name.lower(): value for name, value in self.headers.items()}
                response = self.server.dispatcher.call(route.rpc, message, api=api, transport="rest", metadata=metadata)
                return Response(200, render(route.rpc, api, response, form, selection))
        raise not_found(
            f"The method {method[:200]} {path[:200]} doesn't exist here. This is a local emulator of Vertex AI's model"
            " registry: it serves ModelService, its operations and locations."
        )

    def _method(self) -> str:
        """Return the HTTP method of the request.

        X-HTTP-Method-Override, of Google's system parameters: "The intended HTTP method for the request. Some network
        proxies do not accept all HTTP methods."
        """
        given = {value.strip(_BLANKS) for value in self.headers.get_all("X-HTTP-Method-Override", [])} - {""}
        if len(given) > 1:
            raise bad_request("The request must have one X-HTTP-Method-Override.")
        return given.pop().upper() if given else self.command

    def _write(self, response: Response) -> None:
        lines = f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Error')}\r\n{_HEADERS}"
        lines += f"Date: {self.date_time_string()}\r\nContent-Length: {len(response.body)}\r\n"
        if response.retry_after is not None:
            # A number of whole seconds: RFC 9110.
            lines += f"Retry-After: {-int(-response.retry_after // 1)}\r\n"
        if self.close_connection:
            lines += "Connection: close\r\n"
        body = b"" if self.command == "HEAD" else response.body
        # In one piece: a client would wait forty milliseconds for a body that is sent after its head.
        self.wfile.write(f"{lines}\r\n".encode("latin-1") + body)
        if self.close_connection:
            self.server.set_state(_State.ENDING)
            self._discard()
        else:
            self.server.set_state(_State.IDLE)

    def _discard(self) -> None:
        """Read on until the client has seen the end. Closing with unread bytes would take its response away."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER_SECONDS)
            left = LONGEST_REQUEST
            while left > 0 and (part := self.rfile.read1(_CHUNK)):
                left -= len(part)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Return Google's JSON for what ``http.server`` itself refuses."""
        del explain
        self.close_connection = True
        # http.server blames the server for an unknown verb or version of HTTP. It's the client's mistake.
        http = {
            HTTPStatus.NOT_IMPLEMENTED: HTTPStatus.METHOD_NOT_ALLOWED,
            HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: HTTPStatus.BAD_REQUEST,
        }.get(HTTPStatus(code), code)
        self.command = self.command or ""
        self._write(
            error_response(Failure(Code.INVALID_ARGUMENT, message or "The request can't be read."), http=int(http))
        )

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Log nothing: a request's line may have a label or a token in it."""


_REASONS: Final = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}


class _State(enum.IntEnum):
    """What a connection does, in the order in which connections are given up when no more can be opened."""

    ENDING = 0
    IDLE = 1
    READING = 2
    BUSY = 3


class _Connection:
    """A connection that is served in a thread of its own."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.state = _State.IDLE
        self.since = time.monotonic()

    def end(self) -> None:
        """Shut it down, so that whoever reads from it, or writes to it, sees its end."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


# The errors of a process that has no descriptors or no memory left for another connection.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# The seconds to wait for a connection to end where none can be accepted, and those that a client has to send something.
_EXHAUSTED_WAIT: Final = 0.25
_EXHAUSTED_GRACE: Final = 1.0


class RestServer(ThreadingHTTPServer):
    """The HTTP server. It serves as soon as it's created.

    Raises:
        OSError: The address can't be listened on.
    """

    # A thread of a forgotten emulator doesn't keep the program from ending. close() waits for all threads.
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size: ClassVar[int] = 128  # type: ignore[misc]

    def __init__(
        self,
        dispatcher: Dispatcher,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        allowed_hosts: Iterable[str] = (),
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.dispatcher = dispatcher
        self._tls = tls
        self._closing = False
        self._connections: dict[threading.Thread, _Connection] = {}
        self._connections_lock = threading.Lock()
        self._one_ended = threading.Condition(self._connections_lock)
        super().__init__((host, port), _Handler)
        shown = f"[{host}]" if ":" in host else host
        self.scheme = "http" if tls is None else "https"
        self.address = f"{self.scheme}://{shown}:{self.server_port}"
        self._own = self._own_hosts(host)
        self._allowed = {name.lower() for name in allowed_hosts}
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="vertex-emulator-rest", daemon=True)
        self._thread.start()

    def server_bind(self) -> None:
        """Bind without resolving the host's name as ``http.server`` does, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def _own_hosts(self, host: str) -> frozenset[str]:
        names = {host.lower()}
        if _ip(host) is None or _ip(host).is_loopback:  # type: ignore[union-attr]
            names |= {"localhost", "127.0.0.1", "::1"}
        return frozenset(names)

    def is_own(self, host: str) -> bool:
        """Return whether a Host header names this server.

        A server that listens on every address answers to any number. Names are the danger, because the owner of a name
        decides where it leads.
        """
        name, port = _split_host(host.lower())
        if name in self._allowed:
            # On any port: the port that is published may be another one than this server's.
            return True
        if port != self.server_port and not (port is None and self.server_port in {80, 443}):
            return False
        if name in self._own:
            return True
        bound = _ip(next(iter(self.server_address[:1])))
        return bound is not None and bound.is_unspecified and (_ip(name) is not None or name in self._names())

    @staticmethod
    def _names() -> frozenset[str]:
        return frozenset({"localhost", socket.gethostname().lower()})

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="vertex-emulator-rest-connection",
            daemon=True,
        )
        with self._connections_lock:
            self._connections[thread] = _Connection(request)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left, so the connection ends
            with self._connections_lock:
                del self._connections[thread]
            raise

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its own thread, TLS handshake included, which may take a slow client long."""
        if self._tls is not None:
            request.settimeout(_IDLE_SECONDS)
            with self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as wrapped:
                with self._connections_lock:
                    # From here on this socket has the connection, and close() ends it.
                    self._connections[threading.current_thread()].socket = wrapped
                    if self._closing:  # pragma: no cover - a race between a client and close()
                        return
                wrapped.do_handshake()
                super().finish_request(wrapped, client_address)
            return
        super().finish_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._connections_lock:
            self._connections.pop(threading.current_thread(), None)
            super().shutdown_request(request)
            self._one_ended.notify_all()

    def set_state(self, state: _State) -> None:
        """Note what the connection of this thread does."""
        connection = self._connections.get(threading.current_thread())
        if connection is not None:
            connection.state = state
            connection.since = time.monotonic()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a connection that broke: that's the client's business."""

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while not any(key.fileobj is self._stopped for key, _ in selector.select()):
                self._handle_request_noblock()  # type: ignore[attr-defined]

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection. Where the process has no descriptor left for one, another connection is given up."""
        while True:
            try:
                return super().get_request()
            except OSError as error:
                if error.errno not in _EXHAUSTED or not self._give_one_up():
                    raise

    def _give_one_up(self) -> bool:
        """End the connection that has done nothing for longest, and wait until its descriptor is free.

        One whose request is being carried out isn't ended, nor one that was active just now. Whether or not there is
        another, this waits: a server that tried again at once would be busy with nothing else.

        Returns:
            Whether a connection has ended, so that it's worth another try.
        """
        with self._one_ended:
            latest = time.monotonic() - _EXHAUSTED_GRACE
            connections = self._connections.values()
            waiting = [each for each in connections if each.state is not _State.BUSY and each.since <= latest]
            if waiting:
                min(waiting, key=lambda each: (each.state, each.since)).end()
            return self._one_ended.wait(_EXHAUSTED_WAIT)

    def close(self) -> None:
        """Stop serving, and end every connection."""
        self._stop.close()
        self._thread.join()
        self._stopped.close()
        with self._connections_lock:
            self._closing = True
            threads = list(self._connections)
            for connection in self._connections.values():
                connection.end()
        for thread in threads:
            thread.join()
        self.server_close()


def _ip(text: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(str(text))
    except ValueError:
        return None


def _split_host(host: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"\[([0-9a-f:.]+)\](?::([0-9]{1,5}))?|([^:\[\]]+)(?::([0-9]{1,5}))?", host)
    if match is None:
        return "", None
    port = match[2] or match[4]
    return match[1] or match[3], int(port) if port else None


_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def _origin(text: str) -> tuple[str, str, int] | None:
    """Return the scheme, host and port of a web origin, or None if the text isn't one."""
    scheme, separator, host = text.lower().partition("://")
    name, port = _split_host(host)
    if not separator or not name or scheme not in _DEFAULT_PORTS:
        return None
    return scheme, name, _DEFAULT_PORTS[scheme] if port is None else port
