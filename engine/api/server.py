"""The HTTP server: BlackSheep's routes on uvicorn's connections, inside the daemon's own loop.

uvicorn is used without its process and its signals: `lifecycle` starts and stops it with the
other stages. A route costs BlackSheep's match and one call of the gateway; no middleware stands
between them.
"""

import asyncio
import logging
import ssl
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import uvicorn
from blacksheep import Application, Content, Request, Response, Router, StreamedContent
from blacksheep.server import routing

from engine import clock, log
from engine.api.gateway import Bound, Gateway
from engine.api.protocol import Connection, GoneError, limited
from engine.api.route import ApiError, Reply
from engine.config import ApiConfig
from engine.errors import EngineError
from engine.listen import listen

# At the end, answers under way have so long to be read.
SHUTDOWN_S = 2
SLOW_TICK_S = 1.0

Endpoint = Callable[[Request], Awaitable[Response]]
Serve = Callable[..., Awaitable[Reply]]


class Server:
    """Serves a gateway's routes."""

    def __init__(self, config: ApiConfig, gateway: Gateway,
                 tls: ssl.SSLContext | None = None) -> None:
        self.gateway = gateway
        self._tls = tls
        self._config = config
        self._server: uvicorn.Server | None = None
        # BlackSheep remembers its applications and what was asked of them while the process lives:
        # all that they hold of the venue is this list, which is emptied at the end.
        self._held: list[tuple[Serve, Bound]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._log = log.get("api")
        self.port = 0

    @property
    def connection_count(self) -> int:
        """Open connections."""
        return len(self._server.server_state.connections) if self._server else 0

    async def start(self) -> int:
        """Listen; returns the port. Raises EngineError when the address is not ours."""
        config, loop = self._config, asyncio.get_running_loop()
        application = await self._application()
        _forward_logs()
        connection = limited(config.connections_max, config.body_max_bytes)
        settings = uvicorn.Config(
            application, http=connection, ws="none", lifespan="off",
            interface="asgi3", log_config=None, access_log=False, proxy_headers=False,
            server_header=False, timeout_graceful_shutdown=SHUTDOWN_S)
        settings.load()
        server = uvicorn.Server(settings)
        server.lifespan = settings.lifespan_class(settings)
        try:
            listener = await listen(
                lambda: connection(settings, server.server_state, {}, loop),
                config.host, config.port, 1024, self._tls)
        except OSError as error:
            raise EngineError(f"cannot listen on {config.host}:{config.port}: "
                              f"{error.strerror or error}", "api.host and api.port") from error
        server.servers = [listener]
        server.started = True
        self._server = server
        self._tasks = [loop.create_task(server.main_loop(), name="http"),
                       loop.create_task(self._cut_slow(), name="http slow")]
        self.port = listener.sockets[0].getsockname()[1]
        self._log.info("api listening", host=config.host, port=self.port)
        return self.port

    async def close(self) -> None:
        """Listen no more, let answers under way go out, close every connection."""
        if self._server is not None:
            self._server.should_exit = True
            await self._server.shutdown()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._server = None
        self._held.clear()

    async def _cut_slow(self) -> None:
        state = self._server.server_state if self._server else None
        while state is not None:
            await asyncio.sleep(SLOW_TICK_S)
            now_ns = clock.monotonic_ns()
            for connection in list(state.connections):
                if isinstance(connection, Connection) and connection.cut_if_slow(now_ns):
                    self._log.info("cut a slow request", key="slow")

    # -- BlackSheep ----------------------------------------------------------------------------

    async def _application(self) -> Any:
        router = Router()
        application: Any = Application(router=router)
        for bound in self.gateway.table:
            endpoint = self._endpoint(bound)
            path = bound.route.path
            pattern = _pattern(path)
            router.add_route(bound.route.method, routing.Route(pattern, endpoint))
            if bound.route.method == "GET":
                router.add_route("HEAD", routing.Route(pattern, endpoint))
        router.fallback = self._missing()
        await application.start()
        return application

    def _endpoint(self, bound: Bound) -> Endpoint:
        # BlackSheep takes a handler with exactly these types as it is, and wraps any other:
        # so this module's annotations are not put off.
        held, place = self._held, len(self._held)
        held.append((self.gateway.serve, bound))

        async def endpoint(request: Request) -> Response:
            serve, bound = held[place]
            scope: Any = request.scope
            values: Any = request.route_values
            content: Any = request.content
            # The connection begins a request when it is whole: this is all of its body.
            body = (await content.receive())["body"]
            reply = await serve(
                bound, values or {}, scope["method"], scope["raw_path"],
                scope["query_string"], scope["headers"], body, scope["client"][0])
            if reply.stream is None:
                return _response(reply)
            return await _streamed(reply, reply.stream, scope["method"] == "HEAD")

        return endpoint

    def _missing(self) -> Endpoint:
        server = weakref.ref(self)

        async def missing(request: Request) -> Response:
            """What no route takes: 404, or 405 with the methods that the path has."""
            scope: Any = request.scope
            itself = server()
            found = itself and itself.gateway.table.find(scope["method"], scope["path"])
            if not isinstance(found, ApiError):
                found = ApiError(404, "not_found", "there is nothing at this path")
            return _response(found.reply())

        return missing


def _response(reply: Reply) -> Response:
    return Response(reply.status, list(reply.headers), Content(reply.content_type, reply.body))


async def _streamed(reply: Reply, stream: AsyncGenerator[bytes, None],
                    head_only: bool) -> Response:
    async def parts() -> AsyncGenerator[bytes, None]:
        try:
            async for part in stream:
                yield part
        except EngineError as error:
            log.get("api").warning("a long answer was cut off", error=str(error), key="cut off")
            raise GoneError from error
        finally:
            await stream.aclose()

    async def nothing() -> AsyncGenerator[bytes, None]:
        none: tuple[bytes, ...] = ()
        for part in none:
            yield part

    if head_only:
        await stream.aclose()
    return Response(reply.status, list(reply.headers), StreamedContent(
        reply.content_type, nothing if head_only else parts))


def _pattern(path: str) -> str:
    """A path as BlackSheep writes it: its kinds stand before the name."""
    parts = path.split("{")
    return parts[0] + "".join(
        f"{{path:{part.replace(':path}', '}', 1)}" if ":path}" in part else f"{{{part}"
        for part in parts[1:])


class _ToOurLog(logging.Handler):
    """What the libraries say becomes lines of ours, limited as ours are."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._log = log.get("api")

    def emit(self, record: logging.LogRecord) -> None:
        tell = self._log.error if record.levelno >= logging.ERROR else self._log.info
        tell("http", message=record.getMessage().strip(), key=record.msg,
             exc_info=record.exc_info)


def _forward_logs() -> None:
    for name in ("uvicorn.error", "blacksheep.server"):
        logger = logging.getLogger(name)
        logger.handlers = [_ToOurLog()]
        logger.propagate = False
