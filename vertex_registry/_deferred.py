"""Import Google's model service without the package around it, which imports every service of Vertex AI.

Only a process of our own may do this: the command line and the emulator. A library must leave its user's imports whole.
While one thread is importing such a package for the first time, another could find it half imported.
"""

from __future__ import annotations

import functools
import importlib
import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_SDK: Final = "google.cloud.aiplatform_v1"

#: The packages, and which of their modules have the names that we use. Any other name imports the whole package.
_MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    _SDK: (),
    f"{_SDK}.types": ("model", "model_service", "model_evaluation", "model_evaluation_slice", "operation"),
}


def defer_packages() -> None:
    """From now on, import a module of these packages when a name in it is used, and the packages only if necessary."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


# These two have no base class, because importlib.abc takes longer to import than all of this module.


class _Finder:
    """Finds the packages, and lets another loader load them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del target
        spec = PathFinder.find_spec(fullname, path) if fullname in _MODULES else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Deferring(spec.loader)  # type: ignore[assignment]  # it has what a loader needs
        return spec


class _Deferring:
    """Loads a package without running it, until a name is used that none of its known modules has."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python create the module."""

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__getattr__"] = functools.partial(self._find, module)

    def _find(self, package: ModuleType, name: str) -> Any:
        from importlib.util import find_spec  # noqa: PLC0415  # see above

        if name.startswith("__"):
            raise AttributeError(name)
        if find_spec(f"{package.__name__}.{name}") is not None:
            return importlib.import_module(f"{package.__name__}.{name}")
        for module in _MODULES[package.__name__]:
            found = getattr(importlib.import_module(f"{package.__name__}.{module}"), name, None)
            if found is not None:
                return found
        if package.__dict__.pop("__getattr__", None):
            self._loader.exec_module(package)
        return getattr(package, name)
