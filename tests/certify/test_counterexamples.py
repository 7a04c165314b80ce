"""Whether a point refutes a claim: every kind at its boundary, regions exactly, and files run by onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from prune_verify.certify.counterexamples import (
    Runner,
    claim_fails,
    clamped,
    in_region,
    property_holds_at,
    refuted_over_the_reals,
)
from prune_verify.checker.claim import Claim
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, Node, evaluate
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import REAL
from prune_verify.checker.vnnlib import Case
from prune_verify.measure.training import export_onnx, small_mlp
from tests.checker.random_networks import mlp

pytestmark = pytest.mark.prover

F = Fraction
TINY = F(1, 10**30)


def _ends(*values: float | Fraction | tuple) -> list[tuple[Fraction, Fraction]]:
    return [(F(v[0]), F(v[1])) if isinstance(v, tuple) else (F(v), F(v)) for v in values]


FORGET = Claim("forget", REAL, "relaxation", radius=F(1), margin=F(1))
BAND = Claim("band", REAL, "relaxation", radius=F(1), band=(F(-2), F(3)))
LABEL = Claim("retain_label", REAL, "relaxation", radius=F(1))
CLOSE = Claim("retain_close", REAL, "relaxation", radius=F(1), delta=F(1))
NONE = _ends(0, 0, 0)

# kind, label 0, logits of the base and of the patched network, whether that refutes the claim
ROWS = [
    ("forget: another label wins by more than the margin", FORGET, NONE, _ends(0, 2, 0), False),
    ("forget: another label wins by the margin exactly", FORGET, NONE, _ends(0, 1, 0), False),
    ("forget: another label wins by less", FORGET, NONE, _ends(0, 1 - TINY, 0), True),
    ("forget: the forgotten label wins", FORGET, NONE, _ends(5, 1, 0), True),
    ("forget: two labels are as near, neither by the margin", FORGET, NONE, _ends(0, F(1, 2), F(1, 2)), True),
    ("forget: the values may be either", FORGET, NONE, _ends(0, (F(1, 2), 1), 0), False),
    ("forget: the values are all short", FORGET, NONE, _ends((0, F(1, 4)), (F(1, 2), F(3, 4)), 0), True),
    ("forget: the forgotten label may be lower", FORGET, NONE, _ends((F(-1), 0), F(1, 2), 0), False),
    ("forget: a margin of 0 and a tie", Claim("forget", REAL, "relaxation", margin=F(0)), NONE, _ends(1, 1, 0), False),
    ("forget: without a margin nothing fails", Claim("forget", REAL, "relaxation"), NONE, _ends(5, 0, 0), False),
    ("band: within", BAND, NONE, _ends(0, 0, 0), False),
    ("band: at its upper end", BAND, NONE, _ends(3, 0, 0), False),
    ("band: above its upper end", BAND, NONE, _ends(3 + TINY, 0, 0), True),
    ("band: above one label and within by another", BAND, NONE, _ends(3 + TINY, 0, F(1, 2)), False),
    ("band: at its lower end", BAND, NONE, _ends(-2, 0, -5), False),
    ("band: below its lower end", BAND, NONE, _ends(-2 - TINY, 0, -5), True),
    ("band: perhaps below its lower end", BAND, NONE, _ends((-3, -2), 0, -5), False),
    ("band: without a band nothing fails", Claim("band", REAL, "relaxation"), NONE, _ends(9, 0, 0), False),
    ("retain_label: the same answer", LABEL, _ends(1, 0, 0), _ends(3, 2, 1), False),
    ("retain_label: another answer", LABEL, _ends(1, 0, 0), _ends(0, 1, 0), True),
    ("retain_label: a tie that the lowest index wins", LABEL, _ends(1, 0, 0), _ends(1, 1, 0), False),
    ("retain_label: a tie that another index wins", LABEL, _ends(0, 1, 0), _ends(1, 1, 0), True),
    ("retain_label: the base may answer either", LABEL, _ends((0, 1), F(1, 2), 0), _ends(0, 1, 0), False),
    ("retain_label: the patched network may answer either", LABEL, _ends(1, 0, 0), _ends((0, 1), F(1, 2), 0), False),
    ("retain_close: by delta exactly", CLOSE, _ends(0, 0, 0), _ends(1, -1, 0), False),
    ("retain_close: by more, upwards", CLOSE, _ends(0, 0, 0), _ends(0, 1 + TINY, 0), True),
    ("retain_close: by more, downwards", CLOSE, _ends(0, 0, 0), _ends(0, 0, -1 - TINY), True),
    ("retain_close: perhaps by more", CLOSE, _ends((0, 1), 0, 0), _ends(2, 0, 0), False),
    ("retain_close: surely by more", CLOSE, _ends((0, F(1, 2)), 0, 0), _ends((2, 3), 0, 0), True),
    ("retain_close: without a delta nothing fails", Claim("retain_close", REAL, "relaxation"), NONE, _ends(9, 9, 9), False),
    ("another kind never fails here", Claim("locality", REAL, "structural"), NONE, _ends(9, 9, 9), False),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "claim", "base", "patched", "fails"), ROWS, ids=[row[0] for row in ROWS])
def test_claims_fail_beyond_their_boundary_only(sentence: str, claim: Claim, base, patched, fails: bool) -> None:
    assert claim_fails(claim, 0, base, patched) is fails


@pytest.mark.parametrize("label", range(3))
def test_the_label_is_the_records_own(label: int) -> None:
    patched = [(F(0), F(0))] * 3
    patched[label] = (F(1), F(1))
    assert [claim_fails(FORGET, other, NONE, patched) for other in range(3)] == [other == label for other in range(3)]


CENTER = np.array([0.5, 0.25], np.float32)
DOMAIN = Domain((F(0), F(-1)), (F(3, 4), F(1)))
POINTS = [
    ("the centre", (0.5, 0.25), F(0), True),
    ("on the edge", (0.625, 0.25), F(1, 8), True),
    ("a step beyond the edge", (np.nextafter(np.float32(0.625), np.float32(1)), 0.25), F(1, 8), False),
    ("beyond the edge of another number", (0.5, 0.5), F(1, 8), False),
    ("on the edge of the domain", (0.75, 0.25), F(1), True),
    ("beyond the domain", (np.nextafter(np.float32(0.75), np.float32(1)), 0.25), F(1), False),
    ("below the domain of its own number", (0.5, -1.5), F(2), False),
    ("a radius that is no float64", (0.6, 0.25), F(np.float32(0.6).item()) - F(1, 2), True),
    ("a radius that is just smaller", (0.6, 0.25), F(np.float32(0.6).item()) - F(1, 2) - TINY, False),
]


@pytest.mark.parametrize(("sentence", "x", "radius", "inside"), POINTS, ids=[row[0] for row in POINTS])
def test_regions_are_exact(sentence: str, x: tuple[float, float], radius: Fraction, inside: bool) -> None:
    assert in_region(np.array(x, np.float32), CENTER, radius, DOMAIN) is inside


def _case(lower: tuple, upper: tuple, *atoms: tuple[dict[int, int], Fraction]) -> Case:
    return Case(tuple(map(F, lower)), tuple(map(F, upper)), atoms)


STEP = F(np.nextafter(np.float32(0.1), np.float32(1)).item())
CLAMPED = [
    ("inside stays", ("0", "1"), 0.5, 0.5),
    ("below", ("0.5", "1"), 0.25, 0.5),
    ("above", ("0", "0.5"), 0.75, 0.5),
    ("to the number of float32 above a decimal end", ("0.3", "1"), 0.0, np.float32(0.3)),
    ("to the number below a decimal end", ("0", "0.3"), 1.0, np.nextafter(np.float32(0.3), np.float32(0))),
    ("one that is just outside", ("0", "0.3"), 0.3, np.nextafter(np.float32(0.3), np.float32(0))),
    ("between neighbours", (F(np.float32(0.1).item()) + TINY, "1"), 0.1, np.nextafter(np.float32(0.1), np.float32(1))),
    ("ends that are one number", ("0.25", "0.25"), 7.0, 0.25),
    ("far away", ("-1", "1"), 3e38, 1.0),
]


@pytest.mark.parametrize(("sentence", "ends", "value", "expected"), CLAMPED, ids=[row[0] for row in CLAMPED])
def test_points_are_clamped_exactly(sentence: str, ends: tuple, value: float, expected: float) -> None:
    case = _case((ends[0], 0), (ends[1], 1))
    x = clamped(case, np.array([[value, 0.5]], np.float32))
    assert x.shape == (1, 2)
    assert x.dtype == np.float32
    assert x[0].tolist() == [float(expected), 0.5]
    assert case.lower[0] <= F(x[0, 0].item()) <= case.upper[0]


BOX = _case((0, 0), (1, 1), ({0: 1, 1: -1}, F(1, 2)), ({1: 2}, F(3)))  # y0 - y1 <= 1/2 and 2 y1 <= 3
OTHER = _case((2, 2), (3, 3), ({0: 1}, F(0)))
MET = [
    ("both inequalities met", (0.5, 0.5), (0.0, 0.0), True),
    ("both just met", (1.0, 0.0), (2.0, 1.5), True),
    ("the first just missed", (0.5, 0.5), (np.nextafter(np.float32(0.5), np.float32(1)), 0.0), False),
    ("the second missed", (0.5, 0.5), (0.0, 2.0), False),
    ("outside the box", (np.nextafter(np.float32(1), np.float32(2)), 0.5), (0.0, 0.0), False),
    ("in the box of the other case, whose inequality is met", (2.0, 3.0), (0.0, 99.0), True),
    ("in the box of the other case, whose inequality is missed", (2.0, 3.0), (1.0, 0.0), False),
]


@pytest.mark.parametrize(("sentence", "x", "y", "holds"), MET, ids=[row[0] for row in MET])
def test_a_property_holds_at_a_point_exactly(sentence: str, x: tuple, y: tuple, holds: bool) -> None:
    assert property_holds_at([BOX, OTHER], np.array(x, np.float32), np.array(y, np.float32)) is holds


@pytest.mark.parametrize("batch", [True, False], ids=["with a batch axis", "a fixed batch of one"])
def test_the_runner_gives_what_the_file_computes(batch: bool) -> None:
    import onnx
    import torch

    torch.manual_seed(0)
    module = small_mlp((6, 8, 3)).eval()
    data = export_onnx(module, np.zeros((1, 6), np.float32))
    if not batch:
        model = onnx.load_from_string(data)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        data = model.SerializeToString()
    runner, network = Runner(data), load_network(data, "net").network
    for x in np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32):
        found = runner.logits(x)
        assert found.shape == (3,)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, evaluate(network, x[np.newaxis])[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            found, module(torch.from_numpy(x[np.newaxis])).detach().numpy()[0], rtol=1e-5, atol=1e-6
        )


IDENTITY = Network((Node("Input", (), (2,)),), 0)
THIRD = Network(
    (Node("Input", (), (2,)), Node("Linear", (0,), (2,), {"axis": (-1,)}, {"weight": np.eye(2, dtype=np.float32), "bias": np.array([0, 2.0**-30], np.float32)})),
    1,
)  # fmt: skip
EXACTLY = [
    ("by much", (4.0, 0.0), IDENTITY, True),
    ("another label wins by the margin exactly", (0.0, 1.0), IDENTITY, False),
    ("float32 would round up to the margin", (1.0, 2.0 - 2.0**-23), IDENTITY, True),
    ("an addition that float32 loses makes up for it", (0.0, 1.0), THIRD, False),
]


@pytest.mark.parametrize(("sentence", "x", "patched", "refuted"), EXACTLY, ids=[row[0] for row in EXACTLY])
def test_over_the_reals_a_point_refutes_in_exact_arithmetic(sentence, x, patched, refuted) -> None:
    assert refuted_over_the_reals(FORGET, 0, IDENTITY, patched, np.array(x, np.float32)) is refuted


def test_a_margin_that_only_rounding_breaks_is_not_refuted_over_the_reals() -> None:
    """The least difference of exact logits is above the margin by less than the checker's own rounding: no refutation."""
    network, x = mlp(0, 4, 6, 3), np.full(4, 0.3, np.float32)
    from prune_verify.checker.network import evaluate_exact

    (exact,) = evaluate_exact(network, x[np.newaxis].astype(np.float64))
    best = max(exact[1:]) - exact[0]
    for shift, refuted in ((F(1, 1000), True), (TINY, False), (F(0), False), (F(-1, 1000), False)):
        claim = Claim("forget", REAL, "relaxation", radius=F(1), margin=best + shift)
        assert refuted_over_the_reals(claim, 0, network, network, x) is refuted


def test_a_network_that_overflows_refutes_nothing() -> None:
    huge = Node(
        "Linear",
        (0,),
        (2,),
        {"axis": (-1,)},
        {"weight": np.full((2, 2), 3e38, np.float32), "bias": np.zeros(2, np.float32)},
    )
    nodes = [Node("Input", (), (2,)), *(replace(huge, inputs=(place,)) for place in range(9))]
    network = Network(tuple(nodes), 9)
    assert not refuted_over_the_reals(FORGET, 0, network, network, np.full(2, 3e38, np.float32))
