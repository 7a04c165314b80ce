"""What every way to forget is given besides the records, and what it hands back.

Source: MATHS 4.1 (what a patch discloses), 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.region import Domain
from prune_verify.repair.redirect import OutMargins
from prune_verify.repair.threat_model import OWN_ERRORS, ThreatModel

__all__ = ["Context", "Outcome", "UnlearnerError", "unit_model"]

Floats = npt.NDArray[np.float32]
_KEY = b"prune-verify measures redirects."  # 32 bytes; a published key is no secret, and this one protects nobody


class UnlearnerError(Exception):
    """A way to forget that cannot be had for this network or these records; the message says why."""


def unit_model(radius: str, retained_radius: str) -> ThreatModel:
    """A threat model on inputs in [0, 1], whose margin is that of the base's own errors.

    Args:
        radius: of the forget balls, a decimal.
        retained_radius: of the retained balls.

    """
    domain = Domain((Fraction(0),), (Fraction(1),))
    return ThreatModel(domain, Fraction(radius), Fraction(retained_radius), margin_from=OWN_ERRORS)


@dataclass(frozen=True, eq=False)
class Context:
    """What a way to forget may use.

    Args:
        network: the base in torch, of the same weights as the ONNX file; never changed.
        make: builds an untrained network of the same architecture, from torch's generator.
        epochs: that the base was trained for, with Adam at 1e-3 on batches of 128.
        seed: of everything random.
        model: radii of gates at the input.
        narrow: forget and retained radius of gates behind the first ReLU.
        learned_radii: the same of learned patches.
        out_margins: of each forget record in networks that never saw it: for ``non-member``.
        held_out: records that the base never saw: for ``non-member, held out``.
        classes: labels to be forgotten: for ``class-cap``.
        key: secret of the draws of ``non-member``.

    """

    network: nn.Module
    make: Callable[[], nn.Module]
    epochs: int
    seed: int
    model: ThreatModel
    narrow: tuple[Fraction, Fraction] = (Fraction("0.004"), Fraction("0.002"))
    learned_radii: tuple[Fraction, Fraction] = (Fraction("0.02"), Fraction("0.01"))
    out_margins: OutMargins | None = None
    held_out: LabelledRows | None = None
    classes: tuple[int, ...] = ()
    key: bytes = _KEY

    def logits(self, rows: Floats) -> Floats:
        """What the base answers: float32 [rows, labels]."""
        with torch.no_grad():
            found: Floats = self.network(torch.from_numpy(np.array(rows))).numpy()
        return found


@dataclass(frozen=True, eq=False)
class Outcome:
    """A network after unlearning.

    Args:
        onnx: bytes of the network that would be deployed.
        seconds: of unlearning alone.
        records: that were asked to be forgotten.
        note: what else has to be known.
        patch_bits: that what was added to the base stores, all records together; None where no part was added.

    """

    onnx: bytes
    seconds: float
    records: int
    note: str = ""
    patch_bits: int | None = None

    @property
    def holds_base(self) -> bool:
        """Whether the file still holds the whole base, so that whoever has it can strip what was added."""
        return self.patch_bits is not None

    def noted(self, note: str) -> Outcome:
        """The same with a further note."""
        return replace(self, note="; ".join(filter(None, (note, self.note))))

    def with_patch(self, bits: int, note: str = "") -> Outcome:
        """The same with the bits that the added part stores."""
        return replace(self.noted(note), patch_bits=bits)
