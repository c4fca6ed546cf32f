"""A Python SDK for the Vertex AI Model Registry, with a local Vertex in the box."""

from vertex_registry._client import RegistryClient
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
    "ConflictError",
    "HistoryUnknownError",
    "InvalidArgumentError",
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
    "local_registry",
]
