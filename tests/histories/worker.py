"""The processes of a run: clients of this package, and another tool with Google's client. Each records its calls."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1 import types
from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient
from google.cloud.aiplatform_v1.services.model_service.transports.grpc import ModelServiceGrpcTransport
from google.cloud.aiplatform_v1.services.model_service.transports.rest import ModelServiceRestTransport

from tests.histories import history
from tests.histories.plan import ALIASES, CALL
from vertex_registry import ModelVersion, RegistryClient, Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.histories.plan import Round, Step

PROJECT: Final = "histories"
LOCATION: Final = "us-central1"
IMAGE: Final = "us-docker.pkg.dev/histories/images/serve:1"

#: The seconds in which several processes register with one request id.
SLOT: Final = 0.3


@dataclass(frozen=True)
class Spec:
    """The arguments of a process.

    Attributes:
        round: The plan.
        process: The number of the client, or None for the process with Google's client.
        life: How often the process was killed and restarted before.
        transport: ``grpc`` or ``rest``.
        grpc: The emulator's address for gRPC.
        rest: The emulator's URL.
        folder: The folder for the history.
        deadline: When to stop, by the monotonic clock. It's infinite for a first life, whose time starts with the
            round.
    """

    round: Round
    process: int | None
    life: int
    transport: str
    grpc: str
    rest: str
    folder: str
    deadline: float

    @property
    def name(self) -> str:
        """Return the name of this process and life in the history."""
        return f"{'foreign' if self.process is None else f'p{self.process}'}-{self.life}"


def connect(transport: str, address: str, url: str) -> RegistryClient:
    """Create a client with short timeouts."""
    return RegistryClient(
        endpoint=address if transport == "grpc" else url,
        project=PROJECT,
        location=LOCATION,
        retry=Retry(call_timeout=CALL, operation_timeout=3 * CALL, initial_backoff=0.02, max_backoff=0.2),
    )


def summarize(version: ModelVersion) -> dict[str, Any]:
    """Return the fields of a version that the checker needs."""
    return {
        "name": version.name,
        "model": _without_version(version.model_resource_name),
        "number": version.version,
        "source": version.artifact_uri,
        "created": str(version.created_at.timestamp()),
        "stage": str(version.stage),
        "aliases": list(version.aliases),
        "metadata": version.metadata,
    }


def _without_version(resource: str) -> str:
    return resource.partition("@")[0]


def result_of(result: Any) -> Any:
    """Return the result of a verb as JSON."""
    if isinstance(result, ModelVersion):
        return summarize(result)
    return [summarize(version) for version in result] if isinstance(result, list) else result


def registration(key: str, **settings: Any) -> dict[str, Any]:
    """Return the arguments of a registration. They're the same in every process that uses this key."""
    rng = random.Random(key)  # noqa: S311  # not for security
    return {
        "source": f"gs://histories/{key}",
        "metadata": {"r": key, "shared": 0},
        "stage": rng.choice(("None", "None", "Staging", "Production")),
        "archive_existing": False,
        "aliases": [alias for alias in ALIASES if rng.random() < 0.2],
        "make_default": True,
        "request_id": None,
    } | settings


@dataclass
class Caller:
    """Calls methods and records each call with its outcome."""

    registry: RegistryClient
    recorder: history.Recorder
    unfinished: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def record(self, verb: str, name: str, args: dict[str, Any], action: Callable[[], Any]) -> Any:
        """Run an action and record it. Return its result, or None if it fails."""
        key = self.recorder.invoke(verb, name, args)
        try:
            result = action()
        except Exception as error:  # noqa: BLE001  # the checker decides which errors are right
            self.recorder.fail(key, error)
            return None
        self.recorder.succeed(key, result_of(result))
        return result

    def call(self, verb: str, name: str, **args: Any) -> Any:
        """Call a verb of the client."""
        return self.record(verb, name, args, lambda: getattr(self.registry, verb)(name, **args))

    def versions(self, name: str) -> list[ModelVersion]:
        """List the versions of a model."""
        found = self.record("list_versions", name, {}, lambda: list(self.registry.list_versions(name)))
        return found or []

    def register(self, name: str, args: dict[str, Any]) -> ModelVersion | None:
        """Register a version. If the outcome isn't known, remember the request, to run it again later."""

        def action() -> ModelVersion:
            try:
                return self.registry.register_version(name, container=IMAGE, check_source=False, **args)
            except Exception as error:
                if request_id := getattr(error, "request_id", "") or args["request_id"]:
                    self.unfinished.append((name, args | {"request_id": request_id}))
                raise

        version: ModelVersion | None = self.record("register_version", name, args, action)
        return version

    def snapshot(self, label: str) -> dict[str, Any]:
        """Read every model and each version with its own request."""

        def action() -> dict[str, Any]:
            for _ in range(3):  # lists may lag
                models = list(self.registry.list_models())
                for model in models:
                    list(self.registry.list_versions(model.resource_name))
            versions = [
                self.registry.get_version(model.resource_name, listed.version)
                for model in models
                for listed in self.registry.list_versions(model.resource_name)
            ]
            named = [{"name": model.name, "resource": model.resource_name} for model in models]
            return {"models": named, "versions": [summarize(version) for version in versions]}

        found: dict[str, Any] | None = self.record("snapshot", "", {"label": label}, action)
        return found or {"models": [], "versions": []}


class Client:
    """A client of this package, which carries out the steps of its plan."""

    def __init__(self, spec: Spec, caller: Caller) -> None:
        self._spec = spec
        self._caller = caller
        self._known: dict[str, set[int]] = {}
        self._count = 0

    def run(self) -> None:
        """Run the unfinished registrations of earlier lives again, then take steps until the deadline."""
        for name, args in unfinished(Path(self._spec.folder), f"p{self._spec.process}-")[-2:]:
            self._caller.register(name, args)
        for step in self._spec.round.steps(f"{self._spec.process}.{self._spec.life}", foreign=False):
            if time.monotonic() >= self._spec.deadline:
                return
            if step.fault is not None:
                plan_fault(self._spec.rest, step.fault)
                self._caller.recorder.note("fault", fault=step.fault)
            getattr(self, f"_{step.verb}")(step)

    def _learn(self, name: str, *versions: ModelVersion | None) -> None:
        self._known.setdefault(name, set()).update(int(version.version) for version in versions if version is not None)

    def _number(self, step: Step) -> str | None:
        """Return the version that a step is about, if there is one."""
        known = sorted(self._known.get(step.name, ()), reverse=True)
        if step.back < 0 or not known:
            newest = self._caller.call("latest_version", step.name, stage=None)
            self._learn(step.name, newest)
            return None if newest is None else str(newest.version)
        return str(known[min(step.back, len(known) - 1)])

    def _call(self, verb: str, step: Step, **args: Any) -> None:
        if (number := self._number(step)) is not None:
            result = self._caller.call(verb, step.name, version=number, **args)
            if isinstance(result, ModelVersion):
                self._learn(step.name, result)
            elif verb in {"get_version", "delete_version"}:
                self._known.get(step.name, set()).discard(int(number))

    def _key(self) -> str:
        self._count += 1
        return f"{self._spec.round.seed}-{self._spec.round.number}/{self._spec.name}-{self._count}"

    def _register(self, step: Step, **settings: Any) -> None:
        stage = "None" if step.chance < 0.7 else step.stage
        args = registration(self._key(), stage=stage) | settings
        self._learn(step.name, self._caller.register(step.name, args))

    def _register_aside(self, step: Step) -> None:
        self._register(step, make_default=False, aliases=[])

    def _register_promoted(self, step: Step) -> None:
        self._register(step, stage="Production", archive_existing=True)

    def _register_request(self, step: Step) -> None:
        request = f"{step.name}/r{int(time.monotonic() / SLOT)}"
        args = registration(request, request_id=request)
        args["archive_existing"] = args["stage"] == "Staging"
        self._learn(step.name, self._caller.register(step.name, args))

    def _rerun(self, _step: Step) -> None:
        if self._caller.unfinished:
            name, args = self._caller.unfinished.pop(0)
            self._learn(name, self._caller.register(name, args))

    def _promote(self, step: Step) -> None:
        self._call("set_stage", step, stage="Production", archive_existing=True)

    def _promote_newest(self, step: Step) -> None:
        newest = self._caller.call("latest_version", step.name, stage=None)
        if newest is not None:
            version = newest.version
            self._caller.call("set_stage", step.name, version=version, stage="Production", archive_existing=True)

    def _stage(self, step: Step) -> None:
        archive = step.archive and step.stage in {"Staging", "Production"}
        self._call("set_stage", step, stage=step.stage, archive_existing=archive)

    def _update(self, step: Step) -> None:
        self._call("update_version", step, metadata={self._unique(): step.chance})

    def _unique(self) -> str:
        return "u" + self._key().partition("/")[2]

    def _overwrite(self, step: Step) -> None:
        self._call("update_version", step, metadata={"shared": self._unique()})

    def _update_by_alias(self, step: Step) -> None:
        metadata = {self._unique(): step.chance}
        self._caller.call("update_version", step.name, version=step.alias, metadata=metadata)

    def _remove(self, step: Step) -> None:
        self._call("update_version", step, remove_metadata=["r"])

    def _alias(self, step: Step) -> None:
        self._call("add_aliases", step, aliases=[step.alias])

    def _unalias(self, step: Step) -> None:
        self._call("remove_aliases", step, aliases=[step.alias])

    def _default(self, step: Step) -> None:
        self._call("set_default", step)

    def _delete(self, step: Step) -> None:
        self._call("delete_version", step)

    def _delete_default(self, step: Step) -> None:
        version = self._caller.call("get_version", step.name, version="default")
        if version is not None:
            self._caller.call("delete_version", step.name, version=version.version)

    def _delete_model(self, step: Step) -> None:
        self._caller.call("delete_model", step.name)
        self._known.pop(step.name, None)

    def _get(self, step: Step) -> None:
        self._call("get_version", step)

    def _get_alias(self, step: Step) -> None:
        alias = step.alias if step.chance < 0.5 else "default"
        self._learn(step.name, self._caller.call("get_version", step.name, version=alias))

    def _list(self, step: Step) -> None:
        self._learn(step.name, *self._caller.versions(step.name))

    def _filled(self, step: Step) -> None:
        self._caller.call("latest_version", step.name, stage="Production")


class Foreign:
    """Another tool with Google's client, which ignores this package's conventions. It writes labels with an etag."""

    def __init__(self, spec: Spec, caller: Caller, google: Any) -> None:
        self._spec = spec
        self._caller = caller
        self._google = google
        self._count = 0

    def run(self) -> None:
        """Take steps until the deadline."""
        for step in self._spec.round.steps(f"foreign.{self._spec.life}", foreign=True):
            if time.monotonic() >= self._spec.deadline:
                return
            self._count += 1
            time.sleep(0.05 + step.chance / 5)  # act less often than the clients
            with contextlib.suppress(Exception):  # a model or version may be deleted while it's read
                parent = f"projects/{PROJECT}/locations/{LOCATION}"
                query = {"parent": parent, "filter": f'display_name="{step.name}"'}
                for model in list(self._google.list_models(request=query, timeout=CALL))[:1]:
                    getattr(self, f"_{step.verb.removeprefix('foreign_')}")(step, _without_version(model.name))

    def _record(self, step: Step, model: str, action: Callable[[], Any], **args: Any) -> None:
        self._caller.record(step.verb, step.name, {"model": model, **args}, action)

    def _number(self, step: Step, model: str) -> str:
        versions = list(self._google.list_model_versions(name=model, timeout=CALL))
        numbers: list[str] = [version.version_id for version in versions]
        return numbers[max(-len(numbers), -1 - max(0, step.back))]

    def _rename(self, step: Step, model: str) -> None:
        to = f"{step.name}-old{self._spec.life}{self._count}"

        def action() -> None:
            change = types.Model(name=model, display_name=to)
            self._google.update_model(model=change, update_mask={"paths": ["display_name"]}, timeout=CALL)

        self._record(step, model, action, to=to)

    def _label(self, step: Step, model: str) -> None:
        number = self._number(step, model)
        version = self._google.get_model(name=f"{model}@{number}", timeout=CALL)
        key = f"f{self._spec.life}-{self._count}"
        added = {"stage": step.stage.lower()} if step.chance < 0.3 else {key: "x"}

        def action() -> dict[str, Any]:
            change = types.Model(name=version.name, etag=version.etag, labels={**version.labels, **added})
            mask = {"paths": ["labels"]}
            return _changed_version(model, self._google.update_model(model=change, update_mask=mask, timeout=CALL))

        if "stage" in added:
            self._record(step, model, action, version=number, stage=step.stage)
        else:
            self._record(step, model, action, version=number, metadata=added)

    def _alias(self, step: Step, model: str) -> None:
        number = self._number(step, model)

        def action() -> dict[str, Any]:
            name = f"{model}@{number}"
            aliases = [step.alias]
            version = self._google.merge_version_aliases(name=name, version_aliases=aliases, timeout=CALL)
            return _changed_version(model, version)

        self._record(step, model, action, version=number, aliases=[step.alias])

    def _upload(self, step: Step, model: str) -> None:
        source = f"gs://histories/{self._spec.round.seed}-{self._spec.round.number}/{self._spec.name}-{self._count}"

        def action() -> dict[str, Any]:
            container = types.ModelContainerSpec(image_uri=IMAGE)
            upload = types.Model(display_name=step.name, artifact_uri=source, container_spec=container)
            request = types.UploadModelRequest(
                parent=f"projects/{PROJECT}/locations/{LOCATION}", parent_model=model, model=upload
            )
            response = self._google.upload_model(request=request, timeout=CALL).result(timeout=CALL)
            number = response.model_version_id
            version = self._google.get_model(name=f"{model}@{number}", timeout=CALL)
            known = {"stage": "None", "aliases": [], "metadata": {}, "source": source, "name": step.name}
            return {"model": model, "number": number, "created": _created(version), **known}

        self._record(step, model, action, source=source)

    def _delete_version(self, step: Step, model: str) -> None:
        number = self._number(step, model)
        name = f"{model}@{number}"
        self._record(
            step,
            model,
            lambda: self._google.delete_model_version(name=name, timeout=CALL).result(timeout=CALL) and None,
            version=number,
        )

    def _delete_model(self, step: Step, model: str) -> None:
        self._record(
            step, model, lambda: self._google.delete_model(name=model, timeout=CALL).result(timeout=CALL) and None
        )


def _created(version: Any) -> str:
    return str(version.version_create_time.timestamp())


def _changed_version(model: str, version: Any) -> dict[str, Any]:
    """Return the identity of the version that Google's client changed."""
    return {"of": [model, version.version_id, version.artifact_uri, _created(version)]}


def request_of(attempt: history.Operation) -> str | None:
    """Return the request ID of a registration: its own, or the one in its error."""
    from_error = attempt.result if attempt.error else None
    request: str | None = attempt.args["request_id"] or from_error
    return request


def unfinished(folder: Path, process: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the registrations of a process whose outcome isn't known. They can run again."""
    again: dict[str, tuple[str, dict[str, Any]]] = {}
    for operation in history.read_folder(folder)[0]:
        if operation.verb == "register_version" and operation.process.startswith(process):
            if operation.ok:
                again.pop(operation.args["source"], None)
            elif request := request_of(operation):
                again[operation.args["source"]] = (operation.name, operation.args | {"request_id": request})
    return list(again.values())


def plan_fault(url: str, fault: dict[str, Any]) -> None:
    """Plan a fault in the emulator, unless it's down."""
    with contextlib.suppress(OSError):
        requests.post(f"{url}/emulator/faults", json=fault, timeout=CALL)


def _google(spec: Spec) -> ModelServiceClient:
    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]  # untyped upstream
    transport: ModelServiceGrpcTransport | ModelServiceRestTransport
    if spec.transport == "rest":
        host = spec.rest.removeprefix("http://")
        transport = ModelServiceRestTransport(host=host, credentials=credentials, url_scheme="http")
    else:
        transport = ModelServiceGrpcTransport(channel=grpc.insecure_channel(spec.grpc), credentials=credentials)
    return ModelServiceClient(transport=transport)


def run(spec: Spec, start: Any) -> None:
    """Run a process until the deadline. All first lives start at the same time."""
    recorder = history.Recorder(Path(spec.folder) / f"{spec.name}.jsonl", spec.name)
    with connect(spec.transport, spec.grpc, spec.rest) as registry, contextlib.ExitStack() as stack:
        google = stack.enter_context(_google(spec)) if spec.process is None else None
        if spec.deadline == math.inf:
            start.wait()
            spec = dataclasses.replace(spec, deadline=time.monotonic() + spec.round.seconds)
        caller = Caller(registry, recorder)
        if google is not None:
            Foreign(spec, caller, google).run()
        else:
            Client(spec, caller).run()
