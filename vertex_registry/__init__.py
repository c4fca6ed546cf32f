"""A Python SDK for the Vertex AI Model Registry, with a local emulator."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vertex_registry._version import __version__

if TYPE_CHECKING:
    from vertex_registry._client import RegistryClient
    from vertex_registry._listing import Listing
    from vertex_registry._records import (
        ModelVersion,
        Pruned,
        RegisteredModel,
        Retry,
        Rollback,
        ServingContainer,
        StageChange,
        StageHistory,
        VersionDiff,
    )
    from vertex_registry._stages import Stage
    from vertex_registry.errors import (
        AlreadyExistsError,
        AmbiguousNameError,
        AuthenticationError,
        ClientClosedError,
        ConflictError,
        HistoryUnknownError,
        InvalidArgumentError,
        NotFoundError,
        OperationFailedError,
        OperationTimeoutError,
        PermissionDeniedError,
        RegistryError,
        StateUnknownError,
        UnavailableError,
    )
    from vertex_registry.local import LocalRegistry, local_registry

__all__ = [
    "AlreadyExistsError",
    "AmbiguousNameError",
    "AuthenticationError",
    "ClientClosedError",
    "ConflictError",
    "HistoryUnknownError",
    "InvalidArgumentError",
    "Listing",
    "LocalRegistry",
    "ModelVersion",
    "NotFoundError",
    "OperationFailedError",
    "OperationTimeoutError",
    "PermissionDeniedError",
    "Pruned",
    "RegisteredModel",
    "RegistryClient",
    "RegistryError",
    "Retry",
    "Rollback",
    "ServingContainer",
    "Stage",
    "StageChange",
    "StageHistory",
    "StateUnknownError",
    "UnavailableError",
    "VersionDiff",
    "__version__",
    "local_registry",
]

# Which module defines each name. It's imported when the name is first used, so importing the package is cheap.
_DEFINED_IN = {
    "RegistryClient": "_client",
    "Listing": "_listing",
    "ModelVersion": "_records",
    "Pruned": "_records",
    "RegisteredModel": "_records",
    "Retry": "_records",
    "Rollback": "_records",
    "ServingContainer": "_records",
    "StageChange": "_records",
    "StageHistory": "_records",
    "VersionDiff": "_records",
    "Stage": "_stages",
    "AlreadyExistsError": "errors",
    "AmbiguousNameError": "errors",
    "AuthenticationError": "errors",
    "ClientClosedError": "errors",
    "ConflictError": "errors",
    "HistoryUnknownError": "errors",
    "InvalidArgumentError": "errors",
    "NotFoundError": "errors",
    "OperationFailedError": "errors",
    "OperationTimeoutError": "errors",
    "PermissionDeniedError": "errors",
    "RegistryError": "errors",
    "StateUnknownError": "errors",
    "UnavailableError": "errors",
    "LocalRegistry": "local",
    "local_registry": "local",
}


if not TYPE_CHECKING:  # a type checker knows the names from above, and should find a wrong one

    def __getattr__(name: str) -> Any:
        if name not in _DEFINED_IN:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
