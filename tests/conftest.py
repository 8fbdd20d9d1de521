"""What every test starts from: a clean environment, and a server on loopback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from internvl_modal._utils.user_warning import shown
from tests.loopback import Loopback

CI = bool(os.environ.get("CI"))
TESTS = Path(__file__).parent
TOGETHER = ("conformance", "llamacpp", "vllm")
"""Folders whose files share servers, which are started once."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so in a shell's background, and inherited
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, however long one of them takes.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run in several processes, what shares a server stays in one of them."""
    from xdist.scheduler import LoadScopeScheduling

    class ByServer(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            folder = file.split("/")[1]
            return folder if folder in TOGETHER else file

    return ByServer(config, log)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of the developer's, no warning shown before, an empty home and working folder."""
    for name in list(os.environ):
        if name.startswith("INTERNVL_MODAL_") and not name.startswith("INTERNVL_MODAL_TEST_"):
            monkeypatch.delenv(name)
    for name in ("HF_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    shown.clear()
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.chdir(tmp_path)
    yield
    if shortcuts := sys.modules.get("internvl_modal.client.shortcuts"):
        shortcuts.close()


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    """A server that answers as told and remembers what it was asked."""
    with Loopback() as server:
        yield server


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In CI a failure is told when it happens: a run that is ended from outside tells no others."""
    if CI and report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        sys.__stdout__.write(f"\n{report.nodeid}, {report.when}:\n{report.longreprtext}\n")
        sys.__stdout__.flush()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI a skipped test is a failure: whatever it needs must be installed there."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
