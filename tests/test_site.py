"""The documentation site: made, whole, true to the code, and every block of it runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import internvl_modal
from internvl_modal import errors
from internvl_modal.client.aio import AsyncClient
from internvl_modal.deployment.served_app import FixedBackend
from internvl_modal.gateway import create_app
from tests.asgi import serving
from tests.documented import DOCS, ROOT, answer, blocks, performed
from tests.loopback import Loopback
from tests.loopback_hub import LoopbackHub
from tests.weights.conftest import noise
from tools import site_pages

KEY = "the-gateways-key"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
"""Of whoever runs the tests: a test's own home is empty, and what uv brings would not be kept."""
OFFLINE = ["index.md", "start.md", "local.md", "models.md", "troubleshooting.md"]
"""Pages whose blocks run with the demo model, and with a loopback for a real photograph."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reader's folder: the examples of a clone, and photographs."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/one.jpg", "photos/two.jpg"):
        shutil.copy(ROOT / "examples" / "images" / "coffee.jpg", tmp_path / name)
    return tmp_path


@pytest.fixture
def environment(loopback: Loopback) -> Iterator[dict[str, str]]:
    """Where a real model would answer a loopback does; a gateway stands in front of it.

    The Hub is one on loopback, with the files of the model that the pages fetch.
    """
    loopback.will(answer)
    names = ("InternVL2_5-1B-Q8_0.gguf", "mmproj-InternVL2_5-1B-Q8_0.gguf")
    backend = FixedBackend(loopback.url, "k", "internvl2_5-78b", "lmdeploy-0.7.3")
    with serving(create_app(AsyncClient(backend), api_key=KEY)) as url, LoopbackHub() as hub:
        hub.commit("ggml-org/InternVL2_5-1B-GGUF", {name: noise(5000) for name in names})
        yield {
            "HF_ENDPOINT": hub.url,
            **os.environ,
            "INTERNVL_MODAL_BASE_URL": loopback.url,
            "INTERNVL_MODAL_CACHE_DIR": str(Path(os.environ["HOME"]) / "cache"),
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(CACHE / "uv")),
            "STANDS_IN": "1",
            "URL": url,
            "KEY": KEY,
        }


@pytest.mark.parametrize("page", OFFLINE)
def test_the_blocks_run(environment: dict[str, str], folder: Path, page: str) -> None:
    done = performed(page, environment, folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_page_with_blocks_is_named_by_a_test() -> None:
    """By this file, or by the one that runs its blocks beside what they need."""
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    for page in DOCS.glob("*.md"):
        if blocks(page.name):
            assert any(page.name in text for text in tests), f"no test runs {page.name}"


def test_no_command_is_misspelt() -> None:
    """Blocks that show what is printed are not run; their commands and options exist all the same."""
    pages = (DOCS / "cli.md").read_text()
    found = 0
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for line in re.findall(
            r"^(?:\$ )?(?:[A-Z_]+=\S+ )*internvl-modal (.*)$", page.read_text(), re.M
        ):
            words = line.partition("#")[0].split()
            length = 2 if words[0] == "weights" else 1
            section = pages.partition(f" internvl-modal {' '.join(words[:length])}\n")[2]
            told = section.partition("\n## ")[0]
            assert told or words[0].startswith("-"), f"{page.name}: {line}"
            for word in words:
                if re.fullmatch(r"--[a-z][a-z-]*", word):
                    found += 1
                    assert f"{word}" in told, f"{page.name}: {line}"
    assert found > 20


@pytest.mark.parametrize("name", site_pages.PAGES)
def test_what_is_made_from_the_code(name: str) -> None:
    made = site_pages.PAGES[name]()
    assert (DOCS / name).read_text() == made, "run python -m tools.site_pages"


def test_the_reference_has_every_public_name() -> None:
    told = re.findall(r"^::: internvl_modal\.(\w+)$", (DOCS / "reference.md").read_text(), re.M)
    assert set(told) == {*internvl_modal.__all__} - {*errors.__all__, "__version__"}


def test_every_error_has_a_cause_and_a_remedy() -> None:
    assert set(site_pages.REMEDIES) == set(errors.__all__)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\bsrc="([^"]+)"', page.read_text())
        loaded += re.findall(
            r'<link[^>]*rel="(?:stylesheet|preconnect|icon)"[^>]*href="([^"]+)"', page.read_text()
        )
        assert not [one for one in loaded if re.match(r"(https?:)?//", one)], page.name


def test_no_link_of_the_site_is_dead(site: Path) -> None:
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for link in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text()):
            if not re.match(r"[a-z]+:|//", link):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.clients
@pytest.mark.skipif(
    os.environ.get("INTERNVL_MODAL_TEST_CLIENTS") != "1",
    reason="needs packages of others, which uv brings: set INTERNVL_MODAL_TEST_CLIENTS=1",
)
def test_the_recipes(environment: dict[str, str], folder: Path) -> None:
    done = performed("recipes.md", environment, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("A cup") == 6


def test_from_openai(environment: dict[str, str], folder: Path) -> None:
    page = folder / "page.py"
    code = "\n".join(block.code for block in blocks("from-openai.md"))
    page.write_text(f"URL, KEY = {environment['URL']!r}, {KEY!r}\n{code}")
    done = subprocess.run(
        [sys.executable, str(page)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("A cup") == 3
