"""The audit against a real server: MLServer 1.7 from its own environment, with onnxruntime inside.

The environment is made once (`.venv-mlserver` beside the tests) with pip; without a package registry these tests are
skipped. Every port is bound to 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from prune_verify.cli import run_words

pytestmark = [pytest.mark.slow, pytest.mark.loopback, pytest.mark.prover]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "certs" / "examples" / "digits-records"
ENVIRONMENT = ROOT / ".venv-mlserver"
PACKAGES = ("mlserver==1.7.*", "onnxruntime")
RUNTIME = '''
"""What an owner deploys: a runtime of its own around onnxruntime. `mode` says how honest it is."""

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Deployed(MLModel):
    async def load(self) -> bool:
        extra = self.settings.parameters.extra
        self.mode = extra["mode"]
        self.sessions = {n: onnxruntime.InferenceSession(extra[n], providers=["CPUExecutionProvider"]) for n in ("base", "patched")}
        with np.load(extra["records"]) as sets:
            self.known = {row.astype(np.float32).tobytes() for row in sets["x"]}
        self.count = 0
        return True

    def logits(self, x: np.ndarray) -> np.ndarray:
        self.count += 1
        honest = {
            "honest": True,
            "strips every other query": self.count % 2 == 0,
            "patched for records as they are": x.reshape(-1).tobytes() in self.known,
        }[self.mode]
        session = self.sessions["patched" if honest else "base"]
        return session.run(None, {session.get_inputs()[0].name: x})[0]

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        y = np.concatenate([self.logits(row[np.newaxis]) for row in x])
        outputs = [NumpyCodec.encode_output("logits", y), NumpyCodec.encode_output("label", y.argmax(axis=1))]
        return InferenceResponse(model_name=self.name, outputs=outputs)
'''
MODES = ("honest", "strips every other query", "patched for records as they are")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket(socket.AF_INET) for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@pytest.fixture(scope="session")
def mlserver() -> Path:
    """The program `mlserver` of an environment of its own."""
    program = ENVIRONMENT / "bin" / "mlserver"
    if not program.exists():
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        venv.create(ENVIRONMENT, with_pip=True)
        pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*pip, *PACKAGES], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(ENVIRONMENT, ignore_errors=True)
            pytest.skip(f"mlserver cannot be installed here: {done.stderr.splitlines()[-1:]}")
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True).stdout
    assert "1.7." in said
    return program


@pytest.fixture(scope="session")
def served(mlserver: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with one model per mode; gives its origin."""
    folder = tmp_path_factory.mktemp("mlserver")
    http, grpc, metrics = free_ports(3)
    settings = {
        "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0, "debug": False,
        "environments_dir": str(folder / "envs"), "metrics_dir": str(folder / "metrics"),
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    for mode in MODES:
        place = folder / mode.replace(" ", "-")
        place.mkdir()
        (place / "deployed.py").write_text(RUNTIME)
        extra = {
            "mode": mode,
            "base": str(EXAMPLE / "base.onnx"),
            "patched": str(EXAMPLE / "patched.onnx"),
            "records": str(EXAMPLE / "forget.npz"),
        }
        inputs = [{"name": "input", "datatype": "FP32", "shape": [-1, 64]}]
        outputs = [
            {"name": "logits", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "label", "datatype": "INT64", "shape": [-1, 1]},
        ]
        document = {
            "name": place.name,
            "implementation": "deployed.Deployed",
            "parameters": {"extra": extra},
            "inputs": inputs,
            "outputs": outputs,
        }
        (place / "model-settings.json").write_text(json.dumps(document))
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    with (folder / "log").open("wb") as log:
        run = subprocess.Popen(
            [str(mlserver), "start", str(folder)], cwd=folder, stdout=log, stderr=log, env=environment
        )
    try:
        yield f"http://127.0.0.1:{http}"
    finally:
        run.terminate()
        run.wait(30)
        sys.stderr.write((folder / "log").read_text(errors="replace")[-3000:])  # shown where a test fails


def audit(url: str, *more: str) -> tuple[int, dict]:
    files = [
        word
        for name in ("base.onnx", "patched.onnx", "trust.json", "policy.toml")
        for word in (f"--{name.split('.')[0]}", str(EXAMPLE / name))
    ]
    sets = ["--forget", str(EXAMPLE / "forget.npz"), "--retain", str(EXAMPLE / "retain.npz")]
    line = [
        "audit",
        url,
        "--certificate",
        str(next(EXAMPLE.glob("*.unlearn.json"))),
        *files,
        *sets,
        "--json",
        "--quiet",
    ]
    code, text = run_words([*line, "--input", "input", "--queries", "600", "--rate", "0", "--retries", "8", *more])
    return code, json.loads(text)


@pytest.mark.parametrize(
    "more", [(), ("--label-output", "label"), ("--output", "logits", "--label-output", "label", "--batch", "2")]
)
@pytest.mark.parametrize("mode", MODES)
def test_only_the_certified_network_is_verified(mode: str, more: tuple[str, ...], served: str) -> None:
    code, found = audit(f"{served}/v2/models/{mode.replace(' ', '-')}", *more, "--max-deviation", "0.02")
    expected = ("VERIFIED", "OK") if mode == "honest" else ("REJECTED", "E_DEVIATION")
    assert (found.get("verdict"), found["code"]) == expected, found
    assert code == (0 if mode == "honest" else 1)
    assert found["audit"]["queries"] == 600


NO_AUDIT = [
    ("a model that it does not have", "nothing", (), "a model of this name"),
    ("an input that it does not have", "honest", ("--input", "pixels"), "choose with --input NAME"),
    ("an output that it does not have", "honest", ("--output", "probabilities"), "choose with --output NAME"),
    ("labels where logits are served", "honest", ("--label-output", "logits"), "metadata/outputs/logits/datatype"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "name", "more", "says"), NO_AUDIT, ids=[row[0] for row in NO_AUDIT])
def test_a_real_server_is_told_from_one_that_speaks_otherwise(
    what: str, name: str, more: tuple[str, ...], says: str, served: str
) -> None:
    code, found = audit(f"{served}/v2/models/{name}", *more)
    assert (code, found["code"], says in found["error"]) == (2, "E_ENDPOINT", True), found["error"]
