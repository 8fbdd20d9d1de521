"""The web edge: HTTP on a loopback port per web function, turned into function calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web
from modal._serialization import deserialize_data_format

from .calls import FunctionCall

if TYPE_CHECKING:
    from .plane import Plane

CALL_ID = "__modal_function_call_id"
PROXY_TOKEN = ("wk-test", "ws-test-secret")


class Edge:
    """Requests wait for a container; after `patience` seconds the answer is a redirect."""

    def __init__(self: Plane) -> None:
        self.runners: list[web.AppRunner] = []
        self.patience = 150.0
        self.stands_in: dict[str, Any] = {}
        """aiohttp handlers that answer for functions by name, where no container shall run."""

    async def start_site(self: Plane, app: web.Application) -> str:
        """Serve an aiohttp app on a free port and return its origin."""
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=5)
        await runner.setup()
        self.runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def stop_sites(self: Plane) -> None:
        """Close every port of the edge."""
        for runner in self.runners:
            await runner.cleanup()

    async def open_edge(self: Plane, function_id: str) -> str:
        """Open the origin of one web function."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._handle(function_id, request)

        app = web.Application(client_max_size=2**32)
        app.router.add_route("*", "/{path:.*}", handle)
        return await self.start_site(app)

    async def _handle(self: Plane, function_id: str, request: web.Request) -> web.StreamResponse:
        function = self.functions[function_id]
        if function.active is None or not self.apps[function.app_id].published:
            return web.Response(status=404, text="modal-http: invalid function call")
        sent = (request.headers.get("Modal-Key"), request.headers.get("Modal-Secret"))
        if function.active.webhook_config.requires_proxy_auth and sent != PROXY_TOKEN:
            return web.Response(status=401, text="modal-http: missing credentials")
        if stand_in := self.stands_in.get(function.name):
            answer: web.StreamResponse = await stand_in(request)
            return answer
        if call_id := request.query.get(CALL_ID):
            call = self.function_calls[call_id]
        else:
            call = await self._begin(function_id, request)
        return await self._answer(call, request)

    async def _begin(self: Plane, function_id: str, request: web.Request) -> FunctionCall:
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "query_string": request.query_string.encode(),
            "headers": [(k.lower(), v) for k, v in request.raw_headers],
            "client": ("127.0.0.1", 1),
        }
        body = await request.read()
        call = await self.call_web(function_id, scope)
        await call.send({"type": "http.request", "body": body, "more_body": False})
        return call

    async def _answer(self: Plane, call: FunctionCall, request: web.Request) -> web.StreamResponse:
        try:
            if not await self._has_begun(call):
                url = request.url.with_query({CALL_ID: call.call_id})
                return web.Response(status=303, headers={"Location": str(url)})
            if not call.data_out:
                return web.Response(status=500, text="modal-http: internal error: function failed")
            return await self._relay(call, request)
        except (asyncio.CancelledError, ConnectionError):
            await call.send({"type": "http.disconnect"})
            raise

    async def _has_begun(self: Plane, call: FunctionCall) -> bool:
        deadline = self.loop.time() + self.patience
        while not call.data_out and not call.outputs:
            if (left := deadline - self.loop.time()) <= 0:
                return False
            await call.changed.heard(left)
        return True

    async def _relay(self: Plane, call: FunctionCall, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        async for chunk in self.stream(call, "data_out", 0):
            message: dict[str, Any] = deserialize_data_format(chunk.data, chunk.data_format, None)
            if message["type"] == "http.response.start":
                response.set_status(message["status"])
                for key, value in message["headers"]:
                    if key.lower() not in (b"transfer-encoding", b"connection"):
                        response.headers.add(key.decode(), value.decode())
                await response.prepare(request)
            elif message["type"] == "http.response.body":
                await response.write(message["body"])
                if not message["more_body"]:
                    break
        await response.write_eof()
        return response
