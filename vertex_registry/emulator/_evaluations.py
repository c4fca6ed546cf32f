"""Evaluations of versions: the RPCs that import them and their slices, and read them back."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from google.cloud.aiplatform_v1 import types

from vertex_registry.emulator._names import EVALUATION_RE, REQUIRED, SLICE_RE, model_name_of, parse, parse_model_name
from vertex_registry.emulator._query import apply_read_mask, parse_read_mask, query_of
from vertex_registry.emulator._sql import Page
from vertex_registry.emulator._status import invalid_argument, not_found
from vertex_registry.emulator._validation import MAXIMUM_SLICES, MAXIMUM_VIOLATIONS, check_values

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

    from vertex_registry.emulator._operations import Operations
    from vertex_registry.emulator._query import Query
    from vertex_registry.emulator._stamps import Stamps
    from vertex_registry.emulator._store import Store
    from vertex_registry.emulator._views import Views

_EVALUATION: Final[Any] = types.ModelEvaluation.pb()
_SLICE: Final[Any] = types.ModelEvaluationSlice.pb()


class Evaluations:
    """The RPCs of ModelService that are about evaluations."""

    def __init__(self, store: Store, stamps: Stamps, views: Views, operations: Operations) -> None:
        self._store = store
        self._stamps = stamps
        self._views = views
        self._operations = operations

    def import_model_evaluation(self, request: Any) -> Any:
        """Imports an externally generated ModelEvaluation."""
        name = parse_model_name("parent", request.parent)
        if not request.HasField("model_evaluation"):
            raise invalid_argument(("model_evaluation", REQUIRED))
        if violations := check_values("model_evaluation", request.model_evaluation):
            raise invalid_argument(*violations)
        with self._store.writing():
            # A guess: without a version, the default version is evaluated.
            view = self._views.find(name)
            evaluation = _EVALUATION()
            evaluation.CopyFrom(request.model_evaluation)
            evaluation_id = self._stamps.free_id(lambda new: self._store.evaluation(view.key, new) is not None)
            evaluation.name = f"{name.bare}/evaluations/{evaluation_id}"
            evaluation.create_time.FromMicroseconds(self._stamps.time())
            self._store.add_evaluation(view.key, view.number, evaluation_id, evaluation.SerializeToString())
            return evaluation

    def batch_import_model_evaluation_slices(self, request: Any) -> Any:
        """Imports a list of externally generated ModelEvaluationSlice."""
        match = parse(EVALUATION_RE, "parent", request.parent, "ModelEvaluation")
        evaluation_id = match["evaluation"]
        if not request.model_evaluation_slices:
            raise invalid_argument(("model_evaluation_slices", REQUIRED))
        if len(request.model_evaluation_slices) > MAXIMUM_SLICES:
            message = f"At most {MAXIMUM_SLICES} slices can be imported at once"
            raise invalid_argument(("model_evaluation_slices", message))
        violations = (
            violation
            for position, given in enumerate(request.model_evaluation_slices)
            for violation in check_values(f"model_evaluation_slices[{position}]", given)
        )
        if reported := tuple(itertools.islice(violations, MAXIMUM_VIOLATIONS)):
            raise invalid_argument(*reported)
        response = types.BatchImportModelEvaluationSlicesResponse.pb()()
        with self._store.writing():
            model, _ = self.find(match)
            for given in request.model_evaluation_slices:
                slice_id = self._stamps.free_id(lambda new: self._store.slice(model, evaluation_id, new) is not None)
                kept = _SLICE()
                kept.CopyFrom(given)
                kept.name = f"{model_name_of(match).bare}/evaluations/{evaluation_id}/slices/{slice_id}"
                kept.create_time.FromMicroseconds(self._stamps.time())
                dimension = kept.slice_.dimension
                self._store.add_slice(model, evaluation_id, slice_id, dimension, kept.SerializeToString())
                response.imported_model_evaluation_slices.append(kept.name)
        return response

    def batch_import_evaluated_annotations(self, request: Any) -> Any:
        """Imports a list of externally generated EvaluatedAnnotations."""
        match = parse(SLICE_RE, "parent", request.parent, "ModelEvaluationSlice")
        if not request.evaluated_annotations:
            raise invalid_argument(("evaluated_annotations", REQUIRED))
        with self._store.reading():
            self._find_slice(match)
        # No method reads annotations, so all that anybody can know of them is how many there are.
        count = len(request.evaluated_annotations)
        return types.BatchImportEvaluatedAnnotationsResponse.pb()(imported_evaluated_annotations_count=count)

    def get_model_evaluation(self, request: Any) -> Any:
        """Gets a ModelEvaluation."""
        match = parse(EVALUATION_RE, "name", request.name, "ModelEvaluation")
        name = model_name_of(match)
        with self._operations.polling(name.parent, name.model):
            return _EVALUATION.FromString(self.find(match)[1])

    def list_model_evaluations(self, request: Any) -> Any:
        """Lists ModelEvaluations in a Model."""
        name = parse_model_name("parent", request.parent)
        query = query_of("ListModelEvaluations", str(name), request)
        mask = parse_read_mask(request.read_mask.paths, _EVALUATION.DESCRIPTOR)
        with self._operations.polling(name.parent, name.model):
            view = self._views.find(name)
            rows = self._store.list_evaluations(view.key, view.number, _page_by_id(query))
        response = types.ListModelEvaluationsResponse.pb()()
        response.model_evaluations.extend(
            apply_read_mask(_EVALUATION.FromString(body), mask) for _, body in rows[: query.limit]
        )
        response.next_page_token = _token_by_id(query, rows)
        return response

    def get_model_evaluation_slice(self, request: Any) -> Any:
        """Gets a ModelEvaluationSlice."""
        match = parse(SLICE_RE, "name", request.name, "ModelEvaluationSlice")
        name = model_name_of(match)
        with self._operations.polling(name.parent, name.model):
            return _SLICE.FromString(self._find_slice(match))

    def list_model_evaluation_slices(self, request: Any) -> Any:
        """Lists ModelEvaluationSlices in a ModelEvaluation."""
        match = parse(EVALUATION_RE, "parent", request.parent, "ModelEvaluation")
        name = model_name_of(match)
        query = query_of("ListModelEvaluationSlices", f"{name}/evaluations/{match['evaluation']}", request)
        mask = parse_read_mask(request.read_mask.paths, _SLICE.DESCRIPTOR)
        wanted = {term.value for term in query.filter.terms}
        with self._operations.polling(name.parent, name.model):
            model, _ = self.find(match)
            # No slice has two dimensions.
            dimension = wanted.pop() if wanted else None
            page = _page_by_id(query)
            rows = [] if wanted else self._store.list_slices(model, match["evaluation"], dimension, page)
        response = types.ListModelEvaluationSlicesResponse.pb()()
        response.model_evaluation_slices.extend(
            apply_read_mask(_SLICE.FromString(body), mask) for _, body in rows[: query.limit]
        )
        response.next_page_token = _token_by_id(query, rows)
        return response

    def find(self, match: re.Match[str]) -> tuple[int, bytes]:
        """Return the key of the model, and its serialised evaluation.

        Raises:
            Failure: NOT_FOUND.
        """
        name = model_name_of(match)
        view = self._views.find(name)
        found = self._store.evaluation(view.key, match["evaluation"])
        if found is None or (name.version is not None and found[0] != view.number):
            raise not_found(f"The ModelEvaluation does not exist: {name.bare}/evaluations/{match['evaluation']}.")
        return view.key, found[1]

    def _find_slice(self, match: re.Match[str]) -> bytes:
        model, _ = self.find(match)
        body = self._store.slice(model, match["evaluation"], match["slice"])
        if body is None:
            raise not_found(f"The ModelEvaluationSlice does not exist: {match[0]}.")
        return body


def _page_by_id(query: Query) -> Page:
    return Page((("id", False),), query.after, query.limit + 1)


def _token_by_id(query: Query, rows: Sequence[tuple[str, bytes]]) -> str:
    return query.token((rows[query.limit - 1][0],)) if len(rows) > query.limit else ""
