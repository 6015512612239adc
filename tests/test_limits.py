"""What keeps the code readable in an evening: no file over 350 lines, no function over 60 besides its docstring."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [path for room in ("samref", "orchestrator", "dashboards", "tests") for path in (ROOT / room).rglob("*.py")]


def test_no_file_is_long():
    assert len(FILES) > 300
    lines = {path: path.read_text().count("\n") for path in FILES}
    assert {path: number for path, number in lines.items() if number > 350} == {}


def test_no_function_is_long():
    functions = {
        f"{path}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1 - docstring_lines(node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and not is_kernel(node)
    }
    assert len(functions) > 2500
    assert {name: number for name, number in functions.items() if number > 60} == {}


def is_kernel(node):
    """Whether Triton compiles it: what a program does for a block is one function."""
    return "triton.jit" in map(ast.unparse, node.decorator_list)


def docstring_lines(node):
    """How many lines the docstring takes."""
    first = node.body[0]
    return first.end_lineno - first.lineno + 1 if ast.get_docstring(node, clean=False) is not None else 0
