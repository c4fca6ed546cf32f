"""The thread that carries out requests. Both servers hand it theirs, and wait on their own threads for clients."""

from __future__ import annotations

import threading
from concurrent import futures
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# The seconds after which another thread takes over from one that finishes nothing while tasks wait. The next one may be
# blocked too, so it gets half as long, down to the minimum.
_TAKE_OVER_AFTER: Final = 0.1
_TAKE_OVER_AFTER_AT_LEAST: Final = 0.005


class Worker(futures.Executor):
    """An executor with one thread that does all the work.

    Python's threads only take turns, and each switch costs. If the thread is blocked, another takes over, and the first
    ends after its task. A task that is about to wait calls ``take_over`` itself. A watcher notices one that is slow, or
    waits for a message that its client doesn't send. All threads are daemons, so none keeps Python from ending.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._todo: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._closed = threading.Event()
        self._done = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running: set[threading.Thread] = set()
        self.take_over()
        self._watcher = threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True)
        self._watcher.start()

    def take_over(self) -> None:
        """Let another thread do the remaining tasks, if the system has a thread left."""
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        with self._lock:
            try:
                thread.start()
            except RuntimeError:
                if self._thread is None:
                    raise
            else:
                self._thread = thread
                self._running.add(thread)

    def _work(self) -> None:
        me = threading.current_thread()
        with self._lock:
            pass  # it takes over once this lock is free
        while self._thread is me:
            task = self._todo.get()
            if task is None:
                self._todo.put(None)  # for a thread that took over meanwhile
                break
            task()
            self._done += 1
        with self._lock:
            self._running.discard(me)

    def _watch(self) -> None:
        done, take_over_after = -1, _TAKE_OVER_AFTER
        while not self._closed.wait(take_over_after):
            if self._done == done and not self._todo.empty():
                self.take_over()
                take_over_after = max(take_over_after / 2, _TAKE_OVER_AFTER_AT_LEAST)
            else:
                take_over_after = _TAKE_OVER_AFTER
            done = self._done

    def put(self, task: Callable[[], object]) -> None:
        """Do a task when its turn comes. It must not raise."""
        self._todo.put(task)

    def submit(self, function: Callable[..., Any], /, *given: Any, **named: Any) -> futures.Future[Any]:
        """Return the future of a call that is made when its turn comes."""
        future: futures.Future[Any] = futures.Future()

        def task() -> None:
            try:
                future.set_result(function(*given, **named))
            except BaseException as error:  # noqa: BLE001 - the future raises it
                future.set_exception(error)

        self._todo.put(task)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do the remaining tasks, and end."""
        del cancel_futures
        self._closed.set()
        self._watcher.join()
        self._todo.put(None)
        while wait and (threads := self._threads()):
            for thread in threads:
                thread.join()

    def _threads(self) -> list[threading.Thread]:
        with self._lock:
            return list(self._running)
