"""Apps, their functions, logs and scaling."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2 as p

from .objects import DEFAULT_ENVIRONMENT

if TYPE_CHECKING:
    from .plane import Plane


@dataclass
class App:
    """One app; ``functions`` maps tags to function ids once it is published."""

    app_id: str
    name: str = ""
    environment: str = ""
    functions: dict[str, str] = field(default_factory=dict)
    ephemeral: bool = False
    published: bool = False
    versions: int = 0
    tags: dict[str, str] = field(default_factory=dict)
    logs: list[p.TaskLogs] = field(default_factory=list)


@dataclass
class Function:
    """One function; ``staged`` becomes ``active`` when its app is published."""

    function_id: str
    app_id: str
    name: str
    web_url: str = ""
    staged: p.Function | None = None
    active: p.Function | None = None
    scaling: p.AutoscalerSettings = field(default_factory=p.AutoscalerSettings)
    gpus: list[str] = field(default_factory=list)
    """Types in order of preference, where there are several."""


class Apps:
    """Deploys, look-ups, logs, statistics and stops."""

    def __init__(self: Plane) -> None:
        self.apps: dict[str, App] = {}
        self.functions: dict[str, Function] = {}
        self.stats: dict[str, p.FunctionStats] = {}
        self.counts: dict[str, p.FunctionGetTimeRangeStatsResponse] = {}
        """What the statistics of a time say of a function, whichever time it is."""
        self.bill: list[p.WorkspaceBillingReportItem] = []
        self.new_logs = asyncio.Event()

    def deployed(self: Plane, name: str, environment: str | None = None) -> App | None:
        """The published app of that name, in any environment unless one is named."""
        found = [
            app
            for app in self.apps.values()
            if app.name == name
            and app.published
            and (environment is None or app.environment == (environment or DEFAULT_ENVIRONMENT))
        ]
        return found[-1] if found else None

    def function(self: Plane, app_name: str, name: str) -> p.Function:
        """What a published function is made of."""
        app = self.deployed(app_name)
        assert app is not None, f"{app_name} is not deployed"
        active = self.functions[app.functions[name]].active
        assert active is not None
        return active

    def log(
        self: Plane, app_id: str, text: str, descriptor: int = p.FILE_DESCRIPTOR_STDOUT
    ) -> None:
        """Add a log line to an app."""
        app = self.apps.setdefault(app_id, App(app_id))
        app.logs.append(
            p.TaskLogs(
                data=text,
                file_descriptor=descriptor,
                timestamp=time.time(),
                timestamp_ns=time.time_ns(),
            )
        )
        self.loop.call_soon_threadsafe(self.new_logs.set)

    # -- deploying -----------------------------------------------------------------------------

    async def AppGetByDeploymentName(self: Plane, request: Any) -> p.AppGetByDeploymentNameResponse:
        app = self.deployed(request.name, request.environment_name)
        return p.AppGetByDeploymentNameResponse(app_id=app.app_id if app else "")

    async def AppGetLayout(self: Plane, request: Any) -> p.AppGetLayoutResponse:
        return p.AppGetLayoutResponse(app_layout=self.layout(request.app_id))

    async def AppCreate(self: Plane, request: Any) -> p.AppCreateResponse:
        app = App(self.new_id("ap"), environment=request.environment_name or DEFAULT_ENVIRONMENT)
        app.ephemeral = request.app_state == p.APP_STATE_EPHEMERAL
        self.apps[app.app_id] = app
        return p.AppCreateResponse(app_id=app.app_id)

    async def AppHeartbeat(self: Plane, request: Any) -> Empty:
        return Empty()

    async def AppClientDisconnect(self: Plane, request: Any) -> Empty:
        if self.apps[request.app_id].ephemeral:
            await self.AppStop(request)
        return Empty()

    async def AppSetTags(self: Plane, request: Any) -> Empty:
        return Empty()

    async def FunctionPrecreate(self: Plane, request: Any) -> p.FunctionPrecreateResponse:
        function_id = request.existing_function_id or self.new_id("fu")
        if function_id not in self.functions:
            url = ""
            if request.webhook_config.type:
                url = await self.open_edge(function_id)
            function = Function(function_id, request.app_id, request.function_name, url)
            self.functions[function_id] = function
        metadata = p.FunctionHandleMetadata(
            function_name=request.function_name,
            function_type=request.function_type,
            web_url=self.functions[function_id].web_url,
        )
        return p.FunctionPrecreateResponse(function_id=function_id, handle_metadata=metadata)

    async def FunctionCreate(self: Plane, request: Any) -> p.FunctionCreateResponse:
        function = self.functions[request.existing_function_id]
        # With several choices of GPUs there is a definition for each; the first is always free.
        ranked = request.function_data.ranked_functions
        function.staged = ranked[0].function if ranked else request.function
        function.gpus = [each.function.resources.gpu_config.gpu_type for each in ranked]
        function.staged.web_url = function.web_url
        data = p.FunctionData(function_name=function.name, web_url=function.web_url)
        data.ranked_functions.add(rank=0).function.CopyFrom(function.staged)
        return p.FunctionCreateResponse(
            function_id=function.function_id,
            function=function.staged,
            function_data=data,
            handle_metadata=self.metadata(function, function.staged),
        )

    async def AppPublish(self: Plane, request: Any) -> p.AppPublishResponse:
        app = self.apps[request.app_id]
        app.name, app.functions = request.name, dict(request.function_ids)
        app.published = True
        app.versions += 1
        app.tags = dict(request.tags)
        for function_id in app.functions.values():
            function = self.functions[function_id]
            function.active = function.staged
            assert function.active is not None
            function.scaling = function.active.autoscaler_settings
        url = f"http://127.0.0.1:{self.port}/apps/{app.name}"
        return p.AppPublishResponse(url=url, deployed_at=time.time())

    def layout(self: Plane, app_id: str) -> p.AppLayout:
        """Functions of an app with their handles, as clients and containers get them."""
        functions = self.apps[app_id].functions
        layout = p.AppLayout(function_ids=functions)
        for function_id in functions.values():
            function = self.functions[function_id]
            assert function.active is not None
            layout.objects.add(
                object_id=function_id,
                function_handle_metadata=self.metadata(function, function.active),
            )
        return layout

    def metadata(
        self: Plane, function: Function, definition: p.Function
    ) -> p.FunctionHandleMetadata:
        """A function's handle."""
        return p.FunctionHandleMetadata(
            function_name=definition.function_name,
            function_type=definition.function_type,
            web_url=function.web_url,
            definition_id="de-" + function.function_id,
            function_schema=definition.function_schema,
            app_id=function.app_id,
            supported_input_formats=definition.supported_input_formats,
            supported_output_formats=definition.supported_output_formats,
        )

    # -- managing ------------------------------------------------------------------------------

    async def FunctionGet(self: Plane, request: Any) -> p.FunctionGetResponse:
        app = self.deployed(request.app_name, request.environment_name)
        function_id = app.functions.get(request.object_tag) if app else None
        if function_id is None:
            raise GRPCError(Status.NOT_FOUND, f"App '{request.app_name}' not found")
        function = self.functions[function_id]
        assert function.active is not None
        data = p.FunctionData(function_name=function.name, web_url=function.web_url)
        data.ranked_functions.add(rank=0).function.CopyFrom(function.active)
        handle = self.metadata(function, function.active)
        return p.FunctionGetResponse(function_id=function_id, handle_metadata=handle, function=data)

    async def FunctionGetCurrentStats(self: Plane, request: Any) -> p.FunctionStats:
        return self.stats.get(request.function_id) or self.live_stats(request.function_id)

    async def FunctionGetTimeRangeStats(
        self: Plane, request: Any
    ) -> p.FunctionGetTimeRangeStatsResponse:
        found = p.FunctionGetTimeRangeStatsResponse()
        found.CopyFrom(self.counts.get(request.function_id, found))
        found.since.CopyFrom(request.since)
        found.until.CopyFrom(request.until)
        return found

    async def WorkspaceBillingReport(
        self: Plane, request: Any
    ) -> AsyncIterator[p.WorkspaceBillingReportItem]:
        for item in self.bill:
            when = item.interval.ToDatetime()
            begin, end = request.start_timestamp.ToDatetime(), request.end_timestamp.ToDatetime()
            if begin <= when < end:
                told = p.WorkspaceBillingReportItem()
                told.CopyFrom(item)
                if "*" not in request.tag_names:
                    for name in set(told.tags) - set(request.tag_names):
                        del told.tags[name]
                yield told

    async def TaskList(self: Plane, request: Any) -> p.TaskListResponse:
        return p.TaskListResponse(
            tasks=[
                p.TaskStats(task_id=each.task_id, app_id=each.app_id, enqueued_at=each.enqueued)
                for each in (*self.containers.values(), *self.successors.values())
                if each.app_id == request.app_id and each.process.returncode is None
            ]
        )

    async def FunctionUpdateSchedulingParams(
        self: Plane, request: Any
    ) -> p.FunctionUpdateSchedulingParamsResponse:
        scaling = self.functions[request.function_id].scaling
        scaling.MergeFrom(request.settings)
        return p.FunctionUpdateSchedulingParamsResponse(current_settings=scaling)

    async def AppGetOrCreate(self: Plane, request: Any) -> p.AppGetOrCreateResponse:
        app = self.deployed(request.app_name, request.environment_name)
        if app is None:
            raise GRPCError(Status.NOT_FOUND, f"App '{request.app_name}' not found")
        return p.AppGetOrCreateResponse(app_id=app.app_id)

    async def AppGetTags(self: Plane, request: Any) -> p.AppGetTagsResponse:
        return p.AppGetTagsResponse(tags=self.apps[request.app_id].tags)

    async def AppStop(self: Plane, request: Any) -> Empty:
        self.apps[request.app_id].published = False
        await self.stop_containers(request.app_id)
        return Empty()

    async def AppCountLogs(self: Plane, request: Any) -> p.AppCountLogsResponse:
        return p.AppCountLogsResponse(app_id=request.app_id)

    async def AppFetchLogs(self: Plane, request: Any) -> p.AppFetchLogsResponse:
        app = self.apps.get(request.app_id)
        items = app.logs[-request.limit :] if app else []
        batch = p.TaskLogsBatch(entry_id="1-0", items=items)
        return p.AppFetchLogsResponse(batches=[batch] if items else [])

    async def AppGetLogs(self: Plane, request: Any) -> AsyncIterator[p.TaskLogsBatch]:
        app = self.apps[request.app_id]
        sent = int(request.last_entry_id.partition("-")[0] or len(app.logs))
        deadline = self.loop.time() + request.timeout
        while self.loop.time() < deadline:
            if items := app.logs[sent:]:
                sent += len(items)
                yield p.TaskLogsBatch(entry_id=f"{sent}-0", items=items)
            if not app.published:
                yield p.TaskLogsBatch(entry_id=f"{sent}-0", app_done=True)
                return
            self.new_logs.clear()
            await asyncio.sleep(0.05)
