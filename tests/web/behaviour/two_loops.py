"""Serve one ASGI application in two event loops of one process: ``two_loops.py MODULE PORT``."""

import importlib
import socket
import sys
import threading
from typing import Any

import uvicorn


def main(module: str, port: int) -> None:
    """Run two servers of uvicorn, each in a thread, which accept from one socket."""
    app: Any = importlib.import_module(module).app
    with socket.create_server(("127.0.0.1", port)) as listener:
        config = uvicorn.Config(app, log_level="warning", lifespan="off")
        servers = [uvicorn.Server(config) for _ in range(2)]
        threads = [
            threading.Thread(target=server.run, args=([listener.dup()],), daemon=True)
            for server in servers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
