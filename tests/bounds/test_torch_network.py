"""The PyTorch module computes what the network computes, operator by operator, and auto_LiRPA bounds it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prune_verify.bounds.engine import BoundEngine
from prune_verify.bounds.errors import UnsupportedNetworkError
from prune_verify.bounds.torch_network import TorchNetwork
from prune_verify.checker.network import Network, Node, evaluate
from tests.bounds.small_networks import NETWORKS, Builder, mlp

pytestmark = pytest.mark.prover


@pytest.mark.parametrize("name", NETWORKS)
def test_the_module_agrees_with_the_checkers_evaluation(name: str) -> None:
    network = NETWORKS[name]
    x = np.random.default_rng(1).uniform(-1, 1, (50, *network.input_shape)).astype(np.float32)
    with torch.no_grad():
        found = TorchNetwork(network)(torch.from_numpy(x)).numpy()
        found64 = TorchNetwork(network, torch.float64)(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, evaluate(network, x), rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(found64, evaluate(network, x.astype(np.float64)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["ibp", "crown", "alpha-crown"])
@pytest.mark.parametrize("name", NETWORKS)
def test_bounds_hold_on_samples_and_are_not_vacuous(name: str, method: str) -> None:
    network = NETWORKS[name]
    rng = np.random.default_rng(2)
    centre = rng.uniform(-1, 1, (2, *network.input_shape)).astype(np.float32)
    low, high = centre - np.float32(0.1), centre + np.float32(0.1)
    objective = np.broadcast_to(np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32), (2, 6, 3))
    found = BoundEngine(network).lower_bounds(objective, low, high, method=method, iterations=5).lower  # type: ignore[arg-type] # a literal
    for row in range(2):
        samples = rng.uniform(low[row], high[row], (300, *network.input_shape)).astype(np.float32)
        values = evaluate(network, samples) @ objective[row].T
        assert (values.min(axis=0) >= found[row] - 1e-4).all()
        assert (found[row] > values.min(axis=0) - 25).all()


def test_only_live_nodes_are_translated() -> None:
    b = Builder(4)
    b.relu(b.linear(0, 100))
    network = b.network(0)
    assert len(TorchNetwork(network).relu_sites) == 1


def test_relu_sites_name_the_nodes() -> None:
    network = NETWORKS["Abs"]
    sites = TorchNetwork(network).relu_sites
    assert [(s.own, s.part) for s in sites] == [(False, 0), (False, 1), (True, 0)]
    assert network.nodes[sites[2].node].op == "Relu"


def test_what_has_no_bound_is_refused() -> None:
    b = Builder(4)
    square = b.add("Mul", (0, 0), (4,))
    with pytest.raises(UnsupportedNetworkError, match="product of two values"):
        TorchNetwork(b.network(square))
    constant = Network((Node("Input", (), (2,)), Node("Constant", (), (2,), {}, {"value": np.ones(2, np.float32)})), 1)
    with pytest.raises(UnsupportedNetworkError, match="does not depend on the input"):
        TorchNetwork(constant)
    b = Builder(4)
    with pytest.raises(UnsupportedNetworkError, match="operator Softmax"):
        TorchNetwork(b.network(b.add("Softmax", (0,), (4,))))
    b = Builder(9000)
    with pytest.raises(UnsupportedNetworkError, match="too large for a matrix"):
        TorchNetwork(b.network(b.add("Gather", (0,), (9000,), axis=(0,), indices=(0,) * 9000, index_shape=(9000,))))


def test_an_output_with_axes_is_flattened() -> None:
    chain = mlp(4, 5, 6)
    network = Network((*chain.nodes, Node("Reshape", (chain.output,), (2, 3))), len(chain.nodes))
    x = np.ones((2, 4), dtype=np.float32)
    with torch.no_grad():
        assert TorchNetwork(network)(torch.from_numpy(x)).shape == (2, 6)
