"""Any order of requests and withdrawals: after every step all live records are proved, and conflicts are those listed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.claim import Claim, LabelledRows, Problem, decide
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.patch_json import parse_patch
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.cli import run_words
from prune_verify.request import parse_request
from tests.repair.bases import mlp

pytestmark = pytest.mark.prover
F = np.float32


def proved(folder: Path, base: bytes, retain: LabelledRows) -> tuple[int, tuple[int, ...]]:
    """How many live records are proved, and the conflicts, from the files as the checker reads them."""
    request = parse_request((folder / "request.json").read_bytes(), "request.json")
    with np.load(folder / "forget.npz") as found:
        live = LabelledRows(found["x"], found["y"])
    patch = parse_patch((folder / "patch.json").read_bytes(), "patch.json").patch
    networks = load_network(base, "base").network, load_network((folder / "patched.onnx").read_bytes(), "p").network
    problem = Problem(*networks, patch, request.domain, live, retain)
    counts, conflicts = [], []
    for arithmetic in (BINARY32, REAL):
        forget = decide(problem, Claim("forget", arithmetic, "structural", request.radius, request.margin))
        counts.append(forget.proved)
        logits = patch.allowed if patch.forgotten_classes else None
        claim = Claim("retain_exact", arithmetic, "structural", request.retained_radius, logits=logits)
        conflicts.append(decide(problem, claim).conflicts)
    assert counts[0] == counts[1]
    return counts[0], tuple(sorted(set(conflicts[0]) | set(conflicts[1])))


@pytest.mark.parametrize("seed", range(8))
def test_every_step_is_proved_or_refused_by_name(seed, tmp_path):
    rng = np.random.default_rng(seed)
    labels = int(rng.integers(2, 5))
    base = mlp(labels=labels)
    (tmp_path / "base.onnx").write_bytes(base)
    every = rng.random((40, 12)).astype(F)
    every[8:12] = np.clip(
        every[4:8] + rng.uniform(-0.12, 0.12, (4, 12)).astype(F), 0, 1
    )  # near records: joins, conflicts
    every[:, rng.choice(12, 7, replace=False)] = F(0.5)  # few coordinates tell records apart: gates are slabs
    answers = rng.integers(0, labels, 40)
    live: dict[str, tuple[int, ...]] = {}
    before: Path | None = None
    refused = 0
    for step in range(9):
        out, words = tmp_path / f"out{step}", list[str]()
        after = dict(live)
        if len(live) > 1 and rng.random() < 0.35:
            name = str(rng.choice(sorted(live)))
            words += ["--withdraw", name]
            del after[name]
        if not words or rng.random() < 0.5:
            rows = tuple(int(i) for i in rng.choice(16, int(rng.integers(1, 4)), replace=False))
            np.savez(tmp_path / "new.npz", x=every[list(rows)], y=answers[list(rows)])
            words += ["--forget", str(tmp_path / "new.npz"), "--reference", f"R{step}"]
            after[f"R{step}"] = rows
        gone = {row for rows in after.values() for row in rows}
        kept = [i for i in range(40) if i not in gone]
        np.savez(tmp_path / "retain.npz", x=every[kept], y=answers[kept])
        start = ["--stream", "--cover", "1"] if before is None else ["--onto", str(before)]
        code, text = run_words([
            "repair", str(tmp_path / "base.onnx"), *start, *words, "--retain", str(tmp_path / "retain.npz"),
            "--out", str(out), "--json", "--quiet",
        ])  # fmt: skip
        said = json.loads(text)
        if code:
            assert code == 3, text
            assert "requests interfere: 'R" in said["error"] or "no coordinate separates" in said["error"]
            refused += 1
            continue
        live, before = after, out
        assert said["requests"] == list(live)
        assert said["records"] == len(gone)
        assert proved(out, base, LabelledRows(every[kept], answers[kept])) == (len(gone), tuple(said["conflicts"]))
    assert refused < 9
