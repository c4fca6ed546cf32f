"""Read lists page by page. Every list has an end, each entry comes once, and the order is checked."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from vertex_registry import _waiting, _wire
from vertex_registry.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vertex_registry._rpc import Connection
    from vertex_registry._waiting import Budget

T = TypeVar("T")

#: How many pages in a row may contain nothing new.
_MAX_EMPTY_PAGES: Final = 1000


def read_pages(
    connection: Connection,
    rpc: str,
    resource: str,
    request: Callable[[str, str, int], Any],
    *,
    read: Callable[[Any], tuple[list[T], str]],
    key: Callable[[T], str],
    size: int = _wire.PAGE_SIZE,
) -> Iterator[list[T]]:
    """Yield the new entries of each page of a list.

    The second page is requested when it's needed. From then on, somebody reads the whole list, so the next page is
    requested while the caller works on the one before.

    A page with something new that isn't the last one doesn't count for the verb, up to the budget of an operation
    for the whole list. So a long list may take long, and a list without an end still ends.

    Args:
        connection: The connection.
        rpc: The RPC.
        resource: What the list is about.
        request: A function that creates a request from the resource, a page token and a page size.
        read: A function that returns the entries of a page, and the token of the next page.
        key: A function that returns an entry's key. An entry with a known key isn't new.
        size: The size of the first page.

    Raises:
        UnavailableError: The list doesn't end, or a page didn't arrive in time.
    """

    def fetch(token: str, size: int, budget: Budget) -> tuple[Any, float, float]:
        """Return a page, the seconds that it took, and those that the budget was charged: no waits for a quota."""
        start, before = connection.now(), budget.spent()
        page = connection.call(rpc, request(resource, token, size), resource, budget)
        return page, connection.now() - start, budget.spent() - before

    token = ""
    tokens, seen = {token}, set[str]()
    empty, limit, spent = 0, connection.operation_budget().seconds, 0.0
    budget = connection.budget()
    fetched: Callable[[], tuple[Any, float, float]] = functools.partial(fetch, token, size, budget)
    while True:
        response, took, counted = fetched()
        page, token = read(response)
        new = [entry for entry in page if key(entry) not in seen]
        seen.update(map(key, new))
        spent += took
        empty = 0 if new else empty + 1
        if token and new:
            budget.leave_out(counted)
        endless = bool(token) and (token in tokens or empty >= _MAX_EMPTY_PAGES or spent >= limit)
        ahead = bool(token) and not endless and len(tokens) > 1
        if new and ahead:
            budget = connection.budget()  # a fresh one, unless a verb shares its own
            fetched = _waiting.begin(functools.partial(fetch, token, _wire.PAGE_SIZE, budget))
        if new:
            yield new
        if not token:
            return
        if endless:
            raise endless_list_error(rpc, resource)
        if not (new and ahead):
            budget = connection.budget() if new else budget
            fetched = functools.partial(fetch, token, _wire.PAGE_SIZE, budget)
        tokens.add(token)


def in_order(pages: Iterator[list[T]], number: Callable[[T], int], *, descending: bool) -> Iterator[list[T]]:
    """Yield the entries of pages that should come in the order of their numbers.

    If the server doesn't keep the order, the rest of the list is read and sorted here. A single entry shows no order,
    so nothing is yielded before there are two, or the list ends.
    """
    sign = -1 if descending else 1
    latest: float = -math.inf
    begun: list[T] = []
    for page in pages:
        begun += page
        if len(begun) < 2 and latest == -math.inf:  # noqa: PLR2004  # two show an order
            continue
        numbers = [latest, *(sign * number(entry) for entry in begun)]
        if not all(map(operator.lt, numbers, numbers[1:])):
            begun += itertools.chain.from_iterable(pages)
            begun.sort(key=number, reverse=descending)
            break
        yield begun
        latest, begun = numbers[-1], []
    if begun:
        yield begun


def endless_list_error(rpc: str, resource: str) -> UnavailableError:
    """Return the error of a list that doesn't end."""
    return UnavailableError(
        f"{rpc} on {resource} doesn't end: its pages repeat, or it took longer than Retry(operation_timeout=...) "
        "allows. Allow more time, or report it to the operator of the service.",
        resource=resource,
    )
