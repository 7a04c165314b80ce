"""The constants of the joint head, from one interval pass over the domain in each arithmetic of the claims.

tau, M and K are float32 numbers, each the least that meets its side condition with every rounding upward; the
checker's own rules are applied to the result before it is used.

Source: MATHS 3.2, 3.3; certs/SPEC.md sections 4.4 to 4.6.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from prune_verify.checker import rules
from prune_verify.checker.errors import ProofError
from prune_verify.checker.interval import interval_pass, logit_spread
from prune_verify.checker.network import Network
from prune_verify.checker.patch import JointPatch
from prune_verify.checker.region import Domain
from prune_verify.repair.box import round_up
from prune_verify.repair.errors import InfeasiblePatchError

__all__ = ["HeadBounds", "head_bounds", "with_head", "with_hold_head"]

_LARGEST = 2**60


@dataclass(frozen=True)
class HeadBounds:
    """What the logits of A can be on the domain.

    Args:
        spread: R by arithmetic.
        magnitude: Z by arithmetic.

    """

    spread: dict[str, Fraction]
    magnitude: dict[str, Fraction]


def head_bounds(base: Network, labels: tuple[int, ...], domain: Domain, arithmetics: tuple[str, ...]) -> HeadBounds:
    """R and Z of the base over the domain for these labels, for each of the arithmetics.

    Raises:
        InfeasiblePatchError: the base may overflow on the domain.

    """
    lower, upper = domain.outward(base.input_shape)
    spread, magnitude = {}, {}
    for arithmetic in arithmetics:
        try:
            found = interval_pass(base, lower[np.newaxis], upper[np.newaxis], arithmetic)
        except ProofError as error:
            text = f"no patch can be proved for this base on the domain: {error}; a smaller --domain may help"
            raise InfeasiblePatchError(text) from None
        low, high = (end[0, list(labels)] for end in found.output())
        spread[arithmetic] = Fraction(logit_spread(base, found, labels))
        magnitude[arithmetic] = Fraction(float(max(np.abs(low).max(), np.abs(high).max())))
    return HeadBounds(spread, magnitude)


def _tau(patch: JointPatch, margin: Fraction, bounds: HeadBounds | None) -> np.float32:
    """The least tau that leaves the margin after rounding, and at least twice the bound on the rounding."""
    least = margin / (1 - Fraction(1, 2**21)) if patch.forgotten_classes else margin
    if bounds is not None:
        size = max(bounds.magnitude.values())
        rounding = rules.U * size / (1 - rules.U) + Fraction(1, 2**125)
        least = max(least, margin / (1 - rules.U) + rounding, 2 * rules.U * size / (1 - 2 * rules.U))
    return round_up(least)


def with_head(
    patch: JointPatch, margin: Fraction, bounds: HeadBounds | None, arithmetics: tuple[str, ...]
) -> JointPatch:
    """The patch with tau, M and K that the checker's rules accept.

    Args:
        patch: its gates and forgotten classes; its constants are replaced.
        margin: of the claims.
        bounds: R and Z; None without gates.
        arithmetics: of the claims.

    Raises:
        InfeasiblePatchError: K would be 2^60 or more.

    """
    patch = replace(patch, tau=_tau(patch, margin, bounds), shift=np.float32(0), slack=np.float32(0))
    if bounds is not None:
        patch = _with_slack(patch, max(bounds.spread.values()), max(bounds.magnitude.values()))
    for arithmetic in arithmetics:
        if bounds is not None:
            spread, magnitude = bounds.spread[arithmetic], bounds.magnitude[arithmetic]
            rules.joint_head(patch, spread, magnitude, arithmetic)
            rules.head_margin(patch, margin, magnitude, arithmetic)
        if patch.forgotten_classes:
            rules.class_cap(patch, margin, arithmetic)
    return patch


def with_hold_head(patch: JointPatch, bounds: HeadBounds, arithmetics: tuple[str, ...]) -> JointPatch:
    """The patch with the least K with which its gates hold their margins: K >= R + 2 H + s.

    Args:
        patch: its gates hold margins; its constants are replaced.
        bounds: R and Z.
        arithmetics: of the claims.

    Raises:
        InfeasiblePatchError: K would be 2^60 or more.

    """
    ends = [abs(Fraction(float(end))) for gate in patch.gates for end in gate.hold or ()]
    spread, magnitude = max(bounds.spread.values()), max(bounds.magnitude.values())
    share, zero = Fraction(1, 2**18), np.float32(0)
    slack = round_up((spread + 2 * max(ends) + share * magnitude) / (1 - share))
    if float(slack) >= _LARGEST:
        text = f"K of the head would be 2^60 or more: the logits spread by {float(spread):.3g} over the domain"
        raise InfeasiblePatchError(text)
    patch = replace(patch, tau=zero, shift=zero, slack=slack)
    for arithmetic in arithmetics:
        rules.hold_head(patch, bounds.spread[arithmetic], bounds.magnitude[arithmetic], arithmetic)
    return patch


def _with_slack(patch: JointPatch, spread: Fraction, magnitude: Fraction) -> JointPatch:
    """M >= R + tau + s and K >= R + M + tau + s with s = 2^-18 (K + Z), by rounding upward until both hold."""
    tau, share = Fraction(float(patch.tau)), Fraction(1, 2**18)
    slack = round_up((2 * (spread + tau) + 2 * share * magnitude) / (1 - 2 * share))
    while float(slack) < _LARGEST:
        rounding = share * (Fraction(float(slack)) + magnitude)
        shift = round_up(spread + tau + rounding)
        if Fraction(float(slack)) >= spread + Fraction(float(shift)) + tau + rounding:
            return replace(patch, shift=shift, slack=slack)
        slack = np.nextafter(slack, np.float32(np.inf))
    text = f"K of the head would be 2^60 or more: the logits spread by {float(spread):.3g} over the domain"
    raise InfeasiblePatchError(text)
