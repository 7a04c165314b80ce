"""Sites: where the gates of a patch read, and what they can read there on a ball.

A site is the graph input or the output of a ReLU of the base; never a pre-activation, which a runtime would then have
to compute apart from the ReLU that it fuses it with (MATHS 2). ``relu-k`` is the k-th Relu in the order of the base's
digest, which depends neither on names nor on the order in a file. The coordinates of a patch run through the flattened
values of its sites, one site after the other.

What a hidden site can hold on a ball is enclosed by interval propagation, and by relaxation where that leaves a gate
open that it might close; in binary32 the enclosures hold for the values that the program computes.

Source: MATHS 2 (gates), 4.1 (hidden sites); certs/SPEC.md sections 3, 4.1, 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from prune_verify.checker import rules
from prune_verify.checker.errors import ProofError, UnsupportedVersionError
from prune_verify.checker.interval import Box, Floats, Intervals, interval_pass
from prune_verify.checker.network import Network
from prune_verify.checker.patch import Gate
from prune_verify.checker.rebuild import site_nodes
from prune_verify.checker.relaxation import Hints, crown_intervals, lower_bounds

__all__ = ["Reader"]

_CELLS = 2**22  # numbers of all values of a batch of balls

Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]
Balls = Callable[[Rows], Box]


def _columns(values: list[Floats], nodes: tuple[int, ...], chosen: Rows) -> Floats:
    """Some coordinates of the sites: [rows, chosen]."""
    return np.concatenate([values[index].reshape(len(values[index]), -1) for index in nodes], axis=1)[:, chosen]


@dataclass(frozen=True, eq=False)
class Reader:
    """What gates read of balls.

    Args:
        base: the base network.
        sites: of the gates.
        gates: the gates.
        arithmetic: ``real`` or ``ieee754-binary32``.
        exact: relaxation in integers.

    """

    base: Network
    sites: tuple[str, ...]
    gates: tuple[Gate, ...]
    arithmetic: str
    exact: bool = False

    def _first(self) -> Network:
        """The base up to its last site."""
        last = max(site_nodes(self.base, self.sites))
        return Network(self.base.nodes[: last + 1], last)

    def _chosen(self) -> Rows:
        """The coordinates that some gate reads, ascending."""
        return np.unique([i.coordinate for gate in self.gates for i in gate.intervals])

    def _boxes(self, box: Box, *, relaxed: bool) -> Box:
        """Enclosures of the chosen coordinates over boxes of inputs."""
        network, nodes, chosen = self._first(), site_nodes(self.base, self.sites), self._chosen()
        if not relaxed:
            found = interval_pass(network, *box, self.arithmetic)
        else:
            found = crown_intervals(network, *box, self.arithmetic, exact=self.exact)
            for index in nodes:
                self._tighten(index, found, np.flatnonzero(np.isin(self._places(index), chosen)))
        count = len(box[0])
        low, high = (
            np.broadcast_to(_columns(ends, nodes, chosen), (count, len(chosen))) for ends in (found.lower, found.upper)
        )
        return low, high

    def _places(self, node: int) -> Rows:
        """The coordinates of one site."""
        start = 0
        for index in site_nodes(self.base, self.sites):
            size = prod(self.base.nodes[index].shape)
            if index == node:
                return np.arange(start, start + size)
            start += size
        return np.empty(0, dtype=np.int64)

    def _tighten(self, index: int, found: Intervals, elements: Rows) -> None:
        """Bound some elements of one site by relaxation."""
        if self.base.nodes[index].op == "Input" or not elements.size:
            return
        network, count = Network(self.base.nodes[: index + 1], index), len(found.empty)
        shape = network.output_shape
        low, high = (np.array(end).reshape(count, -1) for end in found.box(index))
        one = np.eye(prod(shape))[elements]
        rows = np.repeat(np.arange(count), len(elements))
        for sign in (1.0, -1.0):
            bound = lower_bounds(
                network, found, np.tile(sign * one, (count, 1)), Hints(), self.arithmetic, rows, exact=self.exact
            ).reshape(count, -1)
            if sign > 0:
                low[:, elements] = np.maximum(low[:, elements], bound)
            else:
                high[:, elements] = np.minimum(high[:, elements], -bound)
        found.narrow(index, (low.reshape(-1, *shape), high.reshape(-1, *shape)))

    def _deep(self) -> bool:
        """Whether a choice lies below a site, so that relaxation may say more than intervals."""
        nodes = self._first().nodes
        relaxed: list[bool] = []
        for node in nodes:
            below = any(relaxed[i] for i in node.inputs)
            relaxed.append(below or node.op in ("Relu", "Max", "Min", "Clip", "MaxPool", "ReduceMax", "Abs"))
        inner = {i for index in site_nodes(self.base, self.sites) for i in nodes[index].inputs}
        return any(relaxed[i] for i in inner)

    def _batches(self, count: int) -> Iterator[Rows]:
        step = max(1, _CELLS // sum(prod(node.shape) for node in self._first().nodes))
        for start in range(0, count, step):
            yield np.arange(start, min(start + step, count))

    def separate(self, balls: Balls, count: int) -> rules.Separation:
        """Rule gate_closed for every gate and every ball of ``count`` records."""
        closed = np.ones((len(self.gates), count), dtype=np.bool_)
        for batch in self._batches(count):
            closed[:, batch] = self._decided(self._closed, balls, batch)
        return rules.separation_of(self.gates, closed, count)

    def opened(self, balls: Balls, records: Rows) -> Bools:
        """Rule gate_open: bool [gates, records]: the whole ball lies in the gate's box."""
        return self._decided(self._opened, balls, records)

    def _decided(self, rule: Callable[[Box], Bools], balls: Balls, records: Rows) -> Bools:
        """A rule by intervals, and by relaxation for balls on which that leaves some gate undecided."""
        found = rule(self._boxes(balls(records), relaxed=False))
        left = np.flatnonzero(~found.all(axis=0)) if self._deep() else np.empty(0, dtype=np.int64)
        step = max(1, _CELLS // (len(self._chosen()) * max(prod(node.shape) for node in self._first().nodes)))
        for start in range(0, len(left), step):
            part = left[start : start + step]
            with suppress(UnsupportedVersionError, ProofError):  # no rule, or a bound that is not finite
                found[:, part] |= rule(self._boxes(balls(records[part]), relaxed=True))
        return found

    def _closed(self, box: Box) -> Bools:
        low, high = (np.ascontiguousarray(end.T) for end in box)
        place = {int(j): i for i, j in enumerate(self._chosen())}
        return np.array([rules.gate_closed_within(g, low, high, place, self.arithmetic) for g in self.gates])

    def _opened(self, box: Box) -> Bools:
        low, high = (np.ascontiguousarray(end.T) for end in box)
        place = {int(j): i for i, j in enumerate(self._chosen())}
        return np.array([rules.gate_open_within(g, low, high, place) for g in self.gates])
