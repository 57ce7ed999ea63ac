"""Files and functions stay short enough to be read, and names say something."""

from __future__ import annotations

import ast
import re

from sources import ROOT, is_generated, tracked

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 70
MAX_LINE_CHARACTERS = 100
VAGUE_WORDS = {"util", "utils", "helper", "helpers", "manager", "common", "misc"}

# What opens a block that is not a function. Test cases are lists of checks and may be longer.
NOT_A_FUNCTION = re.compile(r"(namespace|class|struct|enum|union|extern|TEST\()")
ENDS_A_STATEMENT = re.compile(r"(^\s*(#|//).*|[;{}]|^\s*(public|private|protected):|^)$")


def cpp_functions(lines: list[str]) -> list[tuple[str, int]]:
    """(first line, number of lines) of the functions of a clang-formatted file."""
    found = []
    for opening, line in enumerate(lines):
        if not line.endswith("{"):
            continue
        start = opening
        while start > 0 and not ENDS_A_STATEMENT.search(lines[start - 1]):
            start -= 1
        first = lines[start].strip()
        indent = lines[start][: len(lines[start]) - len(lines[start].lstrip())]
        head = "".join(lines[start : opening + 1])
        if len(indent) > 2 or "(" not in head or NOT_A_FUNCTION.match(first):
            continue
        for end in range(opening + 1, len(lines)):
            if lines[end].startswith(indent + "}"):
                found.append((first, end - start + 1))
                break
    return found


def long_files(limit: int) -> list[tuple[str, int]]:
    """(path, number of lines) of the sources with more lines than that."""
    found = []
    for path in tracked(".py", ".cpp", ".h", ".cmake", ".sh"):
        text = path.read_text()
        count = text.count("\n")
        if count > limit and not is_generated(text):
            found.append((str(path.relative_to(ROOT)), count))
    return found


def test_files_are_short() -> None:
    assert long_files(MAX_FILE_LINES) == []


def test_lines_fit() -> None:
    for path in tracked(".cpp", ".h", ".py"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert len(line) <= MAX_LINE_CHARACTERS, f"{path.relative_to(ROOT)}:{number}"


def test_cpp_functions_are_short() -> None:
    for path in tracked(".cpp", ".h"):
        for name, count in cpp_functions(path.read_text().splitlines()):
            assert count <= MAX_FUNCTION_LINES, f"{path.relative_to(ROOT)}: {name}: {count} lines"


def test_python_functions_are_short() -> None:
    for path in tracked(".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                where = f"{path.relative_to(ROOT)}: {node.name}"
                assert count <= MAX_FUNCTION_LINES, f"{where}: {count} lines"


def test_file_names_say_what_the_file_is_about() -> None:
    for path in tracked(".py", ".cpp", ".h", ".def", ".cmake", ".md"):
        vague = VAGUE_WORDS.intersection(path.stem.lower().split("_"))
        assert not vague, f"{path.relative_to(ROOT)}: name it after what it holds"


def test_type_names_say_what_the_type_is() -> None:
    declared = re.compile(r"^\s*(?:class|struct) (\w+)", re.MULTILINE)
    for path in tracked(".py", ".cpp", ".h"):
        for name in declared.findall(path.read_text()):
            words = {word.lower() for word in re.findall(r"[A-Z][a-z]*|[a-z]+", name)}
            assert not VAGUE_WORDS & words, f"{path.relative_to(ROOT)}: {name}"


def test_a_long_cpp_function_is_measured() -> None:
    lines = ["int add(int a,", "        int b) {", *["  ++a;"] * 80, "  return a + b;", "}"]
    assert cpp_functions(lines) == [("int add(int a,", 84)]
