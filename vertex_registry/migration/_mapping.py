"""What each MLflow field becomes on Vertex. Pure; docs/from-mlflow.md explains it.

The keys are those that MLflow's store on Vertex reads, so a registry that was migrated looks the same through MLflow.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from vertex_registry.migration._source import SourceModel, SourceVersion

#: The metadata that hold MLflow's own fields. All other metadata of a version are its tags.
SOURCE: Final = "mlflow-source"
RUN_ID: Final = "mlflow-run-id"
RUN_LINK: Final = "mlflow-run-link"
MODEL_ID: Final = "mlflow-model-id"
USER_ID: Final = "mlflow-user-id"
CREATED: Final = "mlflow-created"
UPDATED: Final = "mlflow-updated"
MODEL_CREATED: Final = "mlflow-model-created"
ALIASES: Final = "mlflow-aliases"
#: The aliases that the version still has to get. It's removed once it has them.
PENDING: Final = "mlflow-pending-aliases"
OFFSET: Final = "mlflow-offset"
FIELDS: Final = frozenset(
    {SOURCE, RUN_ID, RUN_LINK, MODEL_ID, USER_ID, CREATED, UPDATED, MODEL_CREATED, ALIASES, PENDING, OFFSET}
)

#: What has to be in labels: a second run recognizes a version by it.
_IN_LABELS: Final = frozenset({CREATED, ALIASES, PENDING})

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


def map_aliases(
    aliases: Iterable[str], to_vertex: Callable[[str], str], to_distinct: Callable[[str], str]
) -> dict[str, str]:
    """Return the alias on Vertex for each alias of a model. No two of them are one.

    >>> map_aliases(["Champion", "champion"], str.lower, "{}-7".format)
    {'champion': 'champion', 'Champion': 'Champion-7'}

    Args:
        aliases: The aliases in MLflow.
        to_vertex: Returns the alias on Vertex for an alias in MLflow, if no other alias has it.
        to_distinct: Returns the alias on Vertex otherwise.
    """
    mapped: dict[str, str] = {}
    for alias in sorted(aliases, key=lambda alias: (to_vertex(alias) != alias, alias)):
        wanted = to_vertex(alias)
        if wanted in mapped.values():
            wanted = to_distinct(alias)
        mapped[alias] = wanted
    return mapped


def map_version(
    model: SourceModel,
    version: SourceVersion,
    aliases: Mapping[str, str],
    *,
    to_vertex: Callable[[str], str],
    fits: Callable[[Mapping[str, Any]], bool],
) -> Mapped:
    """Return a version as it's registered.

    Args:
        model: The model in MLflow.
        version: The version.
        aliases: The alias on Vertex for each alias of the model.
        to_vertex: Returns the alias on Vertex for an alias in MLflow, if no other alias has it.
        fits: Returns whether metadata fits into labels.
    """
    own = {alias: aliases[alias] for alias, number in model.aliases.items() if number == version.number}
    names = {vertex: alias for alias, vertex in own.items() if vertex != alias}
    given = {
        SOURCE: version.source,
        RUN_ID: version.run_id,
        RUN_LINK: version.run_link,
        MODEL_ID: version.model_id,
        USER_ID: version.user_id,
        CREATED: version.created,
        UPDATED: version.updated,
        MODEL_CREATED: model.created,
        ALIASES: names,
        PENDING: sorted(own.values()),
    }
    fields = {key: value for key, value in given.items() if value}
    tags, renamed = _rename_reserved(version.tags)
    metadata, in_file = split(fields, tags, fits)
    lossy = [
        f"alias {alias!r} is {vertex!r}"
        + (f", because another alias is {to_vertex(alias)!r}" if to_vertex(alias) != vertex else "")
        for vertex, alias in sorted(names.items())
    ]
    lossy += [f"tag {old!r} is {new!r}, because the key is a field's" for old, new in renamed.items()]
    if in_file:
        lossy.append(f"in a file next to the artifact: {name_few(in_file)}")
    return Mapped(metadata, in_file, tuple(sorted(own.values())), tuple(lossy))


def split(
    fields: Mapping[str, Any], tags: Mapping[str, str], fits: Callable[[Mapping[str, Any]], bool]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metadata for labels and the rest, for a file. Fields come before tags, and short ones first.

    >>> split({"mlflow-created": 1}, {"long": "x" * 9, "short": "y"}, lambda metadata: len(str(metadata)) < 40)
    ({'mlflow-created': 1, 'short': 'y'}, {'long': 'xxxxxxxxx'})

    Args:
        fields: The fields of the version.
        tags: Its tags.
        fits: Returns whether metadata fits into labels.
    """
    everything = {**fields, **tags}
    if fits(everything):
        return everything, {}

    def size(key: str) -> int:
        return len(json.dumps([key, everything[key]]))

    order = sorted(everything, key=lambda key: (key not in _IN_LABELS, key not in fields, size(key), key))
    low, high = 0, len(order) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if fits({key: everything[key] for key in order[:middle]}):
            low = middle
        else:
            high = middle - 1
    return {key: everything[key] for key in order[:low]}, {key: everything[key] for key in order[low:]}


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
        if key in FIELDS:
            new = _TAG + key
            while new in tags:
                new = _TAG + new
            renamed[key] = new
    return {renamed.get(key, key): value for key, value in tags.items()}, renamed
