"""What every test runs under: no network, two threads, the same examples every time, and where the shared data is.

Hypothesis derandomizes: a red run is red again on the next machine. Longer, random searches belong behind ``slow``.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2

# Read when numpy, torch and onnxruntime load their thread pools; subprocesses inherit them.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, str(THREADS))

hypothesis.settings.register_profile(
    "deterministic",
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("deterministic")


def _data_folder() -> Path:
    named = os.environ.get("PRUNE_VERIFY_DATA")
    return Path(named) if named else ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with mnist/, adult/ and the other shared data sets; skips where there is none."""
    folder = _data_folder()
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set PRUNE_VERIFY_DATA")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Refuse every connection that leaves the machine's own files: a verification must not need any."""
    loopback = request.node.get_closest_marker("loopback") is not None

    def guarded(name: str):
        original = getattr(socket.socket, name)

        def call(self: socket.socket, *args: object) -> object:
            here = loopback and self.family == socket.AF_INET and args[-1][0] == "127.0.0.1"
            if self.family != socket.AF_UNIX and not here:
                pytest.fail(f"a test tried to use the network: socket.{name}{args!r}")
            return original(self, *args)

        return call

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, guarded(name))


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    """Keep torch at two threads, where a test has loaded it; results must not hang on the count."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(THREADS)
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(THREADS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for the shared data carries its marker, so that ``-m "not shared_data"`` is complete."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared_data)
