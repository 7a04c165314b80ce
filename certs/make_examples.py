"""Make the committed examples of ``certs/examples`` and the reference patch of ``patches``: ``make examples``.

The owner's key lives for this run only: the public half is in each trust store. Each folder is whole; those that
must not verify end in ``_fail``. Whatever is written here comes out of the commands that a user types.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from prune_verify.checker.encoding import sha256_hex
from prune_verify.cli import run_words
from prune_verify.measure.datasets import digits
from prune_verify.measure.training import export_onnx, small_mlp, train

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "certs" / "examples"
PATCHES = ROOT / "patches"
FORGOTTEN = (3, 141, 592)
RETAINED = 300
LAST_YEAR = 2099


def run(*words: str | Path) -> str:
    """One command of prune-verify; stops here when it does not end with 0."""
    code, text = run_words([str(word) for word in words])
    if code != 0:
        sys.exit(f"prune-verify {' '.join(str(w) for w in words)} ended with {code}: {text}")
    return text


def data_and_base(folder: Path) -> None:
    """A small base network and few records, so that the examples stay small."""
    data = digits(seed=0)
    network = train(lambda: small_mlp((64, 24, 10)), data, epochs=60, seed=0)
    (folder / "base.onnx").write_bytes(export_onnx(network, data.train_x))
    forgotten = np.isin(np.arange(len(data.train_y)), FORGOTTEN)
    others = np.flatnonzero(~forgotten)[:RETAINED]
    np.savez_compressed(folder / "forget.npz", x=data.train_x[forgotten], y=data.train_y[forgotten])
    np.savez_compressed(folder / "retain.npz", x=data.train_x[others], y=data.train_y[others])


def certificate(folder: Path, *request: str) -> None:
    """Repair, certify, sign; a trust store and a policy that hold to the end of 2099."""
    base, patched = folder / "base.onnx", folder / "patched.onnx"
    records = ("--forget", folder / "forget.npz", "--retain", folder / "retain.npz")
    days = str((datetime(LAST_YEAR, 12, 31, tzinfo=UTC) - datetime.now(UTC)).days)
    run("repair", base, *records, *request, "--out", folder)
    run("certify", base, patched, "--request", folder / "request.json", *records, "--days", days, "--out", folder)
    with tempfile.TemporaryDirectory() as name:
        key = Path(name) / "owner"
        run("keygen", "--out", key)
        run("trust", "init", folder / "trust.json", "--days", days)
        run("trust", "add", folder / "trust.json", "--key", f"{key}.pub", "--role", "prover", "--name", "example owner")
        run("sign", folder / "statement.json", "--key", f"{key}.key", "--out", folder / "digits.unlearn.json")
    policy = folder / "policy.toml"
    policy.write_text(policy.read_text().replace("max_age_days = 365", f"max_age_days = {days}"))
    (folder / "statement.json").unlink()
    (folder / "openings.json").chmod(0o644)  # these records are public


def described(folder: Path, sentence: str) -> None:
    """One sentence that says what the folder is for."""
    (folder / "README.md").write_text(sentence + "\n")


def failing(source: Path, name: str, sentence: str) -> Path:
    """A copy of a whole example, to be spoilt."""
    target = EXAMPLES / name
    shutil.copytree(source, target)
    described(target, sentence)
    return target


def reference_patch(source: Path) -> None:
    """The patch behind the first example, with the request that it answers and where its base comes from."""
    target = PATCHES / "digits-records"
    target.mkdir(parents=True)
    for name in ("patch.json", "request.json"):
        shutil.move(source / name, target / name)
    digest = sha256_hex((source / "base.onnx").read_bytes())
    described(
        target,
        "Three records of scikit-learn's digits forgotten in a 64-24-10 ReLU network (family box).\n\n"
        f"Base: `certs/examples/digits-records/base.onnx`, sha256 `{digest}`, trained by `make examples` "
        "(certs/make_examples.py, seed 0).\nMade by `prune-verify repair base.onnx --forget forget.npz --retain "
        "retain.npz --out DIR` in that folder; its certificate stands there.",
    )


def main() -> None:
    """Make every example anew."""
    for folder in (EXAMPLES, PATCHES / "digits-records"):
        shutil.rmtree(folder, ignore_errors=True)
    good = EXAMPLES / "digits-records"
    good.mkdir(parents=True)
    data_and_base(good)
    certificate(good)
    described(good, "Three records of scikit-learn's digits forgotten, 300 others retained bit for bit: verifies.")
    reference_patch(good)
    both = EXAMPLES / "digits-records-and-class"
    both.mkdir()
    for name in ("base.onnx", "forget.npz", "retain.npz"):
        shutil.copy(good / name, both / name)
    certificate(both, "--forget-class", "3")
    for name in ("patch.json", "request.json"):
        (both / name).unlink()
    described(both, "The same records and the class 3 forgotten in one network: verifies.")
    changed = failing(
        good, "digits-byte-changed_fail", "One byte of the signed payload is another: the signature does not verify."
    )
    content = bytearray((changed / "digits.unlearn.json").read_bytes())
    place = content.index(b'"payload":"') + 400
    content[place] = ord("B") if content[place] == ord("A") else ord("A")
    (changed / "digits.unlearn.json").write_bytes(content)
    stripped = failing(
        good, "digits-patch-stripped_fail", "The base network is deployed in the patched network's place."
    )
    shutil.copy(good / "base.onnx", stripped / "patched.onnx")


if __name__ == "__main__":
    main()
