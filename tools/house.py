"""Print the figures of the package's structure: ``python tools/house.py [CHECKOUT]``.

With ``--picture``, print the layers as the architecture page shows them.


Files and functions by length, comments and docstrings for each 100 lines of code, circles of
imports and imports that point up. Late and type-checking imports count like any other. The layers
are those of the import-linter contract in ``pyproject.toml``.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from statistics import median

PACKAGE = "internvl_modal"
TOLD = re.compile(r"# (noqa(: [A-Z0-9, ]+)?|type: ignore(\[[\w, -]+\])?|fmt: \w+)$")
"""A comment for a tool, without a reason behind it."""


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def graph(found: dict[str, Path]) -> dict[str, set[str]]:
    """Which modules each one imports, wherever in it; the package's own door is left out."""
    return {
        name: {other for other in imported(path, found) if other not in (name, PACKAGE)}
        for name, path in found.items()
        if name != PACKAGE
    }


def imported(path: Path, found: dict[str, Path]) -> Iterator[str]:
    """Modules of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                name = name if name in found else node.module
                if name in found:
                    yield name
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in found)


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others (Tarjan's)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in edges.get(name, ()):
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for name in edges:
        if name not in order:
            visit(name)
    return groups


def layers(root: Path) -> list[str]:
    """The layers from top to bottom, as the contract has them; none where there is no contract."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r'type = "layers".*?layers = \[(.*?)\]', text, re.DOTALL)
    return re.findall(r"\w+", block.group(1)) if block else []


def upward(edges: dict[str, set[str]], order: list[str]) -> list[str]:
    """Imports of a module in a higher layer."""
    place = {name: index for index, name in enumerate(order)}

    def layer(module: str) -> int | None:
        parts = module.split(".")
        return place.get(parts[1]) if len(parts) > 1 else None

    return [
        f"{name} -> {other}"
        for name, others in sorted(edges.items())
        for other in sorted(others)
        if (a := layer(name)) is not None and (b := layer(other)) is not None and b < a
    ]


def picture(root: Path) -> str:
    """The layers as text, top to bottom, each with the first sentence of its own description."""
    rows = []
    for name in layers(root):
        folder, file = root / PACKAGE / name, root / PACKAGE / f"{name}.py"
        source = folder / "__init__.py" if folder.is_dir() else file
        if source.exists():
            doc = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
            rows.append((name, " ".join(doc.split("\n\n")[0].split())))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:>{width}}  {told}" for name, told in rows)


def counts(path: Path) -> tuple[int, int, int]:
    """Lines of code, with a comment, and of docstrings; what a tool is told is no comment."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    comments = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and not TOLD.match(token.string)
    }
    docs: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        for each in body if isinstance(body, list) else []:
            if (
                isinstance(each, ast.Expr)
                and isinstance(each.value, ast.Constant)
                and isinstance(each.value.value, str)
            ):
                docs |= set(range(each.lineno, (each.end_lineno or each.lineno) + 1))
    docs = {number for number in docs if lines[number - 1].strip()}
    code = sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in lines)
    code -= len(docs)
    return code, len(comments), len(docs)


def functions(path: Path) -> Iterator[int]:
    """Length of each function, in lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


def report(root: Path) -> str:
    """All figures, a line each."""
    found = modules(root)
    edges = graph(found)
    sizes = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in found.values())
    lengths = sorted(length for path in found.values() for length in functions(path))
    code, comments, docs = map(sum, zip(*map(counts, found.values()), strict=True))
    top = sum(path.parent == root / PACKAGE for path in found.values())
    rings, up, order = circles(edges), upward(edges, layers(root)), layers(root)
    lines = [
        f"files                      {len(found)}, {top} of them at the top",
        f"lines of a file            median {median(sizes):g}, longest {sizes[-1]}",
        f"functions                  {len(lengths)}",
        f"lines of a function        median {median(lengths):g}, "
        f"95th percentile {lengths[int(len(lengths) * 0.95)]}, longest {lengths[-1]}",
        f"lines of code              {code:,}",
        f"comment lines per 100      {100 * comments / code:.1f}",
        f"docstring lines per 100    {100 * docs / code:.1f}",
        f"circles of imports         {len(rings)}",
        *(f"  {len(ring)} modules: {', '.join(ring)}" for ring in rings),
        f"imports that point up      {len(up) if order else 'no layers are named'}",
        *(f"  {each}" for each in up),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if "--picture" in sys.argv:
        print(picture(Path.cwd()))
        sys.exit()
    print(report(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()))
