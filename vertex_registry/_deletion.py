"""Delete a version, and its model with the last version.

`DeleteModelVersion` is tried first. Only after a refusal is ``default`` moved, or the model deleted, depending on what
is read then. Before a model is deleted, its last version is marked, so registering clients wait.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
from typing import TYPE_CHECKING, Any, Final

import attrs

from vertex_registry import _aliases, _faults, _names, _stages, _waiting, _wire
from vertex_registry._records import Pruned
from vertex_registry._stages import Stage
from vertex_registry.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    OperationFailedError,
    PermissionDeniedError,
    RegistryError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from vertex_registry._records import ModelVersion, RegisteredModel
    from vertex_registry._resources import Model, Resources

_LOG: Final = logging.getLogger("vertex_registry")

#: The codes of a refusal that depends on the state of the resource.
_STATE_CODES: Final = frozenset({"FAILED_PRECONDITION", "INVALID_ARGUMENT"})

#: How many deployed versions an error names.
_MOST_NAMED: Final = 3

#: How many numbers around a version are read one by one, to find versions that no list shows yet.
_NEIGHBORS: Final = 8


def delete_version(resources: Resources, model: Model, version: ModelVersion) -> None:
    """Delete a version, and its model if it's the last one.

    Args:
        resources: The models and versions.
        model: The model.
        version: The version as it was just read.

    Raises:
        NotFoundError: There's no such version.
        ConflictError: Vertex refuses.
    """
    if version.stage is Stage.PRODUCTION:
        _LOG.warning("deleting version %s of %r, which is in %s", version.version, version.name, version.stage)
    _keep_highest_number(resources, model, version)
    deletion = _Deletion(resources, model, version)
    try:
        deletion.run()
    except BaseException as error:
        if deletion.moved_to and not resources.rpc.closed:
            # After Ctrl-C, nobody waits for several attempts.
            _restore_default(resources, model, version, deletion.moved_to, once=not isinstance(error, Exception))
        raise


def _keep_highest_number(resources: Resources, model: Model, version: ModelVersion) -> None:
    """Copy the highest version number so far to another version, if only the deleted version shows it.

    Otherwise, nothing would show that the version existed, and a stage that it was in could be mistaken for empty.
    """
    aliases = version._hidden_aliases  # noqa: SLF001  # the package's own field
    highest = max(int(version.version) if _names.NEWEST_ALIAS in aliases else 0, _names.highest_number(aliases))
    if not highest:
        return
    # A lagging list shows deleted versions, and whoever may delete may not be allowed to list.
    with contextlib.suppress(NotFoundError, PermissionDeniedError):
        others = [other for other in resources.list_versions(model) if other.version != version.version]
        before = str(int(version.version) - 1)
        successor = others[0] if others else resources.find_version(model.resource, before) if before != "0" else None
        if successor is not None:
            _merge_until_done(resources, model, successor, add=[_names.highest_alias(highest)])


@attrs.define
class _Deletion:
    """The deletion of one version.

    Attributes:
        resources: The models and versions.
        model: The model.
        version: The version as it was read first.
        moved_to: The version that ``default`` was moved to.
        unlisted: A version that no list has shown so far.
    """

    resources: Resources
    model: Model
    version: ModelVersion
    moved_to: str = ""
    unlisted: str = ""

    def run(self) -> None:
        """Delete the version. After each refusal, read what it takes, do that, and try again."""
        connection, number = self.resources.rpc, self.version.version
        budget, tries = connection.budget(), 0
        known_deletable = False  # neither the default version nor the only one, before the last try
        while (refusal := self._try_once()) is not None:
            now = self.resources.find_version(self.model.resource, number)
            if now is None or now.created_at != self.version.created_at:
                return  # somebody else has deleted it
            if now.deployed_to:
                raise _refused_error(refusal, self.model.at(number), [now]) from refusal.__cause__
            successor = _first_existing(self.resources, self.model, self._listed())
            if successor is None:
                successor = _delete_with_model(self.resources, self.model, self.version)
                if successor is None:
                    return
                self.unlisted = successor.version
            if now.is_default:
                if not self.moved_to:
                    self.moved_to = _move_default(self.resources, self.model, successor)
                    known_deletable = True
                    continue
                # Somebody has moved it back, perhaps to delete the other version. Wait, and try again.
                self.moved_to = ""
            elif known_deletable or self._was_deletable():
                _remove_stale_mark(self.resources, self.model, self.version)
                raise _refused_error(refusal, self.model.at(number)) from refusal.__cause__
            else:
                known_deletable = True
            if not connection.pause(budget, tries):
                raise _refused_error(refusal, self.model.at(number)) from refusal.__cause__
            tries += 1

    def _try_once(self) -> RegistryError | None:
        """Try to delete the version, and return Vertex's refusal if it depends on the version's state."""
        resource = self.model.at(self.version.version)

        def exists() -> bool:
            return _exists(self.resources, self.model, self.version)

        try:
            _delete(self.resources, "DeleteModelVersion", _wire.delete_version(resource), resource, exists)
        except (ConflictError, InvalidArgumentError, OperationFailedError) as refusal:
            if self.resources.rpc.closed or refusal.code not in _STATE_CODES:
                raise
            return refusal
        return None

    def _listed(self) -> Iterator[str]:
        """Yield the numbers of other versions that a list shows."""
        if self.unlisted:
            yield self.unlisted
        yield from _other_numbers(self.resources, self.model, self.version.version, listed_only=True)

    def _others(self) -> Iterator[str]:
        return _other_numbers(self.resources, self.model, self.version.version)

    def _was_deletable(self) -> bool:
        """Return whether the version wasn't the default at first, and an older version exists."""
        older = (other for other in self._others() if int(other) < int(self.version.version))
        return not self.version.is_default and _first_existing(self.resources, self.model, older) is not None


def prune(resources: Resources, model: Model, versions: list[ModelVersion], keep: int, *, dry_run: bool) -> Pruned:
    """Delete the versions that are neither among the newest nor in use, the oldest first."""
    kept = {version.version: f"among the newest {keep}" for version in versions[:keep]}
    deleted = []
    for version in reversed(versions[keep:]):
        # It may be in use by now, and lists may lag.
        current = version if dry_run else resources.find_version(model.resource, version.version)
        if current is None:
            continue
        if (usage := _usage(current)) is not None:
            kept[current.version] = usage
            continue
        if not dry_run and (usage := _delete_unused(resources, model, current)) is not None:
            kept[current.version] = usage
            continue
        deleted.append(current)
    newest_first = sorted(kept, key=int, reverse=True)
    return Pruned(deleted=tuple(deleted), kept={number: kept[number] for number in newest_first}, dry_run=dry_run)


def _delete_unused(resources: Resources, model: Model, version: ModelVersion) -> str | None:
    """Delete a version that isn't in use. If Vertex refuses because it's in use by now, return how."""
    try:
        delete_version(resources, model, version)
    except NotFoundError:
        pass  # somebody else deletes it too
    except ConflictError:
        now = resources.find_version(model.resource, version.version)
        if now is None or (usage := _usage(now)) is None:
            raise
        return usage
    return None


def _usage(version: ModelVersion) -> str | None:
    """Return how a version is in use, or None."""
    if version.stage in _stages.EXCLUSIVE:
        return f"in {version.stage}"
    if version.aliases:
        return f"has the alias {version.aliases[0]!r}"
    if not version.deployed_to:
        return None
    count = len(version.deployed_to)
    return f"deployed to {count} endpoint{'' if count == 1 else 's'}"


def delete_model(resources: Resources, model: Model, current: RegisteredModel) -> None:
    """Delete a model with all its versions.

    Args:
        resources: The models and versions.
        model: The model.
        current: The model as it was just read.

    Raises:
        NotFoundError: There's no such model.
        ConflictError: Vertex refuses.
    """

    def exists() -> bool:
        try:
            return resources.read_model(model).created_at == current.created_at
        except NotFoundError:
            return False

    _delete_model(resources, model, exists)


def _delete_model(resources: Resources, model: Model, exists: Callable[[], bool]) -> None:
    try:
        _delete(resources, "DeleteModel", _wire.delete_model(model.resource), model.resource, exists)
    except (ConflictError, OperationFailedError) as refusal:
        deployed: list[ModelVersion] = []
        with contextlib.suppress(RegistryError):  # the refusal says more than an error of this
            deployed = [version for version in resources.list_versions(model) if version.deployed_to]
        raise _refused_error(refusal, model.resource, deployed) from refusal.__cause__
    resources.forget_model(model)


def _delete_with_model(resources: Resources, model: Model, version: ModelVersion) -> ModelVersion | None:
    """Delete a model with its last version. If there's another version, delete nothing and return that one."""
    other: ModelVersion | None = None

    def is_last() -> bool:
        nonlocal other
        other = _first_existing(resources, model, _other_numbers(resources, model, version.version))
        # This is read last, because the model may have been deleted and created again.
        return other is None and _exists(resources, model, version)

    try:
        _mark(resources, model, version)
        if is_last():
            _LOG.warning("%s is the last version of its model, which is deleted with it", model.at(version.version))
            _delete_model(resources, model, is_last)
    except BaseException as error:
        if isinstance(error, NotFoundError):
            return None  # somebody else has deleted it
        if not resources.rpc.closed:
            _unmark(resources, model, version, once=not isinstance(error, Exception))
        raise
    # The version with the mark is kept, or another version has its number by now.
    if other is not None or resources.find_version(model.resource, version.version) is not None:
        _unmark(resources, model, version, once=False)
    return other


def _mark(resources: Resources, model: Model, version: ModelVersion) -> None:
    """Mark a version, so registering clients see that it's about to be deleted with its model."""
    aliases = [_names.DELETING_ALIAS, _names.LIVE_ALIAS]
    _merge_until_done(resources, model, version, add=aliases)


def _unmark(resources: Resources, model: Model, version: ModelVersion, *, once: bool) -> None:
    """Remove the mark. If that fails, log a warning, because the caller gets the error of the deletion."""
    try:
        with resources.rpc.cleanup():
            _merge_until_done(resources, model, version, remove=[_names.DELETING_ALIAS], once=once)
    except NotFoundError:
        pass  # it was deleted after all
    except RegistryError as error:
        _LOG.warning(
            "%s is still marked for deletion, so register_version(%r, ...) will wait: %s "
            "delete_version(%r, %s) deletes the version or removes the mark.",
            model.at(version.version),
            model.name,
            error,
            model.name,
            version.version,
        )


def _remove_stale_mark(resources: Resources, model: Model, version: ModelVersion) -> None:
    """Remove the mark that a killed client left on a version."""
    with contextlib.suppress(UnavailableError):
        marked = resources.find_version(model.resource, _names.DELETING_ALIAS)
        if marked is not None and marked.version == version.version:
            _unmark(resources, model, version, once=False)


def _merge_until_done(
    resources: Resources,
    model: Model,
    version: ModelVersion,
    *,
    add: Collection[str] = (),
    remove: Collection[str] = (),
    once: bool = False,
) -> None:
    """Change aliases that only deletions use. That's idempotent, so it's retried after a lost response."""
    connection = resources.rpc
    budget, failures = connection.budget(), collections.Counter[str]()
    while True:
        try:
            resources.merge_aliases(model, version.version, add=add, remove=remove)
        except UnavailableError as lost:
            if once or not connection.pause_after(lost, budget, failures):
                raise
        else:
            return


def _move_default(resources: Resources, model: Model, successor: ModelVersion) -> str:
    """Move ``default`` to another version and return its number, or an empty string if it was deleted meanwhile."""
    try:
        _aliases.merge_aliases(resources, model, successor, add=[_names.DEFAULT_ALIAS])
    except NotFoundError:
        return ""
    return successor.version


def _restore_default(resources: Resources, model: Model, version: ModelVersion, moved_to: str, *, once: bool) -> None:
    """Move ``default`` back, unless somebody has chosen another default version since."""
    try:
        with resources.rpc.cleanup():
            default = resources.find_version(model.resource, _names.DEFAULT_ALIAS)
            if default is not None and default.version == moved_to:
                merge = resources.merge_aliases if once else functools.partial(_aliases.merge_aliases, resources)
                merge(model, version.version, add=[_names.DEFAULT_ALIAS])
    except NotFoundError:
        pass  # it was deleted after all
    except RegistryError as error:
        _LOG.warning(
            "default was moved away from version %s of %r, and couldn't be moved back: %s Call set_default(%r, %s).",
            version.version,
            model.name,
            error,
            model.name,
            version.version,
        )


def _other_numbers(resources: Resources, model: Model, version: str, *, listed_only: bool = False) -> Iterator[str]:
    """Yield the numbers of the other versions. A lagging list may add deleted ones.

    First come those that a list or a hidden alias of the latest upload shows, the newest first. A version that none of
    them shows yet mustn't be deleted with its model. So if these aren't enough, this also reads the numbers around the
    version and after the highest one, unless ``listed_only``. In that case, it ends if the list shows no other version.
    """
    number = int(version)
    listed: set[int] = set()
    with contextlib.suppress(NotFoundError):  # the model was deleted
        listed = {int(_names.version_id(other.version) or 0) for other in resources.list_versions(model)} - {0}
    if listed_only and not listed - {number}:
        return
    for alias in (_names.NEWEST_ALIAS, _names.LIVE_ALIAS):
        if (newest := resources.find_version(model.resource, alias)) is not None:
            listed |= {int(_names.version_id(newest.version) or 0)} - {0}
    yield from (str(other) for other in sorted(listed - {number}, reverse=True))
    if listed_only:
        return
    top = max(listed | {number})
    near = {*range(number - _NEIGHBORS, number + _NEIGHBORS + 1), *range(top, top + _NEIGHBORS + 1)} - {number}
    unlisted = sorted(other for other in near - listed if other > 0)
    unlisted_versions = _waiting.prefetch(
        lambda other: resources.find_version(model.resource, str(other)), unlisted, _NEIGHBORS
    )
    found = {int(version.version) for version in unlisted_versions if version is not None}
    yield from (str(other) for other in sorted(found, reverse=True))


def _first_existing(resources: Resources, model: Model, numbers: Iterable[str]) -> ModelVersion | None:
    """Return the first of these versions that exists, or None."""
    found = (resources.find_version(model.resource, number) for number in numbers)
    return next((version for version in found if version is not None), None)


def _exists(resources: Resources, model: Model, meant: ModelVersion) -> bool:
    """Return whether exactly this version still exists."""
    found = resources.find_version(model.resource, meant.version)
    return found is not None and found.created_at == meant.created_at


def _delete(  # noqa: C901  # one branch for each way it can end
    resources: Resources, rpc: str, request: Any, resource: str, exists: Callable[[], bool]
) -> None:
    """Delete a resource, and check whether it still exists if the response doesn't show it.

    Once an operation has started, only the wait for it is retried.
    """
    connection = resources.rpc
    budget = connection.budget()
    operation: Any = None
    failures = collections.Counter[str]()
    while True:
        try:
            if operation is None:
                operation = connection.call(rpc, request, resource)
                operation_budget = connection.operation_budget()
            connection.wait(operation, _wire.operation, operation_budget)
        except NotFoundError:
            if operation is None and not failures:
                raise
            return  # an earlier attempt has deleted it, perhaps with its operation
        except OperationFailedError as failed:
            if failed.code == "FAILED_PRECONDITION" or exists():
                raise
            return
        except UnavailableError as lost:
            if lost.code == "UNIMPLEMENTED":
                raise
            again = connection.pause_after(lost, budget, failures)
            # This is read last, right before the next attempt.
            if not connection.read_after_loss(lost, exists, late=not again):
                return
            if not again:
                if operation is not None:
                    lost.args = (f"{lost} The deletion of {resource} has started, and goes on at Vertex.",)
                raise
        else:
            return


def _refused_error(refusal: RegistryError, resource: str, deployed: Sequence[ModelVersion] = ()) -> RegistryError:
    """Return the error of a refused deletion. An error for another reason is returned unchanged.

    Args:
        refusal: Vertex's refusal.
        resource: What wasn't deleted.
        deployed: The versions of it that are known to be deployed.
    """
    if refusal.code not in _STATE_CODES:
        return refusal
    if deployed:
        named = [f"version {version.version} is deployed to {version.deployed_to[0]}" for version in deployed]
        more = " and others" if len(named) > _MOST_NAMED or any(len(one.deployed_to) > 1 for one in deployed) else ""
        reason = (
            f", because {', '.join(named[:_MOST_NAMED])}{more}. Undeploy it there first, for example with "
            "`gcloud ai endpoints undeploy-model`, and try again."
        )
    else:
        reason = f": {_faults.sentence(str(refusal))} If it's deployed, undeploy it from its endpoints first."
    return ConflictError(f"{resource} wasn't deleted{reason}", resource=resource, code=refusal.code)
