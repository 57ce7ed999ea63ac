"""Files and functions stay short enough to be read."""

from __future__ import annotations

import ast
import re

from sources import ROOT, is_generated, tracked

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 70
MAX_LINE_CHARACTERS = 100

# A line that opens a C++ function: indented at most once, with a parameter list, no other block.
CPP_OPENING = re.compile(r"^( {0,2})(?!namespace|class|struct|enum|union|#|//|TEST\()\S.*\{$")


def cpp_functions(lines: list[str]) -> list[tuple[str, int]]:
    """(first line, number of lines) of the functions of a clang-formatted file."""
    found = []
    for start, line in enumerate(lines):
        match = CPP_OPENING.match(line)
        if not match or "(" not in "".join(lines[max(0, start - 4) : start + 1]):
            continue
        closing = match[1] + "}"
        for end in range(start + 1, len(lines)):
            if lines[end].startswith(closing):
                found.append((line.strip(), end - start + 1))
                break
    return found


def test_files_are_short() -> None:
    for path in tracked(".py", ".cpp", ".h", ".cmake", ".sh"):
        text = path.read_text()
        if not is_generated(text) and path.name != "train_demo.py":
            count = text.count("\n")
            assert count <= MAX_FILE_LINES, f"{path.relative_to(ROOT)} has {count} lines"


def test_lines_fit() -> None:
    for path in tracked(".cpp", ".h", ".py"):
        if path.name == "train_demo.py":
            continue
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
