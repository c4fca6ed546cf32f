"""Checksums of files: CRC32C, which Cloud Storage compares, and SHA-256, which nobody can forge."""

from __future__ import annotations

import base64
import hashlib
from typing import IO, TYPE_CHECKING, Any, Final

from vertex_registry.artifacts._parallel import StoppedError
from vertex_registry.errors import RegistryError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

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


class Joined:
    """The checksum of bytes that come in parts, from the checksums of the parts.

    A CRC is linear: the part before is moved on by as many zeros as the next one has bytes. The effect of one zero byte
    on each of the 32 bits shows in the CRC itself, so this needs no polynomial.

    Args:
        crc: A function that returns the CRC of some bytes, or of the bytes before and these.
    """

    def __init__(self, crc: Callable[[bytes, int], int]) -> None:
        self._zero = [crc(b"\0", 1 << bit) ^ crc(b"\0", 0) for bit in range(32)]
        self._moves: dict[int, list[int]] = {}

    def join(self, parts: Iterable[tuple[int, int]]) -> int:
        """Return the checksum of all parts, each of which is its checksum and its number of bytes."""
        total = 0
        for crc, size in parts:
            if size not in self._moves:
                self._moves[size] = self._move(size)
            total = _apply(self._moves[size], total) ^ crc
        return total

    def _move(self, zeros: int) -> list[int]:
        """Return what so many zero bytes do to each bit."""
        moved, step = [1 << bit for bit in range(32)], self._zero
        while zeros:
            if zeros & 1:
                moved = [_apply(step, bits) for bits in moved]
            step = [_apply(step, bits) for bits in step]
            zeros >>= 1
        return moved


def _apply(move: list[int], bits: int) -> int:
    result = 0
    for moved in move:
        if bits & 1:
            result ^= moved
        bits >>= 1
    return result


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
