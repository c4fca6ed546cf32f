"""From a folder to Cloud Storage and back, against a real storage server, with every fault on the way."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import pickle
import pty
import signal
import subprocess
import sys
import termios
import threading
import traceback
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import google.oauth2.credentials
import joblib
import pytest
import sklearn.linear_model
from hypothesis import given
from hypothesis import strategies as st

from vertex_registry import _waiting
from vertex_registry._records import Retry
from vertex_registry._servable import sklearn_version
from vertex_registry.artifacts import LocalDirectory, Storage, _names, _parallel, digest, scan
from vertex_registry.artifacts._parallel import run_in_parallel
from vertex_registry.artifacts._progress import progress_bar
from vertex_registry.errors import (
    AlreadyExistsError,
    AuthenticationError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RegistryError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from tests.storage.server import Proxy, StorageServer

CHUNK = 256 * 1024
AGENT = "service-PROJECT_NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com"


class Clock:
    """A clock that goes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now += seconds

    def retry(self) -> Retry:
        """The limits of a client that tells the time from here."""
        return Retry(sleep=self.sleep, random=lambda: 1.0, clock=lambda: self.now)

    def once(self) -> Retry:
        """Limits within which nothing is tried twice, and a busy machine still answers."""
        return Retry(calls=20, first=30, most=30, sleep=self.sleep, random=lambda: 1.0, clock=lambda: self.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock, tmp_path: Path) -> Iterator[Callable[..., Storage]]:
    """Makes clients that never really sleep and keep their cache to the test; a second one is another process."""
    made: list[Storage] = []

    def storage(**settings: Any) -> Storage:
        made.append(Storage(**{"retry": clock.retry(), "cache": tmp_path / "cache", "chunk": CHUNK, **settings}))
        return made[-1]

    yield storage
    for one in made:
        one.close()


@pytest.fixture
def storage(make: Callable[..., Storage]) -> Storage:
    return make()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of three files; the largest takes four chunks."""
    return write(
        tmp_path / "model",
        {"model.joblib": bytes(range(256)) * 3_500, "metadata.json": b"{}", "assets/größe.txt": b"1 m"},
    )


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def error(message: str) -> bytes:
    return json.dumps({"error": {"code": 0, "message": message}}).encode()


# --- there and back -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("storage_emulator")
def test_what_comes_back_is_what_was_sent(storage: Storage, bucket: str, folder: Path, tmp_path: Path) -> None:
    """Every file of a folder, whatever its size and name, comes back with the same bytes under the same path."""
    write(folder, {"empty": b"", "exactly": b"x" * CHUNK, "one-more": b"x" * (CHUNK + 1), ".hidden/f #?%": b"h"})
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")
    fetched = storage.download(uri, tmp_path / "dest")

    assert fetched == tmp_path / "dest"
    assert contents(fetched) == contents(folder)
    assert uri.startswith(f"gs://{bucket}/churn-1/")
    assert not list(tmp_path.glob("cache/uploads/*"))


@pytest.mark.usefixtures("storage_emulator")
def test_one_file_is_a_folder_of_one_file(storage: Storage, bucket: str, folder: Path, tmp_path: Path) -> None:
    """A file that is named by itself lies in its directory alone, and is the same content as such a folder."""
    uri = storage.upload(scan(folder / "metadata.json"), f"gs://{bucket}/churn-1/")
    alone = write(tmp_path / "alone", {"metadata.json": b"{}"})

    assert storage.list_names(uri) == ("metadata.json",)
    assert storage.upload(scan(alone), f"gs://{bucket}/churn-1") == uri


def test_the_same_bytes_are_not_sent_twice(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, folder: Path, tmp_path: Path
) -> None:
    """The same content, from another folder and another process, goes to the same place, and nothing is sent."""
    uri = make().upload(scan(folder), f"gs://{bucket}/churn-1")
    proxy.seen.clear()
    again = make().upload(scan(folder.rename(tmp_path / "other")), f"gs://{bucket}/churn-1")

    assert again == uri
    assert proxy.sent("GET", "/o?")
    assert not proxy.sent("POST")


def test_only_what_is_missing_is_sent(
    make: Callable[..., Storage], proxy: Proxy, storage_server: StorageServer, bucket: str, folder: Path
) -> None:
    """A file that somebody removed, or that holds other bytes, is sent again, and no other."""
    uri = make().upload(scan(folder), f"gs://{bucket}/churn-1")
    prefix = uri.removeprefix(f"gs://{bucket}/")
    storage_server.put(bucket, f"{prefix}/metadata.json", b"[]")
    proxy.seen.clear()
    make().upload(scan(folder), f"gs://{bucket}/churn-1")

    assert len(proxy.sent("POST")) == 1
    assert storage_server.get(bucket, f"{prefix}/metadata.json") == b"{}"


@pytest.mark.usefixtures("storage_emulator")
def test_many_may_send_the_same_at_once(
    make: Callable[..., Storage], storage_server: StorageServer, bucket: str, folder: Path
) -> None:
    """Several processes that send the same model at once all succeed, and leave one copy."""
    uris: list[str] = []
    threads = [
        threading.Thread(target=lambda: uris.append(make().upload(scan(folder), f"gs://{bucket}/churn-1")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(uris) == 4
    assert len(set(uris)) == 1
    assert len(storage_server.names(bucket)) == 3


@pytest.mark.usefixtures("storage_emulator")
def test_a_directory_is_looked_at(storage: Storage, storage_server: StorageServer, bucket: str) -> None:
    """The names at the top of a directory are told; those of its neighbours are not."""
    for name in ("m/1/model.pkl", "m/1/assets/a", "m/1/", "m/10/model.joblib", "m/1.txt"):
        storage_server.put(bucket, name, b"x")

    assert storage.list_names(f"gs://{bucket}/m/1") == ("assets/", "model.pkl")
    assert storage.list_names(f"gs://{bucket}/m/1/") == ("assets/", "model.pkl")
    assert storage.list_names(f"gs://{bucket}/nothing") == ()


# --- the digest -------------------------------------------------------------------------------------------------------

FILES = st.dictionaries(st.text(min_size=1), st.binary(min_size=32, max_size=32))


@given(FILES, FILES)
def test_the_digest_is_the_contents(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """The digest does not depend on the order of the files, and differs when a name or a byte does."""
    assert digest(one.items()) == digest(reversed(one.items()))
    assert (digest(one.items()) == digest(other.items())) == (one == other)


def test_the_digest_is_the_same_on_every_machine() -> None:
    """The digest is pinned: another one would send every model again."""
    assert (
        digest([("model.joblib", bytes(32)), ("a/größe", bytes(range(32)))])
        == "32f09b35885014f4f25191a070c0b4c432dfce0f"
    )


@pytest.mark.usefixtures("storage_emulator")
def test_names_are_normalised(storage: Storage, bucket: str, tmp_path: Path) -> None:
    """A name that macOS writes in another normal form is the same name."""
    composed = write(tmp_path / "linux", {"gr\u00f6\u00dfe": b"x"})
    decomposed = write(tmp_path / "mac", {"gro\u0308\u00dfe": b"x"})
    assert storage.upload(scan(composed), f"gs://{bucket}/m") == storage.upload(scan(decomposed), f"gs://{bucket}/m")


def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    """A linked file and a linked folder count as what they link to."""
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "model.pkl").symlink_to(folder / "model.joblib")
    (linked / "assets").symlink_to(folder / "assets")

    local = scan(linked, follow_links=True)
    assert local.names == ("assets/größe.txt", "model.pkl")
    assert local.size == 896_000 + 3


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder


def loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder)
    return folder


def dangling(folder: Path) -> Path:
    (folder / "gone").symlink_to(folder / "nowhere")
    return folder


def ring(folder: Path) -> Path:
    (folder / "ring").symlink_to(folder / "ring")
    return folder


def not_text(folder: Path) -> Path:
    (folder / os.fsdecode(b"\xff")).touch()
    return folder


def two_forms(folder: Path) -> Path:
    return write(folder, {"gr\u00f6\u00dfe": b"x", "gro\u0308\u00dfe": b"x"})


def emptied(folder: Path) -> Path:
    (folder / "empty" / "empty").mkdir(parents=True)
    return folder / "empty"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: folder / "nowhere", "is not there"),
        (lambda _: Path("/dev/null"), "neither a file nor a folder"),
        (emptied, "no files"),
        (fifo, "not a regular file"),
        (loop, "link to a folder that it lies in"),
        (dangling, "No such file"),
        (not_text, "not text"),
        (two_forms, "normal form"),
        (lambda folder: write(folder, {"a\nb": b""}), "no object of the name 'a\\nb'"),
        (lambda folder: write(folder, {"assets/a\\b": b""}), "could not be fetched again"),
        (lambda folder: write(folder, {"data:/a": b""}), "could not be fetched again"),
        (lambda folder: write(folder, {"f:stream": b""}) / "f:stream", "could not be fetched again"),
        (lambda folder: folder / ("a" * 300), "cannot be read: File name too long"),
        (lambda _: Path("~nosuchuser/x"), "is no path"),
        (lambda folder: folder / "a\0b", "is no path"),
        (ring, "cannot be read: Too many levels"),
    ],
    ids=lambda value: getattr(value, "__name__", value).strip("<>"),
)
def test_a_folder_that_cannot_be_sent_is_refused(folder: Path, spoil: Callable[[Path], Path], says: str) -> None:
    """What cannot be sent whole is refused before anything is sent."""
    with pytest.raises(InvalidArgumentError, match=says.replace("\\", r"\\")):
        scan(spoil(folder))


def test_a_folder_behind_a_locked_one_is_refused(tmp_path: Path) -> None:
    """A folder that its user may not get to is an error of ours. Root may: another user looks."""
    tmp_path.chmod(0o700)
    run = python(
        "import os, sys\n"
        "from vertex_registry.artifacts import scan\n"
        "os.getuid() or os.setuid(65534)\n"
        "try:\n"
        "    scan(sys.argv[1])\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error, file=sys.stderr, flush=True)\n"
        "os._exit(0)  # the other user may write no coverage\n",
        write(locked := tmp_path / "locked", {"m/model.bst": b""}) / "m",
        preexec_fn=None if os.getuid() == 0 else lambda: locked.chmod(0),
    )
    locked.chmod(0o700)

    assert "InvalidArgumentError" in run.stderr.splitlines()[-1]
    assert "cannot be read: Permission denied" in run.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "windows", "stays"),
    [
        *[(name, False, True) for name in ("model.pkl", "a/b", ".hidden", "con", "nul.txt", "a.", "größe", "a b")],
        *[(name, True, True) for name in ("model.pkl", "a/b", ".hidden", "console", "com.txt", "a/connect.py")],
        *[
            (name, True, False)
            for name in ("con", "NUL", "nul.txt", "a/aux/b", "com1", "LPT9.log", "a.", "a ", "con .x")
        ],
        *[
            (name, on, False)
            for name in ("C:evil", "f:stream", "a/f:s", "a\\b", "\ud800", "a\0")
            for on in (True, False)
        ],
    ],
)
def test_a_name_stays_in_the_folder(name: str, *, windows: bool, stays: bool) -> None:
    """What parts a path or names a drive, a stream or a device on Windows is told from what names a file."""
    assert _names.is_safe_name(name, windows=windows) is stays  # no test runs on Windows


@pytest.mark.usefixtures("storage_emulator")
def test_a_name_that_gets_too_long_is_refused(
    storage: Storage, storage_server: StorageServer, bucket: str, folder: Path
) -> None:
    """An object's name has at most 1,024 bytes; where one would be longer, nothing is sent."""
    with pytest.raises(InvalidArgumentError, match="too long"):
        storage.upload(scan(folder), f"gs://{bucket}/{'d' * 980}")

    assert storage_server.names(bucket) == []


def written_by(folder: Path) -> str | None:
    return sklearn_version({file.name: file.path for file in scan(folder).files})


ESTIMATOR = sklearn.linear_model.LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("before", [b"", b"x" * (2**18 - 130), b"x" * (2**18 - 110)])
def test_a_model_says_which_scikit_learn_wrote_it(tmp_path: Path, protocol: int, before: bytes) -> None:
    """The version is read from the pickle, wherever in the file it stands, and nothing is unpickled."""
    other = f"0{sklearn.__version__[1:]}"
    pickled = pickle.dumps(ESTIMATOR, protocol).replace(sklearn.__version__.encode(), other.encode())
    folder = write(tmp_path / "model", {"model.pkl": before + pickled})

    assert written_by(folder) == other


def test_joblib_says_it_as_well(tmp_path: Path) -> None:
    """Files of joblib are read as well; of a compressed one the installed version is the best guess."""
    for name, compress in (("plain", 0), ("compressed", 3)):
        folder = write(tmp_path / name, {})
        folder.mkdir()
        joblib.dump(ESTIMATOR, folder / "model.joblib", compress=compress)
        assert written_by(folder) == sklearn.__version__


def test_another_model_says_nothing(tmp_path: Path) -> None:
    """A folder without a scikit-learn model was written by none."""
    assert written_by(write(tmp_path / "model", {"model.bst": b"_sklearn_version"})) is None


# --- faults on the way up ---------------------------------------------------------------------------------------------


def test_a_cut_connection_is_not_the_end(
    storage: Storage, proxy: Proxy, clock: Clock, bucket: str, folder: Path, tmp_path: Path
) -> None:
    """An upload whose connections are cut goes on with the chunk that was cut, and ends whole."""
    proxy.fail("PUT", cut="request", after=2)
    proxy.fail("POST", "uploadType=media", cut="request")
    proxy.fail("POST", "resumable", cut="request")
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert clock.slept == [0.2, 0.2, 0.2]
    assert [seen.headers["Content-Range"] for seen in proxy.sent("PUT")] == [
        "bytes 0-262143/896000",
        "bytes 262144-524287/896000",
        "bytes 524288-786431/896000",
        "bytes 524288-786431/896000",
        "bytes 786432-895999/896000",
    ]
    assert contents(storage.download(uri, tmp_path / "dest")) == contents(folder)


def test_every_request_says_what_it_expects(
    storage: Storage, proxy: Proxy, storage_server: StorageServer, bucket: str, folder: Path
) -> None:
    """A file is made on condition that what was seen is there, and under the CRC32C of its bytes."""
    begun: list[dict[str, Any]] = []

    def note(body: bytes) -> bytes:
        begun.append(json.loads(body))
        return body

    proxy.fail("POST", "resumable", alter_request=note)
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")
    prefix = uri.removeprefix(f"gs://{bucket}/")
    listed = json.loads(storage_server.call("GET", f"/storage/v1/b/{bucket}/o"))
    crc32c = {item["name"].removeprefix(f"{prefix}/"): item["crc32c"] for item in listed["items"]}

    assert all("ifGenerationMatch=0" in seen.path for seen in proxy.sent("POST"))
    assert len(proxy.sent("POST", "resumable")) == 1
    assert [session["crc32c"] for session in begun] == [crc32c["model.joblib"]]
    assert [seen.headers.get("X-Goog-Hash") for seen in proxy.sent("PUT")] == [
        *[None] * 3,
        f"crc32c={crc32c['model.joblib']}",
    ]
    (whole,) = proxy.sent("POST", "metadata.json")
    assert whole.headers["X-Goog-Hash"] == f"crc32c={crc32c['metadata.json']}"


def test_files_are_sent_and_fetched_in_parallel(storage: Storage, proxy: Proxy, bucket: str, folder: Path) -> None:
    """The next file is under way while one is: each of two requests waits here until the other has come."""
    sent, fetched = threading.Barrier(2), threading.Barrier(2)
    proxy.fail("POST", "uploadType=media", times=2, first=lambda: sent.wait(20))
    proxy.fail("GET", "alt=media", times=2, first=lambda: fetched.wait(20))
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert contents(storage.download(uri)) == contents(folder)
    assert not sent.broken
    assert not fetched.broken


def test_a_lost_answer_is_not_a_second_object(
    storage: Storage, proxy: Proxy, bucket: str, folder: Path, tmp_path: Path
) -> None:
    """Where a file is stored and the answer does not arrive, what is stored is compared and counts."""
    proxy.fail("POST", "uploadType=media", cut="answer", times=2)
    proxy.fail("PUT", cut="answer", after=3)
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert contents(storage.download(uri, tmp_path / "dest")) == contents(folder)


PRECONDITION: dict[str, Any] = {
    "status": 412,
    "body": error("At least one of the pre-conditions you specified did not hold."),
}


def test_a_file_that_is_made_meanwhile_is_compared(
    storage: Storage, proxy: Proxy, bucket: str, folder: Path, tmp_path: Path
) -> None:
    """Where the answer was lost, or another process was faster, the object that is there counts if it is the same."""
    for request in (("POST", "metadata.json"), ("PUT", "upload_id")):
        proxy.fail(*request, cut="answer", after=0 if request[0] == "POST" else 3)
        proxy.fail(*request, **PRECONDITION)
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert contents(storage.download(uri, tmp_path / "dest")) == contents(folder)
    assert len(proxy.sent("POST", "metadata.json")) == 2


@pytest.mark.parametrize("name", ["metadata.json", "model.joblib"])
def test_other_bytes_that_are_made_meanwhile_are_replaced(
    make: Callable[..., Storage], proxy: Proxy, storage_server: StorageServer, bucket: str, folder: Path, name: str
) -> None:
    """Other bytes that somebody stores under the digest are replaced; where they come again, that is an error."""
    uri = make().upload(scan(folder / name), f"gs://{bucket}/churn-1")
    object_name = f"{uri.removeprefix(f'gs://{bucket}/')}/{name}"
    remove = f"/storage/v1/b/{bucket}/o/{object_name.replace('/', '%2F')}"
    for times in (1, 2):
        storage_server.call("DELETE", remove)
        request = ("POST", "uploadType=media") if name == "metadata.json" else ("PUT", "upload_id")
        proxy.fail(
            *request, times=times, first=lambda: storage_server.put(bucket, object_name, b"theirs"), **PRECONDITION
        )
        if times == 1:
            make().upload(scan(folder / name), f"gs://{bucket}/churn-1")
            assert storage_server.get(bucket, object_name) == (folder / name).read_bytes()
        else:
            with pytest.raises(UnavailableError, match="was given other bytes by somebody else meanwhile, twice"):
                make().upload(scan(folder / name), f"gs://{bucket}/churn-1")
            assert storage_server.get(bucket, object_name) == b"theirs"


def test_an_interrupted_upload_goes_on(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, folder: Path, tmp_path: Path
) -> None:
    """Where the budget ends in the middle of a file, the next process sends the rest of it only."""
    proxy.fail("PUT", status=503, body=error("Backend error."), after=2, times=1)
    with pytest.raises(UnavailableError, match=r"Backend error\..*try again|Is a storage emulator running"):
        make(retry=Clock().once()).upload(scan(folder), f"gs://{bucket}/churn-1")
    kept = list(tmp_path.glob("cache/uploads/*.json"))
    assert len(kept) == 1
    assert kept[0].stat().st_mode & 0o077 == 0

    proxy.seen.clear()
    uri = make().upload(scan(folder), f"gs://{bucket}/churn-1")
    assert [seen.headers["Content-Range"] for seen in proxy.sent("PUT")] == [
        "bytes 524288-786431/896000",
        "bytes 786432-895999/896000",
    ]
    assert not proxy.sent("POST", "resumable")
    assert not kept[0].exists()
    assert contents(make().download(uri, tmp_path / "dest")) == contents(folder)


def test_two_do_not_share_a_session(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, folder: Path, tmp_path: Path
) -> None:
    """Who sends a file that another process is in the middle of sending has a session of its own."""
    uris: list[str] = []

    def upload() -> None:
        uris.append(make().upload(scan(folder / "model.joblib"), f"gs://{bucket}/churn-1"))

    proxy.fail("PUT", first=upload, after=2)
    upload()

    assert len(set(uris)) == 1
    assert len({seen.path for seen in proxy.sent("PUT")}) == 2
    assert len(proxy.sent("PUT")) == 8
    assert not list(tmp_path.glob("cache/uploads/*"))
    assert contents(make().download(uris[0])) == {"model.joblib": (folder / "model.joblib").read_bytes()}


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL], ids=lambda kill: kill.name)
def test_a_process_that_is_killed_leaves_the_rest_to_the_next(
    make: Callable[..., Storage],
    proxy: Proxy,
    storage_server: StorageServer,
    bucket: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kill: signal.Signals,
) -> None:
    """Ctrl-C, or worse, in the middle of a file loses no more than the chunk that was under way."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = (
        "import signal, sys\n"
        "from vertex_registry.artifacts import Storage, scan\n"
        "def heard(*_):\n"
        "    print('heard', flush=True)\n"
        "    raise KeyboardInterrupt\n"
        "signal.signal(signal.SIGINT, heard)\n"
        f"Storage(chunk={CHUNK}).upload(scan(sys.argv[1]), sys.argv[2])"
    )
    running: list[subprocess.Popen[bytes]] = []

    def end() -> None:
        running[0].send_signal(kill)
        assert running[0].stdout is not None
        running[0].stdout.readline()  # what was heard, or that there is nobody to hear it

    proxy.fail("PUT", first=end, cut="request", after=2)
    with subprocess.Popen(
        [sys.executable, "-c", code, folder / "model.joblib", f"gs://{bucket}/churn-1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        running.append(process)
        process.wait()
    assert process.returncode != 0
    assert storage_server.names(bucket) == []

    proxy.seen.clear()
    make(cache=tmp_path / "vertex-registry").upload(scan(folder / "model.joblib"), f"gs://{bucket}/churn-1")
    sent = [seen.headers["Content-Range"] for seen in proxy.sent("PUT")]
    rest = ["bytes 524288-786431/896000", "bytes 786432-895999/896000"]
    # A thread may have sent its chunk once more before Ctrl-C has reached it.
    assert sent == rest or (kill is signal.SIGINT and sent == rest[1:])


@pytest.mark.parametrize("status", [404, 410])
def test_a_session_that_is_gone_begins_anew(
    storage: Storage, proxy: Proxy, bucket: str, folder: Path, tmp_path: Path, status: int
) -> None:
    """A session that Cloud Storage has forgotten is begun anew, from the first byte."""
    proxy.fail("PUT", status=status, body=error("No such session."), after=2)
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert len(proxy.sent("POST", "resumable")) == 2
    assert contents(storage.download(uri, tmp_path / "dest")) == contents(folder)


@pytest.mark.parametrize(
    ("fault", "says", "after"),
    [
        ({"status": 404, "body": error("No such session.")}, "No such session", 0),
        ({"status": 410, "body": error("No such session.")}, "No such session", 0),
        ({"status": 308}, "it confirms no more of the file", 0),
        ({"status": 308, "headers": {"Range": "bytes=0-262143"}}, "it confirms no more of the file", 2),
    ],
    ids=["404", "410", "308", "308-with-range"],
)
def test_what_gets_no_further_ends(
    storage: Storage,
    proxy: Proxy,
    clock: Clock,
    bucket: str,
    folder: Path,
    fault: dict[str, Any],
    says: str,
    after: int,
) -> None:
    """Where each chunk has an answer and none gets the file further, the waits are the budget, and it ends."""
    proxy.fail("PUT", **fault, after=after)
    proxy.fail("PUT", **fault, times=29)
    with pytest.raises(UnavailableError, match=says):
        storage.upload(scan(folder), f"gs://{bucket}/churn-1")
    proxy.faults.clear()

    assert len(proxy.sent("PUT")) <= 13 + after
    assert 40 < clock.now <= 60


def test_a_file_that_gets_further_may_take_long(
    storage: Storage, proxy: Proxy, clock: Clock, bucket: str, folder: Path, tmp_path: Path
) -> None:
    """Each chunk that is confirmed begins the budget anew."""
    for number in range(3):
        stays: dict[str, Any] = {"status": 308, "headers": {"Range": f"bytes=0-{number * CHUNK - 1}" if number else ""}}
        proxy.fail("PUT", **stays, after=1 if number else 0)
        proxy.fail("PUT", **stays, times=7)
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert clock.now > 60
    assert contents(storage.download(uri, tmp_path / "dest")) == contents(folder)


def test_a_chunk_that_was_kept_in_part_is_sent_from_there(
    storage: Storage, proxy: Proxy, bucket: str, folder: Path, tmp_path: Path
) -> None:
    """Cloud Storage says how much it has; what it does not confirm is sent again."""
    proxy.fail("PUT", status=308, after=1)  # "no Range header": nothing is there yet
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    ranges = [seen.headers["Content-Range"] for seen in proxy.sent("PUT")]
    assert ranges[:3] == ["bytes 0-262143/896000", "bytes 262144-524287/896000", "bytes 0-262143/896000"]
    assert contents(storage.download(uri, tmp_path / "dest")) == contents(folder)


@pytest.mark.parametrize("request_", [("POST", "uploadType=media"), ("PUT", "upload_id")])
def test_bytes_that_were_altered_are_sent_again(
    storage: Storage, proxy: Proxy, bucket: str, folder: Path, tmp_path: Path, request_: tuple[str, str]
) -> None:
    """What was stored is compared; where it differs it is replaced."""
    proxy.fail(*request_, alter_request=flipped)
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert contents(storage.download(uri, tmp_path / "dest")) == contents(folder)


def test_bytes_that_are_always_altered_are_an_error(
    storage: Storage, proxy: Proxy, storage_server: StorageServer, bucket: str, folder: Path
) -> None:
    """Where every try stores other bytes, the upload fails, and what differs is removed."""
    proxy.fail("POST", "uploadType=media", alter_request=flipped, times=2)
    with pytest.raises(UnavailableError, match="stored other bytes than were sent"):
        storage.upload(scan(folder / "metadata.json"), f"gs://{bucket}/churn-1")

    assert storage_server.names(bucket) == []
    (removed,) = proxy.sent("DELETE")
    assert "ifGenerationMatch=" in removed.path  # and not what somebody else has made there meanwhile


def flipped(body: bytes) -> bytes:
    """The body with one byte of the file changed."""
    index = len(body) // 2
    return body[:index] + bytes([body[index] ^ 1]) + body[index + 1 :]


def test_a_missing_bucket_is_said(storage: Storage, proxy: Proxy, folder: Path, tmp_path: Path) -> None:
    """A bucket that is not there is named, with what makes it."""
    for action in (
        lambda: storage.upload(scan(folder), "gs://no-such-bucket/churn-1"),
        lambda: storage.list_names("gs://no-such-bucket/churn-1"),
        lambda: storage.download("gs://no-such-bucket/churn-1", tmp_path / "dest"),
    ):
        with pytest.raises(NotFoundError, match=r"There is no bucket gs://no-such-bucket: .*buckets create"):
            action()

    assert not proxy.sent("POST")


@pytest.mark.parametrize(
    ("method", "path", "permission", "role"),
    [
        ("GET", "/o?", "storage.objects.list", "roles/storage.objectViewer"),
        ("POST", "uploadType=media", "storage.objects.create", "roles/storage.objectCreator"),
        ("POST", "resumable", "storage.objects.create", "roles/storage.objectCreator"),
    ],
)
def test_a_missing_permission_is_named(
    storage: Storage, proxy: Proxy, bucket: str, folder: Path, method: str, path: str, permission: str, role: str
) -> None:
    """The permission, the role that grants it, and who else has to read the bucket are named; it is not tried again."""
    said = f"ada@example.com does not have {permission} access to the Google Cloud Storage object."
    proxy.fail(method, path, status=403, body=error(said))
    with pytest.raises(PermissionDeniedError) as caught:
        storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert isinstance(caught.value, PermissionError)
    for part in (said, permission, role, AGENT, f"gs://{bucket}"):
        assert part in str(caught.value)


def test_to_replace_needs_another_permission(
    make: Callable[..., Storage], proxy: Proxy, storage_server: StorageServer, bucket: str, folder: Path
) -> None:
    """To replace what holds other bytes, the credentials must be allowed to delete."""
    uri = make().upload(scan(folder), f"gs://{bucket}/churn-1")
    storage_server.put(bucket, f"{uri.removeprefix(f'gs://{bucket}/')}/metadata.json", b"[]")
    proxy.fail("POST", status=403, body=error("No."))
    with pytest.raises(PermissionDeniedError, match=r"storage\.objects\.delete .*roles/storage\.objectUser"):
        make().upload(scan(folder), f"gs://{bucket}/churn-1")


def test_refused_credentials_are_said(storage: Storage, proxy: Proxy, bucket: str) -> None:
    """Credentials that Cloud Storage does not accept are no missing permission."""
    proxy.fail("GET", "/o?", status=401, body=error("Invalid Credentials"))
    with pytest.raises(
        AuthenticationError, match=r"did not accept the credentials: .*gcloud auth application-default login"
    ):
        storage.list_names(f"gs://{bucket}/churn-1")


@pytest.mark.parametrize("request_", [("GET", "/o?"), ("POST", "uploadType=media"), ("POST", "resumable"), ("PUT", "")])
def test_what_passes_is_waited_for(
    storage: Storage, proxy: Proxy, clock: Clock, bucket: str, folder: Path, request_: tuple[str, str]
) -> None:
    """Answers that say "later" are tried again, as long after as they ask, whatever page a gateway sends."""
    proxy.fail(*request_, status=503, headers={"Retry-After": "7"}, body=b"<html>Service Unavailable</html>")
    proxy.fail(*request_, status=429, body=error("Slow down."))
    storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert 7.0 in clock.slept


def test_the_budget_ends(storage: Storage, proxy: Proxy, clock: Clock, bucket: str) -> None:
    """Where no usable answer comes, the budget is kept, and the error says what was said last."""
    proxy.fail("GET", "/o?", status=500, body=error("We encountered an internal error."), times=12)
    with pytest.raises(UnavailableError, match="We encountered an internal error"):
        storage.list_names(f"gs://{bucket}/churn-1")
    spent, tries = clock.now, len(proxy.sent("GET", "/o?"))
    proxy.faults.clear()

    assert 50 < spent <= 60
    assert tries == 11
    assert isinstance(UnavailableError("x"), ConnectionError)


def test_a_server_that_is_not_there_is_said(
    storage: Storage, clock: Clock, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """An emulator that is not running is an error with its address in it, within the budget."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match=r"(?i)refused.* Is a storage emulator running at http://127\.0\.0\.1:9"):
        storage.upload(scan(folder), "gs://some-bucket/churn-1")

    assert clock.now <= 60


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 200_000 if path.stat().st_size > 200_000 else 1)


def alter(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 2)
        file.write(b"[]")


@pytest.mark.parametrize("change", [grow, shrink, alter])
@pytest.mark.parametrize(("name", "when"), [("metadata.json", ("GET", "/o?")), ("model.joblib", ("PUT", "upload_id"))])
def test_a_file_that_changes_is_noticed(
    storage: Storage,
    proxy: Proxy,
    storage_server: StorageServer,
    bucket: str,
    folder: Path,
    change: Callable[[Path], None],
    name: str,
    when: tuple[str, str],
) -> None:
    """A file that is written to while it is sent is an error, and never becomes an object."""
    proxy.fail(*when, first=lambda: change(folder / name))
    with pytest.raises(ConflictError, match=f"{name} changed while it was sent"):
        storage.upload(scan(folder / name), f"gs://{bucket}/churn-1")

    assert storage_server.names(bucket) == []
    # A session is not left for a week to somebody who has its address.
    assert len(proxy.sent("DELETE", "upload_id")) == len(proxy.sent("POST", "resumable"))


@pytest.mark.parametrize("name", ["metadata.json", "model.joblib"])
def test_a_file_that_goes_is_noticed(storage: Storage, proxy: Proxy, bucket: str, folder: Path, name: str) -> None:
    """A file that is removed after it was summed has changed as well."""
    proxy.fail("GET", "/o?", first=(folder / name).unlink)
    with pytest.raises(ConflictError, match=f"{name} changed while it was sent"):
        storage.upload(scan(folder / name), f"gs://{bucket}/churn-1")


def test_a_file_that_is_not_of_the_model_is_noticed(
    make: Callable[..., Storage], proxy: Proxy, storage_server: StorageServer, bucket: str, folder: Path
) -> None:
    """What somebody else put beside the model would be served with it: it is named, and nothing is registered."""
    name = f"churn-1/{digest((f.name, hashlib.sha256(f.path.read_bytes()).digest()) for f in scan(folder).files)}/m.pkl"
    proxy.fail("POST", "metadata.json", first=lambda: storage_server.put(bucket, name, b"theirs"))
    for _ in ("meanwhile", "before"):
        with pytest.raises(ConflictError, match=r"holds 'm\.pkl' too.* Nothing was registered") as caught:
            make().upload(scan(folder), f"gs://{bucket}/churn-1")
        assert caught.value.resource == f"gs://{bucket}/{name}"

    storage_server.call("DELETE", f"/storage/v1/b/{bucket}/o/{name.replace('/', '%2F')}")
    storage_server.put(bucket, f"{Path(name).parent}/", b"")  # as consoles mark a directory
    make().upload(scan(folder), f"gs://{bucket}/churn-1")


def test_a_file_that_changes_before_is_noticed(storage: Storage, proxy: Proxy, bucket: str, folder: Path) -> None:
    """A file that grew since the folder was looked at is an error before anything is asked."""
    local = scan(folder)
    grow(folder / "metadata.json")
    with pytest.raises(ConflictError, match=r"metadata\.json changed"):
        storage.upload(local, f"gs://{bucket}/churn-1")
    (folder / "metadata.json").unlink()
    with pytest.raises(InvalidArgumentError, match=r"metadata\.json' cannot be read"):
        storage.upload(local, f"gs://{bucket}/churn-1")

    assert not proxy.seen


ODD = [b"{}", b"[]", b"null", b'"text"', b'{"size": "x", "generation": "1"}', b"<html>Log in</html>"]


@pytest.mark.parametrize("body", ODD)
@pytest.mark.parametrize("name", ["metadata.json", "model.joblib"])
def test_an_answer_in_another_form_is_no_answer(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, folder: Path, name: str, body: bytes
) -> None:
    """Where something on the way answers in Cloud Storage's place, it is said that nobody usable has answered."""
    proxy.fail("POST" if name == "metadata.json" else "PUT", status=200, body=body)
    with pytest.raises(UnavailableError, match="the answer is not in Cloud Storage's form"):
        make(retry=Clock().once()).upload(scan(folder / name), f"gs://{bucket}/churn-1")


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"<html>Log in</html>",
        b'{"items": [{"name": "m/a"}]}',
        b'{"items": [{"name": "m/a", "size": "x", "generation": "1"}]}',
        b'{"items": [{"size": "1", "generation": "1"}]}',
        b'{"items": [null]}',
    ],
)
def test_a_list_in_another_form_is_no_answer(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, tmp_path: Path, body: bytes
) -> None:
    """A list that is none, or that lacks what each object has, is no usable answer either."""
    proxy.fail("GET", "/o?", status=200, body=body, headers={"Content-Type": "application/json"})
    with pytest.raises(UnavailableError, match="the answer is not in Cloud Storage's form"):
        make(retry=Clock().once()).download(f"gs://{bucket}/m", tmp_path / "dest")


def test_a_chunk_beyond_the_file_is_no_answer(storage: Storage, proxy: Proxy, bucket: str, folder: Path) -> None:
    """What confirms more bytes than the file has says nothing, and the chunk is sent once more."""
    proxy.fail("PUT", status=308, headers={"Range": "bytes=0-9999999"})
    storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert len(proxy.sent("PUT")) == 5


def test_the_address_of_a_session_is_in_no_error(storage: Storage, proxy: Proxy, bucket: str, folder: Path) -> None:
    """Who has a session's address may write to it: of a server that is gone, requests' own errors print it."""
    proxy.fail("PUT", first=proxy.stop_listening, cut="request")
    with pytest.raises(UnavailableError, match="refused") as caught:
        storage.upload(scan(folder / "model.joblib"), f"gs://{bucket}/churn-1")

    assert proxy.sent("PUT", "upload_id=")
    assert "upload_id" not in "".join(traceback.format_exception(caught.value))


# --- Ctrl-C while files are read --------------------------------------------------------------------------------------


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heeded, also where the shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


HUGE = 2**40  # of which a file system keeps nothing, and which takes a quarter of an hour and more to read


def interrupted(code: str, path: Path, *arguments: object) -> str:
    """What a process printed that was sent Ctrl-C in the middle of reading a file."""
    command = [sys.executable, "-c", f"import signal; signal.signal(2, signal.default_int_handler); {code}"]
    with subprocess.Popen([*command, *map(str, arguments)], stderr=subprocess.PIPE, text=True) as process:
        try:
            while process.poll() is None and not reads(process.pid, path):
                pass
            process.send_signal(signal.SIGINT)
            return process.communicate(timeout=30)[1]
        finally:
            process.kill()


def reads(pid: int, path: Path) -> bool:
    """Whether a process is well into a file, so that its main thread has begun to wait for the others."""
    for file in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            if file.readlink() == path:
                position = Path(f"/proc/{pid}/fdinfo/{file.name}").read_text(encoding="utf-8").split()[1]
                return int(position) > 2**26
    return False


@pytest.mark.usefixtures("storage_emulator")
def test_ctrl_c_ends_the_summing(folder: Path, bucket: str) -> None:
    """Ctrl-C ends an upload that is not yet more than a look at a large file."""
    os.truncate(folder / "model.joblib", HUGE)
    said = interrupted(UPLOAD, folder / "model.joblib", folder, f"gs://{bucket}/churn-1")

    assert said.splitlines()[-1] == "KeyboardInterrupt"


def test_ctrl_c_ends_the_comparing(
    make: Callable[..., Storage], stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends a download that compares what is in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = make(cache=tmp_path / "vertex-registry").download(stored)
    record = kept.with_name(f"{kept.name}.json")
    record.write_text(record.read_text(encoding="utf-8").replace("896000", str(HUGE)), encoding="utf-8")
    os.truncate(kept / "model.joblib", HUGE)
    code = "import sys; from vertex_registry.artifacts import Storage; Storage().download(sys.argv[1])"
    said = interrupted(code, kept / "model.joblib", stored)

    assert said.splitlines()[-1] == "KeyboardInterrupt"


def test_a_failure_ends_the_waits_of_others(proxy: Proxy, bucket: str, folder: Path) -> None:
    """Where one file has failed, or Ctrl-C came, another that waits to be sent again waits no longer."""
    waits = threading.Event()
    proxy.fail("POST", "metadata.json", first=waits.set, status=503, body=error("Later."))
    proxy.fail("PUT", first=lambda: waits.wait(20))
    proxy.fail("PUT", after=2, status=403, body=error("No."))
    code = UPLOAD.replace("Storage()", "Storage(chunk=2**18, retry=Retry(calls=1e6, first=1e5, most=1e5))")
    run = python(f"from vertex_registry import Retry; {code}", folder, f"gs://{bucket}/churn-1", timeout=60)

    assert "PermissionDeniedError" in run.stderr.splitlines()[-1]


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_wakes_nobody_and_is_heeded(make: Callable[..., Storage]) -> None:
    """Python notes Ctrl-C for the main thread, which may have begun to wait by then, and is not woken."""
    heeded: list[bool] = []

    def work(_: int, stopped: threading.Event) -> None:
        signal.raise_signal(signal.SIGINT)  # which is noted in this thread, and interrupts no wait of another one
        heeded.append(stopped.wait(20))

    with pytest.raises(KeyboardInterrupt):
        run_in_parallel([1], work, 8)  # no transfer can be met at that moment for sure

    assert heeded == [True]


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_a_wait_between_two_tries(proxy: Proxy, stored: str, tmp_path: Path) -> None:
    """So it is where the main thread itself waits to send a request again."""
    over = threading.Event()

    def interrupt() -> None:
        while not over.is_set():
            if sys._current_frames()[main].f_code.co_filename == _waiting.__file__:
                signal.raise_signal(signal.SIGINT)
                return

    def random() -> float:
        threading.Thread(target=interrupt, daemon=True).start()
        return 1.0

    main = threading.get_ident()
    proxy.fail("GET", status=503, body=error("Later."))
    storage = Storage(retry=Retry(calls=60, first=20, most=20, random=random))
    gc.disable()  # a collection while the frames are asked for can lock everybody out (CPython gh-106883)
    try:
        with pytest.raises(KeyboardInterrupt):
            storage.download(stored, tmp_path / "dest")
    finally:
        over.set()
        gc.enable()
        storage.close()

    assert len(proxy.seen) == 1


OURS = {module.__file__ for module in (_parallel, _waiting, threading, contextlib)}


def after(steps: int, storage: Storage, *, begun: bool) -> list[Any]:  # noqa: C901  # it says so at each instruction
    """What comes of work in parallel that Ctrl-C comes to after so many of the main thread's instructions.

    Those of the library that it waits with count as well. A garbage collection, whose finalizers use that library and
    swallow errors, is kept away. The work ends when it is stopped, or when the main thread waits for it.

    Args:
        steps: How many instructions.
        storage: What does the work.
        begun: Where a thread was begun, let it come to its work before.
    """
    waits, works = threading.Event(), threading.Event()
    came: list[Any] = []
    running: set[int] = set()

    def work(item: int, stopped: threading.Event) -> int:
        running.add(item)
        works.set()
        while not stopped.wait(0.001) and not waits.is_set():
            pass
        running.discard(item)
        return item

    def call() -> None:
        left, others = steps, False

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in OURS:
                return None
            frame.f_trace_opcodes = True
            left -= event == "opcode"
            if left == -1:
                left = -2
                if others and begun:
                    works.wait(20)
                raise KeyboardInterrupt
            return trace

        def profile(_: FrameType, event: str, called: Any) -> None:
            nonlocal others
            others |= event == "c_call" and called.__name__ == "start_new_thread"
            if event == "c_call" and called.__name__ == "get" and left >= 0:
                waits.set()

        gc.disable()
        sys.setprofile(profile)
        sys.settrace(trace)
        try:
            came.append(run_in_parallel([1, 2, 3], work, 2))  # what it does to its caller can be told of no transfer
        except KeyboardInterrupt:
            came.append("interrupted")
        finally:
            came.append(len(running))
            sys.settrace(None)
            sys.setprofile(None)
            gc.enable()

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    return came


@pytest.mark.parametrize("begun", [True, False])
def test_ctrl_c_may_come_at_any_moment(make: Callable[..., Storage], *, begun: bool) -> None:
    """Between whichever two instructions Ctrl-C comes, it is heeded, nobody goes on, and nobody waits for good."""
    storage = make(workers=2)
    steps = 0
    while (came := after(steps, storage, begun=begun)) == ["interrupted", 0]:
        steps += 1

    assert came == [[1, 2, 3], 0], f"after {steps} instructions"
    assert steps > 50


# --- faults on the way down -------------------------------------------------------------------------------------------


@pytest.fixture
def stored(proxy: Proxy, make: Callable[..., Storage], bucket: str, folder: Path) -> str:
    """The URI of the model in Cloud Storage."""
    uri = make().upload(scan(folder), f"gs://{bucket}/churn-1")
    proxy.seen.clear()
    return uri


def left_behind(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if path.name not in {"model", "cache"})


@pytest.mark.parametrize("cut", ["middle", "answer"])
def test_a_cut_download_goes_on(
    storage: Storage, proxy: Proxy, stored: str, folder: Path, tmp_path: Path, cut: str
) -> None:
    """A download whose connections are cut goes on with the piece that was cut, and ends whole."""
    proxy.fail("GET", "alt=media", cut=cut, times=3)
    fetched = storage.download(stored, tmp_path / "dest")

    assert contents(fetched) == contents(folder)
    assert len(proxy.sent("GET", "alt=media")) == 6 + 3


def test_a_wrong_checksum_is_fetched_again(
    storage: Storage, proxy: Proxy, stored: str, folder: Path, tmp_path: Path
) -> None:
    """Bytes that were altered on the way are noticed and fetched again."""
    proxy.fail("GET", "metadata.json", alter=lambda _: b"[]")
    assert contents(storage.download(stored, tmp_path / "dest")) == contents(folder)


def test_bytes_that_always_arrive_altered_are_an_error(
    storage: Storage, proxy: Proxy, stored: str, tmp_path: Path
) -> None:
    """Where other bytes arrive each time, there is an error and no folder."""
    proxy.fail("GET", "metadata.json", alter=lambda _: b"[]", times=2)
    with pytest.raises(UnavailableError, match=r"metadata\.json .*CRC32C .*Nothing was kept"):
        storage.download(stored, tmp_path / "deep" / "er" / "dest")

    assert left_behind(tmp_path) == []


def test_a_file_that_is_replaced_meanwhile_is_noticed(
    storage: Storage, proxy: Proxy, stored: str, tmp_path: Path
) -> None:
    """A folder is never mixed of two states of a directory."""
    proxy.fail("GET", "model.joblib", status=412, body=error("At least one of the pre-conditions did not hold."))
    with pytest.raises(ConflictError, match=r"model\.joblib was replaced while it was fetched"):
        storage.download(stored, tmp_path / "dest")

    assert left_behind(tmp_path) == []
    assert all("ifGenerationMatch" in seen.path for seen in proxy.sent("GET", "alt=media"))


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (403, PermissionDeniedError, r"storage\.objects\.get .*roles/storage\.objectViewer"),
        (404, NotFoundError, "not there any more"),
        (418, InvalidArgumentError, "refused"),
    ],
)
def test_what_cannot_be_read_leaves_nothing(
    storage: Storage, proxy: Proxy, stored: str, tmp_path: Path, status: int, kind: type[Exception], says: str
) -> None:
    """Where one file cannot be read, the error says why, and nothing is left of the others."""
    proxy.fail("GET", "model.joblib", status=status, body=error("No."))
    with pytest.raises(kind, match=says):
        storage.download(stored, tmp_path / "dest")

    assert left_behind(tmp_path) == []


def test_an_empty_directory_is_not_found(storage: Storage, proxy: Proxy, bucket: str, tmp_path: Path) -> None:
    """Where there is nothing, there is no folder either."""
    with pytest.raises(NotFoundError, match="There is nothing in gs://"):
        storage.download(f"gs://{bucket}/nothing", tmp_path / "dest")

    assert left_behind(tmp_path) == []
    assert not proxy.sent("GET", "alt=media")


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/evil", "a//evil", "./evil", "a\\..\\..\\evil", "C:/evil", "C:evil", "f:s", "\ud800"],
    ids=ascii,
)
def test_a_name_that_leaves_the_folder_is_refused(
    storage: Storage, proxy: Proxy, stored: str, tmp_path: Path, name: str
) -> None:
    """A server cannot make a file outside of the folder: such a name is refused before anything is fetched."""
    proxy.fail("GET", "/o?", alter=lambda body: body.replace(b'/metadata.json"', json.dumps(f"/{name}")[1:].encode()))
    with pytest.raises(InvalidArgumentError, match="would not lie in the folder"):
        storage.download(stored, tmp_path / "dest")

    assert left_behind(tmp_path) == []
    assert not proxy.sent("GET", "alt=media")


def test_a_name_that_is_both_file_and_folder_is_refused(
    storage: Storage, proxy: Proxy, stored: str, tmp_path: Path
) -> None:
    """Cloud Storage may hold "a" and "a/b"; a file system cannot."""
    proxy.fail("GET", "/o?", alter=lambda body: body.replace(b'/metadata.json"', b'/assets"'))
    with pytest.raises(InvalidArgumentError, match=r"holds assets and assets/größe\.txt"):
        storage.download(stored, tmp_path / "dest")

    assert left_behind(tmp_path) == []


def test_a_folder_that_is_there_is_not_touched(storage: Storage, proxy: Proxy, stored: str, tmp_path: Path) -> None:
    """A folder with something in it is left as it is; an empty one is filled."""
    write(tmp_path / "dest", {"mine.txt": b"mine"})
    with pytest.raises(AlreadyExistsError, match="is there already"):
        storage.download(stored, tmp_path / "dest")
    assert contents(tmp_path / "dest") == {"mine.txt": b"mine"}
    assert not proxy.sent("GET", "alt=media")

    (tmp_path / "dest" / "mine.txt").unlink()
    assert len(contents(storage.download(stored, tmp_path / "dest"))) == 3


def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return Path()


def linked(folder: Path, _: pytest.MonkeyPatch) -> Path:
    (folder.parent / "link").symlink_to(folder)
    return folder.parent / "link"


@pytest.mark.parametrize("named", [here, linked, lambda folder, _: folder], ids=["current", "link", "plain"])
def test_an_empty_folder_is_filled(
    storage: Storage,
    stored: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: Callable[[Path, pytest.MonkeyPatch], Path],
) -> None:
    """An empty folder is filled and stays the same one, for those who are in it, link to it or mount it."""
    (tmp_path / "dest").mkdir(mode=0o700)
    before = (tmp_path / "dest").stat()
    storage.download(stored, named(tmp_path / "dest", monkeypatch))
    after = (tmp_path / "dest").stat()

    assert contents(tmp_path / "dest") == contents(folder)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert set(left_behind(tmp_path)) <= {"dest", "link"}
    assert sorted(os.listdir(tmp_path / "dest")) == sorted(os.listdir(folder))  # noqa: PTH208  # hidden ones, too


def test_an_empty_folder_stays_empty(storage: Storage, proxy: Proxy, stored: str, tmp_path: Path) -> None:
    """Where the download fails, or somebody else was faster, an empty folder is left without a file of ours."""
    (tmp_path / "dest").mkdir()
    proxy.fail("GET", "model.joblib", status=404, body=error("No."))
    with pytest.raises(NotFoundError):
        storage.download(stored, tmp_path / "dest")
    assert list((tmp_path / "dest").iterdir()) == []

    proxy.fail("GET", "metadata.json", first=lambda: write(tmp_path / "dest", {"mine.txt": b"mine"}))
    with pytest.raises(AlreadyExistsError, match="Something has appeared in"):
        storage.download(stored, tmp_path / "dest")
    assert contents(tmp_path / "dest") == {"mine.txt": b"mine"}


def test_a_destination_that_is_no_path_is_refused(storage: Storage, stored: str) -> None:
    """A home of nobody's, and what is no path at all, is an error of ours."""
    with pytest.raises(InvalidArgumentError, match="is no path"):
        storage.download(stored, "~nosuchuser/x")
    with pytest.raises(InvalidArgumentError, match="5 is no path"):
        storage.download(stored, 5)  # type: ignore[arg-type]  # nothing checks the types of most callers


def test_a_folder_that_appears_meanwhile_is_not_touched(
    storage: Storage, proxy: Proxy, stored: str, tmp_path: Path
) -> None:
    """Where somebody else made the folder during the download, theirs stays."""
    proxy.fail("GET", "metadata.json", first=lambda: write(tmp_path / "dest", {"mine.txt": b"mine"}))
    with pytest.raises(AlreadyExistsError, match="has appeared meanwhile"):
        storage.download(stored, tmp_path / "dest")

    assert contents(tmp_path / "dest") == {"mine.txt": b"mine"}
    assert left_behind(tmp_path) == ["dest"]


def test_too_little_room_is_said_before(storage: Storage, proxy: Proxy, stored: str, tmp_path: Path) -> None:
    """Where the files cannot fit on the disk, none is fetched."""
    proxy.fail("GET", "/o?", alter=lambda body: body.replace(b'"size":"2"', b'"size":"9000000000000000000"'))
    with pytest.raises(RegistryError, match="there is room for"):
        storage.download(stored, tmp_path / "deep" / "dest")

    assert left_behind(tmp_path) == []
    assert not proxy.sent("GET", "alt=media")


def test_a_full_disk_leaves_nothing(proxy: Proxy, stored: str, tmp_path: Path) -> None:
    """A disk that gets full during the download leaves no folder and no part of one.

    The disk is a process that may write no file of more than 300,000 bytes, where one has 896,000.
    """
    code = (
        "import resource, sys; from vertex_registry.artifacts import Storage; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); Storage().download(*sys.argv[1:])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, stored, tmp_path / "dest"], capture_output=True, text=True, check=False
    )

    assert run.returncode == 1
    assert f"RegistryError: {stored} was not fetched: there is no room" in run.stderr
    assert left_behind(tmp_path) == []
    assert proxy.sent("GET", "alt=media")


def test_a_folder_that_cannot_be_written_is_said(storage: Storage, proxy: Proxy, stored: str, folder: Path) -> None:
    """What the file system says against the folder is an error of ours."""
    with pytest.raises(RegistryError, match="was not fetched: file exists"):
        storage.download(stored, folder / "metadata.json" / "dest")

    assert not proxy.sent("GET", "alt=media")


# --- the cache --------------------------------------------------------------------------------------------------------


def test_the_cache_knows_the_content(
    make: Callable[..., Storage], proxy: Proxy, stored: str, folder: Path, tmp_path: Path
) -> None:
    """Without a destination, what was fetched once is not fetched again, as long as it is what it was."""
    fetched = make().download(stored)
    assert contents(fetched) == contents(folder)
    assert fetched.is_relative_to(tmp_path / "cache")

    proxy.seen.clear()
    assert make().download(f"{stored}/") == fetched
    assert not proxy.sent("GET", "alt=media")

    alter(fetched / "model.joblib")
    assert contents(make().download(stored)) == contents(folder)
    (fetched / "metadata.json").unlink()
    assert contents(make().download(stored)) == contents(folder)
    write(fetched, {"assets/.extra": b"never fetched"})
    assert contents(make().download(stored)) == contents(folder)


def test_the_cache_follows_the_directory(
    storage: Storage, storage_server: StorageServer, stored: str, bucket: str
) -> None:
    """A directory that was changed is fetched anew, and what was fetched before stays."""
    before = storage.download(stored)
    storage_server.put(bucket, f"{stored.removeprefix(f'gs://{bucket}/')}/metadata.json", b"[]")
    after = storage.download(stored)

    assert (before / "metadata.json").read_bytes() == b"{}"
    assert (after / "metadata.json").read_bytes() == b"[]"


@pytest.mark.usefixtures("proxy")
def test_many_may_fill_the_cache_at_once(make: Callable[..., Storage], stored: str, folder: Path) -> None:
    """Several processes that fetch the same at once all get the same whole folder."""
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(make().download(stored))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(folders) == 4
    assert len(set(folders)) == 1
    assert contents(folders[0]) == contents(folder)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_no_credentials_are_sent_to_an_emulator(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, folder: Path
) -> None:
    """A token never goes to an emulator, which listens in plain text."""
    credentials = google.oauth2.credentials.Credentials(token="secret")  # type: ignore[no-untyped-call]  # noqa: S106
    make(credentials=credentials, project="acme").upload(scan(folder), f"gs://{bucket}/churn-1")

    assert proxy.seen
    assert all("secret" not in str(seen.headers) for seen in proxy.seen)


def test_an_emulators_address_needs_no_scheme(
    storage: Storage, storage_server: StorageServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``host:port`` is enough, as for every other emulator of Google's."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_server.url.removeprefix("http://"))

    assert storage.list_names(f"gs://{bucket}/nothing") == ()


def test_an_emulators_address_may_end_in_a_slash(
    storage: Storage,
    storage_server: StorageServer,
    bucket: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slash at the end, which Google's own libraries take as well, is no part of the address."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"{storage_server.url}/")

    assert contents(storage.download(storage.upload(scan(folder), f"gs://{bucket}/churn-1"))) == contents(folder)


def test_no_credentials_at_all_are_said(storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without an emulator and without credentials, the error says what to type."""
    for variable in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(AuthenticationError, match="gcloud auth application-default login"):
        storage.list_names("gs://some-bucket/churn-1")


def test_credentials_that_ran_out_are_said(make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that cannot be refreshed are an error of ours, at once."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    expired = google.oauth2.credentials.Credentials(token=None)  # type: ignore[no-untyped-call]  # untyped upstream
    with pytest.raises(AuthenticationError, match="could not be refreshed"):
        make(credentials=expired, project="acme").list_names("gs://some-bucket/churn-1")


def test_nothing_goes_on_after_the_answer(make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a call has failed within its budget, no thread of Google's package goes on asking for the bucket."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    before = set(threading.enumerate())
    with pytest.raises(UnavailableError):
        make(retry=Clock().once()).list_names("gs://some-bucket/churn-1")
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("uri", ["s3://bucket/dir", "gs:///dir", "./model", "bucket/dir"])
def test_what_is_not_in_cloud_storage_is_refused(storage: Storage, tmp_path: Path, folder: Path, uri: str) -> None:
    """A URI of something else is refused before anything is asked."""
    for action in (
        lambda: storage.list_names(uri),
        lambda: storage.download(uri, tmp_path / "dest"),
        lambda: storage.upload(scan(folder), uri),
    ):
        with pytest.raises(InvalidArgumentError, match="is not in Cloud Storage"):
            action()


def python(code: str, *arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)


def test_nothing_of_googles_is_imported_before_a_transfer() -> None:
    """Naming the storage module and making a client import neither google-cloud-storage nor requests."""
    run = python(
        "import sys; from vertex_registry.artifacts import Storage; Storage(); "
        "print([name for name in sys.modules if name.startswith(('google.cloud.storage', 'google.auth', 'requests'))])"
    )
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("missing", ["google.cloud.storage", "google_crc32c"])
@pytest.mark.usefixtures("storage_emulator")
def test_a_missing_package_is_said(missing: str, folder: Path, bucket: str) -> None:
    """Without the extra, the error says what to type."""
    run = python(
        f"import sys; sys.modules[{missing!r}] = None; from vertex_registry.artifacts import Storage, scan; "
        "Storage().upload(scan(sys.argv[1]), sys.argv[2])",
        folder,
        f"gs://{bucket}/churn-1",
    )
    assert run.returncode == 1
    assert 'pip install "vertex-registry[storage]"' in run.stderr.splitlines()[-1]


UPLOAD = (
    "import sys; from vertex_registry.artifacts import Storage, scan; "
    "print(Storage().upload(scan(sys.argv[1]), sys.argv[2]))"
)


@pytest.mark.usefixtures("storage_emulator")
def test_a_log_file_gets_no_bar(folder: Path, bucket: str) -> None:
    """Where standard error is no terminal, nothing is drawn."""
    run = python(UPLOAD, folder, f"gs://{bucket}/churn-1")

    assert run.stdout.startswith("gs://")
    assert run.stderr == ""


@pytest.mark.usefixtures("storage_emulator")
@pytest.mark.parametrize("error_output", ["None", "type('Mine', (), {'write': len})()", "closed"])
def test_no_standard_error_gets_no_bar(folder: Path, bucket: str, error_output: str) -> None:
    """Where standard error is none, closed, or does not know of terminals, files are sent all the same."""
    code = UPLOAD.replace(
        "print(", f"closed = open(0, 'w', closefd=False); closed.close(); sys.stderr = {error_output}; print("
    )
    run = python(code, folder, f"gs://{bucket}/churn-1")

    assert run.stdout.startswith("gs://"), run


def test_a_notebook_gets_a_bar(make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's shell is known by the class that it is one of: Colab's has a name of its own."""

    class ZMQInteractiveShell:
        """As ipykernel names it."""

    class Shell(ZMQInteractiveShell):
        """As Colab names it."""

    for shell, shown in ((ZMQInteractiveShell(), True), (Shell(), True), (None, False), (object(), False)):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        with progress_bar("Uploading", 1) as advance:  # a caller sees nothing but the drawing
            assert (getattr(advance, "__name__", "") == "advance") is shown


@pytest.mark.usefixtures("storage_emulator")
def test_a_terminal_gets_a_bar(folder: Path, bucket: str) -> None:
    """On a terminal a bar tells how far it is."""
    drawn = on_a_terminal(lambda drawn: False, folder, f"gs://{bucket}/churn-1")

    assert b"Uploading " in drawn
    assert b"/875k" in drawn
    assert b"Reading " not in drawn  # it takes a moment


@pytest.mark.usefixtures("storage_emulator")
def test_reading_much_gets_a_bar(folder: Path, bucket: str) -> None:
    """Before a large model is sent, it is read, which is no reason to look as if nothing happened."""
    os.truncate(folder / "model.joblib", HUGE)
    drawn = on_a_terminal(lambda drawn: b"Reading " in drawn, folder, f"gs://{bucket}/churn-1")

    assert b"Reading 3 files: " in drawn
    assert b"/1.00T" in drawn


def on_a_terminal(enough: Callable[[bytes], bool], *arguments: object) -> bytes:
    """What an upload draws on a terminal, until it ends or that is enough."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    command = [sys.executable, "-c", UPLOAD, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        last = threading.Timer(30, process.kill)  # where nothing is ever drawn
        last.start()
        drawn = b""
        while (process.poll() is None or not drawn) and not enough(drawn):
            try:
                drawn += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
        process.kill() if enough(drawn) else process.wait()
        last.cancel()
        last.join()
    os.close(ours)
    return drawn


def test_closing_twice_is_fine(storage: Storage) -> None:
    """A client that never connected, or is closed already, closes."""
    storage.close()
    storage.close()


def test_a_local_directory_knows_its_names(folder: Path) -> None:
    """What is to be sent can be looked at before anything is read or sent."""
    local = scan(str(folder))

    assert isinstance(local, LocalDirectory)
    assert local.names == ("assets/größe.txt", "metadata.json", "model.joblib")
    assert local.source == str(folder)
    assert [PurePosixPath(name).name for name in local.names] == [file.path.name for file in local.files]
