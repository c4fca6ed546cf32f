"""Deleting does what is meant, and never more.

``DeleteModelVersion`` is tried first, and a default version's ``default`` moved before, and back if Vertex refuses. A
model goes with a version only where that was refused and no other version can be found: in the list, by the alias of
ours that the version uploaded last bears, or by point reads around it, for a list may lag.

A deletion whose answer was lost is verified by a read. What bears the name by then need not be what was meant: the id
of a model is a function of its name, and somebody may have registered the name anew. It is told by when it was made.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from vertex_registry import _names, _stages, _waiting, _wire
from vertex_registry._records import Pruned
from vertex_registry._stages import Stage
from vertex_registry.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    OperationFailedError,
    RegistryError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vertex_registry._records import ModelVersion
    from vertex_registry._resources import Model, Resources

_LOG: Final = logging.getLogger("vertex_registry")

#: How far around a version the last one is looked for, by point reads, before its model is deleted with it.
_NEIGHBOURS: Final = 8


def delete_version(resources: Resources, model: Model, reference: str) -> None:
    """Delete a version, and its model where it is the last one.

    Raises:
        NotFoundError: There is no such version.
        ConflictError: Vertex refuses.
    """
    current = resources.read(model, reference)
    resource = model.at(current.version)
    if current.stage is Stage.PRODUCTION:
        _LOG.warning("deleting %s, which is in %s", resource, current.stage)
    moved = current.is_default and _move_default(resources, model, current.version)
    try:
        _delete(
            resources,
            "DeleteModelVersion",
            _wire.delete_version(resource),
            resource,
            lambda: _is_there(resources, model, current),
        )
    except BaseException as refusal:
        if resources.rpc.closed:
            raise  # nothing more can be asked for
        if moved:
            # Who types Ctrl-C does not wait for several tries.
            _move_back(resources, model, current.version, once=not isinstance(refusal, Exception))
        if not isinstance(refusal, (ConflictError, InvalidArgumentError, OperationFailedError)):
            raise
        if not current.is_default or moved or _has_others(resources, model, current):
            raise _refused(refusal, resource) from refusal.__cause__
        _LOG.warning("%s is the last version of its model, which is deleted with it", resource)
        _delete_model(resources, model, lambda: _is_last(resources, model, current))


def prune(resources: Resources, model: Model, keep: int, *, dry_run: bool) -> Pruned:
    """Delete the versions that are neither among the newest nor in use, oldest first."""
    versions = resources.versions(model)
    kept = {version.version: f"among the newest {keep}" for version in versions[:keep]}
    deleted = []
    for version in reversed(versions[keep:]):
        # It may have been put to use since it was listed, and lists may lag.
        current = version if dry_run else resources.look(model.resource, version.version)
        if current is None:
            continue
        if (use := _use_of(current)) is not None:
            kept[current.version] = use
            continue
        if not dry_run:
            with contextlib.suppress(NotFoundError):  # somebody else deletes it too
                delete_version(resources, model, current.version)
        deleted.append(current)
    newest_first = sorted(kept, key=int, reverse=True)
    return Pruned(deleted=tuple(deleted), kept={number: kept[number] for number in newest_first}, dry_run=dry_run)


def _use_of(version: ModelVersion) -> str | None:
    """Return how a version is in use, or None."""
    if version.stage in _stages.EXCLUSIVE:
        return f"in {version.stage}"
    if version.aliases:
        return f"has the alias {version.aliases[0]!r}"
    return f"deployed to {len(version.deployed_to)} endpoint(s)" if version.deployed_to else None


def delete_model(resources: Resources, model: Model) -> None:
    """Delete a model with all its versions.

    Raises:
        NotFoundError: It is not there.
        ConflictError: Vertex refuses.
    """
    meant = resources.read_model(model).created_at

    def is_there() -> bool:
        try:
            return resources.read_model(model).created_at == meant
        except NotFoundError:
            return False

    _delete_model(resources, model, is_there)


def _delete_model(resources: Resources, model: Model, is_there: Callable[[], bool]) -> None:
    try:
        _delete(resources, "DeleteModel", _wire.delete_model(model.resource), model.resource, is_there)
    except (ConflictError, OperationFailedError) as refusal:
        raise _refused(refusal, model.resource) from refusal.__cause__
    resources.forget_model(model)


def _move_default(resources: Resources, model: Model, version: str) -> bool:
    """Whether there was another version for ``default`` to move to."""
    for other in _others(resources, model, version):
        with contextlib.suppress(NotFoundError):  # a list that lags shows versions that are gone
            resources.merge_aliases(model, other, add=[_names.DEFAULT_ALIAS])
            return True
    return False


def _move_back(resources: Resources, model: Model, version: str, *, once: bool) -> None:
    """Let ``default`` be where it was, if it can be: why nothing was deleted is what the caller is told."""
    try:
        resources.merge_aliases(model, version, add=[_names.DEFAULT_ALIAS], once=once)
    except NotFoundError:
        pass  # it was deleted after all
    except RegistryError as error:
        _LOG.warning(
            "default was moved away from version %s of %r, and could not be moved back: %s "
            "set_default(%r, %s) does it.",
            version,
            model.name,
            error,
            model.name,
            version,
        )


def _others(resources: Resources, model: Model, version: str) -> list[str]:
    """The numbers of the other versions, the newest first.

    A list may lag, and a version that it does not show yet must not be deleted with its model: the version that was
    uploaded last bears an alias of ours, and the neighbourhood of the version and of the last one is looked at
    version by version.
    """
    number = int(version)
    listed = {int(other.version) for other in resources.versions(model)}
    with contextlib.suppress(NotFoundError):
        listed.add(int(resources.read(model, _names.NEWEST_ALIAS).version))
    top = max(listed | {number})
    near = {*range(number - _NEIGHBOURS, number + _NEIGHBOURS + 1), *range(top, top + _NEIGHBOURS + 1)}

    unlisted = sorted(other for other in near - listed if other > 0)
    looked = _waiting.ahead(lambda other: resources.look(model.resource, str(other)), unlisted, _NEIGHBOURS)
    found = {int(version.version) for version in looked if version is not None}
    return [str(other) for other in sorted((listed | found) - {number}, reverse=True)]


def _has_others(resources: Resources, model: Model, current: ModelVersion) -> bool:
    """Whether there is another version: one that can be read, for a list that lags shows versions that are gone."""
    others = _others(resources, model, current.version)
    return any(resources.look(model.resource, other) is not None for other in others)


def _is_there(resources: Resources, model: Model, meant: ModelVersion) -> bool:
    """Whether the version that is meant is there still."""
    found = resources.look(model.resource, meant.version)
    return found is not None and found.created_at == meant.created_at


def _is_last(resources: Resources, model: Model, meant: ModelVersion) -> bool:
    """Whether the version that is meant is there still, and its model may go with it.

    Raises:
        ConflictError: The model has got another version since.
    """
    if not _is_there(resources, model, meant):
        return False
    if _has_others(resources, model, meant):
        raise ConflictError(
            f"{model.at(meant.version)} was not deleted: it was the last version of its model, which was to go with "
            "it, and has got another one since. Delete it again.",
            resource=model.at(meant.version),
        ) from None
    return True


def _delete(  # noqa: C901  # the ways that it can end
    resources: Resources, rpc: str, request: Any, resource: str, is_there: Callable[[], bool]
) -> None:
    """Delete, and find out whether what was meant is still there where the answer does not tell.

    Once it has begun it is not begun again: what is tried again is the wait for it.
    """
    connection = resources.rpc
    budget = connection.budget()
    operation: Any = None
    tries = 0
    while True:
        try:
            if operation is None:
                operation = connection.call(rpc, request, resource)
                patience = connection.operation_budget()
            connection.wait(operation, _wire.operation, patience)
        except NotFoundError:
            if operation is None and not tries:
                raise
            return  # an earlier try has deleted it, or it took its operation along
        except OperationFailedError as failed:
            if failed.code == "FAILED_PRECONDITION" or is_there():
                raise
            return
        except UnavailableError as lost:
            if lost.code == "UNIMPLEMENTED":
                raise
            again = connection.pause(budget, tries, lost.retry_after)
            if not is_there():  # looked at last, so that nothing comes between that and another try
                return
            if not again:
                if operation is not None:
                    lost.args = (f"{lost} The deletion of {resource} has begun, and goes on at Vertex.",)
                raise
            tries += 1
        else:
            return


def _refused(refusal: RegistryError, resource: str) -> RegistryError:
    """A refusal to delete, in words; what failed for another reason is left as it is."""
    if refusal.code not in {"FAILED_PRECONDITION", "INVALID_ARGUMENT"}:
        return refusal
    return ConflictError(
        f"{resource} was not deleted: {refusal} "
        "A version that is deployed has to be undeployed from its endpoints first.",
        resource=resource,
        code=refusal.code,
    )
