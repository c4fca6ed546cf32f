"""Downloads from a real storage server to a folder, with all kinds of faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.artifacts.tools import contents, error, write
from vertex_registry.artifacts._checksums import Joined, crc32c
from vertex_registry.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RegistryError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.storage.server import Proxy
    from vertex_registry.artifacts import Storage


def left_behind(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if path.name not in {"model", "cache"})


@pytest.mark.parametrize("cut", ["middle", "answer"])
def test_an_interrupted_download_continues(
    storage: Storage, proxy: Proxy, stored: str, folder: Path, tmp_path: Path, cut: str
) -> None:
    """A download whose connections are cut requests the lost piece again, and is complete in the end."""
    proxy.fail("GET", "alt=media", cut=cut, times=3)
    fetched = storage.download(stored, tmp_path / "dest")

    assert contents(fetched) == contents(folder)
    assert len(proxy.sent("GET", "alt=media")) == 6 + 3


@pytest.mark.parametrize("cached", [True, False])
def test_a_small_file_that_is_cut_off_is_started_over(
    storage: Storage, proxy: Proxy, stored: str, folder: Path, tmp_path: Path, cached: bool
) -> None:
    """Bytes that came before a connection broke aren't part of the file, nor of the checksum that the cache keeps."""
    proxy.fail("GET", "metadata.json?alt=media", cut="middle", times=2)
    found = storage.download(stored, None if cached else tmp_path / "copy")
    assert contents(found) == contents(folder)
    if cached:
        proxy.seen.clear()
        assert storage.download(stored) == found
        assert not proxy.sent("GET", "alt=media")


def test_altered_bytes_are_downloaded_again(
    storage: Storage, proxy: Proxy, stored: str, folder: Path, tmp_path: Path
) -> None:
    """Bytes that were altered on the way are detected and downloaded again."""
    proxy.fail("GET", "metadata.json", alter=lambda _: b"[]")
    assert contents(storage.download(stored, tmp_path / "dest")) == contents(folder)


@pytest.mark.parametrize("cached", [True, False])
def test_a_part_of_a_large_file_that_is_altered_is_noticed(
    storage: Storage, proxy: Proxy, stored: str, folder: Path, tmp_path: Path, cached: bool
) -> None:
    """The parts of a large file arrive in any order. If one is altered, the whole file is downloaded once more."""
    proxy.fail("GET", "model.joblib", alter=lambda body: body[::-1], after=2)
    found = storage.download(stored, None if cached else tmp_path / "copy")
    assert (found / "model.joblib").read_bytes() == (folder / "model.joblib").read_bytes()
    assert len(proxy.sent("GET", "model.joblib?alt=media")) == 8
    assert storage.download(stored) == storage.download(stored)


@pytest.mark.parametrize("crc", [crc32c, zlib.crc32])
@given(parts=st.lists(st.binary(max_size=40), max_size=6))
def test_the_checksum_of_parts_is_that_of_the_whole(crc: Callable[[bytes, int], int], parts: list[bytes]) -> None:
    """The checksum of a file follows from those of its parts, for either kind of bucket."""
    assert Joined(crc).join((crc(part, 0), len(part)) for part in parts) == crc(b"".join(parts), 0)


def test_bytes_that_are_always_altered_on_the_way_are_an_error(
    storage: Storage, proxy: Proxy, stored: str, tmp_path: Path
) -> None:
    """If every attempt delivers other bytes, the download fails and leaves no folder."""
    proxy.fail("GET", "metadata.json", alter=lambda _: b"[]", times=2)
    with pytest.raises(UnavailableError, match=r"metadata\.json .*checksum .*nothing was kept"):
        storage.download(stored, tmp_path / "deep" / "er" / "dest")

    assert left_behind(tmp_path) == []


def test_a_file_that_is_replaced_during_a_download_is_detected(
    storage: Storage, proxy: Proxy, stored: str, tmp_path: Path
) -> None:
    """A folder never mixes two states of a directory."""
    proxy.fail("GET", "model.joblib", status=412, body=error("At least one of the pre-conditions did not hold."))
    with pytest.raises(ConflictError, match=r"model\.joblib was replaced during the download"):
        storage.download(stored, tmp_path / "dest")

    assert left_behind(tmp_path) == []
    assert all("ifGenerationMatch" in seen.path for seen in proxy.sent("GET", "alt=media"))


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (403, PermissionDeniedError, r"storage\.objects\.get .*roles/storage\.objectViewer"),
        (404, NotFoundError, "doesn't exist any more"),
        (418, InvalidArgumentError, "refused"),
    ],
)
def test_a_failed_download_leaves_no_files(
    storage: Storage, proxy: Proxy, stored: str, tmp_path: Path, status: int, kind: type[Exception], says: str
) -> None:
    """If one file can't be read, the error says why, and no other file is left behind."""
    proxy.fail("GET", "model.joblib", status=status, body=error("No."))
    with pytest.raises(kind, match=says):
        storage.download(stored, tmp_path / "dest")

    assert left_behind(tmp_path) == []


def test_an_empty_directory_is_not_found(storage: Storage, proxy: Proxy, bucket: str, tmp_path: Path) -> None:
    """A directory without objects doesn't exist."""
    with pytest.raises(NotFoundError, match="There are no files in gs://"):
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
    """A name that would lead out of the folder is refused before anything is downloaded."""
    proxy.fail("GET", "/o?", alter=lambda body: body.replace(b'/metadata.json"', json.dumps(f"/{name}")[1:].encode()))
    with pytest.raises(InvalidArgumentError, match="would be written outside the folder"):
        storage.download(stored, tmp_path / "dest")

    assert left_behind(tmp_path) == []
    assert not proxy.sent("GET", "alt=media")


def test_a_name_that_is_both_file_and_folder_is_refused(
    storage: Storage, proxy: Proxy, stored: str, tmp_path: Path
) -> None:
    """Cloud Storage can contain both "a" and "a/b", but a file system can't."""
    proxy.fail("GET", "/o?", alter=lambda body: body.replace(b'/metadata.json"', b'/assets"'))
    with pytest.raises(InvalidArgumentError, match=r"holds both assets and assets/größe\.txt"):
        storage.download(stored, tmp_path / "dest")

    assert left_behind(tmp_path) == []


def test_an_existing_folder_is_not_touched(storage: Storage, proxy: Proxy, stored: str, tmp_path: Path) -> None:
    """A folder that isn't empty stays as it is."""
    write(tmp_path / "dest", {"mine.txt": b"mine"})
    with pytest.raises(AlreadyExistsError, match="exists and isn't an empty folder"):
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
    uploaded: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: Callable[[Path, pytest.MonkeyPatch], Path],
) -> None:
    """An empty folder is filled in place, so links, mounts and working directories keep working."""
    (tmp_path / "dest").mkdir(mode=0o700)
    before = (tmp_path / "dest").stat()
    storage.download(uploaded, named(tmp_path / "dest", monkeypatch))
    after = (tmp_path / "dest").stat()

    assert contents(tmp_path / "dest") == contents(folder)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert set(left_behind(tmp_path)) <= {"dest", "link"}
    assert sorted(os.listdir(tmp_path / "dest")) == sorted(os.listdir(folder))  # noqa: PTH208  # hidden ones, too


def test_an_empty_folder_stays_empty(storage: Storage, proxy: Proxy, stored: str, tmp_path: Path) -> None:
    """If the download fails or another process is faster, an empty folder gets no files."""
    (tmp_path / "dest").mkdir()
    proxy.fail("GET", "model.joblib", status=404, body=error("No."))
    with pytest.raises(NotFoundError):
        storage.download(stored, tmp_path / "dest")
    assert list((tmp_path / "dest").iterdir()) == []

    proxy.fail("GET", "metadata.json", first=lambda: write(tmp_path / "dest", {"mine.txt": b"mine"}))
    with pytest.raises(AlreadyExistsError, match="Somebody else wrote to"):
        storage.download(stored, tmp_path / "dest")
    assert contents(tmp_path / "dest") == {"mine.txt": b"mine"}


def test_an_invalid_destination_is_refused(storage: Storage, uploaded: str) -> None:
    """The home of an unknown user, or a value that isn't a path, is refused."""
    with pytest.raises(InvalidArgumentError, match="isn't a path"):
        storage.download(uploaded, "~nosuchuser/x")
    with pytest.raises(InvalidArgumentError, match="'' isn't a path. For the current folder, pass '.'"):
        storage.download(uploaded, "")
    with pytest.raises(InvalidArgumentError, match="5 isn't a path"):
        storage.download(uploaded, 5)  # type: ignore[arg-type]  # nothing checks the types of most callers


def test_a_folder_that_appears_during_a_download_is_not_touched(
    storage: Storage, proxy: Proxy, stored: str, tmp_path: Path
) -> None:
    """A folder that another process creates during the download stays as it is."""
    proxy.fail("GET", "metadata.json", first=lambda: write(tmp_path / "dest", {"mine.txt": b"mine"}))
    with pytest.raises(AlreadyExistsError, match="Somebody else created"):
        storage.download(stored, tmp_path / "dest")

    assert contents(tmp_path / "dest") == {"mine.txt": b"mine"}
    assert left_behind(tmp_path) == ["dest"]


def test_too_little_space_is_reported_first(storage: Storage, proxy: Proxy, stored: str, tmp_path: Path) -> None:
    """If the files can't fit on the disk, nothing is downloaded."""
    proxy.fail("GET", "/o?", alter=lambda body: body.replace(b'"size":"2"', b'"size":"9000000000000000000"'))
    with pytest.raises(RegistryError, match="are free in"):
        storage.download(stored, tmp_path / "deep" / "dest")

    assert left_behind(tmp_path) == []
    assert not proxy.sent("GET", "alt=media")


def test_a_full_disk_leaves_nothing(proxy: Proxy, stored: str, tmp_path: Path) -> None:
    """A disk that gets full during the download leaves no folder and no part of one.

    The process may only write files of up to 300,000 bytes, and the model has one of 896,000.
    """
    code = (
        "import resource, sys; from vertex_registry.artifacts import Storage; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); Storage().download(*sys.argv[1:])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, stored, tmp_path / "dest"], capture_output=True, text=True, check=False
    )

    assert run.returncode == 1
    assert f"RegistryError: {stored} wasn't downloaded: the disk is full" in run.stderr
    assert left_behind(tmp_path) == []
    assert proxy.sent("GET", "alt=media")


def test_an_unwritable_folder_is_reported(storage: Storage, proxy: Proxy, stored: str, folder: Path) -> None:
    """If the file system refuses the folder, you get one of this package's errors."""
    with pytest.raises(RegistryError, match="wasn't downloaded: file exists"):
        storage.download(stored, folder / "metadata.json" / "dest")

    assert not proxy.sent("GET", "alt=media")
