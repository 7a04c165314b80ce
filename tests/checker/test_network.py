"""The intermediate representation: its digest, and its evaluation in float32, float64 and exact rationals."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_verify.checker.errors import MalformedInputError, UnsupportedVersionError
from prune_verify.checker.network import Network, Node, evaluate, evaluate_all, evaluate_exact

Floats = npt.NDArray[np.float32]


def _frozen(value: npt.ArrayLike) -> Floats:
    array = np.array(value, dtype=np.float32)
    array.setflags(write=False)
    return array


def _constant(value: npt.ArrayLike) -> Node:
    array = _frozen(value)
    return Node("Constant", (), array.shape, {}, {"value": array})


def _every_operator() -> Network:
    """A network of one node per operator of the table, with small dyadic numbers that every arithmetic holds exactly."""
    rng = np.random.default_rng(7)

    def numbers(*shape: int) -> Floats:
        return _frozen(rng.integers(-8, 9, shape) / 4)

    conv = {"strides": (1, 2), "pads": (1, 0, 1, 1), "dilations": (1, 2), "group": (2,)}
    batch_norm = {
        "scale": numbers(4),
        "bias": numbers(4),
        "mean": numbers(4),
        "variance": _frozen([0, 3, 8, 15]),
        "epsilon": _frozen(1),
    }
    pool = {"kernel": (2, 1), "strides": (1, 1), "pads": (1, 0, 0, 0)}
    nodes = [
        Node("Input", (), (2, 3, 6)),
        Node("Conv", (0,), (4, 4, 3), conv, {"weight": numbers(4, 1, 2, 2), "bias": numbers(4)}),
        Node("BatchNorm", (1,), (4, 4, 3), {}, batch_norm),
        Node("Relu", (2,), (4, 4, 3)),
        Node("Abs", (2,), (4, 4, 3)),
        Node("Sub", (3, 4), (4, 4, 3)),
        _constant(numbers(4, 1, 1)),
        Node("Mul", (5, 6), (4, 4, 3)),
        Node("Clip", (7,), (4, 4, 3), {}, {"lower": _frozen(-3), "upper": _frozen(2.5)}),
        Node("MaxPool", (8,), (4, 4, 3), {**pool, "dilations": (1, 1)}),
        Node("AveragePool", (9,), (4, 4, 3), {**pool, "count_include_pad": (0,)}),
        Node("AveragePool", (10,), (4, 4, 3), {**pool, "count_include_pad": (1,)}),
        Node("Transpose", (11,), (3, 4, 4), {"perm": (2, 0, 1)}),
        Node("Reshape", (12,), (6, 8)),
        Node("Linear", (13,), (6, 3), {"axis": (-1,)}, {"weight": numbers(3, 8), "bias": numbers(3)}),
        Node(
            "Linear",
            (14,),
            (2, 3),
            {"axis": (-2,)},
            {"weight": numbers(2, 6), "bias": numbers(2), "alpha": _frozen(0.5), "beta": _frozen(-2)},
        ),
        Node("Gather", (15,), (2, 2, 2), {"axis": (1,), "indices": (2, 0, 0, 1), "index_shape": (2, 2)}),
        Node("ReduceMax", (16,), (2, 2), {"axes": (1,), "keepdims": (0,)}),
        Node("ReduceSum", (17,), (1, 2), {"axes": (0,), "keepdims": (1,)}),
        _constant([[4.5, 1.25], [0, -1]]),
        Node("Concat", (17, 18, 19), (5, 2), {"axis": (0,)}),
        _constant([0.5, -0.5]),
        Node("Max", (20, 21, 18), (5, 2)),
        Node("Min", (22, 20), (5, 2)),
        Node("Add", (23, 21), (5, 2)),
    ]
    return Network(tuple(nodes), len(nodes) - 1)


@pytest.fixture(scope="module")
def network() -> Network:
    return _every_operator()


# --- evaluation ---


def test_every_value_has_the_shape_that_its_node_states(network: Network) -> None:
    values = evaluate_all(network, np.zeros((3, 2, 3, 6), dtype=np.float32))
    for node, value in zip(network.nodes, values, strict=True):
        assert value.shape[1:] == node.shape, node.op
        assert value.shape[0] == (1 if node.op == "Constant" else 3)


def test_exact_evaluation_equals_float64_on_numbers_that_both_hold(network: Network) -> None:
    x = np.random.default_rng(1).integers(-8, 9, (2, 2, 3, 6)) / 8
    exact = evaluate_exact(network, x)
    got = evaluate(network, x)
    assert got.shape == (2, network.labels)
    for row, floats in zip(exact, got.tolist(), strict=True):
        assert all(isinstance(v, Fraction) for v in row)
        assert [float(v) for v in row] == pytest.approx(floats, rel=1e-12, abs=1e-12)  # thirds in the first pooling


def test_exact_evaluation_is_exact() -> None:
    third = np.float32(1 / 3)
    weight = {"weight": _frozen([[third, third, third]]), "bias": _frozen([-1])}
    net = Network((Node("Input", (), (3,)), Node("Linear", (0,), (1,), {"axis": (-1,)}, weight)), 1)
    assert evaluate_exact(net, np.ones((1, 3))) == [[3 * Fraction(float(third)) - 1]]


def test_exact_max_pooling_ignores_padding_below_any_float() -> None:
    ints = {"kernel": (2,), "strides": (2,), "pads": (1, 1), "dilations": (1,)}
    net = Network((Node("Input", (), (1, 2)), Node("MaxPool", (0,), (1, 2), ints)), 1)
    low = Fraction(-(10**300))
    x = np.empty((1, 1, 2), dtype=object)
    x[0, 0, 0], x[0, 0, 1] = low, low - 1
    assert evaluate_exact(net, x) == [[low, low - 1]]


def test_exact_evaluation_refuses_an_irrational_root() -> None:
    arrays = {name: _frozen([1]) for name in ("scale", "bias", "mean", "variance")} | {"epsilon": _frozen(1)}
    net = Network((Node("Input", (), (1,)), Node("BatchNorm", (0,), (1,), {}, arrays)), 1)
    with pytest.raises(UnsupportedVersionError) as caught:
        evaluate_exact(net, np.ones((1, 1)))
    assert caught.value.path == "BatchNormalization"


@pytest.mark.parametrize(
    ("sentence", "x", "rule"),
    [
        ("another width", np.zeros((1, 2, 3, 5), dtype=np.float32), "shape of a row"),
        ("no batch axis", np.zeros((2, 3, 6), dtype=np.float32), "shape of a row"),
        ("a scalar", np.float32(0) * np.zeros(()), "shape of a row"),
        ("half precision", np.zeros((1, 2, 3, 6), dtype=np.float16), "type of the numbers"),
        ("integers", np.zeros((1, 2, 3, 6), dtype=np.int64), "type of the numbers"),
    ],
)
def test_refused_inputs(network: Network, sentence: str, x: npt.NDArray[np.generic], rule: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        evaluate(network, x)
    assert (caught.value.path, caught.value.rule) == ("input", rule), sentence


def test_an_unknown_operator_is_refused() -> None:
    net = Network((Node("Input", (), (1,)), Node("Softmax", (0,), (1,))), 1)
    with pytest.raises(UnsupportedVersionError):
        evaluate(net, np.zeros((1, 1), dtype=np.float32))


def test_no_rows_give_no_rows(network: Network) -> None:
    assert evaluate(network, np.zeros((0, 2, 3, 6), dtype=np.float32)).shape == (0, 10)


def test_overflow_is_an_infinity_and_no_warning() -> None:
    weight = {"weight": _frozen([[3e38, 3e38]])}
    net = Network((Node("Input", (), (2,)), Node("Linear", (0,), (1,), {"axis": (-1,)}, weight)), 1)
    assert evaluate(net, np.full((1, 2), 10, dtype=np.float32)).tolist() == [[np.inf]]


def test_a_constant_output_is_given_for_every_row() -> None:
    net = Network((Node("Input", (), (1,)), _constant([1, 2])), 1)
    assert evaluate(net, np.zeros((3, 1), dtype=np.float32)).tolist() == [[1, 2]] * 3


# --- digest ---


def _reordered(network: Network, order: list[int]) -> Network:
    number = {old: new for new, old in enumerate(order)}
    nodes = tuple(replace(network.nodes[o], inputs=tuple(number[i] for i in network.nodes[o].inputs)) for o in order)
    return Network(nodes, number[network.output])


@given(st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_nodes_does_not_change_the_digest(random: object) -> None:
    network = _every_operator()
    left, order = set(range(1, len(network.nodes))), [0]
    while left:
        ready = sorted(i for i in left if set(network.nodes[i].inputs) <= set(order))
        chosen = random.choice(ready)  # type: ignore[attr-defined] # hypothesis' own random.Random
        order.append(chosen)
        left.remove(chosen)
    assert _reordered(network, order).digest() == network.digest()


def test_dead_nodes_do_not_change_the_digest(network: Network) -> None:
    extra = (*network.nodes, Node("Relu", (3,), (4, 4, 3)))
    assert Network(extra, network.output).digest() == network.digest()


def test_the_digest_is_pinned() -> None:
    """The digest is part of the certificate's format: a change here needs a new format version."""
    weight = {"weight": _frozen([[1, 2], [3, -4]]), "bias": _frozen([0.5, 0])}
    net = Network((Node("Input", (), (2,)), Node("Linear", (0,), (2,), {"axis": (-1,)}, weight)), 1)
    assert net.digest() == "8d70d51c87ea677a900ccc68cbb95717caee154a6fca70f12f6e3ff68a548d99"


def test_shared_and_repeated_subgraphs_differ() -> None:
    weight = {"weight": _frozen([[1, 2], [3, 4]])}
    linear = Node("Linear", (0,), (2,), {"axis": (-1,)}, weight)
    start = Node("Input", (), (2,))
    shared = Network((start, linear, Node("Add", (1, 1), (2,))), 2)
    repeated = Network((start, linear, linear, Node("Add", (1, 2), (2,))), 3)
    assert shared.digest() != repeated.digest()


def test_one_constant_used_twice_equals_two_equal_constants() -> None:
    start, add = Node("Input", (), (2,)), Node("Add", (0, 1), (2,))
    once = Network((start, _constant([1, 2]), add, Node("Mul", (2, 1), (2,))), 3)
    twice = Network((start, _constant([1, 2]), add, _constant([1, 2]), Node("Mul", (2, 3), (2,))), 4)
    assert once.digest() == twice.digest()


def test_leading_ones_of_a_broadcast_constant_do_not_count_but_inner_ones_do() -> None:
    def net(value: npt.ArrayLike) -> str:
        return Network((Node("Input", (), (2, 2)), _constant(value), Node("Add", (0, 1), (2, 2))), 2).digest()

    assert net([1, 2]) == net([[1, 2]])
    assert net(1) == net([[1]])
    assert net([1, 2]) != net([[1], [2]])


def test_concatenated_constants_keep_their_shape() -> None:
    """Only broadcasting makes leading ones void."""
    flat = Network((Node("Input", (), (2,)), _constant([1]), Node("Concat", (0, 1), (3,), {"axis": (0,)})), 2)
    odd = Network((Node("Input", (), (2,)), _constant([[1]]), Node("Concat", (0, 1), (3,), {"axis": (0,)})), 2)
    assert flat.digest() != odd.digest()


def test_operands_are_not_interchangeable() -> None:
    start = Node("Input", (), (2,))
    forward = Network((start, _constant([1, 2]), Node("Sub", (0, 1), (2,))), 2)
    backward = Network((start, _constant([1, 2]), Node("Sub", (1, 0), (2,))), 2)
    assert forward.digest() != backward.digest()


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_changed_number_changes_the_digest(data: st.DataObject) -> None:
    network = _every_operator()
    index = data.draw(st.integers(0, len(network.nodes) - 1), label="node")
    node = network.nodes[index]
    places = [("ints", n, i) for n, values in node.ints.items() for i in range(len(values))]
    places += [("arrays", n, i) for n, array in node.arrays.items() for i in range(array.size)]
    places += [("shape", "", i) for i in range(len(node.shape))] if node.op != "Constant" else []
    kind, name, place = data.draw(st.sampled_from(places), label="place")
    if kind == "arrays":
        bits = bytearray(node.arrays[name].tobytes())
        bits[place * 4 + data.draw(st.integers(0, 3))] ^= 1 << data.draw(st.integers(0, 7))
        array = np.frombuffer(bytes(bits), dtype=np.float32).reshape(node.arrays[name].shape)
        changed = replace(node, arrays={**node.arrays, name: array})
    else:
        values = list(node.shape if kind == "shape" else node.ints[name])
        values[place] += data.draw(st.sampled_from([-1, 1]))
        new = tuple(values)
        changed = replace(node, shape=new) if kind == "shape" else replace(node, ints={**node.ints, name: new})
    nodes = (*network.nodes[:index], changed, *network.nodes[index + 1 :])
    assert Network(nodes, network.output).digest() != network.digest()


def test_zero_and_minus_zero_are_different_weights() -> None:
    def net(zero: float) -> str:
        return Network((Node("Input", (), (1,)), _constant([zero]), Node("Add", (0, 1), (1,))), 2).digest()

    assert net(0.0) != net(-0.0)


def test_a_deep_network_has_a_digest() -> None:
    nodes = [Node("Input", (), (1,))] + [Node("Relu", (i,), (1,)) for i in range(20_000)]
    assert len(Network(tuple(nodes), 20_000).digest()) == 64


def test_the_input_may_be_the_output() -> None:
    net = Network((Node("Input", (), (3,)),), 0)
    assert net.labels == 3
    assert net.digest() != Network((Node("Input", (), (4,)),), 0).digest()
