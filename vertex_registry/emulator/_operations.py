"""Long-running operations: how one begins, is polled and ends, and the RPCs of ``google.longrunning.Operations``.

Nothing happens by itself. An operation is done when it begins, or after so many polls: reads of the operation, and
each Get, List or Upload that names its model. Until then a new model doesn't exist, while its id is taken.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.cloud.aiplatform_v1 import types
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from vertex_registry.emulator._names import (
    EVALUATION_RE,
    OPERATION_RE,
    OPERATIONS_PARENT_RE,
    Name,
    location_of,
    parse,
)
from vertex_registry.emulator._query import query_of
from vertex_registry.emulator._sql import Page
from vertex_registry.emulator._status import Failure, cancelled, not_found
from vertex_registry.emulator._store import OperationRow

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator, Mapping

    from google.protobuf.message import Message

    from vertex_registry.emulator._stamps import Stamps
    from vertex_registry.emulator._store import Store

# An operation's metadata, by the RPC that begins it.
_METADATA: Final[dict[str, Any]] = {
    "UploadModel": types.UploadModelOperationMetadata.pb(),
    "UpdateExplanationDataset": types.UpdateExplanationDatasetOperationMetadata.pb(),
    "DeleteModel": types.DeleteOperationMetadata.pb(),
    "DeleteModelVersion": types.DeleteOperationMetadata.pb(),
    "ExportModel": types.ExportModelOperationMetadata.pb(),
    "CopyModel": types.CopyModelOperationMetadata.pb(),
}


class Call(NamedTuple):
    """What a request is besides its message.

    Attributes:
        api: The version of the API.
        failing: How the operation that it begins is to fail.
        stale: Whether its etag is to count as stale.
    """

    api: str = "v1"
    failing: Failure | None = None
    stale: bool = False


class Operations:
    """The operations of an emulator.

    Args:
        store: Where they are kept.
        stamps: Their times and ids.
        polls_until_done: How many polls each takes; 0 means that it's done when it begins.
    """

    def __init__(self, store: Store, stamps: Stamps, polls_until_done: int) -> None:
        self._store = store
        self._stamps = stamps
        self._polls = polls_until_done
        #: What each operation does, by the RPC that begins it.
        self.work: Mapping[str, Callable[[OperationRow, Any], Message]] = {}
        #: Raises NOT_FOUND unless an evaluation exists, given its matched name.
        self.check_evaluation: Callable[[re.Match[str]], object] = lambda match: match

    def begin(
        self,
        rpc: str,
        request: Any,
        call: Call,
        name: Name,
        *,
        target: int | None = None,
        source: int | None = None,
        creates: bool = False,
        metadata: Any = None,
    ) -> operations_pb2.Operation:
        """Begin an operation of a model. Without polls it's done when this returns.

        Args:
            rpc: The RPC that begins it.
            request: The RPC's request.
            call: What else is known of it.
            name: The model.
            target: The key of the model, if it exists.
            source: The key of the model that it copies.
            creates: Whether it takes the model's id.
            metadata: Its metadata, if there is more to say than the times.
        """
        time = self._stamps.time()
        if metadata is None:
            metadata = _METADATA[rpc]()
        metadata.generic_metadata.create_time.FromMicroseconds(time)
        metadata.generic_metadata.update_time.FromMicroseconds(time)
        operation_id = self._stamps.free_id(lambda new: self._store.operation(name.parent, None, new) is not None)
        operation = operations_pb2.Operation(name=f"{name.bare}/operations/{operation_id}")
        _pack(operation.metadata, metadata, call.api)
        row = OperationRow(
            name.parent,
            name.model,
            operation_id,
            self._polls or None,
            target,
            rpc,
            call.api,
            request.SerializeToString(),
            call.failing.status.SerializeToString() if call.failing else b"",
            operation.SerializeToString(),
            source,
        )
        if row.polls_left is None:
            row = self._finish(row, request)
        self._store.add_operation(row, creates=creates)
        return operations_pb2.Operation.FromString(row.body)

    @contextlib.contextmanager
    def polling(self, parent: str, model: str) -> Iterator[None]:
        """Poll the operations of a model, and read while nothing else changes."""
        if not self._store.under_way:
            with self._store.reading():
                yield
            return
        with self._store.writing():
            for row in self._store.count_poll(parent, model):
                self._poll(row)
        with self._store.reading():
            yield

    def _poll(self, row: OperationRow) -> OperationRow:
        """Poll an operation, and return what it is now."""
        if row.polls_left is None:
            return row
        if row.polls_left > 1:
            row = row._replace(polls_left=row.polls_left - 1)
        else:
            if not row.failure:
                row = row._replace(failure=self._lost_target(row))
            row = self._finish(row, getattr(types, f"{row.rpc}Request").pb().FromString(row.request))
        self._store.change_operation(row)
        return row

    def _finish(self, row: OperationRow, request: Any) -> OperationRow:
        """Do what an operation is for, and return it as done."""
        operation = operations_pb2.Operation.FromString(row.body)
        operation.done = True
        if row.failure:
            operation.error.ParseFromString(row.failure)
        else:
            try:
                _pack(operation.response, self.work[row.rpc](row, request), row.api)
            except Failure as failure:
                # Nothing was written: every one of these functions checks before it writes.
                operation.error.CopyFrom(failure.status)
        metadata = _METADATA[row.rpc].FromString(operation.metadata.value)
        metadata.generic_metadata.update_time.FromMicroseconds(self._stamps.time())
        operation.metadata.value = metadata.SerializeToString()
        return row._replace(polls_left=None, body=operation.SerializeToString())

    def _lost_target(self, row: OperationRow) -> bytes:
        """Return the failure of an operation whose model was deleted, even if another has its id by now. A guess."""
        model = None if row.target is None else self._store.model(row.parent, row.model)
        if row.target == (model and model.key):
            return b""
        name = Name(row.parent, row.model, None)
        lost: bytes = not_found(f"The Model does not exist: {name.bare}.").status.SerializeToString()
        return lost

    def _find(self, name: str) -> OperationRow:
        match = parse(OPERATION_RE, "name", name, "Operation")
        # A guess: each is also found by its id alone, which is what gcloud asks for.
        row = self._store.operation(location_of(match), match["model"], match["operation"])
        if row is None or match["evaluation"] is not None:
            raise not_found(f"The Operation does not exist: {name}.")
        return row

    # --- google.longrunning.Operations ---------------------------------------

    def list_operations(self, request: Any) -> operations_pb2.ListOperationsResponse:
        """Lists operations that match the specified filter in the request."""
        match = parse(OPERATIONS_PARENT_RE, "name", request.name, "Location or Model")
        parent = location_of(match)
        if match["evaluation"] is not None:
            # No operation is about an evaluation: importing one isn't an operation.
            with self._store.reading():
                self.check_evaluation(parse(EVALUATION_RE, "name", request.name, "ModelEvaluation"))
            return operations_pb2.ListOperationsResponse()
        query = query_of("ListOperations", f"{parent}/models/{match['model'] or ''}", request)
        page = Page((("model", False), ("id", False)), query.after, query.limit + 1)
        with self._store.writing():
            # The operations that are shown are polled.
            rows = self._store.list_operations(parent, match["model"], page)
            shown = [self._poll(row) for row in rows[: query.limit]]
        response = operations_pb2.ListOperationsResponse(
            operations=[operations_pb2.Operation.FromString(row.body) for row in shown]
        )
        if len(rows) > query.limit:
            response.next_page_token = query.token((shown[-1].model, shown[-1].id))
        return response

    def get_operation(self, request: Any) -> operations_pb2.Operation:
        """Gets the latest state of a long-running operation."""
        with self._store.writing():
            return operations_pb2.Operation.FromString(self._poll(self._find(request.name)).body)

    def delete_operation(self, request: Any) -> empty_pb2.Empty:
        """Deletes a long-running operation."""
        with self._store.writing():
            row = self._find(request.name)
            if row.polls_left is not None:
                # "It does not cancel the operation." Nobody can poll it any more, so it's done now.
                row = self._poll(row._replace(polls_left=1))
            self._store.delete_operation(row)
        return empty_pb2.Empty()

    def cancel_operation(self, request: Any) -> empty_pb2.Empty:
        """Starts asynchronous cancellation on a long-running operation."""
        with self._store.writing():
            row = self._find(request.name)
            # "On successful cancellation, the operation is not deleted; instead, it becomes an operation with an
            # Operation.error value with a google.rpc.Status.code of 1". One that is done stays as it is.
            if row.polls_left is not None:
                failure = cancelled("The operation was cancelled.").status.SerializeToString()
                self._store.change_operation(self._finish(row._replace(failure=failure), None))
        return empty_pb2.Empty()

    def wait_operation(self, request: Any) -> operations_pb2.Operation:
        """Waits until the specified long-running operation is done or reaches at most a specified timeout."""
        with self._store.writing():
            row = self._poll(self._find(request.name))
            # Nothing happens by itself here, so waiting means polling as often as it takes.
            patient = not request.HasField("timeout") or request.timeout.ToNanoseconds() > 0
            if row.polls_left is not None and patient:
                row = self._poll(row._replace(polls_left=1))
        return operations_pb2.Operation.FromString(row.body)


def _pack(packed: Any, message: Message, api: str) -> None:
    """Pack a message into an ``Any``, under its name in that version of the API."""
    name = message.DESCRIPTOR.full_name.replace("google.cloud.aiplatform.v1.", f"google.cloud.aiplatform.{api}.")
    packed.type_url = f"type.googleapis.com/{name}"
    packed.value = message.SerializeToString()
