"""Containers: Modal's own runtime in private mount, process and network namespaces.

A container sees what Modal would give it: the uploaded package, the packages its image installs,
Modal's own dependencies, its Volumes, its secrets. Needs root.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from modal import __version__ as MODAL_VERSION
from modal_proto import api_pb2 as p

if TYPE_CHECKING:
    from .plane import Plane

# Read at import: tests run with an empty home.
HOME = Path.home()
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or HOME / ".cache") / "modal-plane"

# The last line keeps the shell as process 1, so that its end is the end of everything in there.
ENTER = """
set -e
{network}
for top in {tops}; do mount -t tmpfs tmpfs "$top"; done
{binds}
cd {home}
{python} -m modal._container_entrypoint || exit $?
exit 0
"""
# The runtime looks for its web server on eth0; here that name is the loopback's.
NETWORK = "ip link set lo down; ip link set lo name eth0; ip link set eth0 up"


@dataclass
class Host:
    """Where containers run: extra folders bound into them, and environment variables to replace."""

    binds: dict[str, Path] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Container:
    """One running container."""

    task_id: str
    function_id: str
    app_id: str
    definition: p.Function
    process: asyncio.subprocess.Process
    enqueued: float
    draining: bool = False


def python_of(commands: list[str]) -> Path:
    """The interpreter of an environment with exactly what an image's commands install."""
    packages = [f"modal=={MODAL_VERSION}", *installed_packages(commands)]
    version = python_version(commands)
    name = hashlib.sha256("\n".join([version, *sorted(packages)]).encode()).hexdigest()[:16]
    python = CACHE / name / "bin" / "python"
    if not (CACHE / name / "complete").exists():
        run = partial(subprocess.run, check=True, env={**os.environ, "HOME": str(HOME)})
        run([_interpreter(version), "-m", "venv", "--clear", CACHE / name])
        run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages])
        (CACHE / name / "complete").touch()
    return python


def _interpreter(version: str) -> str:
    """A Python of that version on this machine, or the one that runs the tests."""
    pyenv = HOME / ".pyenv" / "versions"
    known = [*pyenv.glob(f"{version}.*/bin/python{version}"), Path(f"/usr/bin/python{version}")]
    return str(next((path for path in known if path.exists()), sys.executable))


def python_version(commands: list[str]) -> str:
    """The minor version of the image's Python, as Modal's process runs on it."""
    for command in commands:
        if found := re.match(r"FROM python:(\d+\.\d+)", command):
            return found[1]
    return "3.12"


def installed_packages(commands: list[str]) -> list[str]:
    """Packages that ``Image.uv_pip_install`` puts into the image's own Python."""
    lines = [re.match(r"RUN /\.uv/uv pip install .*--compile-bytecode (.*)", c) for c in commands]
    return [package for line in lines if line for package in shlex.split(line[1])]


async def launch(plane: Plane, function_id: str, host: Host) -> Container:
    """Start a container of a function."""
    function = plane.functions[function_id]
    definition = function.active
    enqueued = time.time()
    assert definition is not None
    task_id = plane.new_id("ta")
    root = plane.root / task_id
    (root / "root").mkdir(parents=True)
    _mount_files(plane, definition, root)
    commands = plane.image_commands(definition.image_id)
    python = await asyncio.to_thread(python_of, commands)
    script = _script(plane, definition, host, python, root)
    await plane.open_socket(task_id, root / "plane.sock")
    environment = _environment(plane, definition, task_id, root) | host.environment
    _write_arguments(plane, function_id, task_id, root)
    private = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if definition.webhook_config.type == p.WEBHOOK_TYPE_WEB_SERVER:
        private.append("--net")
    process = await asyncio.create_subprocess_exec(
        "unshare", *private, "sh", "-c", script,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        limit=2**20,
    )  # fmt: skip
    return Container(task_id, function_id, function.app_id, definition, process, enqueued)


def kill(container: Container) -> None:
    """End a container and everything in it at once."""
    try:
        os.killpg(container.process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _mount_files(plane: Plane, definition: p.Function, root: Path) -> None:
    for mount_id in definition.mount_ids:
        for file in plane.mounts[mount_id].files if mount_id in plane.mounts else ():
            target = root / file.filename.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(plane.mount_files[file.sha256_hex])


def _script(plane: Plane, definition: p.Function, host: Host, python: Path, root: Path) -> str:
    binds = dict(host.binds)
    for mount in definition.volume_mounts:
        name = mount.volume_id.removeprefix("vo-")
        binds[mount.mount_path] = plane.volume_view(name, root.name)
    read_only = set()
    for bucket in definition.cloud_bucket_mounts:
        binds[bucket.mount_path] = plane.bucket_path(bucket.bucket_name) / bucket.key_prefix
        if bucket.read_only:
            read_only.add(bucket.mount_path)
    tops = sorted({"/" + path.split("/")[1] for path in binds})
    commands = [
        f"mkdir -p {path} && mount --bind {'-o ro ' if path in read_only else ''}"
        f"{shlex.quote(str(source))} {path}"
        for path, source in binds.items()
    ]
    served = definition.webhook_config.type == p.WEBHOOK_TYPE_WEB_SERVER
    return ENTER.format(
        network=NETWORK if served else "",
        tops=" ".join(tops),
        binds="\n".join(commands),
        home=root / "root",
        python=python,
    )


def _environment(plane: Plane, definition: p.Function, task_id: str, root: Path) -> dict[str, str]:
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(root / "root"),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(root / "root"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MODAL_SERVER_URL": f"unix://{root}/plane.sock",
        "MODAL_TASK_ID": task_id,
        "MODAL_IS_REMOTE": "1",
        "MODAL_DISABLE_API_PROXY": "1",
        "MODAL_CONTAINER_ARGUMENTS_PATH": str(root / "arguments.bin"),
    }
    if definition.checkpointing_enabled:
        environment["MODAL_ENABLE_SNAP_RESTORE"] = "1"
        environment["MODAL_RESTORE_STATE_PATH"] = str(root / "restored.json")
    for secret_id in definition.secret_ids:
        environment |= plane.secrets[secret_id.removeprefix("st-")]
    return environment


def _write_arguments(plane: Plane, function_id: str, task_id: str, root: Path) -> None:
    function = plane.functions[function_id]
    assert function.active is not None
    definition = p.Function()
    definition.CopyFrom(function.active)
    # Modal says so where a snapshot is to be taken; here of every start.
    definition.is_checkpointing_function = definition.checkpointing_enabled
    arguments = p.ContainerArguments(
        task_id=task_id,
        function_id=function_id,
        app_id=function.app_id,
        function_def=definition,
        environment_name="main",
        checkpoint_id="ch-1" if definition.checkpointing_enabled else "",
        app_layout=plane.layout(function.app_id),
    )
    (root / "arguments.bin").write_bytes(arguments.SerializeToString())
