"""Run several processes against an emulator, and check their results: python -m tests.histories."""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.histories.checker import WINDOWS, excerpt
from tests.histories.plan import THEMES, rounds
from tests.histories.run import check, clear, run_round

if TYPE_CHECKING:
    from tests.histories.run import Report


def main() -> int:
    """Run, print a summary, and return the exit status: 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.histories", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to run, without the checks (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the plan (%(default)s)")
    parser.add_argument("--processes", type=int, default=4, help="the number of clients besides Google's (%(default)s)")
    parser.add_argument("--round", type=float, default=10.0, help="the length of a round in seconds (%(default)s)")
    parser.add_argument("--transport", choices=("both", "grpc", "rest"), default="both")
    parser.add_argument("--themes", nargs="+", choices=THEMES, default=list(THEMES), help="which themes to use")
    parser.add_argument(
        "--show", type=int, default=2, help="how many violations of each promise to print (%(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="the folder for histories; those without violations are removed")
    parser.add_argument(
        "--check", type=Path, metavar="FOLDER", help="run nothing: check the recorded history of a round"
    )
    options = parser.parse_args()
    if options.check:
        report = check(options.check)
        for violation in report.violations:
            _print(excerpt(violation, report.operations) + "\n")
        return 1 if report.violations else 0
    folder = options.folder or Path(tempfile.mkdtemp(prefix="histories-"))
    summary, printed = Summary(), collections.Counter[str]()
    began = time.monotonic()
    for plan in rounds(options.seed, options.seconds, options.processes, length=options.round, themes=options.themes):
        round_folder = folder / str(plan.number)
        round_folder.mkdir(parents=True)
        report = run_round(plan, round_folder, transport=options.transport)
        _print(f"round {plan.number}: {len(report.operations)} operations, {len(report.violations)} violations, "
              f"switches {' '.join(plan.switches) or 'none'}")  # fmt: skip
        for violation in report.violations:
            if printed[violation.promise] < options.show:
                printed[violation.promise] += 1
                _print(excerpt(violation, report.operations) + "\n")
        if not report.violations:
            clear(round_folder)
        summary.add(report)
    summary.print(time.monotonic() - began)
    if summary.broken:
        _print(f"The histories with violations are in {folder}.")
    return 1 if summary.broken else 0


@dataclass
class Summary:
    """The totals of all rounds. The operations themselves aren't kept, because there are many."""

    operations: int = 0
    events: collections.Counter[str] = field(default_factory=collections.Counter)
    excused: collections.Counter[str] = field(default_factory=collections.Counter)
    broken: collections.Counter[str] = field(default_factory=collections.Counter)
    outcomes: dict[str, collections.Counter[str]] = field(default_factory=dict)
    longest: collections.Counter[str] = field(default_factory=collections.Counter)

    def add(self, report: Report) -> None:
        """Add a round."""
        self.operations += len(report.operations)
        self.events += report.events
        self.excused += report.excused
        self.broken.update(violation.promise for violation in report.violations)
        for operation in report.operations:
            if operation.verb == "snapshot":
                continue
            self.outcomes.setdefault(operation.verb, collections.Counter())[operation.error or "ok"] += 1
            if operation.error != "killed":
                milliseconds = int(1000 * (operation.returned - operation.began))
                self.longest[operation.verb] = max(self.longest[operation.verb], milliseconds)

    def print(self, seconds: float) -> None:
        """Print the summary."""
        events = [f"{self.events[event]} x {event}" for event in ("fault", "client killed", "emulator killed")]
        _print(f"{self.operations} operations in {seconds:.0f} s, {', '.join(events)}")
        for verb, counts in sorted(self.outcomes.items()):
            ends = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
            _print(f"  {verb:22} longest {self.longest[verb] / 1000:5.1f} s   {ends}")
        for window, count in sorted(self.excused.items()):
            _print(f"  excused {count} x {window}: {WINDOWS[window]}")
        found = ", ".join(f"{count} x {promise}" for promise, count in self.broken.most_common())
        _print(f"Violations: {found or 'none'}")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
