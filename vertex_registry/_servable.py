"""Turn a framework's folder into one that a serving image can load. Pure: no network, no framework."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

#: What a framework calls a file, and what the serving images call the same file. A new framework adds its files here.
_SERVED_AS: Final[Mapping[str, str]] = {
    "artifact.pkl": "model.pkl",  # ZenML, of a scikit-learn model
}

_BLOCK: Final = 2**18
# Pickle's opcodes: a string, optionally a memo, and the next string after its length.
_WRITTEN_BY: Final = re.compile(
    rb"_sklearn_version(?:\x94|q.|r.{4})?(?:\x8c(?P<short>.)|X(?P<long>.{4}))(?P<text>\d+\.\d+[\w.+]{0,40})", re.DOTALL
)
_OVERLAP: Final = 100


def renames(names: Iterable[str], loads: Collection[str], *, where: str) -> dict[str, str]:
    """Return which files of a folder to rename so that a serving image can load it: each old name with its new one.

    >>> renames(["artifact.pkl", "python_version.txt"], ["model.joblib", "model.pkl"], where="./output")
    {'artifact.pkl': 'model.pkl'}

    Args:
        names: The paths of the folder's files, below the folder.
        loads: The file names of which the image loads one. If it's empty, the image isn't a prebuilt one, and nothing
            is renamed.
        where: The folder, for messages.

    Raises:
        InvalidArgumentError: A file that would be renamed isn't the only model in the folder.
    """
    there = set(names)
    renamed = {old: new for old, new in _SERVED_AS.items() if old in there and new in loads}
    models = [*renamed, *(name for name in loads if name in there)]
    if renamed and len(models) > 1:
        raise InvalidArgumentError(
            f"{where!r} holds {' and '.join(models)}, and the image loads one model, so nothing was registered. "
            "Remove all but the one that is the model.",
            resource=where,
        )
    return renamed


def sklearn_version(files: Mapping[str, Path]) -> str | None:
    """Return the version of scikit-learn that wrote a model, or None if that can't be known.

    A pickled estimator holds it, as the item after ``_sklearn_version``. It's read there, and nothing is unpickled. If
    the file is compressed or doesn't hold it, it's the version that is installed here.

    Args:
        files: The paths of the model's files, by their names below its folder.
    """
    for name, path in files.items():
        if _SERVED_AS.get(name, name) in {"model.joblib", "model.pkl"}:
            with contextlib.suppress(OSError), path.open("rb") as stream:
                before = b""
                while data := stream.read(_BLOCK):
                    if (found := _WRITTEN_BY.search(before + data)) is not None:
                        return found["text"][: int.from_bytes(found["short"] or found["long"], "little")].decode()
                    before = data[-_OVERLAP:]
            import importlib.metadata  # noqa: PLC0415  # it's slow, and few callers come here

            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                return importlib.metadata.version("scikit-learn")
    return None
