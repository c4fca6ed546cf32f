"""A short run, with fixed seeds: several processes, faults and kills break no promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.histories.checker import excerpt
from tests.histories.plan import rounds
from tests.histories.run import run_round

if TYPE_CHECKING:
    from pathlib import Path

    from tests.histories.plan import Round

SHORT = list(rounds(seed=7, seconds=4, processes=4, length=2, together=5))


@pytest.mark.parametrize("plan", SHORT, ids=[" ".join(plan.themes.values()) for plan in SHORT])
def test_a_short_run(plan: Round, tmp_path: Path) -> None:
    """Every promise is kept, whatever happens at once and whichever process is killed."""
    report = run_round(plan, tmp_path)
    found = "\n\n".join(excerpt(violation, report.operations) for violation in report.violations)
    assert not report.violations, f"\n\n{found}"
    assert report.events["client killed"]
    assert any(operation.ok and operation.verb == "register_version" for operation in report.operations)


def test_the_seed_decides() -> None:
    """The same seed plans the same steps and kills, and another one plans others."""
    same, again = (next(rounds(3, 5, 4, length=5)) for _ in range(2))
    other = next(rounds(4, 5, 4, length=5))

    def steps(plan: Round) -> list[str]:
        return [str(step) for step, _ in zip(plan.steps("0.0", foreign=False), range(50), strict=False)]

    assert steps(same) == steps(again) != steps(other)
    assert any(step.fault for step, _ in zip(same.steps("0.0", foreign=False), range(50), strict=False))
    assert same.mishaps() == again.mishaps() != other.mishaps()
