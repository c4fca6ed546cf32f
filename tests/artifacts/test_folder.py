"""A bucket that's a folder: what's different from other buckets."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.artifacts.tools import contents, python, write
from vertex_registry.artifacts import Storage, scan
from vertex_registry.artifacts._bucket import GenerationChangedError, Upload
from vertex_registry.artifacts._download import Appended
from vertex_registry.artifacts._folder import FolderBucket
from vertex_registry.artifacts._local import LocalFile
from vertex_registry.errors import ConflictError, InvalidArgumentError, NotFoundError, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vertex_registry.artifacts._bucket import StoredObject

BUCKET = "gs://artifacts.localhost"
UPLOAD = (
    "import sys; from pathlib import Path; from vertex_registry.artifacts import Storage, scan; "
    "print(Storage(folder=Path(sys.argv[2])).upload(scan(sys.argv[1]), 'gs://artifacts.localhost/churn'))"
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return the folder for the artifacts."""
    return tmp_path / "artifacts"


@pytest.fixture
def local(place: Path, tmp_path: Path) -> Storage:
    return Storage(folder=place, cache=tmp_path / "cache")


def test_only_what_is_missing_is_copied(local: Storage, folder: Path, place: Path) -> None:
    """An existing file isn't copied again. A removed or altered one is."""
    directory = place / local.upload(scan(folder), f"{BUCKET}/churn").removeprefix(f"{BUCKET}/")
    before = {name: (directory / name).stat() for name in contents(directory)}
    (directory / "metadata.json").write_bytes(b"[]")
    (directory / "assets" / "größe.txt").unlink()
    local.upload(scan(folder), f"{BUCKET}/churn")

    assert contents(directory) == contents(folder)
    assert (directory / "model.joblib").stat() == before["model.joblib"]
    assert (directory / "metadata.json").stat().st_ino != before["metadata.json"].st_ino


def test_other_bytes_of_the_same_size_and_time_are_replaced(local: Storage, folder: Path, place: Path) -> None:
    """Stored files are compared by their bytes, and not by their dates."""
    directory = place / local.upload(scan(folder), f"{BUCKET}/churn").removeprefix(f"{BUCKET}/")
    path = directory / "metadata.json"
    status = path.stat()
    path.write_bytes(b"[]")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    Storage(folder=place).upload(scan(folder), f"{BUCKET}/churn")

    assert path.read_bytes() == b"{}"


def test_what_somebody_added_is_refused(local: Storage, folder: Path, place: Path) -> None:
    """An extra file under the digest is refused, because it would be served with the model."""
    directory = place / local.upload(scan(folder), f"{BUCKET}/churn").removeprefix(f"{BUCKET}/")
    (directory / "extra.py").write_bytes(b"")
    with pytest.raises(ConflictError, match=r"extra\.py"):
        local.upload(scan(folder), f"{BUCKET}/churn")


@pytest.mark.parametrize("damage", ["changed", "added", "removed", "renamed"])
@pytest.mark.parametrize("cached", [False, True])
def test_what_was_changed_in_the_folder_is_noticed(
    local: Storage, folder: Path, place: Path, tmp_path: Path, damage: str, *, cached: bool
) -> None:
    """A directory whose files don't match the digest in its name isn't downloaded. An upload repairs it."""
    uri = local.upload(scan(folder), f"{BUCKET}/churn")
    directory = place / uri.removeprefix(f"{BUCKET}/")
    destination = None if cached else tmp_path / "dest"
    if damage == "changed":
        (directory / "metadata.json").write_bytes(b"[]")
    elif damage == "added":
        (directory / "extra.py").write_bytes(b"")
    else:
        path = directory / "assets" / "größe.txt"
        path.rename(path.with_name("b.txt")) if damage == "renamed" else path.unlink()
    with pytest.raises(ConflictError, match="doesn't hold the files that were uploaded") as error:
        local.download(uri, destination)

    assert str(place) in str(error.value)
    assert not (tmp_path / "dest").exists()
    if damage in {"changed", "removed"}:
        local.upload(scan(folder), f"{BUCKET}/churn")
        assert contents(local.download(uri, destination)) == contents(folder)


def test_a_file_that_changes_is_detected(local: Storage, folder: Path, place: Path, tmp_path: Path) -> None:
    """A file that changes after it was scanned isn't stored under the digest of its earlier bytes."""
    bucket = FolderBucket("artifacts.localhost", place)
    write(tmp_path / "model", {"metadata.json": b"{} "})
    upload = Upload(LocalFile("metadata.json", folder / "metadata.json", 2), bucket.checksum(b"{}"), "m/x", 0)
    with pytest.raises(ConflictError, match="changed during the upload"):
        bucket.send(upload, never_set(), lambda _: None)

    assert contents(place) == {}
    assert local.list_names(f"{BUCKET}/m") == ()


def never_set() -> threading.Event:
    return threading.Event()


def read(bucket: FolderBucket, stored: StoredObject) -> bytes:
    content = io.BytesIO()
    bucket.copy(stored, range(stored.size), Appended(content, 0, bucket.checksum), never_set())
    return content.getvalue()


def test_a_generation_is_a_condition(folder: Path, place: Path) -> None:
    """An object is only created or replaced if no other client has changed it. No temporary file is left behind."""
    bucket = FolderBucket("artifacts.localhost", place)
    file = LocalFile("metadata.json", folder / "metadata.json", 2)
    upload = Upload(file, bucket.checksum(b"{}"), "m/x", 0)
    stored = bucket.send(upload, never_set(), lambda _: None)
    for generation in (0, stored.generation + 1):
        with pytest.raises(GenerationChangedError):
            bucket.send(Upload(file, upload.crc, "m/x", generation), never_set(), lambda _: None)
    again = bucket.send(Upload(file, upload.crc, "m/x", stored.generation), never_set(), lambda _: None)
    with pytest.raises(GenerationChangedError):
        read(bucket, stored)
    bucket.delete(stored)
    assert read(bucket, again) == b"{}"
    bucket.delete(again)

    assert contents(place) == {}
    with pytest.raises(NotFoundError):
        bucket.stat("m/x")


@pytest.mark.parametrize("name", ["../secret", "m/../../secret", "m/./x", "link/secret", "m\\..\\x", "C:x"])
def test_no_name_leads_out(local: Storage, place: Path, tmp_path: Path, folder: Path, name: str) -> None:
    """A name that could lead out of the folder is refused, whether it's read or written."""
    write(tmp_path / "secret", {"secret": b"secret"})
    place.mkdir(mode=0o700)
    (place / "link").symlink_to(tmp_path / "secret")
    for action in (
        lambda: local.download(f"{BUCKET}/{name}", tmp_path / "dest"),
        lambda: local.list_names(f"{BUCKET}/{name}"),
        lambda: local.upload(scan(folder), f"{BUCKET}/{name}"),
    ):
        with pytest.raises(InvalidArgumentError, match="lead out of the folder"):
            action()

    assert not (tmp_path / "dest").exists()
    assert contents(tmp_path / "secret") == {"secret": b"secret"}


def test_a_link_is_not_an_object(local: Storage, folder: Path, place: Path, tmp_path: Path) -> None:
    """A link that somebody created in the folder isn't followed."""
    uri = local.upload(scan(folder), f"{BUCKET}/churn")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (place / uri.removeprefix(f"{BUCKET}/") / "secret.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(RegistryError, match=r"isn't a regular file.*secret\.txt"):
        local.download(uri, tmp_path / "dest")


def test_it_belongs_to_one_user(local: Storage, folder: Path, place: Path) -> None:
    """No other user can read or write the stored files, whatever the umask is."""
    before = os.umask(0)
    try:
        local.upload(scan(folder), f"{BUCKET}/churn")
    finally:
        os.umask(before)

    assert len(contents(place)) == 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in [place, *place.rglob("*")])


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702])
def test_a_folder_of_others_is_not_used(local: Storage, folder: Path, place: Path, mode: int) -> None:
    """A folder that others can write to is an error that says what to do."""
    uri = local.upload(scan(folder), f"{BUCKET}/churn")
    place.chmod(mode)
    for action in (lambda: local.download(uri), lambda: local.upload(scan(folder), f"{BUCKET}/churn")):
        with pytest.raises(RegistryError, match=r"isn't used: other users can write to it.*chmod go-w.*artifacts="):
            action()


def test_the_folder_may_be_a_link(local: Storage, folder: Path, place: Path, tmp_path: Path) -> None:
    """People link the folder to a larger disk."""
    (tmp_path / "disk").mkdir(mode=0o700)
    place.symlink_to(tmp_path / "disk")
    uri = local.upload(scan(folder), f"{BUCKET}/churn")

    assert contents(local.download(uri, tmp_path / "dest")) == contents(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_folder_of_another_user_is_not_used(local: Storage, folder: Path, place: Path) -> None:
    """A folder that another user owns isn't used."""
    local.upload(scan(folder), f"{BUCKET}/churn")
    os.chown(place, 65534, -1)
    with pytest.raises(RegistryError, match="isn't used: it belongs to another user"):
        local.upload(scan(folder), f"{BUCKET}/churn")


def test_a_full_disk_is_reported(folder: Path, tmp_path: Path) -> None:
    """If the file system refuses a write, the error names the artifact, and no file is left behind."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n{UPLOAD}"
    )
    ended = python(code, folder, tmp_path / "artifacts")

    assert os.strerror(errno.EFBIG) in ended.stderr.splitlines()[-1]
    assert "RegistryError: gs://artifacts.localhost/churn/" in ended.stderr.splitlines()[-1]
    assert not list((tmp_path / "artifacts").glob(".upload-*"))


def test_processes_at_once(folder: Path, place: Path, local: Storage) -> None:
    """Several processes that store the same model at once all succeed, and store it once."""
    processes = [
        subprocess.Popen([sys.executable, "-c", UPLOAD, folder, place], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    uris = {process.communicate(timeout=60)[0].strip() for process in processes}

    assert uris == {local.upload(scan(folder), f"{BUCKET}/churn")}
    assert len(contents(place)) == 3


def test_what_a_killed_process_left_is_removed(folder: Path, place: Path, local: Storage) -> None:
    """A half-written file is never an object. It's removed once its process has ended."""
    code = (
        "import sys; from pathlib import Path; from vertex_registry.artifacts._folder import FolderBucket\n"
        "bucket = FolderBucket('artifacts.localhost', Path(sys.argv[1]))\n"
        "bucket._create_folders(Path(sys.argv[1], 'm'))\n"
        "with bucket._unfinished() as (path, file):\n"
        "    file.write(b'half'); file.flush(); print(path, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        local.upload(scan(folder), f"{BUCKET}/churn")
        assert path.read_bytes() == b"half"
        assert all(not name.startswith(".") for name in local.list_names(BUCKET))
        process.send_signal(signal.SIGKILL)
    (folder / "metadata.json").write_bytes(b"[]")
    local.upload(scan(folder), f"{BUCKET}/churn")

    assert not path.exists()


def test_without_the_folder(make: Callable[..., Storage], tmp_path: Path) -> None:
    """A client without the folder says where the artifact is, and sends no request for it."""
    with pytest.raises(NotFoundError, match=r"artifacts folder of a local registry.*local_registry"):
        make().download(f"{BUCKET}/churn/1", tmp_path / "dest")
