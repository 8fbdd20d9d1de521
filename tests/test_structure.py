"""The shape of the package: what it imports, what it shows, what its files say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import internvl_modal
from internvl_modal import settings

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "internvl_modal"
MODULES = sorted(PACKAGE.rglob("*.py"))

HEAVY = ("modal", "huggingface_hub", "httpx", "PIL", "numpy", "xllamacpp", "pydantic", "asyncio")
LOWER = ["errors", "schema", "images"]
NO_IO = (
    "wire",
    "sse",
    "replies",
    "truth",
    "prompts",
    "schema",
    "errors",
    "images/tiles",
    "catalog",
    "planner",
)
IO = {"httpx", "aiohttp", "socket", "subprocess", "requests", "urllib.request", "pathlib", "os"}
ONE_HOME = {
    "tenacity": {"transport"},
    "httpx": {"transport", "fetch", "client"},
    "aiohttp": {"transport"},
    "av": {"video"},
    "xllamacpp": {"backends/llama_engine"},
}


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE).with_suffix(""))


def imports(path: Path, *, at_import: bool = False) -> set[str]:
    """Modules that a file imports; with ``at_import`` only when it is itself imported."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    nodes = tree.body if at_import else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module.startswith("internvl_modal"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path, *, at_import: bool = True) -> set[str]:
    names = {
        m.removeprefix("internvl_modal.").replace(".", "/")
        for m in imports(path, at_import=at_import)
    }
    return {name for name in names if (PACKAGE / f"{name}.py").exists()}


def test_there_is_no_import_cycle() -> None:
    graph = {name_of(path): ours(path) for path in MODULES}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_imports_point_one_way() -> None:
    for path in MODULES:
        name, used = name_of(path), ours(path, at_import=False)
        if name in ("errors",):
            assert not used
        if name == "schema":
            assert used <= {"errors"}
        if name.startswith("images/"):
            assert {u for u in used if not u.startswith("images/")} <= {"errors", "schema"}, name
        if name in ("wire", "sse", "replies", "truth", "prompts"):
            assert not used & {"transport", "client", "flows", "cli", "fetch"}, name
        if name not in ("cli", "__main__"):
            assert "cli" not in used, name


@pytest.mark.parametrize("name", NO_IO)
def test_pure_files_do_no_input_or_output(name: str) -> None:
    found = imports(PACKAGE / f"{name}.py")
    assert not found & (IO - ({"os"} if name == "schema" else set()))


@pytest.mark.parametrize("library", ONE_HOME)
def test_a_library_has_one_home(library: str) -> None:
    homes = {name_of(path) for path in MODULES if library in imports(path)}
    assert homes <= ONE_HOME[library]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, internvl_modal; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_door_shows_what_it_says() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    typed = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("internvl_modal.")
        for alias in node.names
    }
    assert typed == set(internvl_modal.__all__) - {"__version__"}
    for name in internvl_modal.__all__:
        assert getattr(internvl_modal, name) is not None
    with pytest.raises(AttributeError, match="nope"):
        _ = internvl_modal.nope  # type: ignore[attr-defined]


def test_the_error_tree_is_drawn_as_it_is() -> None:
    from internvl_modal import errors

    drawn = set(re.findall(r"[|`]- (\w+)", errors.__doc__ or "")) | {"InternVLError"}
    assert drawn == set(errors.__all__)


def test_the_settings_table_is_generated() -> None:
    assert settings.settings_table() in (ROOT / "docs" / "settings.md").read_text()


def test_no_file_names_a_registry() -> None:
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = files.stdout.split()
    assert "uv.lock" not in names
    pattern = re.compile(r"index[-_]url|find[-_]links|https?://[^ ]+/simple\b")
    for name in names:
        path = ROOT / name
        if (
            path.suffix in (".py", ".toml", ".txt", ".md", ".sh", ".cfg")
            and name != "tests/test_structure.py"
        ):
            assert not pattern.search(path.read_text()), name
