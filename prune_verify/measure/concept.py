"""How a patch for a concept answers records that it was not trained on: members, and all the others.

Measured on records, never proved: what is proved is in the certificate.

Source: MATHS 7 (recognised on test data; accuracy on the other classes).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prune_verify.checker.network import Network, evaluate

__all__ = ["ConceptShares", "concept_shares"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ConceptShares:
    """Shares in [0, 1], before and after the patch.

    Args:
        members: number of members measured.
        recognised_before: of the members, those that the base answers with their label.
        recognised: the same for the patched network.
        others: number of other records measured.
        accuracy_before: of the others, those that the base answers with their label.
        accuracy: the same for the patched network.

    """

    members: int
    recognised_before: float
    recognised: float
    others: int
    accuracy_before: float
    accuracy: float


def concept_shares(
    base: Network, patched: Network, members: tuple[Floats, Labels], others: tuple[Floats, Labels]
) -> ConceptShares:
    """Compare the two networks on records that training did not see.

    Args:
        base: the base network.
        patched: the patched network.
        members: rows float32 [rows, *input_shape] and labels int64 [rows]; at least one.
        others: the same, of what is to stay.

    Raises:
        ValueError: a set is empty.

    """
    if not len(members[1]) or not len(others[1]):
        raise ValueError(f"expected members and others, found {len(members[1])} and {len(others[1])}")

    def right(network: Network, rows: tuple[Floats, Labels]) -> float:
        return float(np.mean(evaluate(network, rows[0]).argmax(axis=1) == rows[1]))

    return ConceptShares(
        len(members[1]),
        right(base, members),
        right(patched, members),
        len(others[1]),
        right(base, others),
        right(patched, others),
    )
