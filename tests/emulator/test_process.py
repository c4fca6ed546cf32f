"""The emulator's command, and the data files of killed and closed emulators."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from google.api_core import exceptions

from vertex_registry.emulator import DataFileError, Emulator
from vertex_registry.emulator.__main__ import main
from vertex_registry.emulator._switches import SWITCHES

if TYPE_CHECKING:
    from collections.abc import Callable

    # Google's client takes dictionaries where its types name messages.
    Client = Any
    Start = Callable[..., Emulator]
    Connect = Callable[..., Client]
    Upload = Callable[..., str]

COMMAND = [sys.executable, "-m", "vertex_registry.emulator", "--grpc-port", "0", "--rest-port", "0"]


class _Addresses:
    """The addresses of a process, in the form that ``connect`` accepts."""

    def __init__(self, line: str) -> None:
        addresses = json.loads(line)
        self.grpc, self.rest = addresses["grpc"], addresses["rest"]


def test_a_killed_emulator_loses_no_answered_upload(
    start: Start, connect: Connect, upload: Upload, tmp_path: Path
) -> None:
    """After kill -9, every answered upload is complete, and no version number is reused."""
    data = tmp_path / "data"
    with subprocess.Popen([*COMMAND, "--data", str(data)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        addresses = _Addresses(process.stdout.readline())
        clients = [connect(addresses, transport) for transport in ("grpc", "grpc", "rest")]
        bare = upload(clients[0], model_id="mine").partition("@")[0]
        answered: list[str] = []
        enough = threading.Event()

        def work(client: Client) -> None:
            while True:
                try:
                    name = upload(client, under=bare, labels={"a": "b"}, version_aliases=["default"])
                except Exception:  # noqa: BLE001 - however the connection breaks
                    return
                answered.append(name)
                if len(answered) > 40:
                    enough.set()

        with ThreadPoolExecutor(len(clients)) as pool:
            for client in clients:
                pool.submit(work, client)
            assert enough.wait(60)
            process.kill()
    assert process.returncode == -signal.SIGKILL

    client = connect(start(data))

    versions = {version.name: version for version in client.list_model_versions(name=bare)}
    assert set(answered) <= set(versions)
    assert all(dict(versions[name].labels) == {"a": "b"} for name in answered)
    assert [alias for version in versions.values() for alias in version.version_aliases] == ["default"]
    newest = max(int(version.version_id) for version in versions.values())
    assert list(versions) == [f"{bare}@{n}" for n in range(1, newest + 1)]
    assert upload(client, under=bare) == f"{bare}@{newest + 1}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    """The status is 0 without a message, even if a fault is unused, and the file can be opened again.

    So it is if somebody is impatient, and sends another signal.
    """
    data = tmp_path / "data"
    command = [*COMMAND, "--data", str(data), "--assume", "list-lag=2", "--polls-until-done", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        addresses = _Addresses(process.stdout.readline())
        with pytest.raises(DataFileError, match="is open in another emulator"):
            Emulator(data)
        planned = {"rpc": "GetModel", "code": "ABORTED"}
        assert requests.post(f"{addresses.rest}/emulator/faults", json=planned, timeout=10).ok
        process.send_signal(number)
        process.send_signal(signal.SIGTERM if number is signal.SIGINT else signal.SIGINT)
        rest, errors = process.communicate(timeout=60)

    assert addresses.grpc.startswith("127.0.0.1:")
    assert addresses.rest.startswith("http://127.0.0.1:")
    assert (process.returncode, rest, errors) == (0, "", "")
    assert list(tmp_path.iterdir()) == [data]


def test_a_file_that_is_not_a_database_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 2, with a sentence. The signal mask is unchanged."""
    data = tmp_path / "notes.txt"
    data.write_text("My notes.")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])

    status = main(["--data", str(data), "--grpc-port", "0", "--rest-port", "0"])

    assert status == 2
    assert "isn't an SQLite database" in capsys.readouterr().err
    assert data.read_text() == "My notes."
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_file_that_is_damaged_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 2, with a sentence."""
    data = tmp_path / "data"
    Emulator(data).close()
    with data.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 200_000)

    assert main(["--data", str(data), "--grpc-port", "0", "--rest-port", "0"]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"The data file {data} is damaged: ")


def test_unwritable_addresses_end_it() -> None:
    """The status is 2, with a sentence and no traceback."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(COMMAND, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "The addresses can't be written: No space left on device. Redirect standard output elsewhere."
    ]


@pytest.mark.parametrize("given", [["--assume", "nonsense"], ["--nonsense"], ["--grpc-port", "x"]])
def test_invalid_arguments_end_it(given: list[str]) -> None:
    """The status is 2, as usual with argparse."""
    with pytest.raises(SystemExit) as caught:
        main(given)

    assert caught.value.code == 2


def test_an_unknown_assumption_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The message lists the switches that exist."""
    assert main(["--assume", "nonsense=1"]) == 2
    assert "labels-at-upload" in capsys.readouterr().err


def test_help_lists_the_switches(capsys: pytest.CaptureFixture[str]) -> None:
    """Every switch is listed with its values and its evidence."""
    with pytest.raises(SystemExit):
        main(["--help"])

    text = " ".join(capsys.readouterr().out.split())
    for name, switch in SWITCHES.items():
        assert f"--assume {name}={'|'.join(switch.values)}" in text
        assert switch.evidence in text


def test_a_file_is_opened_again(start: Start, connect: Connect, upload: Upload, parent: str, tmp_path: Path) -> None:
    """The file keeps models, versions, labels, aliases, evaluations and operations. Lists show them immediately."""
    data = tmp_path / "data"
    first = start(data)
    client = connect(first)
    bare = upload(client, model_id="mine", labels={"a": "b"}).partition("@")[0]
    upload(client, under=bare, version_aliases=["gold"])
    evaluation = client.import_model_evaluation(parent=bare, model_evaluation={"display_name": "e"})
    client.delete_model_version(name=f"{bare}@2").result()
    operation = client.copy_model(parent=parent, source_model=bare).operation
    before = client.get_model(name=bare)
    first.close()

    client = connect(start(data, assume={"list-lag": "5"}))

    assert client.get_model(name=bare) == before
    assert len(list(client.list_models(request={"parent": parent, "filter": "labels.a=b"}))) == 2
    assert client.get_model_evaluation(name=evaluation.name) == evaluation
    assert client.get_operation({"name": operation.name}) == operation
    with pytest.raises(exceptions.NotFound):
        client.get_model(name=f"{bare}@gold")
    assert upload(client, under=bare) == f"{bare}@3"


@pytest.mark.parametrize("lag", ["0", "3"])
def test_a_file_is_opened_under_another_assumption(
    start: Start, connect: Connect, upload: Upload, parent: str, tmp_path: Path, lag: str
) -> None:
    """Filters immediately use the labels that the new switch shows, even if lists lag."""
    data = tmp_path / "data"
    first = start(data, assume={"label-wins": "model"})
    client = connect(first)
    bare = upload(client, model_id="mine", labels={"k": "version"}).partition("@")[0]
    client.update_model(request={"model": {"name": bare, "labels": {"k": "model"}}, "update_mask": "labels"})
    first.close()

    client = connect(start(data, assume={"list-lag": lag}))

    (model,) = client.list_models(parent=parent)
    assert dict(model.labels) == {"k": "version"}
    assert list(client.list_models(request={"parent": parent, "filter": "labels.k=version"})) == [model]
    assert list(client.list_models(request={"parent": parent, "filter": "labels.k=model"})) == []
