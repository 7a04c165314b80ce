"""The owner of a stream of requests on digits: every step in a folder of its own, through the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from prune_verify.checker.patch_json import parse_patch
from prune_verify.cli import run_words
from prune_verify.measure.datasets import digits
from tests.dishonest_owner import run

DATA = digits(seed=0)


class StreamOwner:
    """The stream of one owner."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder, self.steps = base, folder, 0
        self.gone: set[int] = set()

    def records(self, rows: Sequence[int], name: str, labels: list[int] | None = None) -> Path:
        path = self.folder / f"{name}{self.steps}.npz"
        np.savez(path, x=DATA.train_x[list(rows)], y=DATA.train_y[list(rows)] if labels is None else np.array(labels))
        return path

    @property
    def out(self) -> Path:
        return self.folder / f"out{self.steps}"

    def step(self, *options: str, forget: Sequence[int] = (), labels: list[int] | None = None, back: Sequence[int] = (),
             expected: int = 0) -> dict:  # fmt: skip
        gone = (self.gone - set(back)) | set(forget)
        before = ["--onto", str(self.out)] if self.steps else ["--stream", "--cover", "1"]
        kept = [i for i in range(300) if i not in gone]
        words = ["repair", self.base, *before, "--retain", self.records(kept, "retain"), *options]
        if forget:
            words += ["--forget", self.records(forget, "new", labels)]
        self.steps += 1
        code, text = run_words([*map(str, words), "--out", str(self.out), "--json", "--quiet"])
        assert code == expected, text
        if code:
            self.steps -= 1
        else:
            self.gone = gone
        return json.loads(text)

    def certify(self, *options: str | Path, expected: int = 0) -> dict:
        text = run(
            "certify", self.base, self.out / "patched.onnx", "--request", self.out / "request.json", "--forget",
            self.out / "forget.npz", "--retain", self.folder / f"retain{self.steps - 1}.npz", "--cross-check", "0",
            *options, "--out", self.out, "--json", expected=expected,
        )  # fmt: skip
        return json.loads(text)

    def gates(self):
        return parse_patch((self.out / "patch.json").read_bytes(), "patch.json").patch.gates

    def answers(self, rows: list[int]) -> np.ndarray:
        session = ort.InferenceSession(self.out / "patched.onnx")
        return session.run(None, {session.get_inputs()[0].name: DATA.train_x[rows]})[0].argmax(axis=1)


def counts(found: dict, kind: str) -> list[tuple[int, int]]:
    return [(c["proved"], c["total"]) for c in found["claims"] if c["kind"] == kind]
