"""The cache on this machine: downloaded models, and the sessions of uploads. It belongs to one user.

A model is used again only if each of its files has the size and SHA-256 that were recorded when it was downloaded.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vertex_registry.artifacts._checksums import sha256_of
from vertex_registry.artifacts._parallel import run_in_parallel
from vertex_registry.artifacts._private import check_private_folder, files_below, open_private
from vertex_registry.errors import RegistryError

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping
    from pathlib import PurePosixPath

    from vertex_registry.artifacts._bucket import StoredObject

SET_CACHE: Final = "set XDG_CACHE_HOME to a folder of your own."

_LOG: Final = logging.getLogger("vertex_registry")


class Cache:
    """The folders of the cache.

    Args:
        folder: The cache. Defaults to ``$XDG_CACHE_HOME/vertex-registry``, or the same in ``~/.cache``.
        workers: How many files to compare at once.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, workers: int) -> None:
        self._folder = None if folder is None else Path(folder)
        self._workers = workers

    def models(self) -> Path:
        """Return the folder for downloads, which is created if it doesn't exist.

        Raises:
            RegistryError: There's no home directory, or the cache isn't this user's alone.
            OSError: The folder can't be created.
        """
        return self._private_folder("models")

    def sessions(self) -> Path | None:
        """Return the folder for uploads that can be resumed, or None if there can be none."""
        try:
            return self._private_folder("uploads")
        except (RegistryError, OSError) as error:
            _LOG.info("uploads can't be resumed by another process: %s", error)
            return None

    def is_whole(self, folder: Path, objects: Mapping[PurePosixPath, StoredObject]) -> bool:
        """Return whether a folder of the cache holds what was downloaded to it, and nobody else wrote there."""

        def is_same(item: tuple[str, tuple[int, str]], stopped: threading.Event) -> bool:
            name, (size, sha256) = item
            try:
                with open_private(folder / name) as file:
                    return os.fstat(file.fileno()).st_size == size and sha256_of(file, stopped) == sha256
            except OSError:
                return False

        try:
            check_private_folder(folder)
            record = _read_record(record_of(folder))
            found = set(files_below(folder))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False
        if not found == set(record) == set(map(str, objects)):
            return False
        return all(run_in_parallel(list(record.items()), is_same, self._workers))

    def _private_folder(self, name: str) -> Path:
        cache = self._folder
        if cache is None:
            try:
                home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
            except RuntimeError as error:
                raise RegistryError(
                    "There is no folder for the cache: this user has no home directory. Name a destination, or "
                    f"{SET_CACHE}"
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
                f"The cache in {error.filename} isn't used: {error.strerror}. Remove the folder, or {SET_CACHE}",
                resource=str(error.filename),
            ) from error
        return cache / name


def entry_name(uri: str, server: str | None, objects: Mapping[PurePosixPath, StoredObject]) -> str:
    """Return the name of a directory's content in the cache: each generation of an object has one content, for good."""
    found = sorted((str(path), stored.generation, stored.encoding) for path, stored in objects.items())
    key = json.dumps([server, uri.rstrip("/"), found])
    return hashlib.sha256(key.encode()).hexdigest()[:40]


def record_of(folder: Path) -> Path:
    """Return the file with the size and SHA-256 of each file of a folder."""
    return folder.with_name(f"{folder.name}.json")


def write_record(path: Path, files: Mapping[str, tuple[int, str]]) -> None:
    """Write the size and SHA-256 of each file into a new file."""
    with open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, "w", encoding="utf-8") as file:
        json.dump(files, file)


def remove(path: Path) -> None:
    """Remove a folder, or whatever else has its name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _read_record(path: Path) -> dict[str, tuple[int, str]]:
    with open_private(path, mode="r", encoding="utf-8") as file:
        return {str(name): (int(size), str(sha256)) for name, (size, sha256) in json.load(file).items()}
