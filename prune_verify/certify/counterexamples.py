"""Whether a point refutes a claim: the files themselves, run by onnxruntime.

A claim in binary32 is refuted by one execution that breaks it. A claim over the reals is refuted if, in addition, the
exact networks break it at the point, by the checker's own enclosures of their logits there.

Source: MATHS 2 (claims); rules of VNN-COMP (counterexamples are confirmed by onnxruntime).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from prune_verify.checker.claim import Claim
from prune_verify.checker.errors import CheckError
from prune_verify.checker.interval import interval_pass
from prune_verify.checker.network import Network
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import REAL
from prune_verify.checker.vnnlib import Case

__all__ = ["Point", "Runner", "claim_fails", "clamped", "in_region", "property_holds_at", "refuted_over_the_reals"]

Singles = npt.NDArray[np.float32]
Ends = Sequence[tuple[Fraction, Fraction]]


class Runner:
    """An ONNX file as onnxruntime runs it, one row at a time.

    Args:
        data: the file's bytes.

    """

    def __init__(self, data: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        (self._input,) = self._session.get_inputs()

    def logits(self, x: Singles) -> Singles:
        """The logits of one input x [*input_shape], flattened."""
        fixed = [n if isinstance(n, int) else None for n in self._input.shape]
        shape = (1, *x.shape)
        if len(fixed) == x.ndim and None not in fixed:  # a file without a batch axis
            shape = x.shape
        (found,) = self._session.run(None, {self._input.name: x.reshape(shape)})[:1]
        return np.asarray(found, dtype=np.float32).reshape(-1)


@dataclass(frozen=True, eq=False)
class Point:
    """A refutation.

    Args:
        record: which record.
        x: the input, float32 [*input_shape].
        base: the base's logits there in onnxruntime, or None where the claim does not speak of them.
        patched: the patched network's.

    """

    record: int
    x: Singles
    base: Singles | None
    patched: Singles


def _exact(logits: Singles) -> Ends:
    return [(Fraction(float(v)), Fraction(float(v))) for v in logits]


def _beaten(ends: Ends, label: int, margin: Fraction) -> bool:
    """Whether, for all values within the ends, ``label`` exceeds every other logit by more than -margin."""
    return all(ends[label][0] > high - margin for j, (_, high) in enumerate(ends) if j != label)


def _answer(ends: Ends) -> int | None:
    """The label answered for all values within the ends (ties: the lowest index), or None."""
    for label, (low, _) in enumerate(ends):
        if all(low > high or (low >= high and label < j) for j, (_, high) in enumerate(ends) if j != label):
            return label
    return None


def claim_fails(claim: Claim, label: int, base: Ends, patched: Ends) -> bool:
    """Whether a claim fails at a point, for all logits within the given ends.

    Args:
        claim: of kind ``forget``, ``band``, ``retain_label`` or ``retain_close``.
        label: of the record.
        base: ends of the base's logits.
        patched: ends of the patched network's.

    """
    match claim.kind:
        case "forget" if claim.margin is not None:
            return _beaten(patched, label, claim.margin)
        case "band" if claim.band is not None:
            above = _beaten(patched, label, -claim.band[1])
            return above or any(
                patched[label][1] - low < claim.band[0] for j, (low, _) in enumerate(patched) if j != label
            )
        case "retain_label":
            one, other = _answer(base), _answer(patched)
            return one is not None and other is not None and one != other
        case "retain_close" if claim.delta is not None:
            delta = claim.delta
            return any(
                max(low - base_high, base_low - high) > delta
                for (base_low, base_high), (low, high) in zip(base, patched, strict=True)
            )
    return False


def in_region(x: Singles, center: Singles, radius: Fraction, domain: Domain) -> bool:
    """Whether a point lies in a closed ball, cut to the domain; exactly.

    Args:
        x: float32 [*input_shape].
        center: float32 [*input_shape].
        radius: in input units.
        domain: D.

    """
    for place, (value, middle) in enumerate(zip(x.reshape(-1).tolist(), center.reshape(-1).tolist(), strict=True)):
        low, high = domain.interval(place)
        one = Fraction(value)
        if abs(one - Fraction(middle)) > radius or not low <= one <= high:
            return False
    return True


def refuted_over_the_reals(claim: Claim, label: int, base: Network, patched: Network, x: Singles) -> bool:
    """Whether a claim fails at a point in exact arithmetic.

    Args:
        label: of the record.
        x: float32 [*input_shape], the point.
        claim: of the certificate.
        base: the network.
        patched: the network.

    """
    point = x[np.newaxis].astype(np.float64)
    try:
        ends = []
        for network in (base, patched):
            low, high = (end[0].tolist() for end in interval_pass(network, point, point, REAL).output())
            ends.append([(Fraction(a), Fraction(b)) for a, b in zip(low, high, strict=True)])
    except CheckError:
        return False
    return claim_fails(claim, label, ends[0], ends[1])


def clamped(case: Case, x: Singles) -> Singles:
    """The float32 point of a case's box that is nearest to ``x`` [n], number by number, exactly inside where one is."""
    found = []
    for low, value, high in zip(case.lower, x.reshape(-1).tolist(), case.upper, strict=True):
        one = np.float32(value)
        if Fraction(float(one)) < low:
            one = np.float32(float(low))
        if Fraction(float(one)) > high:
            one = np.float32(float(high))
        while Fraction(float(one)) < low:
            one = np.nextafter(one, np.float32(np.inf))
        while Fraction(float(one)) > high:
            one = np.nextafter(one, np.float32(-np.inf))
        found.append(one)
    return np.array(found, dtype=np.float32).reshape(x.shape)


def property_holds_at(cases: Sequence[Case], x: Singles, y: Singles) -> bool:
    """Whether inputs x and outputs y, both flat [n], meet one of a property's cases, exactly: then it is ``sat``."""
    inputs, outputs = [Fraction(float(v)) for v in x.reshape(-1)], [Fraction(float(v)) for v in y.reshape(-1)]
    for case in cases:
        inside = all(low <= v <= high for low, v, high in zip(case.lower, inputs, case.upper, strict=True))
        if inside and all(
            sum((factor * outputs[j] for j, factor in factors.items()), Fraction(0)) <= number
            for factors, number in case.atoms
        ):
            return True
    return False
