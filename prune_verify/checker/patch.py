"""Patches: their parameters, as in ``patch.json``.

The checker never analyses the patch nodes that the owner shipped. It rebuilds the patched network from the base and
these parameters (:mod:`prune_verify.checker.rebuild`) and compares canonical digests (THREATS T17).

Source: MATHS 3.2, 3.3, 4.1 to 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = [
    "INPUT",
    "Block",
    "Gate",
    "Interval",
    "JointPatch",
    "LearnedPatch",
    "Patch",
    "ShiftPatch",
    "blocks",
]

INPUT = "input"
BLOCK_GATES = 256
NEVER_VIOLATED = np.finfo(np.float32).max
NEVER_REACHED = np.float32(2.0**62)  # of shift patches, of which bounds are computed; what exceeds it closes the gate


@dataclass(frozen=True)
class Interval:
    """One coordinate of a box: ``low <= x_j <= high``; an absent edge does not restrict.

    Args:
        coordinate: index into the flattened values of the sites, one site after the other.
        low: float32 edge or None.
        high: float32 edge or None.

    """

    coordinate: int
    low: np.float32 | None
    high: np.float32 | None


@dataclass(frozen=True)
class Gate:
    """A box gate on few coordinates of the patch's sites.

    Args:
        label: the label that the gate suppresses.
        gamma: float32 slope; the support of the gate reaches 1/gamma (l1 violation) beyond the box.
        intervals: ascending by coordinate, one per coordinate.
        records: indices of the forget records that the gate is for (a hint: containment is checked).
        hold: where the gate is open the margin of the label stays between these ends; None: it loses by tau.

    """

    label: int
    gamma: np.float32
    intervals: tuple[Interval, ...]
    records: tuple[int, ...]
    hold: tuple[np.float32, np.float32] | None = None

    @property
    def literals(self) -> int:
        """Number of half-spaces."""
        return sum((i.low is not None) + (i.high is not None) for i in self.intervals)


@dataclass(frozen=True)
class JointPatch:
    """Families ``box`` and ``class-cap``: gates on few coordinates under the joint head.

    Args:
        labels: number k of logits of the base.
        forgotten_classes: ascending labels that the patched network never answers.
        tau: float32 margin of the head.
        shift: M of MATHS 3.2 (float32); 0 without gates.
        slack: K of MATHS 3.2 (float32); 0 without gates.
        gates: in the order of ``patch.json``; all of them hold a margin, or none.
        sites: what the gates read.

    """

    labels: int
    forgotten_classes: tuple[int, ...]
    tau: np.float32
    shift: np.float32
    slack: np.float32
    gates: tuple[Gate, ...]
    sites: tuple[str, ...] = (INPUT,)

    @property
    def holds(self) -> bool:
        """Whether the gates hold margins (redirect ``non-member``)."""
        return any(gate.hold is not None for gate in self.gates)

    @property
    def family(self) -> str:
        """The name of the family in files."""
        return "box" if self.gates else "class-cap"

    @property
    def allowed(self) -> tuple[int, ...]:
        """The set A: labels that are not forgotten as a class."""
        return tuple(j for j in range(self.labels) if j not in self.forgotten_classes)


@dataclass(frozen=True, eq=False)
class LearnedPatch:
    """Family ``learned``: a ReLU chain P from the input to the logits, with N' = N + P.

    Args:
        labels: number k of logits of the base.
        layers: (weight [out, in], bias [out]) pairs, float32; a ReLU stands between consecutive layers.

    """

    labels: int
    layers: tuple[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]], ...]
    family: str = field(default="learned", init=False)


@dataclass(frozen=True, eq=False)
class ShiftPatch:
    """Family ``linear-region``: where a gate is open a constant is added to the logits, N' = N + sum of g_i shift_i.

    Args:
        labels: number k of logits of the base.
        gates: on the activation pattern of a forget record, and on a box of inputs.
        sites: what the gates read.
        shifts: float32 [gates, labels].

    """

    labels: int
    gates: tuple[Gate, ...]
    sites: tuple[str, ...]
    shifts: npt.NDArray[np.float32]
    family: str = field(default="linear-region", init=False)


Patch = JointPatch | LearnedPatch | ShiftPatch


@dataclass(frozen=True, eq=False)
class Block:
    """Gates of similar size, as the tensors of one batch of nodes.

    Args:
        gates: indices into ``JointPatch.gates``.
        coordinates: [slots, gates]: the x_j that each literal reads.
        signs: float32 [slots, gates] of 1 and -1, or None where all are 1.
        edges: float32 [slots, gates]; a literal is violated by ``sign x - edge`` when that is positive.

    """

    gates: tuple[int, ...]
    coordinates: npt.NDArray[np.int64]
    signs: npt.NDArray[np.float32] | None
    edges: npt.NDArray[np.float32]


def _literals(gate: Gate) -> list[tuple[int, float, np.float32]]:
    """The gate's half-spaces as (coordinate, sign, edge): a lower edge is an upper one on -x, and negation is exact."""
    highs = [(i.coordinate, 1.0, i.high) for i in gate.intervals if i.high is not None]
    lows = [(i.coordinate, -1.0, np.float32(-i.low)) for i in gate.intervals if i.low is not None]
    return highs + lows


def blocks(patch: JointPatch | ShiftPatch) -> list[Block]:
    """The gates sorted by their number of literals and cut into blocks, padded within a block only."""
    order = sorted(range(len(patch.gates)), key=lambda g: (patch.gates[g].literals, g))
    result, never = [], NEVER_VIOLATED if isinstance(patch, JointPatch) else NEVER_REACHED
    for start in range(0, len(order), BLOCK_GATES):
        chosen = order[start : start + BLOCK_GATES]
        slots = patch.gates[chosen[-1]].literals
        coordinates = np.zeros((slots, len(chosen)), dtype=np.int64)
        signs = np.ones((slots, len(chosen)), dtype=np.float32)
        edges = np.full((slots, len(chosen)), never, dtype=np.float32)
        for column, index in enumerate(chosen):
            for slot, literal in enumerate(_literals(patch.gates[index])):
                coordinates[slot, column], signs[slot, column], edges[slot, column] = literal
        mixed = bool((signs < 0).any())
        result.append(Block(tuple(chosen), coordinates, signs if mixed else None, edges))
    return result
