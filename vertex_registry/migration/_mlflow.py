"""Move an MLflow registry to Vertex: plan first, then register what isn't there yet, oldest first.

A version is recognized on Vertex by its name, which is MLflow's number, and by its time of creation. Its request ID is
a function of the same, so a run that was cut off is finished by the next one, and nothing is registered twice.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from vertex_registry import (
    AmbiguousNameError,
    AuthenticationError,
    ClientClosedError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    OperationTimeoutError,
    PermissionDeniedError,
    RegistryError,
    StateUnknownError,
    UnavailableError,
)
from vertex_registry import mlflow_encoding as encoding
from vertex_registry.migration import _mapping
from vertex_registry.migration._report import MigratedVersion, MigrationReport, Outcome
from vertex_registry.migration._source import MlflowSource

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from vertex_registry import ModelVersion, RegistryClient, ServingContainer
    from vertex_registry.migration._source import Artifact, SourceModel, SourceVersion

_READY: Final = "READY"
_DEFAULT: Final = "default"
_MAX_NAME: Final = 128

#: Errors after which the next version would fail too.
_STOPPING: Final = (
    AuthenticationError,
    ClientClosedError,
    NotFoundError,  # of the bucket
    OperationTimeoutError,
    PermissionDeniedError,
    StateUnknownError,
    UnavailableError,
)


@attrs.frozen(kw_only=True)
class _Step:
    """A version to move.

    Attributes:
        planned: Its record in the plan.
        model: The model in MLflow.
        version: The version in MLflow.
        mapped: The version as it's registered.
        existing: The version on Vertex, if only its aliases are missing.
        make_default: Whether it becomes the default version.
        model_description: The description of the model, if this version creates it.
    """

    planned: MigratedVersion
    model: SourceModel
    version: SourceVersion
    mapped: _mapping.Mapped
    existing: ModelVersion | None
    make_default: bool
    model_description: str

    @property
    def request_id(self) -> str:
        """Return an ID that's the same in each run, and under each URI of MLflow's registry."""
        key = json.dumps([self.planned.model, self.version.number, self.version.created, self.version.source])
        return f"mlflow-{hashlib.sha256(key.encode()).hexdigest()}"


@attrs.define
class MlflowMigration:
    """A migration that was planned, and not done yet.

    Attributes:
        plan: What would be done.
        stopped_by: The error that ended the last run early, or None.
    """

    plan: MigrationReport
    _registry: RegistryClient = attrs.field(repr=False)
    _source: MlflowSource = attrs.field(repr=False)
    _steps: tuple[_Step, ...] = attrs.field(repr=False)
    _container: ServingContainer | str | None = attrs.field(repr=False)
    stopped_by: RegistryError | None = None

    def run(
        self, *, staging_bucket: str | None = None, container: ServingContainer | str | None = None
    ) -> Generator[MigratedVersion, None, None]:
        """Move the versions of the plan, and yield each one's record when it's done.

        An error that the next version would meet too, such as an expired token, ends the run: all other versions are
        skipped. Run the migration again, and it continues there.

        Args:
            staging_bucket: Where artifacts are copied to: ``gs://bucket``, or a directory in it. Defaults to the
                client's.
            container: What serves the versions. Defaults to what the plan was made with. With another one, versions
                that the plan skips because no image serves them are tried too.
        """
        self.stopped_by = None
        chosen = self._container if container is None else container
        for step in self._steps:
            if step.planned.outcome is Outcome.SKIPPED and chosen == self._container:
                continue  # as planned
            if self.stopped_by is not None:
                yield attrs.evolve(step.planned, outcome=Outcome.SKIPPED, reason="the run had stopped before")
                continue
            try:
                yield self._move(step, staging_bucket, chosen)
            except RegistryError as error:
                if isinstance(error, _STOPPING):
                    self.stopped_by = error
                reason = _sentence(error)
                if isinstance(error, ConflictError):
                    # A run was cut off after it uploaded the version, and its metadata file has changed since.
                    reason += ". Delete that version on Vertex, and run the migration again"
                yield attrs.evolve(step.planned, outcome=Outcome.SKIPPED, reason=reason)

    def report(self, done: Iterable[MigratedVersion]) -> MigrationReport:
        """Return the plan with these versions as they're now.

        Args:
            done: What `run` has yielded.
        """
        known = {(version.model, version.number): version for version in done}
        versions = tuple(known.get((version.model, version.number), version) for version in self.plan.versions)
        return attrs.evolve(self.plan, versions=versions, dry_run=False)

    def _move(
        self, step: _Step, staging_bucket: str | None, container: ServingContainer | str | None
    ) -> MigratedVersion:
        name, version, mapped = step.planned.model, step.version, step.mapped
        moved = step.existing
        doubts: tuple[str, ...] = ()
        if moved is None:
            with contextlib.ExitStack() as stack:
                try:
                    folder = stack.enter_context(self._source.artifact(step.model.name, version.number))
                except UnavailableError:
                    raise
                except RegistryError as error:  # of this artifact; the next one may be elsewhere
                    return attrs.evolve(step.planned, outcome=Outcome.SKIPPED, reason=_sentence(error))
                caught = stack.enter_context(warnings.catch_warnings(record=True))
                warnings.simplefilter("always")
                moved = self._registry.register_version(
                    name,
                    folder,
                    version_name=str(version.number),
                    description=version.description,
                    metadata=mapped.metadata,
                    file_metadata=mapped.in_file,
                    stage=version.stage,
                    make_default=step.make_default,
                    model_description=step.model_description,
                    container=container,
                    staging_bucket=staging_bucket,
                    request_id=step.request_id,
                )
            doubts = _doubts(caught)
        if mapped.aliases:
            # Not with the upload: an alias that moves there from another version would look complete if it stayed.
            self._registry.add_aliases(name, moved, mapped.aliases)
            moved = self._registry.update_version(name, moved, remove_metadata=[encoding.PENDING])
        return attrs.evolve(
            step.planned,
            outcome=Outcome.MOVED,
            version=moved.version,
            reason="",
            warnings=doubts,
        )


def migrate_mlflow(
    registry: RegistryClient,
    source: str,
    *,
    models: Iterable[str] | None = None,
    rename: Mapping[str, str] | None = None,
    staging_bucket: str | None = None,
    container: ServingContainer | str | None = None,
    dry_run: bool = False,
    progress: Callable[[MigratedVersion], object] | None = None,
) -> MigrationReport:
    """Copy the models and versions of an MLflow registry, and return what became of each.

    Run it as often as you like: versions that exist already stay as they are, and a run that was cut off continues.

    Args:
        registry: The registry to copy to.
        source: The URI of MLflow's registry, such as ``sqlite:///mlflow.db`` or ``http://localhost:5000``.
        models: The models to copy, by their names in MLflow. Defaults to all of them.
        rename: New names for models, by their names in MLflow. Defaults to keeping the names.
        staging_bucket: Where artifacts are copied to: ``gs://bucket``, or a directory in it. Defaults to the client's.
        container: What serves the versions: a `ServingContainer`, an image or a framework. Defaults to the prebuilt
            image for what wrote each model; a version that has none is skipped.
        dry_run: Return the plan, and copy nothing.
        progress: Called with each version's record when it's done. Defaults to calling nothing.

    Raises:
        RegistryError: MLflow isn't installed, or its registry or Vertex can't be read. Once the first version is
            copied, errors are in the report.
    """
    migration = plan_mlflow(registry, source, models=models, rename=rename, container=container)
    if dry_run:
        return migration.plan
    done = []
    for version in migration.run(staging_bucket=staging_bucket):
        done.append(version)
        if progress is not None:
            progress(version)
    return migration.report(done)


def plan_mlflow(
    registry: RegistryClient,
    source: str,
    *,
    models: Iterable[str] | None = None,
    rename: Mapping[str, str] | None = None,
    container: ServingContainer | str | None = None,
) -> MlflowMigration:
    """Read both registries and return a plan, which you can look at before you run it. Nothing is written.

    The plan also says which versions no prebuilt image serves. It reads the file MLmodel of each for that.

    Args:
        registry: The registry to copy to.
        source: The URI of MLflow's registry.
        models: The models to copy, by their names in MLflow. Defaults to all of them.
        rename: New names for models, by their names in MLflow. Defaults to keeping the names.
        container: What serves the versions: a `ServingContainer`, an image or a framework. Defaults to the prebuilt
            image for what wrote each model.

    Raises:
        InvalidArgumentError: ``rename`` names a model that MLflow doesn't have, or gives two models one name.
        RegistryError: MLflow isn't installed, or its registry or Vertex can't be read.
    """
    opened = MlflowSource(source)
    found = opened.read_models(models)
    names = _rename(found, rename or {}, partial=models is not None)
    existing = {model.name for model in registry.list_models()}
    lines: list[MigratedVersion] = []
    steps: list[_Step] = []
    for model in found:
        for line, step in _plan_model(registry, model, names[model.name], exists=names[model.name] in existing):
            lines.append(line)
            steps += [] if step is None else [step]
    measured, ready = {}, []
    with tempfile.TemporaryDirectory(prefix="vertex-registry-") as outlines:
        artifacts = opened.inspect(
            ((step.model.name, step.version.number) for step in steps if step.existing is None), Path(outlines)
        )
        for step in steps:
            line = step.planned
            artifact = artifacts.get((step.model.name, step.version.number))
            if isinstance(artifact, RegistryError):
                line = attrs.evolve(line, outcome=Outcome.SKIPPED, reason=_sentence(artifact))
            else:
                line = line if artifact is None else _check_servable(registry, line, artifact, container)
                ready.append(attrs.evolve(step, planned=line))
            measured[line.model, line.number] = line
    report = MigrationReport(
        source=opened.shown,
        versions=tuple(measured.get((line.model, line.number), line) for line in lines),
        prompts=opened.count_prompts() if models is None else 0,
        dry_run=True,
    )
    return MlflowMigration(report, registry, opened, tuple(ready), container)


def _check_servable(
    registry: RegistryClient, line: MigratedVersion, artifact: Artifact, container: ServingContainer | str | None
) -> MigratedVersion:
    """Return the record of a version with the size of its artifact, and with why no image serves it, if so."""
    line = attrs.evolve(line, size=artifact.size)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            registry.choose_container(artifact.folder, container=container)
        except InvalidArgumentError as error:
            reason = _sentence(error).replace(str(artifact.folder), artifact.uri)
            return attrs.evolve(line, outcome=Outcome.SKIPPED, reason=reason)
    return attrs.evolve(line, warnings=_doubts(caught) if artifact.exact else ())


def _doubts(caught: Iterable[warnings.WarningMessage]) -> tuple[str, ...]:
    return tuple(str(warning.message) for warning in caught if issubclass(warning.category, UserWarning))


def _plan_model(
    registry: RegistryClient, model: SourceModel, name: str, *, exists: bool
) -> Iterator[tuple[MigratedVersion, _Step | None]]:
    """Yield the record of each version of a model, with what has to be done for it."""
    problem = ""
    there: list[ModelVersion] = []
    if len(name) > _MAX_NAME:
        problem = f"its name has {len(name)} characters, and Vertex allows {_MAX_NAME}. Give it another one with rename"
    elif name != name.strip() or not name.isprintable():
        problem = "its name has characters that can't be seen, or a space at an end. Give it another one with rename"
    elif exists:
        try:
            there = list(registry.list_versions(name))
        except (AmbiguousNameError, InvalidArgumentError) as error:
            problem = _sentence(error)
    if not model.versions:
        problem = problem or "it has no version, and Vertex has no model without one"
        yield _record(model, name, None, Outcome.SKIPPED, problem), None
        return
    if problem:
        for version in model.versions:
            yield _record(model, name, version.number, Outcome.SKIPPED, problem), None
        return
    planner = _Planner.create(registry, model, name, there)
    for version in model.versions:
        yield planner.plan(version)


def _record(
    model: SourceModel,
    name: str,
    number: int | None,
    outcome: Outcome,
    reason: str = "",
    *,
    on_vertex: ModelVersion | None = None,
    lossy: tuple[str, ...] = (),
) -> MigratedVersion:
    return MigratedVersion(
        model=name,
        source_model=model.name,
        number=number,
        outcome=outcome,
        version=None if on_vertex is None else on_vertex.version,
        reason=reason,
        lossy=lossy,
    )


@attrs.frozen(kw_only=True)
class _Planner:
    """Plans the versions of a model.

    Attributes:
        registry: The registry to copy to.
        model: The model in MLflow.
        name: Its name on Vertex.
        there: Its versions on Vertex by their names.
        aliases: The alias on Vertex for each alias in MLflow.
        newest: The highest number in MLflow of a version that's on Vertex.
        follows: Whether a new version becomes the default one.
        description: The description of a new model.
        keeps_own: Whether the model is on Vertex and didn't come from MLflow.
    """

    registry: RegistryClient
    model: SourceModel
    name: str
    there: Mapping[str | None, Sequence[ModelVersion]]
    aliases: Mapping[str, str]
    newest: int
    follows: bool
    description: str
    keeps_own: bool

    @classmethod
    def create(cls, registry: RegistryClient, model: SourceModel, name: str, there: Sequence[ModelVersion]) -> _Planner:
        """Return what plans the versions of a model, given the model's versions on Vertex."""
        by_name: dict[str | None, list[ModelVersion]] = {}
        for version in there:
            by_name.setdefault(version.version_name, []).append(version)
        aliases = _mapping.map_aliases(model.aliases)
        return cls(
            registry=registry,
            model=model,
            name=name,
            there=by_name,
            aliases=aliases,
            newest=max((number for number in map(_number_of, there) if number is not None), default=0),
            follows=_default_follows(there) and _DEFAULT not in aliases.values(),
            description=encoding.write_description(model.description, model.tags),
            keeps_own=bool(there) and not any(map(_is_migrated, there)),
        )

    def plan(self, version: SourceVersion) -> tuple[MigratedVersion, _Step | None]:
        """Return the record of a version, and what has to be done for it."""
        mapped = self._map(version)
        named = self.there.get(str(version.number), ())
        ours = next((one for one in named if one.metadata.get(encoding.CREATED) == version.created), None)
        if ours is not None and encoding.PENDING not in ours.metadata:
            differs = _mapping.differences(
                version, mapped.aliases, stage=str(ours.stage), description=ours.description, has=ours.aliases
            )
            return self._record(version, Outcome.EXISTS, differs, on_vertex=ours), None
        if ours is None and (problem := self._problem(version, named)):
            return self._record(version, Outcome.SKIPPED, problem), None
        lossy = list(mapped.lossy)
        if ours is None and version.number < self.newest:
            lossy.append(f"its place in the order: it comes after version {self.newest}")
        if self.keeps_own and version is self.model.versions[0] and self.description:
            lossy.append("the description and the tags of the model, which has its own on Vertex")
        planned = self._record(version, Outcome.PLANNED, lossy=tuple(lossy))
        return planned, _Step(
            planned=planned,
            model=self.model,
            version=version,
            mapped=mapped,
            existing=ours,
            make_default=self.follows and version.number > self.newest,
            model_description=self.description,
        )

    def _map(self, version: SourceVersion) -> _mapping.Mapped:
        def fits(metadata: Mapping[str, Any]) -> bool:
            return self.registry.metadata_fits(metadata, version_name=str(version.number))

        return _mapping.map_version(self.model, version, self.aliases, fits=fits)

    @staticmethod
    def _problem(version: SourceVersion, named: Sequence[ModelVersion]) -> str:
        """Return why a version that isn't on Vertex can't be moved, or nothing."""
        if named:
            return f"version {named[0].version} on Vertex has the name {version.number} and is another one"
        if version.status != _READY:
            more = f": {version.status_message}" if version.status_message else ""
            return f"MLflow hasn't finished its registration ({version.status}{more})"
        return ""

    def _record(self, version: SourceVersion, outcome: Outcome, reason: str = "", **more: Any) -> MigratedVersion:
        return _record(self.model, self.name, version.number, outcome, reason, **more)


def _default_follows(there: Sequence[ModelVersion]) -> bool:
    """Return whether the newest version becomes the default one: nobody has put anything else there."""
    if not there:
        return True
    ours = all(_is_migrated(version) or _is_incomplete(version) for version in there)
    return ours and max(there, key=lambda version: int(version.version)).is_default


def _is_migrated(version: ModelVersion) -> bool:
    return encoding.CREATED in version.metadata


def _is_incomplete(version: ModelVersion) -> bool:
    """Return whether a run may have been cut off right after it uploaded a version."""
    return version.version_name is None and not version.metadata and version.managed_by is not None


def _number_of(version: ModelVersion) -> int | None:
    name = version.version_name
    return int(name) if _is_migrated(version) and name is not None and name.isdecimal() else None


def _rename(models: Iterable[SourceModel], rename: Mapping[str, str], *, partial: bool) -> dict[str, str]:
    """Return the name on Vertex of each model.

    Raises:
        InvalidArgumentError: A model doesn't exist, or two models would have one name.
    """
    known = [model.name for model in models]
    for old, new in rename.items():
        if not isinstance(old, str) or not isinstance(new, str) or not new:
            raise InvalidArgumentError(f"rename has to have a name for each name, and {old!r} has {new!r}.")
        if len(new) > _MAX_NAME:
            raise InvalidArgumentError(
                f"rename gives {old!r} a name of {len(new)} characters, and Vertex allows {_MAX_NAME}."
            )
        if old not in known and not partial:
            close = difflib.get_close_matches(old, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise InvalidArgumentError(f"rename has {old!r}, and MLflow has no model of that name.{hint}")
    names = {name: rename.get(name, name) for name in known}
    owners: dict[str, str] = {}
    for old, new in names.items():
        if new in owners:
            raise InvalidArgumentError(f"{owners[new]!r} and {old!r} would both be {new!r}. Choose other names.")
        owners[new] = old
    return names


def _sentence(error: RegistryError) -> str:
    """Return an error as a reason in a report, where no other call is suggested: the next run does the same."""
    text = str(error).partition(" Call register_version again")[0]
    with contextlib.suppress(ValueError):
        text = text[: text.index(" Nothing was registered.")] + text[text.index(" Nothing was registered.") + 24 :]
    return text.strip().rstrip(".")
