"""Uploads from a folder to a real storage server, with all kinds of faults."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.artifacts.tools import CHUNK, Clock, alter, contents, error, write
from vertex_registry.artifacts import digest, scan
from vertex_registry.errors import (
    AuthenticationError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.storage.server import Proxy, StorageServer, Store
    from vertex_registry.artifacts import Storage

AGENT: Final = "service-PROJECT_NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com"


# --- there and back ---------------------------------------------------------------------------------------------------


def test_what_comes_back_is_what_was_sent(storage: Storage, store: Store, folder: Path, tmp_path: Path) -> None:
    """Every file of a folder comes back with the same bytes, under the same path."""
    write(folder, {"empty": b"", "exactly": b"x" * CHUNK, "one-more": b"x" * (CHUNK + 1), ".hidden/f #?%": b"h"})
    uri = storage.upload(scan(folder), f"gs://{store.bucket}/churn-1")
    fetched = storage.download(uri, tmp_path / "dest")

    assert fetched == tmp_path / "dest"
    assert contents(fetched) == contents(folder)
    assert uri.startswith(f"gs://{store.bucket}/churn-1/")
    assert not list(tmp_path.glob("cache/uploads/*"))


def test_one_file_is_a_folder_of_one_file(storage: Storage, store: Store, folder: Path, tmp_path: Path) -> None:
    """If you name one file, it's uploaded like a folder that contains only this file."""
    uri = storage.upload(scan(folder / "metadata.json"), f"gs://{store.bucket}/churn-1/")
    alone = write(tmp_path / "alone", {"metadata.json": b"{}"})

    assert storage.list_names(uri) == ("metadata.json",)
    assert storage.upload(scan(alone), f"gs://{store.bucket}/churn-1") == uri


def test_the_same_bytes_are_not_sent_twice(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, folder: Path, tmp_path: Path
) -> None:
    """The same content, from another folder and another process, has the same URI, and nothing is uploaded."""
    uri = make().upload(scan(folder), f"gs://{bucket}/churn-1")
    proxy.seen.clear()
    again = make().upload(scan(folder.rename(tmp_path / "other")), f"gs://{bucket}/churn-1")

    assert again == uri
    assert proxy.sent("GET", "/o?")
    assert not proxy.sent("POST")


def test_only_what_is_missing_is_sent(
    make: Callable[..., Storage], proxy: Proxy, storage_server: StorageServer, bucket: str, folder: Path
) -> None:
    """Only a file that was removed or has other bytes is uploaded again."""
    uri = make().upload(scan(folder), f"gs://{bucket}/churn-1")
    prefix = uri.removeprefix(f"gs://{bucket}/")
    storage_server.put(bucket, f"{prefix}/metadata.json", b"[]")
    proxy.seen.clear()
    make().upload(scan(folder), f"gs://{bucket}/churn-1")

    assert len(proxy.sent("POST")) == 1
    assert storage_server.get(bucket, f"{prefix}/metadata.json") == b"{}"


def test_many_may_send_the_same_at_once(make: Callable[..., Storage], store: Store, folder: Path) -> None:
    """Several processes that upload the same model at once all succeed, and store it once."""
    uris: list[str] = []
    threads = [
        threading.Thread(target=lambda: uris.append(make().upload(scan(folder), f"gs://{store.bucket}/churn-1")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(uris) == 4
    assert len(set(uris)) == 1
    assert len(store.names()) == 3


def test_a_directory_is_listed(storage: Storage, store: Store) -> None:
    """A listing has the names at the top of a directory, and none of the directories next to it."""
    for name in ("m/1/model.pkl", "m/1/assets/a", "m/1/", "m/10/model.joblib", "m/1.txt"):
        store.put(name, b"x")

    assert storage.list_names(f"gs://{store.bucket}/m/1") == ("assets/", "model.pkl")
    assert storage.list_names(f"gs://{store.bucket}/m/1/") == ("assets/", "model.pkl")
    assert storage.list_names(f"gs://{store.bucket}/nothing") == ()


# --- the digest -------------------------------------------------------------------------------------------------------


def test_a_name_that_gets_too_long_is_refused(storage: Storage, store: Store, folder: Path) -> None:
    """An object's name has at most 1,024 bytes; if one would be longer, nothing is sent."""
    with pytest.raises(InvalidArgumentError, match="too long"):
        storage.upload(scan(folder), f"gs://{store.bucket}/{'d' * 980}")

    assert store.names() == []


# --- faults on the way up ---------------------------------------------------------------------------------------------


def test_an_upload_survives_cut_connections(
    storage: Storage, proxy: Proxy, clock: Clock, bucket: str, folder: Path, tmp_path: Path
) -> None:
    """An upload whose connections are cut sends the lost chunk again, and is complete in the end."""
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


def test_every_request_has_a_precondition(
    storage: Storage, proxy: Proxy, storage_server: StorageServer, bucket: str, folder: Path
) -> None:
    """A file is created with a precondition and the CRC32C of its bytes."""
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
    """Two files are transferred at once: here each of two requests waits until the other has arrived."""
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
    """If a file is stored but the response is lost, the stored object is compared and counts."""
    proxy.fail("POST", "uploadType=media", cut="answer", times=2)
    proxy.fail("PUT", cut="answer", after=3)
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert contents(storage.download(uri, tmp_path / "dest")) == contents(folder)


PRECONDITION: dict[str, Any] = {
    "status": 412,
    "body": error("At least one of the pre-conditions you specified did not hold."),
}


def test_a_file_that_somebody_else_creates_is_compared(
    storage: Storage, proxy: Proxy, bucket: str, folder: Path, tmp_path: Path
) -> None:
    """After a lost response or a lost race, an identical object counts as uploaded."""
    for request in (("POST", "metadata.json"), ("PUT", "upload_id")):
        proxy.fail(*request, cut="answer", after=0 if request[0] == "POST" else 3)
        proxy.fail(*request, **PRECONDITION)
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert contents(storage.download(uri, tmp_path / "dest")) == contents(folder)
    assert len(proxy.sent("POST", "metadata.json")) == 2


@pytest.mark.parametrize("name", ["metadata.json", "model.joblib"])
def test_other_bytes_under_the_digest_are_replaced(
    make: Callable[..., Storage], proxy: Proxy, storage_server: StorageServer, bucket: str, folder: Path, name: str
) -> None:
    """Other bytes under the digest are replaced; if they come back, that's an error."""
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
            with pytest.raises(UnavailableError, match="was replaced by somebody else during the upload"):
                make().upload(scan(folder / name), f"gs://{bucket}/churn-1")
            assert storage_server.get(bucket, object_name) == b"theirs"


def test_an_interrupted_upload_continues(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, folder: Path, tmp_path: Path
) -> None:
    """If the budget ends in the middle of a file, the next process sends only the rest of it."""
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
    """Two processes that upload the same file have separate sessions."""
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
    """Killing an upload in the middle of a file loses at most the chunk that was being sent."""
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
def test_a_lost_session_starts_over(
    storage: Storage, proxy: Proxy, bucket: str, folder: Path, tmp_path: Path, status: int
) -> None:
    """A session that Cloud Storage has forgotten starts again from the first byte."""
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
def test_an_upload_without_progress_ends(
    storage: Storage,
    proxy: Proxy,
    clock: Clock,
    bucket: str,
    folder: Path,
    fault: dict[str, Any],
    says: str,
    after: int,
) -> None:
    """If chunks are answered but the file makes no progress, the upload ends within the budget."""
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
    """Each confirmed chunk renews the budget."""
    for number in range(3):
        stays: dict[str, Any] = {"status": 308, "headers": {"Range": f"bytes=0-{number * CHUNK - 1}" if number else ""}}
        proxy.fail("PUT", **stays, after=1 if number else 0)
        proxy.fail("PUT", **stays, times=7)
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert clock.now > 60
    assert contents(storage.download(uri, tmp_path / "dest")) == contents(folder)


def test_a_partly_stored_chunk_is_continued(
    storage: Storage, proxy: Proxy, bucket: str, folder: Path, tmp_path: Path
) -> None:
    """If Cloud Storage has stored a part of a chunk, only the rest is sent again."""
    proxy.fail("PUT", status=308, after=1)  # without a Range header: nothing is stored yet
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    ranges = [seen.headers["Content-Range"] for seen in proxy.sent("PUT")]
    assert ranges[:3] == ["bytes 0-262143/896000", "bytes 262144-524287/896000", "bytes 0-262143/896000"]
    assert contents(storage.download(uri, tmp_path / "dest")) == contents(folder)


@pytest.mark.parametrize("request_", [("POST", "uploadType=media"), ("PUT", "upload_id")])
def test_bytes_that_were_altered_are_sent_again(
    storage: Storage, proxy: Proxy, bucket: str, folder: Path, tmp_path: Path, request_: tuple[str, str]
) -> None:
    """Stored bytes are compared, and replaced if they differ."""
    proxy.fail(*request_, alter_request=flipped)
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert contents(storage.download(uri, tmp_path / "dest")) == contents(folder)


def test_bytes_that_are_always_altered_are_an_error(
    storage: Storage, proxy: Proxy, storage_server: StorageServer, bucket: str, folder: Path
) -> None:
    """If every try stores other bytes, the upload fails and removes them."""
    proxy.fail("POST", "uploadType=media", alter_request=flipped, times=2)
    with pytest.raises(UnavailableError, match="was stored with other bytes than were sent"):
        storage.upload(scan(folder / "metadata.json"), f"gs://{bucket}/churn-1")

    assert storage_server.names(bucket) == []
    (removed,) = proxy.sent("DELETE")
    assert "ifGenerationMatch=" in removed.path  # but not what another client has stored there meanwhile


def flipped(body: bytes) -> bytes:
    """Return the body with one byte of the file changed."""
    index = len(body) // 2
    return body[:index] + bytes([body[index] ^ 1]) + body[index + 1 :]


def test_a_missing_bucket_is_reported(storage: Storage, proxy: Proxy, folder: Path, tmp_path: Path) -> None:
    """The error for a missing bucket names it and shows how to create it."""
    for action in (
        lambda: storage.upload(scan(folder), "gs://no-such-bucket/churn-1"),
        lambda: storage.list_names("gs://no-such-bucket/churn-1"),
        lambda: storage.download("gs://no-such-bucket/churn-1", tmp_path / "dest"),
    ):
        with pytest.raises(NotFoundError, match=r"There's no bucket gs://no-such-bucket: .*buckets create"):
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
    """The error names the permission, its role, and who else reads the bucket. The request isn't retried."""
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
    """To replace an object that holds other bytes, the credentials need the permission to delete."""
    uri = make().upload(scan(folder), f"gs://{bucket}/churn-1")
    storage_server.put(bucket, f"{uri.removeprefix(f'gs://{bucket}/')}/metadata.json", b"[]")
    proxy.fail("POST", status=403, body=error("No."))
    with pytest.raises(PermissionDeniedError, match=r"storage\.objects\.delete .*roles/storage\.objectUser"):
        make().upload(scan(folder), f"gs://{bucket}/churn-1")


def test_refused_credentials_are_reported(storage: Storage, proxy: Proxy, bucket: str) -> None:
    """Credentials that Cloud Storage doesn't accept aren't reported as a missing permission."""
    proxy.fail("GET", "/o?", status=401, body=error("Invalid Credentials"))
    with pytest.raises(
        AuthenticationError, match=r"didn't accept the credentials: .*gcloud auth application-default login"
    ):
        storage.list_names(f"gs://{bucket}/churn-1")


@pytest.mark.parametrize("request_", [("GET", "/o?"), ("POST", "uploadType=media"), ("POST", "resumable"), ("PUT", "")])
def test_temporary_errors_are_retried(
    storage: Storage, proxy: Proxy, clock: Clock, bucket: str, folder: Path, request_: tuple[str, str]
) -> None:
    """Temporary errors are retried after the delay that the server requests."""
    proxy.fail(*request_, status=503, headers={"Retry-After": "7"}, body=b"<html>Service Unavailable</html>")
    proxy.fail(*request_, status=429, body=error("Slow down."))
    storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert 7.0 in clock.slept


def test_the_budget_ends(storage: Storage, proxy: Proxy, clock: Clock, bucket: str) -> None:
    """Without a usable response, the upload ends within its budget, and the error has the last failure."""
    proxy.fail("GET", "/o?", status=500, body=error("We encountered an internal error."), times=12)
    with pytest.raises(UnavailableError, match="We encountered an internal error"):
        storage.list_names(f"gs://{bucket}/churn-1")
    spent, tries = clock.now, len(proxy.sent("GET", "/o?"))
    proxy.faults.clear()

    assert 50 < spent <= 60
    assert tries == 11
    assert isinstance(UnavailableError("x"), ConnectionError)


def test_a_missing_server_is_reported(
    storage: Storage, clock: Clock, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """If the emulator isn't running, the error names its address, within the budget."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match=r"(?i)refused.* Is a storage emulator running at http://127\.0\.0\.1:9"):
        storage.upload(scan(folder), "gs://some-bucket/churn-1")

    assert clock.now <= 60


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 200_000 if path.stat().st_size > 200_000 else 1)


@pytest.mark.parametrize("change", [grow, shrink, alter])
@pytest.mark.parametrize(("name", "when"), [("metadata.json", ("GET", "/o?")), ("model.joblib", ("PUT", "upload_id"))])
def test_a_file_that_changes_is_detected(
    storage: Storage,
    proxy: Proxy,
    storage_server: StorageServer,
    bucket: str,
    folder: Path,
    change: Callable[[Path], None],
    name: str,
    when: tuple[str, str],
) -> None:
    """A file that changes during its upload is an error, and never becomes an object."""
    proxy.fail(*when, first=lambda: change(folder / name))
    with pytest.raises(ConflictError, match=f"{name} changed during the upload"):
        storage.upload(scan(folder / name), f"gs://{bucket}/churn-1")

    assert storage_server.names(bucket) == []
    # The session is deleted. Otherwise it would be valid for a week, for anyone who has its address.
    assert len(proxy.sent("DELETE", "upload_id")) == len(proxy.sent("POST", "resumable"))


@pytest.mark.parametrize("name", ["metadata.json", "model.joblib"])
def test_a_removed_file_is_detected(storage: Storage, proxy: Proxy, bucket: str, folder: Path, name: str) -> None:
    """A file that's removed after its checksum was computed counts as changed, too."""
    proxy.fail("GET", "/o?", first=(folder / name).unlink)
    with pytest.raises(ConflictError, match=f"{name} changed during the upload"):
        storage.upload(scan(folder / name), f"gs://{bucket}/churn-1")


def test_a_foreign_file_is_detected(
    make: Callable[..., Storage], proxy: Proxy, storage_server: StorageServer, bucket: str, folder: Path
) -> None:
    """If a foreign file is next to the model, the error names it and nothing is registered."""
    name = f"churn-1/{digest((f.name, hashlib.sha256(f.path.read_bytes()).digest()) for f in scan(folder).files)}/m.pkl"
    proxy.fail("POST", "metadata.json", first=lambda: storage_server.put(bucket, name, b"theirs"))
    for _ in ("meanwhile", "before"):
        with pytest.raises(ConflictError, match=r"holds 'm\.pkl', which.* so nothing was registered") as caught:
            make().upload(scan(folder), f"gs://{bucket}/churn-1")
        assert caught.value.resource == f"gs://{bucket}/{name}"

    storage_server.call("DELETE", f"/storage/v1/b/{bucket}/o/{name.replace('/', '%2F')}")
    storage_server.put(bucket, f"{Path(name).parent}/", b"")  # as consoles mark a directory
    make().upload(scan(folder), f"gs://{bucket}/churn-1")


def test_a_file_that_changed_before_the_upload_is_detected(
    storage: Storage, proxy: Proxy, bucket: str, folder: Path
) -> None:
    """A file that has grown since the folder was scanned is an error before anything is sent."""
    local = scan(folder)
    grow(folder / "metadata.json")
    with pytest.raises(ConflictError, match=r"metadata\.json changed"):
        storage.upload(local, f"gs://{bucket}/churn-1")
    (folder / "metadata.json").unlink()
    with pytest.raises(InvalidArgumentError, match=r"metadata\.json' can't be read"):
        storage.upload(local, f"gs://{bucket}/churn-1")

    assert not proxy.seen


ODD = [b"{}", b"[]", b"null", b'"text"', b'{"size": "x", "generation": "1"}', b"<html>Log in</html>"]


@pytest.mark.parametrize("body", ODD)
@pytest.mark.parametrize("name", ["metadata.json", "model.joblib"])
def test_a_malformed_response_is_refused(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, folder: Path, name: str, body: bytes
) -> None:
    """A response in another form isn't taken for one of Cloud Storage."""
    proxy.fail("POST" if name == "metadata.json" else "PUT", status=200, body=body)
    with pytest.raises(UnavailableError, match="the response isn't one that Cloud Storage sends"):
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
def test_a_malformed_listing_is_refused(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, tmp_path: Path, body: bytes
) -> None:
    """A malformed listing isn't a usable response, either."""
    proxy.fail("GET", "/o?", status=200, body=body, headers={"Content-Type": "application/json"})
    with pytest.raises(UnavailableError, match="the response isn't one that Cloud Storage sends"):
        make(retry=Clock().once()).download(f"gs://{bucket}/m", tmp_path / "dest")


def test_an_impossible_confirmation_is_ignored(storage: Storage, proxy: Proxy, bucket: str, folder: Path) -> None:
    """A response that confirms more bytes than the file has is ignored, and the chunk is sent once more."""
    proxy.fail("PUT", status=308, headers={"Range": "bytes=0-9999999"})
    storage.upload(scan(folder), f"gs://{bucket}/churn-1")

    assert len(proxy.sent("PUT")) == 5


def test_the_address_of_a_session_is_in_no_error(storage: Storage, proxy: Proxy, bucket: str, folder: Path) -> None:
    """No error shows a session's address, because anybody who has it can write to it."""
    proxy.fail("PUT", first=proxy.stop_listening, cut="request")
    with pytest.raises(UnavailableError, match="refused") as caught:
        storage.upload(scan(folder / "model.joblib"), f"gs://{bucket}/churn-1")

    assert proxy.sent("PUT", "upload_id=")
    assert "upload_id" not in "".join(traceback.format_exception(caught.value))
