"""What is expected of an endpoint, and what counts as a deviation from it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from prune_verify.audit.endpoint_answers import Expected, Judge, Suppressed
from prune_verify.audit.endpoint_protocol import Answer
from prune_verify.checker.errors import LimitError
from prune_verify.checker.network import Network, Node, evaluate, evaluate_exact
from tests.served_model import model

EXAMPLE = Path(__file__).resolve().parents[2] / "certs" / "examples" / "digits-records"
LOWER, UPPER = np.array([1.0, 3.0, 2.0]), np.array([1.5, 3.5, 2.5])
CLAIM = Suppressed(2, Fraction(1, 2))
EXPECTED = Expected(LOWER, UPPER, CLAIM)

ANSWERS = [
    ("inside every interval", Answer((1.25, 3.25, 2.25), 1), None),
    ("at the ends", Answer((1.0, 3.5, 2.5), 1), None),
    ("the label alone", Answer(None, 1), None),
    ("another label", Answer(None, 2), ("label 1", "label 2")),
    ("another label beside right logits", Answer((1.25, 3.25, 2.25), 0), ("label 1", "label 0")),
    ("a logit too low", Answer((1.25, 3.25, 1.75), None), ("label 1, logit 2 from 2 to 2.5", "label 1, logit 2 = 1.75")),
    ("a logit too high", Answer((9.0, 3.25, 2.25), None), ("label 1, logit 0 from 1 to 1.5", "label 0, logit 0 = 9")),
    ("the claim's margin, exactly", Answer((1.25, 3.0, 2.5), 1), None),
    ("above an interval by one unit in the last place", Answer((1.25, 3.0, float(np.nextafter(2.5, 3))), 1), ("label 1, logit 2 from 2 to 2.5", "label 1, logit 2 = 2.5")),
]  # fmt: skip


@pytest.mark.parametrize(("what", "answer", "found"), ANSWERS, ids=[row[0] for row in ANSWERS])
def test_answers_deviate_where_they_leave_what_is_certain(
    what: str, answer: Answer, found: tuple[str, str] | None
) -> None:
    assert EXPECTED.deviation(answer) == found


def test_the_claim_is_checked_exactly_on_the_numbers_received() -> None:
    wide = Expected(np.array([0.0, 3.0, 0.0]), np.array([0.5, 3.5, 2.9]), CLAIM)
    assert wide.deviation(Answer((0.25, 3.25, 2.75), 1)) is None
    less = float(np.nextafter(3.25, 0))
    assert wide.deviation(Answer((0.25, less, 2.75), 1)) == ("label 2 to lose by 0.5", "by 0.5")
    assert replace(wide, suppressed=None).deviation(Answer((0.25, less, 2.75), 1)) is None


def test_a_label_is_certain_only_where_no_other_can_be_the_greatest() -> None:
    assert EXPECTED.label == 1
    assert Expected(LOWER, np.array([1.5, 3.5, 3.0])).label is None
    assert Expected(LOWER, np.array([1.5, 3.5, float(np.nextafter(3, 0))])).label == 1


@pytest.fixture(scope="module")
def patched() -> Network:
    return model(EXAMPLE / "patched.onnx").network


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    with np.load(EXAMPLE / "forget.npz") as one, np.load(EXAMPLE / "retain.npz") as other:
        return np.concatenate([one["x"], other["x"][:40]]).astype(np.float32)


def reordered(network: Network, rng: np.random.Generator) -> Network:
    """The network with the inputs of its first layer in another order: other sums, the same function."""
    index = next(i for i, node in enumerate(network.nodes) if node.op == "Linear")
    node = network.nodes[index]
    size = node.arrays["weight"].shape[1]
    order = rng.permutation(size)
    gathered = Node(
        "Gather", node.inputs, (size,), {"axis": (0,), "indices": tuple(int(i) for i in order), "index_shape": (size,)}
    )
    layer = replace(
        node,
        arrays=node.arrays | {"weight": np.ascontiguousarray(node.arrays["weight"][:, order])},
        inputs=(len(network.nodes),),
    )
    nodes = list(network.nodes)
    moved = {i: i if i < index else i + 1 for i in range(len(nodes))}
    shifted = [replace(n, inputs=tuple(moved[s] for s in n.inputs)) for n in nodes]
    layer = replace(layer, inputs=(index,))
    return Network((*shifted[:index], gathered, layer, *shifted[index + 1 :]), moved[network.output])


def test_enclosures_hold_the_reals_and_sums_in_other_orders(patched: Network, rows: np.ndarray) -> None:
    lower, upper = Judge(patched, None).expect(rows)
    assert (upper - lower).max() < 1e-3
    for seed in range(5):
        other = evaluate(reordered(patched, np.random.default_rng(seed)), rows)
        assert (other != evaluate(patched, rows)).any()
        assert ((lower <= other) & (other <= upper)).all()
    exact = evaluate_exact(patched, rows[:3])
    for low, high, values in zip(lower, upper, exact, strict=False):
        assert all(Fraction(float(a)) <= v <= Fraction(float(b)) for a, v, b in zip(low, values, high, strict=True))


def test_enclosures_do_not_hold_half_precision(patched: Network, rows: np.ndarray) -> None:
    lower, upper = Judge(patched, None).expect(rows)
    halves = evaluate(patched, rows).astype(np.float16)
    assert ((halves < lower) | (halves > upper)).any(axis=1).mean() > 0.9


def test_a_tolerance_that_is_given_stands_in_the_place_of_enclosures(patched: Network, rows: np.ndarray) -> None:
    lower, upper = Judge(patched, Fraction(1, 4)).expect(rows)
    middle = evaluate(patched, rows).astype(np.float64)
    assert (lower == middle - 0.25).all()
    assert (upper == middle + 0.25).all()


def test_a_network_without_bounds_needs_a_tolerance(rows: np.ndarray) -> None:
    huge = np.full((2, 64), 2.0**126, dtype=np.float32)
    network = Network((Node("Input", (), (64,)), Node("Linear", (0,), (2,), {"axis": (-1,)}, {"weight": huge})), 1)
    with pytest.raises(LimitError) as caught:
        Judge(network, None).expect(rows)
    assert (caught.value.path, caught.value.code) == ("certified network", "E_LIMIT")
    assert "give --tolerance T" in caught.value.got


def test_what_is_not_served_tells_nothing(patched: Network) -> None:
    logits = np.array([1.25, 3.25, 9.0])
    for served, tells in (({"logits": True, "labels": False}, True), ({"logits": False, "labels": True}, False)):
        assert Judge(patched, None, **served).tells(EXPECTED, logits, 1) is tells
