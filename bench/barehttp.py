"""A bare BlackSheep handler on uvicorn: what HTTP costs when the server does nothing.

`POST /v1/orders` reads the body and answers 201, `GET /health` answers 200, each with so many bytes
of JSON as the venue's own answers have.
"""

import argparse
import socket

import uvicorn
from blacksheep import Application, Content, Request, Response, get, post

HOST = "127.0.0.1"


def filler(size: int) -> bytes:
    """JSON of so many bytes."""
    return b'{"rest":"' + b"x" * max(0, size - 11) + b'"}'


def application(order_bytes: int, health_bytes: int) -> Application:
    """Both handlers."""
    app = Application()
    order = Content(b"application/json", filler(order_bytes))
    health = Content(b"application/json", filler(health_bytes))

    @post("/v1/orders")
    async def orders(request: Request) -> Response:
        await request.read()
        return Response(201, None, order)

    @get("/health")
    async def healthy() -> Response:
        return Response(200, None, health)

    return app


def main() -> None:
    """Serve on a free port; the first line says it."""
    parser = argparse.ArgumentParser(prog="bench.barehttp", description=__doc__)
    parser.add_argument("--order-bytes", type=int, default=400)
    parser.add_argument("--health-bytes", type=int, default=200)
    chosen = parser.parse_args()
    server = uvicorn.Server(uvicorn.Config(
        application(chosen.order_bytes, chosen.health_bytes), loop="uvloop", http="httptools",
        log_level="warning", access_log=False, lifespan="on"))
    listener = socket.create_server((HOST, 0), backlog=server.config.backlog)
    print(listener.getsockname()[1], flush=True)
    server.run([listener])


if __name__ == "__main__":
    main()
