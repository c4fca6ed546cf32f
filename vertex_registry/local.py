"""The client and the emulator in one process: a registry that needs no cloud, and a folder for its artifacts."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertex_registry import _process
from vertex_registry._client import RegistryClient
from vertex_registry._names import LOCAL_BUCKET
from vertex_registry._quoting import is_blank, quote, shorten
from vertex_registry.errors import ConflictError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from vertex_registry.emulator import Emulator, Quota


class LocalRegistry(RegistryClient):
    """A `RegistryClient` with an emulator of its own, which ends with it.

    Attributes:
        emulator: The emulator. Google's own clients reach it too, at ``emulator.grpc``.
        artifacts: The folder that artifacts on this machine are copied to. It's created with the first one.
    """

    _remove: Callable[[], object] | None = None

    def __init__(self, emulator: Emulator, artifacts: Path, *, temporary: bool = False, **settings: Any) -> None:
        self.emulator = emulator
        self.artifacts = artifacts
        self._owner = _process.Inherited(emulator)
        defaults = {"project": "local-project", "location": "us-central1", "staging_bucket": f"gs://{LOCAL_BUCKET}"}
        super().__init__(**defaults | settings | {"endpoint": emulator.grpc})
        self._artifacts = artifacts
        if temporary:
            self._remove = weakref.finalize(self, _remove_temporary, artifacts, os.getpid())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._owner.mine:
            # This fails if a planned fault is left.
            self.emulator.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the connection and the emulator, and remove a temporary artifacts folder. Closing twice is fine.

        In a forked process only that process's connection is closed: the emulator belongs to the process that created
        it.
        """
        super().close()
        if self._owner.mine:
            self.emulator.close()
            if self._remove is not None:
                self._remove()

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], RegistryClient], tuple[dict[str, Any]]]:
        """Pickle as a plain client of the same emulator and folder. The emulator must be running when it's used."""
        return _connected, (self.__getstate__(),)


def _connected(state: dict[str, Any]) -> RegistryClient:
    client = RegistryClient.__new__(RegistryClient)
    client.__setstate__(state)
    return client


def _check_threads() -> None:
    """Refuse to start an emulator if threads are patched: gRPC's server would wait for one that never runs."""
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


def local_registry(
    path: str | os.PathLike[str] | None = None,
    *,
    artifacts: str | os.PathLike[str] | None = None,
    quota: Quota | None = None,
    **settings: Any,
) -> LocalRegistry:
    """Open a registry on this machine that needs no cloud and no storage server.

    A folder that you register is copied to the artifacts folder. Its URI begins with ``gs://artifacts.localhost``, a
    bucket that only this registry has. You can register ``gs://`` URIs of other buckets as well.

    Examples:
        >>> with local_registry() as registry:
        ...     registry.register_version("churn", "gs://models/churn/1").version
        '1'

    Args:
        path: The file to keep models and versions in, which is created if it doesn't exist; ``~`` is your home folder.
            One process at a time can have it open. Defaults to keeping them in memory.
        artifacts: The folder to keep artifacts in. It belongs to you alone: other users can't write to it. Defaults to
            the path with ``.artifacts`` at its end; in memory to a temporary folder, which is removed on close.
        quota: How many requests the registry accepts in a minute, a `vertex_registry.emulator.Quota`. Defaults to no
            limit.
        **settings: Settings of `RegistryClient`, such as ``actor`` or ``retry``.

    Raises:
        ConflictError: The file is open in another registry or emulator; or gevent or eventlet has patched this
            process's threads, so no emulator can run in it.
        InvalidArgumentError: The file isn't a registry's, ``artifacts`` isn't a folder that's for artifacts alone,
            ``quota`` isn't a quota, or ``STORAGE_EMULATOR_HOST`` isn't an address.
    """
    for setting, own in (("endpoint", None), ("transport", "grpc")):
        if settings.get(setting) not in (None, own):
            raise InvalidArgumentError(
                f"{setting}={quote(settings[setting])} can't be set, because a local registry has an endpoint of "
                "its own, for gRPC. Use RegistryClient to connect to a server."
            )
    path = _checked_path(path)
    folder = _artifacts_folder(path, artifacts)
    _check_threads()
    from vertex_registry.emulator import DataFileError, Emulator, Quota  # noqa: PLC0415  # Google's libraries take a second

    given: Any = quota
    if given is not None and not isinstance(given, Quota):
        raise InvalidArgumentError(
            f"quota={quote(given)} isn't a quota. Pass a vertex_registry.emulator.Quota, such as Quota(requests=100)."
        )
    try:
        emulator = Emulator(path, rest_port=None, folders={LOCAL_BUCKET: folder}, quota=quota)
    except DataFileError as error:
        kind = ConflictError if error.in_use else InvalidArgumentError
        message = str(error).replace("another emulator. Stop that one", "another registry or emulator. Close that one")
        for named in (Path(error.path), Path(error.path).parent):
            message = message.replace(str(named), shorten(str(named)))
        raise kind(message, resource=str(path)) from error
    except ValueError as error:  # of what the emulator reads itself, only this can be wrong
        raise InvalidArgumentError(f"{error} STORAGE_EMULATOR_HOST sets it.") from error
    try:
        return LocalRegistry(emulator, folder, temporary=path is None and artifacts is None, **settings)
    except BaseException:
        emulator.close()
        raise


def _artifacts_folder(path: str | os.PathLike[str] | None, artifacts: Any) -> Path:
    if artifacts is None:
        if path is not None:
            return Path(f"{os.path.abspath(path)}.artifacts")  # noqa: PTH100  # for whoever changes the directory later
        # Its name is chosen now, so that processes that are forked before the first upload know it as well.
        return Path(tempfile.gettempdir(), f"vertex-registry-{secrets.token_hex(12)}").absolute()
    text = os.fspath(artifacts) if isinstance(artifacts, (str, os.PathLike)) else None
    if not isinstance(text, str) or is_blank(text) or "\0" in text:
        raise InvalidArgumentError(f"artifacts={quote(artifacts)} isn't the path of a folder.")
    if "://" in text:
        raise InvalidArgumentError(
            f"artifacts={quote(text)} isn't a folder on this machine. To upload to a bucket, pass it as "
            "staging_bucket=."
        )
    try:
        folder = Path(text).expanduser().absolute()
    except RuntimeError:
        raise InvalidArgumentError(
            f"artifacts={quote(text)} is in the home folder of a user that doesn't exist."
        ) from None
    try:
        taken = os.path.lexists(folder) and not folder.is_dir()
    except OSError as error:  # such as a name that's too long
        raise InvalidArgumentError(
            f"artifacts={quote(text)} can't be used: {error.strerror}. Name another folder."
        ) from error
    if taken:
        raise InvalidArgumentError(f"artifacts={quote(text)} is a file. Name a folder, or one that doesn't exist yet.")
    real = Path(os.path.realpath(folder))
    home = Path(os.path.realpath(os.path.expanduser("~")))  # noqa: PTH111  # unlike pathlib, it allows having none
    if real in {Path(real.anchor), home}:
        what = "your home folder" if real == home else "the root of a file system"
        raise InvalidArgumentError(f"artifacts={quote(text)} is {what}. Name a folder that's for artifacts alone.")
    return folder


def _remove_temporary(folder: Path, process: int) -> None:
    """Remove a temporary folder, unless this is a forked process: it belongs to the parent."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _checked_path(path: Any) -> str | None:
    """Return the path of the file, with the home folder in place of ``~``."""
    if path is None:
        return None
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or is_blank(text) or "\0" in text or "://" in text:
        raise InvalidArgumentError(
            f"path={quote(path)} isn't the path of a file. Leave it out to keep everything in memory."
        )
    return os.path.expanduser(text)  # noqa: PTH111  # unlike pathlib, it allows having none
