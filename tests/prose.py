"""Measure how the documentation and the comments read: `python -m tests.prose`, part of `make check`.

It's a guard that catches a slide back into long, stiff sentences. A text that passes isn't good yet.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROOT: Final = Path(__file__).parents[1]

PAGES: Final = (
    *sorted(ROOT.glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("cassettes", "tests")),
    *sorted((ROOT / "docs").glob("*.md")),
)

MODULES: Final = (
    *sorted(ROOT.glob("*.py")),
    *(
        file
        for folder in ("vertex_registry", "tests", "benchmarks", "examples")
        for file in sorted((ROOT / folder).rglob("*.py"))
    ),
)

LONGEST_SENTENCE: Final = 35  # words
LONGEST_MEAN: Final = 15.0  # words a sentence, over all pages
FEWEST_YOU: Final = 15.0  # in 1,000 words, over all pages that talk to a reader
MOST_QUAINT: Final = 1.0  # in 1,000 words, over all pages

#: Pages to look something up in. They describe things, so they say "you" less often.
REFERENCE: Final = frozenset(
    {
        "CHANGELOG.md",
        "cassettes/README.md",
        "docs/architecture.md",
        "docs/fidelity.md",
        "docs/performance.md",
        "docs/reference.md",
    }
)

_QUAINT: Final = re.compile(
    r"""
      (?<!\bthere\ ) \b(?:is|are)\ no\b (?!\ (?:longer|more|less)\b)  # "is no path"
    | \b(?:bear|bears|bore|borne)\b
    | \b(?:tells?|told)\b (?!\ (?:\w+\ )?apart\b)
    | \bof\ \w+'s (?=\ (?:that|which|is|are|and|in|on|for|to)\b|[.,;:)]|$)  # "of Google's"
    | \bof\ (?:ours|yours|theirs)\b
    | (?:^|(?<=[.!?]\ ))Who\b (?![^.?!]*\?)  # "Who finds the id taken waits."
    | \bwho\ does\b
    | \banew\b
    | \basked\ for\b
    | \blooked\ (?:at|for|into)\b
    | \balso\ (?:by|where|while)\b
    | \bstands?\b (?!-)
    | \b(?:is|are|was|were)\ (?:not\ )?there\b (?!\ (?:a|an|any|no)\b)  # "the model is not there"
    | \b(?:houses?|storeys?|doors?|street)\b
    | \botherwise\ than\b
    | \bwhat\ becomes\ of\b
    | \bas\ (?:it|they)\ should\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_FENCE: Final = re.compile(r"^\s*(`{3,}|~{3,})")
_ITEM: Final = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+")
_ADMONITION: Final = re.compile(r"^\[![A-Z]+\]\s*$")
_END: Final = re.compile(r"(?<=[.!?])[\"')*_]*\s+")
_ABBREVIATION: Final = re.compile(r"(?:^|[\s(])(?:e\.g|i\.e|etc|vs|approx|No)\.$")
_WORD: Final = re.compile(r"\w[\w'.-]*")
_YOU: Final = re.compile(r"\b(?:you|your|yours|yourself|you'\w+)\b", re.IGNORECASE)


class Sentence(NamedTuple):
    """One sentence of a page.

    Attributes:
        line: The number of the line that it begins on.
        text: Its text, without markup and with each piece of code as one word.
    """

    line: int
    text: str

    @property
    def words(self) -> int:
        """Count the words."""
        return len(_WORD.findall(self.text))


class Measure(NamedTuple):
    """What was counted in some sentences."""

    words: int
    sentences: int
    you: int
    quaint: int

    @property
    def mean(self) -> float:
        """Return the words a sentence."""
        return self.words / max(self.sentences, 1)

    def per_thousand(self, count: int) -> float:
        """Return a count in 1,000 words."""
        return 1000 * count / max(self.words, 1)


def quaint(text: str) -> list[str]:
    """Find the phrases that make a text read as if it were translated."""
    return [match.group() for match in _QUAINT.finditer(text)]


def sentences(page: str) -> list[Sentence]:
    """Split a Markdown page into sentences, without code, tables, headings and comments."""
    return [sentence for block in _blocks(page) for sentence in _split(block)]


def measure(found: Iterable[Sentence]) -> Measure:
    """Count words, sentences, "you" and quaint phrases."""
    listed = [sentence for sentence in found if sentence.words]
    texts = [sentence.text for sentence in listed]
    return Measure(
        words=sum(sentence.words for sentence in listed),
        sentences=len(listed),
        you=sum(len(_YOU.findall(text)) for text in texts),
        quaint=sum(len(quaint(text)) for text in texts),
    )


def comments(source: str) -> list[Sentence]:
    """Return the docstrings and the blocks of comments of a module, each as one text with its line."""
    found = [
        Sentence(node.body[0].lineno, text)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and (text := ast.get_docstring(node))
    ]
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        text = token.string.lstrip("#: ")
        if token.start[0] == last + 1:
            found[-1] = Sentence(found[-1].line, f"{found[-1].text} {text}")
        else:
            found.append(Sentence(token.start[0], text))
        last = token.start[0]
    return [Sentence(line, re.sub(r"``?[^`]*``?", "code", text).replace("\n", " ")) for line, text in found]


def check_modules(modules: dict[str, list[Sentence]]) -> Iterator[str]:
    """Yield each quaint phrase in the docstrings and comments of modules, one line each."""
    for name, found in modules.items():
        for sentence in found:
            for phrase in quaint(sentence.text):
                yield f'{name}:{sentence.line}: "{phrase}" reads as if it were translated.'


def broken_links(file: Path) -> list[str]:
    """Return the relative links of a page that lead nowhere, to no file or to no heading."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"(?ms)^```.*?^```", "", file.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if ":" in path:
            continue  # another site
        other = (file.parent / path) if path else file
        if not other.exists() or (anchor and anchor not in _anchors(other)):
            found.append(target)
    return found


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def check(pages: dict[str, list[Sentence]]) -> Iterator[str]:
    """Yield what is wrong with the pages, one line each."""
    for name, found in pages.items():
        for sentence in found:
            if sentence.words > LONGEST_SENTENCE:
                yield f"{name}:{sentence.line}: {sentence.words} words in one sentence: {sentence.text[:60]}..."
    total = measure(sentence for found in pages.values() for sentence in found)
    if total.mean > LONGEST_MEAN:
        yield f"{total.mean:.1f} words a sentence on average; at most {LONGEST_MEAN:g}, please."
    if (rate := total.per_thousand(total.quaint)) > MOST_QUAINT:
        yield f"{rate:.1f} quaint phrases in 1,000 words; at most {MOST_QUAINT:g}, please."
    guides = measure(sentence for name, found in pages.items() if name not in REFERENCE for sentence in found)
    if (rate := guides.per_thousand(guides.you)) < FEWEST_YOU:
        yield f'"you" {rate:.1f} times in 1,000 words of the guides; at least {FEWEST_YOU:g}, please.'


def _blocks(page: str) -> Iterator[list[tuple[int, str]]]:
    """Yield the paragraphs and list items of a page, each as numbered lines."""
    block: list[tuple[int, str]] = []
    fence = ""
    commented = False
    for number, raw in enumerate(page.splitlines(), start=1):
        line = raw.lstrip("> ") if raw.startswith(">") else raw
        if fence:
            if line.strip().startswith(fence):
                fence = ""
            continue
        if commented or line.lstrip().startswith("<!--"):
            commented = "-->" not in line
            continue
        if opening := _FENCE.match(line):
            fence = opening.group(1)
        skipped = fence or not line.strip() or line.lstrip().startswith(("|", "#")) or _ADMONITION.match(line)
        if block and (skipped or _ITEM.match(line)):
            yield block
            block = []
        if not skipped:
            block.append((number, _plain(_ITEM.sub("", line))))
    if block:
        yield block


def _plain(line: str) -> str:
    line = re.sub(r"`+[^`]*`+", "Code", line)
    line = re.sub(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", line)
    return re.sub(r"\*+|(?<!\w)_+|_+(?!\w)|<[^>]+>", "", line).strip()


def _split(block: Sequence[tuple[int, str]]) -> Iterator[Sentence]:
    text = ""
    starts = []  # where each line begins in the text
    for number, line in block:
        starts.append((len(text), number))
        text += f"{line} "
    begin = 0
    ends = [match.end() for match in _END.finditer(text) if not _ABBREVIATION.search(text[: match.start()])]
    for end in [*ends, len(text)]:
        if text[begin:end].strip():
            yield Sentence(max(number for start, number in starts if start <= begin), text[begin:end].strip())
        begin = end


def main() -> int:
    """Report on every page and every module, and return the exit status."""
    pages = {file.relative_to(ROOT).as_posix(): sentences(file.read_text(encoding="utf-8")) for file in PAGES}

    print(f"{'page':<24}{'words':>7}{'a sentence':>12}{'you':>7}{'quaint':>8}   in 1,000 words")  # noqa: T201 - a command
    total = measure(sentence for found in pages.values() for sentence in found)
    for name, counted in [*((name, measure(found)) for name, found in pages.items()), ("all", total)]:
        you, odd = counted.per_thousand(counted.you), counted.per_thousand(counted.quaint)
        print(f"{name:<24}{counted.words:>7}{counted.mean:>12.1f}{you:>7.1f}{odd:>8.1f}")  # noqa: T201 - likewise

    modules = {file.relative_to(ROOT).as_posix(): comments(file.read_text(encoding="utf-8")) for file in MODULES}
    phrases = list(check_modules(modules))
    print(f"Quaint phrases in the docstrings and comments of {len(modules)} modules: {len(phrases)}")  # noqa: T201 - likewise

    wrong = [*check(pages), *phrases]
    for line in wrong:
        print(line, file=sys.stderr)  # noqa: T201 - likewise
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
