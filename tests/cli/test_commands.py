"""The command line, used like a person or a script would."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import itertools
import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click
import pytest

from vertex_registry import RegistryClient, Stage, local_registry
from vertex_registry import cli as cli_package
from vertex_registry.cli._program import cli
from vertex_registry.cli._run import STATUSES, run
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]

COMMAND = [sys.executable, "-m", "vertex_registry.cli"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a registry with three versions of churn: 2 is in Production, 3 is the default."""
    path = tmp_path_factory.mktemp("written") / "registry.db"
    with local_registry(path, actor="ann@example.com") as registry:
        for number, accuracy in enumerate((0.9, 0.95, 0.85), start=1):
            metadata = {"accuracy": accuracy, "team": "growth", "git": "1.2"}
            registry.register_version("churn", f"gs://models/churn/{number}", metadata=metadata)
        for number in (1, 2):
            registry.set_stage("churn", number, Stage.PRODUCTION, archive_existing=True)
    return path


@pytest.fixture
def data(written: Path, tmp_path: Path) -> str:
    """Return the test's own copy of that file."""
    return str(shutil.copy(written, tmp_path))


@pytest.fixture
def vr(data: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command on that registry, and returns its status, stdout and stderr."""

    def command(*words: str) -> tuple[int, str, str]:
        status = run([*words, "--local", data])
        written = capsys.readouterr()
        return status, written.out, written.err

    return command


def test_versions_in_a_table(vr: Run) -> None:
    """A list is a table with the important columns, and the requested metadata."""
    status, out, err = vr("versions", "list", "churn", "--show", "accuracy", "--sort", "-accuracy")
    assert (status, err) == (0, "")
    header, *rows = out.splitlines()
    assert header.split() == ["VERSION", "NAME", "STAGE", "ALIASES", "AGE", "ACCURACY"]
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [("2", "0.95"), ("1", "0.9"), ("3", "0.85")]


def test_versions_as_json_and_ids(vr: Run) -> None:
    """JSON has the whole record, with times in ISO 8601. IDs are one number a line."""
    _, out, _ = vr("versions", "list", "churn", "--format", "json")
    records = json.loads(out)
    assert [record["version"] for record in records] == ["3", "2", "1"]
    assert records[1]["stage"] == "Production"
    assert records[1]["metadata"] == {"accuracy": 0.95, "team": "growth", "git": "1.2"}
    assert records[1]["created_at"].endswith("Z")
    assert vr("versions", "list", "churn", "--format", "ids")[1] == "3\n2\n1\n"


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["--stage", "Production"], "2"),
        (["--where", "accuracy>=0.9"], "2 1"),
        (["--where", "accuracy > 0.9", "--where", "team=growth"], "2"),
        (["--where", "git=1.2"], "3 2 1"),
        (["--where", "team!=growth"], ""),
        (["--where", "missing!=1"], "3 2 1"),
        (["--where", "team>5"], ""),
        (["--limit", "1"], "3"),
        (["--where", "accuracy<0.95", "--limit", "1"], "3"),
        (["--sort", "version"], "1 2 3"),
        (["--sort", "missing"], "3 2 1"),
    ],
)
def test_versions_are_filtered_and_sorted(vr: Run, words: list[str], numbers: str) -> None:
    """Conditions on metadata compare numbers as numbers and text as text; the limit comes last."""
    status, out, _ = vr("versions", "list", "churn", "--format", "ids", *words)
    assert (status, out.split()) == (0, numbers.split())


@pytest.mark.parametrize(
    "words",
    [
        ["--where", "accuracy"],
        ["--where", "accuracy => 0.9"],
        ["--where", "accuracy>>0.9"],
        ["--where", "accuracy<>0.9"],
        ["--where", "accuracy>="],
        ["--where", "==5"],
        ["--sort"],
        ["--sort", ""],
        ["--sort", "-"],
        ["--sort", "- "],
        ["--limit", "0"],
        ["--stage", "live"],
        ["--formt", "json"],
    ],
)
def test_a_usage_error_is_status_2(vr: Run, words: list[str]) -> None:
    """A usage error has status 2, and prints nothing on stdout."""
    status, out, err = vr("versions", "list", "churn", *words)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ")


def test_show_and_register(vr: Run) -> None:
    """A registered version is shown. Metadata is parsed as JSON if it's valid JSON."""
    metadata = ("-m", "accuracy=0.97", "-m", "note=a b")
    given = (*metadata, "--alias", "candidate", "--version-name", "1.4")
    status, out, _ = vr("versions", "register", "churn", "gs://models/churn/4", *given)
    assert status == 0
    assert "version            4" in out
    record = json.loads(vr("versions", "show", "churn", "candidate", "--format", "json")[1])
    assert (record["version_name"], record["metadata"]) == ("1.4", {"accuracy": 0.97, "note": "a b"})
    assert vr("versions", "register", "churn", "gs://models/churn/5", "-m", "accuracy")[0] == 2
    for empty in ("accuracy=", "accuracy= "):
        status, _, err = vr("versions", "register", "churn", "gs://models/churn/5", "-m", empty)
        assert (status, "'accuracy' has no value" in err) == (2, True)
    assert vr("versions", "register", "churn", "gs://models/churn/5", "-m", 'note=""', "--format", "ids")[1] == "5\n"
    assert json.loads(vr("versions", "show", "churn", "5", "--format", "json")[1])["metadata"] == {"note": ""}


def test_promote_roll_back_and_history(vr: Run) -> None:
    """Promoting archives the previous version, rolling back restores it, and the history shows it all."""
    assert vr("promote", "churn", "3", "production", "--make-default")[0] == 0
    assert vr("versions", "list", "churn", "--stage", "production", "--format", "ids")[1] == "3\n"
    status, out, err = vr("rollback", "churn", "--format", "ids")
    assert (status, out, err) == (0, "2\n", "churn: version 2 is back in Production, version 3 is archived\n")
    _, out, _ = vr("history", "churn", "--format", "json")
    changes = json.loads(out)
    assert [(change["version"], change["stage"]) for change in changes[:2]] == [("3", "Archived"), ("2", "Production")]
    assert vr("history", "churn", "--at", changes[-1]["changed_at"], "--format", "ids")[1] == "1\n"
    assert vr("history", "churn", "--at", "2020-01-01")[0] == 1
    assert vr("history", "churn", "--at", "yesterday")[0] == 2


def test_the_order_of_changes_in_one_second(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The history is newest first. Times in the same second show microseconds."""
    path, ticks, start = str(tmp_path / "second.db"), itertools.count(), dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)

    def clock() -> dt.datetime:
        return start + dt.timedelta(microseconds=next(ticks))

    with (
        Emulator(path, rest_port=None, now=clock) as emulator,
        RegistryClient(endpoint=emulator.grpc, project="local-project", location="us-central1", now=clock) as registry,
    ):
        for number in (1, 2):
            registry.register_version("churn", f"gs://models/churn/{number}")
        for number in (1, 2):
            registry.set_stage("churn", number, Stage.PRODUCTION, archive_existing=True)

    def history(*options: str) -> str:
        assert run(["history", "churn", *options, "--local", path]) == 0
        return capsys.readouterr().out

    changes = json.loads(history("--format", "json"))
    _, *rows = history().splitlines()
    shown = ["T".join(row.split()[:2]) for row in rows]
    assert shown == sorted(set(shown), reverse=True)
    assert [row.split()[2] for row in rows] == [change["version"] for change in changes] == ["1", "2", "1"]
    assert history("--at", shown[1], "--format", "ids") == "2\n"


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_a_time_without_a_zone_is_in_utc(vr: Run, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """The machine's time zone changes no answer, and the command says which time it has understood."""
    first = json.loads(vr("history", "churn", "--format", "json")[1])[-1]["changed_at"].removesuffix("Z")
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        status, out, err = vr("history", "churn", "--at", first, "--format", "ids")
        assert (status, out, err) == (0, "1\n", f"{first} is read as {first}+00:00, in UTC\n")
        assert vr("history", "churn", "--at", f"{first}+00:00", "--format", "ids") == (0, "1\n", "")
        assert (
            "2026-03-01 is read as 2026-03-01T00:00:00+00:00, in UTC" in vr("history", "churn", "--at", "2026-03-01")[2]
        )
        assert vr("history", "churn", "--at", "0001-01-01T00:00+05:00")[0] == 2
    finally:
        monkeypatch.undo()
        time.tzset()


def test_deleting_needs_confirmation(vr: Run, data: str) -> None:
    """Without a terminal, nothing is deleted unless you pass --yes. On a terminal, your answer counts."""
    status, _, err = vr("versions", "delete", "churn", "1")
    assert status == 2
    assert "Add --yes." in err
    for answer, remaining in (("n\n", 3), ("y\n", 2)):
        _on_terminal([*COMMAND, "versions", "delete", "churn", "1", "--local", data], answer)
        assert len(vr("versions", "list", "churn", "--format", "ids")[1].split()) == remaining
    assert vr("versions", "prune", "churn", "--keep", "1", "--dry-run")[1:][1] == "would delete 0, kept 2\n"
    assert vr("versions", "prune", "churn", "--keep", "9")[1:][1] == "deleted 0, kept 2\n"
    assert vr("models", "delete", "churn", "--yes")[0] == 0
    assert vr("models", "list", "--format", "json")[1] == "[]\n"


def test_aliases_models_and_duplicates(vr: Run) -> None:
    """You can set and remove aliases, show models, and list duplicates."""
    assert "champion" in vr("alias", "set", "churn", "1", "champion")[1]
    assert "champion" not in vr("alias", "remove", "churn", "champion", "champion")[1]
    assert vr("alias", "remove", "churn", "1", "chamipon")[::2] == (0, "version 1 didn't have the alias 'chamipon'\n")
    assert json.loads(vr("models", "show", "churn", "--format", "json")[1])["default_version"] == "3"
    assert (
        vr("models", "list", "--format", "ids")[1] == vr("models", "show", "churn", "--format", "ids")[1] == "churn\n"
    )
    assert vr("duplicates", "--format", "json")[1] == "{}\n"
    diff = json.loads(vr("versions", "diff", "churn", "1", "2", "--format", "json")[1])
    assert diff["changes"]["metadata.accuracy"] == [0.9, 0.95]


def test_an_error_is_a_sentence_with_a_status(vr: Run, data: str) -> None:
    """An error is one sentence, a hint, and a status for its kind."""
    status, out, err = vr("versions", "show", "chrun")
    assert (status, out) == (STATUSES["NotFoundError"], "")
    assert err.startswith("error: ")
    assert err.splitlines()[-1] == f"next:  vertex-registry models list --local {data}"
    assert vr("versions", "register", "churn", "no-bucket/here")[0] == 1


def test_an_unknown_project(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown project is an error, not a traceback."""
    assert run(["models", "list", "--location", "Nowhere!"]) == 1
    assert capsys.readouterr().err.startswith("error: --location 'Nowhere!' isn't")


def test_an_empty_list_says_where(
    vr: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An empty list names the project and the location on stderr, because your models may be in another one."""
    new = str(tmp_path / "new.db")
    with Emulator() as emulator:
        monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", emulator.grpc)
        for words, where in (
            ([], "project local-project, location us-central1"),
            (["--project", "acme", "--location", "us-east1"], "project acme, location us-east1"),
            (["--format", "json"], "project local-project, location us-central1"),
            (["--local", new], f"project local-project, location us-central1 of {new}"),
        ):
            assert run(["models", "list", *words]) == 0
            written = capsys.readouterr()
            assert written.err == f"no models in {where}; --project and --location choose another registry\n"
    assert vr("models", "list")[2] == ""


def test_a_local_source_that_does_not_exist(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A path that doesn't exist is reported as that, before anybody sets up a bucket for it."""
    monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", "127.0.0.1:1")
    for source in ("./nope", "models/churn", f"{tmp_path}/nope", f"file://{tmp_path}/nope"):
        assert run(["versions", "register", "churn", source]) == 1
        assert f"error: {source!r} doesn't exist on this machine." in capsys.readouterr().err
    assert run(["versions", "register", "churn", str(tmp_path)]) == 1
    assert "--staging-bucket" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--project", "x", "models", "list"],
        ["--local=r.db", "models", "list"],
        ["models", "--format", "json", "list"],
        ["versions", "--project", "x", "list", "churn"],
    ],
)
def test_an_option_before_the_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An option that commands have is an error in front of them, which says where to put it."""
    option = next(word for word in words if word.startswith("--")).partition("=")[0]
    assert run(words) == 2
    assert capsys.readouterr().err.endswith(f"error: No such option '{option}' here. Put it after the command.\n")
    assert run(["--nonsense", "models", "list"]) == 2
    assert "Put it after" not in capsys.readouterr().err


def test_control_characters_do_not_reach_the_terminal(vr: Run, data: str) -> None:
    """Metadata can't send commands to the terminal."""
    with local_registry(data) as registry:
        registry.update_version("churn", 1, metadata={"note": "\x1b[2Jgone\x07"})
    _, out, _ = vr("versions", "list", "churn", "--show", "note")
    assert "\\x1b[2Jgone\\x07" in out
    assert "\x1b" not in out


def test_the_table_fits_the_terminal(data: str) -> None:
    """On a terminal, long cells are shortened to its width, and NO_COLOR turns colors off."""
    with local_registry(data) as registry:
        registry.update_version("churn", 1, metadata={"note": "x" * 300})
    words = [*COMMAND, "versions", "list", "churn", "--show", "note", "--local", data]
    shown = _on_terminal(words, "", {"COLUMNS": "60", "NO_COLOR": "1"})
    assert max(len(line) for line in shown.splitlines()) <= 60
    assert "…" in shown
    assert "\x1b[1m" not in shown
    assert "\x1b[1m" in _on_terminal(words, "", {"COLUMNS": "60", "NO_COLOR": ""})


def test_head_ends_silently(data: str) -> None:
    """If the reader stops early, as in `| head`, the command ends silently."""
    words = " ".join([*COMMAND, "versions", "list", "churn", "--format", "json", "--local", data])
    done = subprocess.run(["bash", "-c", f"{words} | true"], capture_output=True, check=False)  # noqa: S607  # any bash
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["versions", "list", "churn"], 0),
        (["models", "list", "--format", "json"], 0),
        (["history", "churn"], 0),
        (["versions", "show", "churn", "9"], 3),
        (["versions", "lst"], 2),
    ],
)
def test_a_reader_that_is_gone(data: str, words: list[str], status: int) -> None:
    """A reader that has gone before anything was written changes no status, so scripts can use `pipefail`."""
    local = ["--local", data] if status != 2 else []
    for streams in ({"stdout"}, {"stdout", "stderr"}):
        reader, writer = os.pipe()
        os.close(reader)
        with (
            os.fdopen(writer, "w") as gone,
            contextlib.redirect_stdout(gone if "stdout" in streams else sys.stdout),
            contextlib.redirect_stderr(gone if "stderr" in streams else io.StringIO()),
        ):
            assert run([*words, *local]) == status
            assert sys.stdout is gone


def test_output_that_cannot_be_written(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """If stdout can't be written, for example to a full disk, the error is one sentence."""
    with open("/dev/full", "w", encoding="utf-8") as full, contextlib.redirect_stdout(full):  # noqa: PTH123  # a device
        assert run(["versions", "list", "churn", "--local", data]) == 1
    assert capsys.readouterr().err == "error: The output can't be written: No space left on device.\n"


def test_characters_that_stdout_does_not_have(data: str) -> None:
    """Tables and JSON have escapes for them. An ID with an escape would be another one, so that's an error."""
    with local_registry(data) as registry:
        registry.register_version("café 漢字", "gs://models/c/1")
    for output, status, shown in (
        ("table", 0, "caf\xe9 \\u6f22\\u5b57"),
        ("json", 0, "caf\\u00e9 \\u6f22"),
        ("ids", 1, ""),
    ):
        written = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
        complaint = io.StringIO()
        with contextlib.redirect_stdout(written), contextlib.redirect_stderr(complaint):
            assert run(["models", "list", "--format", output, "--local", data]) == status
        written.seek(0)
        assert shown in written.read()
        assert ("Set a UTF-8 locale" in complaint.getvalue()) == (status == 1)


def test_closed_streams(data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without stdin there's no terminal to ask, and without stdout nothing is written."""
    monkeypatch.setattr(sys, "stdin", None)
    assert run(["versions", "delete", "churn", "1", "--local", data]) == 2
    assert "there's no terminal to ask" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdout", None)
    assert run(["versions", "list", "churn", "--local", data]) == 0


@pytest.fixture
def signals() -> Iterator[None]:
    """Restore the signal handlers of this process afterwards."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_an_emulator_for_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`emulator exec` runs a command against a new emulator, and returns the command's exit status."""
    script = (
        "import sys, vertex_registry as v; from vertex_registry._deferred import defer_packages; defer_packages()\n"
        "with v.RegistryClient() as r: print(r.register_version('churn', 'gs://models/churn/1').name)\n"
        "sys.exit(7)"
    )
    words = ["emulator", "exec", "--", sys.executable, "-c", script]
    done = execute(*words)
    assert (done.returncode, done.stdout, done.stderr) == (7, "churn\n", "")
    assert run(["emulator", "exec", "--", "sh", "-c", "exit 3"]) == 3
    assert run(["emulator", "exec", "--", "sh", "-c", "kill -9 $$"]) == 128 + signal.SIGKILL
    assert run(["emulator", "exec", "--", "no-such-program"]) == 2
    assert "'no-such-program' can't be run" in capsys.readouterr().err


def test_the_emulator_runs_in_the_foreground() -> None:
    """`emulator` takes the emulator's own options, prints its addresses, and ends on SIGTERM."""
    words = [*COMMAND, "emulator", "--grpc-port", "0", "--rest-port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        addresses = json.loads(process.stdout.readline())
        assert run(["models", "list", "--endpoint", addresses["rest"], "--format", "json"]) == 0
        process.terminate()
        assert process.wait() == 0


def test_completion(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Model names and versions are completed from the registry."""
    typed = f"vertex-registry versions list --local {data} ch"
    variables = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = execute(environment={"_VERTEX_REGISTRY_COMPLETE": "bash_complete", **variables})
    assert "plain,churn" in done.stdout.split()
    for shell in ("bash", "zsh", "fish"):
        assert run(["completion", shell]) == 0
        assert "_VERTEX_REGISTRY_COMPLETE" in capsys.readouterr().out


def test_every_command_has_help() -> None:
    """Every command and every option has a help text."""
    for path, command in all_commands(cli):
        assert command.help, path
        for parameter in command.params:
            assert isinstance(parameter, click.Argument) or getattr(parameter, "help", None), (path, parameter.name)


#: What may be empty, and what the command itself reads: a time, a command.
MAY_BE_EMPTY = {"description"}
READ_LATER = {"at", "command"}


def test_no_empty_value_is_taken() -> None:
    """An empty value is more likely an unset variable than meant, so it's a usage error."""
    refused = 0
    for path, command in all_commands(cli):
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.is_flag:
                continue
            several = parameter.multiple or parameter.nargs == -1
            taken = parameter.name in MAY_BE_EMPTY | READ_LATER
            try:
                parameter.type_cast_value(click.Context(command), ["", " "] if several else "")
            except click.BadParameter:
                assert not taken, (path, parameter.name)
                refused += 1
            else:
                assert taken, (path, parameter.name)
    assert refused > 100


@pytest.mark.parametrize(
    "words",
    [
        ["history", "churn", "--at", "", "--endpoint", "127.0.0.1:1"],
        ["versions", "download", "churn", "--to", "", "--endpoint", "127.0.0.1:1"],
        ["versions", "list", "churn", "--local", ""],
        ["emulator", "exec", "--data", "", "--", "true"],
        ["emulator", "exec", "--", ""],
    ],
)
def test_what_a_command_reads_itself_is_not_empty(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Empty paths, times and commands are usage errors too."""
    assert run(words) == 2
    written = capsys.readouterr()
    assert (written.out, "error: " in written.err) == ("", True)


def test_bytes_that_are_not_text(vr: Run) -> None:
    """A byte that the locale can't decode is refused before anything is done, and the error names the remedy."""
    for words in (
        ("models", "show", "caf\udce9"),
        ("versions", "list", "churn", "--where", "team=caf\udce9"),
        ("versions", "register", "churn", "gs://models/churn/4", "-m", "note=caf\udce9"),
        ("versions", "register", "churn", "gs://models/caf\udce9", "--description", "caf\udce9"),
    ):
        status, out, err = vr(*words)
        assert (status, out) == (2, "")
        assert err.endswith("isn't text in the encoding of your locale, utf-8. Use a terminal that sends UTF-8.\n")
    assert vr("versions", "list", "churn", "--format", "ids")[1] == "3\n2\n1\n"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert "ascii. Set a UTF-8 locale, such as LC_ALL=C.UTF-8, or PYTHONUTF8=1." in (
        execute("models", "show", "café", environment=plain).stderr
    )


def all_commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield each command with the words that call it."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))


def execute(*words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as a process."""
    variables = {**os.environ, **(environment or {})}
    return subprocess.run([*COMMAND, *words], env=variables, capture_output=True, text=True, check=False)


def _on_terminal(words: list[str], typed: str, environment: dict[str, str] | None = None) -> str:
    """Run a command on a terminal, type something, and return what the terminal shows."""
    controller, terminal = pty.openpty()
    variables = {**os.environ, **(environment or {})}
    process = subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal, env=variables)
    os.close(terminal)
    if typed:
        os.write(controller, typed.encode())
    shown = b""
    while True:
        try:
            part = os.read(controller, 4096)
        except OSError:  # the terminal is closed
            break
        if not part:
            break
        shown += part
    process.wait()
    os.close(controller)
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("words", "following"),
    [
        (("versions", "show", "chrun"), "models list"),
        (("versions", "show", "churn", "99"), "versions list churn"),
        (("versions", "show", "churn", "Prod"), "versions list churn --stage production"),
        (("versions", "download", "churn", "latest"), "versions list churn --limit 1"),
        (("alias", "set", "churn", "99", "champion"), "versions list churn"),
        (("rollback", "churn", "--stage", "staging"), "history churn"),
    ],
)
def test_the_next_command_fits_the_missing_resource(vr: Run, data: str, words: tuple[str, ...], following: str) -> None:
    """If a model is missing, the next command lists models. If a version is missing, it lists the model's versions."""
    status, _, err = vr(*words)
    assert status == 3
    next_command = f"vertex-registry {following} --local {data}"
    assert err.endswith(f"\nnext:  {next_command}\n")
    assert vr(*shlex.split(next_command)[1:])[0] == 0


def test_a_key_that_no_version_has_is_named(vr: Run) -> None:
    """A typo in a metadata key is reported, because an empty column or table alone is easy to miss."""
    words = ("--where", "acuracy>=0.9", "--sort", "-acc", "--show", "Team", "--show", "team")
    status, _, err = vr("versions", "list", "churn", *words)
    assert status == 0
    assert err.splitlines() == [
        f"none of these versions has the metadata key {key!r}" for key in ("Team", "acuracy", "acc")
    ]
    assert vr("versions", "list", "churn", "--sort", "created", "--stage", "archived", "--where", "team=x")[2] == ""


@pytest.mark.parametrize(
    "words",
    [
        ["history", "churn", "--stage", "staging"],
        ["history", "churn", "--at", "2026-03-01", "--version", "1"],
        ["versions", "register", "churn", "gs://models/churn/4", "-m", "accuracy=1", "-m", "accuracy=2"],
    ],
)
def test_no_option_is_ignored(vr: Run, words: list[str]) -> None:
    """An option that would have no effect is a usage error, and nothing happens."""
    status, out, err = vr(*words)
    assert (status, out) == (2, "")
    assert "error: " in err
    assert vr("versions", "list", "churn", "--format", "ids")[1] == "3\n2\n1\n"


def test_an_emulator_that_cannot_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`emulator exec` says in one sentence what is wrong with the data file."""
    (tmp_path / "data").write_text("not a database")
    assert run(["emulator", "exec", "--data", str(tmp_path / "data"), "--", "true"]) == 1
    assert capsys.readouterr().err.startswith(f"error: The data file {tmp_path / 'data'} isn't an SQLite database.")


def test_values_that_a_condition_cannot_compare(vr: Run) -> None:
    """A condition that compares a number with text says why the table is empty."""
    for condition in ("accuracy>=0,9", "accuracy>0.8 and accuracy<0.92", "accuracy>=NaN"):
        status, out, err = vr("versions", "list", "churn", "--where", condition, "--format", "ids")
        assert (status, out) == (0, "")
        assert err == f"none of these versions has text in 'accuracy', as {condition!r} needs\n"
    assert vr("versions", "list", "churn", "--where", "team=growth", "--where", "accuracy>0.99")[2] == ""
    assert vr("versions", "list", "churn", "--where", "stage=production")[2] == (
        "none of these versions has the metadata key 'stage'. Use --stage\n"
    )


def test_a_metadata_key_does_not_replace_a_column(data: str, vr: Run) -> None:
    """A metadata key with the name of a column gets its own column."""
    with local_registry(data) as registry:
        registry.register_version("other", "gs://models/other/1", metadata={"stage": "beta"}, stage=Stage.PRODUCTION)
    header, row = vr("versions", "list", "other", "--show", "stage", "--show", "version")[1].splitlines()
    assert header.split() == ["VERSION", "NAME", "STAGE", "ALIASES", "AGE", "METADATA.STAGE", "METADATA.VERSION"]
    assert row.split() == ["1", "Production", "default", "now", "beta"]


def test_versions_without_a_difference(vr: Run) -> None:
    """Without differences, the command says so, instead of printing an empty table."""
    assert vr("versions", "diff", "churn", "3", "default") == (0, "", "no difference\n")
    assert json.loads(vr("versions", "diff", "churn", "3", "default", "--format", "json")[1])["changes"] == {}


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command, you see the help and no error."""
    assert run([]) == 2
    written = capsys.readouterr().err
    assert written.startswith("Usage: ")
    assert "error" not in written


def test_a_timeout_of_your_own(capsys: pytest.CaptureFixture[str]) -> None:
    """--timeout limits the retries, so you soon see that a service is unavailable."""
    assert run(["models", "list", "--endpoint", "127.0.0.1:1", "--project", "acme", "--timeout", "0.2"]) == 6
    assert "error: ListModels" in capsys.readouterr().err


def test_registering_into_a_stage_archives_the_others(vr: Run) -> None:
    """Like `promote`, registering into a stage archives what was in it, unless you pass --keep-others."""
    words = ("versions", "register", "churn", "gs://models/churn/4", "--format", "json")
    kept = json.loads(vr(*words, "--stage", "production", "--keep-others", "--no-make-default")[1])
    assert (kept["stage"], kept["is_default"]) == ("Production", False)
    assert json.loads(vr("versions", "show", "churn", "2", "--format", "json")[1])["stage"] == "Production"
    alone = json.loads(vr(*words, "--stage", "production")[1])
    assert (alone["stage"], alone["is_default"]) == ("Production", True)
    listed = json.loads(vr("versions", "list", "churn", "--stage", "archived", "--format", "json")[1])
    assert {"2", kept["version"]} <= {version["version"] for version in listed}


@pytest.mark.skipif(find_spec("mlflow") is not None, reason="MLflow is installed here")
def test_a_migration_without_mlflow(vr: Run) -> None:
    """The error names the extra to install. What's wrong with the URI comes first."""
    assert vr("migrate", "mlflow", "--from", "databricks")[::2] == (
        1,
        "error: Reading MLflow's registry needs MLflow. Install it: pip install 'vertex-registry[mlflow]'\n",
    )
    assert vr("migrate", "mlflow", "--from", "sqlite:///nowhere.db")[::2] == (
        3,
        "error: There's no database nowhere.db. Four slashes begin an absolute path: sqlite:////path.\n",
    )


def test_a_name_that_looks_like_an_option(vr: Run) -> None:
    """The error says how to type it."""
    status, _, err = vr("versions", "list", "-x")
    assert status == 2
    assert err.endswith("error: No such option '-x'. If it's a name, put -- in front of it, after all options.\n")


def test_two_commands_at_once(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command waits for another one to close the local registry's file, but not for a server."""
    registry = local_registry(data)

    class Terminal(io.StringIO):
        def write(self, text: str) -> int:
            registry.close()  # the other command ends while this one waits
            return super().write(text)

    assert run(["versions", "list", "churn", "--local", data, "--timeout", "0.1"]) == 5
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.endswith("is open in another command or emulator. Wait until it ends, or name another file.")
    shell = {"COMP_WORDS": f"vertex-registry versions list --local {data} ch", "COMP_CWORD": "5"}
    with contextlib.redirect_stderr(Terminal()) as terminal, pytest.MonkeyPatch.context() as environment:
        for variable, value in {"_VERTEX_REGISTRY_COMPLETE": "bash_complete", **shell}.items():
            environment.setenv(variable, value)
        with pytest.raises(SystemExit):
            run([])
        assert terminal.getvalue() == ""  # what's typed isn't mixed with a note
    with contextlib.redirect_stderr(Terminal()) as terminal:
        assert run(["versions", "list", "churn", "--local", data, "--format", "ids"]) == 0
    assert capsys.readouterr().out.split() == ["3", "2", "1"]
    assert terminal.getvalue() == f"waiting for {data}, which another command has open\n"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["list", "churn"], "Use `models list` or `versions list`."),
        (["register", "churn", "gs://models/1"], "Use `versions register`."),
        (["set", "churn"], "Use `alias set`."),
        (["help"], "Use --help."),
        (["promot"], "'promote'"),
    ],
)
def test_a_command_without_its_group(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the commands of that name, whichever group they're in."""
    assert run(words) == 2
    assert hint in capsys.readouterr().err.splitlines()[-1]


def test_metadata_that_is_almost_json(vr: Run) -> None:
    """A value that begins like JSON and isn't is kept as text, with a note; so is one that's nested too deeply."""
    status, _, err = vr("versions", "register", "other", "gs://models/1", "-m", 'a={"b": 1', "-m", "b=[draft] 2")
    assert status == 0
    assert err.splitlines() == ["'a' is text, because it isn't JSON", "'b' is text, because it isn't JSON"]
    for words in (["register", "other", "gs://models/1", "-m"], ["list", "churn", "--where"]):
        status, _, err = vr("versions", *words, f"a={'[' * 100_000}")
        assert "Traceback" not in err
        assert status == (1 if "-m" in words else 0)


def test_a_setting_of_a_registration_is_named_as_an_option(vr: Run) -> None:
    """What's too long is named as it was typed."""
    for option in ("--version-name", "--request-id"):
        status, _, err = vr("versions", "register", "other", "gs://models/1", option, "x" * 600)
        assert (status, err) == (
            1,
            f"error: {option} has 600 characters. Use 1 to {128 if 'name' in option else 512}.\n",
        )


def test_ctrl_c_during_an_import(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C while the command line is still being imported ends it like any other."""

    class Impatient:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "vertex_registry.cli._run":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "vertex_registry.cli._run")
    monkeypatch.setattr(sys, "meta_path", [Impatient, *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        cli_package.main(["models", "list"])
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "interrupted\n")
