"""The control plane: a gRPC server in a thread that records every call and can fail any of them.

It speaks the protocol of modal 1.6 with that package's own generated messages. A client process
needs only the variables of `Plane.client_env`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpclib.const
import grpclib.server
from aiohttp import web
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal._utils.grpc_utils import custom_detail_codec
from modal_proto import api_grpc
from modal_proto.api_pb2 import CLIENT_TYPE_CONTAINER

from .apps import Apps
from .asker import ASKER
from .calls import Calls
from .edge import Edge
from .objects import Objects
from .volumes import Volumes

TOKEN = ("ak-test", "as-test-secret")
T = TypeVar("T")


@dataclass
class Fault:
    """What an RPC answers instead; ``times`` None means every call."""

    status: Status
    message: str = "switched on by a test"
    times: int | None = None


@dataclass(frozen=True)
class Call:
    """One recorded RPC."""

    rpc: str
    request: Any


class Plane(Objects, Volumes, Apps, Calls, Edge):
    """The state of one pretended Modal workspace and the server in front of it."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="plane-"))
        self.recorded: list[Call] = []
        self.faults: dict[str, Fault] = {}
        self.delays: dict[str, float] = {}
        """Seconds that RPCs take."""
        self.counters: dict[str, int] = defaultdict(int)
        self.loop = asyncio.new_event_loop()
        for part in (Objects, Volumes, Apps, Calls, Edge):
            part.__init__(self)

    # -- what tests use ------------------------------------------------------------------------

    def calls(self, rpc: str) -> list[Any]:
        """Requests of one RPC, in order of arrival."""
        return [call.request for call in self.recorded if call.rpc == rpc]

    def forget(self) -> None:
        """Drop what was recorded so far."""
        self.recorded.clear()

    @contextmanager
    def failing(self, rpc: str, status: Status, message: str = "") -> Iterator[None]:
        """Let one RPC fail inside a ``with`` block."""
        self.faults[rpc] = Fault(status, message or "switched on by a test")
        try:
            yield
        finally:
            del self.faults[rpc]

    @contextmanager
    def standing_in(self, function: str, status: int) -> Iterator[None]:
        """Let a web function answer every request with a status, without a container."""

        async def answer(_: web.Request) -> web.Response:
            return web.json_response({"data": [{"id": "internvl"}]}, status=status)

        self.stands_in[function] = answer
        try:
            yield
        finally:
            del self.stands_in[function]

    def client_env(self, home: Path, *, authenticated: bool = True) -> dict[str, str]:
        """Environment of a process whose Modal client talks to this plane."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "MODAL_SERVER_URL": f"http://127.0.0.1:{self.port}",
            "MODAL_CONFIG_PATH": str(home / "no-modal.toml"),
            "MODAL_DISABLE_API_PROXY": "1",
            "PYTHONWARNINGS": "error",
        }
        if authenticated:
            env |= {"MODAL_TOKEN_ID": TOKEN[0], "MODAL_TOKEN_SECRET": TOKEN[1]}
        return env

    def container_env(self, home: Path, volume: str) -> dict[str, str]:
        """Environment of a process that is a container which mounts one Volume, without a jail."""
        task_id = self.new_id("ta")
        (self.root / task_id).mkdir()
        socket = self.root / task_id / "plane.sock"
        self.run(self.open_socket(task_id, socket))
        return {
            **self.client_env(home, authenticated=False),
            "MODAL_SERVER_URL": f"unix://{socket}",
            "MODAL_TASK_ID": task_id,
            "MODAL_IS_REMOTE": "1",
            "INTERNVL_MODAL_WEIGHTS_ROOT": str(self.volume_view(volume, task_id)),
        }

    def run(self, coroutine: Coroutine[Any, Any, T], patience: float = 60) -> T:
        """Run a coroutine on the plane's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(patience)

    def new_id(self, prefix: str) -> str:
        """A fresh object id, such as ``ap-3``."""
        self.counters[prefix] += 1
        return f"{prefix}-{self.counters[prefix]}"

    # -- the server ----------------------------------------------------------------------------

    def __enter__(self) -> Plane:
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stop(), 240)  # several sites may each wait for their last requests
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        shutil.rmtree(self.root, ignore_errors=True)

    async def _start(self) -> None:
        self.sockets: dict[str, grpclib.server.Server] = {}
        self.server = self._new_server("")
        await self.server.start("127.0.0.1", 0)
        tcp = self.server._server
        assert tcp is not None
        self.port = tcp.sockets[0].getsockname()[1]
        await self.start_blocks()

    def _new_server(self, task_id: str) -> grpclib.server.Server:
        service = _Service(self, task_id)
        return grpclib.server.Server([service], status_details_codec=custom_detail_codec)

    async def open_socket(self, task_id: str, path: Path) -> None:
        """Listen where one container calls."""
        self.sockets[task_id] = self._new_server(task_id)
        await self.sockets[task_id].start(path=str(path))

    async def close_socket(self, task_id: str) -> None:
        """Listen there no more."""
        self.sockets.pop(task_id).close()

    async def _stop(self) -> None:
        await self.stop_containers()
        if self.watchers:
            await asyncio.wait(self.watchers)
        await self.stop_sites()
        for server in (self.server, *self.sockets.values()):
            server.close()
        current = asyncio.current_task()
        tasks = {task for task in asyncio.all_tasks() if task is not current}
        while tasks:  # a cancellation can be lost where a wait ends at the same moment
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=1)

    def record(self, rpc: str, request: object) -> None:
        """Remember a call, and raise the fault switched on for it."""
        self.recorded.append(Call(rpc, request))
        fault = self.faults.get(rpc)
        if fault is None or fault.times == 0:
            return
        if fault.times is not None:
            fault.times -= 1
        raise GRPCError(fault.status, fault.message)


class _Service:
    """Maps every RPC of Modal's service to the plane's method of the same name."""

    def __init__(self, plane: Plane, task_id: str) -> None:
        self.plane, self.task_id = plane, task_id

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        base = api_grpc.ModalClientBase
        every = type("Every", (base,), dict.fromkeys(base.__abstractmethods__))()
        return {
            path: handler._replace(func=self._serve(path.rpartition("/")[2], handler.cardinality))
            for path, handler in every.__mapping__().items()
        }

    def _serve(self, rpc: str, cardinality: grpclib.const.Cardinality) -> Callable[..., Any]:
        async def serve(stream: grpclib.server.Stream[Message, Message]) -> None:
            request = await stream.recv_message()
            ASKER.set(self.task_id)
            self._authenticate(stream.metadata)
            self.plane.record(rpc, request)
            await asyncio.sleep(self.plane.delays.get(rpc, 0))
            method = getattr(self.plane, rpc, None)
            if method is None:
                raise GRPCError(Status.UNIMPLEMENTED, f"this plane does not know {rpc}")
            if cardinality.server_streaming:
                answers: AsyncIterator[Message] = method(request)
                async for answer in answers:
                    await stream.send_message(answer)
            else:
                await stream.send_message(await method(request))

        return serve

    def _authenticate(self, metadata: Any) -> None:
        if metadata.get("x-modal-client-type") == str(CLIENT_TYPE_CONTAINER):
            return  # trusted by its socket
        if (metadata.get("x-modal-token-id"), metadata.get("x-modal-token-secret")) != TOKEN:
            raise GRPCError(Status.UNAUTHENTICATED, "Token ID is malformed or unknown")
