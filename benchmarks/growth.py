"""Measure how cost grows: of lists and promotions with versions, of registrations with writers, of files with models.

    python -m benchmarks.growth [--quick] [--only versions|writers|file] [--charts docs/charts]

The times of lists, promotions and starts are medians of some rounds. Registrations are counted once, for some seconds.
``--quick`` stops at 10,000 versions instead of 100,000, and means fewer rounds and fewer seconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.charts import Chart, draw
from benchmarks.client import PRODUCTION, PROJECT, fill_model, new_model, pairs, read_model, read_record, registry
from benchmarks.emulator import PARENT, emulator, gapic, repeat, resident, sum_rates
from vertex_registry import RegistryClient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZES: Final = (10, 100, 1_000, 10_000, 100_000)
WRITERS: Final = (1, 2, 4, 8, 16, 32, 64)
_FORK: Final = multiprocessing.get_context("fork")


def versions(sizes: Sequence[int], rounds: int) -> dict[str, Chart]:
    """Measure lists and promotions of one model that grows."""
    lists: tuple[list[tuple[float, float]], ...] = ([], [])
    promotions: tuple[list[tuple[float, float]], ...] = ([], [])
    print("== growth-versions")
    print(
        "| versions | `list_versions`, ms | gapic's pager, ms | `set_stage(archive_existing=True)`, ms |"
        " `latest_version`, ms |\n|---|---|---|---|---|"
    )
    with registry() as running:
        have = 0
        of_big = {"name": f"{PARENT}/models/big", "page_size": 1000}
        for size in sizes:
            fill_model(running.google, running.channel, "big", have, size)
            have = size
            few = rounds if size < SIZES[-1] else 1
            listed = pairs(
                lambda: [read_record(version) for version in running.ours.list_versions("big")],
                lambda: [read_model(model) for model in running.google.list_model_versions(of_big)],
                few,
            )
            turns = iter(range(10**9))
            promoted, latest, _ = pairs(
                lambda: running.ours.set_stage("big", next(turns) % 2 + 1, PRODUCTION, archive_existing=True),  # noqa: B023 - it's called immediately
                lambda: running.ours.latest_version("big"),
                few,
            )
            for line, value in zip((*lists, *promotions), (*listed[:2], promoted, latest), strict=True):
                line.append((size, value))
            print(f"| {size:,} | {listed[0]:.1f} | {listed[1]:.1f} | {promoted:.1f} | {latest:.1f} |", flush=True)
    print(f"\nRounds: {rounds}{f', and 1 with {SIZES[-1]:,} versions' if sizes[-1] == SIZES[-1] else ''}.")
    return {
        "listing": Chart(
            "List every version of a model",
            "versions",
            "milliseconds",
            {"list_versions": lists[0], "gapic's pager": lists[1]},
        ),
        "promoting": Chart(
            "Promote a version and archive the other",
            "versions of the model",
            "milliseconds",
            {"set_stage": promotions[0], "latest_version": promotions[1]},
        ),
    }


def _writer(address: str, name: str, ready: Any, seconds: float, counts: Any) -> None:
    with RegistryClient(project=PROJECT, location="us-central1", endpoint=address) as client:
        client.register_version(name, "gs://models/1")
        ready.wait()
        counts.put(repeat(lambda: client.register_version(name, "gs://models/1"), seconds))


def _rate(writers: int, name_of: Callable[[int], str], seconds: float) -> float:
    """Return how many versions per second all writers together register."""
    with emulator() as (address, _, _):
        return sum_rates(_writer, [(address, name_of(number)) for number in range(writers)], seconds)


def writers(counts: Sequence[int], seconds: float) -> dict[str, Chart]:
    """Measure registrations of several processes at once."""
    import vertex_registry._rpc  # noqa: F401, PLC0415 - the children inherit it, and needn't import it themselves

    one: list[tuple[float, float]] = []
    own: list[tuple[float, float]] = []
    print("== growth-writers\n| writers | one model, versions/s | a model each, versions/s |\n|---|---|---|")
    for count in counts:
        one.append((count, _rate(count, lambda _: "churn", seconds)))
        own.append((count, _rate(count, lambda number: f"churn {number}", seconds)))
        print(f"| {count} | {one[-1][1]:.0f} | {own[-1][1]:.0f} |", flush=True)
    print(f"\nRounds: 1, of {seconds:g} s.")
    return {
        "registering": Chart(
            "Register versions from several processes",
            "writers",
            "versions per second, all together",
            {"one model": one, "a model each": own},
        )
    }


def file(sizes: Sequence[int], rounds: int) -> dict[str, Chart]:
    """Measure the emulator's file: its size, the time to start with it, and the memory of a process after that."""
    lines: dict[str, list[tuple[float, float]]] = {"file, KiB": [], "start with it, ms": [], "memory, KiB": []}
    print("== growth-file\n| models | file, KiB | start with it, ms | resident memory, KiB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "registry.db")
        have = 0
        for size in (1, *sizes):
            with emulator("--data", str(data)) as (address, _, _):
                _in_process(_fill_models, address, have, size)
            have = size
            kibibytes = sum(path.stat().st_size for path in Path(folder).glob("registry.db*")) / 1024
            starts = [_start(data) for _ in range(rounds)]
            took, memory = (statistics.median(values) for values in zip(*starts, strict=True))
            for line, value in zip(lines.values(), (kibibytes, took, memory), strict=True):
                line.append((size, value))
            print(f"| {size:,} | {kibibytes:,.0f} | {took:.0f} | {memory:,.0f} |", flush=True)
    print(f"\nRounds: {rounds}.")
    return {"file": Chart("The emulator's file, with one version of each model", "models", "KiB, ms", lines)}


def _start(data: Path) -> tuple[float, float]:
    """Start the emulator with a file, and return the milliseconds until it serves, and its KiB of memory then."""
    begin = time.perf_counter()
    with emulator("--data", str(data)) as (_, pid, _):
        return (time.perf_counter() - begin) * 1000, resident(pid) * 1024


def _fill_models(address: str, first: int, last: int) -> None:
    import grpc  # noqa: PLC0415 - only this process may use it

    from benchmarks.client import fill  # noqa: PLC0415 - likewise

    gapic(address)
    fill(grpc.insecure_channel(address), (new_model(f"m-{number}") for number in range(first, last)))


def _in_process(work: Callable[..., None], *arguments: Any) -> None:
    """Call a function in a new process."""
    process = _FORK.Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit("a registry couldn't be filled")


def main() -> None:
    """Measure, print the tables, and draw the charts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="stop at a tenth of the versions, and fewer rounds")
    parser.add_argument("--only", choices=["versions", "writers", "file"])
    parser.add_argument("--charts", type=Path, help="the folder for the charts")
    given = parser.parse_args()
    sizes = SIZES[:-1] if given.quick else SIZES
    charts: dict[str, Chart] = {}
    # The writers are forked, so they come before this process uses gRPC.
    if given.only in {None, "writers"}:
        charts |= writers(WRITERS, 1 if given.quick else 4)
    if given.only in {None, "file"}:
        charts |= file(SIZES, 1 if given.quick else 3)
    if given.only in {None, "versions"}:
        charts |= versions(sizes, 3)
    if given.charts is not None:
        given.charts.mkdir(exist_ok=True)
        for name, chart in charts.items():
            (given.charts / f"{name}.svg").write_text(draw(chart), encoding="utf-8")


if __name__ == "__main__":
    main()
