"""Make the reference patches of ``patches/`` but the first: one of each family on the first example: ``make patches``.

Base and records are those of ``certs/examples/digits-records``; what is written comes out of ``prune-verify repair``.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from prune_verify.checker.encoding import sha256_hex
from prune_verify.cli import run_words
from prune_verify.measure.datasets import digits

ROOT = Path(__file__).resolve().parents[1]
PATCHES, SOURCE = ROOT / "patches", ROOT / "certs" / "examples" / "digits-records"
RECORDS = ("--forget", "forget.npz", "--retain", "retain.npz")
SMALL = ("--radius", "0.0004", "--retained-radius", "0.0002")
FAMILIES: dict[str, tuple[tuple[str, ...], str]] = {
    "digits-hidden": (
        (*RECORDS, "--site", "relu-0", "--cover", "1", "--radius", "0.01", "--retained-radius", "0.005"),
        "Three records of scikit-learn's digits forgotten by gates behind the first ReLU (family box).",
    ),
    "digits-linear-region": (
        (*RECORDS, "--family", "linear-region", *SMALL),
        "Three records of scikit-learn's digits forgotten on their activation patterns, with least shifts.",
    ),
    "digits-learned": (
        (*RECORDS, "--family", "learned", "--radius", "0.02", "--retained-radius", "0.01"),
        "Three records of scikit-learn's digits forgotten by a trained patch network.",
    ),
    "digits-non-member": (
        (*RECORDS, "--redirect", "non-member", "--non-members", "others.npz", "--redirect-key", "redirect.key"),
        "Three records of scikit-learn's digits whose margins are held where hold-out records have theirs.",
    ),
    "digits-class": (("--forget-class", "3"), "The digit 3 is answered for no input (family class-cap)."),
}


def make(folder: Path, name: str) -> None:
    """One reference patch."""
    options, sentence = FAMILIES[name]
    words = [str(folder / word) if word.endswith((".npz", ".key")) else word for word in options]
    code, text = run_words(["repair", str(SOURCE / "base.onnx"), *words, "--out", str(folder / name), "--quiet"])
    if code != 0:
        sys.exit(f"{name}: repair ended with {code}: {text}")
    target = PATCHES / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in ("patch.json", "request.json"):
        shutil.copy(folder / name / file, target / file)
    digest = sha256_hex((SOURCE / "base.onnx").read_bytes())
    command = " ".join(("prune-verify repair base.onnx", *options, "--out DIR"))
    (target / "README.md").write_text(
        f"{sentence}\n\nBase: `certs/examples/digits-records/base.onnx`, sha256 `{digest}`.\n"
        f"Made by `{command}` in that folder (`make patches`).\n"
        "There others.npz is the held-out digits and redirect.key 32 zero bytes.\n"
    )


def main() -> None:
    """Make them all."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, data = Path(temporary), digits(seed=0)
        for name in ("forget.npz", "retain.npz"):
            shutil.copy(SOURCE / name, folder / name)
        np.savez(folder / "others.npz", x=data.test_x, y=data.test_y)
        (folder / "redirect.key").write_bytes(bytes(32))
        for name in FAMILIES:
            make(folder, name)


if __name__ == "__main__":
    main()
