"""What the emulator stamps resources with: times and ids. Both come from functions that a test can replace."""

from __future__ import annotations

import datetime as dt
import re
import threading
from typing import TYPE_CHECKING, Final

from vertex_registry.emulator._status import failed_precondition

if TYPE_CHECKING:
    from collections.abc import Callable

# Generated ids may begin with a number, which a chosen model id may not.
_ID_RE: Final = re.compile(r"[a-z0-9_-]{1,63}")
# How often the function is called until it returns a free id.
_ATTEMPTS: Final = 1000

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)


class Stamps:
    """A clock that never goes back, and ids that nothing has yet."""

    def __init__(self, now: Callable[[], dt.datetime], new_id: Callable[[], str], *, latest: int) -> None:
        self._now = now
        self._new_id = new_id
        self._latest = latest
        self._lock = threading.Lock()

    def time(self) -> int:
        """Return the time in microseconds since 1970, and never one before a time that was returned already."""
        now = self._now()
        with self._lock:
            self._latest = max(self._latest, (now - _EPOCH) // _MICROSECOND)
            return self._latest

    def free_id(self, is_taken: Callable[[str], bool]) -> str:
        """Return an id that isn't taken.

        Raises:
            Failure: FAILED_PRECONDITION: the function for ids returns none that can be used.
        """
        for _ in range(_ATTEMPTS):
            new = self._new_id()
            if not _ID_RE.fullmatch(new):
                raise failed_precondition(f"The function new_id returned {new!r}, which isn't an id.")
            if not is_taken(new):
                return new
        raise failed_precondition(f"The function new_id returned {_ATTEMPTS} ids in a row that are taken.")


def to_datetime(microseconds: int) -> dt.datetime:
    """Return a time of the clock as a datetime."""
    return _EPOCH + microseconds * _MICROSECOND
