"""Statistics on ensembles in ``bench unlearning``: can networks that unlearned be told from retrained ones at all?

Each statistic stands beside the same one between two halves of the retrained networks, which is what perfect
unlearning gets with so few of them.

Source: arXiv 2403.01218 (U-LiRA), 2406.09073 (forgetting score), 2410.23232 (KLoM).
"""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from prune_verify.bench.unlearning_store import Store, key_of, source_digest
from prune_verify.measure.attack_ensembles import FEWEST_NETWORKS, forgetting_score, klom, u_lira
from prune_verify.measure.roc import Estimate

__all__ = ["NAMES", "told_apart"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
NAMES = ("U-LiRA AUC", "forgetting score (perfect)", "KLoM (perfect)")
_MOST_RECORDS = 200  # the statistics are means over records, and take seconds for each hundred


def told_apart(unlearned: Floats, retrained: Floats, labels: Labels, store: Store) -> dict[str, str]:
    """Cells of the table, kept by content.

    Args:
        unlearned: float32 [networks, records, labels], logits on forgotten records; the first 200 are used.
        retrained: float32 [networks, records, labels], of networks that never saw them.
        labels: int64 [records].
        store: where they are kept.

    Returns:
        A text for each of ``NAMES``; n/a below 20 networks of a kind.

    """
    if min(len(unlearned), len(retrained)) < FEWEST_NETWORKS:
        return dict.fromkeys(NAMES, "n/a")
    ours, theirs, own = unlearned[:, :_MOST_RECORDS], retrained[:, :_MOST_RECORDS], labels[:_MOST_RECORDS]

    def make() -> bytes:
        one, other = ours.astype(np.float64), theirs.astype(np.float64)
        area = u_lira(one, other, own).mean_auc
        score, divergence = forgetting_score(one, other, own), klom(one, other, own)
        cells = (
            f"{area.value:.3f} [{area.low:.3f}, {area.high:.3f}]",
            _beside(score.matched, score.control),
            _beside(divergence.matched, divergence.control),
        )
        return json.dumps(dict(zip(NAMES, cells, strict=True))).encode()

    modules = ("ensembles", "networks", "unlearned", "distances")
    sources = source_digest(*(f"measure/attack_{name}.py" for name in modules), "bench/unlearning_ensembles.py")
    found: dict[str, str] = json.loads(store.made(key_of("told apart", sources, ours, theirs, own), make))
    return found


def _beside(found: Estimate, control: Estimate) -> str:
    """What was found, and what perfect unlearning gets with as many networks."""
    return f"{found.value:.3f} ({control.value:.3f} [{control.low:.3f}, {control.high:.3f}])"
