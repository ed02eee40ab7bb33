"""Serves the provider to the engine: `python -m standin ENGINE_ADDRESS` prints its own port."""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

from .protocol import provider_pb2_grpc
from .provider import Provider


def _end_with(parent: int) -> None:
    """An engine that was killed cannot end its plugins; so they look after it."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    server = grpc.server(
        ThreadPoolExecutor(max_workers=128),
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    address = sys.argv[1] if len(sys.argv) > 1 else ""
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Provider(address), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
