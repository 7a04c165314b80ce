"""Every way to forget that is measured, by name: from a base network and its records to an unlearned ONNX network.

One table for those who compare: patches of this project (:mod:`prune_verify.measure.patching`) beside retraining and
methods that change weights. Each function works in this process and gives an :class:`Outcome`; what it costs before a
request (checkpoints, updates, networks that never saw the record) is in its note and not in its seconds.

Source: MATHS 6; the methods' sources are in :mod:`prune_verify.measure.baselines`, ``sisa`` and ``reassure``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
from torch import nn

from prune_verify.measure.baselines import Rows, Unlearned, fine_tune, gradient_ascent, retrain, train_amnesiac
from prune_verify.measure.patching import (
    box,
    class_cap,
    hidden_box,
    learned,
    linear_region,
    non_member,
    non_member_held_out,
)
from prune_verify.measure.reassure import DensePatched, dense_patch
from prune_verify.measure.sisa import train_sisa
from prune_verify.measure.training import export_onnx
from prune_verify.measure.unlearning_context import Context, Outcome, UnlearnerError

__all__ = ["CLASS_PATCHES", "PATCHES", "UNLEARNERS", "Context", "Outcome", "Unlearner", "UnlearnerError"]

Unlearner = Callable[[bytes, Rows, Rows, Context], Outcome]
_FINE_TUNE_SHARE = 0.1  # of the epochs of training, at least one
_SHARDS, _SLICES = 5, 2
_MARGIN = 0.1


def _outcome(found: Unlearned, forget: Rows) -> Outcome:
    return Outcome(export_onnx(found.network, forget.x), found.seconds, len(forget.y), found.note)


def _retrain(_base: bytes, forget: Rows, retain: Rows, context: Context) -> Outcome:
    return _outcome(retrain(context.make, retain, epochs=context.epochs, seed=context.seed), forget)


def _fine_tune(_base: bytes, forget: Rows, retain: Rows, context: Context) -> Outcome:
    epochs = max(1, round(_FINE_TUNE_SHARE * context.epochs))
    found = _outcome(fine_tune(context.network, retain, epochs=epochs, seed=context.seed), forget)
    return found.noted(f"{epochs} epochs on the retained records")


def _ascend(_base: bytes, forget: Rows, retain: Rows, context: Context) -> Outcome:
    return _outcome(gradient_ascent(context.network, forget, retain, seed=context.seed), forget)


def _all(forget: Rows, retain: Rows) -> tuple[Rows, frozenset[int]]:
    """The training set, and which of its rows go."""
    x, y = np.concatenate([forget.x, retain.x]), np.concatenate([forget.y, retain.y])
    return Rows(x, y), frozenset(range(len(forget.y)))


def _amnesiac(_base: bytes, forget: Rows, retain: Rows, context: Context) -> Outcome:
    every, gone = _all(forget, retain)
    trained = train_amnesiac(context.make, every, gone, epochs=context.epochs, seed=context.seed)
    return _outcome(trained.unlearn(gone), forget).noted("trained anew with its updates kept")


def _sisa(_base: bytes, forget: Rows, retain: Rows, context: Context) -> Outcome:
    every, gone = _all(forget, retain)
    epochs = max(1, round(2 * context.epochs / (_SLICES + 1)))  # as much work as without slices
    trained = train_sisa(context.make, every, shards=_SHARDS, slices=_SLICES, epochs=epochs, seed=context.seed)
    return _outcome(trained.unlearn(gone), forget).noted("another model: the mean of its shards")


def _reassure(_base: bytes, forget: Rows, _retain: Rows, context: Context) -> Outcome:
    network = context.network
    if not isinstance(network, nn.Sequential):
        text = f"reassure: expected Linear and ReLU layers in turn, found {type(network).__name__}"
        raise UnlearnerError(text)
    start, patches = time.monotonic(), []
    for row, label in zip(forget.x, forget.y, strict=True):
        logits = context.logits(row[np.newaxis])[0]
        logits[label] = -np.inf
        patches.append(dense_patch(network, row.reshape(-1), int(logits.argmax()), margin=_MARGIN))
    found = Unlearned("REASSURE", DensePatched(network, patches).eval(), time.monotonic() - start)
    bits = 32 * sum(patch.parameters for patch in patches)
    return _outcome(found, forget).with_patch(bits, "the authors' method, made faster")


PATCHES: Mapping[str, Unlearner] = {
    "box": box,
    "relu-0": hidden_box,
    "non-member": non_member,
    "non-member, held out": non_member_held_out,
    "linear-region": linear_region,
    "learned": learned,
}
CLASS_PATCHES: Mapping[str, Unlearner] = {"class-cap": class_cap}
UNLEARNERS: Mapping[str, Unlearner] = {
    "retrain": _retrain,
    **PATCHES,
    **CLASS_PATCHES,
    "fine-tune": _fine_tune,
    "gradient ascent": _ascend,
    "amnesiac": _amnesiac,
    "SISA": _sisa,
    "REASSURE": _reassure,
}
