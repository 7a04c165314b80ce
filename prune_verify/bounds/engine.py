"""Lower bounds of linear functions of a network's logits on boxes, with the slopes that gave them, by auto_LiRPA.

Nothing that this module says is trusted: the slopes are hints, and the checker proves its own bounds from them.

Source: auto_LiRPA; CROWN (arXiv 1811.00866), alpha-CROWN (arXiv 2011.13824).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_verify.bounds.bounded import Bounded, Method, Relu
from prune_verify.bounds.errors import BoundsError
from prune_verify.bounds.presolve import simplified
from prune_verify.bounds.torch_network import ReluSite, TorchNetwork
from prune_verify.checker.network import Network, Node, evaluate_all
from prune_verify.checker.relaxation import crown_intervals

__all__ = ["BoundEngine", "BoundResult", "Method", "cross_check_forget", "margin_network"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_SAME = 1e-3


@dataclass(frozen=True, eq=False)
class BoundResult:
    """What the engine found; all of it a hint.

    Args:
        lower: float32 [batch, rows]: lower bounds of the objective.
        slopes: for each ``Relu`` node that the objective reaches the lower slopes in [0, 1], float32
            [rows, batch, *shape].
        intervals: for each ``Relu`` node the lower and upper pre-activation, float32 [batch, *shape] each.

    """

    lower: Floats
    slopes: dict[int, Floats] = field(default_factory=dict)
    intervals: dict[int, tuple[Floats, Floats]] = field(default_factory=dict)


def _array(tensor: Tensor) -> Floats:
    return np.array(tensor.detach().numpy(), dtype=np.float32)


def _tensor(array: npt.NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32))


class BoundEngine:
    """A network, translated once and bounded as often as asked.

    Args:
        network: the checker's network.

    Raises:
        BoundsUnavailableError: auto_LiRPA is not installed.
        UnsupportedNetworkError: the network cannot be translated.
        BoundsError: auto_LiRPA refuses the translation, or its ReLUs are not the network's.

    """

    def __init__(self, network: Network) -> None:
        module = TorchNetwork(network)
        self._bounded = Bounded(module, network.input_shape)
        self._relus = _matched(network, module.relu_sites, self._bounded)

    def lower_bounds(
        self,
        objective: Floats,
        lower: Floats,
        upper: Floats,
        *,
        offsets: Floats | None = None,
        method: Method = "crown",
        iterations: int = 20,
        seed: int = 0,
    ) -> BoundResult:
        """Lower bounds of ``objective @ logits + offsets`` on boxes.

        Args:
            objective: float32 [batch, rows, labels].
            lower: float32 [batch, *input_shape]: lower ends of the boxes.
            upper: the same: upper ends.
            offsets: float32 [batch, rows], or None for zeros.
            method: ``ibp``, ``crown-ibp`` (IBP for intermediate bounds), ``crown``, or ``alpha-crown`` (the last
                layer's slopes optimised over CROWN's intermediate bounds).
            iterations: steps of ``alpha-crown``.
            seed: of whatever the library draws.

        Returns:
            The bounds; slopes and intervals unless the method is ``ibp``.

        Raises:
            BoundsError: auto_LiRPA fails, or finds a bound that is not finite.

        """
        rows, low, high = _tensor(objective), _tensor(lower), _tensor(upper)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            with torch.no_grad():
                found = self._bounded.lower(rows, low, high, "crown" if method == "alpha-crown" else method)
            optimised = method == "alpha-crown" and bool(self._relus)
            if optimised:
                found = torch.maximum(found, self._bounded.optimised(rows, low, high, iterations))
        result = _array(found)
        if not np.isfinite(result).all():
            text = "auto_LiRPA found a bound that is not finite"
            raise BoundsError(text)
        if offsets is not None:
            result = result + offsets
        if method == "ibp":
            return BoundResult(result)
        intervals, slopes = dict[int, tuple[Floats, Floats]](), dict[int, Floats]()
        for site, relu in self._relus:
            lower_end, upper_end = relu.inputs[0].lower, relu.inputs[0].upper
            if site.own and lower_end is not None and upper_end is not None:  # None: the objective does not reach it
                intervals[site.node] = _array(lower_end), _array(upper_end)
                slopes[site.node] = self._slope(relu, *intervals[site.node], rows.shape[1], optimised=optimised)
        return BoundResult(result, slopes, intervals)

    def _slope(self, relu: Relu, low: Floats, high: Floats, rows: int, *, optimised: bool) -> Floats:
        """Slopes of the lower relaxation: optimised ones where there are any, else CROWN's (1 where upper > -lower)."""
        if optimised and self._bounded.output_name in relu.alpha:
            chosen = np.clip(_array(relu.alpha[self._bounded.output_name][0]), 0.0, 1.0)
        else:
            chosen = (high > -low).astype(np.float32)
        return np.array(np.broadcast_to(chosen, (rows, *low.shape)), dtype=np.float32)


def _matched(network: Network, sites: tuple[ReluSite, ...], bounded: Bounded) -> list[tuple[ReluSite, Relu]]:
    """The library's ReLUs paired with the network's, in running order, after comparing their values on one input."""
    relus = bounded.relus()
    if len(relus) != len(sites):
        text = f"auto_LiRPA sees {len(relus)} ReLUs in a network of {len(sites)}"
        raise BoundsError(text)
    probe = np.random.default_rng(0).random((1, *network.input_shape), dtype=np.float32)
    bounded.run(_tensor(probe))
    values = evaluate_all(network, probe)
    pairs = list(zip(sites, relus, strict=True))
    for site, relu in pairs:
        if site.own and not np.allclose(_array(relu.forward_value), values[site.node], rtol=_SAME, atol=_SAME):
            text = f"auto_LiRPA's ReLU for node {site.node} computes something else"
            raise BoundsError(text)
    return pairs


def margin_network(network: Network, label: int) -> Network:
    """The network with the one output N_label - max over j != label of N_j."""
    nodes = list(network.nodes)
    flat = network.output
    if network.output_shape != (network.labels,):
        nodes.append(Node("Reshape", (flat,), (network.labels,)))
        flat = len(nodes) - 1
    others = tuple(j for j in range(network.labels) if j != label)
    for indices in ((label,), others):
        ints = {"axis": (0,), "indices": indices, "index_shape": (len(indices),)}
        nodes.append(Node("Gather", (flat,), (len(indices),), ints))
    nodes.append(Node("ReduceMax", (len(nodes) - 1,), (1,), {"axes": (0,), "keepdims": (1,)}))
    nodes.append(Node("Sub", (len(nodes) - 3, len(nodes) - 1), (1,)))
    return Network(tuple(nodes), len(nodes) - 1)


def _at_sites(base: Network, patched: Network, low: Floats, high: Floats) -> dict[int, tuple[Doubles, Doubles]]:
    """Enclosures of the hidden values that gates read: the checker's own, as its rules for such gates take them."""
    read = {i for node in patched.nodes[len(base.nodes) :] for i in node.inputs if 0 < i < len(base.nodes)}
    if read <= {base.output}:
        return {}
    found = crown_intervals(base, low.astype(np.float64), high.astype(np.float64), "real")
    return {i: (found.lower[i][0], found.upper[i][0]) for i in read}


def cross_check_forget(
    base: Network,
    patched: Network,
    x: Floats,
    label: int,
    radius: float,
    *,
    domain: tuple[float, float] | None = None,
    iterations: int = 20,
    seed: int = 0,
) -> float:
    """An upper bound of N'_label - max over j != label of N'_j on a ball, found by optimised bounds alone.

    For a structural forget claim it is to be within 1 % of -tau. The patch's nodes are simplified on the ball
    first (:mod:`prune_verify.bounds.presolve`), which removes the gates that are closed on all of it.

    Args:
        base: the base network, whose nodes are the first of ``patched``.
        patched: the patched network.
        x: float32 [*input_shape]: the centre.
        label: the forgotten label.
        radius: of the ball in the l-infinity norm.
        domain: the ends of every input's interval, or None.
        iterations: of alpha-CROWN.
        seed: of whatever the library draws.

    Returns:
        The bound.

    Raises:
        BoundsError: auto_LiRPA fails, or the patch has nodes that cannot be simplified.

    """
    low, high = x[np.newaxis] - np.float32(radius), x[np.newaxis] + np.float32(radius)
    if domain is not None:
        low, high = np.maximum(low, np.float32(domain[0])), np.minimum(high, np.float32(domain[1]))
    eye = np.eye(base.labels, dtype=np.float32)
    logits = (
        BoundEngine(base).lower_bounds(np.concatenate([eye, -eye])[np.newaxis], low, high).lower[0].astype(np.float64)
    )
    ends = logits[: base.labels].reshape(base.output_shape), -logits[base.labels :].reshape(base.output_shape)
    intervals = _at_sites(base, patched, low, high)
    intervals |= {0: (low[0].astype(np.float64), high[0].astype(np.float64)), base.output: ends}
    margin = simplified(margin_network(patched, label), len(base.nodes), intervals)
    minus = np.full((1, 1, 1), -1.0, dtype=np.float32)
    found = BoundEngine(margin).lower_bounds(minus, low, high, method="alpha-crown", iterations=iterations, seed=seed)
    return -float(found.lower[0, 0])
