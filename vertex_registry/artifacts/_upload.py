"""Upload a folder: only what is missing is sent, and every byte is compared.

An object is created on condition that the generation that was read (or none) is still there, so any number of processes
may upload the same folder at once, and one may finish what another began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from vertex_registry._quoting import quote
from vertex_registry.artifacts._bucket import GenerationChangedError, Upload
from vertex_registry.artifacts._checksums import to_base64
from vertex_registry.artifacts._local import checksum, digest
from vertex_registry.artifacts._names import MAX_OBJECT_NAME
from vertex_registry.artifacts._parallel import run_in_parallel
from vertex_registry.artifacts._progress import count_files, progress_bar
from vertex_registry.errors import ConflictError, InvalidArgumentError, UnavailableError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from vertex_registry.artifacts._bucket import Bucket, StoredObject
    from vertex_registry.artifacts._local import LocalDirectory

_WAS_ALTERED: Final = "was stored with other bytes than were sent, because something on the way alters them"
_WAS_REPLACED: Final = "was replaced by somebody else during the upload"


def upload_directory(bucket: Bucket, local: LocalDirectory, under: str, *, workers: int, progress: bool | None) -> str:
    """Upload a folder's files to ``<under>/<digest>``, and return the name of that directory.

    Args:
        bucket: The bucket.
        local: The folder, from ``scan``.
        under: The directory in the bucket, without a slash at its end; empty for the bucket itself.
        workers: How many files to upload at once.
        progress: Whether to draw a bar. Defaults to drawing it where somebody sees it.
    """
    with progress_bar(f"Reading {count_files(local.files)}", local.size, shown=progress, brief=True) as advance:
        summed = run_in_parallel(
            local.files, lambda file, stopped: checksum(file, stopped, advance, bucket.checksum), workers
        )
    sums = dict(zip(local.files, summed, strict=True))
    digested = digest((file.name, sums[file].sha256) for file in local.files)
    directory = f"{under}/{digested}" if under else digested
    prefix, uri = f"{directory}/", bucket.uri(directory)
    for file in local.files:
        if len((prefix + file.name).encode()) > MAX_OBJECT_NAME:
            raise InvalidArgumentError(
                f"The name {quote(file.name)} is too long under {uri}: an object's name has at most "
                f"{MAX_OBJECT_NAME:,} bytes. Shorten it."
            )
    existing = {stored.name: stored for stored in bucket.list_objects(prefix)}
    uploads = []
    for file in local.files:
        stored = existing.get(prefix + file.name)
        expected = (file.size, to_base64(sums[file].crc), "")
        if stored is None or (stored.size, stored.crc, stored.encoding) != expected:
            generation = 0 if stored is None else stored.generation
            uploads.append(Upload(file, sums[file].crc, prefix + file.name, generation))
    uploads.sort(key=lambda upload: -upload.file.size)
    size = sum(upload.file.size for upload in uploads)
    with progress_bar(f"Uploading {count_files(uploads)}", size, shown=progress) as advance:
        run_in_parallel(uploads, lambda upload, stopped: _send(bucket, upload, stopped, advance), workers)
    if uploads:
        existing = {stored.name: stored for stored in bucket.list_objects(prefix)}
    ours = {prefix + file.name for file in local.files}
    if foreign := sorted(name for name in existing.keys() - ours if not name.endswith("/")):
        raise ConflictError(
            f"{uri} holds {foreign[0].removeprefix(prefix)!r}, which isn't in {local.source}, so nothing was "
            "registered. Remove it, or use another staging bucket.",
            resource=bucket.uri(foreign[0]),
        )
    return directory


def _send(bucket: Bucket, upload: Upload, stopped: threading.Event, advance: Callable[[int], None]) -> None:
    """Send one file, and compare what was stored; send it once more if that differs."""
    expected = (upload.file.size, to_base64(upload.crc))
    for _ in range(2):
        stored, problem, sent = _send_once(bucket, upload, stopped, advance)
        if (stored.size, stored.crc) == expected:
            advance(upload.file.size - sent)
            return
        advance(-sent)
        upload = attrs.evolve(upload, generation=stored.generation)
    if problem is _WAS_ALTERED:
        bucket.delete(stored)
    uri = bucket.uri(upload.name)
    raise UnavailableError(
        f"{uri} {problem}: its checksum is {stored.crc}, not {expected[1]}. Nothing was registered.",
        resource=uri,
    )


def _send_once(
    bucket: Bucket, upload: Upload, stopped: threading.Event, advance: Callable[[int], None]
) -> tuple[StoredObject, str, int]:
    """Send one file, and return what is stored, why it might differ, and how many bytes the bar shows."""
    sent = 0

    def count(size: int) -> None:
        nonlocal sent
        sent += size
        advance(size)

    try:
        return bucket.send(upload, stopped, count), _WAS_ALTERED, sent
    except GenerationChangedError:  # by another process, or by a try whose response was lost
        return bucket.stat(upload.name), _WAS_REPLACED, sent
