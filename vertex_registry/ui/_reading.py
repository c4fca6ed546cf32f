"""Reads of a registry that are bounded, however many models and versions it has.

A list is read as far as somebody has read, and kept for a while, so the next page doesn't start over.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from vertex_registry import NotFoundError, Stage

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

    from vertex_registry import ModelVersion, RegisteredModel, RegistryClient

_T = TypeVar("_T")
_R = TypeVar("_R")

#: The stages in use.
IN_USE: Final = (Stage.PRODUCTION, Stage.STAGING)

#: How many of the newest versions are read to show what's going on in a model: one request a model.
NEWEST: Final = 20

_KEPT_SECONDS: Final = 300.0
_KEPT_LISTS: Final = 16
_AT_ONCE: Final = 8
_HELD: Final = 5  # versions in a stage: one, unless nobody archives


class ReadList(Generic[_T]):
    """A list that's read as far as needed.

    Attributes:
        summaries: What was found out about its rows, by their resource names.
    """

    def __init__(self, rows: Iterator[_T], opened: float) -> None:
        self._complete = False
        self.summaries: dict[str, dict[str, Any] | None] = {}
        self.opened = opened
        self.failed = False
        self._unread = rows
        self._rows: list[_T] = []
        self._lock = threading.Lock()

    def up_to(self, count: int, *, at_once: int | None = None) -> list[_T]:
        """Return the first rows, at most so many; whether there are more is known if there's one more than you show.

        Args:
            count: How many rows.
            at_once: How much further to read than somebody has read before. Defaults to any number of rows.
        """
        with self._lock:
            most = count if at_once is None else min(count, len(self._rows) + at_once)
            if not self._complete and len(self._rows) < most:
                try:
                    self._rows += itertools.islice(self._unread, most - len(self._rows))
                except BaseException:
                    self.failed = True
                    raise
                self._complete = len(self._rows) < most
            return self._rows[:count]

    def ends_within(self, count: int) -> bool:
        """Return whether it's known that the list has no more rows than these.

        That's asked of a number of rows, because somebody else may have read the list further than you have.
        """
        with self._lock:
            return self._complete and len(self._rows) <= count


class Reader:
    """Reads a registry for the pages.

    Args:
        registry: The registry.
        clock: A function that returns the time by which kept lists are forgotten.
    """

    def __init__(self, registry: RegistryClient, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = registry
        self._clock = clock
        self._kept: OrderedDict[Hashable, ReadList[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def models(self, order_by: Any, *, fresh: bool) -> ReadList[RegisteredModel]:
        """Return the list of models in an order."""
        return self._keep(("models", order_by), lambda: self.registry.list_models(order_by=order_by), fresh=fresh)

    def versions(self, model: RegisteredModel, stage: Stage | None, *, fresh: bool) -> ReadList[ModelVersion]:
        """Return the list of a model's versions, or of those in a stage, newest first."""
        resource = model.resource_name
        return self._keep(
            ("versions", resource, stage), lambda: self.registry.list_versions(resource, stage=stage), fresh=fresh
        )

    def newest(self, models: Iterable[RegisteredModel]) -> list[list[ModelVersion] | None]:
        """Return the newest versions of each model, at most `NEWEST` and one more; None if the model was deleted."""

        def read(model: RegisteredModel) -> list[ModelVersion] | None:
            try:
                return list(self.registry.list_versions(model.resource_name, limit=NEWEST + 1))
            except NotFoundError:
                return None

        return self._at_once(read, models)

    def in_use(self, resource: str, newest: Sequence[ModelVersion], *, complete: bool) -> list[ModelVersion]:
        """Return the versions in Production, and then those in Staging; in a stage the last to enter comes first.

        Args:
            resource: The model's resource name.
            newest: Its newest versions.
            complete: Whether these are all. Otherwise those in each stage are requested.
        """
        found: list[ModelVersion] = []
        for stage in IN_USE:
            held = [version for version in newest if version.stage is stage]
            if not complete:
                held = list(self.registry.list_versions(resource, stage=stage, limit=_HELD))
            found += sorted(held, key=_entered, reverse=True)
        return found

    def each_in_use(
        self, models: Sequence[RegisteredModel], newest: Sequence[list[ModelVersion] | None]
    ) -> list[list[ModelVersion]]:
        """Return the same for each of several models. A model that was deleted has none."""

        def read(pair: tuple[RegisteredModel, list[ModelVersion] | None]) -> list[ModelVersion]:
            model, versions = pair
            try:
                return self.in_use(model.resource_name, versions or [], complete=len(versions or []) <= NEWEST)
            except NotFoundError:
                return []

        return self._at_once(read, zip(models, newest, strict=True))

    @staticmethod
    def _at_once(read: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="vertex-registry-ui") as threads:
            return list(threads.map(read, items))

    def _keep(self, key: Hashable, open_list: Callable[[], Iterator[_T]], *, fresh: bool) -> ReadList[_T]:
        now = self._clock()
        with self._lock:
            kept = self._kept.pop(key, None)
            if kept is None or fresh or kept.failed or now - kept.opened > _KEPT_SECONDS:
                kept = ReadList(open_list(), now)
            self._kept[key] = kept
            while len(self._kept) > _KEPT_LISTS:
                self._kept.popitem(last=False)
            return kept


def _entered(version: ModelVersion) -> tuple[dt.datetime, int]:
    return version.stage_changed_at or version.created_at, int(version.version)
