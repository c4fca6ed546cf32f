"""Change a version under an etag, in the layer of labels that is its own.

A read shows the labels of a version and of its model as one. Only a write shows which is which, so what knows about the
two layers is here, next to the write. A change is read, applied and written with the etag of the read, and starts over
if somebody else was faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from vertex_registry import _labels, _lost_writes
from vertex_registry.errors import ConflictError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from vertex_registry._records import ModelVersion
    from vertex_registry._resources import Model, Resources


@attrs.frozen
class Change:
    """What to write on a version. None leaves a field unchanged."""

    labels: dict[str, str] | None
    description: str | None = None


def change_version(
    resources: Resources,
    model: Model,
    reference: str | ModelVersion,
    change: Callable[[ModelVersion], Change],
    *,
    adds: bool = False,
) -> ModelVersion:
    """Read a version, write a change with its etag, and return it. Start over if somebody else was faster.

    An alias is resolved once. If it moves meanwhile, the first version is still the one that changes.

    Args:
        resources: The versions.
        model: The model.
        reference: The number or alias of the version, or the version as it was just read.
        change: A function that returns what to write, given the current version.
        adds: Whether the change adds metadata.
    """
    budget = resources.rpc.budget()
    version = resources.read(model, reference) if isinstance(reference, str) else reference
    number = version.version
    lost: list[tuple[ModelVersion, Change]] = []  # attempts that may have been carried out

    def change_rest(current: ModelVersion) -> Change:
        return _without_newer(change(current), lost, current)

    tries = 0
    while True:
        target, planned = fit_change(resources, model, version, change_rest, adds=adds)
        if lost and target is version and planned.labels in (None, version.labels) and planned.description is None:
            return version  # everything is written, or newer
        try:
            return write(resources, model, target, planned)
        except ConflictError as conflict:
            if conflict.code is None:
                raise  # the labels are hidden by the model's, and would be again
            fresh = resources.read(model, number)
            if not is_write_conflict(conflict, version, fresh) or not resources.rpc.pause(budget, tries):
                raise
            if conflict._after_loss:  # noqa: SLF001  # the package's own field
                lost.append((target, planned))
            version = fresh
            tries += 1


def write(
    resources: Resources, model: Model, version: ModelVersion, change: Change, *, once: bool = False
) -> ModelVersion:
    """Write a change with the etag of the version, and return the version.

    Args:
        resources: The versions.
        model: The model.
        version: The version as it was read.
        change: The change.
        once: Whether to send it only once.

    Raises:
        ConflictError: The version has changed, or the model's own labels hide what was written.
    """
    written = resources.update_version(model, version, labels=change.labels, description=change.description, once=once)
    return written if change.labels is None else _check_written(written, change.labels, version.labels, model)


def fit_change(
    resources: Resources,
    model: Model,
    version: ModelVersion,
    change: Callable[[ModelVersion], Change],
    *,
    adds: bool = False,
) -> tuple[ModelVersion, Change]:
    """Return the version and a change that fits into its labels.

    A read also shows the model's labels, which take up no room on the version. If the change doesn't fit next to all
    labels, it may fit next to the version's own. Only a write shows which those are. A change that adds metadata is
    more likely to be too large, so it needs a sign that the model has labels: more labels than a version can have, or
    the same ones on the default version.
    """
    try:
        return version, change(version)
    except InvalidArgumentError as full:
        if adds and version.is_default and len(version.labels) <= _labels.MAX_LABELS:
            raise
        # The model shows its own labels and its default version's.
        shown = resources.read_model(model).labels
        keys = {key for key in _labels.inheritable_keys(version.labels) if shown.get(key) == version.labels[key]}
        change(without_keys(version, keys))  # if this doesn't fit, nothing does, and nothing is written
        try:
            own = separate_model_labels(resources, model, version, keys)
        except InvalidArgumentError:
            raise full from None
    try:
        return own, change(own)
    except InvalidArgumentError:
        write(resources, model, own, Change(labels=own.labels))
        raise


def separate_model_labels(resources: Resources, model: Model, version: ModelVersion, keys: set[str]) -> ModelVersion:
    """Return the version without those of these labels that belong to its model, and with its current etag.

    Vertex merges the labels of the model into those of the version, and only a write can separate them. This packs the
    values under the keys, which reads the same, so an interruption loses nothing. A key that the response still shows
    with the old value belongs to the model.

    Raises:
        InvalidArgumentError: The values don't fit into a pack. Nothing was sent.
    """
    written = resources.update_version(model, version, labels=_labels.pack_keys(version.labels, keys))
    shown = _labels.read({key: written.labels[key] for key in keys & written.labels.keys()}).metadata
    theirs = {key for key, value in shown.items() if _labels.json_equal(value, version.metadata[key])}
    return attrs.evolve(without_keys(version, theirs), etag=written.etag)


def is_write_conflict(conflict: ConflictError, before: ModelVersion | None, now: ModelVersion | None) -> bool:
    """Return whether a conflict means that somebody else was faster, so starting over may help.

    Vertex doesn't document how it refuses a stale etag. ABORTED asks for a new attempt from the read on (AIP-154).
    FAILED_PRECONDITION may also mean something that no attempt fixes, unless the etag has changed.

    Args:
        conflict: The error of the write.
        before: The version as it was read before the write, or None if it wasn't read.
        now: The version as it was read after the write, or None if it was deleted.
    """
    return conflict.code == "ABORTED" or before is None or now is None or now.etag != before.etag


def _check_written(
    written: ModelVersion, labels: Mapping[str, str], before: Mapping[str, str], model: Model
) -> ModelVersion:
    """Return the version as it was written.

    Raises:
        ConflictError: The model's own labels hide some of what was written.
    """
    hidden = {key for key, value in labels.items() if written.labels.get(key) != value}
    meant = _labels.read(labels).metadata  # a packed value hides the label under its key
    hidden |= {
        key
        for key in (before.keys() - labels.keys()) & written.labels.keys()
        if key not in meant or key not in written.metadata or not _labels.json_equal(written.metadata[key], meant[key])
    }
    hidden -= {_labels.MANAGED_BY}
    if hidden:
        keys = ", ".join(map(repr, sorted(hidden)))
        raise ConflictError(
            f"The model {model.name!r} itself has the labels {keys}, which hide what was written to version "
            f"{written.version}. Remove them with update_model(name, labels={{...}}), which replaces all of them.",
            resource=written.resource_name,
        )
    return written


def _without_newer(change: Change, lost: Iterable[tuple[ModelVersion, Change]], now: ModelVersion) -> Change:
    """Return a change without what somebody has written since one of its lost attempts."""
    for before, planned in lost:
        labels = change.labels
        if labels is not None and planned.labels is not None:
            labels = _lost_writes.without_newer_labels(labels, before=before, written=planned.labels, now=now)
        description = _lost_writes.without_newer_description(change.description, before=before, now=now)
        change = Change(labels=labels, description=description)
    return change


def without_keys(version: ModelVersion, keys: Collection[str]) -> ModelVersion:
    """Return the version without the labels and the metadata under these keys."""
    return attrs.evolve(
        version,
        labels={key: label for key, label in version.labels.items() if key not in keys},
        metadata={key: value for key, value in version.metadata.items() if key not in keys},
    )
