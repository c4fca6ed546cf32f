"""Convert a scikit-learn model from skops, which MLflow writes, to joblib, which the serving images load."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from vertex_registry._quoting import quote
from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


def to_joblib(source: Path, target: Path, *, written_by: str, trusted: Collection[str], where: str) -> None:
    """Write the model in a file of skops to a file of joblib.

    A model is only certain to load in the minor version of scikit-learn that wrote it, so no other one converts it.

    Args:
        source: The file of skops.
        target: The file to write.
        written_by: The version of scikit-learn that wrote it.
        trusted: The types that its writer trusts, beside those that skops trusts itself. Loading them may run code.
        where: The folder, for messages.

    Raises:
        InvalidArgumentError: Another scikit-learn is installed, a library is missing, or skops can't load the file.
    """
    check(source.name, written_by=written_by, where=where)
    skops, joblib = importlib.import_module("skops.io"), importlib.import_module("joblib")
    try:
        joblib.dump(skops.load(source, trusted=sorted(trusted)), target)
    except Exception as error:  # whatever skops, or the model's own code, raises
        raise InvalidArgumentError(_message(where, source.name, _first_line(error)), resource=where) from error


def check(file: str, *, written_by: str, where: str) -> None:
    """Check that a model can be converted on this machine, without reading it.

    Args:
        file: The name of the file of skops.
        written_by: The version of scikit-learn that wrote it.
        where: The folder, for messages.

    Raises:
        InvalidArgumentError: Another scikit-learn is installed, or a library is missing.
    """
    if problem := _missing(written_by):
        raise InvalidArgumentError(_message(where, file, problem), resource=where)


def _missing(written_by: str) -> str:
    """Return why the model can't be converted here, or nothing if it can."""
    versions: dict[str, str] = {}
    for package in ("scikit-learn", "joblib", "skops"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return f"{package} isn't installed. Run pip install {package}"
    if _minor(versions["scikit-learn"]) != _minor(written_by):
        return (
            f"scikit-learn {written_by or 'of an unknown version'} wrote it, and {versions['scikit-learn']} is "
            f"installed here. Register it where scikit-learn {_minor(written_by) or 'that wrote it'} is installed"
        )
    return ""


def _message(where: str, file: str, problem: str) -> str:
    return (
        f"{quote(where)} holds {file}, which the image can't load, and it couldn't be converted to model.joblib: "
        f"{problem}. Or log the model with serialization_format='pickle', or set container= to an image that loads it. "
        "Nothing was registered."
    )


def _first_line(error: Any) -> str:
    lines = ["".join(filter(str.isprintable, line)) for line in str(error).strip().splitlines()]  # of a foreign file
    return f"{type(error).__name__}: {lines[0].rstrip('.')[:200]}" if lines else type(error).__name__


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
