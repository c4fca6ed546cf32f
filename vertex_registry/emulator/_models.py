"""Models and their versions: what each of their RPCs means, in the order of Google's proto.

Above each rule is Google's sentence about it, in quotes. Where Google says nothing, the comment says "a
guess" and why. Where the facts can be read in two ways there is a switch.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, Final

from google.cloud.aiplatform_v1 import types
from google.protobuf import empty_pb2

from vertex_registry.emulator._contents import check_examples, plan_export, split_upload, with_examples
from vertex_registry.emulator._names import (
    DEFAULT_ALIAS,
    ENDPOINT_RE,
    MODEL_RE,
    REQUIRED,
    Name,
    location_of,
    parse,
    parse_location,
    parse_model_name,
)
from vertex_registry.emulator._query import (
    Operator,
    parse_read_mask,
    parse_update_mask,
    query_of,
)
from vertex_registry.emulator._sql import Condition, LabelCondition, Page
from vertex_registry.emulator._status import already_exists, failed_precondition, invalid_argument, not_found
from vertex_registry.emulator._validation import (
    GCS_RE,
    MAXIMUM_LABELS,
    MODEL,
    PREBUILT_FILES,
    PREBUILT_RE,
    base_model,
    check_aliases,
    check_artifact,
    check_base_model,
    check_container,
    check_display_name,
    check_encryption,
    check_explanation,
    check_image,
    check_labels,
    check_model_id,
    check_same_key,
    check_values,
    free_values,
    last_part,
)
from vertex_registry.emulator._views import with_resolved_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from google.longrunning import operations_pb2
    from google.protobuf.message import Message

    from vertex_registry.emulator._operations import Call, Operations
    from vertex_registry.emulator._query import Query
    from vertex_registry.emulator._stamps import Stamps
    from vertex_registry.emulator._store import OperationRow, Store, View
    from vertex_registry.emulator._switches import Assumptions
    from vertex_registry.emulator._validation import Violations
    from vertex_registry.emulator._views import Views

# UpdateModelRequest.model: "Supported model fields: display_name, description; supported version-specific fields:
# version_description. Labels are supported in both scenarios."
_UPDATABLE_MODEL_FIELDS: Final = frozenset({"display_name", "description"})
_UPDATABLE_VERSION_FIELDS: Final = frozenset({"version_description"})


# How many endpoints a message names.
_MOST_NAMED: Final = 3


class Models:
    """The RPCs of ModelService that are about models and versions.

    Args:
        store: Where they are kept.
        stamps: Their times and ids.
        views: Finds and shows them.
        operations: The operations that some of the RPCs begin.
        assume: The reading of every switch.
        list_objects: Lists a bucket's objects under a prefix; returns None, or is None, if it can't look there.
    """

    def __init__(  # noqa: PLR0917 - only the service makes one
        self,
        store: Store,
        stamps: Stamps,
        views: Views,
        operations: Operations,
        assume: Assumptions,
        list_objects: Callable[[str, str], Sequence[str] | None] | None,
    ) -> None:
        self._store = store
        self._stamps = stamps
        self._views = views
        self._operations = operations
        self._assume = assume
        self._list_objects = list_objects
        #: What the operations do that these RPCs begin.
        self.work: Mapping[str, Callable[[OperationRow, Any], Message]] = {
            "UploadModel": self._upload,
            "UpdateExplanationDataset": self._update_explanation_dataset,
            "DeleteModel": self._delete_model,
            "DeleteModelVersion": self._delete_version,
            "ExportModel": self._export,
            "CopyModel": self._copy,
        }

    def upload_model(self, request: Any, call: Call) -> operations_pb2.Operation:
        """Uploads a Model artifact into Vertex AI."""
        parent = parse_location("parent", request.parent)
        location = parent.rpartition("/")[2]
        model = request.model
        violations: Violations = []
        if request.parent_model and request.model_id:
            # A guess: in CopyModelRequest the two exclude each other.
            violations.append(("model_id", "Only one of parent_model and model_id can be set"))
        violations += check_model_id(request.model_id)
        violations += check_display_name(model.display_name)
        violations += check_aliases("model.version_aliases", model.version_aliases)
        violations += check_labels(model.labels)
        violations += check_image(model)
        violations += check_base_model(model.base_model_source)
        violations += check_explanation(model)
        violations += check_container(model.container_spec)
        violations += check_artifact(model.artifact_uri)
        violations += check_encryption("model.encryption_spec", model.encryption_spec, location)
        if any(message.HasField(field) for message, field in free_values(model)):
            violations += check_values("model", model)
        parent_model = self._parent_model(request.parent_model, parent, violations)
        if violations:
            raise invalid_argument(*violations)
        self._check_files(model)
        with self._operations.polling(parent, parent_model.model if parent_model else request.model_id):
            return self._begin_version("UploadModel", request, call, parent, parent_model, request.model_id)

    def get_model(self, request: Any) -> Any:
        """Gets a Model."""
        name = parse_model_name("name", request.name)
        with self._operations.polling(name.parent, name.model):
            # "If no version ID or alias is specified, the "default" version will be returned."
            return self._views.to_model(self._views.find(name), versioned=name.version is not None)

    def list_models(self, request: Any) -> Any:
        """Lists Models in a Location."""
        parent = parse_location("parent", request.parent)
        query = query_of("ListModels", parent, request)
        mask = parse_read_mask(request.read_mask.paths, MODEL.DESCRIPTOR)
        conditions, labels = [], []
        for term in query.filter.terms:
            if term.key is not None:
                # A guess: the labels that the list itself shows, those of the default version merged with the model's.
                labels.append(LabelCondition(term.key, None if term.operator is Operator.HAS else term.value))
            elif term.field == "base_model_name":
                conditions.append(Condition("m.base_model <> '' AND m.base_model = ?", (last_part(term.value),)))
            else:
                column = {"model": "m.id", "display_name": "m.display_name"}[term.field]
                sign = "=" if term.operator is Operator.EQUALS else "<>"
                conditions.append(Condition(f"{column} {sign} ?", (term.value,)))
        page = _page_of(query, unique="key", values=("display_name", "update_time"))
        with self._operations.polling(parent, query.filter.equal("model") or ""), self._reading_list():
            views = self._store.list_models(parent, conditions, labels, page)
        return self._views.to_list(views, query, page, mask, versioned=False)

    def list_model_versions(self, request: Any) -> Any:
        """Lists versions of the specified model."""
        # gcloud sends the name it was given, even with a version. That the version is ignored is a guess.
        name = parse_model_name("name", request.name)
        query = query_of("ListModelVersions", name.bare, request)
        mask = parse_read_mask(request.read_mask.paths, MODEL.DESCRIPTOR)
        page = _page_of(query, unique="number", values=("update_time",))
        with self._operations.polling(name.parent, name.model), self._reading_list():
            row = self._views.model_row(name)
            listed = self._store.listed_model(row.key)
            if listed is None:
                return types.ListModelVersionsResponse.pb()()
            labels = self._version_conditions(query, MODEL.FromString(listed.body).labels)
            views = [] if labels is None else self._store.list_versions(listed, labels, page)
        # Its response: "In the returned Model name field, version ID instead of regvision tag will be included."
        return self._views.to_list(views, query, page, mask, versioned=True)

    def list_model_version_checkpoints(self, request: Any) -> Any:
        """Lists checkpoints of the specified model version."""
        name = parse_model_name("name", request.name)
        query_of("ListModelVersionCheckpoints", str(name), request)
        with self._operations.polling(name.parent, name.model):
            # "If no version ID or alias is specified, the latest version will be used": elsewhere the default one is.
            if name.version is None:
                self._views.model_row(name)
            else:
                self._views.find(name)
        # Model.checkpoints: "Output only." They come from tuning jobs, of which there are none here.
        return types.ListModelVersionCheckpointsResponse.pb()()

    def update_model(self, request: Any, call: Call) -> Any:
        """Updates a Model."""
        given = request.model
        name = parse_model_name("model.name", given.name)
        paths = set(parse_update_mask(request.update_mask.paths, MODEL.DESCRIPTOR))
        # "model.name with the @ value, e.g. models/123@1, refers to a version specific update. model.name without the
        # @ value, e.g. models/123, refers to a model update. model.name with @-, e.g. models/123@-, refers to a model
        # update."
        of_version = name.version not in (None, "-")
        name = name if of_version else name._replace(version=None)
        known = _UPDATABLE_MODEL_FIELDS | _UPDATABLE_VERSION_FIELDS | {"labels"}
        if unknown := sorted(paths - known):
            # A guess: an unsupported path is an invalid argument, and so is "*".
            raise invalid_argument(*(("update_mask", f"Updating {path} is not supported") for path in unknown))
        # "A model name or model version name fields update mismatch will cause a precondition error. One request
        # cannot update both the model and the version fields. You must update them separately."
        if mismatch := sorted(paths & (_UPDATABLE_MODEL_FIELDS if of_version else _UPDATABLE_VERSION_FIELDS)):
            wanted, other = ("version", "model") if of_version else ("model", "version")
            raise failed_precondition(
                f"The name {given.name} refers to a {wanted}, and {', '.join(mismatch)} belongs to a {other}."
                " Update the model and the version separately."
            )
        violations = check_display_name(given.display_name) if "display_name" in paths else []
        violations += check_labels(given.labels) if "labels" in paths else []
        if violations:
            raise invalid_argument(*violations)
        with self._store.writing():
            view = self._views.find(name)
            self._views.check_etag(given.etag, view, of_version=of_version, stale=call.stale)
            body = MODEL.FromString(view.version_body if of_version else view.body)
            before = list(body.labels)
            # "When updating labels, if the request is for model-specific update, model label gets updated. Otherwise,
            # version labels get updated." A field mask replaces them as a whole.
            for path in paths:
                body.ClearField(path)
                if path == "labels":
                    body.labels.update(given.labels)
                else:
                    setattr(body, path, getattr(given, path))
            if of_version:
                self._store.change_version(
                    view.key,
                    view.number,
                    time=self._stamps.time(),
                    before=before,
                    labels=body.labels,
                    body=body.SerializeToString(),
                )
            else:
                self._store.change_model(
                    view.key, display_name=body.display_name, time=self._stamps.time(), body=body.SerializeToString()
                )
            self._views.update_listing(name)
            return self._views.to_model(self._views.find(name), versioned=of_version)

    def update_explanation_dataset(self, request: Any, call: Call) -> operations_pb2.Operation:
        """Incrementally update the dataset used for an examples model."""
        name = parse_model_name("model", request.model)
        check_examples(request.examples)
        with self._store.writing():
            view = self._views.find(name)
            # A guess: an examples model is one that was uploaded as such.
            if not MODEL.FromString(view.version_body).explanation_spec.parameters.HasField("examples"):
                raise failed_precondition(f"{name.bare}@{view.number} has no example-based explanations to update.")
            resolved = with_resolved_version(request, "model", view)
            return self._operations.begin("UpdateExplanationDataset", resolved, call, name, target=view.key)

    def delete_model(self, request: Any, call: Call) -> operations_pb2.Operation:
        """Deletes a Model."""
        name = parse_model_name("name", request.name)
        if name.version is not None:
            # A guess: the format in the request's reference has no version.
            raise invalid_argument(("name", "Invalid Model resource name"))
        with self._store.writing():
            key = self._views.model_row(name).key
            self._check_undeployed(name, key)
            return self._operations.begin("DeleteModel", request, call, name, target=key)

    def delete_model_version(self, request: Any, call: Call) -> operations_pb2.Operation:
        """Deletes a Model version."""
        # "The name of the model version to be deleted, with a version ID explicitly included." An alias is
        # accepted too, because Google's SDK says that it may be one.
        name = parse_model_name("name", request.name)
        if name.version is None:
            raise invalid_argument(("name", "A version must be explicitly included in the Model resource name"))
        with self._store.writing():
            view = self._views.find(name)
            self._check_deletable(view)
            resolved = with_resolved_version(request, "name", view)
            return self._operations.begin("DeleteModelVersion", resolved, call, name, target=view.key)

    def merge_version_aliases(self, request: Any) -> Any:
        """Merges a set of aliases for a Model version."""
        # "The name of the model version to merge aliases, with a version ID explicitly included." Google's own tests
        # use aliases here. That a bare name is refused is a guess.
        name = parse_model_name("name", request.name)
        if name.version is None:
            raise invalid_argument(("name", "A version must be explicitly included in the Model resource name"))
        if not request.version_aliases:
            raise invalid_argument(("version_aliases", REQUIRED))
        # "Add the - prefix to an alias means removing that alias from the version. - is NOT counted in the 128
        # characters."
        if bad := check_aliases("version_aliases", [alias.removeprefix("-") for alias in request.version_aliases]):
            raise invalid_argument(*bad)
        adding = [alias for alias in request.version_aliases if not alias.startswith("-")]
        removing = [alias[1:] for alias in request.version_aliases if alias.startswith("-")]
        # "Adding and deleting the same alias in the request is not recommended, and the 2 operations will be cancelled
        # out."
        both = set(adding) & set(removing)
        removed = set(removing) - both
        with self._store.writing():
            view = self._views.find(name)
            # "there must be exactly one default version alias for a model": it cannot be removed, only moved. The
            # code is a guess.
            if DEFAULT_ALIAS in removed and view.number == view.default_version:
                raise failed_precondition(
                    f"The alias {DEFAULT_ALIAS} cannot be removed from {name.bare}@{view.number}: a model has exactly"
                    f" one {DEFAULT_ALIAS} version. Add the alias to another version instead."
                )
            kept = [alias for alias in view.aliases.split() if alias not in removed]
            # Adding an alias that another version has moves it, as the documentation of aliases says.
            added = [alias for alias in adding if alias not in both]
            aliases = list(dict.fromkeys(kept + added))
            if bad := check_aliases("version_aliases", aliases):
                raise invalid_argument(*bad)
            self._store.set_aliases(view.key, view.number, aliases, time=self._stamps.time())
            self._views.update_listing(name)
            # A guess: the name has the version, like the request.
            return self._views.to_model(self._views.find(name._replace(version=str(view.number))), versioned=True)

    def export_model(self, request: Any, call: Call) -> operations_pb2.Operation:
        """Exports a trained, exportable Model to a location specified by the user."""
        # "The resource name may contain version id or version alias to specify the version, if no version is
        # specified, the default version will be exported."
        name = parse_model_name("name", request.name)
        config = request.output_config
        with self._store.writing():
            view = self._views.find(name)
            model = self._views.to_model(view, versioned=True)
            formats = {supported.id: supported for supported in model.supported_export_formats}
            if not formats:
                # Model.supported_export_formats: "If empty, this Model is not available for export." The code is a
                # guess.
                raise failed_precondition(f"{model.name} cannot be exported.")
            # "If no value is provided here, then the first from the list of the Model's supported formats is used by
            # default."
            chosen = formats.get(config.export_format_id or next(iter(formats)))
            if chosen is None:
                field = "output_config.export_format_id"
                raise invalid_argument((field, f"The model can be exported as: {', '.join(formats)}"))
            metadata = types.ExportModelOperationMetadata.pb()()
            plan_export(metadata.output_info, config, model, set(chosen.exportable_contents), self._stamps.time())
            resolved = with_resolved_version(request, "name", view)
            return self._operations.begin("ExportModel", resolved, call, name, target=view.key, metadata=metadata)

    def copy_model(self, request: Any, call: Call) -> operations_pb2.Operation:
        """Copies an already existing Vertex AI Model into the specified Location."""
        parent = parse_location("parent", request.parent)
        # "The resource name of the Model to copy. That Model must be in the same Project." A page of the documentation,
        # which is newer, allows another project.
        source = parse_model_name("source_model", request.source_model)
        violations = check_model_id(request.model_id)
        violations += check_encryption("encryption_spec", request.encryption_spec, parent.rpartition("/")[2])
        parent_model = self._parent_model(request.parent_model, parent, violations)
        if violations:
            raise invalid_argument(*violations)
        with self._store.reading():
            # A guess: without a version, the default one is copied, as everywhere else.
            view = self._views.find(source)
            resolved = with_resolved_version(request, "source_model", view)
            return self._begin_version(
                "CopyModel", resolved, call, parent, parent_model, request.model_id, source=view.key
            )

    @contextlib.contextmanager
    def _reading_list(self) -> Iterator[None]:
        """Read for a list, which shows earlier writes to lists that lag."""
        with self._store.reading():
            self._store.count_list()
            yield

    def _version_conditions(self, query: Query, own: Mapping[str, str]) -> list[LabelCondition] | None:
        """Return what the labels of a version must be, given those of its model; None if nothing can match."""
        conditions = []
        merged = self._assume.label_filter == "merged"
        for term in query.filter.terms:
            key = term.key or ""
            value = None if term.operator is Operator.HAS else term.value
            if not merged or key not in own:
                conditions.append(LabelCondition(key, value))
            elif value is None:
                continue
            elif self._assume.label_wins == "model":
                if own[key] != value:
                    return None
            else:
                conditions.append(LabelCondition(key, value, or_none=own[key] == value))
        return conditions

    # --- uploads and copies --------------------------------------------------

    def _parent_model(self, given: str, parent: str, violations: Violations) -> Name | None:
        """Return the model that an upload or a copy adds a version to."""
        if not given:
            return None
        # gcloud sends what was typed, which may be a bare id. That Vertex accepts it is a guess.
        full = f"{parent}/models/{given}" if "/" not in given else given
        match = MODEL_RE.fullmatch(full)
        if match is None or match["version"] is not None:
            violations.append(("parent_model", "Invalid Model resource name"))
            return None
        if location_of(match) != parent:
            # A guess.
            violations.append(("parent_model", f"The parent model must be in {parent}"))
            return None
        return Name(parent, match["model"], None)

    def _check_files(self, model: Any) -> None:
        """Refuse an artifact directory that a prebuilt container couldn't serve, if there is a bucket to look into."""
        match = PREBUILT_RE.fullmatch(model.container_spec.image_uri)
        if self._list_objects is None or match is None:
            return
        uri = GCS_RE.fullmatch(model.artifact_uri)
        assert uri is not None  # noqa: S101 - it was checked
        expected = PREBUILT_FILES[match["framework"]]
        directory = (uri["path"] or "").rstrip("/")
        prefix = f"{directory}/" if directory else ""
        found = self._list_objects(uri["bucket"], prefix)
        if found is None:
            return
        names = {name.removeprefix(prefix) for name in found}
        if len(names & set(expected)) != 1:
            raise failed_precondition(
                f"Model directory {model.artifact_uri} is expected to contain exactly one of: [{', '.join(expected)}]."
            )

    def _begin_version(  # noqa: PLR0917 - what two methods have in common
        self,
        rpc: str,
        request: Any,
        call: Call,
        parent: str,
        parent_model: Name | None,
        model_id: str,
        *,
        source: int | None = None,
    ) -> operations_pb2.Operation:
        """Begin the operation that creates a model with its first version, or the next version of one."""
        begin = functools.partial(self._operations.begin, rpc, request, source=source)
        with self._store.writing():
            if parent_model is not None:
                row = self._views.model_row(parent_model)
                check_same_key(rpc, request, row)
                return begin(call, parent_model, target=row.key)
            if not model_id:
                model_id = self._stamps.free_id(lambda given: self._store.is_taken(parent, given))
            if self._store.is_taken(parent, model_id):
                failure = already_exists(f"The Model already exists: {parent}/models/{model_id}.")
                if self._assume.id_taken == "call":
                    raise failure
                call = call._replace(failing=call.failing or failure)
                return begin(call, Name(parent, model_id, None))
            return begin(call, Name(parent, model_id, None), creates=True)

    def _upload(self, row: OperationRow, request: Any) -> Message:
        """Create what was uploaded: what UploadModel's operation does."""
        own, version = split_upload(request.model)
        number = self._add_version(row, own, version, request.model.version_aliases, under=bool(request.parent_model))
        return _version_response(types.UploadModelResponse, row, number)

    def _copy(self, row: OperationRow, request: Any) -> Message:
        """Create a copy: what CopyModel's operation does."""
        source = self._views.find(parse_model_name("source_model", request.source_model))
        if row.source not in (None, source.key):
            # The source was deleted, and this is a later model of the same name. A guess, as for the target.
            raise not_found(f"The Model version does not exist any more: {request.source_model}.")
        # Not copied, as the documentation says: aliases, id, evaluations, encryption and deployments. That both
        # layers of labels are, is a guess.
        own = MODEL.FromString(source.body)
        own.ClearField("encryption_spec")
        if request.HasField("encryption_spec"):
            own.encryption_spec.CopyFrom(request.encryption_spec)
        version = MODEL.FromString(source.version_body)
        version.ClearField("deployed_models")
        # ModelSourceInfo.copy: "If this Model is copy of another Model." OriginalModelInfo.model: "The resource name of
        # the Model this Model is a copy of, including the revision."
        version.model_source_info.copy = True
        version.original_model_info.model = f"{source.parent}/models/{source.id}@{source.number}"
        number = self._add_version(row, own, version, (), under=bool(request.parent_model), layered=True)
        return _version_response(types.CopyModelResponse, row, number)

    def _add_version(
        self,
        row: OperationRow,
        own: Any,
        version: Any,
        aliases: Sequence[str],
        *,
        under: bool,
        layered: bool = False,
    ) -> int:
        """Create a version, and its model unless it goes under one, and return its number."""
        name = Name(row.parent, row.model, None)
        model = self._store.model(row.parent, row.model)
        time = self._stamps.time()
        if under:
            if model is None:
                raise not_found(f"The Model does not exist: {name.bare}.")
            key, number, body = model.key, model.last_version + 1, MODEL.FromString(model.body)
        else:
            # Its id was taken when the operation began.
            key, number, body = 0, 1, own
        layers = ("model", "first-on-model") if number == 1 else ("model",)
        on_model = self._assume.labels_at_upload in layers and not layered
        if on_model:
            body.labels.update(version.labels)
            if len(body.labels) > MAXIMUM_LABELS:
                raise invalid_argument(*check_labels(body.labels))
            version.ClearField("labels")
        if not key:
            key = self._store.add_model(
                row.parent,
                row.model,
                display_name=body.display_name,
                base_model=base_model(version),
                time=time,
                body=body.SerializeToString(),
            )
        elif on_model:
            self._store.change_model(key, display_name=body.display_name, time=time, body=body.SerializeToString())
        self._store.add_version(key, number, time=time, labels=version.labels, body=version.SerializeToString())
        # "A default version alias will be created for the first version of the model". A later version gets it only
        # if it asks for it, and then takes it from the version that has it.
        wanted = list(dict.fromkeys(aliases))
        if number == 1 and DEFAULT_ALIAS not in wanted:
            wanted.append(DEFAULT_ALIAS)
        # Adding a version doesn't touch its siblings' update times, as Google's system test shows. A sibling that loses
        # an alias is updated, as by MergeVersionAliases. A guess.
        self._store.set_aliases(key, number, wanted, time=time)
        if on_model or DEFAULT_ALIAS in wanted:
            self._views.update_listing(name)
        return number

    # --- deletes -------------------------------------------------------------

    def _check_undeployed(self, name: Name, key: int) -> None:
        """Refuse to delete a model if one of its versions is deployed."""
        # DeleteModel: "A Model cannot be deleted if any Endpoint resource has a DeployedModel based on the model in its
        # deployed_models field." The code is a guess.
        for number, body in self._store.deployed_versions(key):
            if deployed := MODEL.FromString(body).deployed_models:
                raise _deployed(f"{name.bare}@{number}", deployed)

    def _check_deletable(self, view: View) -> None:
        """Refuse to delete a model's only version, one that is deployed, and the default one if a switch says so."""
        name = f"{view.parent}/models/{view.id}"
        # DeleteModelVersion: "Model version can only be deleted if there are no DeployedModels created from it." The
        # code is a guess.
        if deployed := MODEL.FromString(view.version_body).deployed_models:
            raise _deployed(f"{name}@{view.number}", deployed)
        # "The only version of a model cannot be deleted": "Deleting the only version in the Model is not allowed. Use
        # DeleteModel for deleting the Model instead." The code is a guess.
        if self._store.count_versions(view.key) == 1:
            raise failed_precondition(
                f"{name}@{view.number} is the only version of its model and cannot be deleted. Delete the model."
            )
        if self._assume.default_delete == "refuse" and view.number == view.default_version:
            raise failed_precondition(
                f"{name}@{view.number} is the default version and cannot be deleted."
                f" Add the alias {DEFAULT_ALIAS} to another version first."
            )

    def _delete_version(self, row: OperationRow, request: Any) -> Message:
        """Delete a version: what DeleteModelVersion's operation does."""
        name = parse_model_name("name", request.name)
        view = self._views.find(name)
        self._check_deletable(view)
        time = self._stamps.time()
        version = MODEL.FromString(view.version_body)
        self._store.delete_version(view.key, view.number, time=time, labels=version.labels)
        if view.number == view.default_version:
            # One page of the documentation: the alias goes to the next most recent version. The switch is "move".
            heir = self._store.newest_version(row.parent, row.model)
            assert heir is not None  # noqa: S101 - it wasn't the only version
            self._store.set_aliases(heir.key, heir.number, [*heir.aliases.split(), DEFAULT_ALIAS], time=time)
            self._views.update_listing(name)
        return empty_pb2.Empty()

    def _delete_model(self, row: OperationRow, _: Any) -> Message:
        """Delete a model: what DeleteModel's operation does."""
        name = Name(row.parent, row.model, None)
        model = self._views.model_row(name)
        self._check_undeployed(name, model.key)
        self._store.delete_model(model)
        return empty_pb2.Empty()

    # --- deployments: what the service of endpoints would write on a version -

    def deploy(self, model: str, endpoint: str) -> tuple[str, ...]:
        """Mark a version as deployed to an endpoint, a new one if none is named, and return all its endpoints."""
        name = parse_model_name("model", model)
        if endpoint:
            parse(ENDPOINT_RE, "endpoint", endpoint, "Endpoint")
        endpoint = endpoint or f"{name.parent}/endpoints/{self._stamps.free_id(lambda _: False)}"

        def add(deployed: Any) -> None:
            if all(other.endpoint != endpoint for other in deployed):
                deployed.add(endpoint=endpoint, deployed_model_id=self._stamps.free_id(lambda _: False))

        return self._change_deployments(name, add)

    def undeploy(self, model: str, endpoint: str) -> tuple[str, ...]:
        """Remove a version from an endpoint, or from all if none is named, and return those that it's still on."""

        def remove(deployed: Any) -> None:
            kept = [other for other in deployed if endpoint not in {"", other.endpoint}]
            if len(kept) == len(deployed):
                raise not_found(f"The Model is not deployed to {endpoint or 'any endpoint'}: {model}.")
            del deployed[:]
            deployed.extend(kept)

        return self._change_deployments(parse_model_name("model", model), remove)

    def _change_deployments(self, name: Name, change: Callable[[Any], None]) -> tuple[str, ...]:
        # That deploying updates the version, and so its etag, is a guess.
        with self._store.writing():
            view = self._views.find(name)
            version = MODEL.FromString(view.version_body)
            change(version.deployed_models)
            self._write_unlabelled(view, version)
        return tuple(str(deployed.endpoint) for deployed in version.deployed_models)

    def _write_unlabelled(self, view: View, version: Any) -> None:
        """Write a change of a version that leaves its labels as they are."""
        self._store.change_version(
            view.key,
            view.number,
            time=self._stamps.time(),
            before=list(version.labels),
            labels=version.labels,
            body=version.SerializeToString(),
        )

    # --- what the other operations do ----------------------------------------

    def _update_explanation_dataset(self, row: OperationRow, request: Any) -> Message:
        del row
        view = self._views.find(parse_model_name("model", request.model))
        self._write_unlabelled(view, with_examples(view, request.examples))
        response: Message = types.UpdateExplanationDatasetResponse.pb()()
        return response

    def _export(self, row: OperationRow, request: Any) -> Message:
        # Without a cloud there are no bytes to write, but the version has to exist.
        del row
        self._views.find(parse_model_name("name", request.name))
        response: Message = types.ExportModelResponse.pb()()
        return response


def _deployed(name: str, deployed: Sequence[Any]) -> Exception:
    endpoints = ", ".join(str(one.endpoint) for one in deployed[:_MOST_NAMED])
    return failed_precondition(f"{name} is deployed to {endpoints} and cannot be deleted. Undeploy it first.")


def _page_of(query: Query, *, unique: str, values: tuple[str, ...]) -> Page:
    """Return the page that a query asks for, by the columns of the store.

    Rows are created in the order of their unique column, so it's used in place of create_time, and ends every order.
    """
    order: list[tuple[str, bool]] = []
    for key in query.order:
        if key.field not in values:
            order.append((unique, key.descending))
            break
        order.append((key.field, key.descending))
    else:
        order.append((unique, order[-1][1]))
    return Page(tuple(order), query.after, query.limit + 1)


def _version_response(response: Any, row: OperationRow, number: int) -> Message:
    # UploadModelResponse.model: "The name of the uploaded Model resource", without the version.
    created: Message = response.pb()(model=f"{row.parent}/models/{row.model}", model_version_id=str(number))
    return created
