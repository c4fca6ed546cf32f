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

#: The seconds for which a thread waits for its next job. Starting one takes as long as a small request's own work.
_IDLE_TIME: Final = 0.2


class Budget:
    """A number of seconds that several calls share, measured by the clock of `Retry`.

    Waits for a quota don't count. They have a limit of their own: the budget of an operation.
    """

    def __init__(self, retry: Retry, seconds: float) -> None:
        self.seconds = seconds
        self._clock = retry.clock
        self._start = retry.clock()
        self._quota_left = retry.operation_timeout
        #: Whether a quota has refused a request to the end of that time. No further attempt makes sense then.
        self.quota_used_up = False
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


def start_thread(work: Callable[[], T], outcomes: SimpleQueue[Callable[[], T]]) -> None:
    """Do some work in a thread, and put its outcome into a queue.

    The outcome is a function that returns the result or raises the error. The thread has a copy of the caller's context
    variables, and so the budget of the caller's verb. After Ctrl-C, nobody waits for it.
    """
    global _idle  # noqa: PLW0603  # one process, one state
    run = functools.partial(_put_outcome, functools.partial(contextvars.copy_context().run, work), outcomes)

    if _idle.process != os.getpid():
        _idle = _IdleThreads()  # a forked child doesn't have its parent's threads
    try:
        jobs = _idle.jobs.pop()
    except IndexError:
        jobs = SimpleQueue()
        threading.Thread(target=_serve, args=(jobs, _idle), name="vertex-registry", daemon=True).start()
    jobs.put(run)


class _IdleThreads:
    """The threads of a process that have nothing to do, each by the queue that it takes its next job from."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.jobs: deque[SimpleQueue[Callable[[], None]]] = deque()


_idle = _IdleThreads()


def _serve(jobs: SimpleQueue[Callable[[], None]], idle: _IdleThreads) -> None:
    """Do the jobs from a queue, and end when there was none for a while."""
    while True:
        try:
            job = jobs.get(timeout=_IDLE_TIME)
        except Empty:
            try:
                idle.jobs.remove(jobs)
            except ValueError:  # somebody has just taken the queue, to put a job into it
                job = jobs.get()
            else:
                return
        job()
        del job  # it may hold a whole page
        idle.jobs.append(jobs)


def begin(work: Callable[[], T]) -> Callable[[], T]:
    """Start some work in a thread, and return a function that waits for its result.

    It returns when the thread has started. A thread that only wants to start would wait until the caller waits, or for
    5 ms (`sys.getswitchinterval`), so a request would be sent later than it could be.
    """
    outcomes: SimpleQueue[Callable[[], T]] = SimpleQueue()
    started: SimpleQueue[None] = SimpleQueue()

    def started_work() -> T:
        started.put(None)
        return work()

    start_thread(started_work, outcomes)
    receive(started)
    return _result_of(work, outcomes)


def _result_of(work: Callable[[], T], outcomes: SimpleQueue[Callable[[], T]]) -> Callable[[], T]:
    """Return a function that waits for the outcome of some work of another thread."""
    process = os.getpid()

    def result() -> T:
        if process != os.getpid() and outcomes.empty():
            return work()  # a forked child doesn't have its parent's threads
        return receive(outcomes)()

    return result


def prefetch(work: Callable[[S], T], items: Iterable[S], window: int) -> Generator[T, None, None]:
    """Yield the result of some work for each item, in order, while threads work on the next items.

    Stopping early, also with Ctrl-C, waits for no thread.

    Args:
        work: The work.
        items: The items.
        window: How many items are worked on at once. A few more wait for a free thread, so that one slow item doesn't
            hold up the others.
    """
    jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
    pending: deque[Callable[[], T]] = deque()
    stopped = threads = 0

    def serve() -> None:
        while (job := jobs.get()) is not None and not stopped:
            job()

    try:
        for item in items:
            of_item = functools.partial(work, item)
            outcomes: SimpleQueue[Callable[[], T]] = SimpleQueue()
            pending.append(_result_of(of_item, outcomes))
            jobs.put(functools.partial(_put_outcome, of_item, outcomes))
            if threads < window:
                threads += 1
                start_thread(serve, SimpleQueue())
            if len(pending) >= window + window // 4:
                yield pending.popleft()()
        while pending:
            yield pending.popleft()()
    finally:
        stopped = 1
        for _ in range(threads):
            jobs.put(None)


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


def _put_outcome(work: Callable[[], T], outcomes: SimpleQueue[Callable[[], T]]) -> None:
    outcomes.put(_capture(work))


def _capture(work: Callable[[], T]) -> Callable[[], T]:
    """Do some work, and return a function that returns its result or raises its error."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  # raised later, by whoever calls the outcome
        return functools.partial(_raise, error)
    return lambda: result


def _raise(error: BaseException) -> NoReturn:
    raise error
