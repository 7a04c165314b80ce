"""Gates behind a second layer: what relaxation says of the values that they read, beyond what intervals say.

Source: certs/SPEC.md section 4.1, "At other sites than the input alone".
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from prune_verify.checker.network import Network, Node
from prune_verify.checker.patch import Gate, Interval
from prune_verify.checker.rebuild import site_nodes, site_size
from prune_verify.checker.region import Domain
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds
from prune_verify.checker.rules import BINARY32
from prune_verify.checker.sites import Reader
from tests.checker.random_networks import mlp

F32 = np.float32
DOMAIN = Domain((Fraction(0),), (Fraction(1),))
DEEP = mlp(4, 6, 10, 8, 3)
ROWS = np.random.default_rng(9).uniform(0, 1, (5, 6)).astype(np.float32)
WIDE = Fraction("0.05")


def _reader(sites: tuple[str, ...], *intervals: tuple[Interval, ...], base: Network = DEEP) -> Reader:
    gates = tuple(Gate(0, F32(1024), one, ()) for one in intervals)
    return Reader(base, sites, gates, BINARY32)


def _ball(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return DOMAIN.ball(ROWS[records], WIDE)


def _walked(node: int, element: int) -> tuple[np.ndarray, np.ndarray]:
    """What SPEC 4.1 says of one value: the enclosures of 5.2 up to its site, and a walk from it to either side."""
    network, box = Network(DEEP.nodes[: node + 1], node), _ball(np.arange(len(ROWS)))
    found = crown_intervals(network, *box, BINARY32)
    low, high = (end.reshape(len(ROWS), -1)[:, element] for end in found.box(node))
    one = np.zeros((len(ROWS), network.output_shape[0]))
    one[:, element] = 1
    rows = np.arange(len(ROWS))
    up = lower_bounds(network, found, one, Hints(), BINARY32, rows)
    down = -lower_bounds(network, found, -one, Hints(), BINARY32, rows)
    return np.maximum(low, up), np.minimum(high, down)


@pytest.mark.parametrize("sites", [("relu-1",), ("relu-0", "relu-1"), ("relu-1", "input", "relu-0")])
def test_the_values_that_gates_read_are_bounded_as_stated(sites):
    """Enclosures by relaxation are those of the walk from each value's own site, whichever sites stand before it."""
    chosen = {"relu-1": (1, 2, 5), "relu-0": (0, 9), "input": (3,)}
    start, places, expected = 0, [], []
    for site in sites:
        node = site_nodes(DEEP, (site,))[0]
        for element in chosen[site]:
            places.append(start + element)
            expected.append(_ball(np.arange(5))[0][:, 3] if site == "input" else _walked(node, element)[0])
        start += site_size(DEEP, (site,))
    order = np.argsort(places)
    reader = _reader(sites, tuple(Interval(places[i], None, F32(0)) for i in order))
    low, high = reader._boxes(_ball(np.arange(5)), relaxed=True)
    np.testing.assert_allclose(low, np.stack(expected, axis=1)[:, order], rtol=1e-9, atol=1e-12)
    loose = reader._boxes(_ball(np.arange(5)), relaxed=False)
    assert (low >= loose[0]).all()
    assert (high <= loose[1]).all()
    assert (high < loose[1] - 1e-3).any()


def test_both_ends_of_a_value_are_walked():
    """The walk says more than the enclosures of 5.2 on either side, where the ReLU is not stable."""
    node = site_nodes(DEEP, ("relu-1",))[0]
    found = crown_intervals(Network(DEEP.nodes[: node + 1], node), *_ball(np.arange(5)), BINARY32)
    reader = _reader(("relu-1",), tuple(Interval(j, None, F32(0)) for j in range(8)))
    low, high = reader._boxes(_ball(np.arange(5)), relaxed=True)
    for j in range(8):
        np.testing.assert_array_equal((low[:, j], high[:, j]), _walked(node, j))
    assert (found.upper[node] > high).any() or (found.lower[node] < low).any()


def _between(site: str) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Values of a site whose upper ends differ between intervals and relaxation: element, the two ends."""
    everything = tuple(Interval(j, None, F32(0)) for j in range(site_size(DEEP, (site,))))
    reader = _reader((site,), everything)
    (_, loose), (_, tight) = (reader._boxes(_ball(np.arange(5)), relaxed=relaxed) for relaxed in (False, True))
    return [(j, loose[:, j], tight[:, j]) for j in range(loose.shape[1]) if (tight[:, j] < loose[:, j] - 1e-3).any()]


def test_relaxation_decides_what_intervals_leave_open_ball_by_ball(monkeypatch):
    """A gate whose edge lies between the two upper ends is open by relaxation alone; beside one that is open by either."""
    element, loose, tight = _between("relu-1")[0]
    ball = int((loose - tight).argmax())
    edge = F32((loose[ball] + tight[ball]) / 2)
    alone, sure = (Interval(element, None, edge),), (Interval(element, None, F32(1e6)),)
    every = np.arange(5)
    expected = (tight <= edge).tolist()
    assert expected[ball]
    for cells in (2**22, 1):  # and one ball at a time
        monkeypatch.setattr("prune_verify.checker.sites._CELLS", cells)
        assert _reader(("relu-1",), alone).opened(_ball, every)[0].tolist() == expected
        both = _reader(("relu-1",), sure, alone).opened(_ball, every)
        assert both.tolist() == [[True] * 5, expected]
    beside = tuple(Interval(i.coordinate + 6, i.low, i.high) for i in alone)  # relu-1 after the input: one site is deep
    assert _reader(("input", "relu-1"), beside).opened(_ball, every)[0].tolist() == expected


def test_relaxation_closes_what_intervals_leave_open(monkeypatch):
    element, loose, tight = _between("relu-1")[0]
    ball = int((loose - tight).argmax())
    edge = F32((loose[ball] + tight[ball]) / 2)
    reader = _reader(("relu-1",), (Interval(element, edge, None),))
    assert not (float(edge) - loose > 1 / 1024)[ball]
    for cells in (2**22, 1):
        monkeypatch.setattr("prune_verify.checker.sites._CELLS", cells)
        found = reader.separate(_ball, 5)
        assert found.closed.tolist() == (float(edge) - tight > 1 / 1024 * (1 + 2.0**-20)).tolist()
        assert found.closed[ball]


def _residual() -> Network:
    """A ReLU over x + relu(x): of its two inputs one is behind a choice."""
    weight = np.array([[1, -1], [1, 1]], F32)
    nodes = (
        Node("Input", (), (2,)),
        Node("Linear", (0,), (2,), {"axis": (-1,)}, {"weight": weight}),
        Node("Relu", (1,), (2,)),
        Node("Add", (2, 1), (2,)),
        Node("Relu", (3,), (2,)),
        Node("Linear", (4,), (2,), {"axis": (-1,)}, {"weight": weight}),
    )
    return Network(nodes, 5)


@pytest.mark.parametrize(
    ("sentence", "base", "sites", "expected"),
    [
        ("the first ReLU of a chain", DEEP, ("relu-0",), False),
        ("the second", DEEP, ("relu-1",), True),
        ("the input beside the first", DEEP, ("input", "relu-0"), False),
        ("the input beside the second", DEEP, ("input", "relu-1"), True),
        ("a ReLU over a sum, one term of which is a ReLU", _residual(), ("relu-1",), True),
        ("the ReLU before the sum", _residual(), ("relu-0",), False),
        ("the input alone", DEEP, ("input",), False),
    ],
)
def test_relaxation_is_tried_where_a_choice_lies_below_a_site(sentence, base, sites, expected):
    assert _reader(sites, (Interval(0, None, F32(0)),), base=base)._deep() is expected, sentence
