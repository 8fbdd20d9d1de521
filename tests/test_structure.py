"""The shape of the package: what it imports, what it shows, what its files say."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import internvl_modal
from internvl_modal import settings
from tools import house

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "internvl_modal"
MODULES = house.modules(ROOT)
EDGES = house.graph(MODULES)

HEAVY = ("modal", "huggingface_hub", "httpx", "PIL", "numpy", "xllamacpp", "pydantic", "asyncio")
ONE_HOME = {
    "httpx": {"transport", "images.fetch", "client", "batch.iterate"},
    "aiohttp": {"transport", "batch.sources.remote"},
    "av": {"images.video"},
    "xllamacpp": {"engines.llamacpp_main"},
    "modal": {"deployment", "weights.store", "planning.prices", "cli.doctor"},
    "fastapi": {"gateway", "deployment.containers"},
    "pyarrow": {"batch"},
    "typer": {"cli"},
}
"""Where each library is imported; a folder means any of its files."""


def contracts(root: Path) -> subprocess.CompletedProcess[str]:
    command = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    return subprocess.run(
        [sys.executable, "-c", command], cwd=root, capture_output=True, text=True, check=False
    )


def test_the_import_contracts_are_kept() -> None:
    checked = contracts(ROOT)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    "wrong",
    [
        "from internvl_modal import cli",
        "def late():\n    from internvl_modal import cli",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from internvl_modal import cli",
    ],
    ids=["plain", "late", "type-checking"],
)
def test_the_contracts_see_every_kind_of_import(tmp_path: Path, wrong: str) -> None:
    folder = tmp_path / "internvl_modal"
    for name in MODULES:
        parts = name.split(".")[1:2]
        (folder.joinpath(*parts)).mkdir(parents=True, exist_ok=True)
        (folder.joinpath(*parts) / "__init__.py").touch()
    text = (ROOT / "pyproject.toml").read_text()
    start = text.index("[tool.importlinter]")
    first = text.index("[[tool.importlinter.contracts]]", start)
    second = text.index("[[tool.importlinter.contracts]]", first + 1)
    (tmp_path / "pyproject.toml").write_text(text[start:second])
    assert contracts(tmp_path).returncode == 0
    (folder / "errors" / "__init__.py").write_text(f"{wrong}\n")
    assert contracts(tmp_path).returncode == 1


def test_there_is_no_circle_and_nothing_points_up() -> None:
    assert house.circles(EDGES) == []
    assert house.upward(EDGES, house.layers(ROOT)) == []


def test_a_private_name_stays_in_its_file() -> None:
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "internvl_modal"
            ):
                private = [a.name for a in node.names if re.match(r"_(?!_|utils$)", a.name)]
                assert not private, f"{path}: {private}"


@pytest.mark.parametrize("library", ONE_HOME)
def test_a_library_has_one_home(library: str) -> None:
    for name, path in MODULES.items():
        used = {
            part.partition(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for part in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        if library in used:
            home = name.removeprefix("internvl_modal.")
            assert any(home == h or home.startswith(f"{h}.") for h in ONE_HOME[library]), home


def test_what_differs_between_servers_is_in_the_dialects() -> None:
    for name, path in MODULES.items():
        if not name.startswith("internvl_modal.protocol.dialects"):
            assert not re.search(r"dialect (==|!=|in|not in) ", path.read_text()), name


def test_the_top_is_small() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_are_short(name: str) -> None:
    text = MODULES[name].read_text()
    assert len(text.splitlines()) <= 350
    assert max(house.functions(MODULES[name]), default=0) <= 55


def test_functions_are_mostly_very_short() -> None:
    lengths = sorted(n for path in MODULES.values() for n in house.functions(path))
    assert lengths[len(lengths) // 2] <= 8
    assert lengths[int(len(lengths) * 0.95)] <= 24


def test_every_folder_says_what_lives_there() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        if path.parent != PACKAGE:
            assert 3 <= len(doc.splitlines()) <= 8, path


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


def public_callables() -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name in internvl_modal.__all__:
        value = getattr(internvl_modal, name)
        if inspect.isfunction(value):
            found.append((name, value))
        elif inspect.isclass(value):
            found += [
                (f"{name}.{key}", member)
                for key, member in vars(value).items()
                if inspect.isfunction(member)
                and member.__module__.startswith("internvl_modal")
                and (not key.startswith("_") or key == "__init__")
            ]
    return found


@pytest.mark.parametrize(
    "value",
    [value for _, value in public_callables()],
    ids=[name for name, _ in public_callables()],
)
def test_type_hints_can_be_read(value: object) -> None:
    assert typing.get_type_hints(value) is not None


def test_the_error_tree_is_drawn_as_it_is() -> None:
    from internvl_modal import errors

    drawn = set(re.findall(r"[|`]- (\w+)", errors.__doc__ or "")) | {"InternVLError"}
    assert drawn == set(errors.__all__)


def test_the_settings_table_is_generated() -> None:
    assert settings.settings_table() in (ROOT / "docs" / "settings.md").read_text()


def test_the_architecture_page_names_files_that_are_there() -> None:
    text = (ROOT / "docs" / "development.md").read_text()
    table = text[text.index("| To change") :]
    rows = [row for row in table.split("\n\n")[0].splitlines()[2:] if row.startswith("|")]
    assert len(rows) >= 25
    for row in rows:
        paths = re.findall(r"`([\w./-]+)`", row.split("|")[2])
        assert paths, row
        for path in paths:
            assert (ROOT / path).exists() or (PACKAGE / path).exists(), path
    assert house.picture(ROOT) in text


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


def test_options_are_keywords_of_the_signature_each_with_a_line() -> None:
    from internvl_modal.batch.options import BatchOptions, BatchSettings
    from internvl_modal.deployment.options import DeployArguments, DeployOptions
    from internvl_modal.schema.options import DescribeOptions, Options

    shown = inspect.signature(internvl_modal.Client.describe_many).parameters
    assert {"detail", "max_tokens", "out", "concurrency"} <= set(shown)
    assert shown["max_tokens"].default == 1024
    assert "gpu" in inspect.signature(internvl_modal.adeploy).parameters
    for kind, models in (
        (Options, (DescribeOptions,)),
        (BatchOptions, (BatchSettings,)),
        (DeployArguments, (DeployOptions,)),
    ):
        (tree,) = ast.parse(inspect.getsource(kind)).body
        assert isinstance(tree, ast.ClassDef)
        told = [
            (key.target.id, line.value.value)
            for key, line in zip(tree.body, tree.body[1:], strict=False)
            if isinstance(key, ast.AnnAssign)
            and isinstance(key.target, ast.Name)
            and isinstance(line, ast.Expr)
            and isinstance(line.value, ast.Constant)
        ]
        keys = [each for each in tree.body if isinstance(each, ast.AnnAssign)]
        assert len(told) == len(keys), kind
        known = {
            info.alias or name: info.description
            for m in models
            for name, info in m.model_fields.items()
        }
        assert {name: known[name] for name, _ in told} == dict(told)
