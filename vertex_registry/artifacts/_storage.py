"""Storage: upload a folder, download a directory, list names; in Cloud Storage or in a folder on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vertex_registry._names import LOCAL_BUCKET
from vertex_registry._records import Retry
from vertex_registry.artifacts._cache import Cache
from vertex_registry.artifacts._cloud import CHUNK, CloudBucket
from vertex_registry.artifacts._download import Downloader
from vertex_registry.artifacts._folder import FolderBucket
from vertex_registry.artifacts._google import CloudStorage
from vertex_registry.artifacts._local import expand_path
from vertex_registry.artifacts._names import split_uri
from vertex_registry.artifacts._upload import upload_directory
from vertex_registry.errors import NotFoundError

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from vertex_registry.artifacts._bucket import Bucket
    from vertex_registry.artifacts._local import LocalDirectory


class Storage:
    """The place of artifacts: Cloud Storage, or the emulator of it that ``STORAGE_EMULATOR_HOST`` names.

    With a folder, the bucket ``gs://artifacts.localhost`` is that folder.

    No credentials are sent to an emulator. Creating a `Storage` imports nothing from Google and does no I/O; the first
    transfer does. Empty folders aren't transferred, nor is anything but the bytes of a file.

    Args:
        project: The project that requests are made for.
        credentials: google-auth credentials. Defaults to the application default credentials.
        retry: The budget of a request (``calls``), and how to wait between tries.
        workers: How many files to transfer at once.
        progress: Whether to draw a bar. Defaults to drawing it on a terminal and in a notebook.
        chunk: The most bytes of one request; Cloud Storage requires a multiple of 256 KiB.
        cache: The folder for downloads without a destination, and for uploads that can be resumed. Defaults to
            ``$XDG_CACHE_HOME/vertex-registry``.
        folder: The folder that is the bucket `LOCAL_BUCKET`. Defaults to none.
        without_folder: Whether the registry is an emulator that keeps no artifacts, so its user may have no cloud.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        credentials: Any = None,
        retry: Retry | None = None,
        workers: int = 8,
        progress: bool | None = None,
        chunk: int = CHUNK,
        cache: str | os.PathLike[str] | None = None,
        folder: Path | None = None,
        without_folder: bool = False,
    ) -> None:
        self._folder = folder
        self._cloud = CloudStorage(project, credentials, retry or Retry(), without_folder=without_folder)
        self._workers = workers
        self._progress = progress
        self._chunk = chunk
        self._cache = Cache(cache, workers)

    def close(self) -> None:
        """Close the connections. It's fine to do so twice."""
        self._cloud.close()

    def upload(self, local: LocalDirectory, under: str) -> str:
        """Upload a folder's files to ``<under>/<digest>``, except those that exist already.

        Args:
            local: The folder, from ``scan``.
            under: ``gs://bucket/directory``.

        Returns:
            The URI of the directory with every byte of the folder, all of which were compared.

        Raises:
            NotFoundError: There is no such bucket.
            PermissionDeniedError: The credentials may not list or create objects there.
            ConflictError: A file changed during the upload, or the directory holds one that isn't in the folder.
            UnavailableError: There was no usable answer within the budget.
        """
        name, directory = split_uri(under)
        bucket = self._bucket(name)
        return bucket.uri(upload_directory(bucket, local, directory, workers=self._workers, progress=self._progress))

    def list_names(self, uri: str) -> tuple[str, ...]:
        """Return the names directly under ``gs://bucket/directory``; those of directories end in a slash.

        Raises:
            NotFoundError: There is no such bucket.
            PermissionDeniedError: The credentials may not list its objects.
            UnavailableError: There was no usable answer within the budget.
        """
        name, directory = split_uri(uri)
        return self._bucket(name).list_names(f"{directory}/" if directory else "")

    def read(self, uri: str, most: int) -> bytes:
        """Return the content of the file ``gs://bucket/path``.

        Args:
            uri: The file.
            most: The largest size, in bytes.

        Raises:
            NotFoundError: It doesn't exist.
            InvalidArgumentError: It's larger.
            PermissionDeniedError: The credentials may not read it.
            ConflictError: It was replaced meanwhile.
            UnavailableError: There was no usable response within the budget.
        """
        name, path = split_uri(uri)
        bucket = self._bucket(name)
        return Downloader(bucket, chunk=self._chunk, workers=1, progress=False).read_file(path, most)

    def download(self, uri: str, destination: str | os.PathLike[str] | None = None) -> Path:
        """Download every file under ``gs://bucket/directory`` into a folder, which appears when it's whole.

        Args:
            uri: The directory.
            destination: The folder, which must be new or empty. Defaults to one in the cache, which stays the same as
                long as the directory doesn't change; what is in it is compared and not downloaded again.

        Returns:
            The folder.

        Raises:
            NotFoundError: There is no such bucket, or nothing in the directory.
            AlreadyExistsError: The destination exists and isn't an empty folder.
            InvalidArgumentError: An object in the directory can't become a file in the folder.
            PermissionDeniedError: The credentials may not list or read objects there.
            ConflictError: A file was replaced during the download.
            UnavailableError: There was no usable answer within the budget.
            RegistryError: There is no room, or the folder can't be written.
        """
        name, directory = split_uri(uri)
        downloader = Downloader(self._bucket(name), chunk=self._chunk, workers=self._workers, progress=self._progress)
        objects = downloader.list_files(directory, uri)
        if destination is None:
            return downloader.download_to_cache(uri, objects, self._cache)
        return downloader.download_to(uri, objects, expand_path(destination))

    def _bucket(self, name: str) -> Bucket:
        if name == LOCAL_BUCKET:
            if self._folder is None:
                raise NotFoundError(
                    f"gs://{name} is the artifacts folder of a local registry, and this client isn't one. Open the "
                    "registry with local_registry().",
                    resource=f"gs://{name}",
                )
            return FolderBucket(name, self._folder)
        return CloudBucket(self._cloud, name, self._chunk, self._cache.sessions)
