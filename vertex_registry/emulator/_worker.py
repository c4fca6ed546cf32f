"""The thread that carries out requests. Both servers hand it theirs, and wait on their own threads for clients."""

from __future__ import annotations

import logging
import threading
from concurrent import futures
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_log: Final = logging.getLogger(__name__)

# The seconds after which another thread takes over from one that finishes nothing while tasks wait. The next one may be
# blocked too, so it gets half as long, down to the minimum.
_TAKE_OVER_AFTER: Final = 0.1
_TAKE_OVER_AFTER_AT_LEAST: Final = 0.005
# The seconds for which a thread waits for its next turn. Starting one takes a fifth of a short request's time.
_IDLE_TIME: Final = 1.0


class Worker(futures.Executor):
    """An executor with one thread that does all the work.

    Python's threads only take turns, and each switch costs. If the thread is blocked, another takes over, and the first
    waits for a turn after its task. A task that is about to wait calls ``take_over`` itself. A watcher notices one that
    is slow, or waits for a message that its client doesn't send. All threads are daemons, so none keeps Python from
    ending.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._todo: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._closed = threading.Event()
        self._done = 0
        self._lock = threading.Lock()
        # Each thread has a queue, on which it waits for its turn.
        self._working: SimpleQueue[None] | None = None
        self._idle: list[SimpleQueue[None]] = []
        self._running: set[threading.Thread] = set()
        self.take_over()
        self._watcher = threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True)
        self._watcher.start()

    def take_over(self) -> None:
        """Let another thread do the remaining tasks, if the system has a thread left."""
        with self._lock:
            if self._idle:
                self._working = self._idle.pop()
                self._working.put(None)
                return
            turn: SimpleQueue[None] = SimpleQueue()
            thread = threading.Thread(target=self._work, args=(turn,), name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if self._working is None:
                    raise
            else:
                self._working = turn
                self._running.add(thread)

    def _work(self, turn: SimpleQueue[None]) -> None:
        with self._lock:
            pass  # it takes over once this lock is free
        while True:
            while self._working is turn:
                task = self._todo.get()
                if task is None:
                    self._todo.put(None)  # for a thread that took over meanwhile
                    break
                self._run(task)
                self._done += 1
            if not self._has_turn(turn):
                return

    @staticmethod
    def _run(task: Callable[[], object]) -> None:
        try:
            task()
        except BaseException:  # noqa: BLE001 - without its thread, nothing would be answered any more
            _log.exception("A task failed")

    def _has_turn(self, turn: SimpleQueue[None]) -> bool:
        """Wait for a thread's next turn. If there's none for a while, or no more work comes, the thread has to end."""
        with self._lock:
            if self._closed.is_set():
                self._running.discard(threading.current_thread())
                return False
            self._idle.append(turn)
        try:
            turn.get(timeout=_IDLE_TIME)
        except Empty:
            with self._lock:
                if turn in self._idle:
                    self._idle.remove(turn)
                    self._running.discard(threading.current_thread())
                    return False
            turn.get()  # it was given its turn just now
        return True

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
        """Do a task when its turn comes. What it raises is logged."""
        self._todo.put(task)

    def submit(self, function: Callable[..., Any], /, *given: Any, **named: Any) -> futures.Future[Any]:
        """Return the future of a call that is made when its turn comes.

        Raises:
            RuntimeError: No more calls are made.
        """
        if self._closed.is_set():
            raise RuntimeError(f"{self._name} has ended.")
        future: futures.Future[Any] = futures.Future()

        def task() -> None:
            if not future.set_running_or_notify_cancel():
                return
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
        with self._lock:
            idle, self._idle = self._idle, []
        for turn in idle:
            turn.put(None)
        while wait and (threads := self._threads()):
            for thread in threads:
                thread.join()

    def _threads(self) -> list[threading.Thread]:
        with self._lock:
            return list(self._running)
