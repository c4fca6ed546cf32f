"""What a fork does to locks, connections and threads inside gRPC, without a fork: `test_any_process` forks."""

from __future__ import annotations

import threading

from vertex_registry import _process


def test_a_held_lock_is_free_again() -> None:
    """The child of a process whose thread holds a lock can take it."""
    lock = _process.Lock()
    lock.__enter__()
    lock.renew()

    with lock:
        pass


def test_a_value_is_created_again() -> None:
    """A child creates its own value, and gives up what belongs to its parent."""
    owned = _process.Owned(object)
    of_the_parent = owned.get()
    owned.renew()
    assert owned.get() is not of_the_parent
    unused = _process.Owned(object)
    unused.renew()
    assert unused.take() is None

    inherited = _process.Inherited(of_the_parent)
    assert inherited.mine
    inherited.renew()
    assert not inherited.mine


def test_no_thread_enters_grpc_during_a_fork() -> None:
    """A thread that wants to call gRPC waits until the process has forked."""
    entered = threading.Event()

    def enter() -> None:
        with _process.outside_fork():
            entered.set()

    thread = threading.Thread(target=enter)
    _process._before_fork()
    try:
        thread.start()
        assert not entered.is_set()
    finally:
        _process._after_in_parent()
    thread.join()

    assert entered.is_set()
