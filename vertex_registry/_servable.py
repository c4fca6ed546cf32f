"""Turn a framework's folder into one that a serving image can load. Pure: no network, no framework."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BLOCK: Final = 2**18
# Pickle's opcodes: a string, optionally a memo, and the next string after its length.
_WRITTEN_BY: Final = re.compile(
    rb"_sklearn_version(?:\x94|q.|r.{4})?(?:\x8c(?P<short>.)|X(?P<long>.{4}))(?P<text>\d+\.\d+[\w.+]{0,40})", re.DOTALL
)
_OVERLAP: Final = 100


def sklearn_version(files: Mapping[str, Path]) -> str | None:
    """Return the version of scikit-learn that wrote a model, or None if that can't be known.

    A pickled estimator holds it, as the item after ``_sklearn_version``. It's read there, and nothing is unpickled. If
    the file is compressed or doesn't hold it, it's the version that is installed here.

    Args:
        files: The paths of the model's files, by their names below its folder.
    """
    for name, path in files.items():
        if name in {"model.joblib", "model.pkl"}:
            with contextlib.suppress(OSError), path.open("rb") as stream:
                before = b""
                while data := stream.read(_BLOCK):
                    if (found := _WRITTEN_BY.search(before + data)) is not None:
                        return found["text"][: int.from_bytes(found["short"] or found["long"], "little")].decode()
                    before = data[-_OVERLAP:]
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                return importlib.metadata.version("scikit-learn")
    return None
