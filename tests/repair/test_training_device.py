"""Where patches are trained: which device is chosen, and that nothing of a step is left on another one.

There may be no GPU here: the device ``meta`` stands in for one. Its tensors carry no numbers, and refuse to be added to
or joined with tensors of the CPU.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from prune_verify.checker.network import Network, Node
from prune_verify.repair.errors import RepairInputError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.prover

from prune_verify.repair import training_device  # noqa: E402 - after the skip
from prune_verify.repair.learned import LearnedThreatModel, _Imitated, _Objective, train_learned_patch  # noqa: E402
from prune_verify.repair.patch_bounds import Balls, chain  # noqa: E402
from prune_verify.repair.training_device import chosen_device  # noqa: E402
from prune_verify.repair.training_loop import INTERVAL, Plan, _Run  # noqa: E402
from prune_verify.repair.training_state import Saved  # noqa: E402

CPU, CUDA, OTHER = torch.device("cpu"), torch.device("cuda"), torch.device("meta")
RNG = np.random.default_rng(0)
X = RNG.random((6, 4), dtype=np.float32)


def base() -> Network:
    weights = RNG.standard_normal((5, 4)).astype(np.float32), RNG.standard_normal((3, 5)).astype(np.float32)
    return Network(
        (
            Node("Input", (), (4,)),
            Node("Linear", (0,), (5,), {"axis": (-1,)}, {"weight": weights[0]}),
            Node("Relu", (1,), (5,)),
            Node("Linear", (2,), (3,), {"axis": (-1,)}, {"weight": weights[1]}),
        ),
        3,
    )


@pytest.mark.parametrize("asked", [None, "auto", "cpu"])
def test_the_cpu_where_there_is_no_gpu(asked) -> None:
    assert chosen_device(asked, base(), X, 0.1, available=lambda: False) == (CPU, "")


def test_a_gpu_that_cannot_be_used_is_passed_over_and_noted() -> None:
    """torch without CUDA, told that there is a GPU: as a driver that fails."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU that can be used")
    found, note = chosen_device("auto", base(), X, 0.1, available=lambda: True)
    assert found == CPU
    assert note.startswith("trained on the CPU; the GPU cannot be used: ")
    with pytest.raises(RepairInputError, match=r"^--device cuda: expected a GPU that can be used, found none: "):
        chosen_device("cuda", base(), X, 0.1)


@pytest.mark.parametrize(
    ("differ", "device", "words"),
    [(0.0, CUDA, "trained on the GPU"), (1e-3, CUDA, "trained on the GPU"), (2e-3, CPU, "differ from the CPU's by 0.002"), (float("nan"), CPU, "differ")],
)  # fmt: skip
def test_a_gpu_is_used_only_if_its_bounds_agree(differ, device, words, monkeypatch) -> None:
    monkeypatch.setattr(training_device, "_difference", lambda *_: differ)
    found, note = chosen_device(None, base(), X, 0.1, available=lambda: True)
    assert found == device
    assert words in note


def test_bounds_are_compared_on_the_same_patch() -> None:
    assert training_device._difference(base(), X, 0.1, CPU) == 0.0


def test_another_device_draws_the_same_batches_and_gives_the_same_patch() -> None:
    """The device argument of training, with the CPU as both devices: bit for bit what no argument gives."""
    network, model = (
        base(),
        LearnedThreatModel(Fraction(1, 50), Fraction(1, 100), Fraction(1, 10), Fraction(1, 2), steps=30, batch=2),
    )
    y = np.array([0, 1])
    first = train_learned_patch(network, X[:2], y, X[2:], model)
    second = train_learned_patch(network, X[:2], y, X[2:], model, device=CPU)
    for one, other in zip(first.patch.layers, second.patch.layers, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


class _Bounds:
    """What an objective reads of bounds in the first phase; CROWN is the library's, compared at run time."""

    def __init__(self, module, device) -> None:
        self.module, self.device = module, device

    def base_margins(self, balls, labels, targets):
        return torch.zeros(len(labels), device=self.device)

    def bands(self, balls, labels):
        return torch.zeros(len(labels), device=self.device), torch.zeros(len(labels), device=self.device)


def objective_on(device, *, imitates: bool = False) -> _Objective:
    model = LearnedThreatModel(Fraction(1, 50), Fraction(1, 100), Fraction(1, 10), Fraction(1, 2), batch=2)
    patch = chain((4,), [4, 24, 2, 3]).to(device)
    forget, retain = (Balls.around(rows, 0.1, (0.0, 1.0), device) for rows in (X[:2], X[2:]))
    bounds = _Bounds(torch.nn.Linear(4, 3).to(device), device)
    found = _Objective(patch, model, bounds, forget, np.array([0, 1]), np.array([1, 2]), retain)
    found.changes = torch.arange(4.0)  # of a look, which reads numbers
    if imitates:
        parts = torch.zeros(2), torch.zeros(2, 4), torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)
        found.imitated = _Imitated(*(part.to(device) for part in parts))
    return found


def test_every_term_of_a_step_is_where_the_patch_is() -> None:
    found = objective_on(OTHER)
    losses = found.losses(3, INTERVAL, torch.Generator().manual_seed(0))
    assert {term.device for term in (losses.forget, losses.retain, losses.size)} == {OTHER}
    (4.0 * losses.forget + losses.retain + losses.privacy + losses.size).backward()
    assert {parameter.grad.device for parameter in found.patch.parameters()} == {OTHER}


def test_what_is_imitated_is_where_the_patch_is() -> None:
    assert objective_on(OTHER, imitates=True)._outside().device == OTHER


@pytest.mark.parametrize("break_it", ["retain", "_base_margins"])
def test_a_tensor_that_was_left_on_the_cpu_is_noticed(break_it) -> None:
    """The two tests above can fail."""
    found = objective_on(OTHER)
    setattr(found, break_it, getattr(objective_on(CPU), break_it))

    def step() -> None:
        losses = found.losses(3, INTERVAL, torch.Generator().manual_seed(0))
        (losses.forget + losses.retain).backward()

    with pytest.raises(RuntimeError, match="device"):
        step()


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")  # it has no numbers to copy to
def test_the_state_of_training_goes_through_files_and_back_to_its_device() -> None:
    patch = chain((4,), [4, 3, 3])
    run = _Run(patch, Plan(10, 5, 0.01, 0))
    sum(p.sum() for p in patch.parameters()).backward()
    run.optimiser.step()
    arrays, moved = run.arrays(), chain((4,), [4, 3, 3]).to(OTHER)
    again = _Run(moved, Plan(10, 5, 0.01, 0))
    again.restore(Saved(1, INTERVAL, arrays))
    states = list(again.optimiser.state.values())
    assert {state["exp_avg"].device for state in states} == {OTHER}
    assert {parameter.device for parameter in moved.parameters()} == {OTHER}
