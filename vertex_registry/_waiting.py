"""Waiting: for how long, and so that Ctrl-C ends it.

**For how long.** All that a call waits for comes out of one budget, told by the clock of `Retry`. Between two tries it
waits for a share of a longest wait, which doubles with each try.

**Ctrl-C.** Python heeds a signal before the next instruction of the main thread, whichever that is. Two things follow.
One that comes just before the main thread begins to wait, or that the system gives to another thread, would be heeded
when the wait is over: who waits, for an answer or for time to pass, looks up now and then. And one may come between
taking a lock and the beginning of the block that gives it back, and the others then wait for good. A pool, a future, an
event, and a thread that is started or joined take such locks: where those that were interrupted are still waited for,
in ``run_in_thread``, the main thread takes none.

Threads are daemons, and none of a pool, which Python waits for when it ends, however long a call goes on that nobody
wants any more.
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
    from collections.abc import Callable, Generator, Iterable

    from vertex_registry._records import Retry

S = TypeVar("S")
T = TypeVar("T")

#: The seconds after which who waits looks up.
_WAKE_INTERVAL: Final = 0.1


class Budget:
    """A number of seconds that several calls share."""

    def __init__(self, retry: Retry, seconds: float) -> None:
        self.seconds = seconds
        self._clock = retry.clock
        self._start = retry.clock()

    def spent(self) -> float:
        """Return the seconds since it began, without those that don't count."""
        return self._clock() - self._start

    def leave_out(self, seconds: float) -> None:
        """Don't count these seconds, which have passed since it began."""
        self._start += seconds

    def left(self) -> float:
        """The seconds that are left; never less than none."""
        return max(0.0, self.seconds - self.spent())


def max_backoff(retry: Retry, tries: int) -> float:
    """The longest wait after so many tries, unless the server asks for more."""
    return min(retry.max_backoff, retry.initial_backoff * 2.0 ** min(tries - 1, 30))


def receive(queue: SimpleQueue[T], seconds: float = math.inf) -> T:
    """What is put into a queue, as soon as it is there.

    Raises:
        Empty: It was not there in so many seconds.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return queue.get(timeout=max(0.0, min(_WAKE_INTERVAL, end - time.monotonic())))
        except Empty:
            if time.monotonic() >= end:
                raise


def sleep(seconds: float) -> None:
    """Let so many seconds pass."""
    with contextlib.suppress(Empty):
        receive(SimpleQueue(), seconds)


def start_thread(work: Callable[[], T], outcomes: SimpleQueue[Callable[[], T]], name: str) -> None:
    """Do something in a thread of that name, which then puts into the queue what gives its result, or raises its error.

    The thread has a copy of the caller's context variables, and with it the budget of the caller's verb. After Ctrl-C
    nobody waits for it any more.
    """
    context = contextvars.copy_context()

    def run() -> None:
        outcomes.put(_capture(functools.partial(context.run, work)))

    threading.Thread(target=run, name=name, daemon=True).start()


def prefetch(work: Callable[[S], T], items: Iterable[S], window: int) -> Generator[T, None, None]:
    """What the work gives for each item, in order, while it is done for a window of items ahead.

    Who stops early, or with Ctrl-C, waits for nobody.
    """
    pending: deque[tuple[int, S, SimpleQueue[Callable[[], T]]]] = deque()

    def next_result() -> T:
        process, item, outcomes = pending.popleft()
        if process != os.getpid() and outcomes.empty():
            return work(item)  # the thread that was at it stayed behind when this process was forked
        return receive(outcomes)()

    for item in items:
        pending.append((os.getpid(), item, SimpleQueue()))
        start_thread(functools.partial(work, item), pending[-1][2], "vertex-registry")
        if len(pending) >= window:
            yield next_result()
    while pending:
        yield next_result()


def run_in_thread(action: Callable[[], T], stop: Callable[[], None]) -> T:
    """What an action gives, or raises, that is done in a thread of its own and waited for.

    What interrupts the wait stops it, and is raised when it has ended. The caller takes no lock here until it was
    interrupted.
    """
    start = deque([None])  # who takes it decides: the thread begins, or it never will
    ended: SimpleQueue[Callable[[], T]] = SimpleQueue()

    def run() -> None:
        try:
            start.pop()
        except IndexError:
            return
        outcome = _capture(action)
        ended.put(outcome)
        ended.put(outcome)  # the first one may be got and lost when Ctrl-C comes

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
    """What gives the result of some work that is done now, or raises its error."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  # it is raised where the outcome is asked for
        return functools.partial(_raise, error)
    return lambda: result


def _raise(error: BaseException) -> NoReturn:
    raise error
