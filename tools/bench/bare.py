"""The baseline of the check benchmark: a bare ASGI app that reads the body and answers fixed bytes."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn


def app_answering(answer: bytes) -> Any:
    """Return the app."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def main() -> None:
    """Serve on a free port of loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        app_answering(Path(sys.argv[1]).read_bytes()), loop="uvloop", http="httptools", access_log=False, lifespan="off"
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
