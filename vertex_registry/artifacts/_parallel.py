"""Work on several files at once, which Ctrl-C or the first failure stops."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from vertex_registry import _waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


class StoppedError(Exception):
    """Another file failed; nobody sees this error."""


def run_in_parallel(items: Sequence[Any], work: Callable[[Any, threading.Event], T], workers: int) -> list[T]:
    """Return the results of work on each item, in order.

    The first failure stops the others at their next request or block, and is raised.

    Args:
        items: What to work on.
        work: A function of an item, and of an event that is set when its result is no longer needed.
        workers: How many items to work on at once.
    """
    stopped = threading.Event()
    todo = deque(enumerate(items))
    results: dict[int, T] = {}
    failures: list[BaseException] = []

    def take() -> None:
        while not stopped.is_set():
            try:
                index, item = todo.popleft()
            except IndexError:
                return
            try:
                results[index] = work(item, stopped)
            except BaseException as error:  # noqa: BLE001  # it is raised in the caller's thread
                failures.append(error)
                stopped.set()

    def take_all() -> None:
        threads = []
        try:
            for _ in range(min(workers, len(items))):
                # A daemon: a thread that nobody waits for any more, after a second Ctrl-C, doesn't keep the process.
                threads.append(threading.Thread(target=take, name="vertex-registry-storage", daemon=True))
                threads[-1].start()
        except RuntimeError as error:  # the system has no thread left
            failures.append(error)
            stopped.set()
            threads.pop()
        for thread in threads:
            thread.join()

    _waiting.run_in_thread(take_all, stopped.set)
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(items))]
