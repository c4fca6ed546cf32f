"""Files and folders that nobody but this user can have written, opened without following links."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


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
        raise PermissionError(errno.EPERM, "it's a link or a file", str(path))
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


def files_below(folder: Path, prefix: str = "") -> Iterator[str]:
    """Yield the paths of all files below a folder.

    Raises:
        PermissionError: There's a link, a pipe or the like.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from files_below(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield f"{prefix}{entry.name}"
            else:
                raise PermissionError(errno.EPERM, "it isn't a regular file", entry.path)


def _check_own_file(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise PermissionError(errno.EPERM, "it isn't a regular file", str(path))
    _check_owner(status, path)


def _check_owner(status: os.stat_result, path: Path) -> None:
    if not _is_own(status):
        raise PermissionError(errno.EPERM, "it belongs to another user", str(path))
    if os.name != "nt" and status.st_mode & _WRITABLE_BY_OTHERS:
        raise PermissionError(errno.EPERM, "other users can write to it", str(path))


def _is_own(status: os.stat_result) -> bool:
    return os.name == "nt" or status.st_uid == os.geteuid()
