"""Choose the container that serves a version. Pure: the caller shows the warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vertex_registry import _servable, _serving
from vertex_registry._records import ServingContainer
from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping
    from pathlib import Path


def choose_container(
    container: ServingContainer | str | None,
    files: Mapping[str, Path],
    described: _servable.MLmodel,
    *,
    default_image: str | None,
    location: str,
    gpu: bool,
    today: dt.date,
) -> tuple[ServingContainer, list[str]]:
    """Return the container that serves a version, and warnings about it.

    Args:
        container: The caller's choice: a container, an image's URI, or a framework's name. Defaults to the client's
            image, or else to the one for the scikit-learn or XGBoost that wrote the model.
        files: The files of the model on this machine, by their names below its folder. Empty if there's no folder.
        described: What MLflow says about the folder.
        default_image: The client's image or framework, or None.
        location: The location that the model is registered in.
        gpu: Whether to choose a framework's image for machines with a GPU.
        today: The date that decides which images are supported.

    Raises:
        InvalidArgumentError: The container isn't one, no such prebuilt image exists, or none serves the model.
    """
    if not isinstance(container, (ServingContainer, str, type(None))):
        raise InvalidArgumentError(
            f"container is a {type(container).__name__}. Pass a ServingContainer, an image's URI or a framework's name."
        )
    if isinstance(container, ServingContainer) and gpu:
        raise InvalidArgumentError("gpu=True only works with a framework's name, not with a ServingContainer.")
    warnings = []
    if not isinstance(container, ServingContainer):
        image = default_image if container is None else container
        if image is not None or gpu:
            image = _serving.serving_image("sklearn" if image is None else image, location, gpu=gpu)
        else:
            image, doubt = _image_for(files, described, location, today)
            warnings += [doubt] if doubt else []
        container = ServingContainer(image)
    if (end := _serving.unsupported_since(container.image, today)) is not None:
        warnings.append(f"Google hasn't supported {container.image} since {end}. Set container= to a newer image.")
    return container, warnings


def check_default_image(image: str, location: str) -> str:
    """Check the image or framework that a client uses by default, and return it.

    Raises:
        InvalidArgumentError: It isn't an image's URI, nor a framework that has a prebuilt image.
    """
    if not isinstance(image, str):
        raise InvalidArgumentError(
            f"default_image is a {type(image).__name__}. Pass an image's URI or a framework's name."
        )
    _serving.serving_image(image, location)
    return image


_CALLED: Final = {"sklearn": "scikit-learn", "xgboost": "XGBoost"}


def _image_for(
    files: Mapping[str, Path], described: _servable.MLmodel, location: str, today: dt.date
) -> tuple[str, str]:
    """Return the image for what wrote the model, or the newest of its framework with a warning if there's none."""
    writer = _servable.written_by(files, described)
    if writer is None:
        return _serving.default_image(location), ""
    if (image := _serving.image_of(writer.framework, writer.version, location, today=today)) is not None:
        return image, ""
    newest = _serving.serving_image(writer.framework, location)
    return newest, (
        f"Google has no serving image for {_CALLED[writer.framework]} {writer.version}, which wrote the model, so "
        f"{newest} may fail to load it. Serve it with an image of your own, or write it with an earlier version."
    )
