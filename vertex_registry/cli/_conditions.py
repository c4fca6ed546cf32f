"""``--where`` and ``--sort``: conditions on metadata, and orders by fields or metadata. Pure."""

from __future__ import annotations

import json
import operator
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from vertex_registry.cli._text import decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vertex_registry import ModelVersion

_CONDITION: Final = re.compile(r"\s*([^\s<>=!].*?)\s*(>=|<=|!=|==|=|>|<)\s*(.*?)\s*", re.DOTALL)
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_SYMBOLS: Final = (">", "<", "=", "!=")
_KINDS: Final = {
    "number": "a number",
    "str": "text",
    "bool": "true or false",
    "NoneType": "null",
    "list": "a list",
    "dict": "an object",
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
    """A condition on metadata.

    Attributes:
        text: What was typed.
        key: The metadata key.
        kind: What the condition compares values with, such as ``a number``.
        meets: A function that returns whether a version meets the condition.
        applies: A function that returns whether a version's value is of that kind.
    """

    text: str
    key: str
    kind: str
    meets: Callable[[ModelVersion], bool]
    applies: Callable[[ModelVersion], bool]


def parse_condition(text: str) -> Condition:
    """Return a condition such as ``accuracy>=0.9`` or ``team=growth``.

    A version without the key, or with a value of another type, doesn't meet it; for ``!=`` it does.
    """
    key, symbol, given = _split(decoded(text))
    compare = _OPERATORS[symbol]
    try:
        wanted = json.loads(given, parse_constant=_refuse)
    except (ValueError, RecursionError):
        wanted = given

    def other(value: Any) -> Any:
        # A typed "1.2" may mean text, but text has no order with numbers.
        return given if isinstance(value, str) and compare in {operator.eq, operator.ne} else wanted

    def applies(version: ModelVersion) -> bool:
        value = version.metadata.get(key)
        return key in version.metadata and _kind(value) == _kind(other(value))

    def meets(version: ModelVersion) -> bool:
        if not applies(version):
            return symbol == "!="
        value = version.metadata[key]
        try:
            return compare(value, other(value))
        except TypeError:
            return False  # null and lists have no order

    return Condition(text, key, _KINDS[_kind(wanted)], meets, applies)


def _split(text: str) -> tuple[str, str, str]:
    """Return the key, the operator and the value of a condition, or refuse what is none."""
    if (match := _CONDITION.fullmatch(text)) is None:
        raise click.BadParameter(f"{text!r} isn't a condition. Write KEY OPERATOR VALUE, such as 'accuracy>=0.9'.")
    key, symbol, given = match.groups()
    if symbol == "=" and given.startswith((">", "<")):
        raise click.BadParameter(f"{text!r} isn't a condition. Write {given[0]}= for {given[0]!r} or equal.")
    if given.startswith(_SYMBOLS):
        raise click.BadParameter(
            f"{text!r} has two operators. Put the value in double quotes if it begins with {given[0]!r}."
        )
    if not given and symbol not in {"=", "==", "!="}:
        raise click.BadParameter(f"{text!r} has no value to compare with. Write one after {symbol}.")
    return key, symbol, given


def _refuse(constant: str) -> None:
    """Take NaN and infinity as text, because no number equals or exceeds them."""
    raise ValueError(constant)


class Order(NamedTuple):
    """What to sort by: a field or a metadata key."""

    key: str
    descending: bool

    def metadata_keys(self) -> list[str]:
        """Return the metadata key, if it isn't a field."""
        return [] if self.key in FIELDS else [self.key]

    def sort(self, versions: Iterable[ModelVersion]) -> list[ModelVersion]:
        """Return versions in this order. Those without the key come last."""
        versions = list(versions)
        known = [version for version in versions if _sortable(self._read(version))]
        if len({_kind(self._read(version)) for version in known}) > 1:
            raise click.BadParameter(
                f"{self.key!r} holds numbers in some versions and text in others, so it has no order.",
                param_hint="'--sort'",
            )
        rest = [version for version in versions if not _sortable(self._read(version))]
        return [*sorted(known, key=self._read, reverse=self.descending), *rest]

    def _read(self, version: ModelVersion) -> Any:
        return FIELDS[self.key](version) if self.key in FIELDS else version.metadata.get(self.key)


def parse_order(text: str) -> Order:
    """Return the order by a field or a metadata key; ``-key`` is descending."""
    key = decoded(text).removeprefix("-")
    if not key.strip():
        raise click.BadParameter(f"{text!r} names no key. Write one, such as created, or -accuracy for descending.")
    return Order(key, text.startswith("-"))


def _sortable(value: Any) -> bool:
    return value is not None and not isinstance(value, (list, dict))


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, (int, float)) else type(value).__name__
