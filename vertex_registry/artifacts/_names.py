"""Names of objects and of the files that they become."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath
from typing import Final

from vertex_registry._quoting import quote
from vertex_registry.errors import InvalidArgumentError

#: "Object names can contain any sequence of valid Unicode characters, of length 1-1024 bytes when UTF-8 encoded", and
#: neither carriage return nor line feed. https://cloud.google.com/storage/docs/objects#naming
MAX_OBJECT_NAME: Final = 1024

_UNSAFE_CHARACTERS: Final = frozenset("\\:\0") | {chr(code) for code in range(0xD800, 0xE000)}  # lone surrogates
_DEVICE: Final = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³]|conin\$|conout\$)\s*(?:\.|$)", re.IGNORECASE)


def split_uri(uri: str) -> tuple[str, str]:
    """Return the bucket and the directory of a URI; the directory has no slash at its end.

    Raises:
        InvalidArgumentError: The URI isn't one of Cloud Storage.
    """
    bucket, _, directory = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not bucket:
        raise InvalidArgumentError(f"{quote(uri)} isn't in Cloud Storage. Use a URI such as 'gs://bucket/directory'.")
    return bucket, directory.rstrip("/")


def safe_path(name: str, uri: str) -> PurePosixPath:
    """Return the path of an object below the folder that is downloaded.

    Raises:
        InvalidArgumentError: It wouldn't be below that folder on every system.
    """
    if not is_safe_name(name):
        raise InvalidArgumentError(
            f"{uri} holds an object named {quote(name)}, which would be written outside the folder, so nothing was "
            "downloaded. Rename or delete it.",
            resource=uri,
        )
    return PurePosixPath(name)


def is_safe_name(name: str, *, windows: bool = os.name == "nt") -> bool:
    """Return whether a name can only be that of a file below the folder.

    A backslash and a colon are refused on every system, so that every system can download what another uploaded: on
    Windows they separate a path, and name a drive or a hidden stream of a file. Names of devices are refused on Windows
    only. https://learn.microsoft.com/windows/win32/fileio/naming-a-file
    """
    parts = name.split("/")
    if any(part in {"", ".", ".."} or not _UNSAFE_CHARACTERS.isdisjoint(part) for part in parts):
        return False
    return not (windows and any(_DEVICE.match(part) or part.endswith((".", " ")) for part in parts))
