"""A bucket that is a folder on this machine, for a registry that runs on this machine.

An object is a file below the folder, so nothing has to be installed or running. The folder belongs to one user, and no
name leads out of it. Objects appear whole, and any number of processes may use the folder at once.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from vertex_registry.artifacts._bucket import GenerationChangedError, StoredObject
from vertex_registry.artifacts._checksums import BLOCK, to_base64
from vertex_registry.artifacts._local import MAX_FILES, changed_error, open_again
from vertex_registry.artifacts._names import is_safe_name
from vertex_registry.artifacts._parallel import StoppedError
from vertex_registry.artifacts._private import check_private_folder, files_below, open_private
from vertex_registry.errors import InvalidArgumentError, NotFoundError, RegistryError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from vertex_registry.artifacts._bucket import Sink, Upload

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: How the names of files begin that are still being written. No model ID begins like this.
_UNFINISHED: Final = ".upload-"


class FolderBucket:
    """A bucket that is a folder on this machine.

    Args:
        name: The bucket's name.
        folder: The folder. It's created with the first upload.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._sums: dict[tuple[str, int], int] = {}

    def checksum(self, data: bytes, before: int = 0) -> int:
        """Return the CRC32 of these bytes, continuing another one. Python's own is fast and needs no package."""
        return zlib.crc32(data, before)

    @property
    def server(self) -> str | None:
        """Return the folder, which distinguishes this bucket from those of other registries."""
        return str(self._folder)

    @property
    def holds_only_uploads(self) -> bool:
        """Return True: nothing else writes to the folder, so other bytes than the uploaded ones are damage."""
        return True

    def uri(self, name: str) -> str:
        """Return the URI of an object."""
        return f"gs://{self._name}/{name}"

    def list_objects(self, prefix: str) -> list[StoredObject]:
        """Return all objects whose names begin with a prefix."""
        with self._explain(prefix):
            objects = []
            for name in self._names(prefix):
                with contextlib.suppress(FileNotFoundError), open_private(self._path(name)) as file:
                    objects.append(self._stored(name, file))
            return objects

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return the names directly under a prefix, without it; those of directories end in a slash."""
        with self._explain(prefix):
            below = (name.removeprefix(prefix).partition("/") for name in self._names(prefix))
            return tuple(sorted({first + slash for first, slash, _ in below}))

    def stat(self, name: str) -> StoredObject:
        """Return what is stored under a name."""
        with self._explain(name), open_private(self._path(name)) as file:
            return self._stored(name, file)

    def send(self, upload: Upload, stopped: threading.Event, advance: Callable[[int], None]) -> StoredObject:
        """Store a file, and return what was stored."""
        target = self._path(upload.name)
        with self._explain(upload.name):
            self._create_folders(target.parent)
            with open_again(upload.file) as source, self._unfinished() as (path, file):
                crc = size = 0
                while data := source.read(min(BLOCK, upload.file.size + 1 - size)):
                    if stopped.is_set():
                        raise StoppedError
                    file.write(data)
                    crc, size = self.checksum(data, crc), size + len(data)
                    advance(len(data))
                if (size, crc) != (upload.file.size, upload.crc):
                    raise changed_error(upload.file)
                file.flush()
                os.fsync(file.fileno())
                file.close()  # Windows gives no open file another name
                _publish(path, target, upload.generation)
        return self.stat(upload.name)

    def copy(self, stored: StoredObject, part: range, sink: Sink, stopped: threading.Event) -> None:
        """Copy a range of the bytes of an object."""
        if stopped.is_set():
            raise StoppedError
        with self._explain(stored.name), open_private(self._path(stored.name)) as file:
            file.seek(part.start)
            data: bytes = file.read(len(part))
            if _generation(os.fstat(file.fileno())) != stored.generation:
                raise GenerationChangedError
        sink.start()
        sink.write(data)

    def delete(self, stored: StoredObject) -> None:
        """Delete an object if it's still this generation."""
        with contextlib.suppress(OSError):
            path = self._path(stored.name)
            if _generation(path.lstat()) == stored.generation:
                path.unlink()

    def _names(self, prefix: str) -> list[str]:
        """Return the names of all objects that begin with a prefix."""
        directory = prefix.rpartition("/")[0]
        try:
            self._check_private()
            found = files_below(self._path(directory) if directory else self._folder, f"{directory}/".lstrip("/"))
            names = [name for name in found if name.startswith(prefix) and not name.startswith(_UNFINISHED)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        if len(names) > MAX_FILES:
            raise RegistryError(
                f"{self.uri(prefix)} holds more files than a model can have. Name the folder of one model.",
                resource=self.uri(prefix),
            )
        return names

    def _path(self, name: str) -> Path:
        """Return the path of an object, or of a directory.

        Raises:
            InvalidArgumentError: It wouldn't be below the folder.
        """
        path = self._folder / name
        if (
            is_safe_name(name)
            and Path(os.path.realpath(path.parent)) == Path(os.path.realpath(self._folder), name).parent
        ):
            return path
        raise InvalidArgumentError(
            f"{self.uri(name)} isn't the name of an artifact: it could lead out of the folder {self._folder}.",
            resource=self.uri(name),
        )

    def _stored(self, name: str, file: IO[bytes]) -> StoredObject:
        status = os.fstat(file.fileno())
        key = (name, _generation(status))
        if (crc := self._sums.get(key)) is None:
            crc = 0
            while data := file.read(BLOCK):
                crc = self.checksum(data, crc)
            self._sums[key] = crc
        return StoredObject(name, status.st_size, to_base64(crc), key[1])

    def _create_folders(self, folder: Path) -> None:
        """Create a folder and those above it, for this user only."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        for created in (
            self._folder,
            *reversed([one for one in folder.parents if self._folder in one.parents]),
            folder,
        ):
            with contextlib.suppress(FileExistsError):
                created.mkdir(mode=0o700)
            if created == self._folder:
                self._check_private()
                _remove_abandoned(created)

    def _check_private(self) -> None:
        try:
            check_private_folder(self._folder, link=True)
        except PermissionError as error:
            if error.errno != errno.EPERM:
                raise
            raise RegistryError(
                f"The artifacts folder {self._folder} isn't used: {error.strerror}. Make it yours alone (chmod go-w), "
                "or name another one with artifacts=.",
                resource=str(self._folder),
            ) from error

    @contextlib.contextmanager
    def _unfinished(self) -> Iterator[tuple[Path, IO[bytes]]]:
        """Open a file that isn't an object yet, and remove what is left of it."""
        descriptor, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=self._folder)
        locked = _lock(descriptor)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield Path(name), file
        finally:
            Path(name).unlink(missing_ok=True)
            if locked is not None:
                os.close(locked)

    @contextlib.contextmanager
    def _explain(self, name: str) -> Iterator[None]:
        """Turn the file system's errors into one that says which artifact they are about."""
        uri = self.uri(name).rstrip("/")
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"{uri} doesn't exist any more in {self._folder}.", resource=uri) from error
        except OSError as error:
            if isinstance(error, RegistryError):
                raise
            raise RegistryError(
                f"{uri} can't be used in the artifacts folder: {error.strerror or type(error).__name__}: "
                f"{error.filename or self._folder}.",
                resource=uri,
            ) from error


def _generation(status: os.stat_result) -> int:
    """Return the number of a file's content, which another content doesn't have: files are replaced, not changed."""
    key = f"{status.st_ino} {status.st_mtime_ns} {status.st_size}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]) + 1


def _publish(path: Path, target: Path, generation: int) -> None:
    """Give a file its name, on condition that the generation that was read (or none) is still there.

    Raises:
        GenerationChangedError: It isn't.
    """
    if generation:
        try:
            current = _generation(target.lstat())
        except FileNotFoundError:
            current = 0
        if current != generation:
            raise GenerationChangedError
        path.replace(target)
        return
    try:
        os.link(path, target)  # unlike a rename, it never replaces a file
    except FileExistsError as error:
        raise GenerationChangedError from error
    except OSError as error:  # a file system without links
        if os.path.lexists(target):
            raise GenerationChangedError from error
        path.rename(target)


def _lock(descriptor: int) -> int | None:
    """Lock a file that is being written, and return what keeps the lock, or None if the system has no locks."""
    if fcntl is None:
        return None
    locked = os.dup(descriptor)
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return locked


def _remove_abandoned(folder: Path) -> None:
    """Remove what uploads left that were killed: files with content that nobody holds the lock of."""
    if fcntl is None:
        return
    for path in folder.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError), open_private(path) as file:
            # A file that was just created is empty and may not be locked yet.
            if os.fstat(file.fileno()).st_size and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
