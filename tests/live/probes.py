"""Questions that only Vertex AI can answer, because its documentation is silent or contradicts itself.

`PROBES` is the table. Each probe makes what it needs, sends what no client would, and reads one short answer, in which
no id and no name is, so that two servers give the same answer or do not. What the emulator answers stands beside it:
the tests hold it to that, and a live run tells where the service says something else.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import attrs
import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.live.service import Service

_IMAGE: Final = "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest"
_OWN_IMAGE: Final = "us-docker.pkg.dev/cloudrun/container/hello:latest"  # everybody may read it

#: How often a list is asked for before it is read, where it is not the lag of lists that is in question.
_READS: Final = 8

#: The seconds to wait, again and again, where the quota is used up; and how often an operation is looked at.
_PAUSES: Final = (5, 15, 40, 0)
_POLLS: Final = 600


@attrs.frozen
class Answer:
    """A response: the HTTP status and the JSON."""

    status: int
    content: Any

    @property
    def ok(self) -> bool:
        """Whether it wasn't an error."""
        return self.status == 200

    @property
    def verdict(self) -> str:
        """Return the status in words."""
        if self.ok:
            return "taken"
        return f"{self.status} {self.content.get('error', {}).get('status', '')}".strip()

    def __getitem__(self, field: str) -> Any:
        return self.content[field]


@attrs.frozen
class Bench:
    """The requests that probes can send."""

    service: Service
    _session: requests.Session
    _numbers: Any = attrs.field(factory=lambda: itertools.count(1))
    _sentences: list[str] = attrs.field(factory=list)

    @classmethod
    @contextlib.contextmanager
    def at(cls, service: Service) -> Iterator[Bench]:
        """Open a bench for a service."""
        with service.session() as session:
            yield cls(service, session)

    def call(self, method: str, path: str, body: Any = None, *, location: str | None = None, **query: str) -> Answer:
        """Send a request to a path, which begins with a resource's name."""
        url = f"{self.service.address(location)}/v1/{path}"
        for pause in _PAUSES:
            self.service.wait_turn(method, url)
            response = self._session.request(
                method,
                url,
                params=query,
                data=None if body is None else json.dumps(body),
                headers={"Content-Type": "application/json"},
                timeout=60,
            )
            if response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                break
            time.sleep(pause)
        content: Any = {}
        with contextlib.suppress(ValueError):  # Google's front end refuses some paths with a page for people
            content = response.json()
        answer = Answer(response.status_code, content)
        if not answer.ok:
            self._sentences.append(str(answer.content.get("error", {}).get("message")))
        return answer

    def put(self, probe: Probe) -> Reply:
        """Ask a question, and return the answer with the sentences of all errors on the way. Never raise."""
        self._sentences.clear()
        try:
            said = probe.ask(self)
        except (AssertionError, LookupError, TypeError, ValueError, requests.RequestException) as error:
            said = f"the question could not be put: {type(error).__name__}"
        words = tuple(dict.fromkeys(_redact(sentence, self.service) for sentence in self._sentences))
        return Reply(probe, said, words)

    def fresh(self) -> str:
        """Return a new display name, which is also a valid model ID."""
        return f"{self.service.namespace}-probe-{next(self._numbers)}"

    def upload(self, name: str, *, image: str = _IMAGE, source: str | None = None, **given: Any) -> Answer:
        """Upload a version, and return the response. Fields are the request's or its model's."""
        request = {key: given.pop(key) for key in ("modelId", "parentModel") if key in given}
        artifact = self.service.put_artifact(f"{name}/{next(self._numbers)}") if source is None else source
        container = {"containerSpec": {"imageUri": image}} if image else {}
        model = {"displayName": name, "artifactUri": artifact, **container, **given}
        return self.call("POST", f"{self.service.parent}/models:upload", {"model": model, **request})

    def finished(self, answer: Answer) -> Answer:
        """Poll an operation until it's done. A call that failed is returned as it is."""
        for _ in range(_POLLS):
            if not answer.ok or answer.content.get("done"):
                break
            if not self.service.endpoint:
                time.sleep(1)
            answer = self.call("GET", answer["name"])
        return answer

    def model(self, versions: int = 1, **given: Any) -> str:
        """Create a model with so many versions, and return its name. Only the first has an alias."""
        name = self.fresh()
        model = self.made(self.upload(name, **given))
        for _ in range(versions - 1):
            self.made(self.upload(name, parentModel=model))
        return model

    def made(self, answer: Answer) -> str:
        """Return the name of the model that an upload created."""
        finished = self.finished(answer)
        assert "response" in finished.content, finished
        return f"{self.service.parent}/models/{finished['response']['model'].rpartition('/')[2].partition('@')[0]}"

    def get(self, name: str) -> Answer:
        """Read a model or a version."""
        return self.call("GET", name)

    def patch(self, name: str, **fields: Any) -> Answer:
        """Update a model or a version."""
        etag = {"etag": fields.pop("etag")} if "etag" in fields else {}
        return self.call("PATCH", name, fields | etag, updateMask=",".join(fields))

    def changed(self, name: str, **fields: Any) -> None:
        """Update a model or a version, which has to succeed."""
        answer = self.patch(name, **fields)
        assert answer.ok, answer

    def list_all(self, path: str, **query: str) -> list[Any]:
        """All entries of a list that has had the time to show what was written."""
        for _ in range(_READS if self.service.endpoint else 1):
            self.call("GET", path, **query)
        found: list[Any] = []
        token = ""
        while True:
            page = self.call("GET", path, **query, **({"pageToken": token} if token else {}))
            found += page.content.get("models", [])
            token = page.content.get("nextPageToken", "")
            if not token:
                return found


@attrs.frozen
class Probe:
    """A question.

    Attributes:
        letter: Where it stands in the list of what is not known.
        question: The question.
        sends: What is sent.
        ask: What sends it and reads the answer.
        emulator: The answers of the emulator.
        switch: The switch of the emulator that turns its answer.
    """

    letter: str
    question: str
    sends: str
    ask: Callable[[Bench], str]
    emulator: tuple[str, ...]
    switch: str = ""


@attrs.frozen
class Reply:
    """A service's answer to a question.

    Attributes:
        probe: The question.
        said: The answer.
        sentences: What the errors said on the way.
    """

    probe: Probe
    said: str
    sentences: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the emulator's answer is different."""
        return self.said not in self.probe.emulator


def _redact(sentence: str, service: Service) -> str:
    """Return a sentence without the names of this run."""
    sentence = re.sub(r"/models/[A-Za-z0-9_-]+", "/models/ID", " ".join(sentence.split()))
    return service.redact(sentence)[:300]


def _taken_id(bench: Bench) -> str:
    name = bench.fresh()
    bench.made(bench.upload(name, modelId=name))
    again = bench.upload(name, modelId=name)
    if not again.ok:
        return f"the call fails: {again.verdict}"
    return f"the operation fails: code {bench.finished(again).content.get('error', {}).get('code')}"


def _without_default(bench: Bench) -> str:
    return bench.call("POST", f"{bench.model()}@1:mergeVersionAliases", {"versionAliases": ["-default"]}).verdict


def _delete_default(bench: Bench) -> str:
    model = bench.model(2)
    deleted = bench.finished(bench.call("DELETE", f"{model}@1:deleteVersion"))
    if not deleted.ok or "error" in deleted.content:
        return deleted.verdict if not deleted.ok else "the operation fails"
    return f"deleted, and version {bench.get(model)['versionId']} is the default one"


def _delete_last(bench: Bench) -> str:
    deleted = bench.finished(bench.call("DELETE", f"{bench.model()}@1:deleteVersion"))
    return "the operation fails" if deleted.ok and "error" in deleted.content else deleted.verdict


def _stale_etag(bench: Bench) -> str:
    version = f"{bench.model()}@1"
    seen = bench.get(version)["etag"]
    bench.changed(version, versionDescription="in between")
    return bench.patch(version, versionDescription="too late", etag=seen).verdict


def _form(answer: Answer) -> str:
    return re.sub(r".*/models/[^@]+", "models/ID", str(answer.content.get("name", answer.verdict)))


def _merge_name(bench: Bench) -> str:
    return _form(bench.call("POST", f"{bench.model()}@1:mergeVersionAliases", {"versionAliases": ["probe"]}))


def _update_names(bench: Bench) -> str:
    model = bench.model()
    version = bench.patch(f"{model}@1", versionDescription="x")
    return f"{_form(version)} for a version, {_form(bench.patch(model, description='x'))} for a model"


def _alias_name(bench: Bench) -> str:
    return _form(bench.get(f"{bench.model()}@default"))


def _label_layer(bench: Bench) -> str:
    name = bench.fresh()
    model = bench.made(bench.upload(name, labels={"first": "x"}))
    bench.made(bench.upload(name, parentModel=model, labels={"later": "x"}))
    on = {
        "first": "model" if "first" in bench.get(f"{model}@2").content.get("labels", {}) else "version",
        "later": "model" if "later" in bench.get(f"{model}@1").content.get("labels", {}) else "version",
    }
    return f"the first upload's go to the {on['first']}, a later one's to the {on['later']}"


def _label_wins(bench: Bench) -> str:
    model = bench.model()
    bench.changed(model, labels={"probe": "model"})
    bench.changed(f"{model}@1", labels={"probe": "version"})
    return f"the {bench.get(f'{model}@1')['labels']['probe']}'s"


def _label_filter(bench: Bench) -> str:
    model = bench.model()
    bench.changed(model, labels={"probe": "x"})
    found = bench.list_all(f"{model}:listVersions", filter="labels.probe=x")
    return "the model's labels too" if found else "the version's own labels only"


def _list_lag(bench: Bench) -> str:
    name = bench.fresh()
    bench.made(bench.upload(name))
    shown = bench.call("GET", f"{bench.service.parent}/models", filter=f'display_name="{name}"')
    return "at once" if shown.content.get("models") else "later"


def _other_names(bench: Bench) -> str:
    name = bench.fresh()
    model = bench.made(bench.upload(name, description="first"))
    bench.made(bench.upload(f"{name}-other", parentModel=model, description="second"))
    seen = bench.get(model)
    kept = {
        "display name": seen["displayName"] == name,
        "description": seen.content.get("description") == "first",
    }
    return ", ".join(f"the {what} {'stays' if stays else 'changes'}" for what, stays in kept.items())


def _page_size(bench: Bench) -> str:
    page = bench.call("GET", f"{bench.service.parent}/models")
    return f"{len(page['models'])}" if page.content.get("nextPageToken") else "no fewer than there are"


def _page_sizes(bench: Bench) -> str:
    large, negative = (bench.call("GET", f"{bench.service.parent}/models", pageSize=size) for size in ("5000", "-1"))
    return f"5000 is {large.verdict}, -1 is {negative.verdict}"


def _model_order(bench: Bench) -> str:
    models = [bench.model().rpartition("/")[2] for _ in range(2)]
    shown = [model["name"].rpartition("/")[2] for model in bench.list_all(f"{bench.service.parent}/models")]
    ours = [model for model in shown if model in models]
    return {tuple(models): "oldest first", tuple(reversed(models)): "newest first"}.get(tuple(ours), "neither")


def _version_order(bench: Bench) -> str:
    shown = [version["versionId"] for version in bench.list_all(f"{bench.model(3)}:listVersions")]
    return {"123": "oldest first", "321": "newest first"}.get("".join(shown), ", ".join(shown))


def _supported(bench: Bench) -> str:
    seen = bench.get(f"{bench.model()}@1").content
    parts = {
        "resources": seen.get("supportedDeploymentResourcesTypes", []),
        "input": seen.get("supportedInputStorageFormats", []),
        "output": seen.get("supportedOutputStorageFormats", []),
        "export": [export["id"] for export in seen.get("supportedExportFormats", [])],
    }
    return "; ".join(f"{what}: {', '.join(sorted(values)) or 'none'}" for what, values in parts.items())


def _both(bench: Bench) -> str:
    return bench.upload(bench.fresh(), parentModel=bench.model(), modelId=bench.fresh()).verdict


def _no_container(bench: Bench) -> str:
    return bench.upload(bench.fresh(), image="").verdict


def _permissions(bench: Bench) -> str:
    model = f"projects/vertex-registry-nobodys/locations/{bench.service.location}/models/none"
    asked = {
        "listVersions": bench.call("GET", f"{model}:listVersions"),
        "mergeVersionAliases": bench.call("POST", f"{model}@1:mergeVersionAliases", {"versionAliases": ["probe"]}),
        "deleteVersion": bench.call("DELETE", f"{model}@1:deleteVersion"),
    }
    needed = {}
    for method, answer in asked.items():
        named = re.search(r"aiplatform\.[A-Za-z.]+", str(answer.content.get("error", {}).get("message")))
        needed[method] = named[0] if named and answer.status == 403 else ""
    if not any(needed.values()):
        return "none: nobody is asked who they are" if asked["listVersions"].status == 404 else "it does not say"
    return ", ".join(f"{method}: {permission or 'it does not say'}" for method, permission in needed.items())


def _reuse(bench: Bench) -> str:
    model = bench.model(2)
    bench.finished(bench.call("DELETE", f"{model}@2:deleteVersion"))
    bench.made(bench.upload(bench.fresh(), parentModel=model))
    return "no" if bench.get(f"{model}@3").ok else "yes"


def _bare_merge(bench: Bench) -> str:
    return bench.call("POST", f"{bench.model()}:mergeVersionAliases", {"versionAliases": ["probe"]}).verdict


def _deletions(bench: Bench) -> str:
    model = bench.model(2)
    told = []
    for what, path in (("version", f"{model}@2:deleteVersion"), ("model", model)):
        begun = bench.call("DELETE", path)
        where = "the model" if "/models/" in begun["name"] else "the location"
        told.append(f"of a {what} under {where}, {'done' if begun.content.get('done') else 'not done'} at first")
        bench.finished(begun)
    return "; ".join(told)


def _global(bench: Bench) -> str:
    return bench.call("GET", f"projects/{bench.service.project}/locations/global/models", location="global").verdict


def _long_description(bench: Bench) -> str:
    version = f"{bench.model()}@1"
    fitting = [
        length for length in (1_000, 10_000, 100_000) if bench.patch(version, versionDescription="x" * length).ok
    ]
    return f"{max(fitting)} characters or more" if fitting else "fewer than 1000 characters"


def _empty_directory(bench: Bench) -> str:
    nothing = f"gs://{bench.service.bucket}/{bench.service.namespace}/nothing-here"
    finished = bench.finished(bench.upload(bench.fresh(), image=_OWN_IMAGE, source=nothing))
    return "the operation fails" if finished.ok and "error" in finished.content else finished.verdict


def _unquoted(bench: Bench) -> str:
    name = f"{bench.fresh()} with blanks"
    bench.made(bench.upload(name))
    for _ in range(_READS if bench.service.endpoint else 1):
        answer = bench.call("GET", f"{bench.service.parent}/models", filter=f"display_name={name}")
    found = [model["displayName"] == name for model in answer.content.get("models", [])]
    return answer.verdict if not answer.ok else "the model is found" if found == [True] else "other models are found"


def _unquoted_label(bench: Bench) -> str:
    model = bench.model(labels={"probe": "x"})
    answer = bench.call("GET", f"{model}:listVersions", filter="labels.probe=x y")
    return answer.verdict if not answer.ok else f"taken, and {len(answer.content.get('models', []))} versions are found"


PROBES: Final = (
    Probe(
        "a",
        "What becomes of an upload whose model id is taken?",
        "UploadModel with one modelId, twice",
        _taken_id,
        ("the call fails: 409 ALREADY_EXISTS",),
        "id-taken",
    ),
    Probe(
        "a",
        "What becomes of taking the alias `default` away?",
        "MergeVersionAliases of `-default`",
        _without_default,
        ("400 FAILED_PRECONDITION",),
    ),
    Probe(
        "a",
        "What becomes of deleting the default version?",
        "DeleteModelVersion of the version that has `default`, where there is another",
        _delete_default,
        ("400 FAILED_PRECONDITION",),
        "default-delete",
    ),
    Probe(
        "a",
        "What becomes of deleting the last version?",
        "DeleteModelVersion of the only version",
        _delete_last,
        ("400 FAILED_PRECONDITION",),
    ),
    Probe(
        "a",
        "How is a stale etag refused?",
        "UpdateModel with the etag of before another update",
        _stale_etag,
        ("409 ABORTED",),
        "stale-etag",
    ),
    Probe(
        "b",
        "Which name has the answer of MergeVersionAliases?",
        "MergeVersionAliases at models/ID@1",
        _merge_name,
        ("models/ID@1",),
    ),
    Probe(
        "b",
        "Which names have the answers of UpdateModel?",
        "UpdateModel at models/ID@1 and at models/ID",
        _update_names,
        ("models/ID@1 for a version, models/ID for a model",),
    ),
    Probe(
        "b",
        "Which name has a version that was read by an alias?",
        "GetModel of models/ID@default",
        _alias_name,
        ("models/ID@1",),
    ),
    Probe(
        "c",
        "Whose layer do the labels of an upload go to?",
        "two uploads with a label each; then each version is read for the other's",
        _label_layer,
        ("the first upload's go to the version, a later one's to the version",),
        "labels-at-upload",
    ),
    Probe(
        "c",
        "Whose label is shown where model and version have one of the same key?",
        "UpdateModel of the labels at both; GetModel of the version",
        _label_wins,
        ("the version's",),
        "label-wins",
    ),
    Probe(
        "c",
        "Which labels does a filter of ListModelVersions see?",
        "a label on the model, and ListModelVersions with a filter for it",
        _label_filter,
        ("the model's labels too",),
        "label-filter",
    ),
    Probe(
        "c",
        "When does a list show what was written?",
        "UploadModel, and ListModels with a filter for its name as soon as it is done",
        _list_lag,
        ("at once",),
        "list-lag",
    ),
    Probe(
        "d",
        "What do the display name and the description of a further version's upload do?",
        "UploadModel under a parent with others than the model's, then GetModel",
        _other_names,
        ("the display name stays, the description stays",),
    ),
    Probe(
        "e",
        "How many entries are on a page where no size is asked for?",
        "ListModels without pageSize",
        _page_size,
        ("no fewer than there are", "100"),
    ),
    Probe(
        "e",
        "What becomes of a page size that is too large, or negative?",
        "ListModels with a pageSize of 5000 and of -1",
        _page_sizes,
        ("5000 is taken, -1 is 400 INVALID_ARGUMENT",),
    ),
    Probe(
        "e",
        "In which order do models come where none is asked for?",
        "two uploads, then ListModels",
        _model_order,
        ("newest first",),
    ),
    Probe(
        "e",
        "In which order do versions come where none is asked for?",
        "three uploads, then ListModelVersions",
        _version_order,
        ("oldest first",),
    ),
    Probe(
        "f",
        "What is said to be supported by a model with a prebuilt container?",
        "GetModel, its fields supported_*",
        _supported,
        (
            (
                "resources: DEDICATED_RESOURCES, SHARED_RESOURCES; "
                "input: bigquery, csv, file-list, jsonl, tf-record, tf-record-gzip; output: bigquery, jsonl; "
                "export: custom-trained"
            ),
        ),
    ),
    Probe(
        "g",
        "What becomes of an upload with both a parent and a model id?",
        "UploadModel with parentModel and modelId",
        _both,
        ("400 INVALID_ARGUMENT",),
    ),
    Probe(
        "h",
        "What becomes of an upload without a container?",
        "UploadModel without containerSpec",
        _no_container,
        ("400 INVALID_ARGUMENT",),
    ),
    Probe(
        "i",
        "Which permissions do the methods of a version need?",
        "listVersions, mergeVersionAliases and deleteVersion in a project that is nobody's; the refusal names them",
        _permissions,
        ("none: nobody is asked who they are",),
    ),
    Probe(
        "j",
        "Is the number of a version that was deleted given again?",
        "DeleteModelVersion of the newest version, then UploadModel",
        _reuse,
        ("no",),
    ),
    Probe(
        "k",
        "What becomes of MergeVersionAliases without a version?",
        "MergeVersionAliases at models/ID",
        _bare_merge,
        ("400 INVALID_ARGUMENT",),
    ),
    Probe(
        "l",
        "Where are the operations of deletions, and are they done at first?",
        "DeleteModelVersion and DeleteModel",
        _deletions,
        ("of a version under the model, done at first; of a model under the model, done at first",),
    ),
    Probe(
        "m",
        "Are there models in the location `global`?",
        "ListModels in locations/global",
        _global,
        ("taken",),
    ),
    Probe(
        "n",
        "How long may the description of a version be?",
        "UpdateModel with descriptions of 1000, 10000 and 100000 characters",
        _long_description,
        ("100000 characters or more",),
    ),
    Probe(
        "o",
        "What becomes of an upload with a container of one's own and a directory with nothing in it?",
        "UploadModel with another image than Vertex's, and a directory that is not there",
        _empty_directory,
        ("taken",),
    ),
    Probe(
        "p",
        "Is a display name with blanks found by a filter that doesn't quote it?",
        "ListModels with the filter display_name=NAME with blanks",
        _unquoted,
        ("400 INVALID_ARGUMENT",),
    ),
    Probe(
        "p",
        "What does a filter do with an unquoted label value that has a blank in it?",
        "ListModelVersions with the filter labels.probe=x y",
        _unquoted_label,
        ("400 INVALID_ARGUMENT",),
    ),
)
