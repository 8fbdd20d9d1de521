"""Modal's client: looks deployed things up.

Its errors come out as DeployError, and none of its calls is made in a running event loop's thread.

Modal's client has blocking calls that run its own event loop; it warns, or fails, where another
loop runs in the same thread, as in every notebook. ``outside_loop`` is the one place that knows.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from internvl_modal._utils.daemon_thread import in_daemon
from internvl_modal.errors import ConfigError, DeployError, InternVLError

if TYPE_CHECKING:
    import modal


log = logging.getLogger(__name__)

T = TypeVar("T")


def outside_loop(function: Callable[[], T], stop: threading.Event | None = None) -> T:
    """Call ``function``, in another thread if an event loop runs in this one; wait for it.

    Modal's blocking calls warn where they would block a loop. An interrupt sets ``stop`` and does
    not wait.

    Raises what ``function`` raises. The thread is a daemon: Ctrl-C need not wait for Modal.
    """
    if not _loop_runs():
        return function()
    try:
        return in_daemon(function).result()
    except KeyboardInterrupt:
        if stop is not None:
            stop.set()
        raise


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def errors_of(doing: str) -> Iterator[None]:
    """Turn what Modal's client raises into DeployError that says what failed and what to do.

    Nothing but our own errors leaves it, and KeyboardInterrupt. ``doing`` begins the message:
    "deploying x: ...".
    """
    try:
        from modal.exception import ImageBuildError
    except Exception as error:  # it reads its configuration when it is imported
        raise ConfigError(
            f"Modal's client does not start: {str(error).strip()}",
            hint="mend ~/.modal.toml; `modal token new` writes a new one",
        ) from error

    try:
        yield
    except ImageBuildError as error:
        raise DeployError(
            f"{doing}: the image could not be built; its last lines:\n{_build_log(error.image_id)}",
            hint=f"modal image logs {error.image_id} shows all of them",
        ) from error
    # Raised inside by our own checks; their hints are better than Modal's.
    except InternVLError:
        raise
    except Exception as error:  # some of its errors have no base but Exception
        what = str(error).strip() or type(error).__name__
        what = what.partition(" If you have token credentials")[0]  # our hint is shorter
        raise DeployError(f"{doing}: {what}", hint=_hint(error)) from error


def _hint(error: Exception) -> str:
    from modal import exception

    # In order: the first kind that fits gives its hint.
    hints: dict[type[Exception], str] = {
        exception.AuthError: "run `modal token new`, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET",
        exception.PermissionDeniedError: "ask the workspace's owner for the right to do this",
        exception.ResourceExhaustedError: "use fewer or other GPUs, stop what is idle, "
        "or raise the workspace's limits on modal.com/settings",
        exception.NotFoundError: "internvl-modal deploy makes a deployment",
        exception.VersionError: "upgrade the package: pip install --upgrade modal",
        exception.ConnectionError: "check the network and status.modal.com",
        exception.ModuleNotMountable: "Modal uploads the package from its folder: install it "
        "unpacked, not from a zip",
    }
    found = [hint for kind, hint in hints.items() if isinstance(error, kind)]
    return found[0] if found else "see modal.com/docs, and status.modal.com for outages"


def _build_log(image_id: str, lines: int = 20) -> str:
    """The end of an image's build log; why not, where it cannot be had."""
    import modal

    try:
        entries = list(modal.Image.from_id(image_id).logs.tail(lines))
    except Exception as error:  # noqa: BLE001 - must not hide the build's failure
        return f"(no log: {error})"
    return "".join(entry.message for entry in entries).rstrip() or "(the log is empty)"


def function(app: str, name: str, environment: str | None) -> modal.Function[..., Any, Any]:
    """A deployed function; nothing is asked yet."""
    import modal

    return modal.Function.from_name(app, name, environment_name=environment)


def web_url(app: str, name: str, environment: str | None) -> str:
    """Where a deployed web function answers; raises DeployError if it is not there.

    Cached by nobody: a function that is deleted and made again gets another address.
    """
    with errors_of(f"looking up {app}"):
        url = outside_loop(function(app, name, environment).get_web_url)
    if url is None:
        raise DeployError(f"the function {name} of {app} has no URL", hint="deploy it again")
    return url.rstrip("/")


def urls_of(app: str, environment: str | None) -> dict[str, str]:
    """Where a deployment's two web functions answer, as ``Deployment.urls`` has them."""
    return {
        "openai": f"{web_url(app, 'serve', environment)}/v1",
        "rest": f"{web_url(app, 'web_process_image', environment)}/",
    }


def tags_of(app: str, environment: str | None) -> dict[str, str] | None:
    """What a deployed app's tags tell of it, None if there is no such app.

    One question to Modal; the tags are ours, or somebody else's app has others or none.
    """
    with errors_of(f"looking up {app}"):
        import modal

        try:
            tags = modal.App.lookup(app, environment_name=environment).get_tags()
        except modal.exception.NotFoundError:
            return None
    return {name: _from_tag(tag) for name, tag in tags.items()}


def to_tag(value: str) -> str:
    """A tag holds up to 63 characters of few kinds.

    Modal refuses slashes, colons and commas in tags, and repositories and lists of GPUs have them.
    """
    return value.replace("/", "--").replace(":", "..").replace(",", "._.")


def _from_tag(value: str) -> str:
    return value.replace("._.", ",").replace("--", "/", 1).replace("..", ":")


def workspace_name() -> str:
    """The workspace that Modal's credentials are of; their own id where Modal does not say it.

    App names repeat between workspaces, so records of deployments are kept by it.
    """
    import modal
    import modal.config

    with errors_of("looking up the workspace"):
        try:
            if name := modal.Workspace.from_context().hydrate().name:
                return str(name)
        except (modal.exception.AuthError, modal.exception.ConnectionError):
            raise
        except modal.exception.Error as error:
            log.info("Modal does not say which workspace this is: %s", error)
        return str(modal.config.config.get("token_id"))


def environment_name(environment: str | None) -> str:
    """``environment``, or the one that Modal takes where none is named."""
    import modal.config

    if name := environment or modal.config.config.get("environment"):
        return str(name)
    with errors_of("looking up the environment"):
        return str(modal.Environment.from_context().hydrate().name)


def secret_exists(name: str, environment: str | None) -> bool:
    """Whether the workspace has a secret of that name."""
    import modal

    with errors_of(f"looking up the secret {name}"):
        try:
            modal.Secret.from_name(name, environment_name=environment).hydrate()
        except modal.exception.NotFoundError:
            return False
    return True


class _Output:
    """Modal's progress: one for all threads, and it fails where two of them work at once."""

    lock = threading.Lock()
    shown = ExitStack()
    working = 0


@contextmanager
def modal_output() -> Iterator[None]:
    """Show Modal's progress on a terminal or in a notebook, until somebody else works as well."""
    import modal

    # Modal's output is one object for the process; two deploys that print at once break each other.
    with _Output.lock:
        _Output.shown.close()
        _Output.working += 1
        if _Output.working == 1 and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            _Output.shown.enter_context(modal.enable_output())
    try:
        yield
    finally:
        with _Output.lock:
            _Output.shown.close()
            _Output.working -= 1
