"""Bound engines by name: what looks for slopes when goals are settled (stage 5).

An engine is a class that is made with a network and has :meth:`~prune_verify.certify.settle.Engine.lower_bounds`.
Nothing that it says is believed: its slopes count where the checker's kernel proves the goal with them, so that a bad
engine costs time and proofs, and never soundness. A new one is a line in :data:`ENGINES`.

Source: MATHS 5.2; certs/SPEC.md section 5.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from prune_verify.bounds.bounded import Method
from prune_verify.bounds.engine import BoundEngine, BoundResult
from prune_verify.bounds.errors import BoundsError
from prune_verify.certify.errors import CertifyInputError
from prune_verify.certify.settle import Engine
from prune_verify.checker.network import Network

__all__ = ["DEFAULT", "ENGINES", "NoEngine", "engine_of"]

Singles = npt.NDArray[np.float32]


class NoEngine:
    """Declines whatever it is asked: only the checker's kernel, splits and z3 serve.

    Args:
        network: any.

    """

    def __init__(self, network: Network) -> None:
        self._labels = network.labels

    def lower_bounds(
        self, objective: Singles, lower: Singles, upper: Singles, *, method: Method = "crown", iterations: int = 20
    ) -> BoundResult:
        """Decline.

        Args:
            objective: [rows, outputs].
            lower: [batch, *input_shape].
            upper: [batch, *input_shape].
            iterations: of an optimiser.
            method: of a library.

        Raises:
            BoundsError: always.

        """
        del objective, lower, upper, method, iterations
        text = f"engine none: no bounds of {self._labels} logits"
        raise BoundsError(text)


DEFAULT = "auto_lirpa"
# Classes (or functions) of a module: other processes find them, and the cache tells them apart, by name.
ENGINES: Mapping[str, Callable[[Network], Engine]] = MappingProxyType({DEFAULT: BoundEngine, "none": NoEngine})


def engine_of(name: str) -> Callable[[Network], Engine]:
    """The factory of a named engine.

    Raises:
        CertifyInputError: no engine of this name.

    """
    if name not in ENGINES:
        text = f"--engine: expected one of {', '.join(ENGINES)}, got {name}"
        raise CertifyInputError(text)
    return ENGINES[name]
