"""Resumable uploads: a file in chunks, in a session that Cloud Storage keeps for a week.

What Cloud Storage confirmed is written to a file in the cache, so that the next process resumes there. The last chunk
is sent only if all that was read agrees with the file's checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from typing import IO, TYPE_CHECKING, Final, Self

from vertex_registry import _waiting
from vertex_registry.artifacts._bucket import StoredObject
from vertex_registry.artifacts._checksums import crc32c, crc32c_of, to_base64
from vertex_registry.artifacts._google import (
    BYTES,
    PRECONDITION_FAILED,
    FailedRequestError,
    emulator_address,
    error_of,
    from_response,
    origin,
    verb_of,
)
from vertex_registry.artifacts._local import changed_error, open_again
from vertex_registry.artifacts._parallel import StoppedError
from vertex_registry.artifacts._private import open_private

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from vertex_registry.artifacts._bucket import Upload
    from vertex_registry.artifacts._google import (
        CloudStorage,
    )

_RESUME: Final = 308
_GONE: Final = (404, 410)


class ResumableUpload:
    """The upload of one file in chunks.

    Args:
        storage: What sends the requests.
        bucket: The bucket's name.
        upload: The file, and the generation that it replaces.
        chunk: The most bytes of one request; Cloud Storage requires a multiple of 256 KiB.
        stopped: What is set when nobody needs the result any more.
    """

    def __init__(
        self, storage: CloudStorage, bucket: str, upload: Upload, chunk: int, stopped: threading.Event
    ) -> None:
        self._storage = storage
        self._bucket = bucket
        self._upload = upload
        self._chunk = chunk
        self._stopped = stopped
        self._uri = f"gs://{bucket}/{upload.name}"
        self._verb = verb_of(upload)

    def send(self, folder: Path | None, advance: Callable[[int], None]) -> StoredObject:
        """Send the file, or the rest of it, and return what was stored.

        Args:
            folder: The folder with the files of sessions, or None to keep the session to this process.
            advance: Called with the number of bytes after every part that was sent.

        Raises:
            FailedRequestError: Another generation is stored there (`PRECONDITION_FAILED`).
            ConflictError: The file changed during the upload.
            UnavailableError: It got no further within the budget.
        """
        upload, size = self._upload, self._upload.file.size
        crc = summed = shown = furthest = idle = 0
        connection = self._storage.connection()
        with (
            UploadSession(folder, self._uri, upload, connection.endpoint) as session,
            open_again(upload.file) as stream,
        ):
            while not self._stopped.is_set():
                if not session.url:
                    session.begin(connection.session_address(self._begin()))
                before = session.confirmed
                advance(session.confirmed - shown)
                shown = session.confirmed
                if summed != session.confirmed:
                    # Resumed, or started over: what was sent before is read again, so the checksum is of all bytes.
                    crc, summed = crc32c_of(stream, self._stopped, session.confirmed), session.confirmed
                data = stream.read(self._chunk)
                crc, summed = crc32c(data, crc), summed + len(data)
                if not data or summed > size or (summed == size and (crc != upload.crc or stream.read(1))):
                    self._cancel(session)
                    raise changed_error(upload.file)
                stored, message = None, "it confirms no more of the file"
                try:
                    stored = self._put(session, data, crc if summed == size else None)
                except FailedRequestError as failure:
                    session.end()
                    if failure.status == PRECONDITION_FAILED:
                        raise
                    message = failure.message
                if stored is not None:
                    session.end()
                    advance(size - shown)
                    return stored
                if session.confirmed > furthest:
                    furthest, idle = session.confirmed, 0
                elif session.confirmed <= before:
                    idle += 1
                    self._wait(idle, message)
        raise StoppedError

    def _wait(self, idle: int, message: str) -> None:
        """Wait after responses of which none got the file further.

        Only the waits count against the budget: sending again what was lost may take long.
        """
        retry = self._storage.retry
        waits = [_waiting.max_backoff(retry, tries) for tries in range(1, idle + 1)]
        if sum(waits) >= retry.call_timeout:
            raise error_of(FailedRequestError(0, message), self._verb, self._uri, sum(waits))
        self._storage.sleep(self._stopped)(waits[-1] * retry.random())

    def _begin(self) -> str:
        """Start a session, and return its address."""
        blob = self._storage.connection().client.bucket(self._bucket).blob(self._upload.name)
        blob.crc32c = to_base64(self._upload.crc)  # Cloud Storage refuses other bytes than these

        def create() -> str:
            url: str = blob.create_resumable_upload_session(
                BYTES,
                size=self._upload.file.size,
                if_generation_match=self._upload.generation,
                checksum=None,
                retry=None,
                timeout=self._storage.timeout,
            )
            return url

        return self._storage.with_retries(self._verb, self._uri, create, unless=(PRECONDITION_FAILED,))

    def _put(self, session: UploadSession, data: bytes, crc: int | None) -> StoredObject | None:
        """Send one chunk, and note what of it was confirmed; return what was stored if it was the last.

        "Cloud Storage ignores any bytes you send at an offset that Cloud Storage has already persisted", so a chunk
        whose response was lost is sent again without asking first.
        https://cloud.google.com/storage/docs/performing-resumable-uploads
        """
        start, size = session.confirmed, self._upload.file.size
        headers = {"Content-Range": f"bytes {start}-{start + len(data) - 1}/{size}"}
        if crc is not None:
            headers["X-Goog-Hash"] = f"crc32c={to_base64(crc)}"

        def put() -> StoredObject | int:
            answer = self._storage.connection().put(session.url, data, headers, self._storage.timeout)
            if answer.status_code != _RESUME:
                return from_response(answer.json(), self._upload.name)
            persisted = re.fullmatch(r"bytes=0-(\d+)", answer.headers.get("Range", ""))
            confirmed = int(persisted[1]) + 1 if persisted else 0
            if confirmed >= size:
                raise ValueError(confirmed)
            return confirmed

        unless = (*_GONE, PRECONDITION_FAILED)
        result = self._storage.with_retries(self._verb, self._uri, put, unless=unless, stopped=self._stopped)
        if isinstance(result, StoredObject):
            return result
        session.confirm(result)
        return None

    def _cancel(self, session: UploadSession) -> None:
        with contextlib.suppress(Exception):  # Cloud Storage forgets it by itself within a week
            self._storage.connection().delete(session.url, self._storage.timeout)
        session.end()


class UploadSession:
    """The address of a session and what it confirmed, in a file that outlives the process.

    The file is locked during the upload, so that two processes that upload the same file don't write to one session;
    the second has a session that it keeps to itself. Only this user can read the file: whoever knows the address of a
    session may write to it. An address at another host than the endpoint's isn't used.
    """

    def __init__(self, folder: Path | None, uri: str, upload: Upload, endpoint: str) -> None:
        key = json.dumps([emulator_address(), uri, upload.generation, upload.file.size, upload.crc])
        name = f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"
        self._path = None if folder is None else folder / name
        self._file = None if self._path is None else _open_locked(self._path)
        self.url = ""
        self.confirmed = 0
        if self._file is not None:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # it is new, or was torn
                kept = json.load(self._file)
                url, confirmed = str(kept["url"]), int(kept["confirmed"])
                if 0 <= confirmed < upload.file.size and origin(url) == origin(endpoint):
                    self.url, self.confirmed = url, confirmed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None and self._path is not None:
            if not self.url:
                self._path.unlink(missing_ok=True)
            self._file.close()

    def begin(self, url: str) -> None:
        """Use a new session."""
        self.url = url
        self.confirm(0)

    def confirm(self, confirmed: int) -> None:
        """Note how many bytes Cloud Storage has."""
        self.confirmed = confirmed
        if self._file is not None:
            with contextlib.suppress(OSError):  # the upload works without it; the next process starts over
                self._file.seek(0)
                self._file.truncate()
                json.dump({"url": self.url, "confirmed": confirmed}, self._file)
                self._file.flush()

    def end(self) -> None:
        """Forget the session."""
        self.url = ""
        self.confirm(0)


def _open_locked(path: Path) -> IO[str] | None:
    """Open the file of a session, or return None if another process has it or it can't be used."""
    try:
        import fcntl  # noqa: PLC0415  # on Windows nothing is written down

        file = open_private(path, os.O_RDWR | os.O_CREAT, "r+", encoding="utf-8")
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
