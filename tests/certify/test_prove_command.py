"""``prove`` from the command line: its words, the proof, the counterexample, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from prune_verify.certify.vnnlib_files import parse_counterexample
from prune_verify.checker.__main__ import main as checker_main
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.cli import run_words
from prune_verify.measure.training import export_onnx, small_mlp

pytestmark = pytest.mark.prover

SIZE = 4
MIDDLE = (0.125, -0.25, 0.5, 0.25)  # numbers of float32, so that a box of one point has one


def _module(name: str):
    import torch

    torch.manual_seed({"small": 0, "hard": 1}[name])
    module = small_mlp((SIZE, 12, 12, 3) if name == "small" else (24, 32, 32, 32, 3))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2.0)
    return module.eval()


def _property(middle: np.ndarray, radius: float, atom: str) -> str:
    lines = [f"(declare-const X_{i} Real)" for i in range(middle.size)]
    lines += [f"(declare-const Y_{j} Real)" for j in range(3)]
    for i, value in enumerate(middle.tolist()):
        lines += [f"(assert (<= X_{i} {value + radius:.9f}))", f"(assert (>= X_{i} {value - radius:.9f}))"]
    return "\n".join([*lines, f"(assert {atom})", ""])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks and properties of them: one that rule crown proves, one for splits, a false one, a hard one."""
    made = tmp_path_factory.mktemp("prove")
    middle = np.array(MIDDLE, np.float32)
    module = _module("small")
    (made / "net.onnx").write_bytes(export_onnx(module, middle[np.newaxis]))
    session = onnxruntime.InferenceSession(str(made / "net.onnx"))
    points = middle + np.random.default_rng(0).uniform(-0.5, 0.5, (4000, SIZE)).astype(np.float32)
    seen = session.run(None, {session.get_inputs()[0].name: points})[0]
    lowest = float(seen[:, 0].min())
    (made / "easy.vnnlib").write_text(_property(middle, 0.01, "(<= Y_0 -50.0)"))
    (made / "splits.vnnlib").write_text(_property(middle, 0.5, f"(<= Y_0 {lowest - 0.05:.9f})"))
    (made / "false.vnnlib").write_text(_property(middle, 0.5, f"(<= Y_0 {lowest + 0.01:.9f})"))
    (made / "point.vnnlib").write_text(_property(middle, 0.0, "(<= Y_0 50.0)"))
    wide = np.zeros(24, np.float32)
    (made / "hard.onnx").write_bytes(export_onnx(_module("hard"), wide[np.newaxis]))
    (made / "hard.vnnlib").write_text(_property(wide, 0.7, "(and (<= Y_0 -9.0) (<= Y_1 -9.0) (<= Y_2 -9.0))"))
    (made / "broken.vnnlib").write_text("(assert (<= X_0")
    (made / "other.vnnlib").write_text(_property(np.zeros(7), 0.5, "(<= Y_0 0.0)"))
    (made / "broken.onnx").write_bytes(b"no network")
    return made


def _prove(folder: Path, question: str, *words: str | Path, network: str = "net.onnx") -> tuple[int, str]:
    return run_words(["prove", str(folder / network), str(folder / question), *map(str, words)])


@pytest.mark.parametrize("arithmetic", [REAL, BINARY32])
@pytest.mark.parametrize("question", ["easy.vnnlib", "splits.vnnlib"])
def test_unsat_with_a_proof_that_check_proof_accepts(
    folder: Path, tmp_path: Path, question: str, arithmetic: str, capsys
) -> None:
    proof = tmp_path / "proof"
    code, text = _prove(folder, question, "--proof", proof, "--arithmetic", arithmetic, "--json")
    answer = json.loads(text)
    assert (code, answer["answer"], answer["counterexample"], answer["arithmetic"]) == (0, "unsat", None, arithmetic)
    assert answer["proofBytes"] == proof.stat().st_size
    assert (answer["leaves"] > 1) == (question == "splits.vnnlib")
    assert answer["stage"] == ("splits" if question == "splits.vnnlib" else "crown-ibp")
    words = ["check-proof", str(folder / "net.onnx"), str(folder / question), str(proof), "--arithmetic", arithmetic]
    assert checker_main(words) == 0
    assert capsys.readouterr().out.startswith("VERDICT: VERIFIED code=OK")
    words[2] = str(folder / "false.vnnlib")
    assert checker_main(words) == 3
    assert capsys.readouterr().out.startswith("VERDICT: UNDECIDED")


@pytest.mark.parametrize("question", ["false.vnnlib", "point.vnnlib"])
def test_sat_with_a_counterexample_that_onnxruntime_confirms(folder: Path, tmp_path: Path, question: str) -> None:
    path, proof = tmp_path / "counterexample", tmp_path / "proof"
    code, text = _prove(folder, question, "--counterexample", path, "--proof", proof)
    assert code == 0
    assert text.splitlines()[0] == "sat"
    assert not proof.exists()
    x, y = parse_counterexample(path.read_text(), SIZE, 3)
    session = onnxruntime.InferenceSession(str(folder / "net.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: x[np.newaxis]})
    np.testing.assert_allclose(found[0], y, rtol=1e-6, atol=1e-7)
    radius, most = (0.5, float((folder / question).read_text().split("Y_0 ")[-1].strip(" ()\n"))) if question == "false.vnnlib" else (0.0, 50.0)  # fmt: skip
    assert y[0] <= most
    lower, upper = (np.array([float(f"{v + s * radius:.9f}") for v in np.float32(MIDDLE).tolist()]) for s in (-1, 1))
    assert (lower <= x.astype(np.float64)).all()
    assert (x.astype(np.float64) <= upper).all()


def test_the_text_and_the_object_say_the_same(folder: Path) -> None:
    _, text = _prove(folder, "false.vnnlib")
    answer = json.loads(_prove(folder, "false.vnnlib", "--json")[1])
    assert set(answer) == {"answer", "leaves", "proofBytes", "counterexample", "stage", "seconds", "arithmetic"}
    assert (answer["answer"], answer["leaves"], answer["proofBytes"]) == ("sat", 0, 0)
    assert text.startswith("sat\n" + answer["counterexample"].strip())
    assert text.splitlines()[-1].endswith(f"last stage {answer['stage']}")


def test_time_that_runs_out_is_said(folder: Path, tmp_path: Path) -> None:
    proof, counterexample = tmp_path / "proof", tmp_path / "counterexample"
    words = ("--timeout", "0.01", "--json", "--proof", proof, "--counterexample", counterexample)
    code, text = _prove(folder, "hard.vnnlib", *words, network="hard.onnx")
    answer = json.loads(text)
    assert (code, answer["answer"], answer["counterexample"], answer["proofBytes"]) == (0, "timeout", None, 0)
    assert not list(tmp_path.iterdir())


REFUSED = [
    ("no network file", ("none.onnx", "easy.vnnlib"), (), "none.onnx"),
    ("no property file", ("net.onnx", "none.vnnlib"), (), "none.vnnlib"),
    ("a network that is none", ("broken.onnx", "easy.vnnlib"), (), "broken.onnx"),
    ("a property that is none", ("net.onnx", "broken.vnnlib"), (), "broken.vnnlib"),
    ("a property of another network", ("net.onnx", "other.vnnlib"), (), "other.vnnlib"),
    ("no time", ("net.onnx", "easy.vnnlib"), ("--timeout", "0"), "--timeout"),
    ("less than no time", ("net.onnx", "easy.vnnlib"), ("--timeout", "-1"), "--timeout"),
    ("time that is no number", ("net.onnx", "easy.vnnlib"), ("--timeout", "nan"), "--timeout"),
]


@pytest.mark.parametrize(("sentence", "files", "words", "named"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_refused(
    sentence: str, files: tuple[str, str], words: tuple, named: str, folder: Path, tmp_path: Path
) -> None:
    code, text = _prove(folder, files[1], *words, "--proof", tmp_path / "p", network=files[0])
    assert code == 2
    assert named in text
    assert not list(tmp_path.iterdir())
