"""Download a directory: the folder appears when it's whole.

Until then its files are in a hidden folder beside it. Each is read from the one generation that was listed, and its
checksum is compared with the one that was listed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gzip
import hashlib
import io
import os
import re
import shutil
import tempfile
import threading
import unicodedata
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, Self

from vertex_registry._quoting import shorten
from vertex_registry.artifacts._bucket import GenerationChangedError
from vertex_registry.artifacts._cache import SET_CACHE, entry_name, record_of, remove, write_record
from vertex_registry.artifacts._checksums import BLOCK, Joined, sha256_of, to_base64
from vertex_registry.artifacts._local import digest
from vertex_registry.artifacts._names import safe_path
from vertex_registry.artifacts._parallel import StoppedError, run_in_parallel
from vertex_registry.artifacts._progress import count_files, progress_bar
from vertex_registry.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    RegistryError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import PurePosixPath

    from vertex_registry.artifacts._bucket import Bucket, StoredObject
    from vertex_registry.artifacts._cache import Cache

_DIGEST: Final = re.compile(r"[0-9a-f]{40}")
_GZIP: Final = ("gzip", "x-gzip")
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Downloader:
    """Downloads directories of a bucket.

    Args:
        bucket: The bucket.
        chunk: The most bytes of one request.
        workers: How many files to download at once.
        progress: Whether to draw a bar. Defaults to drawing it where somebody sees it.
    """

    def __init__(self, bucket: Bucket, *, chunk: int, workers: int, progress: bool | None) -> None:
        self._bucket = bucket
        self._chunk = chunk
        self._workers = workers
        self._progress = progress

    def list_files(self, directory: str, uri: str) -> dict[PurePosixPath, StoredObject]:
        """Return the objects of a directory by the paths of the files that they become.

        Raises:
            NotFoundError: There is nothing in it.
            InvalidArgumentError: An object can't become a file.
        """
        prefix = f"{directory}/" if directory else ""
        objects = {}
        for stored in self._bucket.list_objects(prefix):
            name = stored.name.removeprefix(prefix)
            if name and not name.endswith("/"):  # consoles mark an empty directory by an object of its name
                objects[safe_path(name, uri)] = stored
        if not objects:
            raise NotFoundError(f"There are no files in {uri}. Check the name of the directory.", resource=uri)
        for path, stored in objects.items():
            if stored.encoding not in {"", *_GZIP}:
                raise InvalidArgumentError(
                    f"{path} in {uri} is stored with 'Content-Encoding: {shorten(stored.encoding)}', and only gzip can "
                    "be decoded, so nothing was downloaded. Upload the file without an encoding.",
                    resource=uri,
                )
            if (parent := next((parent for parent in path.parents if parent in objects), None)) is not None:
                raise InvalidArgumentError(
                    f"{uri} holds both {parent} and {path}, which can't be in one folder. Rename one of them.",
                    resource=uri,
                )
        return objects

    def read_file(self, name: str, most: int) -> bytes:
        """Return the content of one object, after comparing its checksum.

        Raises:
            InvalidArgumentError: It has more bytes than that.
        """
        stored = self._bucket.stat(name)
        uri = self._bucket.uri(name)
        if stored.size > most or stored.encoding:
            raise InvalidArgumentError(
                f"{uri} isn't the file that was uploaded: it has {stored.size:,} bytes"
                f"{f', encoded in {stored.encoding}' if stored.encoding else ''}.",
                resource=uri,
            )
        for _ in range(2):
            received = io.BytesIO()
            crc = self._fetch_into(received, stored, threading.Event(), lambda _: None)
            if to_base64(crc) == stored.crc:
                return received.getvalue()
        raise _altered_error(uri, to_base64(crc), stored.crc)

    def download_to(self, uri: str, objects: Mapping[PurePosixPath, StoredObject], folder: Path) -> Path:
        """Download objects into a folder that is new or empty, and return its absolute path."""
        with _explain(uri, "Name a destination that you can write to."):
            return self._download(uri, objects, folder.absolute(), None)

    def download_to_cache(self, uri: str, objects: Mapping[PurePosixPath, StoredObject], cache: Cache) -> Path:
        """Return the folder of the cache with the objects, which are downloaded if it isn't whole."""
        with _explain(uri, f"Name a destination that you can write to, or {SET_CACHE}"):
            kept = cache.models() / entry_name(uri, self._bucket.server, objects)
            if os.path.lexists(kept):
                if cache.is_whole(kept, objects):
                    return kept
                remove(kept)
            with contextlib.suppress(AlreadyExistsError):  # another process was faster, with the same files
                self._download(uri, objects, kept, record_of(kept))
            return kept

    def _download(
        self, uri: str, objects: Mapping[PurePosixPath, StoredObject], folder: Path, record: Path | None
    ) -> Path:
        """Download objects into a folder; with a record, into one that only this user can read."""
        if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
            raise AlreadyExistsError(
                f"{folder} exists and isn't an empty folder. Choose a new or an empty one.",
                resource=str(folder),
            )
        size = sum(stored.size for stored in objects.values())
        promised = self._promised_digest(uri)
        created = [parent for parent in folder.parents if not parent.exists()]
        # An existing folder may be mounted, linked to or somebody's current one: it's filled, and not replaced.
        filled = folder.is_dir()
        around = folder if filled else folder.parent
        private = record is not None
        try:
            around.mkdir(parents=True, exist_ok=True)
            _check_room(around, size, uri)
            with tempfile.TemporaryDirectory(prefix=f".{folder.name[:100]}.", dir=around) as hidden:
                whole = Path(hidden) / "whole"
                whole.mkdir(mode=0o700 if private else 0o777)
                with progress_bar(f"Downloading {count_files(objects)}", size, shown=self._progress) as advance:
                    hashed = private or promised is not None
                    digests = self._fetch_all(objects, whole, advance, private=private, hashed=hashed)
                if promised is not None:
                    self._check_digest(promised, _digest_of(digests, digests.values()), uri)
                if record is not None:
                    write_record(Path(hidden) / "record", digests)
                    (Path(hidden) / "record").replace(record)
                (move_into if filled else publish_directory)(whole, folder)
        except BaseException:
            for parent in created:
                with contextlib.suppress(OSError):  # somebody else's files are in it
                    parent.rmdir()
            raise
        return folder

    def _fetch_all(
        self,
        objects: Mapping[PurePosixPath, StoredObject],
        whole: Path,
        advance: Callable[[int], None],
        *,
        private: bool,
        hashed: bool,
    ) -> dict[str, tuple[int, str]]:
        """Download all files, and return their sizes and, if they're hashed, their SHA-256, by their names.

        Each file is a piece of work, the largest first. The parts of a large one are a piece of work each, so all
        workers can share it.
        """
        work: list[tuple[PurePosixPath, Callable[[threading.Event], tuple[int, str] | None]]] = []
        for folder in {whole / path.parent for path in objects}:
            folder.mkdir(parents=True, exist_ok=True)
        for path, stored in sorted(objects.items(), key=lambda item: -item[1].size):
            fetch = functools.partial(
                self._fetch, stored, whole / path, advance=advance, private=private, hashed=hashed
            )
            if stored.size <= self._chunk or stored.encoding:
                work.append((path, fetch))
                continue
            file = _FileInParts(whole / path, stored, self._bucket, private=private, hashed=hashed)
            file.again = functools.partial(fetch, replaces=True)
            for start in range(0, stored.size, self._chunk):
                part = range(start, min(start + self._chunk, stored.size))
                work.append((path, functools.partial(self._fetch_part, file, part, advance=advance)))
        results = run_in_parallel(work, lambda item, stopped: item[1](stopped), self._workers)
        return {str(path): digest for (path, _), digest in zip(work, results, strict=True) if digest is not None}

    def _fetch_part(
        self, file: _FileInParts, part: range, stopped: threading.Event, advance: Callable[[int], None]
    ) -> tuple[int, str] | None:
        """Download a part of a file. The last one returns what `_fetch` returns."""
        with file.part(part) as sink, self._noticing_change(file.stored, stopped):
            self._bucket.copy(file.stored, part, sink, stopped)
        advance(len(part))
        if not file.is_whole(sink):
            return None
        if file.is_right():
            return file.stored.size, file.sha256(stopped)
        advance(-file.stored.size)
        return file.again(stopped)

    def _promised_digest(self, uri: str) -> str | None:
        """Return the digest of what was uploaded to a directory, if its name is one that has to be true."""
        last = uri.rstrip("/").rpartition("/")[2]
        return last if self._bucket.holds_only_uploads and _DIGEST.fullmatch(last) else None

    def _check_digest(self, promised: str, found: str, uri: str) -> None:
        if found != promised:
            raise ConflictError(
                f"{uri} doesn't hold the files that were uploaded: somebody has changed, added or removed one. Nothing "
                f"was kept. The files are in {self._bucket.server}; upload the model again to restore them.",
                resource=uri,
            )

    def _fetch(
        self,
        stored: StoredObject,
        path: Path,
        stopped: threading.Event,
        advance: Callable[[int], None],
        *,
        private: bool,
        hashed: bool,
        replaces: bool = False,
    ) -> tuple[int, str]:
        """Download one file, and return its size and, if it's hashed, its SHA-256.

        If other bytes arrive than were stored, it's downloaded once more, unless this is that second time.
        """
        uri = self._bucket.uri(stored.name)
        encoded = stored.encoding in _GZIP
        for last in (True,) if replaces else (False, True):
            with contextlib.ExitStack() as opened:
                file = opened.enter_context(_NewFile(path, replace=last, private=private, hashed=hashed))
                received = opened.enter_context(tempfile.TemporaryFile(dir=path.parent)) if encoded else file
                crc = self._fetch_into(received, stored, stopped, advance)
                if to_base64(crc) == stored.crc:
                    if encoded:
                        _decode(received, file, uri, stopped)
                    return file.size, file.sha256
            advance(-stored.size)
        raise _altered_error(uri, to_base64(crc), stored.crc)

    def _fetch_into(
        self,
        file: _Writable,
        stored: StoredObject,
        stopped: threading.Event,
        advance: Callable[[int], None],
    ) -> int:
        """Write the stored bytes of an object, and return their checksum."""
        crc = 0
        for start in range(0, stored.size, self._chunk):
            part = range(start, min(start + self._chunk, stored.size))
            sink = Appended(file, crc, self._bucket.checksum)
            with self._noticing_change(stored, stopped):
                self._bucket.copy(stored, part, sink, stopped)
            crc = sink.crc
            advance(len(part))
        return crc

    @contextlib.contextmanager
    def _noticing_change(self, stored: StoredObject, stopped: threading.Event) -> Iterator[None]:
        """Read an object, unless nobody needs it any more."""
        if stopped.is_set():
            raise StoppedError
        try:
            yield
        except GenerationChangedError as error:
            uri = self._bucket.uri(stored.name)
            raise ConflictError(f"{uri} was replaced during the download. Try again.", resource=uri) from error


class _Part:
    """A part of a file that is downloaded, and its checksum."""

    def __init__(self, file: IO[bytes], part: range, checksum: Callable[[bytes, int], int]) -> None:
        self.range = part
        self.crc = 0
        self._file = file
        self._checksum = checksum

    def start(self) -> None:
        """Start over."""
        self._file.seek(self.range.start)
        self.crc = 0

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        self._file.write(data)
        self.crc = self._checksum(data, self.crc)


class _Writable(Protocol):
    """A file, or what can be used as one."""

    def write(self, data: bytes, /) -> object:
        """Write the next bytes."""

    def tell(self) -> int:
        """Return the position of the next bytes."""

    def seek(self, position: int, /) -> object:
        """Write the next bytes at the position that `tell` returned last."""


class Appended:
    """Bytes that are appended to a file, and the checksum of the file with them.

    Args:
        file: The file.
        before: The checksum of what is in it.
        checksum: The bucket's own checksum.
    """

    def __init__(self, file: _Writable, before: int, checksum: Callable[[bytes, int], int]) -> None:
        self.crc = before
        self._file = file
        self._before = before
        self._start = file.tell()
        self._checksum = checksum

    def start(self) -> None:
        """Start over."""
        self._file.seek(self._start)
        self.crc = self._before

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        self._file.write(data)
        self.crc = self._checksum(data, self.crc)


class _FileInParts:
    """A file whose parts arrive in any order.

    Attributes:
        stored: The object that it's downloaded from.
        again: Downloads the whole file once more.
    """

    again: Callable[[threading.Event], tuple[int, str]]

    def __init__(self, path: Path, stored: StoredObject, bucket: Bucket, *, private: bool, hashed: bool) -> None:
        self.stored = stored
        self._path = path
        self._checksum = bucket.checksum
        self._hashed = hashed
        self._lock = threading.Lock()
        self._parts: dict[int, tuple[int, int]] = {}
        self._left = stored.size
        with _NewFile(path, replace=False, private=private, hashed=False) as file:
            file.reserve(stored.size)

    @contextlib.contextmanager
    def part(self, part: range) -> Iterator[_Part]:
        """Open the file for a part."""
        with self._path.open("r+b") as file:
            yield _Part(file, part, self._checksum)

    def is_whole(self, part: _Part) -> bool:
        """Take note of a part that was written, and return whether it was the last one that was missing."""
        with self._lock:
            self._parts[part.range.start] = part.crc, len(part.range)
            self._left -= len(part.range)
            return not self._left

    def is_right(self) -> bool:
        """Return whether the parts have the checksum that is stored."""
        crc = Joined(self._checksum).join(part for _, part in sorted(self._parts.items()))
        return to_base64(crc) == self.stored.crc

    def sha256(self, stopped: threading.Event) -> str:
        """Return the SHA-256 of a hashed file."""
        if not self._hashed:
            return ""
        with self._path.open("rb") as file:
            return sha256_of(file, stopped)


def _altered_error(uri: str, arrived: str, stored: str) -> UnavailableError:
    return UnavailableError(
        f"{uri} arrived twice with the checksum {arrived} instead of {stored}, so nothing was kept. "
        "Something between Cloud Storage and this machine alters it, such as a proxy.",
        resource=uri,
    )


class _NewFile:
    """A file that is downloaded. Only this user can read a private one; a hashed one has a SHA-256."""

    def __init__(self, path: Path, *, replace: bool, private: bool, hashed: bool) -> None:
        def create(name: str, flags: int) -> int:
            return os.open(name, flags, 0o600 if private else 0o666)

        self._file = open(path, "wb" if replace else "xb", opener=create)  # noqa: SIM115  # closed by __exit__
        self._sum = hashlib.sha256() if hashed else None
        self._told = self._sum
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def sha256(self) -> str:
        return "" if self._sum is None else self._sum.hexdigest()

    def reserve(self, size: int) -> None:
        """Let the file have so many bytes, which are written later."""
        self._file.truncate(size)

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)
        if self._sum is not None:
            self._sum.update(data)

    def tell(self) -> int:
        """Return the position of the next bytes."""
        self._told = None if self._sum is None else self._sum.copy()
        return self.size

    def seek(self, position: int) -> None:
        """Write the next bytes at the position that `tell` returned last."""
        self._file.seek(position)
        self.size = position
        self._sum = None if self._told is None else self._told.copy()


def _digest_of(names: Iterable[str], sums: Iterable[tuple[int, str]]) -> str:
    """Return the digest of downloaded files, as it was computed for their upload."""
    composed = (unicodedata.normalize("NFC", name) for name in names)  # a file system may decompose names
    return digest((name, bytes.fromhex(sha256)) for name, (_, sha256) in zip(composed, sums, strict=True))


def _decode(received: Any, file: _NewFile, uri: str, stopped: threading.Event) -> None:
    """Write what an object that is stored in gzip's encoding holds."""
    received.seek(0)
    with gzip.GzipFile(fileobj=received) as stream:
        while True:
            try:
                data = stream.read(BLOCK)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise RegistryError(
                    f"{uri} is stored with 'Content-Encoding: gzip', but isn't a gzip stream, so nothing was kept. "
                    f"Upload it again, or run `gcloud storage objects update {uri} --clear-content-encoding`.",
                    resource=uri,
                ) from error
            if not data:
                return
            if stopped.is_set():
                raise StoppedError
            file.write(data)


def publish_directory(whole: Path, folder: Path) -> None:
    """Give a folder the name of one that doesn't exist."""
    try:
        whole.rename(folder)
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
            raise
        raise AlreadyExistsError(
            f"Somebody else created {folder} during the download. Choose another one.", resource=str(folder)
        ) from error


def move_into(whole: Path, folder: Path) -> None:
    """Move what is in a folder below an empty one into that one, all of it or nothing."""
    if {path.name for path in folder.iterdir()} != {whole.parent.name}:
        raise AlreadyExistsError(
            f"Somebody else wrote to {folder} during the download. Choose another one.", resource=str(folder)
        )
    moved: list[Path] = []
    try:
        for path in sorted(whole.iterdir()):
            path.rename(folder / path.name)
            moved.append(path)
    except BaseException:
        for path in moved:
            (folder / path.name).rename(path)
        raise


def _check_room(folder: Path, size: int, uri: str) -> None:
    if (free := shutil.disk_usage(folder).free) < size:
        raise RegistryError(
            f"{uri} has {size:,} bytes, but only {free:,} are free in {folder}. Choose a destination on another disk.",
            resource=uri,
        )


@contextlib.contextmanager
def _explain(uri: str, remedy: str) -> Iterator[None]:
    """Turn the file system's errors into one that says what they mean for the download.

    Args:
        uri: What is downloaded.
        remedy: What to do if the folder can't be written.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, RegistryError):
            raise
        what = "the disk is full" if error.errno in _FULL else (error.strerror or type(error).__name__).lower()
        where = f" in {error.filename}" if error.filename else ""
        advice = f" {remedy}" if error.errno in _FORBIDDEN else ""
        raise RegistryError(
            f"{uri} wasn't downloaded: {what}{where}. Nothing was kept.{advice}", resource=uri
        ) from error
