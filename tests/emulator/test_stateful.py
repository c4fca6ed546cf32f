"""Random sequences of all writes, against a small model of the rules.

``Rules`` below is a second, naive reading of the facts: plain dictionaries and loops, none of the emulator's code. The
machine sends each write to both, expects the same outcome from both, and then compares every read there is. The
switches of the emulator are drawn as well, since each of their combinations must be a registry that makes sense.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
import requests
from google.api_core.exceptions import GoogleAPICallError, from_grpc_status
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1
from google.cloud.aiplatform_v1.services.model_service.transports.grpc import ModelServiceGrpcTransport
from google.cloud.aiplatform_v1.services.model_service.transports.rest import ModelServiceRestTransport
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

pytestmark = pytest.mark.no_cover  # to count costs much, and other tests reach each line

PARENT: Final = "projects/4711/locations/us-central1"
IMAGE: Final = "us-docker.pkg.dev/acme/images/serve:1"

INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND: Final = grpc.StatusCode.NOT_FOUND
TAKEN: Final = grpc.StatusCode.ALREADY_EXISTS
PRECONDITION: Final = grpc.StatusCode.FAILED_PRECONDITION
ABORTED: Final = grpc.StatusCode.ABORTED


# --- the rules, read naively -------------------------------------------------


class RefusedError(Exception):
    """What the rules do not allow."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code)
        self.code = code


@dataclasses.dataclass
class Version:
    """A version: what is its own."""

    labels: dict[str, str]
    aliases: list[str]
    description: str
    artifact: str
    evaluations: dict[str, list[str]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Model:
    """A model: what is its own, and its versions by number."""

    born: int
    display_name: str
    description: str
    labels: dict[str, str]
    versions: dict[int, Version] = dataclasses.field(default_factory=dict)
    last: int = 0
    #: How often what is its own was written.
    writes: int = 0

    @property
    def default(self) -> int:
        (number,) = (number for number, version in self.versions.items() if "default" in version.aliases)
        return number


@dataclasses.dataclass
class Rules:
    """A registry, by the rules."""

    switches: dict[str, str]
    models: dict[str, Model] = dataclasses.field(default_factory=dict)
    born: int = 0

    def find(self, model: str, reference: str) -> tuple[Model, int]:
        """The version that a name means."""
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
        """What a read shows of a version."""
        version = model.versions[number]
        return {
            "name": name,
            "version_id": str(number),
            "display_name": model.display_name,
            "description": model.description,
            "labels": self.shown_labels(model, version),
            # A copy: what was read once is compared with what is read later.
            "version_aliases": list(version.aliases),
            "version_description": version.description,
            "artifact_uri": version.artifact,
        }

    def upload(self, model: str, *, new: bool, display_name: str, version: Version) -> None:
        home = self._home(model, new=new, display_name=display_name, labels={})
        side = self.switches["labels-at-upload"]
        if side == "model" or (side == "first-on-model" and home.last == 0):
            home.labels |= version.labels
            home.writes += 1
            version.labels = {}
        self._add(home, version)

    def _home(self, model: str, *, new: bool, display_name: str, labels: dict[str, str]) -> Model:
        if not new:
            if model not in self.models:
                raise RefusedError(NOT_FOUND)
            return self.models[model]
        if model in self.models:
            raise RefusedError(TAKEN)
        self.born += 1
        self.models[model] = Model(self.born, display_name, f"about {display_name}", labels)
        return self.models[model]

    def _add(self, home: Model, version: Version) -> None:
        home.last += 1
        wanted = list(dict.fromkeys(version.aliases))
        version.aliases = []
        home.versions[home.last] = version
        if home.last == 1 and "default" not in wanted:
            wanted.append("default")
        self._give(home, home.last, wanted)

    def _give(self, model: Model, number: int, aliases: Iterable[str]) -> None:
        for alias in aliases:
            if alias in model.versions[number].aliases:
                continue
            for version in model.versions.values():
                if alias in version.aliases:
                    version.aliases.remove(alias)
            model.versions[number].aliases.append(alias)

    def update(self, model: str, reference: str, fields: dict[str, Any]) -> None:
        of_version = reference not in ("", "-")
        wrong = {"display_name", "description"} if of_version else {"version_description"}
        if wrong & set(fields):
            raise RefusedError(PRECONDITION)
        home, number = self.find(model, reference if of_version else "")
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
        self._give(home, number, [change for change in changes if change in added])

    def delete_version(self, model: str, reference: str) -> None:
        if not reference:
            raise RefusedError(INVALID)
        home, number = self.find(model, reference)
        if len(home.versions) == 1:
            raise RefusedError(PRECONDITION)
        held_default = number == home.default
        if held_default and self.switches["default-delete"] == "refuse":
            raise RefusedError(PRECONDITION)
        del home.versions[number]
        if held_default:
            home.versions[max(home.versions)].aliases.append("default")

    def delete_model(self, model: str, reference: str) -> None:
        if reference:
            raise RefusedError(INVALID)
        if model not in self.models:
            raise RefusedError(NOT_FOUND)
        del self.models[model]

    def copy(self, model: str, reference: str, target: str, *, new: bool) -> None:
        home, number = self.find(model, reference)
        source = home.versions[number]
        # Each layer of labels stays the layer that it was; a model that is there keeps its own.
        into = self._home(target, new=new, display_name=home.display_name, labels=dict(home.labels))
        if new:
            into.description = home.description
        self._add(into, Version(dict(source.labels), [], source.description, source.artifact))


# --- the machine -------------------------------------------------------------

# Most of what is drawn is there; the rest comes up often enough.
_models: Final = st.sampled_from(["a", "a", "a", "b", "b", "c"])
_references: Final = st.sampled_from(["1", "2", "3", "default", "alpha", "beta", "", "4", "-"])
_aliases: Final = st.lists(st.sampled_from(["alpha", "beta", "default"]), max_size=3)
_changes: Final = st.lists(st.sampled_from(["alpha", "beta", "default", "-alpha", "-beta", "-default"]), max_size=2)
_labels: Final = st.dictionaries(
    st.sampled_from(["x", "x", "y", "z"]), st.sampled_from(["1", "1", "0", ""]), max_size=3
)
_names: Final = st.sampled_from(["churn", "Churn", "fraud"])
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
    """The canonical code; over REST it is in the body, since several codes share a status there."""
    if isinstance(error.response, requests.Response):
        return grpc.StatusCode[error.response.json()["error"]["status"]]
    return error.grpc_status_code


class Registry(RuleBasedStateMachine):
    """The emulator beside the rules."""

    @initialize(
        switches=st.fixed_dictionaries(
            {
                "labels-at-upload": st.sampled_from(["version", "model", "first-on-model"]),
                "label-wins": st.sampled_from(["version", "model"]),
                "label-filter": st.sampled_from(["merged", "own"]),
                "default-delete": st.sampled_from(["move", "refuse"]),
                "stale-etag": st.sampled_from(["aborted", "failed-precondition"]),
                "id-taken": st.sampled_from(["call", "operation"]),
                "list-lag": st.sampled_from(["0", "0", "2"]),
            }
        ),
        polls=st.sampled_from([0, 0, 1, 3]),
        transport=st.sampled_from(["grpc", "grpc", "rest"]),
        in_file=st.sampled_from([False, False, True]),
    )
    def begin(self, switches: dict[str, str], polls: int, transport: str, *, in_file: bool) -> None:
        self.folder = tempfile.TemporaryDirectory() if in_file else None
        data = None if self.folder is None else Path(self.folder.name, "registry.db")
        self.emulators = lambda: Emulator(data=data, assume=switches, polls_until_done=polls)
        self.transport = transport
        self.oracle = Rules(switches)
        self.lag = int(switches["list-lag"])
        self.start()
        #: The content that each etag was seen with, and the etags that each version was seen with.
        self.contents: dict[tuple[int, str], Any] = {}
        self.etags: dict[tuple[int, int], list[str]] = {}
        #: How often the model had been written when an etag was seen.
        self.written: dict[str, int] = {}
        self.clocks: dict[tuple[int, int], tuple[Any, Any]] = {}
        #: The models that were written since they were compared.
        self.touched: set[str] = set("abc")
        # A history begins with something to talk about.
        for labels, new in (({"x": "1"}, True), ({"x": "0", "y": "0"}, False), ({}, False)):
            self.upload("a", new=new, display_name="churn", labels=labels, aliases=[])

    def start(self) -> None:
        """An emulator, and Google's client of it."""
        self.emulator = self.emulators()  # type: ignore[no-untyped-call]
        transport: Any = ModelServiceGrpcTransport(channel=grpc.insecure_channel(str(self.emulator.grpc)))
        if self.transport == "rest":
            host = str(self.emulator.rest).removeprefix("http://")
            nobody: Any = AnonymousCredentials()  # type: ignore[no-untyped-call]
            transport = ModelServiceRestTransport(host=host, url_scheme="http", credentials=nobody)
        self.client = aiplatform_v1.ModelServiceClient(transport=transport)
        self.lists = 0
        #: What lists may show, each with the number of lists that had been answered when it came to be.
        self.snapshots: list[tuple[int, Rules]] = [(-self.lag, copy.deepcopy(self.oracle))]

    def stop(self) -> None:
        self.client.transport.close()  # type: ignore[no-untyped-call]
        self.emulator.close()

    def teardown(self) -> None:
        """See that no write touched a model that it was not about."""
        if not hasattr(self, "emulator"):
            return
        try:
            if hasattr(self, "touched"):
                self.touched = set("abc")
                self.what_was_written_reads_as_the_rules_say()
        finally:
            self.stop()
            if self.folder is not None:
                self.folder.cleanup()

    # --- one write, on both sides ---

    def both(self, model: str, expected: Callable[[], None], actual: Callable[[], Any]) -> Any:
        """Do a write on both sides, and let both refuse it for the same reason or neither."""
        self.touched.add(model)
        trial = copy.deepcopy(self.oracle)
        wanted = got = None
        answer = None
        try:
            expected()
        except RefusedError as error:
            wanted = error.code
            self.oracle = trial
        try:
            answer = actual()
        except GoogleAPICallError as error:
            got = code_of(error)
        assert got == wanted
        if wanted is None:
            self.snapshots.append((self.lists, copy.deepcopy(self.oracle)))
        return answer

    def ended(self, running: Any) -> Any:
        """The operation's response, after as many looks as it needs; its failure is raised."""
        operation = running.operation
        while not operation.done:
            operation = self.client.get_operation({"name": operation.name})
        assert self.client.get_operation({"name": operation.name}) == operation
        if operation.HasField("error"):
            (code,) = (code for code in grpc.StatusCode if code.value[0] == operation.error.code)
            raise from_grpc_status(code, operation.error.message)  # type: ignore[no-untyped-call]
        return operation.response

    def name(self, model: str, reference: str = "") -> str:
        return f"{PARENT}/models/{model}" + (f"@{reference}" if reference else "")

    # --- writes ---

    @rule(labels=_labels, aliases=_aliases)
    def upload_version(self, labels: dict[str, str], aliases: list[str]) -> None:
        self.upload("a", new="a" not in self.oracle.models, display_name="churn", labels=labels, aliases=aliases)

    @rule(model=_models, new=st.booleans(), display_name=_names, labels=_labels, aliases=_aliases)
    def upload(self, model: str, *, new: bool, display_name: str, labels: dict[str, str], aliases: list[str]) -> None:
        artifact = f"gs://models/{display_name}/{len(self.snapshots)}"
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
            },
            **({"model_id": model} if new else {"parent_model": self.name(model)}),
        }
        version = Version(dict(labels), list(aliases), artifact, artifact)
        self.both(
            model,
            lambda: self.oracle.upload(model, new=new, display_name=display_name, version=version),
            lambda: self.ended(self.client.upload_model(request)),
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

        def expected() -> None:
            if not changes:
                raise RefusedError(INVALID)
            after = copy.deepcopy(self.oracle)
            after.update(model, reference, changes)
            of_version = reference not in ("", "-")
            if etag == "stale" and sent and (of_version or self.written[sent] != self.oracle.models[model].writes):
                raise RefusedError(ABORTED if self.oracle.switches["stale-etag"] == "aborted" else PRECONDITION)
            self.oracle = after

        if etag != "none":
            try:
                home, number = self.oracle.find(model, reference.removeprefix("-"))
            except RefusedError:
                pass
            else:
                current = self.client.get_model(name=self.name(model, str(number))).etag
                old = [each for each in self.etags.get((home.born, number), []) if each != current]
                sent = current if etag == "current" else (old[-1] if old else "")
        self.both(
            model,
            expected,
            lambda: self.client.update_model(
                {
                    "model": {"name": self.name(model, reference), "etag": sent, **changes},
                    "update_mask": {"paths": list(changes)},
                }
            ),
        )

    @rule(model=_models, reference=_references, changes=_changes)
    def merge_aliases(self, model: str, reference: str, changes: list[str]) -> None:
        self.both(
            model,
            lambda: self.oracle.merge_aliases(model, reference, changes),
            lambda: self.client.merge_version_aliases(name=self.name(model, reference), version_aliases=changes),
        )

    @rule(model=_models, reference=_references)
    def delete_version(self, model: str, reference: str) -> None:
        self.both(
            model,
            lambda: self.oracle.delete_version(model, reference),
            lambda: self.ended(self.client.delete_model_version(name=self.name(model, reference))),
        )

    @rule(model=_models, reference=st.sampled_from(["1", "-", "2", ""]))
    def delete_model(self, model: str, reference: str) -> None:
        self.both(
            model,
            lambda: self.oracle.delete_model(model, reference),
            lambda: self.ended(self.client.delete_model(name=self.name(model, reference))),
        )

    @rule(model=_models, reference=_references, into=_models, new=st.booleans())
    def copy(self, model: str, reference: str, into: str, *, new: bool) -> None:
        place = {"model_id": into} if new else {"parent_model": self.name(into)}
        self.both(
            into,
            lambda: self.oracle.copy(model, reference, into, new=new),
            lambda: self.ended(
                self.client.copy_model({"parent": PARENT, "source_model": self.name(model, reference), **place})
            ),
        )

    @rule(model=_models, reference=_references, slices=st.integers(0, 2))
    def evaluate(self, model: str, reference: str, slices: int) -> None:
        found: list[Version] = []

        def expected() -> None:
            home, number = self.oracle.find(model, reference)
            found.append(home.versions[number])

        made = self.both(
            model,
            expected,
            lambda: self.client.import_model_evaluation(
                {"parent": self.name(model, reference), "model_evaluation": {"display_name": "test set"}}
            ),
        )
        if made is not None:
            found[0].evaluations[made.name.rpartition("/")[2]] = []
            if slices:
                answer = self.client.batch_import_model_evaluation_slices(
                    {"parent": made.name, "model_evaluation_slices": [{"slice_": {"dimension": "slice"}}] * slices}
                )
                found[0].evaluations[made.name.rpartition("/")[2]] = [
                    name.rpartition("/")[2] for name in answer.imported_model_evaluation_slices
                ]

    @precondition(lambda self: self.folder is not None)
    @rule()
    def restart(self) -> None:
        """The file holds everything; lists begin with what is there."""
        self.stop()
        self.start()
        self.touched = set("abc")

    # --- reads ---

    def compare(self, model: Any, expected: dict[str, Any], home: Model) -> None:
        """Hold a model that was read against the rules."""
        shown = aiplatform_v1.Model.to_dict(model)
        assert {field: shown[field] for field in expected} == expected
        number = int(model.version_id)
        assert model.create_time <= model.version_create_time
        assert model.create_time <= model.update_time
        assert model.version_create_time <= model.version_update_time
        born = (model.create_time, model.version_create_time)
        assert self.clocks.setdefault((home.born, number), born) == born
        # One etag is one state of things, whatever name it was read by.
        content = {**expected, "name": None, "times": (model.update_time, model.version_update_time)}
        del content["times"]
        assert self.contents.setdefault((home.born, model.etag), content) == content
        seen = self.etags.setdefault((home.born, number), [])
        if model.etag not in seen:
            seen.append(model.etag)
            self.written[model.etag] = home.writes

    @invariant()
    def what_was_written_reads_as_the_rules_say(self) -> None:
        """Each version by number, by alias and by the bare name; what is not there is not found."""
        for model in sorted(self.touched):
            home = self.oracle.models.get(model)
            for reference in ("", "1", "2", "3", "4", "5", "alpha", "beta", "default"):
                try:
                    _, number = self.oracle.find(model, reference)
                except RefusedError as error:
                    with pytest.raises(GoogleAPICallError) as caught:
                        self.client.get_model(name=self.name(model, reference))
                    assert code_of(caught.value) == error.code
                    continue
                assert home is not None
                name = self.name(model, str(number) if reference else "")
                self.compare(
                    self.client.get_model(name=self.name(model, reference)), self.oracle.shown(name, home, number), home
                )
        self.touched.clear()

    def listing(self) -> Rules:
        """What the list that comes next may show."""
        self.lists += 1
        return [rules for at, rules in self.snapshots if at + self.lag < self.lists or not self.lag][-1]

    def pages(
        self, method: Callable[..., Any], request: dict[str, Any], size: int
    ) -> Iterator[tuple[Rules, list[Any]]]:
        """Each page of a list, with what it may show."""
        token = ""
        for _ in range(50):
            rules = self.listing()
            page = next(method({**request, "page_size": size, "page_token": token}).pages)
            yield rules, list(page.models)
            token = page.next_page_token
            if not token:
                return
        pytest.fail("the list has no end")

    @rule(
        text=st.sampled_from(["", *FILTERS]),
        order=st.sampled_from(["", "create_time", "display_name", "displayName desc, create_time", "update_time desc"]),
        size=st.integers(1, 4),
    )
    def list_models(self, text: str, order: str, size: int) -> None:
        """Every model that matches, once, as its default version, in the order asked for."""
        request = {"parent": PARENT, "filter": text, "order_by": order}
        pages = list(self.pages(self.client.list_models, request, size))
        rules = pages[0][0]
        if any(other.models != rules.models for other, _ in pages):
            return  # the list caught up while it was read
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
        ages = [expected[model.name.rpartition("/")[2]].born for model in listed]
        if order in ("", "create_time"):
            assert ages == sorted(ages, reverse=not order)

    @rule(
        model=st.sampled_from(["a", "a", "b"]),
        text=st.sampled_from(["", *(text for text in FILTERS if "model" not in text and "isplay" not in text)]),
        order=st.sampled_from(["", "create_time desc", "updateTime, create_time"]),
        size=st.integers(1, 4),
    )
    def list_versions(self, model: str, text: str, order: str, size: int) -> None:
        """Every version that matches, once, in the order asked for."""
        request = {"name": self.name(model), "filter": text, "order_by": order}
        if model not in self.oracle.models:
            self.listing()
            with pytest.raises(GoogleAPICallError) as caught:
                self.client.list_model_versions(request)
            assert code_of(caught.value) == NOT_FOUND
            return
        pages = list(self.pages(self.client.list_model_versions, request, size))
        rules = pages[0][0]
        if any(other.models != rules.models for other, _ in pages):
            return  # the list caught up while it was read
        home = rules.models.get(model)
        if home is None or home.born != self.oracle.models[model].born:
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
        """The evaluations of a version, and the slices of each."""
        try:
            home, number = self.oracle.find(model, reference)
        except RefusedError as error:
            with pytest.raises(GoogleAPICallError) as caught:
                self.client.list_model_evaluations(parent=self.name(model, reference))
            assert code_of(caught.value) == error.code
            return
        expected = home.versions[number].evaluations
        found = list(self.client.list_model_evaluations(parent=self.name(model, reference)))
        assert sorted(each.name.rpartition("/")[2] for each in found) == sorted(expected)
        for each in found:
            slices = self.client.list_model_evaluation_slices(parent=each.name)
            assert sorted(one.name.rpartition("/")[2] for one in slices) == sorted(
                expected[each.name.rpartition("/")[2]]
            )


TestRegistry = Registry.TestCase
TestRegistry.settings = settings(max_examples=10, stateful_step_count=50, deadline=None, report_multiple_bugs=False)
