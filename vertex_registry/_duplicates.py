"""Keep one version of a request that was uploaded several times.

That happens if two calls share a request ID, or if a request that was given up arrives late. The lowest version stays.
It's the only direction in which two clients can't delete each other's version.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final

from vertex_registry import _faults, _names, _waiting, _wire
from vertex_registry._resources import AliasedVersion
from vertex_registry._uploads import change_aliases, ignore_forbidden, is_complete, wait_for_running
from vertex_registry.errors import (
    ConflictError,
    NotFoundError,
    OperationFailedError,
    PermissionDeniedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vertex_registry._records import ModelVersion
    from vertex_registry._resources import Model, Resources
    from vertex_registry._uploads import Registration

#: How many versions in a range are read one by one. In a longer range, the list shows which needn't be read.
_MAX_SINGLE_READS: Final = 32

#: How many of them are read at once.
_CONCURRENT_READS: Final = 8

#: How often deleting a duplicate is retried after a refusal: somebody may just have made it the default version.
_MAX_REFUSALS: Final = 3


def keep_lowest(
    resources: Resources, model: Model, found: AliasedVersion, registration: Registration
) -> tuple[AliasedVersion, PermissionDeniedError | None]:
    """Delete all versions of a request but the lowest, and return that one, and the error if deleting isn't allowed.

    Args:
        resources: The models and versions.
        model: The model.
        found: A version of the request.
        registration: The registration.
    """
    denied: PermissionDeniedError | None = None
    budget, tries = resources.rpc.budget(), 0
    while not is_complete(found.version, registration):  # a complete version was the lowest one
        others = _find_lower(resources, model, found, registration)
        if not others:
            break
        lower, *duplicates = others
        try:
            _hand_over_aliases(resources, model, lower, [*duplicates, found], registration)
        except NotFoundError:  # somebody has deleted the lower one
            if not resources.rpc.pause(budget, tries):
                raise
            tries += 1
            continue
        fresh = resources.find_with_aliases(model.resource, registration.own_alias(lower))
        found = lower if fresh is None else fresh
    for number in _names.versions_being_removed(found.aliases):
        try:
            version = _delete_duplicate(resources, model, number, found, registration)
            left = tuple(alias for alias in found.aliases if alias != _names.removing_alias(number))
            found = AliasedVersion(version, left)
        except PermissionDeniedError as error:
            denied = PermissionDeniedError(
                f"Version {number} of {registration.name!r} is a duplicate of version {found.version.version}, but "
                f"couldn't be deleted: {_faults.first_sentence(error)} Delete version {number}, or register again "
                "with the permission aiplatform.models.delete.",
                resource=model.at(number),
                code=error.code,
            )
            denied.__cause__ = error.__cause__
    return found, denied


def _find_lower(
    resources: Resources, model: Model, found: AliasedVersion, registration: Registration
) -> list[AliasedVersion]:
    """Return the lower versions of the same request, the lowest first.

    The alias of an upload contains the number of a version that existed before its request was sent, so no version up
    to that number can belong to the request. No list has to be complete for this.
    """
    own = _names.find_upload_alias(found.aliases, registration.alias)
    number = int(found.version.version)
    base = 0 if own is None or own[1] >= number else own[1]
    between = list(range(base + 1, number))
    if len(between) > _MAX_SINGLE_READS:
        listed = resources.list_aliases(model)
        between = [
            other
            for other in between
            if other not in listed or _names.find_upload_alias(listed[other], registration.alias)
        ]
    existing = _read_each(resources, model, between)
    missing = [other for other in between if other not in existing]
    if missing:
        # They were deleted, or their uploads have a number but aren't finished.
        with ignore_forbidden():
            if wait_for_running(resources, model.resource, registration):
                existing |= _read_each(resources, model, missing)
    return [
        existing[other]
        for other in sorted(existing)
        if _names.find_upload_alias(existing[other].aliases, registration.alias) is not None
    ]


def _read_each(resources: Resources, model: Model, numbers: list[int]) -> dict[int, AliasedVersion]:
    """Return those of the versions that exist, by number."""

    def read(number: int) -> AliasedVersion | None:
        return resources.find_with_aliases(model.resource, str(number))

    if len(numbers) == 1:
        results: Iterable[AliasedVersion | None] = [read(numbers[0])]
    else:
        results = _waiting.prefetch(read, numbers, _CONCURRENT_READS)
    return {number: found for number, found in zip(numbers, results, strict=True) if found is not None}


def _hand_over_aliases(
    resources: Resources, model: Model, lower: AliasedVersion, others: list[AliasedVersion], registration: Registration
) -> None:
    """Move the aliases of a request's other uploads to its lowest version, and mark there which have to be deleted.

    Raises:
        NotFoundError: The lowest version was deleted.
    """
    aliases: list[str] = []
    for other in others:
        # An alias that somebody has moved since the read stays where it is.
        fresh = resources.find_with_aliases(model.resource, registration.own_alias(other))
        if fresh is not None:
            aliases += _names.inherited_aliases(fresh.aliases, registration.alias)
            aliases.append(_names.removing_alias(fresh.version.version))
    if aliases:
        own, mark = registration.own_alias(lower), aliases[-1]  # the mark is set in the same call as the others
        change_aliases(resources, model, lower.version, own, add=aliases, is_done=lambda aliases: mark in aliases)


def _delete_duplicate(
    resources: Resources, model: Model, number: str, kept: AliasedVersion, registration: Registration
) -> ModelVersion:
    """Delete a duplicate, and return the version that is kept, without the mark for this duplicate."""
    rpc = resources.rpc
    resource, own_of_kept, default = model.at(number), registration.own_alias(kept), _names.DEFAULT_ALIAS
    budget, failures = rpc.budget(), collections.Counter[str]()
    while True:
        duplicate = resources.find_with_aliases(model.resource, number)
        own = None if duplicate is None else _names.find_upload_alias(duplicate.aliases, registration.alias)
        if duplicate is None or own is None or int(number) <= int(kept.version.version):
            break
        if duplicate.version.is_default:  # somebody has moved the alias there since it was handed over
            change_aliases(
                resources, model, kept.version, own_of_kept, add=[default], is_done=lambda aliases: default in aliases
            )
        try:
            operation = rpc.call("DeleteModelVersion", _wire.delete_version(resource), resource)
            rpc.wait(operation, _wire.operation, rpc.operation_budget())
        except NotFoundError:
            break
        except (UnavailableError, OperationFailedError, ConflictError) as failure:
            final = isinstance(failure, ConflictError) and failures.total() >= _MAX_REFUSALS
            if final or not rpc.pause_after(failure, budget, failures):
                raise
        else:
            break
    mark = _names.removing_alias(number)
    return change_aliases(
        resources, model, kept.version, own_of_kept, remove=[mark], is_done=lambda aliases: mark not in aliases
    )
