"""Change the aliases of a version, and find out what happened if the response is lost: aliases have no etag."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from vertex_registry import _names
from vertex_registry._resources import changed_since_error
from vertex_registry.errors import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from vertex_registry._records import ModelVersion
    from vertex_registry._resources import Model, Resources


def merge_aliases(
    resources: Resources,
    model: Model,
    reference: str | ModelVersion,
    *,
    add: Collection[str] = (),
    remove: Collection[str] = (),
) -> ModelVersion:
    """Add aliases to a version and remove others, and return it.

    Aliases have no etag. After a lost response, the change is only sent again if the versions that had the aliases
    are unchanged. An alias that somebody has moved since stays where it is.

    Args:
        resources: The versions.
        model: The model.
        reference: The number or alias of the version, or the version as it was just read.
        add: The aliases to add. An alias of another version moves here.
        remove: The aliases to remove.

    Raises:
        NotFoundError: There's no such version.
        ConflictError: The response was lost, and somebody has changed one of the aliases since.
    """
    version = resources.read(model, reference) if isinstance(reference, str) else reference
    if not add and not remove:
        return version
    number, resource = version.version, model.at(version.version)
    before = _alias_holders(resources, model, version, [*add, *remove])
    budget = resources.rpc.budget()
    failures = collections.Counter[str]()
    while True:
        try:
            return resources.merge_aliases(model, number, add=add, remove=remove, once=False)
        except NotFoundError:
            resources.read(model, number)  # raises a better error
            raise
        except UnavailableError as lost:
            if lost.code in {"UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}:
                raise  # it was refused
            again = resources.rpc.pause_after(lost, budget, failures)

            def read() -> tuple[ModelVersion, dict[str, ModelVersion | None]]:
                target = resources.read(model, number)
                return target, _alias_holders(resources, model, target, [*add, *remove])

            target, now = resources.rpc.read_after_loss(lost, read, late=not again)
            where = {alias: holder and holder.version for alias, holder in now.items()}
            if all(where[alias] == number for alias in add) and all(where[alias] != number for alias in remove):
                return target
            if target.etag != version.etag or any(_revision(now[alias]) != _revision(before[alias]) for alias in now):
                names = ", ".join(repr(alias) for alias in now if _names.is_visible(alias)) or "an alias"
                raise changed_since_error(resource, "MergeVersionAliases", names) from lost
            if not again:
                raise


def _alias_holders(
    resources: Resources, model: Model, version: ModelVersion, aliases: Iterable[str]
) -> dict[str, ModelVersion | None]:
    """Return which version has each of the aliases, given one version as it was just read."""
    return {
        alias: version if alias in version.aliases else resources.find_version(model.resource, alias)
        for alias in aliases
    }


def _revision(version: ModelVersion | None) -> tuple[str, str] | None:
    """Return a value that differs after each change of a version."""
    return None if version is None else (version.version, version.etag)
