"""``--where`` and ``--sort``: conditions on metadata and fields. Pure."""

from __future__ import annotations

import json
import operator
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vertex_registry import ModelVersion

_CONDITION: Final = re.compile(r"\s*(.+?)\s*(>=|<=|!=|==|=|>|<)\s*(.*?)\s*", re.DOTALL)
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
#: What can be sorted by besides metadata keys.
FIELDS: Final[dict[str, Callable[[ModelVersion], Any]]] = {
    "version": lambda version: int(version.version),
    "name": lambda version: version.version_name or "",
    "stage": lambda version: str(version.stage),
    "created": lambda version: version.created_at,
    "updated": lambda version: version.updated_at,
}


class Condition(NamedTuple):
    """A condition on metadata: its key, and a function that returns whether a version meets it."""

    key: str
    meets: Callable[[ModelVersion], bool]


def parse_condition(text: str) -> Condition:
    """Return a condition such as ``accuracy>=0.9`` or ``team=growth``.

    A version without the key, or with a value of another type, doesn't meet it; for ``!=`` it does.
    """
    if (match := _CONDITION.fullmatch(text)) is None:
        raise click.BadParameter(f"{text!r} isn't a condition. Write KEY OPERATOR VALUE, such as 'accuracy>=0.9'.")
    key, symbol, given = match.groups()
    if symbol == "=" and given.startswith((">", "<")):
        raise click.BadParameter(f"{text!r} isn't a condition. Write {given[0]}= for {given[0]!r} or equal.")
    try:
        wanted = json.loads(given)
    except ValueError:
        wanted = given
    compare = _OPERATORS[symbol]

    def meets(version: ModelVersion) -> bool:
        value = version.metadata.get(key)
        # A typed "1.2" may mean text, but text has no order with numbers.
        other = given if isinstance(value, str) and compare in {operator.eq, operator.ne} else wanted
        if key not in version.metadata or _kind(value) != _kind(other):
            return symbol == "!="
        try:
            return compare(value, other)
        except TypeError:
            return False  # null and lists have no order

    return Condition(key, meets)


def metadata_keys(sort_key: str | None) -> list[str]:
    """Return the metadata key that ``--sort`` names, if it isn't a field."""
    name = (sort_key or "").removeprefix("-")
    return [name] if name and name not in FIELDS else []


def sort(versions: Iterable[ModelVersion], key: str) -> list[ModelVersion]:
    """Return versions sorted by a field or a metadata key; ``-key`` is descending. Those without it come last."""
    descending, name = key.startswith("-"), key.removeprefix("-")

    def read(version: ModelVersion) -> Any:
        return FIELDS[name](version) if name in FIELDS else version.metadata.get(name)

    versions = list(versions)
    known = [version for version in versions if _sortable(read(version))]
    kinds = {_kind(read(version)) for version in known}
    if len(kinds) > 1:
        raise click.BadParameter(f"{name!r} holds numbers in some versions and text in others, so it has no order.")
    rest = [version for version in versions if not _sortable(read(version))]
    return [*sorted(known, key=read, reverse=descending), *rest]


def _sortable(value: Any) -> bool:
    return value is not None and not isinstance(value, (list, dict))


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, (int, float)) else type(value).__name__
