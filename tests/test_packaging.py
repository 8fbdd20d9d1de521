"""Wheel and sdist as they would be published: what is in them, and how an index shows them."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from email.message import Message
from pathlib import Path

import pytest

import internvl_modal
from tests.documented import ROOT
from tools import site_hooks

SITE = "https://internvl-modal.readthedocs.io/en/latest/"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that is made of it, as ``uv build`` does it."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "uv", "build", "--quiet", "--out-dir", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def tracked(*places: str) -> set[str]:
    done = subprocess.run(
        ["git", "ls-files", *places], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_an_index_takes_both(built: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.glob("internvl*"))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == tracked("internvl_modal")
    for name in ("py.typed", "demo/demo.gguf", "gateway/page/index.html", "demo/LICENSE.md"):
        assert f"internvl_modal/{name}" in inside


def test_the_sdist_has_no_stray_file(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    extra = {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", ".gitignore"}
    assert inside == tracked("internvl_modal") | extra | {"PKG-INFO"}


def test_licences_are_named(metadata: Message, wheel: zipfile.ZipFile) -> None:
    assert metadata["License-Expression"] == "MIT"
    named = metadata.get_all("License-File") or []
    assert named == ["LICENSE", "internvl_modal/demo/LICENSE.md"]
    for name in named:
        assert any(inside.endswith(f"licenses/{name}") for inside in wheel.namelist())


def test_project_urls_are_pages_of_the_site(metadata: Message) -> None:
    urls = [line.partition(", ")[2] for line in metadata.get_all("Project-URL") or []]
    assert SITE in urls
    assert not missing(url for url in urls if url != SITE)


def test_the_site_is_built_elsewhere_as_it_is_here() -> None:
    told, project = (ROOT / ".readthedocs.yaml").read_text(), (ROOT / "pyproject.toml").read_text()
    assert "configuration: mkdocs.yml\n  fail_on_warning: true\n" in told
    named = re.search(r"pip install --constraint (\S+) --editable \. --group (\w+)\n", told)
    assert named
    assert (ROOT / named[1]).is_file()
    assert f"\n{named[2]} = [" in project
    assert f'\nversion = "{internvl_modal.__version__}"\n' in project


def test_links_and_pictures_of_the_readme_work_on_an_index(metadata: Message) -> None:
    text = str(metadata.get_payload())
    links = re.findall(r"\]\(([^)]+)\)", text)
    told = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    code = [link for link in told if re.match(r"(examples|tools)/.*\.(py|ipynb)$", link)]
    assert len(links) == len(told) - len(code) > 25  # code is no link: the site has none of it
    assert [link for link in links if not re.match("https?://|#", link)] == []
    assert not missing(link for link in links if link.startswith(SITE))
    assert len(re.findall(rf"!\[[^\]]*\]\({re.escape(SITE)}", text)) == 3


def missing(urls: Iterable[str]) -> list[str]:
    """Those that the site does not have: a page of ``docs``, or one that its hook brings."""
    brought = {**site_hooks.PAGES, **site_hooks.PICTURES}.values()
    there = {page.removesuffix(".md") for page in brought}
    docs = ROOT / "docs"
    there |= {page.relative_to(docs).as_posix().removesuffix(".md") for page in docs.rglob("*.*")}
    names = (url.removeprefix(SITE).partition("#")[0].removesuffix(".html") for url in urls)
    return [name for name in names if name not in there]
