"""What each MLflow field becomes on Vertex. Pure; docs/from-mlflow.md explains it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from vertex_registry import mlflow_encoding as encoding
from vertex_registry.mlflow_encoding import to_distinct_alias, to_vertex_alias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from vertex_registry.migration._source import SourceModel, SourceVersion

_DEFAULT: Final = "default"
_TAG: Final = "tag:"
_NAMED: Final = 3


@attrs.frozen
class Mapped:
    """A version as it's registered.

    Attributes:
        metadata: The metadata for labels.
        in_file: The metadata for the file next to the artifact.
        aliases: Its aliases on Vertex.
        lossy: What isn't kept as it was.
    """

    metadata: dict[str, Any]
    in_file: dict[str, Any]
    aliases: tuple[str, ...]
    lossy: tuple[str, ...]


def map_aliases(aliases: Iterable[str]) -> dict[str, str]:
    """Return the alias on Vertex for each alias of a model. No two of them are one.

    >>> map_aliases(["Champion", "champion"])
    {'champion': 'champion', 'Champion': 'champion-d0dc8a2a'}

    Args:
        aliases: The aliases in MLflow.
    """
    mapped: dict[str, str] = {}
    for alias in sorted(aliases, key=lambda alias: (to_vertex_alias(alias) != alias, alias)):
        wanted = to_vertex_alias(alias)
        if wanted in mapped.values():
            wanted = to_distinct_alias(alias)
        mapped[alias] = wanted
    return mapped


def map_version(
    model: SourceModel,
    version: SourceVersion,
    aliases: Mapping[str, str],
    *,
    fits: Callable[[Mapping[str, Any]], bool],
) -> Mapped:
    """Return a version as it's registered.

    Args:
        model: The model in MLflow.
        version: The version.
        aliases: The alias on Vertex for each alias of the model.
        fits: Returns whether metadata fits into labels.
    """
    own = {alias: aliases[alias] for alias, number in model.aliases.items() if number == version.number}
    names = {vertex: alias for alias, vertex in own.items() if vertex != alias}
    given = {
        encoding.SOURCE: version.source,
        encoding.RUN_ID: version.run_id,
        encoding.RUN_LINK: version.run_link,
        encoding.MODEL_ID: version.model_id,
        encoding.USER_ID: version.user_id,
        encoding.CREATED: version.created,
        encoding.UPDATED: version.updated,
        encoding.MODEL_CREATED: model.created,
        encoding.ALIASES: names,
        encoding.PENDING: sorted(own.values()),
    }
    fields = {key: value for key, value in given.items() if value}
    tags, renamed = _rename_reserved(version.tags)
    metadata, in_file = encoding.split(fields, tags, fits)
    lossy = [
        f"alias {alias!r} is {vertex!r}"
        + (f", because another alias is {to_vertex_alias(alias)!r}" if to_vertex_alias(alias) != vertex else "")
        for vertex, alias in sorted(names.items())
    ]
    lossy += [f"tag {old!r} is {new!r}, because the key is a field's" for old, new in renamed.items()]
    if in_file:
        lossy.append(f"in a file next to the artifact: {name_few(in_file)}")
    return Mapped(metadata, in_file, tuple(sorted(own.values())), tuple(lossy))


def differences(
    version: SourceVersion, aliases: Iterable[str], *, stage: str, description: str, has: Iterable[str]
) -> str:
    """Return how a version on Vertex differs from MLflow's, because either was changed since. ``""`` if it doesn't.

    Args:
        version: The version in MLflow.
        aliases: The aliases that it would have on Vertex.
        stage: Its stage on Vertex.
        description: Its description there.
        has: Its aliases there.
    """
    wanted, found = set(aliases), set(has) - ({_DEFAULT} - set(aliases))
    parts = []
    if version.stage != stage:
        parts.append(f"its stage is {stage}, and {version.stage} in MLflow")
    if missing := sorted(wanted - found):
        parts.append(f"it doesn't have the alias {name_few(missing)}")
    if version.description != description:
        parts.append("its description differs")
    return f"changed since: {'; '.join(parts)}" if parts else ""


def name_few(names: Iterable[str]) -> str:
    """Return up to three names in quotes, and how many more there are."""
    listed = sorted(names)
    more = len(listed) - _NAMED
    shown = ", ".join(repr(name if len(name) <= 60 else f"{name[:59]}…") for name in listed[:_NAMED])  # noqa: PLR2004
    return f"{shown} and {more} more" if more > 0 else shown


def _rename_reserved(tags: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the tags with other keys for those that are fields, and these keys."""
    renamed: dict[str, str] = {}
    for key in tags:
        if key in encoding.FIELDS:
            new = _TAG + key
            while new in tags:
                new = _TAG + new
            renamed[key] = new
    return {renamed.get(key, key): value for key, value in tags.items()}, renamed
