"""The checker in a process whose arithmetic is not IEEE 754's refuses to run: exit 2 or LimitError, never a verdict.

Other code in the process of an auditor may flush subnormals (``torch.set_flush_denormal`` does) or leave another
rounding mode behind; the bounds of certs/SPEC.md section 5 do not hold there. Each case is a process of its own, with
the mode set through the C library (T21).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.uname().machine != "x86_64",
    reason="the bits of MXCSR and of fesetround are those of x86-64 with glibc",
)

ROUND = "import ctypes\nassert ctypes.CDLL('libm.so.6').fesetround({}) == 0\n"
MXCSR = """import ctypes
libm, state = ctypes.CDLL("libm.so.6"), (ctypes.c_uint32 * 8)()
libm.fegetenv(state)
state[7] |= {}
assert libm.fesetenv(state) == 0
"""
MODES = {
    "results are flushed to zero": MXCSR.format("0x8000"),
    "inputs are flushed to zero": MXCSR.format("0x0040"),
    "inputs and results are flushed to zero": MXCSR.format("0x8040"),
    "rounding up": ROUND.format("0x800"),
    "rounding down": ROUND.format("0x400"),
    "rounding to zero": ROUND.format("0xC00"),
}
RUN = "import runpy\nrunpy.run_module('prune_verify.checker', run_name='__main__')\n"
CALLS = """
import numpy as np
from prune_verify.checker.errors import LimitError
from prune_verify.checker.interval import interval_pass, require_ieee_float64
from prune_verify.checker.network import Network, Node
from prune_verify.checker.relaxation import Hints, beats, crown_intervals, lower_bounds
arrays = {"weight": np.eye(2, dtype=np.float32), "bias": np.zeros(2, dtype=np.float32)}
network = Network((Node("Input", (), (2,)), Node("Linear", (0,), (2,), {"axis": (-1,)}, arrays)), 1)
x, known = np.ones((1, 2)), None
known = interval_pass(network, x, x, "real")
"""
ASKED = """
for name, call in (
    ("require_ieee_float64", lambda: require_ieee_float64()),
    ("interval_pass", lambda: interval_pass(network, x, x, "real")),
    ("crown_intervals", lambda: crown_intervals(network, x, x, "real")),
    ("lower_bounds", lambda: lower_bounds(network, known, np.eye(2), Hints(), "real", np.zeros(2, dtype=np.int64))),
    ("beats", lambda: beats(network, x, x, 0, (1,), "ieee754-binary32")),
):
    try:
        call()
        print(name, "answered")
    except LimitError as error:
        print(name, error.code, error.path)
"""
NAMES = ("require_ieee_float64", "interval_pass", "crown_intervals", "lower_bounds", "beats")


def child(code: str, *words: str, folder: Path) -> tuple[int, str]:
    """Exit code and what a process says that runs ``code``; nothing of it may raise."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def verify(mode: str, folder: Path) -> tuple[int, str]:
    """What ``python -m prune_verify.checker verify`` answers on the files of a folder, in a process of that mode."""
    return child(
        mode + RUN, "verify", "digits.unlearn.json", "--base", "base.onnx", "--patched", "patched.onnx", "--trust", "trust.json",
        "--policy", "policy.toml", "--forget", "forget.npz", "--retain", "retain.npz", folder=folder,
    )  # fmt: skip


@pytest.fixture
def example(repository: Path) -> Path:
    return repository / "certs" / "examples" / "digits-records"


def test_the_process_of_these_tests_verifies_in_its_own_mode(example: Path) -> None:
    """So that no row below passes for another reason."""
    code, text = verify(ROUND.format("0"), example)
    assert (code, text.split()[1]) == (0, "VERIFIED")


EXAMPLES = ("digits-records", "digits-records-and-class")


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("mode", MODES)
def test_no_certificate_is_answered(repository: Path, mode: str, name: str) -> None:
    code, text = verify(MODES[mode], repository / "certs" / "examples" / name)
    assert code == 2
    assert "could not run: float64" in text
    assert "round to nearest, subnormals kept" in text
    assert "VERDICT" not in text


@pytest.mark.parametrize("mode", MODES)
def test_no_bound_is_computed(example: Path, mode: str) -> None:
    """Whether the mode is there when the checker is loaded or is set afterwards."""
    refused = "".join(f"{name} E_LIMIT float64\n" for name in NAMES)
    code, text = child(CALLS + MODES[mode] + ASKED, folder=example)
    assert (code, text) == (0, refused)
    code, text = child(
        MODES[mode] + CALLS.replace('known = interval_pass(network, x, x, "real")\n', "") + ASKED, folder=example
    )
    assert (code, text) == (0, refused)


def test_every_function_answers_in_the_usual_mode(example: Path) -> None:
    code, text = child(CALLS + ASKED, folder=example)
    assert (code, text) == (0, "".join(f"{name} answered\n" for name in NAMES))


@pytest.mark.prover
def test_flushing_by_torch_is_noticed(example: Path) -> None:
    """What a prover's own package does to the whole process (MATHS 5.2)."""
    mode = "import torch\nassert torch.set_flush_denormal(True)\n"
    code, text = verify(mode, example)
    assert (code, "could not run: float64" in text) == (2, True)
    code, text = child(CALLS + mode + ASKED, folder=example)
    assert (code, text) == (0, "".join(f"{name} E_LIMIT float64\n" for name in NAMES))
