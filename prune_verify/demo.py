"""``prune-verify demo``: the whole chain on scikit-learn's digits, as owner and as auditor, in about a minute.

Every step is the command that a user would type; the auditor's checks run in processes of their own,
through ``python -P -m prune_verify.checker``, which needs the base install only.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prune_verify.measure.datasets import DataSet

__all__ = ["DemoError", "run_demo"]

Say = Callable[[str], None]
FORGOTTEN_RECORDS = (3, 141, 592, 653, 1000)
FORGOTTEN_CLASS = 3


class DemoError(Exception):
    """A step did not end as it must; the message names the command and what it said."""


@dataclass(frozen=True)
class _Owner:
    """The owner's files; the auditor's own commands run here as well."""

    folder: Path
    say: Say

    def run(self, *words: str | Path, who: str = "owner") -> str:
        """One command of the owner, or of who else is named, in this process."""
        from prune_verify.cli import run_words

        line = [str(word) for word in words]
        self.say(f"{who:9}$ prune-verify {shlex.join(line)}")
        code, text = run_words([*line, "--quiet"])
        if code != 0:
            message = f"prune-verify {shlex.join(line)} ended with {code}: {text}"
            raise DemoError(message)
        for shown in text.splitlines():
            self.say(f"           {shown}")
        return text


def _auditor(say: Say, arguments: Sequence[str | Path], *, expected: int) -> str:
    """The checker in a process of its own; gives what it printed."""
    words = [str(word) for word in arguments]
    say(f"auditor  $ python -P -m prune_verify.checker verify {shlex.join(words)}")
    root = str(Path(__file__).resolve().parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p),
    }
    command = [sys.executable, "-m", "prune_verify.checker", "verify", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603 - this interpreter
    for line in done.stdout.splitlines():
        say(f"           {line}")
    if done.returncode != expected:
        message = f"the checker ended with {done.returncode}, expected {expected}: {done.stdout}{done.stderr}"
        raise DemoError(message)
    return done.stdout


def _records(out: Path, data: DataSet) -> None:
    """Write the training set, what is to be forgotten of it, the rest, and held-out records."""
    import numpy as np

    forgotten = np.isin(np.arange(len(data.train_y)), FORGOTTEN_RECORDS)
    np.savez(out / "train.npz", x=data.train_x, y=data.train_y)
    np.savez(out / "forget.npz", x=data.train_x[forgotten], y=data.train_y[forgotten])
    np.savez(out / "mine.npz", x=data.train_x[FORGOTTEN_RECORDS[:1],], y=data.train_y[FORGOTTEN_RECORDS[:1],])
    np.savez(out / "retain.npz", x=data.train_x[~forgotten], y=data.train_y[~forgotten])
    np.savez(out / "test.npz", x=data.test_x, y=data.test_y)


def _commit(owner: _Owner, auditor: Path) -> None:
    """Before training: the owner commits to the training set, and the auditor countersigns what it was shown."""
    out = owner.folder
    for suffix in ("commitment.json", "openings.json", "receipt.json"):
        (out / f"train.{suffix}").unlink(missing_ok=True)
    owner.run("commit", out / "train.npz", "--key", out / "owner" / "owner.key", "--out", out / "train")
    commitment = out / "train.commitment.json"
    owner.run("countersign", commitment, "--key", auditor / "auditor.key", who="auditor")
    policy = auditor / "policy.toml"
    owner.say("the auditor's policy demands the commitment, with its own signature")
    text = policy.read_text()
    for name in ("require_commitment", "require_countersignature"):
        text = text.replace(f"{name} = false", f"{name} = true")
    policy.write_text(text)


def _receipt(owner: _Owner) -> None:
    """One person's receipt: the record was in the training set."""
    out = owner.folder
    commitment, receipt = ("--commitment", out / "train.commitment.json"), out / "train.receipt.json"
    mine, trust = ("--record", out / "mine.npz"), ("--trust", out / "auditor" / "trust.json")
    owner.run("receipt", "make", out / "train.npz", *commitment, *mine, "--out", receipt)
    owner.run("receipt", "check", receipt, *commitment, *trust, *mine, who="subject")


def _train(out: Path, data: DataSet, seed: int, say: Say) -> None:
    """Train the base network on a seeded split of digits, and write it."""
    from prune_verify.checker.claim import strict_answers
    from prune_verify.checker.load_onnx import load_network
    from prune_verify.measure.training import accuracy, export_onnx, small_mlp, train

    say(f"training a 64-64-32-10 ReLU network on {len(data.train_y)} of scikit-learn's digits (seed {seed})")
    network = train(lambda: small_mlp((64, 64, 32, 10)), data, epochs=60, seed=seed)
    content = export_onnx(network, data.train_x)
    right = accuracy(strict_answers(load_network(content, "base.onnx").network, data.test_x), data.test_y)
    say(f"           held-out accuracy {100 * right:.1f} % of {len(data.test_y)}")
    (out / "base.onnx").write_bytes(content)


def _forget(owner: _Owner, name: str, *request: str | Path) -> Path:
    """Repair, certify and sign one request; gives the certificate."""
    out = owner.folder
    folder = out / name
    retain = ("--retain", out / "retain.npz")
    owner.run("repair", out / "base.onnx", *request, *retain, "--out", folder)
    owner.run(
        "certify", out / "base.onnx", folder / "patched.onnx", "--request", folder / "request.json",
        "--forget", out / "forget.npz", *retain, "--commitment", out / "train.commitment.json",
        "--commitment-openings", out / "train.openings.json", "--training", out / "train.npz",
        "--cross-check", "1000", "--out", folder,
    )  # fmt: skip
    certificate = folder / f"{name}.unlearn.json"
    certificate.unlink(missing_ok=True)
    owner.run("sign", folder / "statement.json", "--key", out / "owner" / "owner.key", "--out", certificate)
    return certificate


def _arguments(out: Path, certificate: Path) -> list[str | Path]:
    """What the auditor brings to a check."""
    return [
        certificate, "--base", out / "base.onnx", "--patched", certificate.parent / "patched.onnx",
        "--trust", out / "auditor" / "trust.json", "--policy", out / "auditor" / "policy.toml",
        "--forget", out / "forget.npz", "--retain", out / "retain.npz",
        "--commitment", out / "train.commitment.json", "--receipt", out / "train.receipt.json",
    ]  # fmt: skip


def _tampered(certificate: Path) -> Path:
    """A copy of the certificate with one byte of its payload changed."""
    data = bytearray(certificate.read_bytes())
    place = data.index(b'"payload":"') + 200
    data[place] = ord("A") if data[place] != ord("A") else ord("B")
    copy = certificate.with_name("tampered.unlearn.json")
    copy.write_bytes(data)
    return copy


def run_demo(out: Path, *, seed: int, say: Say) -> tuple[int, str, dict[str, object]]:
    """Run the whole chain and leave every file in ``out``.

    Args:
        out: folder, made if missing; files of an earlier demo are replaced.
        seed: of the split, the training and the search.
        say: sink for progress lines.

    Returns:
        Exit code, text, and the object for ``--json``.

    Raises:
        DemoError: a step did not end as it must.

    """
    from prune_verify.measure.datasets import digits

    for name in ("owner", "auditor", "regulator"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for old in (*(out / "owner").glob("owner.*"), *(out / "auditor").glob("*"), *(out / "regulator").glob("*")):
        old.unlink()
    owner = _Owner(out, say)
    auditor = out / "auditor"
    trust = auditor / "trust.json"
    owner.run("keygen", "--out", out / "owner" / "owner")
    say("the auditor makes a key, a trust store and a policy, and takes up the owner's public key")
    owner.run("keygen", "--out", auditor / "auditor", who="auditor")
    owner.run("trust", "init", trust, who="auditor")
    for key, role in ((out / "owner" / "owner.pub", "prover"), (auditor / "auditor.pub", "auditor")):
        words = ("--key", key, "--role", role, "--name", f"demo {key.stem}")
        owner.run("trust", "add", trust, *words, who="auditor")
    say("a regulator takes up the public key of the auditor")
    relied = out / "regulator" / "trust.json"
    owner.run("trust", "init", relied, who="regulator")
    signer = ("--key", auditor / "auditor.pub", "--role", "auditor", "--name", "demo auditor")
    owner.run("trust", "add", relied, *signer, who="regulator")
    data = digits(seed)
    _records(out, data)
    _commit(owner, auditor)
    _train(out, data, seed, say)
    _receipt(owner)
    lines = []
    for name, request in (
        ("records", ("--forget", out / "forget.npz")),
        ("class", ("--forget", out / "forget.npz", "--forget-class", str(FORGOTTEN_CLASS))),
    ):
        certificate = _forget(owner, name, *request)
        arguments = _arguments(out, certificate)
        lines.append(_auditor(say, arguments, expected=0).splitlines()[0])
        _answer(owner, arguments, certificate)
    tampered = _tampered(out / "records" / "records.unlearn.json")
    say("one byte of the signed certificate is changed")
    refused = _auditor(say, _arguments(out, tampered), expected=1).splitlines()[0]
    reports = [str(out / name / "report.html") for name in ("records", "class")]
    text = "\n".join(
        [
            "five records forgotten:                     " + lines[0],
            f"the same records and the class {FORGOTTEN_CLASS} forgotten: " + lines[1],
            "one byte changed:                           " + refused,
            "reports for people: " + ", ".join(reports),
            "signed verdicts for a regulator: NAME.verdict.json beside them (prune-verify verdict check)",
        ]
    )
    return 0, text, {"verdicts": lines, "tampered": refused, "reports": reports}


def _answer(owner: _Owner, arguments: Sequence[str | Path], certificate: Path) -> None:
    """The auditor's report and signed verdict, and the regulator who checks the verdict."""
    out, folder = owner.folder, certificate.parent
    verdict = folder / f"{folder.name}.verdict.json"
    verdict.unlink(missing_ok=True)
    owner.run(
        "verify", *arguments, "--report", folder / "report.html", "--report-json", folder / "report.json",
        "--test", out / "test.npz", "--verdict-out", verdict, "--auditor-key", out / "auditor" / "auditor.key",
        who="auditor",
    )  # fmt: skip
    trust = ("--trust", out / "regulator" / "trust.json")
    owner.run("verdict", "check", verdict, *trust, "--certificate", certificate, who="regulator")
