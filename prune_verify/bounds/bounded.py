"""One PyTorch module inside auto_LiRPA: everything that calls the library goes through here.

Source: auto_LiRPA's ``BoundedModule`` and ``compute_bounds``, releases 0.3 and 0.7.1.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from prune_verify.bounds.compat import auto_lirpa, quiet
from prune_verify.bounds.errors import BoundsError

__all__ = ["Bounded", "Method", "Relu", "one_thread"]

Method = Literal["ibp", "crown-ibp", "crown", "alpha-crown"]

_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError)
_FIXED_BOUNDS = ("interm_bounds", "intermediate_layer_bounds")  # the argument's name since 0.4 and before
_LEARNING_RATE = 0.25
# The first two together let optimised bounds run on graphs that are not chains; the third keeps slopes dense.
_OPTIONS = {"conv_mode": "matrix", "sparse_spec_alpha": False, "sparse_features_alpha": False}


class Relu(Protocol):
    """What is read of a node of the library."""

    name: str
    alpha: dict[str, Tensor]
    forward_value: Tensor
    inputs: list[Relu]
    lower: Tensor | None
    upper: Tensor | None


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread inside: the tensors are small, and threads wait for one another on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _library_call(what: str) -> Iterator[None]:
    """Silence the library inside, and turn whatever it raises into a ``BoundsError``."""
    try:
        with quiet(), one_thread():
            yield
    except _FAILURES as error:
        raise BoundsError(f"auto_LiRPA cannot {what}: {type(error).__name__}: {error}") from error


class Bounded:
    """A module translated for bound propagation; its parameters stay shared with the module.

    Args:
        module: [batch, *input_shape] to [batch, outputs].
        input_shape: per-row shape of the input.
        trainable: whether gradients of bounds with respect to the module's parameters are wanted.
        device: where the module is, and bounds are computed.

    Raises:
        BoundsUnavailableError: auto_LiRPA is not installed.
        BoundsError: auto_LiRPA refuses the module.

    """

    def __init__(
        self, module: nn.Module, input_shape: tuple[int, ...], *, trainable: bool = False, device: str = "cpu"
    ) -> None:
        self._library = auto_lirpa()
        module.train(trainable)
        with _library_call("translate the network"):
            example = torch.zeros(1, *input_shape, device=device)
            self._module = self._library.BoundedModule(module, example, bound_opts=dict(_OPTIONS), device=device)
            self._module.train(trainable)
        taken = inspect.signature(self._module.compute_bounds).parameters
        self._fixed_argument = next(name for name in _FIXED_BOUNDS if name in taken)

    @property
    def output_name(self) -> str:
        """The library's name of the output, under which slopes for it are kept."""
        return str(self._module.final_name)

    def relus(self) -> list[Relu]:
        """The library's ReLUs in running order."""
        return [m for m in self._module.modules() if type(m).__name__ == "BoundRelu"]

    def run(self, x: Tensor) -> None:
        """Evaluate x [batch, *input_shape]; the ReLUs then have their values."""
        with _library_call("evaluate the network"), torch.no_grad():
            self._module(x)

    def lower(self, objective: Tensor, lower: Tensor, upper: Tensor, method: Method) -> Tensor:
        """Lower bounds [batch, rows] of ``objective`` [batch, rows, outputs] on boxes; has gradients if trainable.

        Args:
            objective: [batch, rows, outputs].
            lower: [batch, *input_shape], least inputs.
            upper: [batch, *input_shape], greatest inputs.
            method: of the library.

        """
        with _library_call("bound the network"):
            found: Tensor = self._module.compute_bounds(
                x=(self._box(lower, upper),), C=objective, method=method, bound_upper=method == "ibp"
            )[0]
        return found

    def optimised(self, objective: Tensor, lower: Tensor, upper: Tensor, iterations: int) -> Tensor:
        """Lower bounds after optimising the last layer's slopes, over the intermediate bounds of the call before.

        Args:
            objective: [batch, rows, outputs].
            lower: [batch, *input_shape], least inputs.
            upper: [batch, *input_shape], greatest inputs.
            iterations: of the optimiser.

        """
        inputs = [relu.inputs[0] for relu in self.relus()]
        # 0.7 bounds no neuron that the objective does not reach
        fixed = {
            node.name: [node.lower.detach(), node.upper.detach()]
            for node in inputs
            if node.lower is not None and node.upper is not None
        }
        options = {
            "iteration": iterations,
            "lr_alpha": _LEARNING_RATE,
            "early_stop_patience": iterations,
            # Otherwise the slopes kept are those of the second half only, and not those of the bound that is returned.
            "start_save_best": 0.0,
        }
        with _library_call("optimise the bounds"):
            self._module.set_bound_opts({"optimize_bound_args": options})
            found: Tensor = self._module.compute_bounds(
                x=(self._box(lower, upper),),
                C=objective,
                method="alpha-crown",
                bound_upper=False,
                **{self._fixed_argument: fixed},
            )[0]
        return found.detach()

    def _box(self, lower: Tensor, upper: Tensor) -> Tensor:
        perturbation = self._library.PerturbationLpNorm(norm=np.inf, x_L=lower, x_U=upper)
        box: Tensor = self._library.BoundedTensor((lower + upper) / 2, perturbation)
        return box
