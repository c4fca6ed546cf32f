"""Which files of a folder are uploaded, and the digest of their content."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import logging
import os
import re
import stat
import unicodedata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import attrs

from vertex_registry._quoting import quote
from vertex_registry.artifacts._checksums import BLOCK
from vertex_registry.artifacts._names import MAX_OBJECT_NAME, is_safe_name
from vertex_registry.artifacts._parallel import StoppedError
from vertex_registry.errors import ConflictError, InvalidArgumentError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping

_LOG: Final = logging.getLogger("vertex_registry")

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
    "MLflow": ("registered_model_meta",),
}

#: The most files of a model, so that neither a folder nor a listing can take up all memory.
MAX_FILES: Final = 100_000
#: The most links of a folder that are followed. Links to folders of links multiply.
MAX_LINKS: Final = 10_000
#: The most paths in one line of the log.
_CHECK_PATH: Final = "Check the path and its permissions."
_LOGGED: Final = 20


@attrs.frozen
class LocalFile:
    """A file to upload.

    Attributes:
        name: Its path below the folder, with slashes.
        path: Its path on this machine.
        size: Its size in bytes when the folder was scanned.
    """

    name: str
    path: Path
    size: int


@attrs.frozen
class LocalDirectory:
    """A folder to upload, or a single file.

    Attributes:
        source: What the caller named.
        files: Its files, ordered by name.
    """

    source: str
    files: tuple[LocalFile, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of its files."""
        return tuple(file.name for file in self.files)

    @property
    def paths(self) -> dict[str, Path]:
        """Return where its files are on this machine, by their names."""
        return {file.name: file.path for file in self.files}

    def holds(self, folder: Path) -> bool:
        """Return whether another folder is this one, or is somewhere below it."""
        return is_below(folder, expand_path(self.source))

    @property
    def size(self) -> int:
        """Return the bytes of all its files."""
        return sum(file.size for file in self.files)

    def with_names(self, renames: Mapping[str, str]) -> LocalDirectory:
        """Return the same folder, with some files uploaded under other names.

        Args:
            renames: The names of these files, each with its new name.
        """
        files = (attrs.evolve(file, name=renames.get(file.name, file.name)) for file in self.files)
        return attrs.evolve(self, files=tuple(sorted(files, key=lambda file: file.name)))

    def without_file(self, name: str) -> LocalDirectory:
        """Return the same folder without the file of that name, if it has one."""
        return attrs.evolve(self, files=tuple(file for file in self.files if file.name != name))

    def with_file(self, name: str, path: Path) -> LocalDirectory:
        """Return the same folder with one more file.

        Args:
            name: Its name below the folder.
            path: Where it is on this machine.

        Raises:
            InvalidArgumentError: It can't be read.
        """
        try:
            added = LocalFile(name, path, path.stat().st_size)
        except OSError as error:
            raise InvalidArgumentError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
        return attrs.evolve(self, files=tuple(sorted((*self.files, added), key=lambda file: file.name)))


@attrs.frozen
class Checksums:
    """The checksums of a file, and how many bytes they are of."""

    sha256: bytes
    crc: int
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
    root = expand_path(source)
    links = _Links(str(root), os.path.realpath(root), follow_links)
    files: dict[str, LocalFile] = {}
    for given, path in _list_files(root, links):
        # macOS returns names in another normal form than other systems; the digest must not depend on it.
        name = unicodedata.normalize("NFC", given)
        try:
            length = len(name.encode())
        except UnicodeEncodeError:
            raise InvalidArgumentError(f"The file name {quote(given)} isn't text. Rename the file.") from None
        if length > MAX_OBJECT_NAME or "\n" in name or "\r" in name:
            raise InvalidArgumentError(f"Cloud Storage doesn't allow an object named {quote(name)}. Rename the file.")
        try:
            status = path.stat()
        except OSError as error:
            raise InvalidArgumentError(f"{quote(str(path))} can't be read: {error.strerror}. {_CHECK_PATH}") from error
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgumentError(f"{quote(str(path))} isn't a regular file, so it can't be uploaded. Remove it.")
        if not is_safe_name(name):
            raise InvalidArgumentError(f"A file named {quote(name)} couldn't be downloaded again. Rename it.")
        if name in files:
            raise InvalidArgumentError(
                f"Two files in {quote(str(source))} have the name {quote(name)} in Unicode's normal form. Rename one."
            )
        files[name] = LocalFile(name, path, status.st_size)
    if not files:
        raise InvalidArgumentError(
            f"There are no files in {quote(str(source))}. Name the folder that the model was saved to."
        )
    links.log()
    return LocalDirectory(os.fspath(source), tuple(files[name] for name in sorted(files)))


def is_ignored(name: str) -> bool:
    """Return whether a path below a folder matches one of the patterns in `IGNORED`."""
    path = name.lower()
    return bool(_IGNORED_NAME.match(path.rpartition("/")[2]) or _IGNORED_PATH.match(path))


def _pattern(*, paths: bool) -> re.Pattern[str]:
    """Return what matches any of the patterns in `IGNORED` that are of paths, or of names."""
    patterns = (pattern for group in IGNORED.values() for pattern in group if ("/" in pattern) is paths)
    return re.compile("|".join(fnmatch.translate(pattern.lower()) for pattern in patterns))


_IGNORED_NAME: Final = _pattern(paths=False)
_IGNORED_PATH: Final = _pattern(paths=True)


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
                f"{quote(str(path))} is a link that leads out of {quote(self.folder)}, so nothing was uploaded. "
                "Remove it, or pass follow_links=True to upload what it leads to."
            )
        self.followed.append(f"{name} -> {target}")
        if len(self.followed) > MAX_LINKS:
            raise InvalidArgumentError(
                f"{quote(self.folder)} has more than {MAX_LINKS:,} links. Upload a copy without links."
            )
        return target

    def log(self) -> None:
        for what, paths in (("followed links", self.followed), ("left out", self.skipped)):
            if paths:
                more = f" and {len(paths) - _LOGGED} more" if len(paths) > _LOGGED else ""
                _LOG.info("upload of %s: %s: %s%s", self.folder, what, ", ".join(paths[:_LOGGED]), more)


def _blobs_of(root: str) -> str | None:
    """Return where a Hugging Face cache keeps the files of a snapshot, if the folder is in one.

    The cache has ``REPOSITORY/blobs/HASH``, and links to these in ``REPOSITORY/snapshots/REVISION``.
    """
    for folder in (Path(root), *Path(root).parents):
        if folder.parent.name == "snapshots":
            return str(folder.parent.parent / "blobs")
    return None


def _list_files(root: Path, links: _Links) -> list[tuple[str, Path]]:
    try:
        if root.is_file():
            return [(root.name, root)]
        if root.is_dir():
            found = list(itertools.islice(_files_below(root, links.root, "", frozenset(), links), MAX_FILES + 1))
            if len(found) > MAX_FILES:
                raise InvalidArgumentError(
                    f"{quote(str(root))} holds more than {MAX_FILES:,} files. Name the folder of one model."
                )
            return found
        what = "is neither a file nor a folder" if root.exists() else "doesn't exist"
    except OSError as error:
        raise InvalidArgumentError(f"{quote(str(root))} can't be read: {error.strerror}. {_CHECK_PATH}") from error
    raise InvalidArgumentError(f"{quote(str(root))} {what}. Name the folder that the model was saved to.")


def expand_path(given: str | os.PathLike[str]) -> Path:
    """Return a path that a caller gave, with ``~`` resolved.

    Raises:
        InvalidArgumentError: It isn't a path.
    """
    try:
        path = Path(given).expanduser()
    except (RuntimeError, TypeError) as error:
        raise InvalidArgumentError(f"{quote(given)} isn't a path: {error}") from error
    if not os.fspath(given):
        raise InvalidArgumentError("'' isn't a path. For the current folder, pass '.'.")
    if "\0" in str(path):
        raise InvalidArgumentError(f"{quote(os.fspath(given))} isn't a path, because it contains a null character.")
    return path


def is_below(path: Path, folder: Path) -> bool:
    """Return whether a path is a folder or something below it, whichever links lead there."""
    real = Path(os.path.realpath(path))
    return Path(os.path.realpath(folder)) in (real, *real.parents)


def _files_below(
    folder: Path, real: str, prefix: str, above: frozenset[str], links: _Links
) -> Iterator[tuple[str, Path]]:
    """Yield the names and paths of the files below a folder.

    Args:
        folder: The folder, by its path through links.
        real: Its path without links, through which everything is read.
        prefix: What the names begin with.
        above: The real paths of the folders that it's in.
        links: What decides about links.
    """
    if real in above:
        raise InvalidArgumentError(f"{quote(str(folder))} is a link to a folder that contains it. Remove the link.")
    try:
        entries = sorted(os.scandir(real), key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidArgumentError(f"{quote(str(folder))} can't be read: {error.strerror}. {_CHECK_PATH}") from error
    for entry in entries:
        name, path = f"{prefix}{entry.name}", folder / entry.name
        if is_ignored(name):
            links.skipped.append(name)
            continue
        target = links.check(name, path, entry.path) if entry.is_symlink() else entry.path
        if entry.is_dir():
            yield from _files_below(path, target, f"{name}/", above | {real}, links)
        else:
            yield name, path


def digest(files: Iterable[tuple[str, bytes]]) -> str:
    """Return the digest of a folder's content, from the names of its files and the SHA-256 of each: 40 hex digits.

    It depends on nothing else: not on the order, the machine, the folder's own name, times or permissions.
    """
    total = hashlib.sha256()
    for name, sha256 in sorted((name.encode(), sha256) for name, sha256 in files):
        total.update(len(name).to_bytes(4, "big") + name + sha256)
    return total.hexdigest()[:40]


def checksum(
    file: LocalFile, stopped: threading.Event, advance: Callable[[int], None], crc_of: Callable[[bytes, int], int]
) -> Checksums:
    """Read a file once, and return its checksums.

    Args:
        file: The file.
        stopped: What is set when nobody needs the result any more.
        advance: Called with the number of bytes, after each read.
        crc_of: The bucket's own checksum.

    Raises:
        InvalidArgumentError: It can't be read.
        ConflictError: Its size isn't what it was when the folder was scanned.
    """
    sha256, crc, size = hashlib.sha256(), 0, 0
    try:
        with file.path.open("rb") as stream:
            while data := stream.read(BLOCK):
                if stopped.is_set():
                    raise StoppedError
                sha256.update(data)
                crc = crc_of(data, crc)
                size += len(data)
                advance(len(data))
    except OSError as error:
        raise InvalidArgumentError(f"{quote(str(file.path))} can't be read: {error.strerror}. {_CHECK_PATH}") from error
    if size != file.size:
        raise changed_error(file)
    return Checksums(sha256.digest(), crc, size)


def open_again(file: LocalFile) -> IO[bytes]:
    """Open a file that was read before."""
    try:
        return file.path.open("rb")
    except OSError as error:
        raise changed_error(file) from error


def changed_error(file: LocalFile) -> ConflictError:
    """Return the error for a file that changed after it was scanned."""
    return ConflictError(
        f"{file.path} changed during the upload, so nothing was registered. Try again when nobody writes to it.",
        resource=str(file.path),
    )
