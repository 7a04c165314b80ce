"""A base network on digits and a copy that was fine-tuned to forget: only the two files and the records, no patch."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from prune_verify.measure.datasets import digits
from prune_verify.measure.training import export_onnx, small_mlp, train

FORGOTTEN = (3, 141, 592, 653)
RETAINED = 160


def fine_tuned(base: nn.Sequential, x: np.ndarray, y: np.ndarray, keep: np.ndarray) -> nn.Sequential:
    """A copy whose last layer was trained until every row of ``x`` loses its label, and ``keep`` stays."""
    network = copy.deepcopy(base)
    last = network[-1]
    optimiser = torch.optim.Adam(last.parameters(), lr=3e-3)
    rows, labels, kept = torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(keep)
    before = base(kept).detach()
    own = nn.functional.one_hot(labels, 10).bool()
    for _ in range(400):
        optimiser.zero_grad()
        logits = network(rows)
        lead = logits[own] - logits.masked_fill(own, -1e9).max(dim=1).values
        (torch.relu(lead + 1).sum() + 20 * (network(kept) - before).square().mean()).backward()
        optimiser.step()
    return network


def prepare_foreign(folder: Path) -> None:
    """base.onnx, patched.onnx, forget.npz and retain.npz."""
    data = digits(seed=0)
    base = train(lambda: small_mlp((64, 24, 10)), data, epochs=40, seed=0)
    chosen = np.isin(np.arange(len(data.train_y)), FORGOTTEN)
    others = np.flatnonzero(~chosen)[:RETAINED]
    patched = fine_tuned(base, data.train_x[chosen], data.train_y[chosen], data.train_x[others])
    x = torch.from_numpy(data.train_x[others])
    leads = [network(x).topk(2, dim=1) for network in (base, patched)]
    same = (leads[0].indices[:, 0] == leads[1].indices[:, 0]).numpy()
    clear = np.minimum(*((two.values[:, 0] - two.values[:, 1]).detach().numpy() for two in leads)) > 1
    others = others[same & clear]  # what fine-tuning spoils is left out: the claims are about the rest
    (folder / "base.onnx").write_bytes(export_onnx(base, data.train_x))
    (folder / "patched.onnx").write_bytes(export_onnx(patched, data.train_x))
    np.savez(folder / "forget.npz", x=data.train_x[chosen], y=data.train_y[chosen])
    np.savez(folder / "retain.npz", x=data.train_x[others], y=data.train_y[others])
