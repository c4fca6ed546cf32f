"""What a registration uploads: its request, the hidden aliases that identify its uploads, and its errors.

The alias of the request moves to the request's latest upload. Each upload also has an alias of its own, which never
moves.
"""

from __future__ import annotations

import collections
import contextlib
from typing import TYPE_CHECKING, Any

import attrs

from vertex_registry import _faults, _labels, _names, _wire
from vertex_registry.errors import (
    ConflictError,
    NotFoundError,
    OperationFailedError,
    OperationTimeoutError,
    PermissionDeniedError,
    RegistryError,
    StateUnknownError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from vertex_registry._records import ModelVersion, ServingContainer
    from vertex_registry._resources import AliasedVersion, Model, Resources
    from vertex_registry._stages import Stage


@attrs.frozen(kw_only=True)
class Registration:
    """The checked arguments of one registration, ready to be sent as often as necessary.

    Attributes:
        aliases: The aliases that the caller gives the version, without ``default``.
        shared: Whether another call may be sending the same request.
        metadata_file: Whether there's a file with more metadata in the source.
    """

    name: str
    source: str
    container: ServingContainer
    aliases: tuple[str, ...]
    make_default: bool
    description: str | None
    model_description: str | None
    metadata: dict[str, Any]
    version_name: str | None
    stage: Stage
    archive_existing: bool
    managed_by: str
    request_id: str
    shared: bool
    metadata_file: bool = False

    @property
    def alias(self) -> str:
        """Return the alias of the request, which moves to its latest upload."""
        return _names.hidden_alias("request", self.request_id)

    def upload_aliases(self, own: str) -> list[str]:
        """Return the aliases that an upload carries, including its own."""
        aliases = [self.alias, own, _names.NEWEST_ALIAS, _names.LIVE_ALIAS]
        if self.version_name is not None:
            aliases.append(_names.hidden_alias("name", self.version_name))
        if self.aliases:
            aliases.append(_names.pending_alias(own))
        if self.make_default:
            aliases.append(_names.DEFAULT_ALIAS)
        return aliases

    def own_alias(self, found: AliasedVersion) -> str:
        """Return the alias that only the upload of this version carries."""
        own = _names.find_upload_alias(found.aliases, self.alias)
        return self.alias if own is None else own[0]


def is_complete(version: ModelVersion, registration: Registration) -> bool:
    """Return whether everything that belongs to the version has been written."""
    written = _labels.read(version.labels).own_labels.get(_labels.REQUEST)
    return written == _names.fingerprint(registration.request_id)


def wait_for_running(resources: Resources, resource: str, registration: Registration) -> bool:
    """Wait for the running operations of a model, and return whether there were any.

    An operation doesn't show which upload it belongs to, so this waits for those of other requests too.

    Raises:
        OperationTimeoutError: An operation is still running at the end of the budget.
    """
    rpc = resources.rpc
    budget = rpc.operation_budget()
    found_any = False
    for operation in resources.running_operations(resource):
        found_any = True
        try:
            rpc.wait(operation, _wire.operation, budget)
        except (OperationFailedError, NotFoundError):
            continue
        except OperationTimeoutError as timeout:
            raise timeout_error(registration, timeout) from timeout.__cause__
    return found_any


def change_aliases(
    resources: Resources,
    model: Model,
    version: ModelVersion,
    own: str,
    *,
    add: Collection[str] = (),
    remove: Collection[str] = (),
    is_done: Callable[[Collection[str]], bool],
) -> ModelVersion:
    """Change the aliases of a version exactly once, and return the version.

    Args:
        resources: The models and versions.
        model: The model.
        version: The version.
        own: The alias of its upload, or its number. After a lost response, the version is read by it.
        add: The aliases to add.
        remove: The aliases to remove.
        is_done: Returns whether the change has happened, given the current aliases.

    Raises:
        NotFoundError: The version was deleted.
    """
    rpc = resources.rpc
    budget, failures = rpc.budget(), collections.Counter[str]()
    while True:
        try:
            return resources.merge_aliases(model, version.version, add=add, remove=remove)
        except UnavailableError as lost:
            found = resources.find_with_aliases(model.resource, own)
            if found is None:
                raise NotFoundError(
                    f"{model.at(version.version)} was deleted.", resource=model.at(version.version)
                ) from lost.__cause__
            if is_done(found.aliases):
                return found.version
            if not rpc.pause_after(lost, budget, failures):
                raise


# --- errors -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def unknown_if_lookup_fails(registration: Registration, resource: str, sent: RegistryError) -> Iterator[None]:
    """Raise `StateUnknownError` if a lookup fails inside.

    The upload was sent and ended in an error, so only the lookup could show whether it happened.

    Args:
        registration: The registration.
        resource: What is looked up.
        sent: The error that the upload ended in.
    """
    try:
        yield
    except OperationTimeoutError:
        raise  # it names the request ID
    except RegistryError as error:
        cause = f"{_faults.first_sentence(sent)} The lookup failed too: {_faults.first_sentence(error)}"
        raise state_unknown(registration, resource, cause) from error


@contextlib.contextmanager
def unknown_if_completion_fails(registration: Registration, resource: str) -> Iterator[None]:
    """Raise `StateUnknownError`, with the request ID, if something fails inside after an upload."""
    try:
        yield
    except OperationTimeoutError:
        raise
    except ConflictError as error:
        if error.code != "FAILED_PRECONDITION":
            raise
        raise not_completed(registration, resource, error) from error  # a refused read or write; the upload stays
    except RegistryError as error:
        raise not_completed(registration, resource, error) from error


@contextlib.contextmanager
def ignore_forbidden() -> Iterator[None]:
    """Continue if the running operations can't be listed, because that isn't allowed or isn't implemented."""
    try:
        yield
    except (PermissionDeniedError, UnavailableError) as error:
        if error.code not in {"PERMISSION_DENIED", "UNIMPLEMENTED"}:
            raise


def timeout_error(registration: Registration, timeout: OperationTimeoutError) -> OperationTimeoutError:
    """Return the error of a registration whose upload is still running. It carries the request ID."""
    error = OperationTimeoutError(
        f"{_faults.first_sentence(timeout)} To finish the version of {registration.name!r}, call register_version "
        f"again with request_id={registration.request_id!r}. Retry(operation_timeout=...) sets how long to wait.",
        resource=timeout.resource,
        code=timeout.code,
    )
    error.request_id = registration.request_id
    return error


def state_unknown(registration: Registration, resource: str, cause: str) -> StateUnknownError:
    """Return the error of a registration that may or may not have happened.

    Args:
        registration: The registration.
        resource: What the failed call was about.
        cause: Why nobody knows, in one or two sentences.
    """
    return StateUnknownError(
        f"It's unknown whether the version of {registration.name!r} was created: {cause} Call register_version again "
        f"with request_id={registration.request_id!r}: it returns the version, or creates it.",
        resource=resource,
        request_id=registration.request_id,
    )


def not_completed(registration: Registration, resource: str, error: RegistryError) -> StateUnknownError:
    """Return the error of a version that was uploaded, and may lack its labels and aliases."""
    return StateUnknownError(
        f"{resource} was uploaded, but couldn't be completed: {_faults.first_sentence(error)} Call register_version "
        f"again with request_id={registration.request_id!r} to finish it.",
        resource=resource,
        request_id=registration.request_id,
    )
