"""Claim retain_exact for patched networks of any making: nothing happened to the base's logits, record by record.

The base is found inside the patched network, node for node. Then every value of the patched network over a ball gets
an enclosure and a *name*: which value of which node it is known to be a copy of, or that it is zero. Names are
carried along where a node is proved to hand on a value unchanged. A record is proved if each logit has the name of
the base's logit.

Two values with one name are equal in every execution, -0 being +0 and a subnormal number 0 where the execution
flushes; the name zero is for values that are +0 or -0 in every execution. In binary32 that holds in any order of
summation, with fused multiply-add, and for the rewrites of SPEC 5.1, because the rules below only add, multiply and
compare zeros; what an enclosure decides, it decides for every such execution.

    Input            itself
    Constant         zero where it is 0
    Relu             zero where upper <= 0; its input where lower >= 0
    Max, Min         the input that no other exceeds (falls below), as the enclosures say
    Add, Sub         the other, where one is zero (of Sub the second one, or both)
    Mul              zero where a factor is
    Linear, Conv     zero where bias and every input of weight other than 0 are; weights up to 2^60
    Reshape, Transpose, Concat, Gather    what they move
    anything else    itself

Source: MATHS 2 (RX); certs/SPEC.md section 5.6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker.claim import Claim, Outcome, Problem
from prune_verify.checker.errors import ProofError, UnsupportedVersionError
from prune_verify.checker.interval import Box, Floats, Intervals, enclose, require_ieee_float64
from prune_verify.checker.network import Network, Node, apply_node, live_nodes, node_key

__all__ = ["base_inside", "decide_identity", "padding", "unchanged"]

IDENTITY = "identity"
_ROWS = 64
_MOST_WEIGHT = 2.0**60  # times the factors that a runtime may move into it, still finite: 0 w is 0
_NEVER = np.float32(2.0**126)
_SMALL = 2.0**100
_EXACT = ("Constant", "Reshape", "Transpose", "Concat", "Gather", "Relu", "Max", "Min", "Clip", "Abs", "MaxPool")

Bools = npt.NDArray[np.bool_]


# --- (a) the base inside the patched network ---


def base_inside(base: Network, patched: Network) -> int | None:
    """Find the base inside the patched network: each of its nodes with the same attributes, numbers and inputs.

    Of equal nodes the first stands for all where they round nothing; other nodes are the same only if they are one,
    because an execution may round two copies differently.

    Returns:
        The node of the patched network that is the base's output, or None.

    """
    known, first = dict[tuple[object, ...], int](), dict[int, int]()
    live = live_nodes(patched) | {0}
    for index in sorted(live):
        node = patched.nodes[index]
        place = known.setdefault(node_key(node, tuple(first[i] for i in node.inputs)), index)
        first[index] = place if node.op in _EXACT else index
    needed, there = live_nodes(base) | {0}, dict[int, int]()
    for index in sorted(needed):
        node = base.nodes[index]
        found = known.get(node_key(node, tuple(there[i] for i in node.inputs)))
        if found is None:
            return None
        there[index] = found
    return there[base.output]


# --- (b) names: 0 is zero, and every value of every node has a number of its own, exact in float64 ---


@dataclass(frozen=True, eq=False)
class _Step:
    """A node, the enclosures and names of its inputs, and its own names."""

    node: Node
    boxes: list[Box]
    names: list[Floats]
    own: Floats

    def lifted(self, value: Floats) -> Floats:
        """An input's array with axes of length one where broadcasting supplies them."""
        missing = len(self.node.shape) + 1 - value.ndim
        return value.reshape(value.shape[:1] + (1,) * missing + value.shape[1:])


def _constant(step: _Step) -> Floats:
    return np.where(step.node.arrays["value"][np.newaxis] == 0, 0.0, step.own)


def _relu(step: _Step) -> Floats:
    """max(x, 0): 0 for x <= 0, and x for x >= 0."""
    low, high = step.boxes[0]
    return np.where(high <= 0, 0.0, np.where(low >= 0, step.names[0], step.own))


def _extreme(step: _Step) -> Floats:
    """Max or Min: an input that the enclosures prove to be no less (no greater) than each of the others."""
    sign = 1.0 if step.node.op == "Max" else -1.0
    ends = [(sign * step.lifted(low), sign * step.lifted(high)) for low, high in step.boxes]
    ends = [(np.minimum(*pair), np.maximum(*pair)) for pair in ends]
    result = step.own
    for place, (low, _) in enumerate(ends):
        wins: Bools = np.ones((1,) * (len(step.node.shape) + 1), dtype=np.bool_)
        for other, (_, high) in enumerate(ends):
            wins = wins if other == place else wins & (high <= low)
        result = np.where(wins, step.lifted(step.names[place]), result)
    return result


def _sum_of_two(step: _Step) -> Floats:
    """Zero added or taken away: no sum, in whatever order, is changed by an addend that is 0."""
    one, other = (step.lifted(names) for names in step.names)
    result = np.where(other == 0, one, step.own)
    if step.node.op == "Add":
        return np.where(one == 0, other, result)
    return result


def _product(step: _Step) -> Floats:
    """0 times a finite number."""
    one, other = (step.lifted(names) for names in step.names)
    return np.where((one == 0) | (other == 0), 0.0, step.own)


def _weighted(step: _Step) -> Floats:
    """A sum of zeros: every input whose weight is not 0 is zero, and so is the bias."""
    if not float(np.abs(step.node.arrays["weight"]).max(initial=0.0)) <= _MOST_WEIGHT:
        return step.own
    arrays = step.node.arrays
    counted: dict[str, npt.NDArray[np.float32]] = {}
    counted |= {name: (arrays[name] != 0).astype(np.float32) for name in ("weight", "bias") if name in arrays}
    others = apply_node(replace(step.node, arrays=counted), [(step.names[0] != 0).astype(np.float64)])
    return np.where(others == 0, 0.0, step.own)


def _moved(step: _Step) -> Floats:
    return apply_node(step.node, step.names)


_NAMES: dict[str, Callable[[_Step], Floats]] = {
    "Constant": _constant,
    "Relu": _relu,
    "Max": _extreme,
    "Min": _extreme,
    "Add": _sum_of_two,
    "Sub": _sum_of_two,
    "Mul": _product,
    "Linear": _weighted,
    "Conv": _weighted,
    **dict.fromkeys(("Reshape", "Transpose", "Concat", "Gather"), _moved),
}


def padding(network: Network) -> tuple[Network, list[int]]:
    """The network with subtrahends of at most 2^126 where only Relu reads the difference, and the minuends there.

    For a minuend below 2^100 in size x - c and x - 2^126 are both negative for c > 2^126 (-inf at the worst), and
    Relu makes 0 of both: no other value changes. Gates of unequal size are padded with such numbers.
    """
    readers = dict[int, list[int]]()
    for index, node in enumerate(network.nodes):
        for source in node.inputs:
            readers.setdefault(source, []).append(index)
    nodes, minuends = list(network.nodes), list[int]()
    for index, node in enumerate(network.nodes):
        if node.op != "Constant" or index == network.output or not (node.arrays["value"] > _NEVER).any():
            continue
        by = readers.get(index, [])
        if all(_only_relus_read(network, readers, reader, index) for reader in by):
            nodes[index] = replace(node, arrays={"value": np.minimum(node.arrays["value"], _NEVER)})
            minuends += [network.nodes[reader].inputs[0] for reader in by]
    return Network(tuple(nodes), network.output), minuends


def _only_relus_read(network: Network, readers: dict[int, list[int]], reader: int, constant: int) -> bool:
    """Whether ``reader`` subtracts the constant (and nothing else with it), and only Relu reads the difference."""
    node = network.nodes[reader]
    subtracts = node.op == "Sub" and node.inputs[1] == constant != node.inputs[0]
    read = [network.nodes[i].op for i in readers.get(reader, [])]
    return subtracts and reader != network.output and bool(read) and set(read) == {"Relu"}


def _named(network: Network, box: Box, arithmetic: str, minuends: list[int]) -> list[Floats]:
    """The names of every value over boxes, node after node with the enclosures.

    Raises:
        ProofError: a value may overflow, or a factor is refused.

    """
    known = Intervals([], [], network.output, np.zeros(len(box[0]), dtype=np.bool_))
    names, count = list[Floats](), 1
    for index, node in enumerate(network.nodes):
        enclose(network, index, known, box, arithmetic)
        own = np.arange(count, count + prod(node.shape), dtype=np.float64).reshape(1, *node.shape)
        count += prod(node.shape)
        step = _Step(node, [known.box(i) for i in node.inputs], [names[i] for i in node.inputs], own)
        names.append(_NAMES[node.op](step) if node.op in _NAMES else own)
        low, high = known.box(index)
        zero = np.broadcast_to(names[index] == 0, low.shape)
        known.lower[index], known.upper[index] = np.where(zero, 0.0, low), np.where(zero, 0.0, high)
    for index in minuends:
        low, high = known.box(index)
        if not max(-low.min(initial=0.0), high.max(initial=0.0)) < _SMALL:
            raise ProofError(f"node {index}", "identity: minuend of a padded gate", "below 2^100", "more")
    return names


# --- (c) the claim ---


def unchanged(network: Network, base: int, box: Box, arithmetic: str) -> Bools:
    """Which boxes are proved to leave every logit as the base's.

    Args:
        network: the patched network.
        base: the node that is the base's output.
        box: lower and upper ends [rows, *input_shape].
        arithmetic: ``real`` or ``ieee754-binary32``.

    Returns:
        A bool per row.

    Raises:
        ProofError: no enclosures: a value may overflow, or a factor is refused.

    """
    require_ieee_float64()
    rows = len(box[0])
    bounded, minuends = padding(network)
    names = _named(bounded, box, arithmetic, minuends)
    ours, theirs = (names[i].reshape(len(names[i]), -1) for i in (network.output, base))
    if ours.shape[1] != theirs.shape[1]:
        return np.zeros(rows, dtype=np.bool_)
    same: Bools = np.broadcast_to((ours == theirs).all(axis=1), (rows,))
    return same


def decide_identity(problem: Problem, claim: Claim) -> Outcome:
    """Decide RX by names, for a patched network of any making.

    Returns:
        What follows. Nothing does where the base is not inside the patched network, or where no enclosures can be had.

    Raises:
        UnsupportedVersionError: a claim of another kind.
        ProofError: no radius, or a claim about some logits only.

    """
    if claim.kind != "retain_exact" or claim.method != IDENTITY:
        raise UnsupportedVersionError(f"claim {claim.kind}", "method", "a known rule for this kind", claim.method)
    if claim.radius is None or claim.logits is not None:
        raise ProofError("claim retain_exact", "identity: region and logits", "a radius, all logits", "others")
    rows = problem.rows("retain")
    proved, place = np.zeros(len(rows.y), dtype=np.bool_), base_inside(problem.base, problem.patched)
    try:
        for start in range(0, 0 if place is None else len(rows.y), _ROWS):
            box = problem.domain.ball(rows.x[start : start + _ROWS], claim.radius)
            proved[start : start + _ROWS] = unchanged(problem.patched, place or 0, box, claim.arithmetic)
    except ProofError:
        proved[:] = False
    unknowns = tuple(int(i) for i in np.flatnonzero(~proved))
    return Outcome(len(rows.y), int(proved.sum()), unknowns=unknowns)
