"""Every RPC by the name of its method, put together from the modules that know what each means.

The service knows no transport: a method takes a request message and returns a response message, or raises a
``Failure``. Lists of models are returned serialised. Messages are those of v1; v1beta1 is the same on the wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vertex_registry.emulator._evaluations import Evaluations
from vertex_registry.emulator._locations import Locations
from vertex_registry.emulator._models import Models
from vertex_registry.emulator._names import Name
from vertex_registry.emulator._operations import Operations
from vertex_registry.emulator._stamps import Stamps
from vertex_registry.emulator._views import Views

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Mapping, Sequence

    from vertex_registry.emulator._operations import Call
    from vertex_registry.emulator._store import Store
    from vertex_registry.emulator._switches import Assumptions

    Method = Callable[[Any, Call], Any]

# The methods that mind what a request is besides its message: those that begin an operation, and the one with an etag.
_WITH_CALL = frozenset(
    {
        "upload_model",
        "update_model",
        "update_explanation_dataset",
        "delete_model",
        "delete_model_version",
        "export_model",
        "copy_model",
    }
)


class Service:
    """The RPCs.

    Args:
        store: Where everything is kept.
        assume: The reading of every switch.
        polls_until_done: How many polls an operation takes.
        now: The clock.
        new_id: The maker of ids.
        list_objects: Lists a bucket's objects under a prefix; returns None, or is None, if it can't look there.
    """

    def __init__(
        self,
        store: Store,
        *,
        assume: Assumptions,
        polls_until_done: int,
        now: Callable[[], dt.datetime],
        new_id: Callable[[], str],
        list_objects: Callable[[str, str], Sequence[str] | None] | None = None,
    ) -> None:
        self._store = store
        with store.reading():
            latest = store.latest_create_time()
        self._stamps = stamps = Stamps(now, new_id, latest=latest)
        self._views = Views(store, assume)
        operations = Operations(store, stamps, polls_until_done)
        self._models = models = Models(store, stamps, self._views, operations, assume, list_objects)
        evaluations = Evaluations(store, stamps, self._views, operations)
        operations.work = models.work
        operations.check_evaluation = evaluations.find
        self._parts = (models, evaluations, operations, Locations())
        with store.writing():
            # Let lists find every model by what they show of it, if that was written under another assumption.
            for parent, model in store.listed_under_other_assumption(assume.label_wins):
                self._views.update_listing(Name(parent, model, None))
            store.show_in_lists()

    def methods(self, names: Sequence[str]) -> Mapping[str, Method]:
        """Return the methods of these names."""
        return {name: self._method(name) for name in names}

    def _method(self, name: str) -> Method:
        (method,) = (getattr(part, name) for part in self._parts if hasattr(part, name))
        return method if name in _WITH_CALL else lambda request, _: method(request)

    def parents(self) -> list[str]:
        """Return the locations that have models."""
        with self._store.reading():
            return self._store.parents()

    def deploy(self, model: str, endpoint: str) -> tuple[str, ...]:
        """Mark a version as deployed to an endpoint, and return all its endpoints."""
        return self._models.deploy(model, endpoint)

    def undeploy(self, model: str, endpoint: str) -> tuple[str, ...]:
        """Remove a version from an endpoint, or from all, and return those that it's still on."""
        return self._models.undeploy(model, endpoint)

    def reset(self) -> None:
        """Forget everything."""
        self._store.clear()
        self._views.clear()
