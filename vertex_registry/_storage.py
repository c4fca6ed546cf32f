"""The only code that talks to Cloud Storage: from a folder to ``gs://`` and back.

A model goes to ``gs://bucket/<model id>/<digest>``, where the digest is one of its content: of the names of its files
and of their bytes, and of nothing else. What lies under a digest is therefore never changed, only completed, and it is
safe for several people to send the same model at once, for one to stop half-way and for another to go on:

- a file that is there already, with the size and the CRC32C of ours, is not sent;
- a file is made on condition that the generation that was seen (or none) is the one that is there;
- a file of more than 16 MiB is sent in chunks, in a session that Cloud Storage keeps for a week. What it has confirmed
  is written down beside the cache, so that the next process goes on from there;
- the last chunk of a file is sent only when all that was read agrees with the digest. A file that changes meanwhile is
  noticed before it exists under a name that promises other bytes;
- Cloud Storage's own CRC32C of what it stored is compared with ours. An object that differs is removed.

The way back: a folder appears under its name when it is whole. Until then its files are in a hidden folder beside it,
each made of pieces of the one generation that was listed, each compared with the CRC32C that was listed.

Google's package is asked for single requests only, without its retries: each request here is tried within the budget
``Retry.calls``, which begins anew with every request that succeeds, so that a large model may take as long as it needs.
Sleep, randomness and clock are those of ``Retry``.

Not handled: empty folders, which Cloud Storage does not have, and what a file system knows of a file besides its bytes.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import gzip
import hashlib
import importlib.metadata
import ipaddress
import itertools
import json
import logging
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
import time
import unicodedata
import urllib.parse
import warnings
import zlib
from collections import deque
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final, Self, TypeVar

import attrs
import tenacity

from vertex_registry import _waiting
from vertex_registry._records import Retry
from vertex_registry.errors import (
    AlreadyExistsError,
    AuthenticationError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RegistryError,
    UnavailableError,
    reason,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized

T = TypeVar("T")

EMULATOR: Final = "STORAGE_EMULATOR_HOST"

_LOG: Final = logging.getLogger("vertex_registry")

#: The most bytes of one request; a file of no more is one request. "The chunk size should be a multiple of 256 KiB",
#: and "at least 8 MiB". https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload
CHUNK: Final = 16 * 2**20
_BLOCK: Final = 2**18
#: The most bytes that are read of an error.
_MAX_ERROR: Final = 2**16

#: "Object names can contain any sequence of valid Unicode characters, of length 1-1024 bytes when UTF-8 encoded", and
#: neither carriage return nor line feed. https://cloud.google.com/storage/docs/objects#naming
MAX_OBJECT_NAME: Final = 1024

#: What tools leave in a folder, by the tool. It isn't uploaded and doesn't count towards the digest. A pattern matches
#: the name of a file or folder, or its whole path if the pattern has a slash; case doesn't matter.
IGNORED: Final[Mapping[str, tuple[str, ...]]] = {
    "version control": (".git", ".hg", ".svn", ".bzr"),
    "Python": ("__pycache__", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache"),
    "editors": (".idea", ".vscode", "*~", ".*.sw[a-p]", "#*#", ".#*", ".~lock.*#"),
    "macOS": (".DS_Store", "._*", "__MACOSX", ".Spotlight-V100", ".Trashes", ".fseventsd"),
    "Windows": ("Thumbs.db", "ehthumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information"),
    "Linux": (".directory", ".Trash-*", ".nfs*", ".fuse_hidden*"),
    "Hugging Face": (".cache/huggingface",),
}

#: The most files of a model, so that neither a folder nor a listing can take up all memory.
MAX_FILES: Final = 100_000
#: The most links of a folder that are followed. Links to folders of links multiply.
MAX_LINKS: Final = 10_000

#: What each kind of request needs, and the predefined role that grants it.
PERMISSIONS: Final[Mapping[str, tuple[str, str]]] = {
    "list": ("storage.objects.list", "Storage Object Viewer (roles/storage.objectViewer)"),
    "get": ("storage.objects.get", "Storage Object Viewer (roles/storage.objectViewer)"),
    "create": ("storage.objects.create", "Storage Object Creator (roles/storage.objectCreator)"),
    "replace": ("storage.objects.delete", "Storage Object User (roles/storage.objectUser)"),
}

_AGENT: Final = "service-PROJECT_NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com"
_LOG_IN: Final = (
    "Type `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to the file of a service "
    f"account's key. Without a cloud, set {EMULATOR} to the address of a storage emulator."
)
_NOT_INSTALLED: Final = (
    "Copying to and from Cloud Storage needs google-cloud-storage, which is not installed: "
    'type pip install "vertex-registry[storage]".'
)

_SCOPES: Final = ("https://www.googleapis.com/auth/devstorage.read_write",)
# Pickle's opcodes: a string, perhaps a note to remember it by, and the next string with its length before it.
_WRITTEN_BY: Final = re.compile(
    rb"_sklearn_version(?:\x94|q.|r.{4})?(?:\x8c(?P<short>.)|X(?P<long>.{4}))(?P<text>\d+\.\d+[\w.+]{0,40})", re.DOTALL
)
_OVERLAP: Final = 100

_BYTES: Final = "application/octet-stream"

#: A host name or an IP address, perhaps with a port.
_HOST: Final = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?", re.ASCII)

_FOREIGN: Final = frozenset("\\:\0") | {chr(code) for code in range(0xD800, 0xE000)}  # the latter are no characters
_DEVICE: Final = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³]|conin\$|conout\$)\s*(?:\.|$)", re.IGNORECASE)

_ALTERED: Final = "stored other bytes than were sent, for something on the way alters them"

_ODD: Final = "the answer is not in Cloud Storage's form"
_GZIP: Final = ("gzip", "x-gzip")

#: What Google's package and we run into where an answer is JSON in another shape, or lacks what each answer has.
_SHAPE: Final = (AttributeError, LookupError, TypeError, ValueError)

_CONTENT: Final = (200, 206)
_RESUME: Final = 308
_FAILED: Final = 400
_PRECONDITION: Final = 412
_GONE: Final = (404, 410)
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


# --- what is on this machine ------------------------------------------------------------------------------------------


@attrs.frozen
class LocalFile:
    """A file to be sent.

    Attributes:
        name: Its path below the folder, with slashes.
        path: Where it is.
        size: In bytes, when it was looked at.
    """

    name: str
    path: Path
    size: int


@attrs.frozen
class LocalDirectory:
    """A folder to be sent: the one that was named, or one of the single file that was named.

    Attributes:
        source: What the caller named.
        files: Its files, by name.
    """

    source: str
    files: tuple[LocalFile, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its files."""
        return tuple(file.name for file in self.files)

    @property
    def size(self) -> int:
        """The bytes of all its files."""
        return sum(file.size for file in self.files)


@attrs.frozen
class _Sum:
    """What a file's bytes come to."""

    sha256: bytes
    crc32c: int
    size: int


def scan(source: str | os.PathLike[str], *, follow_links: bool = False) -> LocalDirectory:
    """Return the files of a folder, or a folder of one file.

    Files that match `IGNORED` are left out. A file or folder that the caller names is taken whatever its name is, and
    even if it's a link.

    Args:
        source: The folder or file.
        follow_links: Whether to follow links that lead out of the folder. Defaults to following only those that stay in
            it, and those of a Hugging Face cache: from ``snapshots/REVISION`` to ``blobs`` of the same repository.

    Raises:
        InvalidArgumentError: The folder or file doesn't exist, holds no file, or holds one that can't be uploaded.
    """
    root = _path(source)
    links = _Links(str(root), os.path.realpath(root), follow_links)
    files: dict[str, LocalFile] = {}
    for given, path in _found(root, links):
        # macOS returns names in another normal form than other systems; the digest must not depend on it.
        name = unicodedata.normalize("NFC", given)
        try:
            length = len(name.encode())
        except UnicodeEncodeError:
            raise InvalidArgumentError(f"The file name {given!r} is not text. Rename the file.") from None
        if length > MAX_OBJECT_NAME or "\n" in name or "\r" in name:
            raise InvalidArgumentError(f"Cloud Storage allows no object of the name {name!r}. Rename the file.")
        try:
            status = path.stat()
        except OSError as error:
            raise InvalidArgumentError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgumentError(f"{str(path)!r} is not a regular file and cannot be sent. Remove it.")
        if not _stays(name):
            raise InvalidArgumentError(f"A file of the name {name!r} could not be fetched again. Rename the file.")
        if name in files:
            raise InvalidArgumentError(f"Two files of {str(source)!r} have the name {name!r} in Unicode's normal form.")
        files[name] = LocalFile(name, path, status.st_size)
    if not files:
        raise InvalidArgumentError(
            f"There are no files in {str(source)!r}. Name the folder that the model was saved to."
        )
    links.log()
    return LocalDirectory(os.fspath(source), tuple(files[name] for name in sorted(files)))


def is_ignored(name: str) -> bool:
    """Return whether a path below a folder matches one of the patterns in `IGNORED`."""
    path = name.lower()
    last = path.rpartition("/")[2]
    patterns = (pattern.lower() for group in IGNORED.values() for pattern in group)
    return any(fnmatchcase(path if "/" in pattern else last, pattern) for pattern in patterns)


@attrs.define
class _Links:
    """The links of a folder: which of them may be followed, and which were.

    Attributes:
        folder: The folder, as the caller named it.
        root: The folder that this is, after all links.
        follow: Whether to follow links that lead out of it.
        within: How the paths begin that links may lead to in any case.
        followed: The links that were followed, with what they lead to.
        skipped: The paths that were left out.
    """

    folder: str
    root: str
    follow: bool
    within: tuple[str, ...] = attrs.field(init=False)
    followed: list[str] = attrs.field(factory=list)
    skipped: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        folders = (self.root, *filter(None, [_blobs_of(self.root)]))
        self.within = tuple(os.path.join(folder, "") for folder in folders)  # noqa: PTH118  # with a slash at its end

    def check(self, name: str, path: Path, link: str) -> str:
        """Note a link, and return what it leads to.

        Args:
            name: Its name below the folder.
            path: Its path, for messages.
            link: Its path in a folder that has no link in its path.

        Raises:
            InvalidArgumentError: It leads out of the folder, and the caller didn't allow that.
        """
        target = os.path.realpath(link)
        if not self.follow and not f"{target}{os.sep}".startswith(self.within):
            raise InvalidArgumentError(
                f"{str(path)!r} is a link that leads out of {self.folder!r}. Nothing was uploaded. Remove the link, or "
                "pass follow_links=True to upload what it leads to."
            )
        self.followed.append(f"{name} -> {target}")
        if len(self.followed) > MAX_LINKS:
            raise InvalidArgumentError(
                f"{self.folder!r} has more than {MAX_LINKS:,} links. Upload a copy without links."
            )
        return target

    def log(self) -> None:
        for what, paths in (("followed links", self.followed), ("left out", self.skipped)):
            if paths:
                more = f" and {len(paths) - _LOGGED} more" if len(paths) > _LOGGED else ""
                _LOG.info("upload of %s: %s: %s%s", self.folder, what, ", ".join(paths[:_LOGGED]), more)


#: The most paths in one line of the log.
_LOGGED: Final = 20


def _blobs_of(root: str) -> str | None:
    """Return where a Hugging Face cache keeps the files of a snapshot, if the folder is in one.

    The cache has ``REPOSITORY/blobs/HASH``, and links to these in ``REPOSITORY/snapshots/REVISION``.
    """
    for folder in (Path(root), *Path(root).parents):
        if folder.parent.name == "snapshots":
            return str(folder.parent.parent / "blobs")
    return None


def _found(root: Path, links: _Links) -> list[tuple[str, Path]]:
    try:
        if root.is_file():
            return [(root.name, root)]
        if root.is_dir():
            found = list(itertools.islice(_walk(root, links.root, "", frozenset(), links), MAX_FILES + 1))
            if len(found) > MAX_FILES:
                raise InvalidArgumentError(
                    f"{str(root)!r} holds more than {MAX_FILES:,} files. Name the folder of one model."
                )
            return found
        what = "is neither a file nor a folder" if root.exists() else "is not there"
    except OSError as error:
        raise InvalidArgumentError(f"{str(root)!r} cannot be read: {error.strerror}.") from error
    raise InvalidArgumentError(f"{str(root)!r} {what}. Name the folder that the model was saved to.")


def _path(given: str | os.PathLike[str]) -> Path:
    """The path that somebody named, with ``~`` resolved."""
    try:
        path = Path(given).expanduser()
    except (RuntimeError, TypeError) as error:
        raise InvalidArgumentError(f"{given!r} is no path: {error}") from error
    if "\0" in str(path):
        raise InvalidArgumentError(f"{os.fspath(given)!r} is no path: there is a null character in it.")
    return path


def _walk(folder: Path, real: str, prefix: str, above: frozenset[str], links: _Links) -> Iterator[tuple[str, Path]]:
    """Yield the names and paths of the files below a folder.

    Args:
        folder: The folder, by its path through links.
        real: Its path without links, through which everything is read.
        prefix: What the names begin with.
        above: The real paths of the folders that it's in.
        links: What decides about links.
    """
    if real in above:
        raise InvalidArgumentError(f"{str(folder)!r} is a link to a folder that it lies in. Remove the link.")
    try:
        entries = sorted(os.scandir(real), key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidArgumentError(f"{str(folder)!r} cannot be read: {error.strerror}.") from error
    for entry in entries:
        name, path = f"{prefix}{entry.name}", folder / entry.name
        if is_ignored(name):
            links.skipped.append(name)
            continue
        target = links.check(name, path, entry.path) if entry.is_symlink() else entry.path
        if entry.is_dir():
            yield from _walk(path, target, f"{name}/", above | {real}, links)
        else:
            yield name, path


def digest(files: Iterable[tuple[str, bytes]]) -> str:
    """The digest of a folder's content, from the names of its files and the SHA-256 of each: 40 hexadecimal digits.

    It depends on nothing else: not on the order, the machine, the folder's own name, times or permissions.
    """
    total = hashlib.sha256()
    for name, sha256 in sorted((name.encode(), sha256) for name, sha256 in files):
        total.update(len(name).to_bytes(4, "big") + name + sha256)
    return total.hexdigest()[:40]


def written_by(local: LocalDirectory) -> str | None:
    """The version of scikit-learn that wrote the model, or None where that cannot be told.

    Every estimator that is pickled says it, as the item after ``_sklearn_version``: it is read there, and nothing is
    unpickled. Where the file is compressed, or says nothing, it is the version that is installed here.
    """
    for file in local.files:
        if file.name in {"model.joblib", "model.pkl"}:
            with contextlib.suppress(OSError), file.path.open("rb") as stream:
                before = b""
                while data := stream.read(_BLOCK):
                    if (found := _WRITTEN_BY.search(before + data)) is not None:
                        return found["text"][: int.from_bytes(found["short"] or found["long"], "little")].decode()
                    before = data[-_OVERLAP:]
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                return importlib.metadata.version("scikit-learn")
    return None


# --- Cloud Storage ----------------------------------------------------------------------------------------------------


class Storage:
    """Cloud Storage, or an emulator of it: what ``STORAGE_EMULATOR_HOST`` names, to which no credentials are sent.

    Making one imports nothing of Google's and does no I/O; the first transfer does.

    Args:
        project: The project that requests are made for.
        credentials: google-auth credentials; application default ones where none are given.
        retry: The budget of a request (``calls``), and how to wait between tries.
        workers: How many files are under way at once.
        progress: Whether to draw a bar. None draws one where somebody sees it: on a terminal and in a notebook.
        chunk: The most bytes of one request; Cloud Storage asks for a multiple of 256 KiB.
        cache: The folder for downloads without a destination, and for uploads that can be resumed. Defaults to
            ``$XDG_CACHE_HOME/vertex-registry``.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        credentials: Any = None,
        retry: Retry | None = None,
        workers: int = 8,
        progress: bool | None = None,
        chunk: int = CHUNK,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        self._project = project
        self._credentials = credentials
        self._retry = retry or Retry()
        self._workers = workers
        self._progress = progress
        self._chunk = chunk
        self._cache = None if cache is None else Path(cache)
        self._lock = threading.Lock()
        self._google: _Google | None = None

    def close(self) -> None:
        """End the connections. Twice is fine."""
        with self._lock:
            google, self._google = self._google, None
        if google is not None:
            google.close()

    def upload(self, local: LocalDirectory, under: str) -> str:
        """Send a folder's files to ``<under>/<digest>``, those that are not there yet.

        Args:
            local: The folder, from ``scan``.
            under: ``gs://bucket/directory``.

        Returns:
            The URI of the directory in which every byte of the folder lies, and was compared.

        Raises:
            NotFoundError: There is no such bucket.
            PermissionDeniedError: The credentials may not list or create objects there.
            ConflictError: A file changed while it was sent, or the directory holds one that is not of the folder.
            UnavailableError: There was no usable answer within the budget.
        """
        bucket = _split(under)[0]
        with self._bar(f"Reading {_files(local.files)}", local.size, passing=True) as advance:
            summed = self._in_parallel(local.files, lambda file, stopped: _sum(file, stopped, advance))
        sums = dict(zip(local.files, summed, strict=True))
        uri = f"{under.rstrip('/')}/{digest((file.name, sums[file].sha256) for file in local.files)}"
        prefix = _split(uri)[1] + "/"
        for file in local.files:
            if len((prefix + file.name).encode()) > MAX_OBJECT_NAME:
                raise InvalidArgumentError(f"The name {file.name!r} is too long for Cloud Storage under {uri}.")
        there = {blob.name: blob for blob in self._list(bucket, prefix)}
        uploads = []
        for file in local.files:
            blob = there.get(prefix + file.name)
            expected = (file.size, _base64(sums[file].crc32c), "")
            if blob is None or (blob.size, blob.crc32c, _encoding(blob)) != expected:
                generation = 0 if blob is None else int(blob.generation)
                uploads.append(_Upload(file, sums[file].crc32c, bucket, prefix + file.name, generation))
        uploads.sort(key=lambda upload: -upload.file.size)
        with self._bar(f"Uploading {_files(uploads)}", sum(upload.file.size for upload in uploads)) as advance:
            self._in_parallel(uploads, lambda upload, stopped: self._send(upload, stopped, advance))
        if uploads:
            there = {blob.name: blob for blob in self._list(bucket, prefix)}
        ours = {prefix + file.name for file in local.files}
        if foreign := sorted(name for name in there.keys() - ours if not name.endswith("/")):
            raise ConflictError(
                f"{uri} holds {foreign[0].removeprefix(prefix)!r} too, which is not of {local.source}: somebody put it "
                "there. Nothing was registered. Remove it, or name another staging bucket.",
                resource=f"gs://{bucket}/{foreign[0]}",
            )
        return uri

    def look(self, uri: str) -> tuple[str, ...]:
        """The names directly under ``gs://bucket/directory``; those of directories end in a slash.

        Raises:
            NotFoundError: There is no such bucket.
            PermissionDeniedError: The credentials may not list its objects.
            UnavailableError: There was no usable answer within the budget.
        """
        bucket, directory = _split(uri)
        prefix = f"{directory}/" if directory else ""

        def ask() -> tuple[str, ...]:
            found = self._connected().client.list_blobs(
                bucket, prefix=prefix, delimiter="/", retry=None, timeout=self._timeout()
            )
            names = {blob.name for blob in self._all_pages(found, uri)}
            return tuple(sorted(name.removeprefix(prefix) for name in names | set(found.prefixes) if name != prefix))

        return self._tried("list", uri, ask)

    def download(self, uri: str, destination: str | os.PathLike[str] | None = None) -> Path:
        """Fetch every file under ``gs://bucket/directory`` into a folder, which appears when it is whole.

        Args:
            uri: The directory.
            destination: The folder, which must not be there, or be empty. None is one in the cache, and the same one
                as long as the directory is not changed; what is in it is compared again, and not fetched again.

        Returns:
            The folder.

        Raises:
            NotFoundError: There is no such bucket, or nothing in the directory.
            AlreadyExistsError: The destination is there already.
            InvalidArgumentError: A name in the directory would lie outside of the folder, or can be no file's.
            PermissionDeniedError: The credentials may not list or read objects there.
            ConflictError: A file was replaced while it was fetched.
            UnavailableError: There was no usable answer within the budget.
            RegistryError: There is no room, or the folder cannot be written.
        """
        bucket, directory = _split(uri)
        prefix = f"{directory}/" if directory else ""
        blobs = {}
        for blob in self._list(bucket, prefix):
            name = blob.name.removeprefix(prefix)
            if name and not name.endswith("/"):  # consoles mark an empty directory by an object of its name
                blobs[_safe(name, uri)] = blob
        if not blobs:
            raise NotFoundError(f"There is nothing in {uri}.", resource=uri)
        for path, blob in blobs.items():
            if (encoding := _encoding(blob)) not in {"", *_GZIP}:
                raise InvalidArgumentError(
                    f"{uri} holds {path}, which is stored with 'Content-Encoding: {encoding}', and only gzip can be "
                    "decoded. Nothing was downloaded. Upload the file without an encoding.",
                    resource=uri,
                )
            if (parent := next((parent for parent in path.parents if parent in blobs), None)) is not None:
                raise InvalidArgumentError(f"{uri} holds {parent} and {path}, which no folder can.", resource=uri)
        if destination is not None:
            with _writing(uri, "Name a destination that you can write to."):
                return self._fetch_all(uri, blobs, _path(destination).absolute())
        with _writing(uri, f"Name a destination that you can write to, or {_SET_CACHE}"):
            kept = self._private_folder("models") / _key(uri, blobs)
            if os.path.lexists(kept):
                if self._is_whole(kept, blobs):
                    return kept
                _remove(kept)
            with contextlib.suppress(AlreadyExistsError):  # another process was faster, with the same files
                self._fetch_all(uri, blobs, kept, record=_record_of(kept))
            return kept

    # --- up ---

    def _send(self, upload: _Upload, stopped: threading.Event, advance: Callable[[int], None]) -> None:
        """One file, until Cloud Storage says of it what we say of it; once more if it says something else."""
        ours = (upload.file.size, _base64(upload.crc32c))
        for _ in range(2):
            try:
                if upload.file.size <= self._chunk:
                    stored = self._send_whole(upload, stopped)
                else:
                    stored = self._send_in_chunks(upload, stopped, advance)
                problem = _ALTERED
            except _FailedError as failure:
                if failure.status != _PRECONDITION:
                    raise
                stored = self._stored(upload)
                problem = "was given other bytes by somebody else meanwhile"
            if (stored.size, stored.crc32c) == ours:
                if upload.file.size <= self._chunk:
                    advance(upload.file.size)
                return
            if upload.file.size > self._chunk:
                advance(-upload.file.size)
            upload = attrs.evolve(upload, generation=stored.generation)
        if problem is _ALTERED:
            self._discard(upload)
        raise UnavailableError(
            f"Cloud Storage {problem}, twice: {upload.uri} has the CRC32C {stored.crc32c}, not {ours[1]}. "
            "Nothing was registered.",
            resource=upload.uri,
        )

    def _send_whole(self, upload: _Upload, stopped: threading.Event) -> _Stored:
        with _opened(upload.file) as stream:
            data = stream.read(upload.file.size + 1)
        if len(data) != upload.file.size or _crc32c(data) != upload.crc32c:
            raise _changed(upload.file)

        def post() -> _Stored:
            google = self._connected()
            return _Stored.told(google.post(upload, data, self._timeout()))

        return self._tried(upload.verb, upload.uri, post, but=(_PRECONDITION,), stopped=stopped)

    def _send_in_chunks(self, upload: _Upload, stopped: threading.Event, advance: Callable[[int], None]) -> _Stored:
        size = upload.file.size
        crc = summed = shown = furthest = idle = 0
        google = self._connected()
        with _Session(self._sessions(), upload, google.endpoint) as session, _opened(upload.file) as stream:
            while not stopped.is_set():
                if not session.url:
                    session.begin(google.own_address(self._begin(upload)))
                before = session.confirmed
                advance(session.confirmed - shown)
                shown = session.confirmed
                if summed != session.confirmed:
                    # Gone on with, or begun anew: what was sent before is read again, so that all of it is summed.
                    crc, summed = _crc32c_of(stream, stopped, session.confirmed), session.confirmed
                data = stream.read(self._chunk)
                crc, summed = _crc32c(data, crc), summed + len(data)
                if not data or summed > size or (summed == size and (crc != upload.crc32c or stream.read(1))):
                    self._abandon(session)
                    raise _changed(upload.file)
                stored, said = None, "it confirms no more of the file"
                try:
                    stored = self._put(upload, session, data, crc if summed == size else None, stopped)
                except _FailedError as failure:
                    session.end()
                    if failure.status == _PRECONDITION:
                        raise
                    said = failure.said
                if stored is not None:
                    session.end()
                    advance(size - shown)
                    return stored
                if session.confirmed > furthest:
                    furthest, idle = session.confirmed, 0
                elif session.confirmed <= before:
                    idle += 1
                    self._wait_idly(idle, upload, said, stopped)
        raise _StoppedError

    def _wait_idly(self, idle: int, upload: _Upload, said: str, stopped: threading.Event) -> None:
        """Wait after answers of which none got the file further than it was.

        The waits alone are counted against the budget: what was lost may take long to be sent again.
        """
        waits = [_waiting.longest(self._retry, tries) for tries in range(1, idle + 1)]
        if sum(waits) >= self._retry.calls:
            raise _error(_FailedError(0, said), upload.verb, upload.uri, sum(waits))
        self._sleep(stopped)(waits[-1] * self._retry.random())

    def _begin(self, upload: _Upload) -> str:
        blob = self._blob(upload)

        def ask() -> str:
            url: str = blob.create_resumable_upload_session(
                _BYTES,
                size=upload.file.size,
                if_generation_match=upload.generation,
                checksum=None,
                retry=None,
                timeout=self._timeout(),
            )
            return url

        return self._tried(upload.verb, upload.uri, ask, but=(_PRECONDITION,))

    def _put(
        self, upload: _Upload, session: _Session, data: bytes, crc: int | None, stopped: threading.Event
    ) -> _Stored | None:
        """Send one chunk, and write down what of it was confirmed; what was stored, if it was the last.

        "Cloud Storage ignores any bytes you send at an offset that Cloud Storage has already persisted", so that a
        chunk whose answer was lost is sent again without asking first.
        https://cloud.google.com/storage/docs/performing-resumable-uploads
        """
        start = session.confirmed
        headers = {"Content-Range": f"bytes {start}-{start + len(data) - 1}/{upload.file.size}"}
        if crc is not None:
            headers["X-Goog-Hash"] = f"crc32c={_base64(crc)}"

        def put() -> _Stored | int:
            answer = self._connected().put(session.url, data, headers, self._timeout())
            if answer.status_code != _RESUME:
                return _Stored.told(answer.json())
            persisted = re.fullmatch(r"bytes=0-(\d+)", answer.headers.get("Range", ""))
            confirmed = int(persisted[1]) + 1 if persisted else 0
            if confirmed >= upload.file.size:
                raise ValueError(confirmed)
            return confirmed

        told = self._tried(upload.verb, upload.uri, put, but=(*_GONE, _PRECONDITION), stopped=stopped)
        if isinstance(told, _Stored):
            return told
        session.confirm(told)
        return None

    def _abandon(self, session: _Session) -> None:
        with contextlib.suppress(Exception):  # Cloud Storage forgets it by itself within a week
            self._connected().delete(session.url, self._timeout())
        session.end()

    def _stored(self, upload: _Upload) -> _Stored:
        """What is there in place of what was to be made: of another process, or of a try whose answer was lost."""
        blob = self._blob(upload)

        def ask() -> _Stored:
            blob.reload(retry=None, timeout=self._timeout())
            return _Stored.of(blob)

        return self._tried("get", upload.uri, ask)

    def _discard(self, upload: _Upload) -> None:
        with contextlib.suppress(Exception):  # it was not registered; the next upload replaces it
            self._blob(upload).delete(if_generation_match=upload.generation, retry=None, timeout=self._timeout())

    def _blob(self, upload: _Upload) -> Any:
        blob = self._connected().client.bucket(upload.bucket).blob(upload.name)
        blob.crc32c = _base64(upload.crc32c)  # Cloud Storage refuses other bytes than these
        return blob

    # --- down ---

    def _list(self, bucket: str, prefix: str) -> list[Any]:
        def ask() -> list[Any]:
            found = self._connected().client.list_blobs(bucket, prefix=prefix, retry=None, timeout=self._timeout())
            blobs = list(self._all_pages(found, uri))
            for blob in blobs:
                _Stored.of(blob)
            return blobs

        uri = f"gs://{bucket}/{prefix}".rstrip("/")
        return self._tried("list", uri, ask)

    def _all_pages(self, found: Any, uri: str) -> Iterator[Any]:
        """Yield the objects of a listing, and end even if the server always names another page."""
        budget = _waiting.Budget(self._retry, self._retry.operations)
        tokens = set()
        count = 0
        for page in found.pages:
            for blob in page:
                yield blob
                count += 1
            if (token := found.next_page_token) in tokens:
                raise ValueError(token)  # the same page again: not in Cloud Storage's form
            tokens.add(token)
            if count + len(found.prefixes) > MAX_FILES or not budget.left():
                raise RegistryError(
                    f"{uri} holds more files than a model can have, or its listing doesn't end. Name the folder of one "
                    "model.",
                    resource=uri,
                )

    def _fetch_all(
        self, uri: str, blobs: Mapping[PurePosixPath, Any], folder: Path, *, record: Path | None = None
    ) -> Path:
        """Download the files into a folder; with a record, into one that only this user can read."""
        if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
            raise AlreadyExistsError(
                f"{folder} is there already, and is no empty folder. Name one that is new or empty.",
                resource=str(folder),
            )
        size = sum(int(blob.size) for blob in blobs.values())
        made = [parent for parent in folder.parents if not parent.exists()]
        # A folder that is there may be mounted, linked to or somebody's current one: it is filled, and not replaced.
        filled = folder.is_dir()
        around = folder if filled else folder.parent
        try:
            around.mkdir(parents=True, exist_ok=True)
            _check_room(around, size, uri)
            with tempfile.TemporaryDirectory(prefix=f".{folder.name[:100]}.", dir=around) as hidden:
                whole = Path(hidden) / "whole"
                whole.mkdir(mode=0o777 if record is None else 0o700)
                ordered = sorted(blobs.items(), key=lambda item: -int(item[1].size))
                with self._bar(f"Downloading {_files(blobs)}", size) as advance:
                    digests = self._in_parallel(
                        ordered,
                        lambda item, stopped: self._fetch(
                            item[1], whole / item[0], stopped, advance, private=record is not None
                        ),
                    )
                if record is not None:
                    names = [str(path) for path, _ in ordered]
                    _write_record(Path(hidden) / "record", dict(zip(names, digests, strict=True)))
                    (Path(hidden) / "record").replace(record)
                (_fill if filled else _appear)(whole, folder)
        except BaseException:
            for parent in made:
                with contextlib.suppress(OSError):  # somebody else's files are in it
                    parent.rmdir()
            raise
        return folder

    def _fetch(
        self, blob: Any, path: Path, stopped: threading.Event, advance: Callable[[int], None], *, private: bool
    ) -> tuple[int, str]:
        """Download one file, and return its size and, if it's private, its SHA-256."""
        uri = f"gs://{blob.bucket.name}/{blob.name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = _encoding(blob) in _GZIP
        for last in (False, True):
            with contextlib.ExitStack() as opened:
                file = opened.enter_context(_NewFile(path, replace=last, private=private))
                received = opened.enter_context(tempfile.TemporaryFile(dir=path.parent)) if encoded else file
                crc = self._fetch_into(received.write, blob, uri, stopped, advance)
                if _base64(crc) == blob.crc32c:
                    if encoded:
                        _decode(received, file, uri, stopped)
                    return file.size, file.sha256
            advance(-int(blob.size))
        raise UnavailableError(
            f"Other bytes of {uri} arrived than were stored: CRC32C {_base64(crc)}, not {blob.crc32c}, twice. "
            "Something on the way alters them. Nothing was kept.",
            resource=uri,
        )

    def _fetch_into(
        self,
        write: Callable[[bytes], object],
        blob: Any,
        uri: str,
        stopped: threading.Event,
        advance: Callable[[int], None],
    ) -> int:
        crc = done = 0
        size = int(blob.size)
        accept = "gzip" if _encoding(blob) else "identity"  # as it's stored: a range is one of the stored bytes
        while done < size:
            if stopped.is_set():
                raise _StoppedError

            def get(start: int = done) -> bytes:
                part = range(start, min(start + self._chunk, size))
                return self._connected().get(blob, part, accept, self._timeout())

            try:
                data = self._tried("get", uri, get, but=(_PRECONDITION,), stopped=stopped)
            except _FailedError as failure:
                raise ConflictError(f"{uri} was replaced while it was fetched. Try again.", resource=uri) from failure
            crc = _crc32c(data, crc)
            write(data)
            done += len(data)
            advance(len(data))
        return crc

    def _is_whole(self, folder: Path, blobs: Mapping[PurePosixPath, Any]) -> bool:
        """Return whether a folder in the cache holds what was downloaded to it, and nobody else wrote there."""

        def same(item: tuple[str, tuple[int, str]], stopped: threading.Event) -> bool:
            name, (size, sha256) = item
            try:
                with open_private(folder / name) as file:
                    return os.fstat(file.fileno()).st_size == size and _sha256_of(file, stopped) == sha256
            except OSError:
                return False

        try:
            check_private_folder(folder)
            record = _read_record(_record_of(folder))
            found = set(_files_below(folder))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False
        return found == set(record) == set(map(str, blobs)) and all(self._in_parallel(list(record.items()), same))

    # --- the cache ---

    def _private_folder(self, name: str) -> Path:
        """Return a folder of the cache, which is created if it doesn't exist.

        Raises:
            RegistryError: There's no home directory, or the folder isn't this user's alone.
            OSError: The folder can't be created.
        """
        cache = self._cache
        if cache is None:
            try:
                home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
            except RuntimeError as error:
                raise RegistryError(
                    "There is no folder for the cache: this user has no home directory. Name a destination, or "
                    f"{_SET_CACHE}"
                ) from error
            cache = home / "vertex-registry"
        cache.parent.mkdir(parents=True, exist_ok=True)
        try:
            for folder in (cache, cache / name):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
                check_private_folder(folder, link=folder == cache)
        except PermissionError as error:
            if error.errno != errno.EPERM:
                raise
            raise RegistryError(
                f"The cache in {error.filename} isn't used: {error.strerror}. Remove the folder, or {_SET_CACHE}",
                resource=str(error.filename),
            ) from error
        return cache / name

    def _sessions(self) -> Path | None:
        """Return the folder for uploads that can be resumed, or None if there can be none."""
        try:
            return self._private_folder("uploads")
        except (RegistryError, OSError) as error:
            _LOG.info("uploads can't be resumed by another process: %s", error)
            return None

    # --- both ---

    def _in_parallel(self, items: Sequence[Any], work: Callable[[Any, threading.Event], T]) -> list[T]:
        """The results, in order; the first failure stops the others at their next request or block, and is raised."""
        stopped = threading.Event()
        todo = deque(enumerate(items))
        results: dict[int, T] = {}
        failures: list[BaseException] = []

        def take() -> None:
            while not stopped.is_set():
                try:
                    index, item = todo.popleft()
                except IndexError:
                    return
                try:
                    results[index] = work(item, stopped)
                except BaseException as error:  # noqa: BLE001  # it is raised in the caller's thread
                    failures.append(error)
                    stopped.set()

        def take_all() -> None:
            threads = []
            try:
                for _ in range(min(self._workers, len(items))):
                    # A daemon: who is not waited for any more, after a second Ctrl-C, does not keep the process.
                    threads.append(threading.Thread(target=take, name="vertex-registry-storage", daemon=True))
                    threads[-1].start()
            except RuntimeError as error:  # the system has no thread left
                failures.append(error)
                stopped.set()
                threads.pop()
            for thread in threads:
                thread.join()

        _waiting.apart(take_all, stopped.set)
        if failures:
            raise failures[0]
        return [results[index] for index in range(len(items))]

    def _tried(
        self,
        verb: str,
        uri: str,
        action: Callable[[], T],
        *,
        but: tuple[int, ...] = (),
        stopped: threading.Event | None = None,
    ) -> T:
        """The result of one request, sent again within the budget as long as another try could help.

        Args:
            verb: A key of ``PERMISSIONS``.
            uri: What it is about.
            action: What sends it.
            but: The statuses that the caller acts on.
            stopped: What tells that the result is no longer wanted.

        Raises:
            RegistryError: It failed; `_FailedError` where its status is one of ``but``.
        """
        budget = _waiting.Budget(self._retry, self._retry.calls)

        def attempt() -> T:
            try:
                return action()
            except (RegistryError, _FailedError):
                raise
            except Exception as error:
                failure = self._connected().failure(error)
                if failure is None:
                    raise
                raise failure from error

        def wait(state: tenacity.RetryCallState) -> float:
            failure = state.outcome.exception() if state.outcome else None
            longest = _waiting.longest(self._retry, state.attempt_number)
            return max(getattr(failure, "hint", 0.0), longest * self._retry.random())

        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, _FailedError) and error.transient),
            wait=wait,
            stop=lambda state: (stopped is not None and stopped.is_set()) or state.upcoming_sleep >= budget.left(),
            sleep=self._sleep(stopped),
            reraise=True,
        )
        try:
            return tries(attempt)
        except _FailedError as failure:
            if failure.status in but:
                raise
            raise _error(failure, verb, uri, budget.spent()) from failure.__cause__

    def _sleep(self, stopped: threading.Event | None) -> Callable[[float], Any]:
        """What waits, and no longer than the result is wanted; who brings a clock says when its time has passed."""
        if self._retry.sleep is not time.sleep:
            return self._retry.sleep
        return _waiting.sleep if stopped is None else stopped.wait

    def _timeout(self) -> float:
        return min(60.0, self._retry.calls)

    def _connected(self) -> _Google:
        with self._lock:
            if self._google is None or self._google.process != os.getpid():  # no connection is used across a fork
                self._google = _Google(self._project, self._credentials)
            return self._google

    @contextlib.contextmanager
    def _bar(self, what: str, size: int, *, passing: bool = False) -> Iterator[Callable[[int], None]]:
        """What a bar is told of progress; one that is passing is drawn where it takes longer than a moment."""
        notebook = _in_notebook()
        shown = self._progress if self._progress is not None else notebook or _on_terminal()
        tqdm = _tqdm() if shown and size else None
        if tqdm is None:
            yield lambda _: None
            return
        # What a notebook holds is read later as well: there the bar stays, with what it came to.
        looks = {"delay": 1, "leave": False} if passing else {"leave": notebook}
        with tqdm(desc=what, total=size, unit="B", unit_scale=True, unit_divisor=1024, **looks) as bar:
            lock = threading.Lock()

            def advance(count: int) -> None:
                with lock:
                    bar.update(count)

            yield advance


@attrs.frozen
class _Upload:
    """A file on its way."""

    file: LocalFile
    crc32c: int
    bucket: str
    name: str
    generation: int

    @property
    def uri(self) -> str:
        return f"gs://{self.bucket}/{self.name}"

    @property
    def verb(self) -> str:
        return "replace" if self.generation else "create"


@attrs.frozen
class _Stored:
    """What Cloud Storage says of an object."""

    size: int
    crc32c: str
    generation: int

    def __attrs_post_init__(self) -> None:
        if self.size < 0 or self.generation < 0:
            raise ValueError(self.size, self.generation)

    @classmethod
    def of(cls, blob: Any) -> _Stored:
        return cls(int(blob.size), blob.crc32c, int(blob.generation))

    @classmethod
    def told(cls, answer: Mapping[str, Any]) -> _Stored:
        return cls(int(answer["size"]), str(answer.get("crc32c", "")), int(answer["generation"]))


class _Session:
    """An upload in chunks, written down so that it outlives the process.

    The file is locked while the upload is under way, so that two that send the same file do not write to one session;
    the second has a session of its own, which it keeps to itself. Only the file's owner can read it: who knows the
    address of a session may write to it.
    """

    def __init__(self, folder: Path | None, upload: _Upload, endpoint: str) -> None:
        told = json.dumps([_emulator(), upload.uri, upload.generation, upload.file.size, upload.crc32c])
        name = f"{hashlib.sha256(told.encode()).hexdigest()[:40]}.json"
        self._path = None if folder is None else folder / name
        self._file = None if self._path is None else _locked(self._path)
        self.url = ""
        self.confirmed = 0
        if self._file is not None:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # it is new, or was torn
                kept = json.load(self._file)
                url, confirmed = str(kept["url"]), int(kept["confirmed"])
                if 0 <= confirmed < upload.file.size and _origin(url) == _origin(endpoint):
                    self.url, self.confirmed = url, confirmed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None and self._path is not None:
            if not self.url:
                self._path.unlink(missing_ok=True)
            self._file.close()

    def begin(self, url: str) -> None:
        self.url = url
        self.confirm(0)

    def confirm(self, confirmed: int) -> None:
        self.confirmed = confirmed
        if self._file is not None:
            with contextlib.suppress(OSError):  # without it the upload is as good; the next process begins anew
                self._file.seek(0)
                self._file.truncate()
                json.dump({"url": self.url, "confirmed": confirmed}, self._file)
                self._file.flush()

    def end(self) -> None:
        self.url = ""
        self.confirm(0)


def _locked(path: Path) -> IO[str] | None:
    """Open the file of a session, or return None if another process has it or it can't be used."""
    try:
        import fcntl  # noqa: PLC0415  # not on Windows, where nothing is written down

        file = open_private(path, os.O_RDWR | os.O_CREAT, "r+", encoding="utf-8")
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


class _NewFile:
    """A file that is downloaded; a private one is readable by this user only, and its SHA-256 is taken."""

    def __init__(self, path: Path, *, replace: bool, private: bool) -> None:
        def create(name: str, flags: int) -> int:
            return os.open(name, flags, 0o600 if private else 0o666)

        self._file = open(path, "wb" if replace else "xb", opener=create)  # noqa: SIM115  # closed by __exit__
        self._sum = hashlib.sha256() if private else None
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def sha256(self) -> str:
        return "" if self._sum is None else self._sum.hexdigest()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)
        if self._sum is not None:
            self._sum.update(data)


def _decode(received: Any, file: _NewFile, uri: str, stopped: threading.Event) -> None:
    """Write what an object that is stored in gzip's encoding holds."""
    received.seek(0)
    with gzip.GzipFile(fileobj=received) as stream:
        while True:
            try:
                data = stream.read(_BLOCK)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise RegistryError(
                    f"{uri} is stored with 'Content-Encoding: gzip', and isn't a gzip stream. Nothing was kept. Upload "
                    f"it again, or run `gcloud storage objects update {uri} --clear-content-encoding`.",
                    resource=uri,
                ) from error
            if not data:
                return
            if stopped.is_set():
                raise _StoppedError
            file.write(data)


# --- files that only this user can have written -----------------------------------------------------------------------


_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_SET_CACHE: Final = "set XDG_CACHE_HOME to a folder of your own."


def check_private_folder(path: Path, *, link: bool = False) -> None:
    """Check that a folder is one, that it belongs to this user, and that nobody else can write to it.

    Args:
        path: The folder.
        link: Whether it may be a link, if that belongs to this user. Defaults to not.

    Raises:
        PermissionError: It isn't, with `errno.EPERM` and a reason.
        OSError: It can't be read.
    """
    status = path.lstat()
    if link and stat.S_ISLNK(status.st_mode) and _is_own(status):
        path = Path(os.path.realpath(path))
        status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise PermissionError(errno.EPERM, "it is a link or a file", str(path))
    _check_owner(status, path)


def open_private(path: Path, flags: int = os.O_RDONLY, mode: str = "rb", encoding: str | None = None) -> IO[Any]:
    """Open a regular file that belongs to this user, without following a link or waiting for a pipe.

    Raises:
        OSError: There's no such file, it's something else, or another user can write to it.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        status = os.fstat(descriptor)
        _check_own_file(status, path)
        return os.fdopen(descriptor, mode, encoding=encoding)
    except BaseException:
        os.close(descriptor)
        raise


def _check_own_file(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise PermissionError(errno.EPERM, "it isn't a regular file", str(path))
    _check_owner(status, path)


def _check_owner(status: os.stat_result, path: Path) -> None:
    if not _is_own(status):
        raise PermissionError(errno.EPERM, "it belongs to another user", str(path))
    if os.name != "nt" and status.st_mode & _WRITABLE_BY_OTHERS:
        raise PermissionError(errno.EPERM, "other users can write to it", str(path))


def _record_of(folder: Path) -> Path:
    """Return where the cache keeps the size and SHA-256 of each file of a folder."""
    return folder.with_name(f"{folder.name}.json")


def _write_record(path: Path, files: Mapping[str, tuple[int, str]]) -> None:
    with open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, "w", encoding="utf-8") as file:
        json.dump(files, file)


def _read_record(path: Path) -> dict[str, tuple[int, str]]:
    with open_private(path, mode="r", encoding="utf-8") as file:
        return {str(name): (int(size), str(sha256)) for name, (size, sha256) in json.load(file).items()}


def _files_below(folder: Path, prefix: str = "") -> Iterator[str]:
    """Yield the paths of all files below a folder.

    Raises:
        PermissionError: There's a link, a pipe or the like.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield f"{prefix}{entry.name}"
            else:
                raise PermissionError(errno.EPERM, "it isn't a regular file", entry.path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _sha256_of(file: IO[bytes], stopped: threading.Event) -> str:
    total = hashlib.sha256()
    while data := file.read(_BLOCK):
        if stopped.is_set():
            raise _StoppedError
        total.update(data)
    return total.hexdigest()


def _is_own(status: os.stat_result) -> bool:
    return os.name == "nt" or status.st_uid == os.geteuid()


# --- Google's package -------------------------------------------------------------------------------------------------


class _Google:
    """A connected client of Google's, and what its exceptions mean."""

    def __init__(self, project: str | None, credentials: Any) -> None:
        try:
            import google.auth  # noqa: PLC0415  # the first transfer imports it, and not this module
            import google.auth.credentials  # noqa: PLC0415
            import google.auth.exceptions  # noqa: PLC0415
            import requests  # noqa: PLC0415
            import urllib3  # noqa: PLC0415
            from google.api_core import exceptions  # noqa: PLC0415
            from google.auth.transport.requests import Request  # noqa: PLC0415
            from google.cloud.storage import Client  # noqa: PLC0415

            from vertex_registry import _http  # noqa: PLC0415
        except ImportError as error:
            raise RegistryError(_NOT_INSTALLED) from error
        self._api_error = exceptions.GoogleAPICallError
        self._auth_error = google.auth.exceptions.GoogleAuthError
        self._lost = (
            google.auth.exceptions.TransportError,
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            ConnectionError,
            TimeoutError,
        )
        self._http_error = requests.HTTPError
        self._no_json = requests.JSONDecodeError
        options: dict[str, Any] = {}
        emulator = _emulator()
        # Requests reads proxies from the environment; an emulator on this machine can't be reached through one.
        plain = _http.PlainSession(proxies=emulator is None or not _is_loopback(emulator))
        self._plain = plain
        try:
            if emulator:
                credentials = google.auth.credentials.AnonymousCredentials()  # type: ignore[no-untyped-call]  # upstream
                options["client_options"] = {"api_endpoint": emulator}
                self._signed: requests.Session = plain
            else:
                if credentials is None:
                    credentials = google.auth.default(scopes=_SCOPES)[0]
                credentials = google.auth.credentials.with_scopes_if_required(credentials, _SCOPES)  # type: ignore[no-untyped-call]  # upstream
                refresh = Request(_http.PlainSession())
                self._signed = _http.SignedSession(credentials, auth_request=refresh)
                self._signed.configure_mtls_channel()  # type: ignore[no-untyped-call]  # upstream
            self.client: Any = Client(project=project, credentials=credentials, _http=self._signed, **options)
        except google.auth.exceptions.DefaultCredentialsError as error:
            raise AuthenticationError(f"There are no usable credentials for Cloud Storage. {_LOG_IN}") from error
        except (google.auth.exceptions.GoogleAuthError, OSError, ValueError) as error:
            raise RegistryError(
                f"Google's client of Cloud Storage can't be created: {_first_line(error)} Check the variables that "
                "begin with GOOGLE_, and the credentials."
            ) from error
        # As of 3.17 it also asks for the bucket itself, from a thread that outlives every budget and the client.
        self.client._bucket_metadata_cache = None  # noqa: SLF001  # there is no public way for one client
        self.endpoint = str(self.client.api_endpoint)
        self.process = os.getpid()

    def close(self) -> None:
        self.client.close()
        self._plain.close()
        self._signed.close()

    def post(self, upload: _Upload, data: bytes, timeout: float) -> Any:
        """What Cloud Storage says of an object that is made in one request.

        Google's package does so up to 8 MiB only, copies the bytes, and asks twice for more.
        https://cloud.google.com/storage/docs/uploading-objects#uploading-an-object
        """
        answer = self._signed.post(
            f"{self.endpoint}/upload/storage/v1/b/{upload.bucket}/o",
            params={"uploadType": "media", "name": upload.name, "ifGenerationMatch": str(upload.generation)},
            data=data,
            headers={"Content-Type": _BYTES, "X-Goog-Hash": f"crc32c={_base64(upload.crc32c)}"},
            timeout=timeout,
            allow_redirects=False,
        )
        return self._checked(answer).json()

    def get(self, blob: Any, part: range, accept: str, timeout: float) -> bytes:
        """Return a range of an object's stored bytes, and read no more of the answer than was requested.

        Google's package reads the answer to its end, whatever its length.
        https://cloud.google.com/storage/docs/downloading-objects#download-object-portion
        """
        with self._signed.get(
            # The address that a listed object names for its content is the server's own; this one is the endpoint's.
            f"{self.endpoint}/download/storage/v1/b/{blob.bucket.name}/o/{urllib.parse.quote(blob.name, safe='~')}",
            params={"alt": "media", "ifGenerationMatch": str(blob.generation)},
            headers={"Range": f"bytes={part.start}-{part.stop - 1}", "Accept-Encoding": accept},
            timeout=timeout,
            stream=True,
            allow_redirects=False,
        ) as answer:
            if answer.status_code not in _CONTENT:
                body = answer.raw.read(_MAX_ERROR, decode_content=True)
                raise _FailedError(answer.status_code, _said_in(body, answer.status_code), _hint(answer))
            data: bytes = answer.raw.read(len(part) + 1, decode_content=False)
            if len(data) != len(part):
                odd = "ended early" if len(data) < len(part) else "is longer than was requested"
                raise ConnectionResetError(errno.ECONNRESET, f"the answer {odd}")
            return data

    def own_address(self, url: str) -> str:
        """Return the address of a session at the endpoint in use, whatever host the server names."""
        return urllib.parse.urlunsplit(urllib.parse.urlsplit(self.endpoint)[:2] + urllib.parse.urlsplit(url)[2:])

    def put(self, url: str, data: bytes, headers: Mapping[str, str], timeout: float) -> Any:
        """The answer to a chunk; 308, which asks for the next one, is no redirection here.

        The address of a session is a permission in itself. It is sent without a token, and is not in what is raised:
        requests' errors have it in their text.
        """
        try:
            answer = self._plain.put(url, data=data, headers=headers, timeout=timeout, allow_redirects=False)
        except self._lost as error:
            raise _FailedError(0, reason(error)) from None
        return self._checked(answer)

    def _checked(self, answer: Any) -> Any:
        if answer.status_code >= _FAILED:
            raise self._http_error(response=answer)
        return answer

    def delete(self, url: str, timeout: float) -> None:
        self._plain.delete(url, timeout=timeout)

    def failure(self, error: Exception) -> _FailedError | None:
        """What an exception says of a request, or None where it is not about one."""
        answer = getattr(error, "response", None)
        if isinstance(error, self._api_error):
            return _FailedError(int(error.code or 0), _said(answer) or str(error.message), _hint(answer))
        if isinstance(error, self._http_error) and answer is not None:
            return _FailedError(answer.status_code, _said(answer), _hint(answer))
        if isinstance(error, self._lost):
            return _FailedError(0, _ODD if isinstance(error, self._no_json) else reason(error))
        if isinstance(error, self._auth_error):
            # What google-auth marks as retryable is a fault of the token server, not of the credentials.
            return _FailedError(
                0 if getattr(error, "retryable", False) else 401, "the credentials could not be refreshed"
            )
        if isinstance(error, _SHAPE):
            return _FailedError(0, _ODD)
        return None


class _FailedError(Exception):
    """A request that failed: its HTTP status, or 0 where there was no answer; what was said; the wait asked for."""

    def __init__(self, status: int, said: str, hint: float = 0.0) -> None:
        super().__init__(said)
        self.status = status
        self.said = said
        self.hint = hint

    @property
    def transient(self) -> bool:
        # https://cloud.google.com/storage/docs/retry-strategy: 408, 429 and 5xx, and connections that broke.
        return self.status in {0, 408, 429} or self.status >= 500  # noqa: PLR2004  # the list quoted above


class _StoppedError(Exception):
    """Another file failed; nobody sees it."""


def _error(failure: _FailedError, verb: str, uri: str, spent: float) -> RegistryError:
    bucket = f"gs://{_split(uri)[0]}"
    said = f"{failure.said.strip().rstrip('.') or 'no reason was given'}."
    permission, role = PERMISSIONS[verb]
    emulator = _emulator()
    text = f"Cloud Storage refused {uri}: {said}"
    kind: type[RegistryError] = InvalidArgumentError
    if failure.status == 401:  # noqa: PLR2004  # HTTP's Unauthorized
        kind = AuthenticationError
        text = f"Cloud Storage did not accept the credentials: {said} {_LOG_IN}"
    elif failure.status == 403:  # noqa: PLR2004  # HTTP's Forbidden
        kind = PermissionDeniedError
        text = (
            f"{uri} is not open to these credentials: {said} They need the permission {permission} on {bucket}, which "
            f"the role {role} grants. Vertex reads the model as {_AGENT}, which needs Storage Object Viewer there."
        )
    elif failure.status == 404:  # noqa: PLR2004  # HTTP's Not Found
        kind = NotFoundError
        text = (
            f"{uri} is not there any more: {said}"
            if verb == "get"
            else (
                f"There is no bucket {bucket}: {said} Make it in the location of the registry, with "
                f"`gcloud storage buckets create {bucket} --location=LOCATION`, or name another."
            )
        )
    elif failure.transient:
        kind = UnavailableError
        remedy = f"Is a storage emulator running at {emulator}?" if emulator else "What was sent is kept: try again."
        text = f"{uri}: no usable answer from Cloud Storage in {spent:.1f} s: {said} {remedy}"
    return kind(text, resource=uri)


def _said(answer: Any) -> str:
    return _said_in(getattr(answer, "content", b""), getattr(answer, "status_code", 0))


def _said_in(body: bytes, status: int) -> str:
    """Return the message of an error."""
    with contextlib.suppress(Exception):  # the answer of a proxy on the way need not be Google's JSON
        return str(json.loads(body)["error"]["message"])
    return f"HTTP {status}" if status else ""


def _first_line(error: Exception) -> str:
    return f"{(str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')}."


def _hint(answer: Any) -> float:
    with contextlib.suppress(Exception):  # no answer, no header, or one with a date
        return float(answer.headers["Retry-After"])
    return 0.0


# --- small things -----------------------------------------------------------------------------------------------------


def _emulator() -> str | None:
    """Return the address of the emulator that stands for Cloud Storage: a URL without a slash at its end.

    Raises:
        InvalidArgumentError: The variable holds something else, or what must not be sent or shown.
    """
    given = os.environ.get(EMULATOR, "").strip().rstrip("/")
    if not given:
        return None
    try:
        url = urllib.parse.urlsplit(given if "://" in given else f"http://{given}")
        valid = url.scheme in {"http", "https"} and _HOST.fullmatch(url.netloc) and (url.port or 0) >= 0
    except ValueError:
        valid = None
    if not valid or url.query or url.fragment:
        raise InvalidArgumentError(
            f"{EMULATOR} isn't the address of a storage emulator. Set it to http://host:port, without a user, a "
            "password or a query."
        )
    return url.geturl().rstrip("/")


def _is_loopback(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return the scheme, host and port of an address.

    Raises:
        ValueError: It isn't an address.
    """
    parts = urllib.parse.urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    if "@" in parts.netloc:
        raise ValueError("user")
    return parts.scheme, parts.hostname, parts.port or default


def _encoding(blob: Any) -> str:
    """Return the encoding that an object is stored in, or an empty string if it's stored as it is."""
    encoding = str(blob.content_encoding or "").strip().lower()
    return "" if encoding == "identity" else encoding


def _split(uri: str) -> tuple[str, str]:
    """The bucket and the directory, which has no slash at its end."""
    bucket, _, directory = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not bucket:
        raise InvalidArgumentError(f"{uri!r} is not in Cloud Storage: 'gs://bucket/directory' is.")
    return bucket, directory.rstrip("/")


def _safe(name: str, uri: str) -> PurePosixPath:
    """The path of an object below the folder, if it is below the folder on every system.

    Raises:
        InvalidArgumentError: It is not.
    """
    if not _stays(name):
        raise InvalidArgumentError(
            f"{uri} holds an object of the name {name!r}, which would not lie in the folder. Nothing was fetched.",
            resource=uri,
        )
    return PurePosixPath(name)


def _stays(name: str, *, windows: bool = os.name == "nt") -> bool:
    """Whether a name can only be that of a file below the folder.

    A backslash and a colon are refused on every system, so that what one has sent every other can fetch: on Windows
    they part a path, and name a drive or a hidden stream of a file. The names of devices are refused on Windows only.
    https://learn.microsoft.com/windows/win32/fileio/naming-a-file
    """
    parts = name.split("/")
    if any(part in {"", ".", ".."} or not _FOREIGN.isdisjoint(part) for part in parts):
        return False
    return not (windows and any(_DEVICE.match(part) or part.endswith((".", " ")) for part in parts))


def _appear(whole: Path, folder: Path) -> None:
    try:
        whole.rename(folder)
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
            raise
        raise AlreadyExistsError(f"{folder} has appeared meanwhile.", resource=str(folder)) from error


def _fill(whole: Path, folder: Path) -> None:
    """Move what is in a folder below another into that one, all of it or nothing."""
    if {path.name for path in folder.iterdir()} != {whole.parent.name}:
        raise AlreadyExistsError(f"Something has appeared in {folder} meanwhile.", resource=str(folder))
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
        raise RegistryError(f"{uri} has {size:,} bytes, and there is room for {free:,} in {folder}.", resource=uri)


def _key(uri: str, blobs: Mapping[PurePosixPath, Any]) -> str:
    """What the cache knows a directory's content by. "Each generation of an object has one content", for good."""
    found = sorted((str(path), int(blob.generation), _encoding(blob)) for path, blob in blobs.items())
    told = json.dumps([_emulator(), uri.rstrip("/"), found])
    return hashlib.sha256(told.encode()).hexdigest()[:40]


def _sum(file: LocalFile, stopped: threading.Event, advance: Callable[[int], None]) -> _Sum:
    sha256, crc, size = hashlib.sha256(), 0, 0
    try:
        with file.path.open("rb") as stream:
            while data := stream.read(_BLOCK):
                if stopped.is_set():
                    raise _StoppedError
                sha256.update(data)
                crc = _crc32c(data, crc)
                size += len(data)
                advance(len(data))
    except OSError as error:
        raise InvalidArgumentError(f"{str(file.path)!r} cannot be read: {error.strerror}.") from error
    if size != file.size:
        raise _changed(file)
    return _Sum(sha256.digest(), crc, size)


def _crc32c(data: bytes, crc: int = 0) -> int:
    try:
        import google_crc32c  # noqa: PLC0415  # of the extra
    except ImportError as error:
        raise RegistryError(_NOT_INSTALLED) from error
    value: int = google_crc32c.extend(crc, data)
    return value


def _crc32c_of(stream: Any, stopped: threading.Event, end: int | None = None) -> int:
    """The CRC32C of the first bytes of a file, or of all of it; the file is left where they end."""
    stream.seek(0)
    crc = done = 0
    while data := stream.read(_BLOCK if end is None else min(_BLOCK, end - done)):
        if stopped.is_set():
            raise _StoppedError
        crc = _crc32c(data, crc)
        done += len(data)
    return crc


def _base64(crc: int) -> str:
    """As Cloud Storage writes it: "encoded using base64 in big-endian byte order"."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def _opened(file: LocalFile) -> IO[bytes]:
    """The file, to be read a second time."""
    try:
        return file.path.open("rb")
    except OSError as error:
        raise _changed(file) from error


def _changed(file: LocalFile) -> ConflictError:
    return ConflictError(
        f"{file.path} changed while it was sent. Nothing was registered. Try again when it is written to no more.",
        resource=str(file.path),
    )


@contextlib.contextmanager
def _writing(uri: str, remedy: str) -> Iterator[None]:
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
        what = "there is no room" if error.errno in _FULL else (error.strerror or type(error).__name__).lower()
        where = f" in {error.filename}" if error.filename else ""
        advice = f" {remedy}" if error.errno in _FORBIDDEN else ""
        raise RegistryError(f"{uri} was not fetched: {what}{where}. Nothing was kept.{advice}", resource=uri) from error


def _files(items: Sized) -> str:
    return f"{len(items):,} file" + ("s" if len(items) != 1 else "")


def _tqdm() -> Any:
    """What draws a bar, or None where it is not installed: a bar is worth no error."""
    try:
        from tqdm import TqdmWarning  # noqa: PLC0415  # of the extra

        with warnings.catch_warnings():
            # In a notebook without ipywidgets it draws the bar in text, and says so of itself.
            warnings.simplefilter("ignore", TqdmWarning)
            from tqdm.auto import tqdm  # noqa: PLC0415
    except ImportError:
        return None
    return tqdm


def _on_terminal() -> bool:
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, ValueError):  # there is none, as under pythonw; one of somebody's own; a closed one
        return False


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    # Colab's shell is a class of its own, below the one that every kernel has.
    return any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)
