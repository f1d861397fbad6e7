"""Text is read and written in the same encoding wherever the library runs."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BINARY = {"gzip", "bz2", "tarfile", "Image", "os"}  # whose open gives no text unless its mode has a t


def without_encoding(source: str) -> Iterator[int]:
    """The lines of the calls that leave the encoding of a text to the machine."""
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        function, keywords = call.func, {keyword.arg: keyword.value for keyword in call.keywords}
        name = getattr(function, "attr", None) or getattr(function, "id", "")
        if name in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile"):
            owner = getattr(getattr(function, "value", None), "id", None)
            strings = [str(getattr(value, "value", "")) for value in (*call.args, *keywords.values())]
            modes = [string for string in strings if re.fullmatch(r"[rwxabt+]{1,3}", string)]
            mode = modes[0] if modes else "rb" if name.endswith("File") else "r"
            text = "t" in mode if owner in BINARY else "b" not in mode
        else:
            text = name in ("read_text", "write_text") or "text" in keywords
        if text and "encoding" not in keywords and None not in keywords:
            yield call.lineno


def test_every_text_names_its_encoding():
    files = [*(ROOT / "lib").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    assert len(files) > 50
    found = {str(path): list(without_encoding(path.read_text(encoding="utf-8"))) for path in files}
    assert not {path: lines for path, lines in found.items() if lines}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("path.read_text()", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.write_text('x')", True),
        ("path.open()", True),
        ("path.open('w')", True),
        ("path.open(mode='w')", True),
        ("path.open('rb')", False),
        ("path.open('a', encoding='utf-8')", False),
        ("open(1, 'w')", True),
        ("open('file')", True),
        ("open('file', 'rb')", False),
        ("os.fdopen(1, 'wb')", False),
        ("gzip.open(path)", False),
        ("gzip.open(path, 'rt')", True),
        ("tarfile.open(path)", False),
        ("os.open(path, os.O_WRONLY)", False),
        ("NamedTemporaryFile()", False),
        ("NamedTemporaryFile('w')", True),
        ("subprocess.run([], text=True)", True),
        ("subprocess.run([], text=True, encoding='utf-8')", False),
    ],
)
def test_the_test_finds_what_it_should(code, found):
    assert bool(list(without_encoding(code))) is found
