"""Budgets for time, and waits that Ctrl-C ends.

Python handles a signal before the next instruction of the main thread. So every wait wakes up now and then, and the
main thread takes no lock while it waits for interrupted work. Threads are daemons, so Python never waits for them.
"""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import functools
import math
import os
import threading
import time
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from vertex_registry._records import Retry

S = TypeVar("S")
T = TypeVar("T")

#: The seconds after which a wait wakes up, so Python can handle a signal.
_WAKE_INTERVAL: Final = 0.1


class Budget:
    """A number of seconds that several calls share, measured by the clock of `Retry`.

    Waits for a quota don't count. They have a limit of their own: the budget of an operation.
    """

    def __init__(self, retry: Retry, seconds: float) -> None:
        self.seconds = seconds
        self._clock = retry.clock
        self._start = retry.clock()
        self._quota_left = retry.operation_timeout
        # Several threads may share a budget, and wait for the quota at the same time.
        self._lock = threading.Lock()
        self._waiters = 0
        self._paused_at = 0.0

    def spent(self) -> float:
        """Return the seconds since it started, without those that don't count."""
        return (self._paused_at if self._waiters else self._clock()) - self._start

    def quota_left(self) -> float:
        """Return the seconds that are left for waiting for a quota."""
        return self._quota_left

    @contextlib.contextmanager
    def waiting_for_quota(self) -> Iterator[None]:
        """Count the time that passes inside as a wait for a quota."""
        with self._lock:
            self._paused_at = self._paused_at if self._waiters else self._clock()
            self._waiters += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiters -= 1
                if not self._waiters:
                    waited = self._clock() - self._paused_at
                    self._start += waited
                    self._quota_left -= waited

    def leave_out(self, seconds: float) -> None:
        """Don't count these seconds, which have passed since it started."""
        self._start += seconds

    def left(self) -> float:
        """Return the seconds that are left. It's never negative."""
        return max(0.0, self.seconds - self.spent())


def max_backoff(retry: Retry, tries: int) -> float:
    """Return the longest wait after that many attempts, unless the server asks for more."""
    return min(retry.max_backoff, retry.initial_backoff * 2.0 ** min(tries - 1, 30))


def quota_backoff(retry: Retry, tries: int, requested: float) -> float:
    """Return the seconds to wait after a quota has refused a request that many times.

    A quota comes back for everybody at once. So each request adds a share of the longest backoff, at random. The share
    shrinks with each refusal: a request that has waited longer goes first, and none starves.

    Args:
        retry: The policy.
        tries: How many times the request was refused.
        requested: How many seconds the server asked to wait, or 0.
    """
    if not requested:
        return max_backoff(retry, tries) * retry.random()
    return requested + retry.random() * retry.max_backoff / tries


def receive(queue: SimpleQueue[T], seconds: float = math.inf) -> T:
    """Return the next item of a queue, as soon as there is one.

    Raises:
        Empty: There was none within that many seconds.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return queue.get(timeout=max(0.0, min(_WAKE_INTERVAL, end - time.monotonic())))
        except Empty:
            if time.monotonic() >= end:
                raise


def sleep(seconds: float) -> None:
    """Sleep for that many seconds."""
    with contextlib.suppress(Empty):
        receive(SimpleQueue(), seconds)


def start_thread(work: Callable[[], T], outcomes: SimpleQueue[Callable[[], T]], name: str) -> None:
    """Do some work in a thread, and put its outcome into a queue.

    The outcome is a function that returns the result or raises the error. The thread has a copy of the caller's context
    variables, and so the budget of the caller's verb. After Ctrl-C, nobody waits for it.
    """
    context = contextvars.copy_context()

    def run() -> None:
        outcomes.put(_capture(functools.partial(context.run, work)))

    threading.Thread(target=run, name=name, daemon=True).start()


def prefetch(work: Callable[[S], T], items: Iterable[S], window: int) -> Generator[T, None, None]:
    """Yield the result of some work for each item, in order, while threads work on the next items.

    Stopping early, also with Ctrl-C, waits for no thread.

    Args:
        work: The work.
        items: The items.
        window: How many items are worked on at once.
    """
    pending: deque[tuple[int, S, SimpleQueue[Callable[[], T]]]] = deque()

    def next_result() -> T:
        process, item, outcomes = pending.popleft()
        if process != os.getpid() and outcomes.empty():
            return work(item)  # a forked child doesn't have its parent's threads
        return receive(outcomes)()

    for item in items:
        pending.append((os.getpid(), item, SimpleQueue()))
        start_thread(functools.partial(work, item), pending[-1][2], "vertex-registry")
        if len(pending) >= window:
            yield next_result()
    while pending:
        yield next_result()


def run_in_thread(action: Callable[[], T], stop: Callable[[], None]) -> T:
    """Run an action in a thread of its own, wait for it, and return its result.

    Ctrl-C calls ``stop``, waits until the action has ended, and is raised then. The caller takes no lock
    here until it's interrupted.

    Args:
        action: The action.
        stop: Makes the action end early.
    """
    start = deque([None])  # whoever takes it decides whether the thread starts working
    ended: SimpleQueue[Callable[[], T]] = SimpleQueue()

    def run() -> None:
        try:
            start.pop()
        except IndexError:
            return
        outcome = _capture(action)
        ended.put(outcome)
        ended.put(outcome)  # Ctrl-C may come after the first one was taken from the queue

    try:
        _thread.start_new_thread(run, ())
        outcome = receive(ended)
    except BaseException:
        stop()
        try:
            start.pop()
        except IndexError:
            receive(ended)
        raise
    return outcome()


def _capture(work: Callable[[], T]) -> Callable[[], T]:
    """Do some work, and return a function that returns its result or raises its error."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  # raised later, by whoever calls the outcome
        return functools.partial(_raise, error)
    return lambda: result


def _raise(error: BaseException) -> NoReturn:
    raise error
