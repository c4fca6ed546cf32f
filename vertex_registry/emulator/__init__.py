"""A local Vertex AI Model Registry that Google's own clients work against unmodified."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vertex_registry.emulator._data_file import DataFileError
    from vertex_registry.emulator._quota import Quota
    from vertex_registry.emulator._server import Emulator, SiteServer

__all__ = ["DataFileError", "Emulator", "Quota", "SiteServer"]

_MODULES: Final = {
    "DataFileError": "_data_file",
    "Emulator": "_server",
    "Quota": "_quota",
    "SiteServer": "_server",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it's used: `__main__` decides before that how Google's libraries are imported."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
