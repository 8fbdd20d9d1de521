"""Function calls: what clients and the web edge put in, what containers take out and answer."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.empty_pb2 import Empty
from modal._serialization import serialize, serialize_data_format
from modal_proto import api_pb2 as p

from .asker import ASKER
from .bell import Bell
from .containers import Container, Host, kill, launch

if TYPE_CHECKING:
    from .plane import Plane

LONG_POLL = 5.0


@dataclass
class FunctionCall:
    """One call with all its inputs, its two data streams and its outputs."""

    call_id: str
    function_id: str
    invocation: int = p.FUNCTION_CALL_INVOCATION_TYPE_SYNC
    inputs: dict[str, int] = field(default_factory=dict)
    data_in: list[p.DataChunk] = field(default_factory=list)
    data_out: list[p.DataChunk] = field(default_factory=list)
    outputs: list[p.FunctionGetOutputsItem] = field(default_factory=list)
    changed: Bell = field(default_factory=Bell)

    async def send(self, message: dict[str, Any]) -> None:
        """Append one ASGI message to the call's input stream."""
        data = serialize_data_format(message, p.DATA_FORMAT_ASGI)
        index = len(self.data_in) + 1
        self.data_in.append(p.DataChunk(data_format=p.DATA_FORMAT_ASGI, data=data, index=index))
        self.changed.ring()


class Calls:
    """Queues of inputs per function, and the calls they belong to."""

    def __init__(self: Plane) -> None:
        self.function_calls: dict[str, FunctionCall] = {}
        self.queues: dict[str, deque[p.FunctionGetInputsItem]] = defaultdict(deque)
        self.running: dict[str, dict[str, FunctionCall]] = defaultdict(dict)
        """What each container works on."""
        self.arrived = Bell()
        self.containers: dict[str, Container] = {}
        """The container of each function that takes its inputs."""
        self.successors: dict[str, Container] = {}
        """Containers of a newer version; each takes over when it asks for its first input."""
        self.task_results: list[p.GenericResult] = []
        self.host: Host | None = None
        """Where containers run; None: no container ever comes."""
        self.starting = asyncio.Lock()
        self.watchers: set[asyncio.Task[None]] = set()

    def live_stats(self: Plane, function_id: str) -> p.FunctionStats:
        """What Modal would say of a function now."""
        return p.FunctionStats(
            backlog=len(self.queues[function_id]),
            num_total_tasks=int(function_id in self.containers),
            num_running_inputs=sum(
                call.function_id == function_id
                for running in self.running.values()
                for call in running.values()
            ),
        )

    async def open_call(self: Plane, function_id: str, invocation: int = 0) -> FunctionCall:
        """A new call without inputs."""
        call = FunctionCall(self.new_id("fc"), function_id, invocation or 1)
        self.function_calls[call.call_id] = call
        return call

    async def put_input(
        self: Plane, call: FunctionCall, content: p.FunctionInput, index: int = 0
    ) -> str:
        """Queue one input and see to it that a container comes for it."""
        input_id = self.new_id("in")
        call.inputs[input_id] = index
        self.queues[call.function_id].append(
            p.FunctionGetInputsItem(
                input_id=input_id,
                input=content,
                function_call_id=call.call_id,
                function_call_invocation_type=call.invocation,
            )
        )
        await self.want_container(call.function_id)
        self.arrived.ring()
        return input_id

    async def call_web(self: Plane, function_id: str, scope: dict[str, Any]) -> FunctionCall:
        """Call a web function with an ASGI scope."""
        call = await self.open_call(function_id)
        content = p.FunctionInput(args=serialize(((scope,), {})), data_format=p.DATA_FORMAT_PICKLE)
        await self.put_input(call, content)
        return call

    # -- from clients --------------------------------------------------------------------------

    async def FunctionMap(self: Plane, request: Any) -> p.FunctionMapResponse:
        call = await self.open_call(request.function_id, request.function_call_invocation_type)
        accepted = await self._accept(call, request.pipelined_inputs)
        return p.FunctionMapResponse(
            function_call_id=call.call_id, pipelined_inputs=accepted, max_inputs_outstanding=1000
        )

    async def FunctionPutInputs(self: Plane, request: Any) -> p.FunctionPutInputsResponse:
        call = self.function_calls[request.function_call_id]
        return p.FunctionPutInputsResponse(inputs=await self._accept(call, request.inputs))

    async def _accept(self: Plane, call: FunctionCall, items: Any) -> list[Any]:
        return [
            p.FunctionPutInputsResponseItem(
                idx=item.idx,
                input_id=(input_id := await self.put_input(call, item.input, item.idx)),
                input_jwt=input_id,
            )
            for item in items
        ]

    async def FunctionGetOutputs(self: Plane, request: Any) -> p.FunctionGetOutputsResponse:
        call = self.function_calls[request.function_call_id]
        seen = int(request.last_entry_id.partition("-")[0] or 0)
        deadline = self.loop.time() + request.timeout
        while len(call.outputs) <= seen and self.loop.time() < deadline:
            await call.changed.heard(deadline - self.loop.time())
        outputs = call.outputs[seen:]
        return p.FunctionGetOutputsResponse(
            outputs=outputs,
            idxs=[output.idx for output in outputs],
            last_entry_id=f"{seen + len(outputs)}-0",
            num_unfinished_inputs=len(call.inputs) - len(call.outputs),
        )

    async def FunctionCallGetDataOut(self: Plane, request: Any) -> AsyncIterator[p.DataChunk]:
        call = self.function_calls[request.function_call_id]
        async for chunk in self.stream(call, "data_out", request.last_index):
            yield chunk

    async def FunctionCallCancel(self: Plane, request: Any) -> Empty:
        return Empty()

    # -- from containers -----------------------------------------------------------------------

    async def ContainerHello(self: Plane, request: Any) -> Empty:
        return Empty()

    async def ContainerCheckpoint(self: Plane, request: Any) -> Empty:
        """A snapshot is taken, and the same process goes on as if it had been restored from it."""
        (self.root / ASKER.get() / "restored.json").write_text("{}")
        return Empty()

    async def ContainerHeartbeat(self: Plane, request: Any) -> p.ContainerHeartbeatResponse:
        return p.ContainerHeartbeatResponse()

    async def ContainerStop(self: Plane, request: Any) -> p.ContainerStopResponse:
        for container in self.containers.values():
            if container.task_id != request.task_id:
                continue
            container.draining = True
            if not request.graceful:
                kill(container)
        return p.ContainerStopResponse()

    async def FunctionGetDynamicConcurrency(
        self: Plane, request: Any
    ) -> p.FunctionGetDynamicConcurrencyResponse:
        return p.FunctionGetDynamicConcurrencyResponse(concurrency=request.target_concurrency)

    async def FunctionGetInputs(self: Plane, request: Any) -> p.FunctionGetInputsResponse:
        function_id, asker = request.function_id, ASKER.get()
        if (newer := self.successors.get(function_id)) and newer.task_id == asker:
            self.containers[function_id] = self.successors.pop(function_id)
        queue = self.queues[function_id]
        if not queue and self._takes_inputs(function_id, asker):
            await self.arrived.heard(LONG_POLL)
        if not self._takes_inputs(function_id, asker):
            return p.FunctionGetInputsResponse(inputs=[p.FunctionGetInputsItem(kill_switch=True)])
        if not queue:
            return p.FunctionGetInputsResponse()
        item = queue.popleft()
        self.running[asker][item.input_id] = self.function_calls[item.function_call_id]
        return p.FunctionGetInputsResponse(inputs=[item])

    def _takes_inputs(self: Plane, function_id: str, task_id: str) -> bool:
        container = self.containers.get(function_id)
        return container is not None and container.task_id == task_id and not container.draining

    async def FunctionCallGetDataIn(self: Plane, request: Any) -> AsyncIterator[p.DataChunk]:
        call = self.function_calls[request.function_call_id]
        async for chunk in self.stream(call, "data_in", request.last_index):
            yield chunk

    async def FunctionCallPutDataOut(self: Plane, request: Any) -> Empty:
        call = self.function_calls[request.function_call_id]
        call.data_out.extend(request.data_chunks)
        call.changed.ring()
        return Empty()

    async def FunctionPutOutputs(self: Plane, request: Any) -> Empty:
        for item in request.outputs:
            await self.finish(item.input_id, item.result, item.data_format)
        return Empty()

    async def TaskResult(self: Plane, request: Any) -> Empty:
        self.task_results.append(request.result)
        return Empty()

    async def finish(
        self: Plane, input_id: str, result: p.GenericResult, data_format: int = 0
    ) -> None:
        """Record the outcome of one running input."""
        for running in self.running.values():
            if (call := running.pop(input_id, None)) is not None:
                call.outputs.append(
                    p.FunctionGetOutputsItem(
                        result=result,
                        idx=call.inputs[input_id],
                        input_id=input_id,
                        data_format=data_format,
                    )
                )
                call.changed.ring()

    async def stream(
        self: Plane, call: FunctionCall, name: str, after: int
    ) -> AsyncIterator[p.DataChunk]:
        """Chunks of one of a call's streams from an index on, until the call is done."""
        deadline = self.loop.time() + 60
        while self.loop.time() < deadline:
            chunks: list[p.DataChunk] = getattr(call, name)
            for chunk in chunks[after:]:
                after = chunk.index
                yield chunk
            if len(call.outputs) == len(call.inputs) and after == len(chunks):
                return
            await call.changed.heard(LONG_POLL)

    # -- containers ----------------------------------------------------------------------------

    async def want_container(self: Plane, function_id: str) -> None:
        """Start a container of the function unless one of its newest version runs or none can."""
        async with self.starting:
            current = self.containers.get(function_id)
            place = self.successors if current else self.containers
            newest = current and current.definition is self.functions[function_id].active
            if self.host is None or newest or function_id in place:
                return
            container = await launch(self, function_id, self.host)
            place[function_id] = container
        task = asyncio.create_task(self._watch(container))
        self.watchers.add(task)
        task.add_done_callback(self.watchers.discard)

    async def _watch(self: Plane, container: Container) -> None:
        """Collect a container's output; at its end fail what it was working on.

        What waits fails too, unless a container of a newer version comes to take it.
        """
        assert container.process.stdout is not None
        async for line in container.process.stdout:
            self.log(container.app_id, line.decode(errors="replace"))
        await container.process.wait()
        await self.close_socket(container.task_id)
        if self.successors.get(container.function_id) is container:
            del self.successors[container.function_id]
        lost = self.running[container.task_id]
        if self.containers.get(container.function_id) is container:
            del self.containers[container.function_id]
            if newer := self.successors.pop(container.function_id, None):
                self.containers[container.function_id] = newer
            else:
                for item in self.queues.pop(container.function_id, ()):
                    lost[item.input_id] = self.function_calls[item.function_call_id]
        status = p.GenericResult.GENERIC_STATUS_INTERNAL_FAILURE
        for input_id in list(lost):
            await self.finish(input_id, p.GenericResult(status=status, exception="container ended"))

    async def stop_containers(self: Plane, app_id: str = "") -> None:
        """End the containers of an app, or all."""
        every = (*self.containers.values(), *self.successors.values())
        chosen = [c for c in every if app_id in ("", c.app_id)]
        for container in chosen:
            kill(container)
        for container in chosen:
            await container.process.wait()
