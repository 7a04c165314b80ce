"""How soon forgotten records come back in ``bench unlearning``: epochs of fine-tuning; none where the base is inside.

The attacker has a tenth of the forgotten records and the file. What counts is when as many of the others are answered
as after genuine retraining, which has answered them so from the start.

Source: THREATS 3 (relearning); the attack is :mod:`prune_verify.measure.relearning`.
"""

from __future__ import annotations

import json
from math import ceil

import numpy as np

from prune_verify.bench.unlearning_store import Store, key_of, source_digest
from prune_verify.bounds.bounded import one_thread
from prune_verify.bounds.errors import BoundsError
from prune_verify.checker.errors import CheckError
from prune_verify.checker.load_onnx import load_network
from prune_verify.measure.baselines import Rows
from prune_verify.measure.errors import MeasureInputError
from prune_verify.measure.relearning import Attack, Relearner, epochs_until, stripped

__all__ = ["COLUMN", "relearned"]

COLUMN = "relearning epochs"
_ATTACK = Attack(epochs=30, batch=32, rate=1e-3)
_KNOWN = 0.1
_MOST_TESTED = 500


def relearned(onnx: bytes, base: bytes, forget: Rows, test: Rows, target: float, store: Store) -> str:
    """The cell of a network, kept by content.

    Args:
        onnx: of the network after unlearning.
        base: of the network before.
        forget: the forgotten records, at least two.
        test: held-out records; the first 500 are answered at the end.
        target: share of the forgotten records that genuine retraining answers with their label.
        store: where it is kept.

    Returns:
        ``0, strip`` where the base is inside, then epochs for the last layer alone and for all weights, up to 30.

    """
    source = source_digest("measure/relearning.py", "measure/architecture.py", "bench/unlearning_relearning.py")
    key = key_of("relearned", source, onnx, base, forget.x, forget.y, repr(target))
    tested = Rows(test.x[:_MOST_TESTED], test.y[:_MOST_TESTED])
    found: str = json.loads(store.made(key, lambda: json.dumps(_found(onnx, base, forget, tested, target)).encode()))
    return found


def _found(onnx: bytes, base: bytes, forget: Rows, test: Rows, target: float) -> str:
    order, count = np.random.default_rng(0).permutation(len(forget.y)), ceil(_KNOWN * len(forget.y))
    known, watched = (Rows(forget.x[part], forget.y[part]) for part in (order[:count], order[count:]))
    try:
        before = load_network(base, "base.onnx").network
        strip = onnx != base and stripped(before, load_network(onnx, "unlearned.onnx").network) is not None
        relearner = Relearner(onnx, "unlearned.onnx", before)
        with one_thread():
            runs = [relearner.fine_tuned(known, watched, test, _ATTACK, head=head, seed=0) for head in (True, False)]
    except (CheckError, BoundsError, MeasureInputError):
        return "n/a"
    after = [epochs_until(run.watched, target) for run in runs]
    said = [f"over {_ATTACK.epochs}" if epoch is None else str(epoch) for epoch in after]
    return ("0, strip; " if strip else "") + f"head {said[0]}, full {said[1]}"
