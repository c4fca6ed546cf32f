"""How MLflow's fields are kept on Vertex: as metadata, aliases and text. Pure, and it works without MLflow.

MLflow's store and the migration share it, so a registry that was migrated looks the same through MLflow.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FIELDS", "read_description", "split", "to_distinct_alias", "to_vertex_alias", "write_description"]

# The metadata of a version that hold MLflow's own fields. All other metadata are its tags.
SOURCE: Final = "mlflow-source"
RUN_ID: Final = "mlflow-run-id"
RUN_LINK: Final = "mlflow-run-link"
MODEL_ID: Final = "mlflow-model-id"
USER_ID: Final = "mlflow-user-id"
CREATED: Final = "mlflow-created"  # milliseconds, of a version that was registered elsewhere before
UPDATED: Final = "mlflow-updated"  # likewise
MODEL_CREATED: Final = "mlflow-model-created"  # likewise
ALIASES: Final = "mlflow-aliases"  # MLflow's names of the version's aliases, by Vertex's
PENDING: Final = "mlflow-pending-aliases"  # what a migration still has to add; it's removed once they're there
OFFSET: Final = "mlflow-offset"  # MLflow's version number minus Vertex's
FIELDS: Final = frozenset(
    {SOURCE, RUN_ID, RUN_LINK, MODEL_ID, USER_ID, CREATED, UPDATED, MODEL_CREATED, ALIASES, PENDING, OFFSET}
)

#: What has to be in labels: lists show it, and a migration recognizes its versions by it.
_FIRST: Final = frozenset({CREATED, ALIASES, PENDING, OFFSET})

#: What takes as much space as a few aliases and short tags.
_SPARE: Final = {"mlflow-spare": "".join(hashlib.sha256(b"%d" % number).hexdigest() for number in range(6))}

#: The most tags that stay in labels if others don't. A label with a short text can't be packed later, to save space.
_MOST_TAGS: Final = 20

_TAGS: Final = "MLflow tags: "
_MAX_ALIAS: Final = 100


def write_description(description: str, tags: Mapping[str, str]) -> str:
    """Return the description of a Vertex model that also holds MLflow's tags of the model, in its last line.

    Vertex has labels for models, but shows them on each version too, and allows only short lower-case text in them.

    Args:
        description: The description for people.
        tags: The tags.
    """
    if not tags and read_description(description) == (description, {}):
        return description
    line = _TAGS + json.dumps(dict(tags), ensure_ascii=False)
    return f"{description}\n\n{line}" if description else line


def read_description(text: str) -> tuple[str, dict[str, str]]:
    """Return the description for people and the tags that the description of a Vertex model holds.

    Args:
        text: The description of the model on Vertex.
    """
    before, _, last = text.rpartition("\n")
    if last.startswith(_TAGS):
        with contextlib.suppress(ValueError, RecursionError):
            tags = json.loads(last.removeprefix(_TAGS))
            if isinstance(tags, dict) and all(isinstance(value, str) for value in tags.values()):
                return before.removesuffix("\n"), tags
    return text, {}


def to_vertex_alias(alias: str) -> str:
    """Return the alias on Vertex for an alias in MLflow.

    Vertex allows letters, digits and dashes: ``Prod_Candidate`` becomes ``prod-candidate``, and ``2026`` becomes
    ``alias-2026``. Two of MLflow's aliases can be one on Vertex.

    Args:
        alias: The alias in MLflow.
    """
    plain = alias.isascii() and len(alias) <= _MAX_ALIAS
    slug = re.sub(r"[^a-z0-9]+", "-", alias.lower(), flags=re.ASCII)[:_MAX_ALIAS].strip("-")
    if len(slug) < 2 or not slug[0].isalpha() or slug.startswith("vr-"):  # noqa: PLR2004  # Vertex's shortest
        slug = f"alias-{slug}".strip("-")
    return slug if plain else _with_digest(slug, alias)


def to_distinct_alias(alias: str) -> str:
    """Return the alias on Vertex that a migration gives to an alias whose own place another one has.

    Args:
        alias: The alias in MLflow.
    """
    return _with_digest(to_vertex_alias(alias)[:_MAX_ALIAS], alias)


def _with_digest(slug: str, alias: str) -> str:
    return f"{slug}-{hashlib.sha256(alias.encode()).hexdigest()[:8]}"


def split(
    fields: Mapping[str, Any], tags: Mapping[str, str], fits: Callable[[Mapping[str, Any]], bool]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metadata for labels and the rest, for a file. Fields come before tags, and short ones first.

    If there's a rest, some space in the labels stays free for aliases and tags that are set later.

    >>> split({"mlflow-created": 1}, {"long": "x" * 9, "short": "y", "b": "z"}, lambda metadata: len(metadata) < 4)
    ({'mlflow-created': 1, 'b': 'z'}, {'short': 'y', 'long': 'xxxxxxxxx'})

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

    order = sorted(everything, key=lambda key: (key not in _FIRST, key not in fields, size(key), key))
    low = sum(key in _FIRST for key in order)
    high = max(low, min(len(order) - 1, len(fields) + _MOST_TAGS))
    while low < high:
        middle = (low + high + 1) // 2
        if fits({key: everything[key] for key in order[:middle]} | _SPARE):
            low = middle
        else:
            high = middle - 1
    return {key: everything[key] for key in order[:low]}, {key: everything[key] for key in order[low:]}
