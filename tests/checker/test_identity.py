"""RX of method identity: the base found inside the patched network, names by rule, and who would fake them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from prune_verify.checker import identity
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.errors import ProofError, UnsupportedVersionError
from prune_verify.checker.identity import base_inside, decide_identity, unchanged
from prune_verify.checker.network import Network, Node, evaluate, evaluate_all, evaluate_exact
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from tests.checker.random_networks import every_choice, every_operator, mlp

F32 = np.float32
BOTH = (BINARY32, REAL)


class Extra:
    """Appends nodes to a base network."""

    def __init__(self, base: Network) -> None:
        self.base, self.nodes, self.z = base, list(base.nodes), base.output

    def add(self, op: str, *inputs: int, shape: tuple[int, ...] | None = None, arrays=None, **ints) -> int:
        shape = shape or np.broadcast_shapes(*(self.nodes[i].shape for i in inputs))
        self.nodes.append(Node(op, inputs, shape, ints, arrays or {}))
        return len(self.nodes) - 1

    def constant(self, *value) -> int:
        array = np.array(value if len(value) > 1 else value[0], dtype=F32)
        return self.add("Constant", shape=array.shape, arrays={"value": array})

    def linear(self, source: int, weight, bias=None, **extra: float) -> int:
        arrays = {"weight": np.array(weight, dtype=F32)}
        if bias is not None:
            arrays["bias"] = np.array(bias, dtype=F32)
        arrays |= {name: np.array(value, dtype=F32) for name, value in extra.items()}
        return self.add("Linear", source, shape=(len(weight),), arrays=arrays, axis=(-1,))

    def gather(self, source: int, *indices: int) -> int:
        return self.add(
            "Gather", source, shape=(len(indices),), axis=(0,), indices=indices, index_shape=(len(indices),)
        )

    def ramp(self, edge: float) -> int:
        """ReLU(x - edge), [2]: zero on the ball where the edge lies beyond it."""
        return self.add("Relu", self.add("Sub", 0, self.constant(edge)))

    def to(self, output: int) -> Network:
        return Network(tuple(self.nodes), output)


def affine() -> Network:
    arrays = {"weight": np.array([[1, -1], [0.5, 2]], dtype=F32), "bias": np.array([3, 4], dtype=F32)}
    return Network((Node("Input", (), (2,)), Node("Linear", (0,), (2,), {"axis": (-1,)}, arrays)), 1)


BASE = affine()
LOW, HIGH = np.full((1, 2), 0.25), np.full((1, 2), 0.75)  # z in [2.5, 3.5] x [4.625, 5.875]


def proved(build: Callable[[Extra], int], arithmetic: str, box=(LOW, HIGH)) -> bool:
    extra = Extra(BASE)
    network = extra.to(build(extra))
    place = base_inside(BASE, network)
    try:
        return place is not None and bool(unchanged(network, place, box, arithmetic).all())
    except ProofError:
        return False


def conv(e: Extra, source: int, bias: float) -> int:
    """A convolution [1, 2] to [2] of width 1, weights 5 and 7."""
    row = e.add("Reshape", source, shape=(1, 2))
    arrays = {"weight": np.array([[[5]], [[7]]], dtype=F32), "bias": np.array([0, bias], dtype=F32)}
    ints = {"strides": (1,), "pads": (1, 0), "dilations": (1,), "group": (1,)}
    wide = e.add("Conv", row, shape=(2, 3), arrays=arrays, **ints)
    return e.gather(e.add("Reshape", wide, shape=(6,)), 0, 4)


def _read_twice(e: Extra) -> int:
    difference = e.add("Sub", 0, e.constant(3.4028234663852886e38))
    return e.add(
        "Add", e.add("Add", e.z, e.add("Relu", difference)), e.add("Relu", e.add("Mul", difference, e.constant(1.0)))
    )


RULES = [
    ("the logits themselves", lambda e: e.z, True),
    ("nothing else is the logits", lambda e: e.add("Abs", e.z), False),
    ("Relu: its input where lower >= 0", lambda e: e.add("Relu", e.z), True),
    ("Relu: not where the sign is open", lambda e: e.add("Relu", e.add("Sub", e.z, e.constant(5.0))), False),
    ("Relu: zero where upper <= 0", lambda e: e.add("Add", e.z, e.ramp(0.8)), True),
    ("Relu: not zero where the gate opens inside the ball", lambda e: e.add("Add", e.z, e.ramp(0.749)), False),
    ("Sub: of zero", lambda e: e.add("Sub", e.z, e.ramp(0.8)), True),
    ("Sub: from zero is the negative", lambda e: e.add("Sub", e.ramp(0.8), e.z), False),
    ("Sub: of itself is no zero", lambda e: e.add("Add", e.z, e.add("Sub", 0, 0)), False),
    ("Add: of zero on the left", lambda e: e.add("Add", e.ramp(0.8), e.z), True),
    ("Add: of a constant 0", lambda e: e.add("Add", e.z, e.constant(0.0)), True),
    ("Add: of a constant -0", lambda e: e.add("Add", e.z, e.constant(-0.0)), True),
    ("Add: of a subnormal constant", lambda e: e.add("Add", e.z, e.constant(2.0**-140)), False),
    ("Add: a number that z absorbs", lambda e: e.add("Add", e.z, e.constant(2.0**-40)), False),
    ("Add: there and back again", lambda e: e.add("Sub", e.add("Add", e.z, e.constant(1.0)), e.constant(1.0)), False),
    ("Mul: zero times", lambda e: e.add("Add", e.z, e.add("Mul", e.ramp(0.8), e.constant(9.0))), True),
    ("Mul: an entry 0", lambda e: e.add("Add", e.z, e.add("Mul", e.z, e.constant(0.0, 0.0))), True),
    ("Mul: another entry", lambda e: e.add("Add", e.z, e.add("Mul", e.z, e.constant(0.0, 1.0))), False),
    ("Mul: zero times a factor beyond 2^20", lambda e: e.add("Add", e.z, e.add("Mul", e.ramp(0.8), e.constant(2.0**21))), None),
    ("Linear: of zeros", lambda e: e.add("Add", e.z, e.linear(e.ramp(0.8), [[9, -9], [1, 1]])), True),
    ("Linear: of zeros, bias 0", lambda e: e.add("Add", e.z, e.linear(e.ramp(0.8), [[9, -9], [1, 1]], [0, -0.0])), True),
    ("Linear: of zeros with a bias", lambda e: e.add("Add", e.z, e.linear(e.ramp(0.8), [[9, -9], [1, 1]], [0, 1])), False),
    ("Linear: a bias of the smallest number", lambda e: e.add("Add", e.z, e.linear(e.ramp(0.8), [[9, -9], [1, 1]], [0, 2.0**-149])), False),
    ("Linear: weights 0 on the rest", lambda e: e.add("Add", e.z, e.linear(0, [[0, 0], [0, -0.0]])), True),
    ("Linear: one weight", lambda e: e.add("Add", e.z, e.linear(0, [[0, 0], [0, 2.0**-149]])), False),
    ("Linear: a weight beyond 2^60", lambda e: e.add("Add", e.z, e.linear(e.ramp(0.8), [[2.0**61, 0], [0, 0]])), False),
    ("Linear: alpha of zeros", lambda e: e.add("Add", e.z, e.linear(e.ramp(0.8), [[9, 0], [0, 1]], alpha=-4.0)), True),
    ("Conv: of zeros", lambda e: e.add("Add", e.z, conv(e, e.ramp(0.8), 0)), True),
    ("Conv: of zeros with a bias", lambda e: e.add("Add", e.z, conv(e, e.ramp(0.8), 1)), False),
    ("Min: z below", lambda e: e.add("Min", e.z, e.constant(6.0)), True),
    ("Min: z below or equal", lambda e: e.add("Min", e.z, e.constant(4.0, 6.0), e.constant(5.0, 6.0)), True),
    ("Min: not decided", lambda e: e.add("Min", e.z, e.constant(3.4, 6.0)), False),
    ("Min: three, the last not decided", lambda e: e.add("Min", e.constant(9.0), e.z, e.constant(9.0, 5.8)), False),
    ("Max: z above", lambda e: e.add("Max", e.constant(2.0), e.z), True),
    ("Max: not decided", lambda e: e.add("Max", e.constant(2.0, 4.7), e.z), False),
    ("Max: of z and a value that is often z", lambda e: e.add("Max", e.z, e.linear(0, [[1, -1], [0.5, 2]], [3, 4])), False),
    ("Concat: in order", lambda e: e.add("Concat", e.gather(e.z, 0), e.gather(e.z, 1), shape=(2,), axis=(0,)), True),
    ("Concat: swapped", lambda e: e.add("Concat", e.gather(e.z, 1), e.gather(e.z, 0), shape=(2,), axis=(0,)), False),
    ("Gather: swapped and back", lambda e: e.gather(e.gather(e.z, 1, 0), 1, 0), True),
    ("Gather: permuted", lambda e: e.gather(e.z, -1, 0), False),
    ("Gather: one twice", lambda e: e.gather(e.z, 0, 0), False),
    ("Transpose: and back", lambda e: e.add("Reshape", e.add("Transpose", e.add("Reshape", e.z, shape=(1, 2)), shape=(2, 1), perm=(1, 0)), shape=(2,)), True),
    ("Clip: no rule", lambda e: e.add("Clip", e.z, arrays={"lower": np.array(0, dtype=F32)}), False),
    ("ReduceMax: no rule", lambda e: e.add("ReduceMax", e.add("Reshape", e.z, shape=(2, 1)), shape=(2,), axes=(1,), keepdims=(0,)), False),
    ("padding with the largest float32", lambda e: e.add("Add", e.z, e.ramp(3.4028234663852886e38)), True),
    ("padding that is added", lambda e: e.add("Add", e.z, e.add("Relu", e.add("Add", 0, e.constant(-3.4028234663852886e38)))), None),
    ("padding whose difference is read elsewhere", _read_twice, None),
    ("a network that overflows", lambda e: e.add("Min", e.z, e.linear(0, [[2.0**127, 2.0**127]] * 2)), None),
]  # fmt: skip


@pytest.mark.parametrize("arithmetic", BOTH)
@pytest.mark.parametrize(("_sentence", "build", "expected"), RULES, ids=[row[0] for row in RULES])
def test_rules(_sentence: str, build, expected: bool | None, arithmetic: str) -> None:
    """None: refused in binary32 only (over the reals it holds)."""
    assert proved(build, arithmetic) == ((arithmetic == REAL) if expected is None else expected)


def edited(network: Network, index: int, **changed) -> Network:
    nodes = list(network.nodes)
    nodes[index] = replace(nodes[index], **changed)
    return Network(tuple(nodes), network.output)


def one_ulp(network: Network, index: int, name: str) -> Network:
    array = np.array(network.nodes[index].arrays[name])
    array[...] = np.nextafter(array, F32(9))
    return edited(network, index, arrays={**network.nodes[index].arrays, name: array})


def test_a_base_that_is_not_inside() -> None:
    """A weight or a bias one ulp off, another attribute, another input, a sign of zero: nothing is proved."""
    base = every_choice(0)
    assert base_inside(base, base) == base.output
    for index, node in enumerate(base.nodes):
        for name in node.arrays:
            assert base_inside(base, one_ulp(base, index, name)) is None
            assert base_inside(one_ulp(base, index, name), base) is None
        for name, value in node.ints.items():
            assert base_inside(base, edited(base, index, ints={**node.ints, name: tuple(v + 1 for v in value)})) is None
    for index, node in enumerate(every_operator(0).nodes):
        if node.op == "Gather":
            changed = edited(every_operator(0), index, ints={**node.ints, "indices": node.ints["indices"][::-1]})
            assert base_inside(every_operator(0), changed) is (
                None if node.ints["indices"] != node.ints["indices"][::-1] else every_operator(0).output
            )
    zero = edited(BASE, 1, arrays={"weight": np.zeros((2, 2), dtype=F32), "bias": np.zeros(2, dtype=F32)})
    negative = edited(BASE, 1, arrays={"weight": -np.zeros((2, 2), dtype=F32), "bias": np.zeros(2, dtype=F32)})
    assert base_inside(zero, negative) is None


def test_names_of_nodes_and_their_order_do_not_matter() -> None:
    """Other nodes in between, constants twice, nodes that round nothing twice."""
    base = every_operator(1)
    e = Extra(Network((base.nodes[0],), 0))
    place = {0: 0}
    for index, node in enumerate(base.nodes[1:], 1):
        for _ in range(2 if node.op in ("Constant", "Relu", "Gather", "Transpose") else 1):
            e.add("Abs", 0)
            e.nodes.append(replace(node, inputs=tuple(place[i] for i in node.inputs)))
            place[index] = len(e.nodes) - 1
    patched = e.to(place[base.output])
    assert base_inside(base, patched) == place[base.output]
    box = (np.full((1, 2, 3), 0.4), np.full((1, 2, 3), 0.6))
    assert unchanged(patched, place[base.output], box, BINARY32).all()


def test_dead_copies_of_the_base_count_for_nothing() -> None:
    """The base beside a changed network that gives the answer."""
    e = Extra(BASE)
    output = e.linear(0, [[1, -1], [0.5, 2.0000002]], [3, 4])
    assert base_inside(BASE, e.to(output)) is None
    e = Extra(BASE)
    alive = e.add("Mul", e.z, e.constant(0.0, 0.0))
    network = e.to(e.add("Add", e.linear(0, [[1, -1], [0.5, 2.0000002]], [3, 4]), alive))
    assert base_inside(BASE, network) == 1
    assert not unchanged(network, 1, (LOW, HIGH), BINARY32).any()


def test_a_second_copy_that_rounds_is_another_node() -> None:
    """An execution may round two copies differently; over the reals nothing would be wrong, and nothing is proved."""
    e = Extra(BASE)
    again = e.linear(0, [[1, -1], [0.5, 2]], [3, 4])
    network = e.to(e.add("Add", again, e.add("Mul", e.z, e.constant(0.0, 0.0))))
    assert base_inside(BASE, network) == 1
    assert not unchanged(network, 1, (LOW, HIGH), BINARY32).any()


def test_base_nodes_tapped_after_a_modification() -> None:
    """The hidden layer of the base is there, and the layer after it reads a changed one."""
    base = mlp(0, 2, 4, 3)
    e = Extra(Network(base.nodes[:3], 2))
    gate = e.add("Relu", e.add("Sub", e.linear(0, np.eye(4, 2)), e.constant(0.7)))
    changed = e.add("Add", 2, gate)
    for source in (2, changed):
        e.nodes.append(replace(base.nodes[3], inputs=(source,)))
    tapped, deployed = len(e.nodes) - 2, len(e.nodes) - 1
    network = e.to(e.add("Add", deployed, e.add("Mul", tapped, e.constant(0.0, 0.0, 0.0))))
    assert base_inside(base, network) == tapped
    boxes = np.array([[0.1, 0.1], [0.6, 0.6]]), np.array([[0.2, 0.2], [0.8, 0.8]])
    assert not unchanged(network, tapped, boxes, BINARY32).any()
    moved = e.to(e.add("Min", tapped, e.add("Add", deployed, e.constant(100.0))))
    assert unchanged(moved, tapped, boxes, BINARY32).all()


def test_the_logits_may_be_those_behind_a_relu_on_both_sides() -> None:
    """The base ends with a Relu that hands on what it reads: the patched network may go around it."""
    base = Network((*BASE.nodes, Node("Relu", (1,), (2,))), 2)
    e = Extra(base)
    network = e.to(e.add("Add", 1, e.add("Mul", 2, e.constant(0.0, 0.0))))
    assert base_inside(base, network) == 2
    assert unchanged(network, 2, (LOW, HIGH), BINARY32).all()
    assert not unchanged(network, 2, (LOW - 9, HIGH), BINARY32).any()


def test_signs_of_zero_and_ties() -> None:
    """Min and Max of equal values may give either; -0 and +0 are one value."""
    e = Extra(BASE)
    network = e.to(e.add("Max", e.z, e.add("Mul", e.ramp(0.8), e.constant(-1.0))))
    assert unchanged(network, 1, (LOW, HIGH), BINARY32).all()
    point = np.array([[0.5, 0.5]])
    e = Extra(BASE)
    cap = e.constant(3.0, 5.25)  # exactly z at the centre, in the reals
    network = e.to(e.add("Min", e.z, cap))
    assert not unchanged(network, 1, (point, point), BINARY32).any()


def random_node(e: Extra, rng: np.random.Generator, a: int, b: int) -> int:
    """A node that may hand on, zero or change what it reads."""
    kinds: list[Callable[[], int]] = [
        lambda: e.add("Relu", e.add("Sub", a, e.constant(float(rng.normal(scale=3))))),
        lambda: e.add(str(rng.choice(["Max", "Min", "Add", "Sub"])), a, b),
        lambda: e.add("Mul", a, e.constant(*(float(v) for v in rng.integers(0, 2, 3)))),
        lambda: e.gather(a, *(int(v) for v in rng.integers(0, 3, 3))),
        lambda: e.linear(a, rng.integers(-1, 2, (3, 3)), rng.integers(0, 2, 3) if rng.integers(2) else None),
        lambda: e.add("Min", a, e.constant(float(rng.normal(scale=6)))),
        lambda: e.add("Concat", e.gather(a, 1), e.gather(b, 0), e.gather(a, 2), shape=(3,), axis=(0,)),
        lambda: e.add("Add", a, e.add("Relu", e.add("Sub", a, e.constant(float(rng.normal(9, 3)))))),
    ]
    return kinds[int(rng.integers(len(kinds)))]()


def all_values(network: Network, points: np.ndarray) -> np.ndarray:
    """Zero, and every value of every node: what names point into."""
    values = evaluate_all(network, points)
    rows = len(values[0])
    flat = [np.broadcast_to(v, (rows, *v.shape[1:])).reshape(rows, -1) for v in values]
    return np.concatenate([np.zeros((rows, 1), dtype=flat[0].dtype), *flat], axis=1)


@pytest.mark.parametrize("seed", range(40))
def test_names_hold_at_points(seed: int) -> None:
    """Every name of every value, not only of logits: equal in float32 and exactly, at corners and inside."""
    rng = np.random.default_rng(seed)
    e = Extra(mlp(seed, 3, 3, 3))
    pool = [e.z, 2]
    for _ in range(14):
        pool.append(random_node(e, rng, *(int(v) for v in rng.choice(pool, 2))))
    network = e.to(pool[-1])
    middle, radius = rng.normal(size=(4, 3)), rng.choice([0.01, 0.1, 0.5])
    box = middle - radius, middle + radius
    for arithmetic in BOTH:
        names = identity._named(network, box, arithmetic, [])
        for row in range(4):
            points = np.stack([box[0][row], box[1][row], *(box[0][row] + 2 * radius * rng.random((20, 3)))])
            if arithmetic == BINARY32:
                points = points.astype(F32)
                points = points[((points >= box[0][row]) & (points <= box[1][row])).all(axis=1)]
            else:
                points = np.vectorize(Fraction, otypes=[object])(points[:4])
            values = all_values(network, points)
            named = np.concatenate([np.broadcast_to(n, (4, *n.shape[1:]))[row].reshape(-1) for n in names])
            assert (values[:, 1:] == values[:, named.astype(np.int64)]).all()


def test_what_is_proved_is_true_of_the_logits_exactly() -> None:
    """Gates on a residual of random networks: proved boxes have equal logits, and some are proved and some are not."""
    count = 0
    for seed in range(12):
        base = mlp(seed, 3, 6, 4)
        e = Extra(base)
        gate = e.ramp(0.6)
        network = e.to(e.add("Min", e.add("Add", base.output, e.linear(gate, np.ones((4, 3)))), e.constant(50.0)))
        rng = np.random.default_rng(seed)
        middle = rng.random((30, 3))
        box = middle - 0.03, middle + 0.03
        same = unchanged(network, base.output, box, REAL)
        assert (unchanged(network, base.output, box, BINARY32) <= same).all()
        for row in np.flatnonzero(same)[:3]:
            points = np.vectorize(Fraction, otypes=[object])(box[0][row] + 0.06 * rng.random((3, 3)))
            assert evaluate_exact(network, points) == evaluate_exact(base, points)
        far = (middle + 0.03 < 0.6).all(axis=1)
        assert (same == far).all()
        count += int(same.sum())
    assert 30 < count < 300


DOMAIN = Domain((Fraction(0),), (Fraction(1),))


def problem(patched: Network, base: Network = BASE) -> Problem:
    rows = LabelledRows(np.array([[0.5, 0.5], [0.9, 0.9], [0.1, 0.2]], dtype=F32), np.zeros(3, dtype=np.int64))
    return Problem(base, patched, None, DOMAIN, retain=rows)


def gated() -> Network:
    e = Extra(BASE)
    return e.to(e.add("Add", e.z, e.ramp(0.8)))


CLAIM = Claim("retain_exact", BINARY32, "identity", radius=Fraction(1, 10))


def test_the_claim_lists_what_does_not_follow() -> None:
    outcome = decide_identity(problem(gated()), CLAIM)
    assert (outcome.total, outcome.proved, outcome.unknowns, outcome.conflicts) == (3, 2, (1,), ())
    other = decide_identity(problem(one_ulp(gated(), 1, "bias")), CLAIM)
    assert (other.proved, other.unknowns) == (0, (0, 1, 2))
    e = Extra(BASE)
    overflowing = e.to(e.add("Add", e.z, e.linear(0, [[2.0**127, 2.0**127]] * 2)))
    assert decide_identity(problem(overflowing), CLAIM).unknowns == (0, 1, 2)
    dead = problem(BASE)
    assert decide_identity(dead, CLAIM).proved == 3


def test_a_ball_is_cut_to_the_domain() -> None:
    """The gate opens beyond the domain only."""
    e = Extra(BASE)
    beyond = problem(e.to(e.add("Add", e.z, e.ramp(1.0001))))
    assert decide_identity(beyond, CLAIM).proved == 3


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"kind": "retain_label"}, UnsupportedVersionError),
        ({"kind": "forget"}, UnsupportedVersionError),
        ({"method": "relaxation"}, UnsupportedVersionError),
        ({"radius": None}, ProofError),
        ({"logits": (0,)}, ProofError),
    ],
    ids=str,
)
def test_other_claims_are_refused(changed: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        decide_identity(problem(gated()), replace(CLAIM, **changed))


def test_a_padded_gate_needs_a_bounded_minuend() -> None:
    """x - c for a huge x: the padding could be violated after all."""
    e = Extra(BASE)
    huge = e.add("Mul", e.add("Mul", e.add("Mul", e.add("Mul", e.add("Mul", 0, e.constant(2.0**20)), e.constant(2.0**20)), e.constant(2.0**20)), e.constant(2.0**20)), e.constant(2.0**20))  # fmt: skip
    padded = e.add("Relu", e.add("Sub", e.add("Mul", huge, e.constant(4.0)), e.constant(3.4028234663852886e38)))
    network = e.to(e.add("Add", e.z, padded))
    for arithmetic in BOTH:
        with pytest.raises(ProofError):
            unchanged(network, 1, (LOW, HIGH), arithmetic)


def test_float32_logits_agree_bit_for_bit_where_proved() -> None:
    e = Extra(BASE)
    network = e.to(e.add("Min", e.add("Add", e.z, e.ramp(0.8)), e.constant(6.0)))
    points = (LOW + (HIGH - LOW) * np.random.default_rng(0).random((500, 2))).astype(F32)
    assert unchanged(network, 1, (LOW, HIGH), BINARY32).all()
    assert (evaluate(network, points) == evaluate(BASE, points)).all()
