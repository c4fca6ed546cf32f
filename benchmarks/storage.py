"""Compare uploads and downloads with Google's own tools and obstore.

    python -m benchmarks.storage [--quick] [--rounds 5] [--only one|small|many]

It transfers one file of 1 GiB, 400 files of 16 KiB, and 1 GiB in 100 files.

Every tool uploads the same files to the same local fake-gcs-server and downloads them again, in random order, each time
with an empty directory and an empty bucket. A ratio is the tool's time divided by this package's in the same round, and
the table has the median of the rounds' ratios. Above 1, this package is faster. Server and tools share the machine, and
the server uses most of it. Processor time includes the tool and the server. Other work on the machine affects it less.
google-cloud-storage's ``transfer_manager`` runs with eight processes (its default) and with eight threads, like this
package. One file is downloaded in parts of 32 MiB, as its documentation recommends. obstore can't upload here.
"""

from __future__ import annotations

import argparse
import asyncio
import filecmp
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import obstore
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client, transfer_manager

from tests.storage.server import running
from vertex_registry.artifacts import Storage, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tests.storage.server import StorageServer

OURS: Final = "vertex_registry"
WAYS: Final = ("up", "down")
WORKERS: Final = 8
#: The bytes of a folder that is kept until the end. For minutes after many files were deleted, ext4 takes ten times as
#: long to create one, because it doesn't use their numbers again so soon. That would be most of what is measured.
KEEP: Final = 2**24


def ours_up(_server: StorageServer, folder: Path, bucket: str) -> str:
    """Upload with this package, which includes computing the digest."""
    return Storage(progress=False).upload(scan(folder), f"gs://{bucket}/model").removeprefix(f"gs://{bucket}/")


def ours_down(_server: StorageServer, bucket: str, prefix: str, folder: Path) -> None:
    """Download with this package."""
    Storage(progress=False).download(f"gs://{bucket}/{prefix}", folder)


def transfer_up(worker: str) -> Callable[[StorageServer, Path, str], str]:
    """Return a function that uploads with google-cloud-storage's transfer_manager."""

    def up(server: StorageServer, folder: Path, bucket: str) -> str:
        results = transfer_manager.upload_many_from_filenames(
            _client(server).bucket(bucket),
            [path.name for path in folder.iterdir()],
            source_directory=str(folder),
            blob_name_prefix="model/",
            worker_type=worker,
            max_workers=WORKERS,
            raise_exception=True,
        )
        return "model" if results else ""

    return up


def transfer_down(worker: str) -> Callable[[StorageServer, str, str, Path], None]:
    """Return a function that downloads with google-cloud-storage's transfer_manager."""

    def down(server: StorageServer, bucket: str, prefix: str, folder: Path) -> None:
        client = _client(server)
        blobs = list(client.list_blobs(bucket, prefix=f"{prefix}/"))
        if len(blobs) == 1:
            folder.mkdir()
            transfer_manager.download_chunks_concurrently(
                blobs[0],
                str(folder / blobs[0].name.rpartition("/")[2]),
                chunk_size=32 * 2**20,
                worker_type=worker,
                max_workers=WORKERS,
            )
            return
        transfer_manager.download_many_to_path(
            client.bucket(bucket),
            [blob.name.removeprefix(f"{prefix}/") for blob in blobs],
            destination_directory=str(folder),
            blob_name_prefix=f"{prefix}/",
            worker_type=worker,
            max_workers=WORKERS,
            raise_exception=True,
        )

    return down


def gcloud_up(server: StorageServer, folder: Path, bucket: str) -> str:
    """Upload with gcloud storage cp."""
    _gcloud(server, f"{folder}/*", f"gs://{bucket}/model/")
    return "model"


def gcloud_down(server: StorageServer, bucket: str, prefix: str, folder: Path) -> None:
    """Download with gcloud storage cp."""
    folder.mkdir()
    _gcloud(server, f"gs://{bucket}/{prefix}/*", str(folder))


def put(server: StorageServer, folder: Path, bucket: str) -> str:
    """Upload each file in one request, because with parts, the server copies the whole file for each part."""
    for path in folder.iterdir():
        server.put(bucket, f"model/{path.name}", path.read_bytes())
    return "model"


def obstore_down(server: StorageServer, bucket: str, prefix: str, folder: Path) -> None:
    """Download with obstore, several files at a time. It doesn't compare checksums."""
    store = obstore.store.GCSStore(
        bucket, config={"base_url": server.url, "bearer_token": "none"}, client_options={"allow_http": True}
    )
    folder.mkdir()
    limit = asyncio.Semaphore(WORKERS)

    async def fetch(name: str) -> None:
        async with limit:
            found = await obstore.get_async(store, name)
            with (folder / name.rpartition("/")[2]).open("wb") as file:
                async for part in found.stream(min_chunk_size=8 * 2**20):
                    file.write(part)

    async def fetch_all() -> None:
        names = [entry["path"] for entries in obstore.list(store, prefix=prefix) for entry in entries]
        await asyncio.gather(*map(fetch, names))

    asyncio.run(fetch_all())


def _client(server: StorageServer) -> Client:
    options = {"api_endpoint": server.url}
    return Client(project="test", credentials=AnonymousCredentials(), client_options=options)  # type: ignore[no-untyped-call]  # untyped upstream


def _gcloud(server: StorageServer, *arguments: str) -> None:
    settings = {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{server.url}/storage/v1/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CORE_PROJECT": "test",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "true",
        "CLOUDSDK_STORAGE_PARALLEL_COMPOSITE_UPLOAD_ENABLED": "false",
    }
    command = ["gcloud", "storage", "cp", "--no-user-output-enabled", *arguments]
    subprocess.run(command, env={**os.environ, **settings}, check=True, capture_output=True, timeout=600)  # noqa: S603


def warm_up(server: StorageServer, folder: Path, tools: Iterable[str]) -> None:
    """Import what this process needs. Tools with their own processes import it in each round."""
    folder.mkdir()
    (folder / "one").write_bytes(b"1")
    server.make_bucket("warm-up")
    for tool in tools:
        if tool == OURS:
            ours_up(server, folder, "warm-up")
        elif tool.endswith("threads"):
            transfer_up("thread")(server, folder, "warm-up")


def processor(server: StorageServer) -> float:
    """Return the seconds of processor time of this process, its ended children and the server, on Linux."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ticks = Path(f"/proc/{server.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
    return sum(one.ru_utime + one.ru_stime for one in used) + sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def report(
    times: Mapping[tuple[str, str], list[tuple[float, float]]], ways: Iterable[str], tools: Iterable[str], rounds: int
) -> None:
    """Print the table, with the tools in this order."""
    print("| direction | tool | median time | fastest | time ratio | processor time | processor ratio |")
    print("|---|---|---|---|---|---|---|")
    for way in ways:
        for tool in tools:
            if (tool, way) not in times:
                continue
            medians, ratios = [], []
            for what in (0, 1):
                theirs = [taken[what] for taken in times[tool, way]]
                ours = [taken[what] for taken in times[OURS, way]]
                medians.append(f"{statistics.median(theirs):.2f} s")
                ratios.append(f"{statistics.median(one / other for one, other in zip(theirs, ours, strict=True)):.2f}")
            fastest = f"{min(taken[0] for taken in times[tool, way]):.2f} s"
            print(f"| {way} | {tool} | {medians[0]} | {fastest} | {ratios[0]} | {medians[1]} | {ratios[1]} |")
    print(f"\nRounds: {rounds}.")


class Folder(NamedTuple):
    """The files to transfer: their number, their size in bytes altogether, and the directions to measure."""

    about: str
    files: int
    size: int
    ways: tuple[str, ...]


FOLDERS: Final = {
    "one": Folder("One file of 1 GiB", 1, 2**30, ("down",)),
    "small": Folder("400 files of 16 KiB", 400, 400 * 2**14, ("up", "down")),
    "many": Folder("1 GiB in 100 files", 100, 2**30, ("up", "down")),
}


class Tool(NamedTuple):
    """The functions of a tool that transfer a folder. None if it can't upload."""

    up: Callable[[StorageServer, Path, str], str] | None
    down: Callable[[StorageServer, str, str, Path], None]


def measure(server: StorageServer, root: Path, folder: Folder, tools: Mapping[str, Tool], rounds: int) -> None:
    """Measure, and print a table."""
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    model, kept = root / "model", root / "kept"
    model.mkdir()
    for number in range(folder.files):
        (model / f"part-{number:03}").write_bytes(os.urandom(folder.size // folder.files))
    for turn in range(rounds):
        for index, tool in enumerate(random.sample(list(tools), len(tools))):
            up, down = tools[tool]
            bucket = f"bucket-{folder.files}-{folder.size}-{turn}-{index}"
            fetched = kept / bucket
            kept.mkdir(exist_ok=True)
            server.make_bucket(bucket)
            os.sync()  # finish the writes of the previous tool
            marks = [(time.perf_counter(), processor(server))]
            prefix = (up if up and "up" in folder.ways else put)(server, model, bucket)
            marks.append((time.perf_counter(), processor(server)))
            down(server, bucket, prefix, fetched)
            marks.append((time.perf_counter(), processor(server)))
            if not all(filecmp.cmp(path, fetched / path.name, shallow=False) for path in model.iterdir()):
                raise SystemExit(f"{tool} returned other bytes than it uploaded")
            if folder.size > KEEP:
                for name in server.names(bucket):
                    server.call("DELETE", f"/storage/v1/b/{bucket}/o/{name.replace('/', '%2F')}")
                shutil.rmtree(fetched)
            for way, before, after in zip(WAYS, marks, marks[1:], strict=False):
                if way in folder.ways and (way == "down" or up):
                    taken = (after[0] - before[0], after[1] - before[1])
                    times.setdefault((tool, way), []).append(taken)
                    print(f"round {turn + 1}  {tool:28} {way:5} {taken[0]:6.2f} s", file=sys.stderr, flush=True)
    shutil.rmtree(model)
    shutil.rmtree(kept)
    report(times, folder.ways, tools, rounds)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=FOLDERS)
    asked = parser.parse_args()
    tools = {
        OURS: Tool(ours_up, ours_down),
        "transfer_manager, processes": Tool(transfer_up("process"), transfer_down("process")),
        "transfer_manager, threads": Tool(transfer_up("thread"), transfer_down("thread")),
        "obstore": Tool(None, obstore_down),
    }
    if shutil.which("gcloud") and not asked.quick:
        tools["gcloud storage cp"] = Tool(gcloud_up, gcloud_down)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as root, running() as server:
        os.environ["STORAGE_EMULATOR_HOST"] = server.url
        os.environ["XDG_CACHE_HOME"] = os.environ["CLOUDSDK_CONFIG"] = f"{root}/config"
        warm_up(server, Path(root) / "warm", tools)
        for name, folder in FOLDERS.items():
            if asked.only in {None, name}:
                print(f"== storage-{name}")
                measure(server, Path(root), folder, tools, 2 if asked.quick else asked.rounds)


if __name__ == "__main__":
    main()
