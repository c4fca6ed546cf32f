"""Questions that only Vertex AI can answer, because its documentation is silent or contradicts itself.

`PROBES` is the table. Each probe creates what it needs, sends its requests, and reduces the responses to one short
answer without IDs and names, so you can compare two servers. The table also has the emulator's answer: the tests check
it, and a live run reports where the service answers differently.
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
_CUSTOM_IMAGE: Final = "us-docker.pkg.dev/cloudrun/container/hello:latest"  # a public image

#: How often an emulator's list is requested before it counts, so a lag of lists doesn't affect other probes.
_READS: Final = 8

#: The seconds before each further attempt while the quota is used up.
_PAUSES: Final = (5, 15, 40, 0)

#: How often an operation is polled at most.
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
            return "accepted"
        return f"{self.status} {self.content.get('error', {}).get('status', '')}".strip()

    def __getitem__(self, field: str) -> Any:
        return self.content[field]


@attrs.frozen
class ProbeClient:
    """The requests that probes can send."""

    service: Service
    _session: requests.Session
    _numbers: Any = attrs.field(factory=lambda: itertools.count(1))
    _messages: list[str] = attrs.field(factory=list)

    @classmethod
    @contextlib.contextmanager
    def connect(cls, service: Service) -> Iterator[ProbeClient]:
        """Create a client for a service."""
        with service.session() as session:
            yield cls(service, session)

    def call(self, method: str, path: str, body: Any = None, *, location: str | None = None, **query: str) -> Answer:
        """Send a request to a path, which starts with a resource's name."""
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
        with contextlib.suppress(ValueError):  # Google's front end rejects some paths with an HTML page
            content = response.json()
        answer = Answer(response.status_code, content)
        if not answer.ok:
            self._messages.append(str(answer.content.get("error", {}).get("message")))
        return answer

    def ask(self, probe: Probe) -> Reply:
        """Ask a question, and return the answer with the messages of all errors on the way. Never raise."""
        self._messages.clear()
        try:
            answer = probe.ask(self)
        except (AssertionError, LookupError, TypeError, ValueError, requests.RequestException) as error:
            answer = f"the question couldn't be asked: {type(error).__name__}"
        messages = tuple(dict.fromkeys(_redact(message, self.service) for message in self._messages))
        return Reply(probe, answer, messages)

    def new_name(self) -> str:
        """Return a new display name, which is also a valid model ID."""
        return f"{self.service.namespace}-probe-{next(self._numbers)}"

    def upload(self, name: str, *, image: str = _IMAGE, source: str | None = None, **fields: Any) -> Answer:
        """Upload a version, and return the response. The fields are the request's or its model's."""
        request = {key: fields.pop(key) for key in ("modelId", "parentModel") if key in fields}
        artifact = self.service.put_artifact(f"{name}/{next(self._numbers)}") if source is None else source
        container = {"containerSpec": {"imageUri": image}} if image else {}
        model = {"displayName": name, "artifactUri": artifact, **container, **fields}
        return self.call("POST", f"{self.service.parent}/models:upload", {"model": model, **request})

    def wait_until_done(self, answer: Answer) -> Answer:
        """Poll an operation until it's done, and return it. Return a failed call unchanged."""
        for _ in range(_POLLS):
            if not answer.ok or answer.content.get("done"):
                break
            if not self.service.endpoint:
                time.sleep(1)
            answer = self.call("GET", answer["name"])
        return answer

    def create_model(self, versions: int = 1, **fields: Any) -> str:
        """Create a model with this many versions, and return its name. Only the first version has an alias."""
        name = self.new_name()
        model = self.uploaded_model(self.upload(name, **fields))
        for _ in range(versions - 1):
            self.uploaded_model(self.upload(name, parentModel=model))
        return model

    def uploaded_model(self, answer: Answer) -> str:
        """Return the name of the model that an upload created."""
        done = self.wait_until_done(answer)
        assert "response" in done.content, done
        return f"{self.service.parent}/models/{done['response']['model'].rpartition('/')[2].partition('@')[0]}"

    def get(self, name: str) -> Answer:
        """Read a model or a version."""
        return self.call("GET", name)

    def patch(self, name: str, **fields: Any) -> Answer:
        """Update a model or a version."""
        etag = {"etag": fields.pop("etag")} if "etag" in fields else {}
        return self.call("PATCH", name, fields | etag, updateMask=",".join(fields))

    def must_patch(self, name: str, **fields: Any) -> None:
        """Update a model or a version, and raise if that fails."""
        answer = self.patch(name, **fields)
        assert answer.ok, answer

    def list_all(self, path: str, **query: str) -> list[Any]:
        """Return all entries of a list, after it has had time to show what was written."""
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
    """A question to a service.

    Attributes:
        letter: The letter of the subject in the list of unknown behavior.
        question: The question.
        sends: A description of the requests.
        ask: A function that sends the requests and returns the answer.
        emulator: The answers that the emulator may give.
        switch: The emulator's switch that changes its answer, if there is one.
    """

    letter: str
    question: str
    sends: str
    ask: Callable[[ProbeClient], str]
    emulator: tuple[str, ...]
    switch: str = ""


@attrs.frozen
class Reply:
    """A service's answer to a question.

    Attributes:
        probe: The question.
        answer: The answer.
        messages: The messages of the errors on the way.
    """

    probe: Probe
    answer: str
    messages: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the emulator's answer is different."""
        return self.answer not in self.probe.emulator


def _redact(message: str, service: Service) -> str:
    """Return a message without the names of this run."""
    message = re.sub(r"/models/[A-Za-z0-9_-]+", "/models/ID", " ".join(message.split()))
    return service.redact(message)[:300]


def _duplicate_id(client: ProbeClient) -> str:
    name = client.new_name()
    client.uploaded_model(client.upload(name, modelId=name))
    again = client.upload(name, modelId=name)
    if not again.ok:
        return f"the call fails: {again.verdict}"
    return f"the operation fails: code {client.wait_until_done(again).content.get('error', {}).get('code')}"


def _remove_default(client: ProbeClient) -> str:
    return client.call(
        "POST", f"{client.create_model()}@1:mergeVersionAliases", {"versionAliases": ["-default"]}
    ).verdict


def _delete_default(client: ProbeClient) -> str:
    model = client.create_model(2)
    deleted = client.wait_until_done(client.call("DELETE", f"{model}@1:deleteVersion"))
    if not deleted.ok or "error" in deleted.content:
        return deleted.verdict if not deleted.ok else "the operation fails"
    return f"deleted, and version {client.get(model)['versionId']} is now the default"


def _delete_last(client: ProbeClient) -> str:
    deleted = client.wait_until_done(client.call("DELETE", f"{client.create_model()}@1:deleteVersion"))
    return "the operation fails" if deleted.ok and "error" in deleted.content else deleted.verdict


def _stale_etag(client: ProbeClient) -> str:
    version = f"{client.create_model()}@1"
    seen = client.get(version)["etag"]
    client.must_patch(version, versionDescription="in between")
    return client.patch(version, versionDescription="too late", etag=seen).verdict


def _form(answer: Answer) -> str:
    return re.sub(r".*/models/[^@]+", "models/ID", str(answer.content.get("name", answer.verdict)))


def _merge_name(client: ProbeClient) -> str:
    return _form(client.call("POST", f"{client.create_model()}@1:mergeVersionAliases", {"versionAliases": ["probe"]}))


def _update_names(client: ProbeClient) -> str:
    model = client.create_model()
    version = client.patch(f"{model}@1", versionDescription="x")
    return f"{_form(version)} for a version, {_form(client.patch(model, description='x'))} for a model"


def _alias_name(client: ProbeClient) -> str:
    return _form(client.get(f"{client.create_model()}@default"))


def _label_layer(client: ProbeClient) -> str:
    name = client.new_name()
    model = client.uploaded_model(client.upload(name, labels={"first": "x"}))
    client.uploaded_model(client.upload(name, parentModel=model, labels={"later": "x"}))
    on = {
        "first": "model" if "first" in client.get(f"{model}@2").content.get("labels", {}) else "version",
        "later": "model" if "later" in client.get(f"{model}@1").content.get("labels", {}) else "version",
    }
    return f"the first upload's labels go to the {on['first']}, a later upload's to the {on['later']}"


def _label_wins(client: ProbeClient) -> str:
    model = client.create_model()
    client.must_patch(model, labels={"probe": "model"})
    client.must_patch(f"{model}@1", labels={"probe": "version"})
    return f"the {client.get(f'{model}@1')['labels']['probe']}'s"


def _label_filter(client: ProbeClient) -> str:
    model = client.create_model()
    client.must_patch(model, labels={"probe": "x"})
    found = client.list_all(f"{model}:listVersions", filter="labels.probe=x")
    return "the model's labels too" if found else "the version's own labels only"


def _list_lag(client: ProbeClient) -> str:
    name = client.new_name()
    client.uploaded_model(client.upload(name))
    shown = client.call("GET", f"{client.service.parent}/models", filter=f'display_name="{name}"')
    return "immediately" if shown.content.get("models") else "later"


def _other_names(client: ProbeClient) -> str:
    name = client.new_name()
    model = client.uploaded_model(client.upload(name, description="first"))
    client.uploaded_model(client.upload(f"{name}-other", parentModel=model, description="second"))
    seen = client.get(model)
    kept = {
        "display name": seen["displayName"] == name,
        "description": seen.content.get("description") == "first",
    }
    return ", ".join(f"the {what} {'stays' if stays else 'changes'}" for what, stays in kept.items())


def _page_size(client: ProbeClient) -> str:
    page = client.call("GET", f"{client.service.parent}/models")
    return f"{len(page['models'])}" if page.content.get("nextPageToken") else "all that exist"


def _page_sizes(client: ProbeClient) -> str:
    large, negative = (client.call("GET", f"{client.service.parent}/models", pageSize=size) for size in ("5000", "-1"))
    return f"5000 is {large.verdict}, -1 is {negative.verdict}"


def _model_order(client: ProbeClient) -> str:
    models = [client.create_model().rpartition("/")[2] for _ in range(2)]
    shown = [model["name"].rpartition("/")[2] for model in client.list_all(f"{client.service.parent}/models")]
    ours = [model for model in shown if model in models]
    return {tuple(models): "oldest first", tuple(reversed(models)): "newest first"}.get(tuple(ours), "neither")


def _version_order(client: ProbeClient) -> str:
    shown = [version["versionId"] for version in client.list_all(f"{client.create_model(3)}:listVersions")]
    return {"123": "oldest first", "321": "newest first"}.get("".join(shown), ", ".join(shown))


def _supported(client: ProbeClient) -> str:
    seen = client.get(f"{client.create_model()}@1").content
    parts = {
        "resources": seen.get("supportedDeploymentResourcesTypes", []),
        "input": seen.get("supportedInputStorageFormats", []),
        "output": seen.get("supportedOutputStorageFormats", []),
        "export": [export["id"] for export in seen.get("supportedExportFormats", [])],
    }
    return "; ".join(f"{what}: {', '.join(sorted(values)) or 'none'}" for what, values in parts.items())


def _parent_and_id(client: ProbeClient) -> str:
    return client.upload(client.new_name(), parentModel=client.create_model(), modelId=client.new_name()).verdict


def _no_container(client: ProbeClient) -> str:
    return client.upload(client.new_name(), image="").verdict


def _permissions(client: ProbeClient) -> str:
    model = f"projects/vertex-registry-nobodys/locations/{client.service.location}/models/none"
    answers = {
        "listVersions": client.call("GET", f"{model}:listVersions"),
        "mergeVersionAliases": client.call("POST", f"{model}@1:mergeVersionAliases", {"versionAliases": ["probe"]}),
        "deleteVersion": client.call("DELETE", f"{model}@1:deleteVersion"),
    }
    needed = {}
    for method, answer in answers.items():
        match = re.search(r"aiplatform\.[A-Za-z.]+", str(answer.content.get("error", {}).get("message")))
        needed[method] = match[0] if match and answer.status == 403 else ""
    if not any(needed.values()):
        return "none, because permissions aren't checked" if answers["listVersions"].status == 404 else "not named"
    return ", ".join(f"{method}: {permission or 'not named'}" for method, permission in needed.items())


def _reuse(client: ProbeClient) -> str:
    model = client.create_model(2)
    client.wait_until_done(client.call("DELETE", f"{model}@2:deleteVersion"))
    client.uploaded_model(client.upload(client.new_name(), parentModel=model))
    return "no" if client.get(f"{model}@3").ok else "yes"


def _bare_merge(client: ProbeClient) -> str:
    return client.call("POST", f"{client.create_model()}:mergeVersionAliases", {"versionAliases": ["probe"]}).verdict


def _deletions(client: ProbeClient) -> str:
    model = client.create_model(2)
    answers = []
    for what, path in (("version", f"{model}@2:deleteVersion"), ("model", model)):
        operation = client.call("DELETE", path)
        where = "the model" if "/models/" in operation["name"] else "the location"
        answers.append(
            f"of a {what}: under {where}, {'done' if operation.content.get('done') else 'not done'} at first"
        )
        client.wait_until_done(operation)
    return "; ".join(answers)


def _global(client: ProbeClient) -> str:
    return client.call("GET", f"projects/{client.service.project}/locations/global/models", location="global").verdict


def _long_description(client: ProbeClient) -> str:
    version = f"{client.create_model()}@1"
    fitting = [
        length for length in (1_000, 10_000, 100_000) if client.patch(version, versionDescription="x" * length).ok
    ]
    return f"{max(fitting)} characters or more" if fitting else "fewer than 1000 characters"


def _empty_directory(client: ProbeClient) -> str:
    empty = f"gs://{client.service.bucket}/{client.service.namespace}/nothing-here"
    finished = client.wait_until_done(client.upload(client.new_name(), image=_CUSTOM_IMAGE, source=empty))
    return "the operation fails" if finished.ok and "error" in finished.content else finished.verdict


def _unquoted(client: ProbeClient) -> str:
    name = f"{client.new_name()} with spaces"
    client.uploaded_model(client.upload(name))
    for _ in range(_READS if client.service.endpoint else 1):
        answer = client.call("GET", f"{client.service.parent}/models", filter=f"display_name={name}")
    found = [model["displayName"] == name for model in answer.content.get("models", [])]
    return answer.verdict if not answer.ok else "the model is found" if found == [True] else "other models are found"


def _unquoted_label(client: ProbeClient) -> str:
    model = client.create_model(labels={"probe": "x"})
    answer = client.call("GET", f"{model}:listVersions", filter="labels.probe=x y")
    return (
        answer.verdict if not answer.ok else f"accepted, and {len(answer.content.get('models', []))} versions are found"
    )


PROBES: Final = (
    Probe(
        "a",
        "What happens if you upload a model with an ID that already exists?",
        "two UploadModel requests with the same modelId",
        _duplicate_id,
        ("the call fails: 409 ALREADY_EXISTS",),
        "id-taken",
    ),
    Probe(
        "a",
        "What happens if you remove the alias `default`?",
        "MergeVersionAliases with `-default`",
        _remove_default,
        ("400 FAILED_PRECONDITION",),
    ),
    Probe(
        "a",
        "What happens if you delete the default version?",
        "DeleteModelVersion of the version that has `default`, when the model has another version",
        _delete_default,
        ("400 FAILED_PRECONDITION",),
        "default-delete",
    ),
    Probe(
        "a",
        "What happens if you delete the last version?",
        "DeleteModelVersion of the only version",
        _delete_last,
        ("400 FAILED_PRECONDITION",),
    ),
    Probe(
        "a",
        "How is a stale etag rejected?",
        "UpdateModel with an etag that was read before another update",
        _stale_etag,
        ("409 ABORTED",),
        "stale-etag",
    ),
    Probe(
        "b",
        "Which resource name does MergeVersionAliases return?",
        "MergeVersionAliases at models/ID@1",
        _merge_name,
        ("models/ID@1",),
    ),
    Probe(
        "b",
        "Which resource names does UpdateModel return?",
        "UpdateModel at models/ID@1 and at models/ID",
        _update_names,
        ("models/ID@1 for a version, models/ID for a model",),
    ),
    Probe(
        "b",
        "Which resource name does GetModel return if you name an alias?",
        "GetModel of models/ID@default",
        _alias_name,
        ("models/ID@1",),
    ),
    Probe(
        "c",
        "Do the labels of an upload go to the model or to the version?",
        "two uploads with one label each, then GetModel of each version, to see whether it shows the other's label",
        _label_layer,
        ("the first upload's labels go to the version, a later upload's to the version",),
        "labels-at-upload",
    ),
    Probe(
        "c",
        "If a model and its version have a label with the same key, which one is shown?",
        "UpdateModel of the labels of both, then GetModel of the version",
        _label_wins,
        ("the version's",),
        "label-wins",
    ),
    Probe(
        "c",
        "Which labels does a filter of ListModelVersions match?",
        "UpdateModel of the model's labels, then ListModelVersions with a filter for them",
        _label_filter,
        ("the model's labels too",),
        "label-filter",
    ),
    Probe(
        "c",
        "When does a list show what was written?",
        "UploadModel, then ListModels with a filter for the name as soon as the operation is done",
        _list_lag,
        ("immediately",),
        "list-lag",
    ),
    Probe(
        "d",
        "Does uploading another version change the model's display name and description?",
        "UploadModel with a parent, another display name and another description, then GetModel",
        _other_names,
        ("the display name stays, the description stays",),
    ),
    Probe(
        "e",
        "How many entries does a page have by default?",
        "ListModels without pageSize",
        _page_size,
        ("all that exist", "100"),
    ),
    Probe(
        "e",
        "What happens if a page size is too large or negative?",
        "ListModels with a pageSize of 5000 and of -1",
        _page_sizes,
        ("5000 is accepted, -1 is 400 INVALID_ARGUMENT",),
    ),
    Probe(
        "e",
        "In which order are models listed by default?",
        "two uploads, then ListModels",
        _model_order,
        ("newest first",),
    ),
    Probe(
        "e",
        "In which order are versions listed by default?",
        "three uploads, then ListModelVersions",
        _version_order,
        ("oldest first",),
    ),
    Probe(
        "f",
        "What does a model with a prebuilt container support, according to its fields?",
        "GetModel, then its fields supported*",
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
        "What happens if an upload has both a parent and a model ID?",
        "UploadModel with parentModel and modelId",
        _parent_and_id,
        ("400 INVALID_ARGUMENT",),
    ),
    Probe(
        "h",
        "What happens if an upload has no container?",
        "UploadModel without containerSpec",
        _no_container,
        ("400 INVALID_ARGUMENT",),
    ),
    Probe(
        "i",
        "Which permissions do the methods for versions need?",
        "listVersions, mergeVersionAliases and deleteVersion in a project that isn't yours; the errors name them",
        _permissions,
        ("none, because permissions aren't checked",),
    ),
    Probe(
        "j",
        "Is the number of a deleted version reused?",
        "DeleteModelVersion of the newest version, then UploadModel",
        _reuse,
        ("no",),
    ),
    Probe(
        "k",
        "What happens if MergeVersionAliases names no version?",
        "MergeVersionAliases at models/ID",
        _bare_merge,
        ("400 INVALID_ARGUMENT",),
    ),
    Probe(
        "l",
        "Where are the operations of deletions, and are they done at first?",
        "DeleteModelVersion and DeleteModel",
        _deletions,
        ("of a version: under the model, done at first; of a model: under the model, done at first",),
    ),
    Probe(
        "m",
        "Does the location `global` have models?",
        "ListModels in locations/global",
        _global,
        ("accepted",),
    ),
    Probe(
        "n",
        "How long can the description of a version be?",
        "UpdateModel with descriptions of 1000, 10000 and 100000 characters",
        _long_description,
        ("100000 characters or more",),
    ),
    Probe(
        "o",
        "What happens if an upload has a custom container and a directory that doesn't exist?",
        "UploadModel with a custom image and an empty directory",
        _empty_directory,
        ("accepted",),
    ),
    Probe(
        "p",
        "Does a filter find a display name with spaces if it isn't quoted?",
        "ListModels with the filter display_name=NAME with spaces",
        _unquoted,
        ("400 INVALID_ARGUMENT",),
    ),
    Probe(
        "p",
        "What does a filter do with an unquoted label value that contains a space?",
        "ListModelVersions with the filter labels.probe=x y",
        _unquoted_label,
        ("400 INVALID_ARGUMENT",),
    ),
)
