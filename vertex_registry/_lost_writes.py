"""What to write again after a lost response, so that nothing newer is overwritten. Pure.

A write with an etag happened before everything that somebody else wrote since, or never. Either way it's right to act
as if it had happened just before: what others wrote since stays, and the rest of the change is written again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vertex_registry import _changes, _labels, _stages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vertex_registry._records import ModelVersion


def without_newer_labels(
    labels: dict[str, str], *, before: ModelVersion, written: Mapping[str, str], now: ModelVersion
) -> dict[str, str]:
    """Return the labels of a change without what is newer on the version than the change's lost attempt.

    Args:
        labels: The labels that the change would write now.
        before: The version that the lost attempt was based on.
        written: The labels that it wrote.
        now: The version as it is now.
    """
    was, meant, is_now = before.metadata, _labels.read(written).metadata, now.metadata
    newer = {
        key
        for key in was.keys() | meant.keys()
        if not _same(was, meant, key) and not _same(is_now, was, key) and not _same(is_now, meant, key)
    }
    own = _newer_stage(before, written, now)
    if not newer and not own:
        return labels
    kept = {key: is_now[key] for key in newer & is_now.keys()}
    return _labels.write(labels, metadata=kept, remove=newer - is_now.keys(), own_labels=own)


def without_newer_description(description: str | None, *, before: ModelVersion, now: ModelVersion) -> str | None:
    """Return the description of a change, or None if the version has the same or a newer one now."""
    return description if now.description == before.description else None


def _newer_stage(before: ModelVersion, written: Mapping[str, str], now: ModelVersion) -> dict[str, str | None]:
    """Return the labels of the version's stage if the lost attempt changed it and somebody has changed it since."""
    ours, theirs = _labels.read(written).own_labels, _labels.read(now.labels).own_labels
    changed_at = ours.get(_stages.CHANGED_AT_LABEL)
    moment = _stages.parse_timestamp(changed_at)
    if moment is None or changed_at in {
        _labels.read(before.labels).own_labels.get(_stages.CHANGED_AT_LABEL),
        theirs.get(_stages.CHANGED_AT_LABEL),
    }:
        return {}
    in_seconds = moment.replace(microsecond=0)
    happened = any(
        change.at == (moment if change.exact else in_seconds) for change in _changes.read(int(now.version), theirs)
    )
    keys = (_stages.STAGE_LABEL, _stages.CHANGED_AT_LABEL, _stages.CHANGED_BY_LABEL, *_changes.LABELS)
    return {key: theirs.get(key) for key in keys} if happened else {}


def _same(a: Mapping[str, Any], b: Mapping[str, Any], key: str) -> bool:
    if key not in a or key not in b:
        return key not in a and key not in b
    return _labels.json_equal(a[key], b[key])
