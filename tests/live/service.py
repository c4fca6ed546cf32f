"""The service of a live run: Vertex AI, or a server in its place.

The names of all models and objects that a run creates begin with its namespace. The run removes them, and writes to
nothing else.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import google.auth
import google.auth.credentials
import google.auth.exceptions
import requests
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient
from google.cloud.aiplatform_v1.services.model_service.transports.rest import ModelServiceRestTransport

from tests.cassettes import tape
from vertex_registry import NotFoundError, RegistryClient, RegistryError, Retry, _names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from vertex_registry import RegisteredModel

#: The environment variable that passes the service to the pytest process of a run.
VARIABLE: Final = "VERTEX_REGISTRY_LIVE"

# These variables send the clients of Vertex and Cloud Storage to an emulator, whatever their arguments are.
_EMULATORS: Final = ("VERTEX_AI_EMULATOR_HOST", "STORAGE_EMULATOR_HOST")

_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)

# "Do not call UploadModel more than once every 2 seconds", says the import page of Vertex's documentation.
_BETWEEN_UPLOADS: Final = 2.0
_UNTIL_LISTED: Final = 2.0


class Refused(Exception):  # noqa: N818  # not an error: the run ends before it starts
    """Raised if a run can't start. The message says why."""


@attrs.frozen
class Service:
    """A service, and where a run may write in it.

    Attributes:
        project: The project.
        bucket: The bucket for artifacts.
        location: The location.
        endpoint: The URL of a server to use in place of Vertex. If it's empty, Vertex itself is used.
        namespace: The prefix of every name that the run creates.
        folder: The folder for recorded conversations. If it's empty, none are recorded.
        artifacts: Whether artifacts are uploaded to the bucket.
    """

    project: str
    bucket: str
    location: str
    endpoint: str
    namespace: str
    folder: str = ""
    artifacts: bool = True
    _uploaded: list[float] = attrs.field(factory=list, init=False, repr=False, eq=False)

    @classmethod
    def of_this_run(cls) -> Self | None:
        """Return the service of the run that this process belongs to, or None."""
        variable = os.environ.get(VARIABLE)
        return cls(**json.loads(variable)) if variable else None

    def environment(self) -> dict[str, str]:
        """Return environment variables from which another process creates this service."""
        return {VARIABLE: json.dumps({k: v for k, v in attrs.asdict(self).items() if not k.startswith("_")})}

    @property
    def parent(self) -> str:
        """Return the resource name of the location."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of a `RegistryClient` for this service."""
        where = {"project": self.project, "location": self.location, "retry": Retry(call_timeout=600)}
        return where | ({"endpoint": self.endpoint} if self.endpoint else {"credentials": _default_credentials()})

    def connect(self, **settings: Any) -> RegistryClient:
        """Create a client over REST, because REST can be recorded."""
        return RegistryClient(transport="rest", **self.settings | settings)

    def google(self) -> ModelServiceClient:
        """Create Google's own client, over REST."""
        if self.endpoint:
            host, scheme, credentials = self.endpoint.removeprefix("http://"), "http", _anonymous()
        else:
            host, scheme, credentials = f"{self.location}-aiplatform.googleapis.com", "https", _default_credentials()
        return ModelServiceClient(
            transport=ModelServiceRestTransport(host=host, credentials=credentials, url_scheme=scheme)
        )

    def session(self) -> requests.Session:
        """Create a session for requests that no client sends."""
        return requests.Session() if self.endpoint else AuthorizedSession(_default_credentials())  # type: ignore[no-untyped-call]  # untyped upstream

    def address(self, location: str | None = None) -> str:
        """Return the URL of the service in a location."""
        host = {"global": "aiplatform.googleapis.com"}.get(
            location or self.location, f"{location or self.location}-aiplatform.googleapis.com"
        )
        return self.endpoint or f"https://{host}"

    def check(self) -> None:
        """Check that there is something to run against.

        Raises:
            Refused: No project or bucket is named, there are no application default credentials, or the environment
                names an emulator, whose answers would be filed as Vertex's.
        """
        if not self.project or not self.bucket:
            raise Refused("Name a project and a bucket: make live PROJECT=... BUCKET=... Nothing was sent.")
        if self.endpoint:
            return
        for variable in _EMULATORS:
            if os.environ.get(variable):
                raise Refused(
                    f"{variable} is set, so the run would use an emulator instead of Vertex. Unset it, or pass the "
                    "emulator's URL with --endpoint. Nothing was sent."
                )
        _default_credentials()

    def put_artifact(self, path: str) -> str:
        """Upload an artifact that Vertex accepts, and return its directory."""
        directory = f"{self.namespace}/{path}"
        if self.artifacts:
            # Vertex checks the file's name. It reads the content only when the model is deployed.
            with contextlib.closing(self._storage()) as client:
                client.bucket(self.bucket).blob(f"{directory}/model.joblib").upload_from_string(b"")
        return f"gs://{self.bucket}/{directory}"

    def wait_turn(self, method: str, url: str) -> None:
        """Wait until an upload is as long after the last one as Vertex requires."""
        if self.endpoint or method != "POST" or ":upload" not in url:
            return
        if self._uploaded:
            time.sleep(max(0.0, self._uploaded.pop() + _BETWEEN_UPLOADS - time.monotonic()))
        self._uploaded.append(time.monotonic())

    def wait_for_lists(self) -> None:
        """Wait until lists show what was written."""
        if not self.endpoint:
            time.sleep(_UNTIL_LISTED)

    @contextlib.contextmanager
    def recording(self, about: str) -> Iterator[None]:
        """Record what's sent to the service within the context."""
        name = hashlib.sha256(about.encode()).hexdigest()[:16]
        day = dt.datetime.now(dt.UTC).date().isoformat()
        provenance = tape.Provenance(about, self.endpoint or "Vertex AI", "v1", day)
        with tape.recording(Path(self.folder, f"{name}.yaml"), provenance, before=self.wait_turn):
            yield

    def remove(self) -> str:
        """Remove everything this run created, and return what was removed and what couldn't be. Never raise."""
        removed = {"models": 0, "objects": 0}
        failures: dict[str, str] = {}
        for what, removing in (("models", self._remove_models), ("objects", self._remove_objects)):
            try:
                for _ in removing(failures):
                    removed[what] += 1
            except Exception as error:  # noqa: BLE001  # remove the rest, and don't hide the error that ended the run
                failures[f"{what} of {self.namespace}"] = str(error)
        summary = f"Removed {removed['models']} models and {removed['objects']} objects that start with "
        summary += f"{self.namespace}."
        if failures:
            summary += " Remove these yourself:"
            summary += "".join(f"\n  {name}: {why}" for name, why in sorted(failures.items()))
        return summary

    def _remove_models(self, failures: dict[str, str]) -> Iterator[str]:
        """Remove the models and return their names. Add those that can't be removed to `failures`, with the reason."""
        with self.connect() as registry:
            # A list that lags still shows deleted models, and doesn't show new ones yet.
            for _ in range(_ROUNDS):
                remaining, list_error = self._own_models(registry)
                if list_error is None:
                    failures.clear()
                for model in remaining:
                    try:
                        registry.delete_model(f"{self.parent}/models/{model.resource_name.rpartition('/')[2]}")
                        yield model.name
                    except NotFoundError:
                        pass
                    except RegistryError as error:
                        failures[model.name] = str(error)
                if list_error is not None:
                    raise list_error
                if not remaining:
                    break

    def _own_models(self, registry: RegistryClient) -> tuple[list[RegisteredModel], RegistryError | None]:
        """Return the run's models, and the error if one of the list's pages failed."""
        found: list[RegisteredModel] = []
        try:
            for model in registry.list_models():
                if model.name.startswith(self.namespace):
                    found.append(model)  # noqa: PERF401  # keep what was listed before an error
        except RegistryError as error:
            return found, error
        return found, None

    def _remove_objects(self, failures: dict[str, str]) -> Iterator[str]:
        """Remove the objects and return their names. Add those that can't be removed to `failures`, with the reason."""
        if not self.artifacts:
            return
        with contextlib.closing(self._storage()) as client:
            for blob in list(client.list_blobs(self.bucket, prefix=f"{self.namespace}/")):
                try:
                    blob.delete()
                    yield blob.name
                except Exception as error:  # noqa: BLE001  # remove the other objects
                    failures[f"gs://{self.bucket}/{blob.name}"] = str(error)

    def replacements(self, name: str) -> Mapping[str, str]:
        """Return the words of this run that a cassette must not contain, with their replacements."""
        ids = {_names.model_id(name, number): _names.model_id("churn", number) for number in range(3)}
        return {
            f"gs://{self.bucket}/{self.namespace}/{name}": "gs://models/churn",
            f"locations/{self.location}": "locations/us-central1",
            **ids,
            name: "churn",
            self.project: "PROJECT",
        }

    def redact(self, text: str) -> str:
        """Return a text without the project, by ID or number, the account and the bucket.

        Long numbers are replaced too, because an account can appear as a number, and a service agent as its project's.
        """
        text = _ACCOUNT.sub("ACCOUNT", text)
        hidden = {self.project: "PROJECT", self.bucket: "BUCKET"}
        for word in sorted(hidden, key=len, reverse=True):  # a bucket's name often starts with its project's
            text = text.replace(word, hidden[word])
        return _LONG_NUMBER.sub("NUMBER", _PROJECT.sub("projects/PROJECT", text))

    def _storage(self) -> storage.Client:
        credentials = _anonymous() if os.environ.get("STORAGE_EMULATOR_HOST") else None
        client = storage.Client(project=self.project, credentials=credentials)
        # Otherwise the package would request the bucket in another thread, in the middle of a recorded conversation.
        client._bucket_metadata_cache = None  # the public setting applies to all clients
        return client


_ROUNDS: Final = 10

_ACCOUNT: Final = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")
_PROJECT: Final = re.compile(r"projects/[A-Za-z0-9:._-]+")
_LONG_NUMBER: Final = re.compile(r"[0-9]{10,}")


def _anonymous() -> Any:
    return AnonymousCredentials()  # type: ignore[no-untyped-call]  # untyped upstream


class _WithoutAccount(google.auth.credentials.Credentials):
    """Credentials without an account name.

    The client writes the account's name into a stage's history if the credentials have one. Cassettes and reports must
    not contain it.
    """

    def __init__(self, credentials: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped upstream
        self._credentials = credentials
        self._quota_project_id = credentials.quota_project_id

    def refresh(self, request: Any) -> None:
        self._credentials.refresh(request)
        self.token, self.expiry = self._credentials.token, self._credentials.expiry


def _default_credentials() -> Any:
    try:
        return _WithoutAccount(google.auth.default(scopes=_SCOPES)[0])
    except google.auth.exceptions.DefaultCredentialsError as error:
        raise Refused(
            "There are no application default credentials. Run `gcloud auth application-default login`, or set "
            "GOOGLE_APPLICATION_CREDENTIALS. Nothing was sent."
        ) from error
