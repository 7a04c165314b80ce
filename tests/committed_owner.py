"""An owner who has committed to its training set, and who may commit to any other and open it as it likes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from prune_verify.checker.commitment import (
    DataCommitment,
    TrainingOpening,
    emit_commitment,
    emit_openings,
    parse_openings,
)
from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.envelope import PAYLOAD_TYPE, Envelope, emit_envelope, parse_envelope
from prune_verify.checker.merkle import leaf_hash, record_salt, root_of
from prune_verify.checker.records import canonical_record
from prune_verify.signing import sign_payload
from tests.dishonest_owner import Owner, prepare, run

KEY = bytes(range(32))
PLACES = (150, 60, 404 - 1, 0)  # of the four forget records in the training set, in the order of the forget set
SIZE = 404


def training(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The training set: the forget records at their places, the retained ones around them."""
    forget, retain = np.load(folder / "forget.npz"), np.load(folder / "retain.npz")
    rest = [place for place in range(SIZE) if place not in PLACES]
    x, y = np.zeros((SIZE, 64), dtype=np.float32), np.zeros(SIZE, dtype=np.int64)
    for places, found in ((list(PLACES), forget), (rest, retain)):
        x[places], y[places] = found["x"], found["y"]
    return x, y


def honest_committed(folder: Path) -> None:
    """Commit, countersign, repair, certify, sign; the auditor trusts the owner as prover and an auditor as auditor."""
    prepare(folder)
    x, y = training(folder)
    np.savez(folder / "train.npz", x=x, y=y)
    run("trust", "init", folder / "trust.json")
    for name, role in (("owner", "prover"), ("auditor", "auditor"), ("stranger", None)):
        run("keygen", "--out", folder / name)
        if role is not None:
            words = ("--key", folder / f"{name}.pub", "--role", role, "--name", name)
            run("trust", "add", folder / "trust.json", *words)
    run("commit", folder / "train.npz", "--key", folder / "owner.key", "--out", folder / "train")
    run("countersign", folder / "train.commitment.json", "--key", folder / "auditor.key")
    records = ("--forget", folder / "forget.npz", "--retain", folder / "retain.npz")
    run("repair", folder / "base.onnx", *records, "--out", folder)
    run(
        "certify", folder / "base.onnx", folder / "patched.onnx", "--request", folder / "request.json", *records,
        "--commitment", folder / "train.commitment.json", "--commitment-openings", folder / "train.openings.json",
        "--training", folder / "train.npz", "--cross-check", "0", "--out", folder,
    )  # fmt: skip
    run("sign", folder / "statement.json", "--key", folder / "owner.key", "--out", folder / "a.unlearn.json")
    demand(folder, "require_commitment", "require_countersignature")


def demand(folder: Path, *names: str) -> None:
    """Let the policy demand exactly these."""
    policy = folder / "policy.toml"
    text = policy.read_text()
    for name in ("require_commitment", "require_countersignature"):
        for old in ("true", "false"):
            text = text.replace(f"{name} = {old}", f"{name} = {str(name in names).lower()}")
    policy.write_text(text)


def leaves_of(x: np.ndarray, y: np.ndarray, key: bytes = KEY) -> list[bytes]:
    records = [canonical_record(row, int(label)) for row, label in zip(x, y, strict=True)]
    return [leaf_hash(record_salt(key, place), record) for place, record in enumerate(records)]


def signed(folder: Path, payload: bytes, signers: Iterable[str]) -> bytes:
    """An envelope over the payload with the signatures of these keys; of nobody's where there are none."""
    content = emit_envelope(Envelope(PAYLOAD_TYPE, payload, ()))
    others: tuple[tuple[str, bytes], ...] = ()
    for name in signers:
        key = load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
        content = sign_payload(payload, key, others)
        others = parse_envelope(content, "made").signatures
    return content


def commit_to(
    folder: Path,
    leaves: list[bytes],
    *,
    signers: Iterable[str] = ("owner", "auditor"),
    change: Callable[[dict], object] = lambda _: None,
) -> None:
    """Another commitment in the place of the honest one."""
    yesterday = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    made = DataCommitment("train", root_of(leaves).hex(), len(leaves), None, yesterday, ("any", "1"))
    document = json.loads(emit_commitment(made))
    change(document)
    (folder / "train.commitment.json").write_bytes(signed(folder, canonical_json(document), signers))


def open_with(
    folder: Path, indices: Iterable[int] = PLACES, twins: Iterable[tuple[int, bytes]] = (), key: bytes = KEY
) -> None:
    """Another member ``training`` in openings.json, which nobody signs."""
    from dataclasses import replace

    path = folder / "openings.json"
    found = parse_openings(path.read_bytes(), path.name)
    path.write_bytes(emit_openings(replace(found, training=TrainingOpening(key, tuple(indices), tuple(twins)))))


def verdict_of(owner: Owner, **changed: object):
    """The auditor's verification with the commitment."""
    return owner.verdict(**({"commitment": owner.folder / "train.commitment.json"} | changed))
