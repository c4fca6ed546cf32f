"""Reads of a registry that are bounded, however many models and versions it has.

A list is read as far as somebody has looked, and kept for a while, so the next page doesn't start over.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from vertex_registry import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from vertex_registry import ModelVersion, RegisteredModel, RegistryClient

_T = TypeVar("_T")

#: How many of the newest versions are read to show what's going on in a model: one request a model.
NEWEST: Final = 20

_KEPT_SECONDS: Final = 300.0
_KEPT_LISTS: Final = 16
_AT_ONCE: Final = 8


class ReadList(Generic[_T]):
    """A list that's read as far as needed.

    Attributes:
        complete: Whether it's been read to its end.
        summaries: What was found out about its rows, by their resource names.
    """

    def __init__(self, rows: Iterator[_T], opened: float) -> None:
        self.complete = False
        self.summaries: dict[str, dict[str, Any] | None] = {}
        self.opened = opened
        self.failed = False
        self._unread = rows
        self._rows: list[_T] = []
        self._lock = threading.Lock()

    def up_to(self, count: int) -> list[_T]:
        """Return the first rows, at most so many; whether there are more is known if there's one more than you show."""
        with self._lock:
            if not self.complete and len(self._rows) < count:
                try:
                    self._rows += itertools.islice(self._unread, count - len(self._rows))
                except BaseException:
                    self.failed = True
                    raise
                self.complete = len(self._rows) < count
            return self._rows[:count]


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

    def versions(self, model: RegisteredModel, *, fresh: bool) -> ReadList[ModelVersion]:
        """Return the list of a model's versions, newest first."""
        resource = model.resource_name
        return self._keep(("versions", resource), lambda: self.registry.list_versions(resource), fresh=fresh)

    def newest(self, models: Iterable[RegisteredModel]) -> list[list[ModelVersion] | None]:
        """Return the newest versions of each model, at most `NEWEST` and one more; None if the model was deleted."""

        def read(model: RegisteredModel) -> list[ModelVersion] | None:
            try:
                return list(self.registry.list_versions(model.resource_name, limit=NEWEST + 1))
            except NotFoundError:
                return None

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="vertex-registry-ui") as threads:
            return list(threads.map(read, models))

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
