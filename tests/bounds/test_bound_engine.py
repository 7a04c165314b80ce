"""The bound engine: slopes and intervals by node, determinism, silence, and the cross-check of forget claims."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from prune_verify.bounds.engine import BoundEngine, cross_check_forget, margin_network
from prune_verify.bounds.errors import BoundsError
from prune_verify.checker.network import Network, evaluate, evaluate_all
from prune_verify.checker.patch import Gate, Interval, JointPatch
from prune_verify.checker.rebuild import build
from tests.bounds.small_networks import NETWORKS, mlp

pytestmark = pytest.mark.prover

Floats = npt.NDArray[np.float32]
BASE: Network = mlp(64, 32, 32, 10)
RECORD: Floats = np.random.default_rng(3).random(64, dtype=np.float32)
RADIUS = 0.05
TAU = 0.25


def _row(network: Network, reach: float = 0.1) -> tuple[Floats, Floats, Floats]:
    """An objective [2, 2, 3] and boxes around two points."""
    centre = np.random.default_rng(5).uniform(-1, 1, (2, *network.input_shape)).astype(np.float32)
    objective = np.array([[[1, -1, 0], [0, 1, -1]]] * 2, dtype=np.float32)
    return objective, centre - np.float32(reach), centre + np.float32(reach)


def test_slopes_and_intervals_are_given_for_each_relu_node_and_no_other() -> None:
    network = NETWORKS["Abs"]
    found = BoundEngine(network).lower_bounds(*_row(network, 0.5), method="alpha-crown")
    relus = [i for i, n in enumerate(network.nodes) if n.op == "Relu"]
    assert list(found.slopes) == list(found.intervals) == relus
    for node in relus:
        assert found.slopes[node].shape == (2, 2, *network.nodes[node].shape)
        assert ((found.slopes[node] >= 0) & (found.slopes[node] <= 1)).all()


def test_intervals_hold_the_pre_activations() -> None:
    network = NETWORKS["a residual sum"]
    objective, low, high = _row(network, 0.5)
    found = BoundEngine(network).lower_bounds(objective, low, high)
    samples = np.random.default_rng(0).uniform(low[0], high[0], (500, 4)).astype(np.float32)
    values = evaluate_all(network, samples)
    for node, (lower, upper) in found.intervals.items():
        before = values[network.nodes[node].inputs[0]]
        assert (before >= lower[0] - 1e-5).all()
        assert (before <= upper[0] + 1e-5).all()


@pytest.mark.parametrize("method", ["crown", "alpha-crown"])
def test_the_slopes_give_the_bound(method: str) -> None:
    """With one layer of ReLUs the relaxation can be followed by hand: the slopes must reproduce the bound."""
    network = mlp(3, 8, 3)
    objective, low, high = _row(network, 0.7)
    found = BoundEngine(network).lower_bounds(objective[:, :1], low, high, method=method, iterations=40)  # type: ignore[arg-type] # a literal
    first, last = network.nodes[1], network.nodes[3]
    for batch in range(2):
        weights = objective[batch, 0] @ last.arrays["weight"]
        lower, upper = (v[batch] for v in found.intervals[2])
        unstable = (lower < 0) & (upper > 0)
        chord = np.where(unstable, upper / np.where(unstable, upper - lower, 1), lower >= 0)
        below = np.where(unstable, found.slopes[2][0, batch], lower >= 0)
        slope = weights * np.where(weights >= 0, below, chord)
        linear = slope @ first.arrays["weight"]
        total = objective[batch, 0] @ last.arrays["bias"] + slope @ first.arrays["bias"]
        total += np.where(unstable & (weights < 0), -weights * chord * lower, 0).sum()
        total += np.minimum(linear * low[batch], linear * high[batch]).sum()
        assert unstable.any()
        assert float(total) == pytest.approx(found.lower[batch, 0], abs=1e-3)


def test_stronger_methods_bound_better() -> None:
    network = mlp(6, 24, 24, 3)
    objective, low, high = _row(network, 0.3)
    engine = BoundEngine(network)
    ibp, crown, alpha = (
        engine.lower_bounds(objective, low, high, method=m).lower for m in ("ibp", "crown", "alpha-crown")
    )
    assert (ibp < crown).all()
    assert (crown <= alpha).all()
    assert (alpha > crown + 1e-3).any()


def test_offsets_are_added() -> None:
    network = NETWORKS["a chain"]
    rows = _row(network)
    offsets = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    engine = BoundEngine(network)
    np.testing.assert_array_equal(
        engine.lower_bounds(*rows, offsets=offsets).lower, engine.lower_bounds(*rows).lower + offsets
    )


def test_the_same_seed_gives_the_same_numbers_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    network = mlp(6, 24, 24, 3)
    rows = _row(network, 0.3)
    first, second = (BoundEngine(network).lower_bounds(*rows, method="alpha-crown", seed=1) for _ in range(2))
    np.testing.assert_array_equal(first.lower, second.lower)
    for node, slopes in first.slopes.items():
        np.testing.assert_array_equal(slopes, second.slopes[node])
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_network_without_relus_can_be_bounded() -> None:
    network = mlp(4, 3)
    objective, low, high = _row(network)
    found = BoundEngine(network).lower_bounds(objective, low, high, method="alpha-crown")
    assert found.slopes == {}
    assert np.isfinite(found.lower).all()


def test_a_bound_that_is_not_finite_is_refused() -> None:
    network = mlp(4, 4, 3)
    objective, low, high = _row(network, 1000.0)  # whatever the weights are, logits reach 2
    with pytest.raises(BoundsError):
        BoundEngine(network).lower_bounds(objective * np.float32(3e38), low, high)


def _gate(
    record: Floats,
    label: int,
    coordinates: tuple[int, ...],
    *,
    reach: float = RADIUS * (1 + 1 / 64),
    gamma: float = 50.0,
) -> Gate:
    edges = [(c, np.float32(record[c] - reach), np.float32(record[c] + reach)) for c in coordinates]
    return Gate(label, np.float32(gamma), tuple(Interval(c, low, high) for c, low, high in edges), (0,))


def _patch(*gates: Gate, classes: tuple[int, ...] = (), slack: float = 900.0) -> JointPatch:
    """A joint head whose M and K are large enough for logits below 200."""
    return JointPatch(10, classes, np.float32(TAU), np.float32(401.0), np.float32(slack), gates)


def _answer() -> int:
    return int(evaluate(BASE, RECORD[np.newaxis]).argmax())


def test_the_margin_network_is_the_margin() -> None:
    x = np.random.default_rng(0).random((20, 64), dtype=np.float32)
    logits = evaluate(BASE, x)
    for label in (0, 4, 9):
        expected = logits[:, label] - np.delete(logits, label, axis=1).max(axis=1)
        np.testing.assert_array_equal(evaluate(margin_network(BASE, label), x)[:, 0], expected)


def _cases() -> dict[str, tuple[int, JointPatch]]:
    answer = _answer()
    other, third = (answer + 1) % 10, (answer + 2) % 10
    mine = _gate(RECORD, answer, (1, 20, 33))
    far = _gate(1 - RECORD, answer, (2, 21, 34), reach=0.01)
    return {
        "one gate of the answered label": (answer, _patch(mine)),
        "one gate of another label": (third, _patch(_gate(RECORD, third, (1, 20)))),
        "gates of two labels, both open": (answer, _patch(mine, _gate(RECORD, other, (5, 6, 7)))),
        "two open gates of one label": (answer, _patch(mine, _gate(RECORD, answer, (8, 9)))),
        "beside gates that are closed": (answer, _patch(mine, far, _gate(1 - RECORD, other, (3, 4), reach=0.01))),
        "beside a forgotten class": (answer, _patch(mine, classes=(third,))),
        "the forgotten class itself": (third, _patch(classes=(third, other))),
    }


@pytest.mark.parametrize("name", _cases())
def test_optimised_bounds_confirm_the_structural_claim_within_one_percent(name: str) -> None:
    label, patch = _cases()[name]
    bound = cross_check_forget(BASE, build(BASE, patch), RECORD, label, RADIUS, domain=(0.0, 1.0))
    assert bound <= -0.99 * TAU
    if label == _answer():  # another label loses by more than tau anyway
        assert bound >= -1.01 * TAU


def test_what_is_not_forgotten_is_not_confirmed() -> None:
    answer = _answer()
    narrow = _patch(_gate(RECORD, answer, (1, 20, 33), reach=RADIUS * 0.8))
    closed = _patch(_gate(1 - RECORD, answer, (2, 21, 34), reach=0.01))
    for patch in (narrow, closed, replace(_patch(_gate(RECORD, answer, (1, 20))), tau=np.float32(TAU / 2))):
        assert cross_check_forget(BASE, build(BASE, patch), RECORD, answer, RADIUS, domain=(0.0, 1.0)) > -0.99 * TAU


def test_the_bound_holds_on_samples_where_a_gate_is_half_open() -> None:
    answer = _answer()
    patched = build(BASE, _patch(_gate(RECORD, answer, (1, 20, 33), reach=RADIUS * 0.9, gamma=20.0)))
    bound = cross_check_forget(BASE, patched, RECORD, answer, RADIUS)
    signs = np.random.default_rng(0).choice([-1, 1, 0.5], (2000, 64))
    x = (RECORD + np.float32(RADIUS) * signs).astype(np.float32)
    assert evaluate(margin_network(patched, answer), x).max() <= bound + 1e-3
