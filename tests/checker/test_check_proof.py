"""``check-proof``: proofs of VNN-LIB properties, from the command line, with the base install's modules only."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prune_verify.certify.prove_command import prove_goals
from prune_verify.checker import __main__ as checker_main
from prune_verify.checker.__main__ import main
from prune_verify.checker.check_proof import check_proof
from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.interval import BINARY32
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.proof import emit, parse
from prune_verify.checker.trees import MAX_DEPTH
from prune_verify.checker.vnnlib import goals_of_property, parse_property
from prune_verify.cli import run_words
from prune_verify.measure.datasets import digits
from prune_verify.measure.training import export_onnx, small_mlp, train


def _property(row: np.ndarray, label: int, radius: float, labels: int = 10) -> str:
    lines = [f"(declare-const X_{i} Real)" for i in range(row.size)]
    lines += [f"(declare-const Y_{j} Real)" for j in range(labels)]
    for i, value in enumerate(row.reshape(-1).tolist()):
        lines += [f"(assert (<= X_{i} {value + radius:.9f}))", f"(assert (>= X_{i} {value - radius:.9f}))"]
    others = " ".join(f"(and (>= Y_{j} Y_{label}))" for j in range(labels) if j != label)
    return "\n".join([*lines, f"(assert (or {others}))", ""])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, a property that holds with splits, and its proofs in both arithmetics."""
    made = tmp_path_factory.mktemp("proofs")
    data = digits(seed=0)
    network = train(lambda: small_mlp((64, 24, 24, 10)), data, epochs=30, seed=0)
    (made / "net.onnx").write_bytes(export_onnx(network, data.train_x))
    (made / "p.vnnlib").write_text(_property(data.train_x[0], int(data.train_y[0]), 0.11))
    (made / "q.vnnlib").write_text(_property(data.train_x[0], int(data.train_y[0]), 0.111))
    for arithmetic in ("real", BINARY32):
        code, text = run_words(
            ["prove", str(made / "net.onnx"), str(made / "p.vnnlib"), "--proof", str(made / f"{arithmetic}.proof"),
             "--arithmetic", arithmetic, "--json"]
        )  # fmt: skip
        answer = json.loads(text)
        assert (code, answer["answer"]) == (0, "unsat")
        assert answer["leaves"] > 1  # otherwise the tests below would not see any tree
    return made


def _run(folder: Path, *words: str, question: str = "p.vnnlib", proof: str = "real.proof", capsys) -> tuple[int, str]:
    code = main(["check-proof", str(folder / "net.onnx"), str(folder / question), str(folder / proof), *words])
    return code, capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("--exact",), ("--arithmetic", "real")])
def test_a_proof_is_accepted(folder: Path, capsys, words: tuple[str, ...]) -> None:
    code, text = _run(folder, *words, capsys=capsys)
    assert code == 0
    assert text.startswith("VERDICT: VERIFIED code=OK arithmetic=real proof-sha256=")
    assert ("integers" in text) == ("--exact" in words)


def test_the_arithmetic_is_named_and_may_be_demanded(folder: Path, capsys) -> None:
    code, text = _run(folder, proof=f"{BINARY32}.proof", capsys=capsys)
    assert (code, f"arithmetic={BINARY32}" in text) == (0, True)
    code, text = _run(folder, "--arithmetic", BINARY32, capsys=capsys)
    assert code == 1
    assert "proof/arithmetic" in text


def test_a_proof_of_another_property_is_not_enough(folder: Path, capsys) -> None:
    """The splits are those of a smaller box: what is bounded is the auditor's box, so that it is true or undecided."""
    code, text = _run(folder, question="q.vnnlib", capsys=capsys)
    assert code in (0, 3)
    assert ("VERIFIED" in text) == (code == 0)
    wide = folder / "wide.vnnlib"
    wide.write_text(_property(np.full(64, 0.5), 3, 0.5))
    assert _run(folder, question="wide.vnnlib", capsys=capsys)[0] == 3


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"kind": "forget"}, "proof/kind"),
        ({"method": "relaxation+smt"}, "proof/method"),
        ({"network": "0" * 64}, "proof/network"),
        ({"records": 2}, "proof/records"),
        ({"arithmetic": "binary16"}, "proof/arithmetic"),
        ({"smt": np.array([0], np.int32)}, "proof/smt"),
    ],
)
def test_a_proof_for_something_else_is_refused(folder: Path, tmp_path: Path, changes: dict, path: str) -> None:
    proof = replace(parse((folder / "real.proof").read_bytes(), "p"), **changes)
    (tmp_path / "p.proof").write_bytes(emit(proof))
    arithmetic = "real" if "arithmetic" in changes else None
    verdict = check_proof(folder / "net.onnx", folder / "p.vnnlib", tmp_path / "p.proof", arithmetic)
    assert (verdict.word, verdict.code, verdict.exit_code) == ("REJECTED", "E_PROOF", 1)
    assert verdict.detail.startswith(path)


def test_a_changed_byte_is_refused(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "real.proof").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "p.proof").write_bytes(data)
    verdict = check_proof(folder / "net.onnx", folder / "p.vnnlib", tmp_path / "p.proof")
    assert (verdict.word, verdict.code) == ("REJECTED", "E_MALFORMED")


def test_a_tree_beyond_the_limit_is_undecided_and_not_refuted(folder: Path, tmp_path: Path) -> None:
    steps = np.array([(3, -1, 0)] * (MAX_DEPTH + 2) + [(0, 0, -1)], np.int32).reshape(-1)
    plain = parse((folder / "real.proof").read_bytes(), "p")
    nothing = np.empty(0, np.float32)
    proof = replace(
        plain, trees=np.array([0], np.int32), steps=steps, hinted=np.empty(0, np.int32), multipliers=nothing
    )
    (tmp_path / "p.proof").write_bytes(emit(proof))
    verdict = check_proof(folder / "net.onnx", folder / "p.vnnlib", tmp_path / "p.proof")
    assert (verdict.word, verdict.code, verdict.exit_code) == ("UNDECIDED", "E_LIMIT", 3)
    assert verdict.detail.startswith(f"proof/steps/{MAX_DEPTH + 1}")


def test_the_checker_runs_as_a_program(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    words = [str(folder / name) for name in ("net.onnx", "p.vnnlib", "real.proof")]
    monkeypatch.setattr(sys, "argv", ["checker", "check-proof", *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(checker_main.__file__, run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("VERDICT: VERIFIED")


def challenge_file(nonce: str, version: int = 1, made: str = "2026-11-01T00:00:00Z") -> bytes:
    document = {"formatVersion": version, "nonce": nonce, "createdAt": made, "note": ""}
    return json.dumps(document).encode()


CHALLENGES = [
    ("a nonce in hex", "ab" * 16, "ab" * 16),
    ("a nonce in a file", challenge_file("cd" * 16), "cd" * 16),
    ("a long nonce in a file", challenge_file("cd" * 64), "cd" * 64),
    ("none", None, None),
    ("another version", challenge_file("cd" * 16, version=2), (MalformedInputError, "/formatVersion")),
    ("a nonce that is too long", challenge_file("cd" * 65), (MalformedInputError, "/nonce")),
    ("a nonce of eight bytes", challenge_file("cd" * 8), (MalformedInputError, "/nonce")),
    ("a nonce of an odd number of digits", challenge_file("cd" * 16 + "0"), (MalformedInputError, "/nonce")),
    ("an upper-case nonce", challenge_file("CD" * 16), (MalformedInputError, "/nonce")),
    ("no time", challenge_file("cd" * 16, made=""), (MalformedInputError, "/createdAt")),
    ("a member missing", b'{"formatVersion":1,"nonce":"' + b"cd" * 16 + b'"}', (MalformedInputError, "")),
    ("not JSON", b"nonce", (MalformedInputError, "")),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "given", "expected"), CHALLENGES, ids=[row[0] for row in CHALLENGES])
def test_challenges(tmp_path: Path, sentence: str, given: str | bytes | None, expected: str | tuple | None) -> None:
    if isinstance(given, bytes):
        (tmp_path / "challenge.json").write_bytes(given)
    value = str(tmp_path / "challenge.json") if isinstance(given, bytes) else given
    if not isinstance(expected, tuple):
        assert checker_main.challenge_of(value) == expected
        return
    with pytest.raises(expected[0]) as refusal:
        checker_main.challenge_of(value)
    assert refusal.value.path == f"{value}{expected[1]}"


def test_json_and_usage(folder: Path, capsys) -> None:
    code, text = _run(folder, "--json", capsys=capsys)
    found = json.loads(text)
    assert (code, found["verdict"], found["exitCode"], found["arithmetic"]) == (0, "VERIFIED", 0, "real")
    assert main(["check-proof", str(folder / "none.onnx"), str(folder / "p.vnnlib"), str(folder / "real.proof")]) == 2
    assert "could not run" in capsys.readouterr().err


def test_an_answer_without_a_proof_writes_nothing(folder: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.vnnlib"
    wide.write_text(_property(np.full(64, 0.5), 3, 0.5))
    words = ["prove", str(folder / "net.onnx"), str(wide), "--proof", str(tmp_path / "w.proof"), "--timeout", "2"]
    code, text = run_words(words)
    assert (code, text.splitlines()[0]) == (0, "sat")
    assert not (tmp_path / "w.proof").exists()


# Those that the plain branch and bound decides within a minute on two cores; the full prover is another matter.
HARD = {("acasxu", "prop_1"), ("acasxu", "prop_2"), ("acasxu", "prop_3")}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mnist_fc", "acasxu"])
def test_vnn_comp(shared_data: Path, family: str) -> None:
    """Every instance that published tools agree to be unsat is proved and checked; of sat ones nothing is proved."""
    place = shared_data / "vnncomp" / family
    with (place / "expected_2022.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    proved = 0
    for row in rows:
        if (family, Path(row["vnnlib"]).stem) in HARD:
            continue
        network = load_network((place / row["onnx"]).read_bytes(), row["onnx"]).network
        cases = parse_property(
            (place / row["vnnlib"]).read_bytes(), row["vnnlib"], int(np.prod(network.input_shape)), network.labels
        )
        goals = goals_of_property(network, cases, BINARY32)
        found = prove_goals(goals, 60.0 if row["agreed"] == "unsat" else 3.0)
        from prune_verify.checker.goals import decide_goals

        holds = bool(decide_goals(goals, parse(emit(found.proof), "p"), "p").all())
        assert holds == (row["agreed"] == "unsat"), row["vnnlib"]
        proved += holds
    assert proved >= (19 if family == "mnist_fc" else 2)
