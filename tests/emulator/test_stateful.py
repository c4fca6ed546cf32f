"""Random sequences of all writes, compared with a small model of the rules.

``Rules`` is a second, naive implementation: plain dictionaries and loops, without the emulator's code. The machine
sends each write to both, expects the same outcome, and then compares every kind of read. Operations run for a random
number of polls, which both sides count, while other writes continue. The emulator's switches are random too.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
import requests
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1
from google.cloud.aiplatform_v1.services.model_service.transports.grpc import ModelServiceGrpcTransport
from google.cloud.aiplatform_v1.services.model_service.transports.rest import ModelServiceRestTransport
from google.longrunning import operations_pb2
from google.protobuf.json_format import MessageToDict
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

pytestmark = pytest.mark.unmeasured  # measuring coverage is slow, and other tests reach each line

PARENT: Final = "projects/4711/locations/us-central1"
IMAGE: Final = "us-docker.pkg.dev/acme/images/serve:1"

INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND: Final = grpc.StatusCode.NOT_FOUND
TAKEN: Final = grpc.StatusCode.ALREADY_EXISTS
PRECONDITION: Final = grpc.StatusCode.FAILED_PRECONDITION
ABORTED: Final = grpc.StatusCode.ABORTED
CANCELLED: Final = grpc.StatusCode.CANCELLED


# --- a naive implementation of the rules -------------------------------------


class RefusedError(Exception):
    """A request that the rules don't allow."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code)
        self.code = code


@dataclasses.dataclass
class Version:
    """The fields of a version."""

    labels: dict[str, str]
    aliases: list[str]
    description: str
    artifact: str
    #: None if the version was uploaded without examples. Then it can't get any.
    examples: dict[str, Any] | None = None
    evaluations: dict[str, list[str]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Model:
    """The fields of a model, and its versions by number."""

    created: int
    display_name: str
    description: str
    labels: dict[str, str]
    versions: dict[int, Version] = dataclasses.field(default_factory=dict)
    last: int = 0
    #: How often the model's own fields were written.
    writes: int = 0

    @property
    def default(self) -> int:
        (number,) = (number for number, version in self.versions.items() if "default" in version.aliases)
        return number


@dataclasses.dataclass
class Operation:
    """A write that's done after some polls."""

    model: str
    #: The value of `created` of its model, or None if it creates a model.
    target: int | None
    #: Executes the write and returns the number of the new version, if there is one. If it raises, nothing changes.
    work: Callable[[], str]
    #: Whether the model's ID is reserved while it's running.
    creates: bool = False
    #: The error with which it failed or will fail.
    failure: grpc.StatusCode | None = None
    #: The number of polls until it's done.
    polls_left: int = 0
    version: str = ""


@dataclasses.dataclass
class Rules:
    """A registry that follows the rules. A refused write changes nothing. A long-running one returns an operation."""

    switches: dict[str, str]
    models: dict[str, Model] = dataclasses.field(default_factory=dict)
    operations: dict[str, Operation] = dataclasses.field(default_factory=dict)
    created: int = 0

    # --- operations ---

    def running(self, model: str) -> list[Operation]:
        """Return the running operations of a model, the oldest first."""
        return [each for each in self.operations.values() if each.polls_left and each.model == model]

    def operation(self, name: str) -> Operation:
        if name not in self.operations:
            raise RefusedError(NOT_FOUND)
        return self.operations[name]

    def poll_model(self, model: str) -> None:
        """Poll every running operation of a model."""
        self.poll(self.running(model))

    def poll(self, operations: list[Operation]) -> None:
        for operation in operations:
            if operation.polls_left > 1:
                operation.polls_left -= 1
            elif operation.polls_left:
                self.finish(operation)

    def finish(self, operation: Operation) -> None:
        """Execute an operation's write. If its model was deleted or created again, the operation fails."""
        operation.polls_left = 0
        current = self.models.get(operation.model)
        if operation.failure is None and operation.target != (current and current.created):
            operation.failure = NOT_FOUND
        if operation.failure is None:
            try:
                operation.version = operation.work()
            except RefusedError as error:
                operation.failure = error.code

    def cancel(self, name: str) -> None:
        operation = self.operation(name)
        if operation.polls_left:
            operation.polls_left, operation.failure = 0, CANCELLED

    def delete_operation(self, name: str) -> None:
        operation = self.operation(name)
        if operation.polls_left:
            self.finish(operation)
        del self.operations[name]

    # --- reads ---

    def find(self, model: str, reference: str) -> tuple[Model, int]:
        """Return the model and the version number that a name refers to."""
        if model not in self.models:
            raise RefusedError(NOT_FOUND)
        found = self.models[model]
        if not reference:
            return found, found.default
        for number, version in found.versions.items():
            if reference in (str(number), *version.aliases):
                return found, number
        raise RefusedError(NOT_FOUND)

    def shown_labels(self, model: Model, version: Version) -> dict[str, str]:
        if self.switches["label-wins"] == "version":
            return {**model.labels, **version.labels}
        return {**version.labels, **model.labels}

    def shown(self, name: str, model: Model, number: int) -> dict[str, Any]:
        """Return the fields that a read of a version returns."""
        version = model.versions[number]
        return {
            "name": name,
            "version_id": str(number),
            "display_name": model.display_name,
            "description": model.description,
            "labels": self.shown_labels(model, version),
            # A copy, because the result is compared with later reads.
            "version_aliases": list(version.aliases),
            "version_description": version.description,
            "artifact_uri": version.artifact,
            "examples": copy.deepcopy(version.examples),
        }

    def evaluation(self, model: str, reference: str, evaluation: str) -> list[str]:
        """Return the slices of an evaluation of a version or, without a reference, of any version."""
        home, number = self.find(model, reference)
        versions = [home.versions[number]] if reference else home.versions.values()
        for version in versions:
            if evaluation in version.evaluations:
                return version.evaluations[evaluation]
        raise RefusedError(NOT_FOUND)

    # --- writes ---

    def upload(self, model: str, *, new: bool, display_name: str, version: Version) -> Operation:
        self.poll_model(model)

        def work() -> str:
            home = self._find_or_create(model, new=new, display_name=display_name, labels={})
            side = self.switches["labels-at-upload"]
            if side == "model" or (side == "first-on-model" and home.last == 0):
                home.labels |= version.labels
                home.writes += 1
                version.labels = {}
            return self._add(home, version)

        return self._add_operation(model, work, new=new)

    def _add_operation(self, model: str, work: Callable[[], str], *, new: bool) -> Operation:
        """Return the operation that adds a version to a model, or creates one with it."""
        if not new:
            if model not in self.models:
                raise RefusedError(NOT_FOUND)
            return Operation(model, self.models[model].created, work)
        if model not in self.models and not any(each.creates for each in self.running(model)):
            return Operation(model, None, work, creates=True)
        if self.switches["id-taken"] == "call":
            raise RefusedError(TAKEN)
        return Operation(model, None, work, failure=TAKEN)

    def _find_or_create(self, model: str, *, new: bool, display_name: str, labels: dict[str, str]) -> Model:
        if new:
            self.created += 1
            self.models[model] = Model(self.created, display_name, f"about {display_name}", labels)
        return self.models[model]

    def _add(self, home: Model, version: Version) -> str:
        home.last += 1
        aliases = list(dict.fromkeys(version.aliases))
        version.aliases = []
        home.versions[home.last] = version
        if home.last == 1 and "default" not in aliases:
            aliases.append("default")
        self._move_aliases(home, home.last, aliases)
        return str(home.last)

    def _move_aliases(self, model: Model, number: int, aliases: Iterable[str]) -> None:
        for alias in aliases:
            if alias in model.versions[number].aliases:
                continue
            for version in model.versions.values():
                if alias in version.aliases:
                    version.aliases.remove(alias)
            model.versions[number].aliases.append(alias)

    def update(self, model: str, reference: str, fields: dict[str, Any], *, read_at: int | None) -> None:
        """Update with an etag that was read after `read_at` writes. None means the current etag, or none."""
        if not fields:
            raise RefusedError(INVALID)
        of_version = reference not in ("", "-")
        forbidden = {"display_name", "description"} if of_version else {"version_description"}
        if forbidden & set(fields):
            raise RefusedError(PRECONDITION)
        home, number = self.find(model, reference if of_version else "")
        if read_at is not None and (of_version or read_at != home.writes):
            raise RefusedError(ABORTED if self.switches["stale-etag"] == "aborted" else PRECONDITION)
        target: Any = home.versions[number] if of_version else home
        home.writes += not of_version
        for field, value in fields.items():
            setattr(target, field.removeprefix("version_"), copy.copy(value))

    def merge_aliases(self, model: str, reference: str, changes: list[str]) -> None:
        if not reference or not changes:
            raise RefusedError(INVALID)
        home, number = self.find(model, reference)
        added = {change for change in changes if not change.startswith("-")}
        removed = {change[1:] for change in changes if change.startswith("-")}
        added, removed = added - removed, removed - added
        if "default" in removed and number == home.default:
            raise RefusedError(PRECONDITION)
        version = home.versions[number]
        version.aliases = [alias for alias in version.aliases if alias not in removed]
        self._move_aliases(home, number, [change for change in changes if change in added])

    def delete_version(self, model: str, reference: str) -> Operation:
        if not reference:
            raise RefusedError(INVALID)
        home, number = self.find(model, reference)
        self._check_deletable(home, number)

        def work() -> str:
            self.find(model, str(number))
            self._check_deletable(home, number)
            was_default = number == home.default
            del home.versions[number]
            if was_default:
                home.versions[max(home.versions)].aliases.append("default")
            return ""

        return Operation(model, home.created, work)

    def _check_deletable(self, home: Model, number: int) -> None:
        refused = number == home.default and self.switches["default-delete"] == "refuse"
        if len(home.versions) == 1 or refused:
            raise RefusedError(PRECONDITION)

    def delete_model(self, model: str, reference: str) -> Operation:
        if reference:
            raise RefusedError(INVALID)
        if model not in self.models:
            raise RefusedError(NOT_FOUND)

        def work() -> str:
            del self.models[model]
            return ""

        return Operation(model, self.models[model].created, work)

    def copy(self, model: str, reference: str, target: str, *, new: bool) -> Operation:
        source, number = self.find(model, reference)

        def work() -> str:
            home, _ = self.find(model, str(number))
            if home is not source:
                raise RefusedError(NOT_FOUND)
            version = home.versions[number]
            # Labels stay in their layer, model or version. An existing model keeps its own labels.
            into = self._find_or_create(target, new=new, display_name=home.display_name, labels=dict(home.labels))
            if new:
                into.description = home.description
            return self._add(
                into, Version(dict(version.labels), [], version.description, version.artifact, version.examples)
            )

        return self._add_operation(target, work, new=new)

    def export(self, model: str, reference: str, destination: str, form: str) -> Operation:
        home, number = self.find(model, reference)
        if not destination or form not in ("", "custom-trained"):
            raise RefusedError(INVALID)

        def work() -> str:
            self.find(model, str(number))
            return ""

        return Operation(model, home.created, work)

    def update_examples(self, model: str, reference: str, given: dict[str, Any]) -> Operation:
        home, number = self.find(model, reference)
        if home.versions[number].examples is None:
            raise RefusedError(PRECONDITION)

        def work() -> str:
            self.find(model, str(number))
            version = home.versions[number]
            version.examples = {**(version.examples or {}), **given}
            return ""

        return Operation(model, home.created, work)

    def annotate(self, model: str, reference: str, evaluation: str, part: str, count: int) -> None:
        if not count:
            raise RefusedError(INVALID)
        if part not in self.evaluation(model, reference, evaluation):
            raise RefusedError(NOT_FOUND)


# --- the machine -------------------------------------------------------------

# Most of these exist. The others come up often enough.
_models: Final = st.sampled_from(["a", "a", "a", "b", "b", "c"])
_references: Final = st.sampled_from(["1", "2", "3", "default", "default", "alpha", "beta", "", "4", "-"])
_aliases: Final = st.lists(st.sampled_from(["alpha", "beta", "default"]), max_size=3)
_changes: Final = st.lists(st.sampled_from(["alpha", "beta", "default", "-alpha", "-beta", "-default"]), max_size=2)
_labels: Final = st.dictionaries(
    st.sampled_from(["x", "x", "y", "z"]), st.sampled_from(["1", "1", "0", ""]), max_size=3
)
_names: Final = st.sampled_from(["churn", "Churn", "fraud"])
_examples: Final = st.fixed_dictionaries(
    {},
    optional={
        "neighbor_count": st.integers(1, 2),
        "presets": st.sampled_from([{"query": "FAST"}, {"modality": "IMAGE"}]),
        "example_gcs_source": st.sampled_from([{"gcs_source": {"uris": [f"gs://{name}"]}} for name in ("e", "f")]),
    },
)
# The position of an operation, counted from the newest. Older ones are often still running when newer ones are done.
_recent: Final = st.sampled_from([0, 0, 0, 1, 2, 5])
_fields: Final = st.dictionaries(
    st.sampled_from(["display_name", "description", "version_description"]), _names, min_size=0, max_size=2
)

FILTERS: Final[dict[str, Callable[[str, Model, dict[str, str]], bool]]] = {
    "labels.x=1": lambda _, __, labels: labels.get("x") == "1",
    "labels:y": lambda _, __, labels: "y" in labels,
    'labels.x=1 AND labels.z:* AND labels.y="0"': lambda _, __, labels: (
        labels.get("x") == "1" and "z" in labels and labels.get("y") == "0"
    ),
    'labels.x=""': lambda _, __, labels: labels.get("x") == "",
    "model=a": lambda name, _, __: name == "a",
    "model!=a AND labels:x": lambda name, _, labels: name != "a" and "x" in labels,
    "displayName=churn": lambda _, model, __: model.display_name == "churn",
    "display_name!=churn": lambda _, model, __: model.display_name != "churn",
}


def code_of(error: GoogleAPICallError) -> Any:
    """Return the canonical code. Over REST it's in the body, because codes share a status there."""
    if isinstance(error.response, requests.Response):
        return grpc.StatusCode[error.response.json()["error"]["status"]]
    return error.grpc_status_code


class Registry(RuleBasedStateMachine):
    """A state machine that compares the emulator with the rules."""

    @initialize(
        switches=st.fixed_dictionaries(
            {
                "labels-at-upload": st.sampled_from(["version", "model", "first-on-model"]),
                "label-wins": st.sampled_from(["version", "model"]),
                "label-filter": st.sampled_from(["merged", "own"]),
                "default-delete": st.sampled_from(["refuse", "move"]),
                "stale-etag": st.sampled_from(["aborted", "failed-precondition"]),
                "id-taken": st.sampled_from(["call", "operation"]),
                "list-lag": st.sampled_from(["0", "0", "2"]),
            }
        ),
        polls=st.sampled_from([0, 1, 3, 9]),
        transport=st.sampled_from(["grpc", "grpc", "rest"]),
        in_file=st.sampled_from([False, False, True]),
    )
    def begin(self, switches: dict[str, str], polls: int, transport: str, *, in_file: bool) -> None:
        self.folder = tempfile.TemporaryDirectory() if in_file else None
        data = None if self.folder is None else Path(self.folder.name, "registry.db")
        self.emulators = lambda: Emulator(data=data, assume=switches, polls_until_done=polls)
        self.polls = polls
        self.transport = transport
        self.oracle = Rules(switches)
        self.lag = int(switches["list-lag"])
        self.start()
        #: The content of each etag, and the etags of each version.
        self.contents: dict[tuple[int, str], Any] = {}
        self.etags: dict[tuple[int, int], list[str]] = {}
        #: The number of the model's writes at the time of each etag.
        self.writes_at: dict[str, int] = {}
        self.clocks: dict[tuple[int, int], tuple[Any, Any]] = {}
        #: The models that were written since they were last compared.
        self.touched: set[str] = set("abc")
        #: All operations and slices so far, and the operations that are done.
        self.operations: list[str] = []
        self.slices: list[tuple[str, str, str]] = []
        self.done: dict[str, Any] = {}
        self.artifacts = (f"gs://models/{number}" for number in itertools.count())
        # Start with some versions.
        for labels, aliases in (({"x": "1"}, []), ({"x": "0", "y": "0"}, ["alpha"]), ({}, ["beta"])):
            self.upload_version(labels=labels, aliases=aliases, examples={"neighbor_count": 3})
            self.wait(0)

    def start(self) -> None:
        """Start an emulator, and connect Google's client to it."""
        self.emulator = self.emulators()  # type: ignore[no-untyped-call]
        transport: Any = ModelServiceGrpcTransport(channel=grpc.insecure_channel(str(self.emulator.grpc)))
        if self.transport == "rest":
            host = str(self.emulator.rest).removeprefix("http://")
            credentials: Any = AnonymousCredentials()  # type: ignore[no-untyped-call]
            transport = ModelServiceRestTransport(host=host, url_scheme="http", credentials=credentials)
        self.client = aiplatform_v1.ModelServiceClient(transport=transport)
        self.lists = 0
        #: The states that lists may show, each with the number of lists that were answered before.
        self.snapshots: list[tuple[int, Rules]] = [(-self.lag, self.snapshot())]

    def stop(self) -> None:
        self.client.transport.close()  # type: ignore[no-untyped-call]
        self.emulator.close()

    def teardown(self) -> None:
        """Compare everything once more, so a write to another model is noticed."""
        if not hasattr(self, "emulator"):
            return
        try:
            if hasattr(self, "operations"):
                self.touched = set("abc")
                for which in range(len(self.operations)):
                    self.wait(which)
                self.compare_touched_models()
        finally:
            self.stop()
            if self.folder is not None:
                self.folder.cleanup()

    # --- one request to both sides ---

    def both(self, expected: Callable[[], Any], actual: Callable[[], Any]) -> Any:
        """Return both results, or None if both sides fail with the same code."""
        expected_code = actual_code = outcome = answer = None
        try:
            outcome = expected()
        except RefusedError as error:
            expected_code = error.code
        try:
            answer = actual()
        except GoogleAPICallError as error:
            actual_code = code_of(error)
        assert actual_code == expected_code
        return None if expected_code else (outcome, answer)

    def write(self, model: str, expected: Callable[[], Any], actual: Callable[[], Any]) -> Any:
        """Send a write without an operation to both sides."""
        self.touched.add(model)
        return self.both(expected, actual)

    def begin_operation(self, model: str, expected: Callable[[], Operation], actual: Callable[[], Any]) -> Any:
        """Send a write that starts an operation to both sides."""
        results = self.write(model, expected, actual)
        if results is None:
            return None
        operation, future = results
        name = future.operation.name
        self.operations.append(name)
        self.oracle.operations[name] = operation
        operation.polls_left = self.polls
        if not self.polls:
            self.oracle.finish(operation)
        self.compare_operation(operation, future.operation)
        return future.operation

    def read(self, model: str, expected: Callable[[], Any], actual: Callable[[], Any]) -> Any:
        """Send a Get, List or Upload that names a model, and so polls it, to both sides."""
        self.oracle.poll_model(model)
        return self.both(expected, actual)

    def name(self, model: str, reference: str = "") -> str:
        return f"{PARENT}/models/{model}" + (f"@{reference}" if reference else "")

    # --- writes ---

    @rule(labels=_labels, aliases=_aliases, examples=st.none() | _examples)
    def upload_version(self, labels: dict[str, str], aliases: list[str], examples: dict[str, Any] | None) -> None:
        new = "a" not in self.oracle.models
        self.upload("a", new=new, display_name="churn", labels=labels, aliases=aliases, examples=examples)

    @rule(
        model=_models,
        new=st.booleans(),
        display_name=_names,
        labels=_labels,
        aliases=_aliases,
        examples=st.none() | _examples,
    )
    def upload(
        self,
        model: str,
        *,
        new: bool,
        display_name: str,
        labels: dict[str, str],
        aliases: list[str],
        examples: dict[str, Any] | None,
    ) -> None:
        artifact = next(self.artifacts)
        request: dict[str, Any] = {
            "parent": PARENT,
            "model": {
                "display_name": display_name,
                "description": f"about {display_name}",
                "version_description": artifact,
                "labels": labels,
                "version_aliases": aliases,
                "artifact_uri": artifact,
                "container_spec": {"image_uri": IMAGE},
                **({} if examples is None else {"explanation_spec": {"parameters": {"examples": examples}}}),
            },
            **({"model_id": model} if new else {"parent_model": self.name(model)}),
        }
        version = Version(dict(labels), list(aliases), artifact, artifact, examples)
        self.begin_operation(
            model,
            lambda: self.oracle.upload(model, new=new, display_name=display_name, version=version),
            lambda: self.client.upload_model(request),
        )

    @rule(
        model=_models,
        reference=_references,
        fields=_fields,
        labels=st.none() | _labels,
        etag=st.sampled_from(["none", "current", "stale"]),
    )
    def update(
        self, model: str, reference: str, fields: dict[str, str], labels: dict[str, str] | None, etag: str
    ) -> None:
        changes: dict[str, Any] = {**fields, **({} if labels is None else {"labels": labels})}
        sent = ""
        read_at = None
        if etag != "none":
            seen = self.get(model, reference.removeprefix("-"))
            if etag == "current" and seen:
                sent = seen.etag
            elif seen:
                created, number = self.oracle.models[model].created, int(seen.version_id)
                old = [each for each in self.etags[created, number] if each != seen.etag]
                sent = old[-1] if old else ""
                read_at = self.writes_at[sent] if sent else None
        self.write(
            model,
            lambda: self.oracle.update(model, reference, changes, read_at=read_at),
            lambda: self.client.update_model(
                {
                    "model": {"name": self.name(model, reference), "etag": sent, **changes},
                    "update_mask": {"paths": list(changes)},
                }
            ),
        )

    @rule(model=_models, reference=_references, changes=_changes)
    def merge_aliases(self, model: str, reference: str, changes: list[str]) -> None:
        self.write(
            model,
            lambda: self.oracle.merge_aliases(model, reference, changes),
            lambda: self.client.merge_version_aliases(name=self.name(model, reference), version_aliases=changes),
        )

    @rule(model=_models, reference=_references)
    def delete_version(self, model: str, reference: str) -> None:
        self.begin_operation(
            model,
            lambda: self.oracle.delete_version(model, reference),
            lambda: self.client.delete_model_version(name=self.name(model, reference)),
        )

    @rule(model=_models, reference=st.sampled_from(["1", "-", "2", "", ""]))
    def delete_model(self, model: str, reference: str) -> None:
        self.begin_operation(
            model,
            lambda: self.oracle.delete_model(model, reference),
            lambda: self.client.delete_model(name=self.name(model, reference)),
        )

    @rule(model=_models, reference=_references, into=_models, new=st.booleans())
    def copy(self, model: str, reference: str, into: str, *, new: bool) -> None:
        target = {"model_id": into} if new else {"parent_model": self.name(into)}
        self.begin_operation(
            into,
            lambda: self.oracle.copy(model, reference, into, new=new),
            lambda: self.client.copy_model({"parent": PARENT, "source_model": self.name(model, reference), **target}),
        )

    @rule(
        model=_models,
        reference=_references,
        destination=st.sampled_from(["gs://exports", "gs://exports", ""]),
        form=st.sampled_from(["", "custom-trained", "tflite"]),
    )
    def export(self, model: str, reference: str, destination: str, form: str) -> None:
        config = {"export_format_id": form, "artifact_destination": {"output_uri_prefix": destination}}
        operation = self.begin_operation(
            model,
            lambda: self.oracle.export(model, reference, destination, form),
            lambda: self.client.export_model({"name": self.name(model, reference), "output_config": config}),
        )
        if operation is not None:
            metadata = aiplatform_v1.ExportModelOperationMetadata.deserialize(operation.metadata.value)
            display_name = self.oracle.models[model].display_name
            assert metadata.output_info.artifact_output_uri.startswith(f"gs://exports/model-export-{display_name}-")

    @rule(model=_models, reference=_references, examples=_examples)
    def update_examples(self, model: str, reference: str, examples: dict[str, Any]) -> None:
        self.begin_operation(
            model,
            lambda: self.oracle.update_examples(model, reference, examples),
            lambda: self.client.update_explanation_dataset(
                {"model": self.name(model, reference), "examples": examples}
            ),
        )

    @rule(model=_models, reference=_references, slices=st.integers(0, 2))
    def evaluate(self, model: str, reference: str, slices: int) -> None:
        results = self.write(
            model,
            lambda: self.oracle.find(model, reference),
            lambda: self.client.import_model_evaluation(
                {"parent": self.name(model, reference), "model_evaluation": {"display_name": "test set"}}
            ),
        )
        if results is None:
            return
        (home, number), evaluation = results
        identity = evaluation.name.rpartition("/")[2]
        parts = home.versions[number].evaluations[identity] = []
        if slices:
            answer = self.client.batch_import_model_evaluation_slices(
                {"parent": evaluation.name, "model_evaluation_slices": [{"slice_": {"dimension": "slice"}}] * slices}
            )
            parts += [name.rpartition("/")[2] for name in answer.imported_model_evaluation_slices]
            self.slices += [(model, identity, part) for part in parts]

    @precondition(lambda self: self.slices)
    @rule(which=_recent, reference=_references, count=st.integers(0, 2))
    def annotate(self, which: int, reference: str, count: int) -> None:
        model, evaluation, part = self.slices[-1 - which % len(self.slices)]
        request = {
            "parent": f"{self.name(model, reference)}/evaluations/{evaluation}/slices/{part}",
            "evaluated_annotations": [{}] * count,
        }
        results = self.write(
            model,
            lambda: self.oracle.annotate(model, reference, evaluation, part, count),
            lambda: self.client.batch_import_evaluated_annotations(request),
        )
        assert results is None or results[1].imported_evaluated_annotations_count == count

    # --- operations ---

    def recent(self, which: int) -> str:
        return self.operations[-1 - which % len(self.operations)]

    def compare_operation(self, expected: Operation, read: Any) -> None:
        """Compare an operation with the rules."""
        assert read.done == (not expected.polls_left)
        if not read.done:
            return
        assert self.done.setdefault(read.name, read) == read
        assert read.error.code == (expected.failure.value[0] if expected.failure else 0)
        # All other responses are empty.
        assert aiplatform_v1.UploadModelResponse.deserialize(read.response.value).model_version_id == expected.version

    @rule(which=_recent)
    def poll_operation(self, which: int) -> None:
        name = self.recent(which)
        if name in self.oracle.operations:
            self.oracle.poll([self.oracle.operations[name]])
        read = self.both(lambda: self.oracle.operation(name), lambda: self.client.get_operation({"name": name}))
        if read is not None:
            self.compare_operation(*read)

    @rule(model=st.sampled_from(["", "a", "b"]))
    def list_operations(self, model: str) -> None:
        """Compare the operations of a location or a model. Listing polls them, in their order."""
        prefix = f"{PARENT}/models/{model}/" if model else PARENT
        expected = sorted(name for name in self.oracle.operations if name.startswith(prefix))
        self.oracle.poll([self.oracle.operations[name] for name in expected])
        listed = self.client.list_operations({"name": prefix.rstrip("/")}).operations
        assert [operation.name for operation in listed] == expected
        for operation in listed:
            self.compare_operation(self.oracle.operations[operation.name], operation)

    @rule(which=_recent)
    def wait(self, which: int) -> None:
        name = self.recent(which)

        def expected() -> Operation:
            operation = self.oracle.operation(name)
            if operation.polls_left:
                self.oracle.finish(operation)
            return operation

        read = self.both(expected, lambda: self.client.wait_operation({"name": name}))
        if read is not None:
            operation, answer = read
            if self.transport == "grpc":  # Google's client doesn't parse the response
                answer = operations_pb2.Operation.FromString(answer)
            self.compare_operation(operation, answer)

    @rule(which=_recent)
    def cancel(self, which: int) -> None:
        name = self.recent(which)
        self.both(lambda: self.oracle.cancel(name), lambda: self.client.cancel_operation({"name": name}))

    @rule(which=_recent)
    def delete_operation(self, which: int) -> None:
        name = self.recent(which)
        self.both(lambda: self.oracle.delete_operation(name), lambda: self.client.delete_operation({"name": name}))

    @precondition(lambda self: self.folder is not None)
    @rule()
    def restart(self) -> None:
        """Restart the emulator with its file. Afterwards, lists don't lag."""
        self.stop()
        self.start()
        self.touched = set("abc")

    # --- reads ---

    def compare(self, model: Any, expected: dict[str, Any], home: Model) -> None:
        """Compare a model with the rules."""
        shown = aiplatform_v1.Model.to_dict(model)
        assert {field: shown[field] for field in expected if field != "examples"} == {
            field: value for field, value in expected.items() if field != "examples"
        }
        number = int(model.version_id)
        assert model.create_time <= model.version_create_time
        assert model.create_time <= model.update_time
        assert model.version_create_time <= model.version_update_time
        created = (model.create_time, model.version_create_time)
        assert self.clocks.setdefault((home.created, number), created) == created
        parameters = aiplatform_v1.ExplanationParameters.pb(model.explanation_spec.parameters)
        examples = MessageToDict(parameters.examples, preserving_proto_field_name=True)
        assert (examples if parameters.HasField("examples") else None) == expected["examples"]
        # One etag means one content, whichever name was read.
        content = {**expected, "name": None, "times": (model.update_time, model.version_update_time)}
        del content["times"]
        assert self.contents.setdefault((home.created, model.etag), content) == content
        seen = self.etags.setdefault((home.created, number), [])
        if model.etag not in seen:
            seen.append(model.etag)
            self.writes_at[model.etag] = home.writes

    @rule(model=_models, reference=_references)
    def get_model(self, model: str, reference: str) -> None:
        self.get(model, reference)

    def get(self, model: str, reference: str) -> Any:
        """Read a version and compare it with the rules. Return None if both sides say that it doesn't exist."""
        read = self.read(
            model,
            lambda: self.oracle.find(model, reference),
            lambda: self.client.get_model(name=self.name(model, reference)),
        )
        if read is None:
            return None
        (home, number), found = read
        name = self.name(model, str(number) if reference else "")
        self.compare(found, self.oracle.shown(name, home, number), home)
        return found

    @invariant()
    def compare_touched_models(self) -> None:
        """Compare reads by number, by alias and by the model's name. Versions that don't exist aren't found.

        Models with running operations are left out, because each read is a poll, which would soon finish them.
        """
        for model in sorted(self.touched):
            if not self.oracle.running(model):
                for reference in ("", "1", "2", "3", "4", "5", "alpha", "beta", "default"):
                    self.get(model, reference)
                self.touched.remove(model)

    def snapshot(self) -> Rules:
        return Rules(self.oracle.switches, copy.deepcopy(self.oracle.models))

    def listing(self) -> Rules:
        """Return the state that the next list has to show."""
        self.snapshots.append((self.lists, self.snapshot()))
        self.lists += 1
        return [rules for at, rules in self.snapshots if at + self.lag < self.lists][-1]

    def pages(
        self, method: Callable[..., Any], request: dict[str, Any], size: int, *, model: str = ""
    ) -> Iterator[tuple[Rules, list[Any]]]:
        """Yield each page of a list with the state that it has to show. Each request polls the model that it names.

        If the versions of a model that doesn't exist are listed, there are no pages.
        """
        # With several pages, a page could finish an operation and so change the next page.
        size = 100 if self.oracle.running(model) else size
        token = ""

        def page() -> Any:
            return next(method({**request, "page_size": size, "page_token": token}).pages)

        for _ in range(50):
            self.oracle.poll_model(model)
            rules = self.listing()
            read = self.both(lambda: self.oracle.find(model, "") if "name" in request else None, page)
            if read is None:
                return
            _, answer = read
            yield rules, list(answer.models)
            token = answer.next_page_token
            if not token:
                return
        pytest.fail("the list doesn't end")

    @rule(
        text=st.sampled_from(["", *FILTERS]),
        order=st.sampled_from(["", "create_time", "display_name", "displayName desc, create_time", "update_time desc"]),
        size=st.integers(1, 4),
    )
    def list_models(self, text: str, order: str, size: int) -> None:
        """Compare the list of models: every match once, as its default version, in the requested order."""
        request = {"parent": PARENT, "filter": text, "order_by": order}
        pages = list(self.pages(self.client.list_models, request, size, model="a" if text == "model=a" else ""))
        rules = pages[0][0]
        if any(other.models != rules.models for other, _ in pages):
            return  # the lagging list changed while it was read
        expected = {
            name: model
            for name, model in rules.models.items()
            if not text or FILTERS[text](name, model, rules.shown_labels(model, model.versions[model.default]))
        }
        listed = [model for _, page in pages for model in page]
        assert all(len(page) == size for _, page in pages[:-1])
        assert sorted(model.name for model in listed) == sorted(self.name(name) for name in expected)
        for model in listed:
            home = expected[model.name.rpartition("/")[2]]
            self.compare(model, rules.shown(model.name, home, home.default), home)
        for key in reversed((order or "create_time desc").split(", ")):
            field, _, direction = key.replace("displayName", "display_name").partition(" ")
            values = [getattr(model, field) for model in listed]
            if key == (order or "create_time desc").split(", ")[0]:
                assert values == sorted(values, reverse=direction == "desc")
        ages = [expected[model.name.rpartition("/")[2]].created for model in listed]
        if order in ("", "create_time"):
            assert ages == sorted(ages, reverse=not order)

    @rule(
        model=st.sampled_from(["a", "a", "b"]),
        text=st.sampled_from(["", *(text for text in FILTERS if "model" not in text and "isplay" not in text)]),
        order=st.sampled_from(["", "create_time desc", "updateTime, create_time"]),
        size=st.integers(1, 4),
    )
    def list_versions(self, model: str, text: str, order: str, size: int) -> None:
        """Compare the list of versions: every match once, in the requested order."""
        request = {"name": self.name(model), "filter": text, "order_by": order}
        pages = list(self.pages(self.client.list_model_versions, request, size, model=model))
        if not pages:
            return
        rules = pages[0][0]
        if any(other.models != rules.models for other, _ in pages):
            return  # the lagging list changed while it was read
        home = rules.models.get(model)
        if home is None or home.created != self.oracle.models[model].created:
            assert pages == [(rules, [])]
            return
        expected = [
            number
            for number, version in sorted(home.versions.items())
            if not text
            or FILTERS[text](
                model,
                home,
                rules.shown_labels(home, version) if rules.switches["label-filter"] == "merged" else version.labels,
            )
        ]
        listed = [version for _, page in pages for version in page]
        assert sorted(int(version.version_id) for version in listed) == expected
        for version in listed:
            number = int(version.version_id)
            self.compare(version, rules.shown(self.name(model, str(number)), home, number), home)
        numbers = [int(version.version_id) for version in listed]
        if order.startswith("updateTime"):
            times = [version.version_update_time for version in listed]
            assert times == sorted(times)
        else:
            assert numbers == sorted(numbers, reverse=bool(order))

    @rule(model=_models, reference=_references)
    def list_evaluations(self, model: str, reference: str) -> None:
        """Compare the evaluations of a version, and the slices of each."""
        read = self.read(
            model,
            lambda: self.oracle.find(model, reference),
            lambda: list(self.client.list_model_evaluations(parent=self.name(model, reference))),
        )
        if read is None:
            return
        (home, number), found = read
        assert {each.name.rpartition("/")[2] for each in found} == set(home.versions[number].evaluations)
        for each in found:
            self.list_slices(model, each.name)

    def list_slices(self, model: str, evaluation: str) -> None:
        """Compare the slices of an evaluation, which may have been deleted since it was listed."""
        read = self.read(
            model,
            lambda: self.oracle.evaluation(model, "", evaluation.rpartition("/")[2]),
            lambda: list(self.client.list_model_evaluation_slices(parent=evaluation)),
        )
        if read is not None:
            expected, found = read
            assert sorted(one.name.rpartition("/")[2] for one in found) == sorted(expected)


TestRegistry = Registry.TestCase
TestRegistry.settings = settings(max_examples=12, stateful_step_count=40, deadline=None, report_multiple_bugs=False)
