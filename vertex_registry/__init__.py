"""A Python SDK for the Vertex AI Model Registry, with a local Vertex in the box."""

from vertex_registry._client import RegistryClient
from vertex_registry._records import ModelVersion, RegisteredModel, Retry, ServingContainer, StageChange
from vertex_registry._stages import Stage
from vertex_registry.errors import (
    AlreadyExistsError,
    AmbiguousNameError,
    AuthenticationError,
    ConflictError,
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
    "InvalidArgumentError",
    "LocalRegistry",
    "ModelVersion",
    "NotFoundError",
    "OperationFailedError",
    "OperationTimeoutError",
    "PermissionDeniedError",
    "RegisteredModel",
    "RegistryClient",
    "RegistryError",
    "Retry",
    "ServingContainer",
    "Stage",
    "StageChange",
    "StateUnknownError",
    "UnavailableError",
    "local_registry",
]
