"""The margin of a forgotten record is one that the base shows when it errs, unless another is asked for."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.network import Network, Node
from prune_verify.checker.region import Domain
from prune_verify.cli import run_words
from prune_verify.measure.datasets import digits
from prune_verify.measure.training import export_onnx, small_mlp, train
from prune_verify.repair.asked_model import margins_of_errors, with_margin_of_errors
from prune_verify.repair.threat_model import GIVEN, OWN_ERRORS, ThreatModel, load_threat_model
from tests.repair.bases import F

pytestmark = pytest.mark.prover
UNIT = Domain((Fraction(0),), (Fraction(1),))


def identity(labels: int) -> Network:
    """Logits are the inputs."""
    linear = Node("Linear", (0,), (labels,), {"axis": (-1,)}, {"weight": np.eye(labels, dtype=F)})
    return Network((Node("Input", (), (labels,)), linear), 1)


def rows(margins: list[float]) -> LabelledRows:
    """Rows of label 0 that the network above answers with these margins of label 0."""
    x = np.array([[0.5, 0.5 - m, 0.0] for m in margins], dtype=F)
    return LabelledRows(x, np.zeros(len(margins), dtype=np.int64))


def test_errors_are_what_the_base_answers_otherwise_and_by_how_much() -> None:
    found = margins_of_errors(identity(3), rows([0.25, -0.125, 0.0, -0.5]))
    np.testing.assert_allclose(found, [0.125, 0.5])  # a tie is no error by any margin


@pytest.mark.parametrize(
    ("sentence", "asked", "margins", "expected"),
    [
        ("the median of the errors", {}, [-0.25] * 10 + [-0.5] * 11 + [0.25] * 50, ("0.5", OWN_ERRORS)),
        ("too few errors", {}, [-0.5] * 19 + [0.25] * 50, ("0.1", GIVEN)),
        ("errors by less than a tenth", {}, [-0.03125] * 40, ("0.1", OWN_ERRORS)),
        ("a margin was given", {"margin_from": GIVEN, "margin": Fraction("0.3")}, [-0.5] * 40, ("0.3", GIVEN)),
        ("the margin is that of non-members", {"redirect": "non-member"}, [-0.5] * 40, ("0.1", GIVEN)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_margin_of_a_threat_model(sentence, asked, margins, expected) -> None:
    model = ThreatModel(UNIT, Fraction("0.1"), Fraction("0.05"), **({"margin_from": OWN_ERRORS} | asked))
    found = with_margin_of_errors(model, identity(3), rows(margins))
    assert (found.margin, found.margin_from) == (Fraction(expected[0]), expected[1])
    assert with_margin_of_errors(model, identity(3), None).margin_from == GIVEN


@pytest.fixture(scope="module")
def wrong_sometimes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was trained for so short a time that it errs on retained records."""
    folder, data = tmp_path_factory.mktemp("errs"), digits(seed=0)
    network = train(lambda: small_mlp((64, 16, 10)), data, epochs=2, seed=0)
    (folder / "base.onnx").write_bytes(export_onnx(network, data.train_x))
    np.savez(folder / "forget.npz", x=data.train_x[:3], y=data.train_y[:3])
    np.savez(folder / "retain.npz", x=data.train_x[3:600], y=data.train_y[3:600])
    return folder


def repaired(folder: Path, *more: str) -> dict:
    sets = [
        "--forget",
        str(folder / "forget.npz"),
        "--retain",
        str(folder / "retain.npz"),
        "--out",
        str(folder / "out"),
    ]
    code, text = run_words(["repair", str(folder / "base.onnx"), *sets, *more, "--json", "--quiet"])
    assert code == 0, text
    return json.loads(text)


@pytest.mark.parametrize("stream", [(), ("--stream",)], ids=["one request", "a stream"])
def test_repair_takes_the_margin_of_the_errors_and_says_so(wrong_sometimes, stream) -> None:
    code, text = run_words(
        ["repair", str(wrong_sometimes / "base.onnx"), "--forget", str(wrong_sometimes / "forget.npz"),
         "--retain", str(wrong_sometimes / "retain.npz"), *stream, "--out", str(wrong_sometimes / "out"), "--quiet"]
    )  # fmt: skip
    assert code == 0, text
    margin = Fraction(json.loads((wrong_sometimes / "out" / "request.json").read_bytes())["margin"])
    assert f"margin {float(margin):g}: the median" in text
    assert margin > Fraction(1, 10)
    if stream:
        model = load_threat_model(wrong_sometimes / "out" / "threat-model.toml", ThreatModel(UNIT, *[Fraction(1)] * 2))
        assert (model.margin, model.margin_from) == (margin, OWN_ERRORS)


@pytest.mark.parametrize("way", ["an option", "a file"])
def test_a_margin_that_is_given_stands(wrong_sometimes, tmp_path, way) -> None:
    (tmp_path / "t.toml").write_text("margin = 0.25\n")
    more = ["--margin", "0.25"] if way == "an option" else ["--threat-model", str(tmp_path / "t.toml")]
    repaired(wrong_sometimes, *more)
    assert json.loads((wrong_sometimes / "out" / "request.json").read_bytes())["margin"] == "0.25"
