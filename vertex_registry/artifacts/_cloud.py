"""A bucket of Cloud Storage."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from vertex_registry import _waiting
from vertex_registry.artifacts._bucket import GenerationChangedError
from vertex_registry.artifacts._checksums import crc32c
from vertex_registry.artifacts._google import (
    PRECONDITION_FAILED,
    FailedRequestError,
    emulator_address,
    from_blob,
    from_response,
    verb_of,
)
from vertex_registry.artifacts._local import MAX_FILES, changed_error, open_again
from vertex_registry.artifacts._sessions import ResumableUpload
from vertex_registry.errors import RegistryError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vertex_registry.artifacts._bucket import Sink, StoredObject, Upload
    from vertex_registry.artifacts._google import (
        CloudStorage,
    )

#: The most bytes of one request; a file of no more is one request. "The chunk size should be a multiple of 256 KiB",
#: and "at least 8 MiB". https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload
CHUNK: Final = 16 * 2**20


class CloudBucket:
    """A bucket of Cloud Storage, or of an emulator of it.

    Args:
        storage: What sends the requests.
        name: The bucket's name.
        chunk: The most bytes of one request.
        sessions: What returns the folder for the files of sessions, or None if there is none.
    """

    def __init__(self, storage: CloudStorage, name: str, chunk: int, sessions: Callable[[], Path | None]) -> None:
        self._storage = storage
        self._name = name
        self._sessions = sessions
        self.chunk = chunk

    def checksum(self, data: bytes, before: int = 0) -> int:
        """Return the CRC32C of some bytes, or of the bytes before and these."""
        return crc32c(data, before)

    @property
    def server(self) -> str | None:
        """Return the address of the emulator, or None for Cloud Storage itself."""
        return emulator_address()

    @property
    def holds_only_uploads(self) -> bool:
        """Return False: anything may be in a bucket, such as a directory that's named after a commit."""
        return False

    def uri(self, name: str) -> str:
        """Return the URI of an object."""
        return f"gs://{self._name}/{name}"

    def list_objects(self, prefix: str) -> list[StoredObject]:
        """Return all objects whose names begin with a prefix."""
        uri = self.uri(prefix).rstrip("/")

        def request() -> list[StoredObject]:
            found = self._storage.connection().client.list_blobs(
                self._name, prefix=prefix, retry=None, timeout=self._storage.timeout
            )
            return [from_blob(blob) for blob in self._all_pages(found, uri)]

        return self._storage.with_retries("list", uri, request)

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return the names directly under a prefix, without it; those of directories end in a slash."""
        uri = self.uri(prefix).rstrip("/")

        def request() -> tuple[str, ...]:
            found = self._storage.connection().client.list_blobs(
                self._name, prefix=prefix, delimiter="/", retry=None, timeout=self._storage.timeout
            )
            names = {blob.name for blob in self._all_pages(found, uri)}
            return tuple(sorted(name.removeprefix(prefix) for name in names | set(found.prefixes) if name != prefix))

        return self._storage.with_retries("list", uri, request)

    def stat(self, name: str) -> StoredObject:
        """Return what is stored under a name."""
        blob = self._blob(name)

        def request() -> StoredObject:
            blob.reload(retry=None, timeout=self._storage.timeout)
            return from_blob(blob)

        return self._storage.with_retries("get", self.uri(name), request)

    def send(self, upload: Upload, stopped: threading.Event, advance: Callable[[int], None]) -> StoredObject:
        """Store a file, and return what Cloud Storage says was stored."""
        try:
            if upload.file.size > self.chunk:
                resumable = ResumableUpload(self._storage, self._name, upload, self.chunk, stopped)
                return resumable.send(self._sessions(), advance)
            stored = self._post(upload, stopped)
        except FailedRequestError as failure:
            raise GenerationChangedError from failure
        advance(upload.file.size)
        return stored

    def copy(self, stored: StoredObject, part: range, sink: Sink, stopped: threading.Event) -> None:
        """Copy a range of the stored bytes of an object, piece by piece."""

        def request() -> None:
            sink.start()
            self._storage.connection().get(self._name, stored, part, self._storage.timeout, sink.write)

        try:
            self._storage.with_retries(
                "get", self.uri(stored.name), request, unless=(PRECONDITION_FAILED,), stopped=stopped
            )
        except FailedRequestError as failure:
            raise GenerationChangedError from failure

    def delete(self, stored: StoredObject) -> None:
        """Delete an object if it's still this generation."""
        with contextlib.suppress(Exception):  # it was not registered; the next upload replaces it
            self._blob(stored.name).delete(
                if_generation_match=stored.generation, retry=None, timeout=self._storage.timeout
            )

    def _post(self, upload: Upload, stopped: threading.Event) -> StoredObject:
        with open_again(upload.file) as stream:
            data = stream.read(upload.file.size + 1)
        if len(data) != upload.file.size or crc32c(data) != upload.crc:
            raise changed_error(upload.file)

        def request() -> StoredObject:
            answer = self._storage.connection().post(self._name, upload, data, self._storage.timeout)
            return from_response(answer, upload.name)

        return self._storage.with_retries(
            verb_of(upload), self.uri(upload.name), request, unless=(PRECONDITION_FAILED,), stopped=stopped
        )

    def _blob(self, name: str) -> Any:
        return self._storage.connection().client.bucket(self._name).blob(name)

    def _all_pages(self, found: Any, uri: str) -> Iterator[Any]:
        """Yield the objects of a listing, and end even if the server always names another page."""
        budget = _waiting.Budget(self._storage.retry, self._storage.retry.operation_timeout)
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
