"""What the certified network answers, up to the rounding of the arithmetic that it is certified in, and what deviates.

The expected logits of a query are an enclosure: the checker's interval pass over the one point, which holds for every
float32 program (any order of summation, fused or not, subnormals flushed or kept, the rewrites of SPEC 5.1). A logit
outside of it is no rounding. A query counts only if the enclosures leave one label: then the label is certain as well.

Source: certs/SPEC.md sections 5.1 and 10.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from prune_verify.audit.endpoint_protocol import Answer
from prune_verify.checker.errors import LimitError, ProofError, UnsupportedVersionError
from prune_verify.checker.identity import padding
from prune_verify.checker.interval import Intervals, interval_pass
from prune_verify.checker.network import Network, evaluate
from prune_verify.checker.rules import BINARY32

__all__ = ["Expected", "Judge", "Suppressed"]

Floats = npt.NDArray[np.float64]
_SMALL = 2.0**100
_ROWS = 64  # points at a time: the values of a convolution take room


@dataclass(frozen=True)
class Suppressed:
    """A claim F or FC at a point: the label loses by the margin at least."""

    label: int
    margin: Fraction


@dataclass(frozen=True, eq=False)
class Expected:
    """The certified answer to one query.

    Args:
        lower: float64 [labels]: least values of the logits.
        upper: float64 [labels]: greatest values.
        suppressed: the claim that speaks of this point, or None.

    """

    lower: Floats
    upper: Floats
    suppressed: Suppressed | None = None

    @property
    def label(self) -> int | None:
        """The one label that can be the greatest, or None: too near to a tie to tell."""
        best = int(self.lower.argmax())
        others = np.delete(self.upper, best)
        return best if not len(others) or self.lower[best] > others.max() else None

    def deviation(self, answer: Answer) -> tuple[str, str] | None:
        """What was expected and what was answered instead, or None where the answer is the certified one.

        Args:
            answer: of the endpoint, to a query with a certain label.

        Returns:
            (expected, got) in words.

        """
        if answer.label is not None and answer.label != self.label:
            return f"label {self.label}", f"label {answer.label}"
        if answer.logits is None:
            return None
        logits = np.array(answer.logits)
        outside = np.flatnonzero((logits < self.lower) | (logits > self.upper))
        if len(outside):
            place = int(outside[0])
            ends = f"{self.lower[place]:.9g} to {self.upper[place]:.9g}"
            return f"label {self.label}, logit {place} from {ends}", _shown(logits, place)
        return self._margin(answer.logits)

    def _margin(self, logits: Sequence[float]) -> tuple[str, str] | None:
        """The certified claim itself, exactly, on the numbers that were answered."""
        if self.suppressed is None:
            return None
        label = self.suppressed.label
        best = max(Fraction(value) for place, value in enumerate(logits) if place != label)
        left = best - Fraction(logits[label])
        if left >= self.suppressed.margin:
            return None
        return f"label {label} to lose by {float(self.suppressed.margin):g}", f"by {float(left):.9g}"


def _shown(logits: Floats, place: int) -> str:
    return f"label {int(logits.argmax())}, logit {place} = {logits[place]:.9g}"


class Judge:
    """Evaluates the certified network on queries.

    Args:
        network: the certified patched network.
        tolerance: None for enclosures; or the absolute difference that is allowed in every logit, around the checker's
            own float32 evaluation.
        logits: the endpoint serves logits.
        labels: the endpoint serves labels.

    """

    def __init__(
        self, network: Network, tolerance: Fraction | None, *, logits: bool = True, labels: bool = False
    ) -> None:
        self.network, self.tolerance, self.widest = network, tolerance, 0.0
        self.logits, self.labels = logits, labels
        self._bounded, self._minuends = padding(network)

    def expect(self, x: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Least and greatest logits at points.

        Args:
            x: float32 [rows, *input_shape].

        Returns:
            Two arrays [rows, labels].

        Raises:
            LimitError: the float32 rounding of this network cannot be bounded; a tolerance has to be given.

        """
        if self.tolerance is not None:
            middle = evaluate(self.network, x).astype(np.float64)
            return middle - float(self.tolerance), middle + float(self.tolerance)
        parts = [self._enclosed(x[start : start + _ROWS].astype(np.float64)) for start in range(0, len(x), _ROWS)]
        return np.concatenate([low for low, _ in parts]), np.concatenate([high for _, high in parts])

    def _enclosed(self, x: Floats) -> tuple[Floats, Floats]:
        """The interval pass over points."""
        try:
            found = interval_pass(self._bounded, x, x, BINARY32)
            self._require_small(found)
        except (ProofError, UnsupportedVersionError) as error:
            got = f"{error}; give --tolerance T"
            raise LimitError("certified network", "bound of its float32 rounding", "a bound", got) from None
        lower, upper = (np.broadcast_to(end, (len(x), self.network.labels)) for end in found.output())
        return lower, upper

    def _require_small(self, found: Intervals) -> None:
        """The side condition of padded gates (SPEC 5.6)."""
        for index in self._minuends:
            low, high = found.box(index)
            if not max(-low.min(initial=0.0), high.max(initial=0.0)) < _SMALL:
                raise ProofError(f"node {index}", "minuend of a padded gate", "below 2^100", "more")

    def note(self, lower: Floats, upper: Floats) -> None:
        """Keep the width of the widest enclosure that was used, for the result.

        Args:
            lower: float64 [rows, labels], its one end.
            upper: its other end.

        """
        self.widest = max(self.widest, float((upper - lower).max(initial=0.0)))

    def tells(self, expected: Expected, logits: Floats, label: int) -> bool:
        """Whether these logits [labels] and this label would be a deviation, as far as the endpoint serves them."""
        served = Answer(tuple(logits.tolist()) if self.logits else None, label if self.labels else None)
        return expected.deviation(served) is not None
