"""The fidelity report: each answer in which a service differs from the emulator, as text for an issue."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.cassettes.questions import Difference
    from tests.live.probes import Reply

_LONGEST: Final = 160


def report(
    replies: Sequence[Reply],
    differences: Iterable[Difference],
    *,
    about: str,
    conversations: int,
    redact: Callable[[str], str] = str,
) -> str:
    """Return the report as Markdown.

    Args:
        replies: What the service answers to the probes.
        differences: Where its other answers differ from the emulator's.
        about: Which service it was, when, and by whom.
        conversations: How many conversations were compared.
        redact: A function that removes secret words from a text.
    """
    differing = [reply for reply in replies if reply.differs]
    grouped = group(differences, redact)
    lines = ["# Fidelity report", "", about, ""]
    lines += [
        "## Questions",
        "",
        f"{len(differing)} of {len(replies)} are answered otherwise than by the emulator.",
        "",
    ]
    for reply in differing:
        lines += [
            f"### {reply.probe.letter}. {reply.probe.question}",
            "",
            f"* sent: {reply.probe.sends}",
            f"* the emulator: {' or '.join(reply.probe.emulator)}",
            f"* the service: **{redact(reply.said)}**",
        ]
        lines += [f"* in its words: {sentence}" for sentence in reply.sentences]
        lines += [f"* a switch of the emulator is about it: `{reply.probe.switch}`"] if reply.probe.switch else []
        lines += [""]
    if agreed := [reply for reply in replies if not reply.differs]:
        lines += ["Answered as by the emulator:", ""]
        lines += [f"* {reply.probe.letter}. {reply.probe.question} {_cell(redact(reply.said))}" for reply in agreed]
        lines += [""]
    lines += ["## Answers", ""]
    lines += [f"{len(grouped)} kinds of answers differ in {conversations} conversations.", ""]
    if grouped:
        lines += ["| RPC | where | the emulator | the service | times | for example |", "|---|---|---|---|---|---|"]
        for (rpc, where, given, recorded), ones in grouped.items():
            cells = (rpc, f"`{where}`", given, recorded, str(len(ones)), redact(ones[0].question))
            lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
        lines += [""]
    return "\n".join(lines)


def group(
    differences: Iterable[Difference], redact: Callable[[str], str] = str
) -> dict[tuple[str, str, str, str], list[Difference]]:
    """Group differences by RPC, field, the emulator's value and the service's value."""
    grouped = defaultdict(list)
    for one in differences:
        grouped[one.rpc, one.where, _shown(one.given, redact), _shown(one.recorded, redact)].append(one)
    return dict(sorted(grouped.items()))


def _shown(value: Any, redact: Callable[[str], str]) -> str:
    text = redact(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _cell(text: str) -> str:
    return "".join(
        itertools.chain.from_iterable("\\|" if letter == "|" else letter for letter in text.replace("\n", " "))
    )
