"""Small servers on 127.0.0.1 that speak the Open Inference Protocol, or fail to, as a test wishes."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from prune_verify.checker.load_onnx import LoadedModel, load_network
from prune_verify.checker.network import Network, evaluate

Logits = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: tuple[str, int]


@dataclass(frozen=True)
class Reply:
    """What is sent back; ``pieces`` are sent one by one with ``pause`` called in between."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    pause: Callable[[], None] = lambda: None
    piece: int = 2**20


class Served:
    """A server that answers by a function, and remembers what it was asked."""

    def __init__(self, handle: Callable[[Request], Reply], tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                size = int(self.headers.get("Content-Length", "0"))
                asked = Request(self.command, self.path, dict(self.headers), self.rfile.read(size), self.client_address)
                outer.requests.append(asked)
                reply = handle(asked)
                self.send_response(reply.status)
                length = len(reply.body) if reply.length is None else reply.length
                for name, value in (reply.headers | {"Content-Length": str(length)}).items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for start in range(0, len(reply.body), reply.piece):
                        self.wfile.write(reply.body[start : start + reply.piece])
                        self.wfile.flush()
                        reply.pause()
                except OSError:  # the client had enough
                    self.close_connection = True

            do_POST = do_GET  # noqa: N815 - the library's names

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def server_bind(self) -> None:
                socketserver.TCPServer.server_bind(self)  # without looking names up
                self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

            def handle_error(self, *_: object) -> None:
                """A client that went away is none."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def origin(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.origin}/v2/models/digits"

    @property
    def queries(self) -> list[np.ndarray]:
        """The inputs of inference requests, in order."""
        return [inputs_of(r) for r in self.requests if r.method == "POST"]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def inputs_of(request: Request) -> np.ndarray:
    tensor = json.loads(request.body)["inputs"][0]
    return np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])


def tensor(name: str, values: np.ndarray, datatype: str) -> dict:
    return {"name": name, "shape": list(values.shape), "datatype": datatype, "data": values.reshape(-1).tolist()}


METADATA = {"name": "digits", "versions": [], "platform": "test", "inputs": [], "outputs": []}


def protocol(
    logits: Logits,
    *,
    metadata: dict = METADATA,
    change: Callable[[dict, int], dict | bytes] = lambda document, _: document,
) -> Callable[[Request], Reply]:
    """A server of the protocol: ``change`` may spoil the n-th answer to an inference request."""
    count = [0]

    def handle(request: Request) -> Reply:
        if request.method == "GET":
            there = request.path in ("/v2/health/ready", "/v2/models/digits")
            return Reply(json.dumps(metadata).encode()) if there else Reply(b'{"error": "no such model"}', 404)
        if request.path != "/v2/models/digits/infer":
            return Reply(b'{"error": "no such model"}', 404)
        values = logits(inputs_of(request)).astype(np.float64)
        named = {"logits": (values, "FP32"), "label": (values.argmax(axis=1), "INT64")}
        wanted = [o["name"] for o in json.loads(request.body)["outputs"]]
        document = {"model_name": "digits", "outputs": [tensor(name, *named[name]) for name in wanted]}
        changed = change(document, count[0])
        count[0] += 1
        return Reply(changed if isinstance(changed, bytes) else json.dumps(changed).encode())

    return handle


def model(path: Path) -> LoadedModel:
    return load_network(path.read_bytes(), path.name)


def running(network: Network) -> Logits:
    """The network in float32, as a server would run it."""
    return lambda x: evaluate(network, x)
