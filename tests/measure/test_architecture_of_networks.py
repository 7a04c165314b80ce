"""A network in ONNX as a module to train: the same answers, PyTorch's own first weights, a gradient for each."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from prune_verify.bounds.errors import UnsupportedNetworkError
from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, Node, evaluate
from prune_verify.checker.region import Domain
from prune_verify.measure.architecture import TrainableNetwork, trainable, untrained
from prune_verify.measure.datasets import digits
from prune_verify.measure.robustness import session_logits
from prune_verify.measure.training import export_onnx, small_cnn, small_mlp, train
from prune_verify.repair.engine import repair_box
from prune_verify.repair.export import export_patched
from prune_verify.repair.threat_model import ThreatModel
from tests.bounds.small_networks import NETWORKS, Builder

pytestmark = pytest.mark.prover
DATA = digits()


class Residual(nn.Module):
    """Convolutions with a shortcut, a normalisation that stays a node of its own, and both kinds of pools."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(2 * x - 1))
        x = torch.relu(self.norm(torch.relu(self.second(x)) + x))
        x = nn.functional.avg_pool2d(nn.functional.max_pool2d(x, 2), 2)
        return self.last(torch.flatten(x, 1))


def built(seed: int, make):
    torch.manual_seed(seed)
    return make().eval()


CASES = {
    "perceptron": (lambda: small_mlp((64, 24, 16, 10)), (64,)),
    "convolutions": (small_cnn, (1, 28, 28)),
    "residual": (Residual, (1, 8, 8)),
}


def rows(shape: tuple[int, ...], count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (count, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_a_trainable_network_answers_as_onnxruntime_and_every_weight_gets_a_gradient(name: str):
    make, shape = CASES[name]
    x = rows(shape)
    onnx = export_onnx(built(3, make), x)
    network = trainable(onnx, "base.onnx")
    for mode in (network.train(), network.eval()):
        with torch.no_grad():
            np.testing.assert_allclose(mode(torch.from_numpy(x)).numpy(), session_logits(onnx)(x), rtol=1e-4, atol=1e-5)
    nn.functional.cross_entropy(network(torch.from_numpy(x)), torch.arange(40) % 10).backward()
    weights = dict(network.named_parameters())
    assert sum(w.numel() for w in weights.values()) >= sum(w.numel() for w in make().parameters())
    assert [n for n, w in weights.items() if w.grad is None or not w.grad.abs().max() > 0] == []


@pytest.mark.parametrize("name", CASES)
def test_an_untrained_network_has_the_weights_that_pytorch_draws(name: str):
    make, shape = CASES[name]
    x = rows(shape)
    onnx = export_onnx(built(3, make), x)
    fresh = untrained(onnx, "base.onnx", 7)
    with torch.no_grad():
        expected = built(7, make)(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(fresh.eval()(torch.from_numpy(x)).numpy(), expected, rtol=1e-4, atol=1e-5)
        other = untrained(onnx, "base.onnx", 8).eval()(torch.from_numpy(x)).numpy()
    assert np.abs(other - expected).max() > 1e-2


def test_normalisations_of_an_untrained_network_learn_their_statistics_and_those_of_a_trained_one_stay():
    x = rows((1, 8, 8))
    onnx = export_onnx(built(3, Residual), x)
    before = session_logits(onnx)(x)
    for network, moved in ((untrained(onnx, "n", 3), True), (trainable(onnx, "n"), False)):
        network.train()(torch.from_numpy(x))
        with torch.no_grad():
            after = network.eval()(torch.from_numpy(x)).numpy()
        assert (np.abs(after - before).max() > 1e-3) == moved


@pytest.mark.parametrize("name", NETWORKS)
def test_every_operator_of_the_checker_is_computed_as_the_checker_computes_it(name: str):
    network = NETWORKS[name]
    x = np.random.default_rng(1).uniform(-1, 1, (20, *network.input_shape)).astype(np.float32)
    for every in (False, True):
        with torch.no_grad():
            found = TrainableNetwork(network, name, every=every).eval()(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(found, evaluate(network, x), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])  # noqa: S301 - our own bytes
@pytest.mark.parametrize("name", CASES)
def test_a_copy_has_weights_of_its_own(name: str, duplicate):
    make, shape = CASES[name]
    x = torch.from_numpy(rows(shape))
    network = trainable(export_onnx(built(3, make), rows(shape)), "base.onnx")
    twin = duplicate(network)
    with torch.no_grad():
        before = network(x).clone()
        torch.testing.assert_close(twin(x), before)
        for weight in twin.parameters():
            weight.mul_(0.5)
        torch.testing.assert_close(network(x), before)
        assert (twin(x) - before).abs().max() > 1e-3
    twin(x).sum().backward()
    assert all(weight.grad is not None for weight in twin.parameters())
    assert all(weight.grad is None for weight in network.parameters())


def patched() -> bytes:
    base_bytes = export_onnx(train(lambda: small_mlp((64, 24, 10)), DATA, epochs=15, seed=0), DATA.train_x)
    base = load_network(base_bytes, "base.onnx")
    forget = LabelledRows(DATA.train_x[:3], DATA.train_y[:3])
    retain = LabelledRows(DATA.train_x[3:], DATA.train_y[3:])
    model = ThreatModel(Domain((Fraction(0),), (Fraction(1),)), Fraction("0.05"), Fraction("0.02"))
    return export_patched(base_bytes, base, repair_box(base.network, forget, retain, model).patch)


def test_the_gates_of_a_patched_network_are_trained_as_well():
    onnx = patched()
    x, y = DATA.train_x[:200], DATA.train_y[:200]
    network = trainable(onnx, "patched.onnx")
    with torch.no_grad():
        np.testing.assert_allclose(network(torch.from_numpy(x)).numpy(), session_logits(onnx)(x), rtol=1e-4, atol=1e-3)
    constants = [n for n, _ in network.named_parameters() if n.startswith("value")]
    layers = [n for n, _ in network.named_parameters() if n.startswith("weight")]
    assert len(constants) + len(layers) > 2
    before = [w.detach().clone() for w in network.parameters()]
    optimiser = torch.optim.Adam(network.parameters())
    nn.functional.cross_entropy(network(torch.from_numpy(x)), torch.from_numpy(y)).backward()
    assert all(w.grad is not None for w in network.parameters())
    optimiser.step()
    moved = [bool((a != b).any()) for a, b in zip(before, network.parameters(), strict=True)]
    assert sum(moved) > 4, "more than the two layers of the base"


def _constant() -> Network:
    return Network((Node("Input", (), (2,)), Node("Constant", (), (2,), {}, {"value": np.ones(2, np.float32)})), 1)


def _strange() -> Network:
    b = Builder(4)
    return b.network(b.add("Softmax", (b.linear(0, 4),), (4,)))


def _deep() -> Network:
    shape = (1, 2, 2, 2, 2)
    weight = np.ones((1, 1, 1, 1, 1, 1), np.float32)
    ints = {"strides": (1,) * 4, "pads": (0,) * 8, "dilations": (1,) * 4, "group": (1,)}
    return Network((Node("Input", (), shape), Node("Conv", (0,), shape, ints, {"weight": weight})), 1)


def _weightless() -> Network:
    return Network((Node("Input", (), (4,)), Node("Relu", (0,), (4,))), 1)


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (_constant(), r"net.onnx: expected an output that depends on the input, found a constant"),
        (_strange(), r"net.onnx: node \d+ \(Softmax\): expected an operator of the checker's table, found Softmax"),
        (_deep(), r"net.onnx: node 1 \(Conv\): expected 1 to 3 spatial axes, found 4"),
        (_weightless(), r"net.onnx: expected a Linear or Conv node, found none"),
    ],
    ids=["the output is a constant", "an unknown operator", "four spatial axes", "nothing to train"],
)
def test_what_cannot_be_trained_is_refused_by_the_name_of_its_node(network: Network, text: str):
    with pytest.raises(UnsupportedNetworkError, match=text):
        TrainableNetwork(network, "net.onnx")
