"""Conditions and pages of the store, as SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Condition(NamedTuple):
    """A part of a WHERE clause, with its values."""

    sql: str
    values: tuple[Any, ...]


class LabelCondition(NamedTuple):
    """A label that rows must have.

    Attributes:
        label: The label's key.
        value: Its value, or None for any value.
        or_none: Whether a row that doesn't have the label matches too.
    """

    label: str
    value: str | None
    or_none: bool = False

    @property
    def selected(self) -> Condition:
        """The condition that selects the label's own rows ``l``."""
        if self.value is None:
            return Condition(" AND l.label = ?", (self.label,))
        return Condition(" AND l.label = ? AND l.value = ?", (self.label, self.value))

    def compile(self, labels: str) -> Condition:
        """Return the condition, given the SELECT of a row's labels ``o``."""
        if self.or_none:
            return Condition(f"NOT EXISTS ({labels} AND o.label = ? AND o.value <> ?)", (self.label, self.value))
        if self.value is None:
            return Condition(f"EXISTS ({labels} AND o.label = ?)", (self.label,))
        return Condition(f"EXISTS ({labels} AND o.label = ? AND o.value = ?)", (self.label, self.value))


class Page(NamedTuple):
    """Which rows of a list are wanted.

    Attributes:
        order: The columns to order by, each with whether it descends. The last one is unique.
        after: The position after which the page begins, or None for the first page.
        limit: The most rows of the page.
    """

    order: tuple[tuple[str, bool], ...]
    after: tuple[Any, ...] | None
    limit: int

    @property
    def order_by(self) -> str:
        """The ORDER BY clause."""
        return ", ".join(f"{column} DESC" if descends else column for column, descends in self.order)

    def qualified(self, table: str, key: str) -> Page:
        """Return the page with the table's name before its columns, except for the last one, which is that key."""
        *others, (_, descends) = self.order
        return self._replace(order=(*((f"{table}.{column}", falls) for column, falls in others), (key, descends)))

    def ranges(self) -> Iterator[Condition]:
        """Yield the conditions of the ranges of rows after the position, in their order.

        After (x, y) come the rows with a = x and b after y, and then those with a after x. An index leads to the
        beginning of each range. If both were alternatives of one condition, SQLite would read every row.
        """
        if self.after is None:
            yield Condition("", ())
            return
        for depth in reversed(range(len(self.order))):
            column, descends = self.order[depth]
            same = "".join(f" AND {earlier} = ?" for earlier, _ in self.order[:depth])
            yield Condition(f"{same} AND {column} {'<' if descends else '>'} ?", self.after[: depth + 1])
