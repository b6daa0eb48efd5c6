"""The code and the documents use the words of the field, not private ones."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("superres", "app", "training", "docs", "docsite", "benchmarks", "deploy")
"""Folders that are checked, beside the files of the root."""
SUFFIXES = {".py", ".md", ".toml", ".html", ".js", ".css", ".yml", ".yaml", ".json"}
NAMES = {
    "Answer": "TimedResponse",
    "Call": "RequestContext",
    "Caller": "RequestContext",
    "Order": "EnhanceRequest",
    "Pace": "Throughput",
    "Recipe": "Options",
    "Ticket": "PendingBatch",
    "Turn": "ScheduledEngine",
    "Verdict": "Status",
    "account": "conversion_notes",
    "door": "dispatch_lock",
    "fleet": "cluster.batch",
    "heaps": "trim_memory",
    "hung_up": "on_disconnect",
    "let_go": "release",
    "own_size": "native_size",
    "put_back": "requeue",
    "taken": "cost",
}
"""Private names in Python code, and what to write instead."""
PHRASES = {
    "a parameter is not what is allowed": "Invalid parameter",
    "anew": "again",
    "are let go": "are dropped",
    "be let in": "be admitted",
    "cannot be had": "is not available",
    "come back later": "retry after",
    "for want of": "for lack of",
    "goes along": "is kept",
    "going on from": "resuming from",
    "has been let in": "is admitted",
    "how it goes": "progress",
    "hung up": "disconnected",
    "hangs up": "disconnects",
    "if need be": "if it does not exist",
    "in a word": "in short",
    "in the place of": "instead of",
    "is none": "does not exist",
    "is to be had": "is available",
    "is told": "gets, or: reports",
    "its truth": "its ground truth",
    "nothing twice": "finished work is not repeated",
    "not to be had": "not available",
    "tells of": "describes",
    "time is up": "deadline has passed",
    "to be told": "to be reported",
    "told the": "called with the, or: gets the",
    "told to come back": "refused with Retry-After",
    "what it takes": "its cost",
    "whatever the": "for any",
}
"""Private phrases in any text, and what to write instead. The first letter may be a capital."""
_SPACE = r"\s+(?:#\s*)?"
"""Between two words of a phrase: a phrase may continue on the next line, also of a comment."""
_PATTERNS = {
    phrase: re.compile(rf"\b(?i:{phrase[0]}){phrase[1:].replace(' ', _SPACE)}\b")
    for phrase in PHRASES
}


def private_words(file: Path) -> list[str]:
    """Each private word of a file, as a line that says where it is and what to write."""
    text = file.read_text()
    found = [
        (text.count("\n", 0, match.start()) + 1, phrase, PHRASES[phrase])
        for phrase, pattern in _PATTERNS.items()
        for match in pattern.finditer(text)
    ]
    if file.suffix == ".py":
        found += [(line, name, NAMES[name]) for line, name in _names(text) if name in NAMES]
    return [f"{file}:{line}: {word!r}: write {better!r}" for line, word, better in sorted(found)]


def _names(code: str) -> Iterator[tuple[int, str]]:
    """Line and name of everything that is named in Python code, without a leading underscore."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                names = [name]
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names = [name]
            case ast.AsyncFunctionDef(name=name):
                names = [name]
            case ast.Import(names=aliases):
                names = [part for alias in aliases for part in alias.name.split(".")]
            case ast.ImportFrom(module=module, names=aliases):
                names = [*(module or "").split("."), *(alias.name for alias in aliases)]
            case _:
                continue
        yield from ((node.lineno, name.lstrip("_")) for name in names)


def _files() -> Iterator[Path]:
    for files in (REPOSITORY.iterdir(), *((REPOSITORY / name).rglob("*") for name in FOLDERS)):
        files = [file for file in files if file.suffix in SUFFIXES]
        assert files
        yield from files


def test_no_file_has_private_words():
    assert "\n".join(line for file in _files() for line in private_words(file)) == ""


@pytest.mark.parametrize(
    "code",
    ["class {}: ...", "def {}(): ...", "x.{}()", "from {} import x", "def f({}): ...", "_{} = 1"],
)
def test_every_private_name_in_code_is_found(tmp_path: Path, code: str):
    file = tmp_path / "planted.py"
    file.write_text("".join(f"{code.format(name)}\n" for name in NAMES))
    assert private_words(file) == [
        f"{file}:{line}: {name!r}: write {better!r}"
        for line, (name, better) in enumerate(NAMES.items(), start=1)
    ]


def test_every_private_phrase_in_prose_is_found(tmp_path: Path):
    file = tmp_path / "planted.md"
    file.write_text("".join(f"{phrase.capitalize()}, it says.\n" for phrase in PHRASES))
    assert private_words(file) == [
        f"{file}:{line}: {phrase!r}: write {better!r}"
        for line, (phrase, better) in enumerate(PHRASES.items(), start=1)
    ]


def test_a_phrase_that_a_comment_breaks_is_found(tmp_path: Path):
    file = tmp_path / "planted.py"
    file.write_text("# The database is\n# none that can be shared.\n")
    assert len(private_words(file)) == 1


def test_plain_words_are_not_found(tmp_path: Path):
    file = tmp_path / "plain.py"
    file.write_text('"""Turn the pages in order: is nonetheless an Answer."""\nx = order is None\n')
    assert not private_words(file)
