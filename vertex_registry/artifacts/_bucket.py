"""The interface that uploads and downloads need of a bucket, which may be Cloud Storage or something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from vertex_registry.artifacts._local import LocalFile


@attrs.frozen
class StoredObject:
    """An object in a bucket.

    Attributes:
        name: Its whole name.
        size: The number of its stored bytes.
        crc: Their checksum, in base64: the one that `Bucket.checksum` computes.
        generation: The number of its content, which never changes.
        encoding: The ``Content-Encoding`` that it's stored in, or an empty string if it's stored as it is.
    """

    name: str
    size: int
    crc: str
    generation: int
    encoding: str = ""

    def __attrs_post_init__(self) -> None:
        if self.size < 0 or self.generation < 0:
            raise ValueError(self.size, self.generation)


@attrs.frozen
class Upload:
    """A file that is going to be an object.

    Attributes:
        file: The file.
        crc: The checksum of its bytes.
        name: The name of the object.
        generation: The generation of the object to replace, or 0 if there is none.
    """

    file: LocalFile
    crc: int
    name: str
    generation: int


class GenerationChangedError(Exception):
    """Somebody else created or replaced an object; nobody outside of this package sees this error."""


class Sink(Protocol):
    """Takes bytes. If a request has to be sent again, it starts over."""

    def start(self) -> None:
        """Forget what was written."""

    def write(self, data: bytes) -> object:
        """Take the next bytes."""


class Bucket(Protocol):
    """A place for objects.

    Each method ends, and raises `RegistryError` for everything that the caller can't act on.
    """

    def checksum(self, data: bytes, before: int = 0) -> int:
        """Return the checksum of some bytes, or of the bytes before and these, in 32 bits."""

    @property
    def server(self) -> str | None:
        """Return what distinguishes buckets with the same name, such as the address of an emulator."""

    @property
    def holds_only_uploads(self) -> bool:
        """Return whether each directory whose name is a digest has to hold exactly what was uploaded there."""

    def uri(self, name: str) -> str:
        """Return the URI of an object."""

    def list_objects(self, prefix: str) -> list[StoredObject]:
        """Return all objects whose names begin with a prefix."""

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return the names directly under a prefix, without it; those of directories end in a slash."""

    def stat(self, name: str) -> StoredObject:
        """Return what is stored under a name."""

    def send(self, upload: Upload, stopped: threading.Event, advance: Callable[[int], None]) -> StoredObject:
        """Store a file, and return what was stored.

        Args:
            upload: The file, and the generation that it replaces.
            stopped: What is set when nobody needs the result any more.
            advance: Called with the number of bytes after every part that was sent.

        Raises:
            GenerationChangedError: Another generation is stored there.
            ConflictError: The file changed during the upload.
        """

    def copy(self, stored: StoredObject, part: range, sink: Sink, stopped: threading.Event) -> None:
        """Copy a range of the stored bytes of an object, piece by piece.

        Raises:
            GenerationChangedError: Another generation is stored there.
        """

    def delete(self, stored: StoredObject) -> None:
        """Delete an object if it's still this generation. It isn't an error if that fails."""
