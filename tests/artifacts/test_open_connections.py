"""Requests over connections that are open already: each gets its own answer, whatever a server sends."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest
import trustme
import urllib3

from vertex_registry.artifacts import _http, _reused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: How an answer ends. After the others, the server waits for the next request.
CLOSE: Final = b"<close>"


class Script:
    """A server that sends prepared bytes for each request, whatever connection it comes on.

    Attributes:
        url: Its address.
        connections: How many connections it has accepted.
        received: The requests, with their bodies.
    """

    def __init__(
        self, answers: list[bytes], wrap: Callable[[socket.socket], socket.socket] = lambda sock: sock
    ) -> None:
        self.connections = 0
        self.received: list[bytes] = []
        self._answers = answers
        self._wrap = wrap
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://localhost:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted = self._socket.accept()[0]
                self.connections += 1
                threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError, IndexError), self._wrap(accepted) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = connection.makefile("rb")
            while line := stream.readline():
                head = [line, *iter(stream.readline, b"\r\n")]
                sizes = [one.partition(b":")[2] for one in head if one.lower().startswith(b"content-length:")]
                self.received.append(b"".join(head) + b"\r\n" + stream.read(int(sizes[0]) if sizes else 0))
                answer = self._answers.pop(0)
                for piece in answer.removesuffix(CLOSE).split(b"|"):
                    connection.sendall(piece)
                if answer.endswith(CLOSE):
                    stream.close()
                    return

    def close(self) -> None:
        """End it."""
        self._socket.close()


def ok(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return an answer with a length."""
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", "")).encode() + body


def ask(
    session: Any, server: Script, *, most: int = 100, timeout: float = 20.0, decode: bool = False, **request: Any
) -> tuple[int, bytes]:
    """Return the status and the content of an answer."""
    with session.open_stream(server.url, "/x", {"Accept-Encoding": "identity"}, timeout, **request) as (status, raw):
        return status, b"".join(_http.read(raw, most, 20.0, session.clock, decode=decode))


@pytest.fixture
def session() -> Iterator[_http.PlainSession]:
    with contextlib.closing(_http.PlainSession(proxies=False)) as made:
        yield made


CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
BOTH: Final = CHUNKED.replace(b"\r\nTransfer", b"\r\nContent-Length: 3\r\nTransfer")


@pytest.mark.parametrize(
    ("answer", "status", "body", "connections"),
    [
        (ok(b"abcde"), 200, b"abcde", 1),
        (ok(b"abcde", status="206 Partial Content"), 206, b"abcde", 1),
        (ok(b""), 200, b"", 1),
        (ok(b"abcde", "CONNECTION:keep-alive", "content-encoding: identity"), 200, b"abcde", 1),
        (ok(b"abcde", "X-Content-Length: 3", "X: Content-Length: 2"), 200, b"abcde", 1),
        (ok(b"\r\nContent-Length: 3\r\n\r\n"), 200, b"\r\nContent-Length: 3\r\n\r\n", 1),
        (b"|".join(bytes([byte]) for byte in ok(b"abcde")), 200, b"abcde", 1),
        # What the standard library reads, on a connection that isn't used again.
        (CHUNKED, 200, b"abcde", 2),
        (ok(b"abcde", "Connection: close") + CLOSE, 200, b"abcde", 2),
        (b"HTTP/1.1 200 OK\r\n\r\nabcde" + CLOSE, 200, b"abcde", 2),
        (b"HTTP/1.0 200 OK\r\n\r\nabcde" + CLOSE, 200, b"abcde", 2),
        (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nabcde", 200, b"abcde", 2),
        (ok(b"abcde", "Content-Length: 5"), 200, b"abcde", 2),
        (ok(b"abcde", "X: a\nConnection: close") + CLOSE, 200, b"abcde", 2),
        (ok(b"abcde", "X: a\nTransfer-Encoding: chunked").replace(b"abcde", b"1\r\na\r\n0\r\n\r\n"), 200, b"a", 2),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"abcde"), 200, b"abcde", 2),
        (ok(b"busy", "Retry-After: 3", status="503 Unavailable"), 503, b"busy", 2),
        (BOTH, 200, b"abcde", 2),
        # More or less than the answer says.
        (ok(b"abcde") + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged", 200, b"abcde", 2),
        (ok(b"abcde").removesuffix(b"de") + CLOSE, 200, b"abc", 2),
    ],
)
def test_each_request_gets_its_own_answer(
    session: _http.PlainSession, answer: bytes, status: int, body: bytes, connections: int
) -> None:
    """The content is what the answer says, and the next request gets the next answer."""
    with contextlib.closing(Script([ok(b"first"), answer, ok(b"next")])) as server:
        assert ask(session, server) == (200, b"first")
        assert ask(session, server) == (status, body)
        assert ask(session, server) == (200, b"next")

    assert server.connections == connections


def test_an_answer_that_is_not_read_to_its_end_leaves_no_connection(session: _http.PlainSession) -> None:
    """If the client reads only a part of an answer, the rest isn't taken for the next one."""
    with contextlib.closing(Script([ok(b"first"), ok(b"abcde"), ok(b"next")])) as server:
        ask(session, server)
        assert ask(session, server, most=3) == (200, b"abc")
        assert ask(session, server) == (200, b"next")

    assert server.connections == 2


@pytest.mark.parametrize(
    "answer", [CLOSE, b"HTTP/1.1 200 OK\r\nContent-Le" + CLOSE, b"220 mail.example ESMTP\r\n" + CLOSE]
)
def test_a_connection_that_breaks_is_reported(session: _http.PlainSession, answer: bytes) -> None:
    """A connection that ends too early, or speaks something else, is a failed request, and isn't used again."""
    with contextlib.closing(Script([ok(b"first"), answer, ok(b"next")])) as server:
        ask(session, server)
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            assert ask(session, server)[1] == b""
        assert ask(session, server) == (200, b"next")

    assert server.connections == 2


def test_a_server_that_falls_silent_is_reported(session: _http.PlainSession) -> None:
    """A connection over which nothing more comes in time is a failed request, and isn't used again."""
    with contextlib.closing(Script([ok(b"first"), ok(b"abcde").removesuffix(b"de"), ok(b"next")])) as server:
        ask(session, server)
        with pytest.raises(urllib3.exceptions.HTTPError):
            ask(session, server, timeout=0.05)
        assert ask(session, server) == (200, b"next")


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden"])
def test_an_encoded_answer_is_decoded(session: _http.PlainSession, status: str) -> None:
    """What a server encodes without a reason can be read, over an open connection as well."""
    encoded = ok(gzip.compress(b"abcde"), "Content-Encoding: gzip", status=status)
    with contextlib.closing(Script([encoded] * 2)) as server:
        for _ in range(2):
            assert ask(session, server, decode=True) == (int(status[:3]), b"abcde")


def test_the_headers_of_a_refusal_can_be_read(session: _http.PlainSession) -> None:
    """The seconds that a server asks to wait are found, however it writes the header's name."""
    with contextlib.closing(Script([ok(b"first"), ok(b"", "retry-after: 3", status="429 Slow")])) as server:
        ask(session, server)
        with session.open_stream(server.url, "/x", {}, 20.0) as (_, raw):
            assert raw.headers["Retry-After"] == "3"


@pytest.mark.parametrize("size", [0, 5, 2**20])
def test_a_body_is_sent_whole(session: _http.PlainSession, size: int) -> None:
    """A body arrives with its length, over a new connection and over an open one."""
    with contextlib.closing(Script([ok(b"{}"), ok(b"{}")])) as server:
        for _ in range(2):
            assert ask(session, server, method="POST", body=bytes(size)) == (200, b"{}")

    for received in server.received:
        head, _, sent = received.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /x HTTP/1.1\r\n")
        assert head.lower().count(b"\r\ncontent-length: %d" % size) == 1
        assert sent == bytes(size)
    assert server.connections == 1


def test_only_the_first_request_of_a_connection_goes_through_urllib3(session: _http.PlainSession) -> None:
    """This is what makes many small files fast. urllib3 counts the requests that it sends."""
    with contextlib.closing(Script([ok(b"abcde")] * 5)) as server:
        for _ in range(5):
            ask(session, server)

    assert session._pool(server.url).num_requests == 1
    assert [request.partition(b"\r\n")[0] for request in server.received] == [b"GET /x HTTP/1.1"] * 5
    hosts = {line for request in server.received for line in request.split(b"\r\n") if line.startswith(b"Host:")}
    assert hosts == {f"Host: {server.url.removeprefix('http://')}".encode()}


def test_connections_of_a_server_that_answers_otherwise_are_kept(session: _http.PlainSession) -> None:
    """A server that sends content in chunks is asked through urllib3, which can use its connections again."""
    with contextlib.closing(Script([CHUNKED] * 6)) as server:
        for _ in range(6):
            assert ask(session, server) == (200, b"abcde")

    assert server.connections == 2


def test_a_refusal_before_the_body_was_read_is_found() -> None:
    """If a server answers and reads no more of a long body, the client sees the answer and not a broken connection."""
    ours, theirs = socket.socketpair()

    def refuse() -> None:
        theirs.recv(1)
        theirs.sendall(ok(b"no", status="403 Forbidden"))
        theirs.shutdown(socket.SHUT_RDWR)

    pool = urllib3.HTTPConnectionPool("localhost", maxsize=1)
    connection: Any = pool._get_conn()
    connection.sock = ours
    pool._put_conn(connection)
    threading.Thread(target=refuse, daemon=True).start()
    with contextlib.closing(theirs), contextlib.closing(pool):
        answer = _reused.send(pool, _reused.Request("POST", "localhost", "/x", {}, bytes(2**24)), 20.0)
        assert (answer.status, answer.read()) == (403, b"no")
        answer.close()


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/x", {"Authorization": "Bearer a\r\nX-Other: b"}),
        ("/x", {"Authorization": "Bearer a\rb"}),
        ("/x", {"Authorization": "Bearer a\nb"}),
        ("/x\r\nX-Other: b", {}),
        ("/x HTTP/1.1", {}),
        ("/größe", {}),
        ("/x\ty", {}),
        ("/x\0", {}),
        ("/x", {"X": None}),
        ("/x", {"X": b"a"}),
        ("/x", {"X Y": "a"}),
        ("/x", {"User-Agent": "a", "user-agent": "b"}),
    ],
)
def test_what_is_not_a_request_is_left_to_urllib3(target: str, headers: dict[str, Any]) -> None:
    """Nothing that would change the meaning of a request is sent as it is: urllib3 encodes or refuses it."""
    assert _reused.Request("GET", "localhost", "/x", {"X": "a"}).head() is not None
    assert _reused.Request("GET", "localhost", target, headers).head() is None
    assert _reused.Request("HEAD", "localhost", "/x", {"X": "a"}).head() is None


def test_a_pool_that_lends_no_connections_is_left_to_urllib3() -> None:
    """A later urllib3 may have no such method. Then nothing is sent here."""
    assert _reused.send(object(), _reused.Request("GET", "localhost", "/x", {}), 20.0) is None


def test_connections_of_another_library_see_each_request(session: _http.PlainSession) -> None:
    """A library that records or replays requests puts connections of its own into urllib3's pools."""
    seen: list[str] = []

    class Recording(urllib3.connection.HTTPConnection):
        def request(self, method: str, url: str, *args: Any, **settings: Any) -> None:
            seen.append(f"{method} {url}")
            super().request(method, url, *args, **settings)

    with contextlib.closing(Script([ok(b"abcde")] * 2)) as server:
        session._pool(server.url).ConnectionCls = Recording
        for _ in range(2):
            ask(session, server)

    assert seen == ["GET /x"] * 2


def test_surplus_that_is_already_decrypted_is_not_the_next_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS may have decrypted more than was read, and the socket doesn't show it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("NO_PROXY", "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    # The headers come by themselves, so the content and the surplus are one record of TLS.
    surplus = ok(b"abcde").replace(b"abcde", b"|abcde") + ok(b"forged")
    answers = [ok(b"first"), surplus, ok(b"next")]
    server = Script(answers, lambda sock: context.wrap_socket(sock, server_side=True))
    server.url = server.url.replace("http:", "https:")
    with contextlib.closing(server), contextlib.closing(_http.PlainSession()) as session:
        assert [ask(session, server)[1] for _ in range(3)] == [b"first", b"abcde", b"next"]
    assert server.connections == 2


@pytest.mark.parametrize("trusted", [True, False])
def test_open_connections_are_those_of_a_trusted_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, trusted: bool
) -> None:
    """The certificates that the environment names decide, as for every other request."""
    authority = trustme.CA()
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("NO_PROXY", "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    server = Script([ok(b"first"), ok(b"abcde")], lambda sock: context.wrap_socket(sock, server_side=True))
    server.url = server.url.replace("http:", "https:")
    with contextlib.closing(server), contextlib.closing(_http.PlainSession()) as session:
        if trusted:
            assert [ask(session, server) for _ in range(2)] == [(200, b"first"), (200, b"abcde")]
            assert session._pool(server.url).num_requests == 1
            return
        for _ in range(2):
            with pytest.raises(urllib3.exceptions.HTTPError, match="certificate verify failed"):
                ask(session, server)
    assert server.received == []
