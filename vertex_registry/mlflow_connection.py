"""Open the registry that a URI of MLflow's names, and turn the client's errors into MLflow's.

Every store of the same place shares one open registry. Nothing is opened before it's used.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import threading
import urllib.parse
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import attrs
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

import vertex_registry
from vertex_registry import RegistryClient, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_P = ParamSpec("_P")
_T = TypeVar("_T")

# --- errors -----------------------------------------------------------------------------------------------------------

#: MLflow's code for each of the client's errors. Over HTTP, MLflow repeats whatever isn't the caller's fault. An upload
#: that may have happened mustn't be repeated, so its errors have a code that isn't.
CODES: Final[Mapping[type[RegistryError], int]] = {
    vertex_registry.NotFoundError: codes.RESOURCE_DOES_NOT_EXIST,
    vertex_registry.AlreadyExistsError: codes.RESOURCE_ALREADY_EXISTS,
    vertex_registry.InvalidArgumentError: codes.INVALID_PARAMETER_VALUE,
    vertex_registry.AmbiguousNameError: codes.RESOURCE_CONFLICT,
    vertex_registry.ConflictError: codes.RESOURCE_CONFLICT,
    vertex_registry.PermissionDeniedError: codes.PERMISSION_DENIED,
    vertex_registry.AuthenticationError: codes.UNAUTHENTICATED,
    vertex_registry.UnavailableError: codes.TEMPORARILY_UNAVAILABLE,
    vertex_registry.OperationTimeoutError: codes.ABORTED,
    vertex_registry.OperationFailedError: codes.ABORTED,
    vertex_registry.StateUnknownError: codes.ABORTED,
}

#: What the client's messages mention, and what it's called here.
_CALLED_HERE: Final = {
    r"Keep large metadata in a file next to the artifact": (
        "Large tags go to a file if you pass them when you register a version"
    ),
    r"Set container= to an image": "Add ?image=IMAGE to the registry's URI to name an image",
    r"\bset container= to an(?:other)? image": "add ?image=IMAGE to the registry's URI to name an image",
    r"\bregister_version\('[^']*', \.\.\.\)": "create_model_version(...)",
    r"\blist_models\(\)": "search_registered_models()",
    r"\blist_versions\([^)]*\)": "search_model_versions(...)",
}


def failure(message: str, code: int) -> MlflowException:
    """Return an error of MLflow's with one of its codes."""
    return MlflowException(message, error_code=code)


def exists_error(name: str) -> MlflowException:
    """Return the error of a model's name that's taken."""
    return failure(f"Registered Model (name={name}) already exists.", codes.RESOURCE_ALREADY_EXISTS)


def from_registry(error: RegistryError) -> MlflowException:
    """Return one of the client's errors as MLflow's, with the names that are used here."""
    message = str(error)
    for theirs, ours in _CALLED_HERE.items():
        message = re.sub(theirs, ours, message)
    code = next((code for kind, code in CODES.items() if isinstance(error, kind)), codes.INTERNAL_ERROR)
    return failure(message, code)


@contextlib.contextmanager
def as_mlflow() -> Iterator[None]:
    """Turn this package's errors into MLflow's. ``__cause__`` is the original one."""
    try:
        yield
    except RegistryError as error:
        raise from_registry(error) from error


def translate_errors(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let a method raise MLflow's errors."""

    @functools.wraps(function)
    def translated(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with as_mlflow():
            return function(*args, **kwargs)

    return translated


# --- where the registry is --------------------------------------------------------------------------------------------

_FORM: Final = "vertex://PROJECT/LOCATION?staging_bucket=gs://BUCKET, or vertex://local/FILE for a registry in a file"

#: The settings of a URI, and the settings of `RegistryClient` that they are.
SETTINGS: Final[Mapping[str, str]] = {
    "staging_bucket": "staging_bucket",
    "image": "default_image",
    "endpoint": "endpoint",
    "transport": "transport",
    "managed_by": "managed_by",
    "actor": "actor",
}


@attrs.frozen
class Place:
    """Where a registry is.

    Attributes:
        project: The project, or None for the one of the environment.
        location: The location, or None for the one of the environment.
        file: The file of a local registry, ``""`` for one in memory, or None if it isn't local.
        settings: More settings of `RegistryClient`.
    """

    project: str | None
    location: str | None
    file: str | None
    settings: tuple[tuple[str, str], ...]

    @property
    def copies(self) -> bool:
        """Whether models are copied to where Vertex reads them."""
        return self.file is not None or any(name == "staging_bucket" for name, _ in self.settings)

    @classmethod
    def parse(cls, uri: str) -> Place:
        """Return the place that a URI names.

        Raises:
            MlflowException: It isn't such a URI.
        """
        scheme, _, rest = uri.partition("://")
        path, _, query = rest.partition("?")
        host, _, below = path.partition("/")
        if scheme != "vertex" or not rest:
            raise failure(f"{uri!r} isn't the URI of a Vertex registry. Use {_FORM}.", codes.INVALID_PARAMETER_VALUE)
        given = urllib.parse.parse_qsl(query, keep_blank_values=True)
        if unknown := sorted({name for name, _ in given} - SETTINGS.keys()):
            raise failure(
                f"{uri!r} has a setting {unknown[0]!r}, which doesn't exist. The settings are {', '.join(SETTINGS)}.",
                codes.INVALID_PARAMETER_VALUE,
            )
        settings = tuple(sorted((SETTINGS[name], value) for name, value in given))
        if host == "local":
            file = urllib.parse.unquote(below)
            return cls(None, None, os.path.abspath(file) if file else "", settings)  # noqa: PTH100  # links stay
        if "/" in below.rstrip("/"):
            raise failure(
                f"{uri!r} has more than a project and a location. Use {_FORM}.", codes.INVALID_PARAMETER_VALUE
            )
        return cls(urllib.parse.unquote(host) or None, below.rstrip("/") or None, None, settings)

    def open(self) -> RegistryClient:
        """Open the registry.

        Raises:
            RegistryError: A setting isn't valid, or the file is open in another process.
        """
        settings: dict[str, Any] = {"user_agent": f"mlflow/{installed('mlflow-skinny')}", **dict(self.settings)}
        if self.file is None:
            return RegistryClient(project=self.project, location=self.location, **settings)
        try:
            return vertex_registry.local_registry(self.file or None, **settings)
        except vertex_registry.ConflictError as error:
            raise vertex_registry.ConflictError(
                f"{str(error).rstrip('.')}. One process at a time can have it open, so run `mlflow server` with "
                "--workers 1, and let the others use the server.",
                resource=self.file,
            ) from error


@attrs.define
class NewModel:
    """A model that was created here, and that Vertex doesn't have yet because it has no version.

    Attributes:
        description: Its description.
        tags: Its tags.
        created_at: When it was created, in milliseconds.
        offset: By how much MLflow's version numbers will exceed Vertex's, because versions were deleted.
    """

    description: str
    tags: dict[str, str]
    created_at: int
    offset: int = 0


class OpenRegistry:
    """A registry that this process has open. Every store of the same place shares it.

    Attributes:
        new: The models without a version, by name.
        lock: What guards changes of ``new``.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._opened: RegistryClient | None = None
        self._opening = threading.Lock()
        self.new: dict[str, NewModel] = {}
        self.lock = threading.Lock()

    def remember(self, name: str, new: NewModel) -> bool:
        """Remember a model without a version. Return False if there's one of that name already."""
        with self.lock:
            return self.new.setdefault(name, new) is new

    @property
    def client(self) -> RegistryClient:
        """Return the client, which is opened when it's first used."""
        with self._opening:
            if self._opened is None:
                self._opened = self._place.open()
                atexit.register(self.close)
            return self._opened

    def close(self) -> None:
        """Close the client. It's opened again when it's used."""
        with self._opening:
            client, self._opened = self._opened, None
        if client is not None:
            atexit.unregister(self.close)
            client.close()


@functools.cache
def registry_at(place: Place) -> OpenRegistry:
    """Return the registry of a place. Every store of that place gets the same one."""
    return OpenRegistry(place)
