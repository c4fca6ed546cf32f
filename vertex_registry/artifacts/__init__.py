"""Artifacts: from a folder on this machine to ``gs://`` and back. A bucket may be a folder, too.

A model goes to ``gs://bucket/<model id>/<digest>``, where the digest is one of its file names and bytes and of nothing
else. A digest's directory is only ever completed, so any number of processes may send the same model at once.
"""

from vertex_registry.artifacts._google import EMULATOR
from vertex_registry.artifacts._local import (
    IGNORED,
    MAX_FILES,
    LocalDirectory,
    LocalFile,
    digest,
    expand_path,
    is_below,
    is_ignored,
    scan,
)
from vertex_registry.artifacts._storage import Storage

__all__ = [
    "EMULATOR",
    "IGNORED",
    "MAX_FILES",
    "LocalDirectory",
    "LocalFile",
    "Storage",
    "digest",
    "expand_path",
    "is_below",
    "is_ignored",
    "scan",
]
