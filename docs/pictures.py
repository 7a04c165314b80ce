"""Pictures of the site, drawn when it is built from the committed example: what a patch does to one record."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prune_verify.charts import Axis, Curve, chart, svg_file
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, evaluate

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "certs" / "examples" / "digits-records"
_STEPS = 400


def pictures() -> dict[str, bytes]:
    """SVG files by place in the site."""
    return {"images/one-record.svg": _one_record()}


def _margins(network: Network, rows: np.ndarray, label: int) -> np.ndarray:
    """By how much a label wins against the best other one: [rows]."""
    logits = evaluate(network, rows.astype(np.float32)).astype(np.float64)
    others = np.delete(logits, label, axis=1)
    return logits[:, label] - others.max(axis=1)


def _one_record() -> bytes:
    """The margin of a forgotten record's label on the way to its nearest retained record of that label."""
    sets = {name: np.load(EXAMPLE / f"{name}.npz") for name in ("forget", "retain")}
    record, label = sets["forget"]["x"][0], int(sets["forget"]["y"][0])
    same = sets["retain"]["x"][sets["retain"]["y"] == label]
    near = same[np.abs(same - record).sum(axis=1).argmin()]
    share = np.linspace(0.0, 1.0, _STEPS + 1)
    rows = record + share[:, None] * (near - record)
    curves = []
    for name in ("base", "patched"):
        network = load_network((EXAMPLE / f"{name}.onnx").read_bytes(), f"{name}.onnx").network
        curves.append(Curve(name, list(zip(share.tolist(), _margins(network, rows, label).tolist(), strict=True))))
    values = [y for curve in curves for _, y in curve.points]
    low, high = int(np.floor(min(values))), int(np.ceil(max(values)))
    across = Axis(
        "way to the nearest retained record", 0.0, 1.0, ((0.0, "forgotten"), (0.5, "half way"), (1.0, "retained"))
    )
    up = Axis(f"margin of the label {label}", low, high, tuple((float(v), str(v)) for v in range(low, high + 1)))
    return svg_file([chart("One forgotten record, and what lies beside it", across, up, curves)])
