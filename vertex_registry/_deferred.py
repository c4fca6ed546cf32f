"""Import less of Google's libraries: the model service without the other services, and no HTTP library for gRPC.

Only a process of our own may do this: the command line and the emulator. A library must leave its user's imports whole.
While one thread is importing such a package for the first time, another could find it half imported.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_SDK: Final = "google.cloud.aiplatform_v1"

#: The packages and modules, and which of their modules have the names that we use. Any other name imports all of it.
#: Those below the SDK's are for HTTP, retries, keys and operations. Google's gRPC transport imports them and uses none.
_MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    _SDK: (),
    f"{_SDK}.types": ("model", "model_service", "model_evaluation", "model_evaluation_slice", "operation"),
    f"{_SDK}.services.model_service": ("client",),
    f"{_SDK}.services.model_service.transports": (),
    "google.api_core.gapic_v1": (),
    "google.api_core.operations_v1": ("operations_client",),
    "google.api_core.retry": (),
    "google.auth.transport.requests": (),
    "google.oauth2.service_account": (),
}


def defer_packages() -> None:
    """From now on, import each of these packages and modules when a name in it is used, and no more than necessary."""
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
        # Other threads wait for the first one, which may come here again. Google's libraries import parts of these
        # packages only through the packages, so no other thread holds an import lock that the first one needs.
        self._lock = threading.RLock()
        self._loading = self._loaded = False

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python create the module."""

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__getattr__"] = functools.partial(self._find, module)

    def _find(self, package: ModuleType, name: str) -> Any:
        from importlib.util import find_spec  # noqa: PLC0415  # see above

        if name.startswith("__"):
            raise AttributeError(name)
        if hasattr(package, "__path__") and find_spec(f"{package.__name__}.{name}") is not None:
            return importlib.import_module(f"{package.__name__}.{name}")
        for module in _MODULES[package.__name__]:
            found = getattr(importlib.import_module(f"{package.__name__}.{module}"), name, None)
            if found is not None:
                return found
        with self._lock:
            if self._loading:  # something that it imports asks for a name that it will have
                raise AttributeError(name)
            if not self._loaded:
                self._load(package)
        return getattr(package, name)

    def _load(self, package: ModuleType) -> None:
        """Run all of the package or module."""
        deferred = package.__dict__["__getattr__"]
        self._loading = True
        try:
            self._loader.exec_module(package)
        finally:
            self._loading = False
        self._loaded = True
        if package.__dict__["__getattr__"] is deferred:  # and not a function that it has defined
            del package.__dict__["__getattr__"]
