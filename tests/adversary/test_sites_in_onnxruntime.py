"""The honest vectors at hidden sites, with held margins and with shifts, run by onnxruntime on rows of their balls.

What the certificates claim in binary32 is asked of 100,000 float32 rows on forget balls, corners among them, and of as many
on retained balls; the margins are exact differences of the float32 logits.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from prune_verify.checker.claim_json import parse_claim
from prune_verify.checker.rules import BINARY32

BASES = Path(__file__).resolve().parents[2] / "certs" / "vectors" / "base"
ROWS = 100_000
F32 = np.float32
Floats = npt.NDArray[np.float32]


def _claims(name: str) -> dict:
    document = json.loads((BASES / name / "statement.json").read_bytes())
    found = [parse_claim(item, "claim").claim for item in document["predicate"]["claims"]]
    return {claim.kind: claim for claim in found if claim.arithmetic == BINARY32}


def _ball(x: Floats, radius: Fraction, rng: np.random.Generator) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Float32 rows inside the balls, cut at [0, 1]: corners, mixtures of corners and centres, and anything inside."""
    low, high = (np.clip(x.astype(np.float64) + way * float(radius), 0, 1) for way in (-1, 1))
    below, above = low.astype(F32), high.astype(F32)
    below = np.where(below.astype(np.float64) < low, np.nextafter(below, F32(2)), below)
    above = np.where(above.astype(np.float64) > high, np.nextafter(above, F32(-1)), above)
    record = rng.integers(0, len(x), ROWS)
    share = np.where(
        rng.random((ROWS, 1)) < 0.5, rng.integers(0, 2, (ROWS, x.shape[1])), rng.random((ROWS, x.shape[1]))
    )
    rows = below[record] + (above - below)[record] * share.astype(F32)
    return np.clip(rows.astype(F32), below[record], above[record]), record


def _logits(name: str, which: str, rows: Floats) -> Floats:
    session = ort.InferenceSession(str(BASES / name / f"{which}.onnx"), providers=["CPUExecutionProvider"])
    found: Floats = session.run(None, {session.get_inputs()[0].name: rows})[0]
    return found


def _attacked(name: str, which: str, radius: Fraction) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Base and patched logits on rows of the balls, and the labels."""
    with np.load(BASES / name / f"{which}.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    rows, record = _ball(x, radius, np.random.default_rng(2))
    return _logits(name, "base", rows), _logits(name, "patched", rows), y[record]


def _margin(logits: Floats, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """By how much the label is ahead; logits of these sizes have exact differences in float64."""
    values = logits.astype(np.float64)
    own = values[np.arange(len(values)), labels]
    values[np.arange(len(values)), labels] = -np.inf
    return np.asarray(own - values.max(axis=1))


@pytest.mark.parametrize("name", ["hidden", "shift"])
def test_the_label_loses_by_the_margin_on_every_row(name: str) -> None:
    claim = _claims(name)["forget"]
    base, patched, labels = _attacked(name, "forget", claim.radius)
    assert (_margin(patched, labels) <= -float(claim.margin)).all()
    assert (_margin(base, labels) > 0).mean() > 0.9


def test_margins_are_held_in_the_band_on_every_row() -> None:
    claim = _claims("held")["band"]
    base, patched, labels = _attacked("held", "forget", claim.radius)
    low, high = claim.band
    margins = _margin(patched, labels)
    assert ((margins >= float(low)) & (margins <= float(high))).all()
    assert (_margin(base, labels) > float(high)).any()


@pytest.mark.parametrize("name", ["hidden", "held"])
def test_retained_logits_are_the_bases(name: str) -> None:
    base, patched, _ = _attacked(name, "retain", _claims(name)["retain_exact"].radius)
    np.testing.assert_array_equal(patched, base)


def test_retained_logits_stay_close() -> None:
    claim = _claims("shift")["retain_close"]
    base, patched, _ = _attacked("shift", "retain", claim.radius)
    assert (np.abs(patched.astype(np.float64) - base.astype(np.float64)) <= float(claim.delta)).all()


def test_the_least_shift_is_nearly_used_up() -> None:
    """On the forget balls some row needs almost all of the shift: the margin comes near to the claimed one."""
    claim = _claims("shift")["forget"]
    _, patched, labels = _attacked("shift", "forget", claim.radius)
    with np.load(BASES / "shift" / "forget.npz") as arrays:
        x = arrays["x"]
    weights = _gradient(x)
    corners = np.clip(x + np.sign(weights) * float(claim.radius), 0, 1).astype(F32)
    closest = _margin(_logits("shift", "patched", corners), np.load(BASES / "shift" / "forget.npz")["y"])
    assert (closest <= -float(claim.margin)).all()
    assert (closest > -float(claim.margin) - 0.02).all()
    assert (_margin(patched, labels) <= closest.max() + 1e-5).all()


def _gradient(x: Floats) -> Floats:
    """Of label minus rival at each record, by differences: the base is piecewise linear with long pieces."""
    labels = np.load(BASES / "shift" / "forget.npz")["y"]
    step, found = F32(2.0**-8), np.zeros_like(x)
    start = _logits("shift", "base", x).astype(np.float64)
    rivals = start.copy()
    rivals[np.arange(len(x)), labels] = -np.inf
    rival = rivals.argmax(axis=1)
    ahead = start[np.arange(len(x)), labels] - start[np.arange(len(x)), rival]
    for j in range(x.shape[1]):
        moved = x.copy()
        moved[:, j] += step
        z = _logits("shift", "base", moved).astype(np.float64)
        found[:, j] = z[np.arange(len(x)), labels] - z[np.arange(len(x)), rival] - ahead
    return np.where(np.abs(found) < 2.0**-16, 0, found)
