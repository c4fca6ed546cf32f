"""Checksums of files: CRC32C, which Cloud Storage compares, and SHA-256, which nobody can forge."""

from __future__ import annotations

import base64
import hashlib
from typing import IO, TYPE_CHECKING, Any, Final

from vertex_registry.artifacts._parallel import StoppedError
from vertex_registry.errors import RegistryError

if TYPE_CHECKING:
    import threading

#: How many bytes of a file are read at once.
BLOCK: Final = 2**18

NOT_INSTALLED: Final = (
    "Copying to and from Cloud Storage needs google-cloud-storage, which is not installed: "
    'type pip install "vertex-registry[storage]".'
)


def crc32c(data: bytes, before: int = 0) -> int:
    """Return the CRC32C of some bytes, or of the bytes before and these."""
    try:
        import google_crc32c  # noqa: PLC0415  # of the extra
    except ImportError as error:
        raise RegistryError(NOT_INSTALLED) from error
    value: int = google_crc32c.extend(before, data)
    return value


def crc32c_of(stream: Any, stopped: threading.Event, end: int) -> int:
    """Return the CRC32C of the first bytes of a file, which is left where they end."""
    stream.seek(0)
    crc = done = 0
    while data := stream.read(min(BLOCK, end - done)):
        if stopped.is_set():
            raise StoppedError
        crc = crc32c(data, crc)
        done += len(data)
    return crc


def sha256_of(file: IO[bytes], stopped: threading.Event) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    total = hashlib.sha256()
    while data := file.read(BLOCK):
        if stopped.is_set():
            raise StoppedError
        total.update(data)
    return total.hexdigest()


def to_base64(crc: int) -> str:
    """Return a CRC32C as Cloud Storage writes it: "encoded using base64 in big-endian byte order"."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()
