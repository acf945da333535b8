"""The rules that every file of the project keeps: layers, length of lines and of functions."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

LONGEST_LINE = 100
LONGEST_FUNCTION = 60  # lines, with decorators and docstring
CODE = [*sorted((ROOT / "irbridge").rglob("*.py")), *sorted((ROOT / "scripts").glob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def long_functions(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if node.end_lineno - first + 1 > LONGEST_FUNCTION:
                found.add(f"{place(path)}: {node.name}")
    return found


def test_a_function_fits_a_screen():
    found = set().union(*(long_functions(path) for path in CODE))
    assert not found, f"over {LONGEST_FUNCTION} lines; break them up: {sorted(found)}"


def test_a_line_fits_its_columns():
    found = set()
    for path in CODE + TESTS:
        lines = path.read_text(encoding="utf-8").splitlines()
        if any(len(line) > LONGEST_LINE for line in lines):
            found.add(place(path))
    assert not found, f"over {LONGEST_LINE} columns; break the lines: {sorted(found)}"


def test_no_module_imports_itself_by_way_of_others():
    grimp = pytest.importorskip("grimp", reason="import-linter, of the extra dev, is missing")
    graph = grimp.build_graph("irbridge", cache_dir=None)
    # the public face hands names on only where they are asked for
    for imported in graph.find_modules_directly_imported_by("irbridge"):
        graph.remove_import(importer="irbridge", imported=imported)
    found = set()
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            if graph.find_shortest_chain(imported, importer):
                found.add((importer, imported))
    assert not found, f"these imports close a cycle; remove one: {sorted(found)}"


def test_the_import_contracts_hold():
    pytest.importorskip("importlinter", reason="import-linter, of the extra dev, is missing")
    program = "from importlinter.cli import lint_imports; lint_imports(no_cache=True)"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    verdicts = dict(re.findall(r"(?m)^(.+) (KEPT|BROKEN)\b", ran.stdout))
    assert len(verdicts) >= 3, ran.stdout + ran.stderr
    broken = {name for name, verdict in verdicts.items() if verdict == "BROKEN"}
    assert not broken, f"broken; lint-imports says\n{ran.stdout}"
