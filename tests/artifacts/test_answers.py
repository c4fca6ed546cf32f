"""Invalid responses of a server: too many bytes, impossible sizes, encodings, and endless listings."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import threading
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import vcr

from tests.artifacts.tools import CHUNK, Clock, contents
from vertex_registry.artifacts import MAX_FILES, scan
from vertex_registry.artifacts._http import MAX_ANSWER
from vertex_registry.errors import InvalidArgumentError, RegistryError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.storage.server import Proxy, StorageServer
    from vertex_registry.artifacts import Storage

# --- more than was requested ------------------------------------------------------------------------------------------


class Endless:
    """A storage server that lists one object of five bytes, and answers some requests with bytes that never end.

    Args:
        which: What the path and query of these requests hold.
        chunked: Whether the answer is in chunks, or says that it has a terabyte.
        status: Its status.
        tick: What happens between two bytes. Without it, many are sent at once.

    Attributes:
        sent: How many bytes of these answers it has sent.
        requests: How many such requests came.
    """

    def __init__(
        self, which: str, *, chunked: bool, status: int, tick: Callable[[], object] | None = None, size: int = 5
    ) -> None:
        self.sent = self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Be quiet."""

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if which in self.path:
                    return self.answer_for_ever()
                item = {
                    "name": "m/model.pkl",
                    "size": str(size),
                    "generation": "1",
                    "crc32c": "AAAAAA==",
                    "bucket": "b",
                }
                body = json.dumps({"items": [item] if "prefix=m%2F&" in self.path else []}).encode()
                self.send_response(200)
                self.send_header("Location", f"http://{self.headers['Host']}/session")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return None

            do_POST = do_PUT = do_GET  # noqa: N815  # http.server names them

            def answer_for_ever(self) -> None:
                outer.requests += 1
                self.close_connection = True
                self.send_response(status)
                self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(2**40))))
                self.end_headers()
                block = bytes(1 if tick else 2**16)
                with contextlib.suppress(OSError):
                    while True:
                        if tick:
                            tick()
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
                        outer.sent += len(block)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("status", [200, 206, 403, 500])
def test_an_endless_response_is_not_read(
    make: Callable[..., Storage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, chunked: bool, status: int
) -> None:
    """At most as many bytes are read as the listing announces, even if the response never ends."""
    with contextlib.closing(Endless("alt=media", chunked=chunked, status=status)) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        with pytest.raises(RegistryError):
            make(retry=Clock().once()).download("gs://b/m", tmp_path / "dest")

    assert server.requests == 1
    assert server.sent < 16 * 2**20  # what fits into the buffers of two sockets
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize(
    ("status", "chunked"), [(200, True), (200, False), (308, True), (403, False), (500, True)], ids=str
)
@pytest.mark.parametrize("which", ["prefix=other", "uploadType=media", "uploadType=resumable", "/session"])
@pytest.mark.unmeasured  # measuring coverage costs much, and other tests reach each line
def test_an_endless_response_ends(
    make: Callable[..., Storage],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    which: str,
    *,
    chunked: bool,
    status: int,
) -> None:
    """The client stops reading an endless response to a listing or an upload, and an endless error."""
    name = "metadata.json" if "media" in which else "model.joblib"
    with contextlib.closing(Endless(which, chunked=chunked, status=status)) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        with pytest.raises(RegistryError):
            make(retry=Clock().once()).upload(scan(folder / name), "gs://b/other")

    assert server.requests == 1
    assert server.sent < MAX_ANSWER + 16 * 2**20


@pytest.mark.parametrize("which", ["prefix=m", "alt=media"])
@pytest.mark.parametrize("status", [200, 403])
def test_a_trickling_response_ends(
    make: Callable[..., Storage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str, status: int
) -> None:
    """A server that sends a byte every fifty seconds doesn't hang the call."""
    slow, clock = Clock(), Clock()
    retry = attrs.evolve(clock.once(), clock=lambda: slow.now + clock.now)
    endless = Endless(which, chunked=True, status=status, tick=lambda: slow.sleep(50), size=CHUNK)
    with contextlib.closing(endless) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        with pytest.raises(RegistryError):
            make(retry=retry).download("gs://b/m", tmp_path / "dest")

    assert server.requests == 1
    assert server.sent < 2**20


@pytest.mark.parametrize("more", [1, CHUNK])
def test_a_response_that_is_too_long_is_requested_again(
    storage: Storage, proxy: Proxy, stored: str, folder: Path, tmp_path: Path, more: int
) -> None:
    """A response with more or fewer bytes than the requested range is requested again."""
    proxy.fail("GET", "alt=media", alter=lambda body: body + bytes(more))
    proxy.fail("GET", "alt=media", alter=lambda body: body[:-1])

    assert contents(storage.download(stored, tmp_path / "dest")) == contents(folder)
    assert len(proxy.sent("GET", "alt=media")) == 6 + 2


@pytest.mark.parametrize("field", ["size", "generation"])
def test_a_listing_with_negative_numbers_is_refused(
    make: Callable[..., Storage], proxy: Proxy, stored: str, tmp_path: Path, field: str
) -> None:
    """A listing with a negative size or generation isn't taken for Cloud Storage's."""

    def alter(body: bytes) -> bytes:
        listed = json.loads(body)
        listed["items"][0][field] = "-5"
        return json.dumps(listed).encode()

    proxy.fail("GET", "/o?", alter=alter)
    with pytest.raises(UnavailableError, match="the response isn't one that Cloud Storage sends"):
        make(retry=Clock().once()).download(stored, tmp_path / "dest")


@pytest.mark.parametrize("name", ["metadata.json", "model.joblib"])
def test_an_upload_response_with_negative_numbers_is_refused(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, folder: Path, name: str
) -> None:
    """The same is true for the response to an upload."""
    proxy.fail(
        "POST" if name == "metadata.json" else "PUT", status=200, body=b'{"size": "-1", "generation": "1"}', after=0
    )
    with pytest.raises(UnavailableError, match="the response isn't one that Cloud Storage sends"):
        make(retry=Clock().once()).upload(scan(folder / name), f"gs://{bucket}/churn-1")


# --- listings ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Start a storage server whose listings have the tokens of a function, and record which were requested."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(token: Callable[[int], str], items: Sequence[dict[str, Any]] = ()) -> list[str]:
        asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Be quiet."""

            def do_GET(self) -> None:
                asked.append(self.path)
                body = json.dumps({"nextPageToken": token(len(asked)), "items": items}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        return asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


ONE_OBJECT = ({"name": "m/a", "size": "1", "generation": "1", "crc32c": ""},)


@pytest.mark.parametrize("items", [(), ONE_OBJECT])
def test_a_page_that_comes_again_ends_the_listing(
    make: Callable[..., Storage], pages: Callable[..., list[str]], tmp_path: Path, items: Any
) -> None:
    """A server that repeats a page token forever causes an error in every call that lists."""
    asked = pages(lambda _: "again", items)
    storage = make(retry=Clock().once())
    for action in (lambda: storage.list_names("gs://b/m"), lambda: storage.download("gs://b/m", tmp_path / "dest")):
        asked.clear()
        with pytest.raises(UnavailableError, match="the response isn't one that Cloud Storage sends"):
            action()
        assert len(asked) == 2


@pytest.mark.unmeasured  # likewise
def test_a_listing_of_too_much_ends(
    make: Callable[..., Storage], pages: Callable[..., list[str]], tmp_path: Path
) -> None:
    """If a server lists more objects than a model can have, the call fails and sends no more requests."""
    asked = pages(str, items=[{"name": f"m/{index}", "size": "1", "generation": "1"} for index in range(MAX_FILES + 1)])
    with pytest.raises(RegistryError, match="gs://b/m holds more files than a model can have"):
        make().download("gs://b/m", tmp_path / "dest")

    assert len(asked) == 1


def test_pages_take_no_longer_than_an_operation(
    make: Callable[..., Storage], pages: Callable[..., list[str]], clock: Clock
) -> None:
    """A server that takes a minute for each of its pages gets an error when the longest budget is spent."""

    def token(count: int) -> str:
        clock.now += 60
        return str(count)

    asked = pages(token, ONE_OBJECT)
    with pytest.raises(
        RegistryError, match="gs://b/m holds more files than a model can have, or its listing doesn't end"
    ):
        make().list_names("gs://b/m")

    assert len(asked) == 30


# --- encodings --------------------------------------------------------------------------------------------------------


@pytest.fixture
def encoded(storage_server: StorageServer, bucket: str) -> Callable[..., str]:
    """Store a model whose file has an encoding, as `gcloud storage cp --gzip-local` does."""

    def store(data: bytes, encoding: str = "gzip") -> str:
        storage_server.put(bucket, "m/model.pkl", data, encoding)
        storage_server.put(bucket, "m/notes.txt", b"about it")
        return f"gs://{bucket}/m"

    return store


MODEL = bytes(range(256)) * 9_000
NOISE = b"".join(index.to_bytes(2, "big") for index in range(40_000)) * 5


@pytest.mark.usefixtures("storage_emulator")
@pytest.mark.parametrize("data", [MODEL, NOISE, b"", b"x"], ids=["large", "of-chunks", "empty", "small"])
@pytest.mark.parametrize("level", [0, 9])
def test_an_encoded_object_is_decoded(
    make: Callable[..., Storage], encoded: Callable[..., str], tmp_path: Path, data: bytes, level: int
) -> None:
    """A file that's stored compressed is decoded, both in a folder and in the cache."""
    uri = encoded(gzip.compress(data, level))
    expected = {"model.pkl": data, "notes.txt": b"about it"}

    assert contents(make().download(uri, tmp_path / "dest")) == expected
    kept = make().download(uri)
    assert contents(kept) == expected
    assert make().download(uri) == kept


@pytest.mark.usefixtures("storage_emulator")
def test_two_streams_are_one_file(storage: Storage, encoded: Callable[..., str], tmp_path: Path) -> None:
    """A gzip file may be several in a row."""
    uri = encoded(gzip.compress(b"one ") + gzip.compress(b"two"))

    assert contents(storage.download(uri, tmp_path / "dest"))["model.pkl"] == b"one two"


def test_an_encoded_object_comes_in_pieces(
    storage: Storage, encoded: Callable[..., str], proxy: Proxy, tmp_path: Path
) -> None:
    """Its stored bytes are downloaded and compared piece by piece, even if connections are cut."""
    uri = encoded(gzip.compress(NOISE, 0))
    proxy.fail("GET", "model.pkl", cut="middle", after=1)
    proxy.fail("GET", "model.pkl", alter=lambda body: bytes(len(body)))

    assert contents(storage.download(uri, tmp_path / "dest"))["model.pkl"] == NOISE
    assert [path.name for path in tmp_path.iterdir()] == ["dest"]


@pytest.mark.usefixtures("storage_emulator")
@pytest.mark.parametrize(
    "data",
    [b"not a gzip stream", gzip.compress(b"x" * 1_000)[:-4], gzip.compress(b"x" * 1_000) + b"trash"],
    ids=["another", "cut", "longer"],
)
def test_a_false_encoding_is_reported(
    storage: Storage, encoded: Callable[..., str], tmp_path: Path, data: bytes
) -> None:
    """If an object's bytes don't have its encoding, the error says how to repair the object."""
    uri = encoded(data)
    with pytest.raises(
        RegistryError, match=rf"{uri}/model\.pkl is stored with 'Content-Encoding: gzip', .*--clear-content-encoding"
    ):
        storage.download(uri, tmp_path / "dest")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "deflate"])
def test_another_encoding_is_refused(
    storage: Storage, encoded: Callable[..., str], proxy: Proxy, tmp_path: Path, encoding: str
) -> None:
    """An encoding that can't be decoded is refused before anything is downloaded."""
    uri = encoded(b"x", encoding)
    with pytest.raises(InvalidArgumentError, match=f"model.pkl in .* is stored with 'Content-Encoding: {encoding}'"):
        storage.download(uri, tmp_path / "dest")

    assert not proxy.sent("GET", "alt=media")


@pytest.mark.usefixtures("storage_emulator")
@pytest.mark.parametrize("encoding", ["identity", " GZIP "])
def test_how_an_encoding_is_written(
    storage: Storage, encoded: Callable[..., str], tmp_path: Path, encoding: str
) -> None:
    """``identity`` isn't an encoding, and case and spaces don't matter."""
    data = gzip.compress(b"x") if "GZIP" in encoding else b"x"

    assert contents(storage.download(encoded(data, encoding), tmp_path / "dest"))["model.pkl"] == b"x"


def test_the_same_bytes_in_an_encoding_are_others(
    make: Callable[..., Storage], storage_server: StorageServer, proxy: Proxy, bucket: str, folder: Path
) -> None:
    """A file that another tool marked as encoded is uploaded again, because it would be served decoded."""
    uri = make().upload(scan(folder), f"gs://{bucket}/churn-1")
    name = f"{uri.removeprefix(f'gs://{bucket}/')}/metadata.json"
    storage_server.put(bucket, name, b"{}", "gzip")
    proxy.seen.clear()
    make().upload(scan(folder), f"gs://{bucket}/churn-1")

    assert len(proxy.sent("POST")) == 1
    assert b"contentEncoding" not in storage_server.call("GET", f"/storage/v1/b/{bucket}/o/{name.replace('/', '%2F')}")


# --- what records or replays answers ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # vcrpy closes no connection it pooled
def test_answers_that_vcrpy_records(
    proxy: Proxy, make: Callable[..., Storage], clock: Clock, bucket: str, tmp_path: Path, stored: str
) -> None:
    """Under vcrpy, whose answers read in a way of their own, a download needs no more requests than without it."""
    del bucket
    with vcr.use_cassette(str(tmp_path / "download.yaml")):
        got = make().download(stored, tmp_path / "got")
    assert contents(got) == contents(tmp_path / "model")
    recorded = [(seen.method, seen.path) for seen in proxy.seen]
    proxy.seen.clear()
    make(cache=tmp_path / "another").download(stored, tmp_path / "again")
    assert sorted(recorded) == sorted((seen.method, seen.path) for seen in proxy.seen)
    assert clock.slept == []
