"""What a forked process may keep of its parent's: no connection, and no lock that another thread may have held.

A child creates its own connections. It keeps what it inherited and never closes it, because closing would end the
parent's connection too.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: How many seconds a fork waits for the calls of other threads inside gRPC.
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
        """Replace the lock with a free one, in a process that was just forked."""
        self._lock = threading.Lock()


class Owned(Lock, Generic[T]):
    """A value with connections. It's created at its first use, and again in each forked process.

    Args:
        create: Creates the value. It runs under the lock.
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
        """Return this process's value, if it has one, and forget it, so the caller can close it."""
        with self:
            value, self._value = self._value, None
            return value

    def renew(self) -> None:
        """Forget the parent's value without closing it."""
        super().renew()
        value, self._value = self._value, None
        if value is not None:
            _keep_alive(value)


class Inherited:
    """A value that belongs to the process that created it. No forked process may close it.

    Attributes:
        mine: Whether this is that process.
    """

    def __init__(self, value: object) -> None:
        self._value = value
        self.mine = True
        _inherited.add(self)

    def renew(self) -> None:
        """Give up the parent's value without closing it."""
        self.mine = False
        _keep_alive(self._value)


def _keep_alive(value: object) -> None:
    """Keep a value alive in this process forever, even when Python exits.

    gRPC's finalizers would shut down sockets that the parent still uses.
    """
    import ctypes  # noqa: PLC0415  # only for a forked process

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


class outside_fork:  # noqa: N801  # it's used like a function
    """Delay forks while a thread is inside gRPC, because gRPC's locks would stay locked in the child.

    This takes no lock either. A thread first announces that it enters and then checks for a fork. A fork does it the
    other way round, so at least one of them sees the other.
    """

    def __enter__(self) -> None:
        try:
            _inside_grpc.add(self)
            while _forking:
                _inside_grpc.discard(self)
                time.sleep(_POLL_INTERVAL)
                _inside_grpc.add(self)
        except BaseException:  # Ctrl-C
            _inside_grpc.discard(self)
            raise

    def __exit__(self, *_: object) -> None:
        _inside_grpc.discard(self)


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
    for value in list(_inherited):
        value.renew()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
