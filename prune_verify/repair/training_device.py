"""Where a patch is trained: on a GPU where there is one whose bounds agree with the CPU's, else on the CPU.

A GPU is never trusted. What it finds is a patch like any other: the request is proved and checked again on the CPU, by
the checker's own arithmetic. It pays only for CROWN over wide bases; patches themselves are small networks. Bounds of
certify, gates and the checker work with small or exact numbers and stay on the CPU.

Source: CUDA arithmetic differs from the CPU's in the order of sums (PyTorch, Numerical accuracy).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from prune_verify.bounds.errors import BoundsError
from prune_verify.checker.network import Network
from prune_verify.repair.errors import RepairInputError
from prune_verify.repair.patch_bounds import Balls, PatchBounds, chain

__all__ = ["DEVICES", "TOLERANCE", "chosen_device"]

DEVICES = ("auto", "cpu", "cuda")
TOLERANCE = 1e-3  # of bounds, relative to the largest of them, in which a GPU has to agree with the CPU
_SAMPLE = 4  # balls
_FAILURES = (RuntimeError, AssertionError, BoundsError)  # AssertionError: torch built without CUDA


def chosen_device(
    asked: str | None,
    base: Network,
    x: npt.NDArray[np.float32],
    radius: float,
    available: Callable[[], bool] = torch.cuda.is_available,
) -> tuple[torch.device, str]:
    """The device, and what is to be noted of the choice; nothing for the CPU where nothing else was to be had.

    Args:
        asked: ``auto`` or None, ``cpu`` or ``cuda``.
        base: the base network.
        x: float32 [rows, *input_shape], records; bounds on balls around the first few are compared.
        radius: of these balls, in input units.
        available: whether there is a GPU.

    Raises:
        RepairInputError: ``cuda`` was asked for, and there is none, or its bounds differ.

    """
    cpu = torch.device("cpu")
    if asked == "cpu" or (asked != "cuda" and not available()):
        return cpu, ""
    found = torch.device("cuda")
    try:
        differ = _difference(base, x[:_SAMPLE], radius, found)
        why = f"its bounds differ from the CPU's by {differ:.2g} of the largest; at most {TOLERANCE:g} is accepted"
    except _FAILURES as error:
        differ, why = float("inf"), (str(error).splitlines() or [type(error).__name__])[0]
    if differ <= TOLERANCE:
        return found, f"trained on the GPU, whose bounds agree with the CPU's within {differ:.1e} of the largest"
    if asked == "cuda":
        text = f"--device cuda: expected a GPU that can be used, found none: {why}"
        raise RepairInputError(text)
    return cpu, f"trained on the CPU; the GPU cannot be used: {why}"


def _difference(base: Network, x: npt.NDArray[np.float32], radius: float, device: torch.device) -> float:
    """The greatest difference of bounds on both devices, as a share of the largest bound."""
    widths = [int(np.prod(base.input_shape)), 2, base.labels]
    labels, targets = np.zeros(len(x), dtype=np.int64), np.ones(len(x), dtype=np.int64)
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = chain(base.input_shape, widths)
        weights = {name: value.clone() for name, value in start.state_dict().items()}
        for place in (torch.device("cpu"), device):
            patch = chain(base.input_shape, widths)
            patch.load_state_dict(weights)
            bounds = PatchBounds(base, patch, device=place)
            balls = Balls.around(x, radius, (-float("inf"), float("inf")), place)
            found.append(bounds.all_margins(balls, labels, targets).cpu())
    return float((found[0] - found[1]).abs().max() / found[0].abs().max().clamp(min=1.0))
