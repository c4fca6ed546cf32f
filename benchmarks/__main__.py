"""Run every benchmark, and write the tables of docs/performance.md and the charts in docs/charts: `make bench`.

    python -m benchmarks [--quick] [--dry-run] [--only client growth-file ...]

It runs on Linux only, because it reads processor time and memory from ``/proc``.

Each part runs in its own process and takes some minutes. A name without its ending means all parts that begin with it,
so ``--only storage`` measures three. A part prints tables, each after a line such as ``== client``. A table replaces
the text between ``<!-- begin client -->`` and ``<!-- end client -->`` on the page. The rest of the page is written by
hand.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCS: Final = Path(__file__).parents[1] / "docs"
PAGE: Final = DOCS / "performance.md"
CHARTS: Final = DOCS / "charts"
#: The packages whose versions each table names, by the module of its part.
PACKAGES: Final = {
    "client": ("google-cloud-aiplatform", "grpcio", "moto"),
    "growth": ("google-cloud-aiplatform", "grpcio"),
    "emulator": ("google-cloud-aiplatform", "grpcio", "boto3", "moto"),
    "storage": ("google-cloud-storage", "obstore"),
}
#: The parts: the module of each, and its options.
PARTS: Final = {
    "client": ("client",),
    "growth-versions": ("growth", "--only", "versions"),
    "growth-writers": ("growth", "--only", "writers"),
    "growth-file": ("growth", "--only", "file"),
    "emulator-compare": ("emulator", "--only", "compare"),
    "emulator-rest": ("emulator", "--only", "rest"),
    "emulator-durable": ("emulator", "--only", "durable"),
    "emulator-sizes": ("emulator", "--only", "sizes"),
    "storage-one": ("storage", "--only", "one"),
    "storage-small": ("storage", "--only", "small"),
    "storage-many": ("storage", "--only", "many"),
}


def parts_of(names: Sequence[str]) -> list[str]:
    """Return the parts that these names mean."""
    for name in names:
        if not any(f"{part}-".startswith(f"{name}-") for part in PARTS):
            raise SystemExit(f"There's no part {name!r}. Choose from: {', '.join(PARTS)}.")
    return [part for part in PARTS if any(f"{part}-".startswith(f"{name}-") for name in names)]


def run(part: str, *options: str) -> str:
    """Run a part, print its output, and return it."""
    lines = []
    module, *own = PARTS[part]
    command = [sys.executable, "-m", f"benchmarks.{module}", *own, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - one of these benchmarks
        assert process.stdout is not None  # noqa: S101 - it's a pipe
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        raise SystemExit(f"{part} failed with status {process.returncode}")
    return "".join(lines)


def tables(printed: str) -> dict[str, str]:
    """Return the tables in a benchmark's output, by name."""
    parts = re.split(r"^== (\S+)\n", printed, flags=re.MULTILINE)
    return {name: table.strip() for name, table in zip(parts[1::2], parts[2::2], strict=True)}


def replace_tables(page: str, found: dict[str, str], conditions: str) -> str:
    """Return a page with these tables in it, each followed by its conditions."""
    for name, table in found.items():
        block = f"<!-- begin {name} -->\n\n{table}\n\n{conditions}\n\n<!-- end {name} -->"
        before, begin, rest = page.partition(f"<!-- begin {name} -->")
        _, end, after = rest.partition(f"<!-- end {name} -->")
        if not begin or not end:
            raise SystemExit(f"The page lacks the comments <!-- begin {name} --> and <!-- end {name} -->. Add them.")
        page = f"{before}{block}{after}"
    return page


def conditions(part: str, *, quick: bool) -> str:
    """Return a sentence with the date, the commit, the machine and the versions of the measurement."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES[PARTS[part][0]])
    how = "`make bench QUICK=1`" if quick else "`make bench`"
    load = os.getloadavg()[0]
    return (
        f"Measured on {time.strftime('%Y-%m-%d')} with {how} at commit {commit()}: {os.cpu_count()} cores of "
        f"{processor()}, load average before it {load:.1f}, Python {platform.python_version()}, {versions}."
    )


def commit() -> str:
    """Return the commit of this folder. If a file of the code has been changed since, the commit says so."""
    command = ("git", "-C", str(DOCS.parent))
    found = subprocess.run((*command, "rev-parse", "--short", "HEAD"), check=True, capture_output=True, text=True)  # noqa: S603 - fixed words
    changed = subprocess.run((*command, "diff", "--quiet", "HEAD", "--", "*.py"), check=False)  # noqa: S603 - likewise
    return found.stdout.strip() + (" with changes" if changed.returncode else "")


def processor() -> str:
    """Return the model of the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def main() -> None:
    """Run the benchmarks and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes, for some minutes")
    parser.add_argument("--only", nargs="+", metavar="PART", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--dry-run", action="store_true", help="print, but don't change the page and the charts")
    given = parser.parse_args()
    for part in parts_of(given.only):
        before = conditions(part, quick=given.quick)
        options = ["--quick"] if given.quick else []
        if PARTS[part][0] == "growth" and not given.dry_run:
            options += ["--charts", str(CHARTS)]
        found = tables(run(part, *options))
        if not given.dry_run:
            PAGE.write_text(replace_tables(PAGE.read_text(encoding="utf-8"), found, before), encoding="utf-8")


if __name__ == "__main__":
    main()
