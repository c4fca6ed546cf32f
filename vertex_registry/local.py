"""The client and the emulator in one process: a registry that needs no cloud, and the default to try things on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from vertex_registry._client import RegistryClient
from vertex_registry.errors import ConflictError, InvalidArgumentError

if TYPE_CHECKING:
    from types import TracebackType

    from vertex_registry.emulator import Emulator


class LocalRegistry(RegistryClient):
    """A `RegistryClient` with a Vertex of its own, which ends with it.

    Attributes:
        emulator: That Vertex. Google's own clients reach it as well, at ``emulator.grpc``.
    """

    def __init__(self, emulator: Emulator, **settings: Any) -> None:
        self.emulator = emulator
        super().__init__(
            **{"project": "local-project", "location": "us-central1"} | settings | {"endpoint": emulator.grpc}
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        # It minds that a planned fault is left.
        self.emulator.__exit__(kind, error, trace)

    def close(self) -> None:
        """End the connection and the emulator; a second time does nothing."""
        super().close()
        self.emulator.close()


def local_registry(path: str | os.PathLike[str] | None = None, **settings: Any) -> LocalRegistry:
    """A registry in this process, kept in that file, or in memory where there is no path.

    >>> with local_registry() as registry:
    ...     registry.register_version("churn", "gs://models/churn/1").version
    '1'

    Args:
        path: The file; it is made where it is not there. One process at a time can have it open.
        **settings: Settings of `RegistryClient`, such as ``actor`` or ``retry``.

    Raises:
        ConflictError: The file is open in another registry or emulator.
        InvalidArgumentError: The file is not one that a registry was kept in.
    """
    _check_path(path)
    from vertex_registry.emulator import DataFileError, Emulator  # noqa: PLC0415  # Google's libraries take a second

    try:
        emulator = Emulator(path, rest_port=None)
    except DataFileError as error:
        raise (ConflictError if error.in_use else InvalidArgumentError)(str(error), resource=str(path)) from error
    try:
        return LocalRegistry(emulator, **settings)
    except BaseException:
        emulator.close()
        raise


def _check_path(path: Any) -> None:
    if path is None:
        return
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidArgumentError(f"path={path!r} isn't the path of a file. Leave it out to keep all in memory.")
