"""A whole chain on digits, and an owner who may change anything in it and sign again with a key that the auditor trusts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from prune_verify.checker.__main__ import main as checker_main
from prune_verify.checker.encoding import canonical_json, sha256_hex
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.patch import JointPatch
from prune_verify.checker.patch_json import PatchFile, emit_patch, parse_patch
from prune_verify.checker.verdict import Verdict
from prune_verify.checker.verify import Inputs, summary_of, verify
from prune_verify.cli import run_words
from prune_verify.measure.datasets import digits
from prune_verify.measure.training import export_onnx, small_mlp, train
from prune_verify.repair.export import export_patched
from prune_verify.signing import sign_payload

FORGOTTEN = (3, 141, 592, 653)
RETAINED = 400


def run(*words: str | Path, expected: int = 0) -> str:
    code, text = run_words([*(str(word) for word in words), "--quiet"])
    assert code == expected, text
    return text


def prepare(folder: Path) -> None:
    """Base network and records."""
    data = digits(seed=0)
    network = train(lambda: small_mlp((64, 24, 10)), data, epochs=40, seed=0)
    (folder / "base.onnx").write_bytes(export_onnx(network, data.train_x))
    forgotten = np.isin(np.arange(len(data.train_y)), FORGOTTEN)
    others = np.flatnonzero(~forgotten)[:RETAINED]
    np.savez(folder / "forget.npz", x=data.train_x[forgotten], y=data.train_y[forgotten])
    np.savez(folder / "retain.npz", x=data.train_x[others], y=data.train_y[others])


def honest(folder: Path, *request: str) -> None:
    """Repair, certify, sign; trust store and policy; everything in one folder."""
    records = ("--forget", folder / "forget.npz", "--retain", folder / "retain.npz")
    run("repair", folder / "base.onnx", *records, *request, "--out", folder)
    run(
        "certify", folder / "base.onnx", folder / "patched.onnx", "--request", folder / "request.json", *records,
        "--cross-check", "0", "--out", folder,
    )  # fmt: skip
    run("keygen", "--out", folder / "owner")
    run("trust", "init", folder / "trust.json")
    run("trust", "add", folder / "trust.json", "--key", folder / "owner.pub", "--role", "prover", "--name", "owner")
    run("sign", folder / "statement.json", "--key", folder / "owner.key", "--out", folder / "a.unlearn.json")


@dataclass(frozen=True)
class Owner:
    """The files of one certificate in a folder of their own."""

    folder: Path

    def copy(self, target: Path) -> Owner:
        shutil.copytree(self.folder, target, dirs_exist_ok=True)
        return Owner(target)

    @property
    def certificate(self) -> Path:
        return self.folder / "a.unlearn.json"

    def statement(self) -> dict:
        return json.loads((self.folder / "statement.json").read_bytes())

    def sign(self, document: dict) -> None:
        """Sign whatever the owner likes."""
        key = load_pem_private_key((self.folder / "owner.key").read_bytes(), None)
        self.certificate.write_bytes(sign_payload(canonical_json(document), key))

    def edit(self, change: Callable[[dict], None]) -> None:
        """Change the statement and sign it again."""
        document = self.statement()
        change(document)
        (self.folder / "statement.json").write_bytes(canonical_json(document))
        self.sign(document)

    def replace_file(self, name: str, content: bytes) -> None:
        """Put another file in place and name its digest in the statement, signed again."""
        (self.folder / name).write_bytes(content)

        def change(document: dict) -> None:
            if name == "patched.onnx":
                document["subject"][0]["digest"]["sha256"] = sha256_hex(content)
            if name == "base.onnx":
                model = document["predicate"]["originalModel"]
                model["sha256"] = sha256_hex(content)
            for item in document["predicate"]["evidence"]:
                if f"evidence/{item['name']}" == name:
                    item |= {"sha256": sha256_hex(content), "bytes": len(content)}

        self.edit(change)

    def patch(self) -> JointPatch:
        found = parse_patch((self.folder / "evidence" / "patch.json").read_bytes(), "patch.json").patch
        assert isinstance(found, JointPatch)
        return found

    def deploy(self, patch: JointPatch) -> None:
        """Deploy another patch: consistent files, digests and summary, signed; the claims stay as they were."""
        base_bytes = (self.folder / "base.onnx").read_bytes()
        base = load_network(base_bytes, "base.onnx")
        file = PatchFile(patch, base.network.digest())
        size = int(np.prod(base.network.input_shape))
        content = emit_patch(file, size)
        self.replace_file("evidence/patch.json", content)
        self.replace_file("patched.onnx", export_patched(base_bytes, base, patch))
        summary = summary_of(file, sha256_hex(content), size)

        def change(document: dict) -> None:
            document["predicate"]["patch"] |= {
                "sha256": summary.sha256,
                "family": summary.family,
                "gates": summary.gates,
                "forgottenClasses": list(summary.forgotten_classes),
                "maxCoordinates": summary.max_coordinates,
                "disclosedCoordinates": summary.disclosed_coordinates,
                "disclosedBits": summary.disclosed_bits,
            }

        self.edit(change)

    def inputs(self, **changed: object) -> Inputs:
        folder = self.folder
        given = {
            "certificate": self.certificate,
            "base": folder / "base.onnx",
            "patched": folder / "patched.onnx",
            "trust": folder / "trust.json",
            "policy": folder / "policy.toml",
            "forget": str(folder / "forget.npz"),
            "retain": str(folder / "retain.npz"),
        }
        return Inputs(**(given | changed))  # type: ignore[arg-type]

    def verdict(self, **changed: object) -> Verdict:
        return verify(self.inputs(**changed))

    def words(self) -> list[str]:
        """The auditor's command line."""
        folder = self.folder
        return [
            "verify", str(self.certificate), "--base", str(folder / "base.onnx"),
            "--patched", str(folder / "patched.onnx"), "--trust", str(folder / "trust.json"),
            "--policy", str(folder / "policy.toml"), "--forget", str(folder / "forget.npz"),
            "--retain", str(folder / "retain.npz"),
        ]  # fmt: skip

    def exit_code(self, *more: str) -> int:
        return checker_main([*self.words(), *more])


def failure(verdict: Verdict) -> tuple[str, str, str]:
    """Word, code and path of the step that ended a verification."""
    bad = [check for check in verdict.checks if check.status in {"FAIL", "UNDECIDED", "SKIP"}]
    return verdict.word, verdict.code, bad[-1].path if bad else ""
