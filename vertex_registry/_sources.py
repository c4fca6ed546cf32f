"""Prepare the source of a version: find the folder to upload, or check a ``gs://`` directory before Vertex does."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vertex_registry import _labels, _names, _servable, _serving, _skops, artifacts
from vertex_registry._quoting import quote
from vertex_registry.errors import InvalidArgumentError, NotFoundError, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

_LOG: Final = logging.getLogger("vertex_registry")


def local_directory(
    source: str | os.PathLike[str], staging: str | None, *, follow_links: bool
) -> artifacts.LocalDirectory | None:
    """Return the folder to upload, or None if the source is in Cloud Storage or there's no staging bucket.

    Raises:
        InvalidArgumentError: The folder doesn't exist, even if there's no bucket, or can't be uploaded.
    """
    if isinstance(source, str) and _names.to_gs_uri(source) is not None and not os.path.exists(source):  # noqa: PTH110
        return None  # `check_source` says how to write it
    if not source or not isinstance(source, (str, os.PathLike)):
        return None
    path = _names.path_of_file_url(source) if isinstance(source, str) else source
    if isinstance(path, str) and "://" in path:
        return None
    if staging is None:
        if not os.path.exists(path):  # noqa: PTH110  # as above
            raise InvalidArgumentError(
                f"{quote(os.fspath(source))} doesn't exist on this machine. Name the folder that the model was saved "
                "to, or pass 'gs://bucket/directory'."
            )
        return None
    return artifacts.scan(path, follow_links=follow_links)


@contextlib.contextmanager
def servable(
    local: artifacts.LocalDirectory, loads: Collection[str], described: _servable.MLmodel
) -> Iterator[artifacts.LocalDirectory]:
    """Yield the folder with what a serving image loads added, if MLflow wrote it.

    Args:
        local: The folder.
        loads: The file names of which the image loads one, or none if it isn't a prebuilt image.
        described: What MLflow says about the folder.

    Raises:
        InvalidArgumentError: The model has to be converted, and it can't be on this machine.
    """
    added = _servable.addition(local.paths, loads, described)
    if added is None:
        yield local
        return
    path = local.paths[added.made_from]
    with tempfile.TemporaryDirectory(prefix="vertex-registry-") as folder:
        if added.converted:
            made = Path(folder, added.name)
            _skops.to_joblib(path, made, written_by=added.written_by, trusted=added.trusted, where=local.source)
            path = made
        yield local.with_file(added.name, path)


def check_servable(
    local: artifacts.LocalDirectory, image: str, loads: Collection[str], described: _servable.MLmodel
) -> None:
    """Check that a serving image can load a folder, with what would be added. Nothing is converted.

    Args:
        local: The folder.
        image: The URI of the image.
        loads: The file names of which the image loads one, or none if it isn't a prebuilt image.
        described: What MLflow says about the folder.

    Raises:
        InvalidArgumentError: It can't, or the model has to be converted and it can't be on this machine.
    """
    added = _servable.addition(local.paths, loads, described)
    if added is not None and added.converted:
        _skops.check(local.paths[added.made_from].name, written_by=added.written_by, where=local.source)
    names = local.names if added is None else (*local.names, added.name)
    _serving.check_directory(names, image, where=local.source)


@contextlib.contextmanager
def with_metadata(local: artifacts.LocalDirectory, metadata: bytes | None) -> Iterator[artifacts.LocalDirectory]:
    """Yield the folder with a file of metadata added, which replaces one of an earlier registration.

    Args:
        local: The folder.
        metadata: The file's content, or None if there's none.
    """
    if metadata is None:
        yield local
        return
    with tempfile.TemporaryDirectory(prefix="vertex-registry-") as folder:
        path = Path(folder, _labels.FILE_NAME)
        path.write_bytes(metadata)
        yield local.without_file(path.name).with_file(path.name, path)


def upload_directory(name: str, staging: str | None) -> str:
    """Return the ``gs://`` directory that the artifacts of a model are uploaded to."""
    given = _names.parse_model_name(name)
    return f"{staging}/{given.model_id if given else _names.model_id(name)}"


def check_cloud_directory(
    source: str, image: str, *, required: bool, list_names: Callable[[str], Iterable[str]]
) -> None:
    """Check that the image can load a ``gs://`` directory.

    Args:
        source: The directory.
        image: The URI of the serving image.
        required: Whether the caller requested the check. If not, a directory that can't be read is left to Vertex.
        list_names: A function that returns the names of the files in a directory.

    Raises:
        InvalidArgumentError: The directory is empty, or doesn't contain exactly one file that the image loads.
        NotFoundError: The bucket doesn't exist.
        RegistryError: The directory can't be read, and the check is required.
    """
    try:
        names = tuple(list_names(source))
    except NotFoundError:
        raise
    except RegistryError as error:
        if required:
            raise
        _LOG.info("%s can't be checked (%s), so Vertex will", source, type(error).__name__)
        return
    if not names:
        raise InvalidArgumentError(f"{source} is empty. Upload the model there first.", resource=source)
    _serving.check_directory(names, image, where=source)
