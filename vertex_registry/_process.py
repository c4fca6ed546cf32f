"""What a forked process may keep of its parent's: no connection, and no lock that another thread may have held.

A child creates its own. What it leaves behind is kept and never closed, because closing it would end the parent's
connection as well.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

#: The longest that a fork waits for calls that other threads have inside gRPC, in seconds.
_MAX_FORK_DELAY: Final = 2.0
_POLL_INTERVAL: Final = 0.001

_inherited: weakref.WeakSet[Lock | Inherited] = weakref.WeakSet()
_inside_grpc: set[object] = set()
_forking = False


class Lock:
    """A lock that is free in a forked child, whichever thread of the parent held it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _inherited.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Be free again, in a process that was just forked."""
        self._lock = threading.Lock()


class Owned(Lock, Generic[T]):
    """A value that holds connections. It's created at its first use, and once more in each forked process.

    Args:
        create: What creates it. It runs under the lock.
    """

    def __init__(self, create: Callable[[], T]) -> None:
        self._create = create
        self._value: T | None = None
        super().__init__()

    def get(self) -> T:
        """Return this process's value."""
        with self:
            if self._value is None:
                self._value = self._create()
            return self._value

    def take(self) -> T | None:
        """Return this process's value, if it has one, and forget it: for whoever closes it."""
        with self:
            value, self._value = self._value, None
            return value

    def renew(self) -> None:
        """Leave the parent's value alone, without closing it."""
        super().renew()
        value, self._value = self._value, None
        if value is not None:
            _keep_alive(value)


class Inherited:
    """A value that belongs to the process that created it, and that no forked process may end.

    Attributes:
        mine: Whether this is that process.
    """

    def __init__(self, value: object) -> None:
        self._value = value
        self.mine = True
        _inherited.add(self)

    def renew(self) -> None:
        """Leave the parent's value alone."""
        self.mine = False
        _keep_alive(self._value)


def _keep_alive(value: object) -> None:
    """Let a value never be destroyed in this process, not even when Python ends.

    gRPC's finalizers would shut down sockets that the parent still uses.
    """
    import ctypes  # noqa: PLC0415  # only for a forked process

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


@contextlib.contextmanager
def outside_fork() -> Iterator[None]:
    """Let no fork happen while a thread is inside gRPC: its locks would stay locked in the child for good.

    There is no lock here either. A thread first says that it enters and then checks whether somebody forks; whoever
    forks does it the other way round, so that one of them sees the other.
    """
    me = object()
    _inside_grpc.add(me)
    try:
        while _forking:
            _inside_grpc.discard(me)
            time.sleep(_POLL_INTERVAL)
            _inside_grpc.add(me)
        yield
    finally:
        _inside_grpc.discard(me)


def _before_fork() -> None:
    global _forking  # noqa: PLW0603  # one process, one state
    _forking = True
    end = time.monotonic() + _MAX_FORK_DELAY
    while _inside_grpc and time.monotonic() < end:
        time.sleep(_POLL_INTERVAL)


def _after_in_parent() -> None:
    global _forking  # noqa: PLW0603  # likewise
    _forking = False


def _after_in_child() -> None:
    global _forking  # noqa: PLW0603  # likewise
    _inside_grpc.clear()
    _forking = False
    for one in list(_inherited):
        one.renew()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
