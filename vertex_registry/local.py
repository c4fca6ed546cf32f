"""The client and the emulator in one process: a registry that needs no cloud."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from vertex_registry import _process
from vertex_registry._client import RegistryClient
from vertex_registry.errors import ConflictError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from vertex_registry.emulator import Emulator


class LocalRegistry(RegistryClient):
    """A `RegistryClient` with an emulator of its own, which stops when the client is closed.

    Attributes:
        emulator: The emulator. Google's own clients can connect to it too, at ``emulator.grpc``.
    """

    def __init__(self, emulator: Emulator, **settings: Any) -> None:
        self.emulator = emulator
        self._owner = _process.Inherited(emulator)
        super().__init__(
            **{"project": "local-project", "location": "us-central1"} | settings | {"endpoint": emulator.grpc}
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._owner.mine:
            # This fails if a planned fault is left.
            self.emulator.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the connection and the emulator. Closing twice is fine.

        In a forked process only that process's connection is closed: the emulator belongs to the process that created
        it.
        """
        super().close()
        if self._owner.mine:
            self.emulator.close()

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], RegistryClient], tuple[dict[str, Any]]]:
        """Pickle as a plain client of the same emulator, which has to be running when the client is used."""
        return _connected, (self.__getstate__(),)


def _connected(state: dict[str, Any]) -> RegistryClient:
    client = RegistryClient.__new__(RegistryClient)
    client.__setstate__(state)
    return client


def _check_threads() -> None:
    """Refuse to start an emulator where threads aren't threads: gRPC's server would wait for one that never runs."""
    checks: tuple[tuple[str, str, str], ...] = (
        ("gevent.monkey", "is_module_patched", "threading"),
        ("eventlet.patcher", "is_monkey_patched", "thread"),
    )
    for module, check, what in checks:
        library = module.partition(".")[0]
        if module in sys.modules and getattr(sys.modules[module], check)(what):
            raise ConflictError(
                f"An emulator can't run in a process whose threads {library} has patched. Start it in a process of its "
                "own, with `python -m vertex_registry.emulator`, and set VERTEX_AI_EMULATOR_HOST to the address for "
                "REST that it prints."
            )


def local_registry(path: str | os.PathLike[str] | None = None, **settings: Any) -> LocalRegistry:
    """Create a registry in this process, kept in a file or in memory.

    >>> with local_registry() as registry:
    ...     registry.register_version("churn", "gs://models/churn/1").version
    '1'

    Args:
        path: The file, which is created if it doesn't exist. One process at a time can open it. Defaults to keeping
            everything in memory.
        **settings: Settings of `RegistryClient`, such as ``actor`` or ``retry``.

    Raises:
        ConflictError: The file is open in another registry or emulator; or gevent or eventlet has patched this
            process's threads, so that no emulator can run in it.
        InvalidArgumentError: The file isn't a registry's.
    """
    _check_path(path)
    _check_threads()
    from vertex_registry.emulator import DataFileError, Emulator  # noqa: PLC0415  # Google's libraries take a second

    try:
        emulator = Emulator(path, rest_port=None)
    except DataFileError as error:
        kind = ConflictError if error.in_use else InvalidArgumentError
        raise kind(str(error), resource=str(path)) from error
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
        raise InvalidArgumentError(
            f"path={path!r} isn't the path of a file. Leave it out to keep everything in memory."
        )
