"""Issuing a certificate: the statement, its evidence and its openings, accepted by the checker before they are written.

The checker runs in a process of its own on the files as an auditor would get them, signed by a key
that lives for that run only. What it refuses is not written.

Source: FORMATS 2 and 3 (``certify``); certs/SPEC.md.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from prune_verify import __version__
from prune_verify.certify.claims import Decided, claims_of, decide_all, statement_of
from prune_verify.certify.committed import Committed
from prune_verify.certify.cross_check import CrossCheck, cross_check
from prune_verify.certify.elaborate import Effort
from prune_verify.certify.errors import CertifyInputError, RefusedByCheckerError
from prune_verify.certify.measured import Measured
from prune_verify.certify.refute import Refutation, refutations
from prune_verify.certify.self_check import self_check_files
from prune_verify.checker.claim import LabelledRows, Problem
from prune_verify.checker.commitment import Openings, emit_openings
from prune_verify.checker.encoding import sha256_hex
from prune_verify.checker.load_onnx import LoadedModel, load_network
from prune_verify.checker.merkle import set_root
from prune_verify.checker.patch_json import PatchFile, parse_patch
from prune_verify.checker.rebuild import coordinates_of
from prune_verify.checker.records import Records, canonical_records
from prune_verify.checker.statement import (
    NON_CLAIMS,
    Evidence,
    SetCommitment,
    Statement,
    emit_statement,
)
from prune_verify.checker.verify import summary_of
from prune_verify.files import replace_file
from prune_verify.request import Request

__all__ = ["Issued", "Sources", "issue"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Sources:
    """What a certificate is made from: paths for the checker's run, and the bytes that were read from them.

    Args:
        base: path of the base network.
        patched: path of the patched network.
        base_bytes: its content.
        patched_bytes: its content.
        request: the request, parsed.
        request_bytes: its file.
        patch_bytes: ``patch.json``.
        forget: the forget set, or None.
        retain: the retained set, or None.
        arguments: the record arguments of ``verify`` for the same sets.
        committed: the commitment of the training set that both sets make up, or None.
        measured: what was measured of the patched network.

    """

    base: Path
    patched: Path
    base_bytes: bytes
    patched_bytes: bytes
    request: Request
    request_bytes: bytes
    patch_bytes: bytes | None
    forget: Records | None
    retain: Records | None
    arguments: tuple[str, ...]
    committed: Committed | None = None
    measured: Measured = field(default_factory=Measured)

    @property
    def subjects(self) -> dict[str, bytes]:
        """What a measurement may be about: the patched network, and the patch where there is one."""
        found = {self.patched.name: self.patched_bytes}
        return found if self.patch_bytes is None else {**found, "patch.json": self.patch_bytes}


@dataclass(frozen=True, eq=False)
class Issued:
    """A certificate that the checker accepts, written.

    Args:
        decided: the claims with their outcomes.
        statement: path of the statement.
        verdict: the checker's answer to it, as ``verify --json`` prints it.
        cross: the cross-check by bounds, or None.
        refuted: the records that counterexamples refute; each is written beside the statement.
        measured: what it says was measured.

    """

    decided: list[Decided]
    statement: Path
    verdict: dict[str, object]
    cross: CrossCheck | None
    refuted: list[Refutation]
    measured: Measured


def issue(
    sources: Sources,
    out: Path,
    *,
    challenge: str | None = None,
    days: int = 365,
    supersedes: str | None = None,
    cross_checked: int = 10,
    effort: Effort | None = None,
    progress: Progress = lambda _name, _done, _total: None,
) -> Issued:
    """Prove what the request asks for, and write statement, evidence and openings that the checker accepts.

    Args:
        sources: the files.
        out: folder to write to; made if missing.
        challenge: the auditor's nonce in hex.
        days: validity from now.
        supersedes: digest of the payload of the certificate that this one replaces.
        cross_checked: how many forget claims to bound with auto_LiRPA as well.
        effort: how proofs are looked for.
        progress: called with a name, steps done and steps in all.

    Raises:
        CheckError: the files contradict one another.
        RefusedByCheckerError: the checker refuses the result; nothing was written.

    """
    base = load_network(sources.base_bytes, sources.base.name)
    patched = load_network(sources.patched_bytes, sources.patched.name)
    file = None if sources.patch_bytes is None else parse_patch(sources.patch_bytes, "patch.json")
    problem = Problem(
        base.network,
        patched.network,
        None if file is None else file.patch,
        sources.request.domain,
        _rows(sources.forget),
        _rows(sources.retain),
    )
    decided = decide_all(problem, claims_of(sources.request, problem), effort=effort or Effort(), progress=progress)
    refuted = refutations(problem, decided, sources.base_bytes, sources.patched_bytes)
    cross = cross_check(problem, sources.request, cross_checked, progress)
    keys = {
        name: secrets.token_bytes(32)
        for name, records in (("forget", sources.forget), ("retain", sources.retain))
        if records is not None
    }
    progress("commitments", 0, 1)
    sets = {name: _commitment(keys[name], records) for name, records in _sets(sources).items()}
    evidence = {item.id + ".proof": item.proof for item in decided if item.proof is not None}
    if sources.patch_bytes is not None:
        evidence["patch.json"] = sources.patch_bytes
    statement = _statement(sources, base, file, decided, evidence, sets, cross)
    statement = replace(_dated(statement, challenge, days), supersedes=supersedes)
    progress("commitments", 1, 1)
    training = None if sources.committed is None else sources.committed.opening
    openings = emit_openings(Openings(keys.get("forget"), keys.get("retain"), training))
    verdict = _written(out, emit_statement(statement), evidence, openings, sources, progress)
    _write_counterexamples(out / "counterexamples", refuted)
    return Issued(decided, out / "statement.json", verdict, cross, refuted, sources.measured)


def _write_counterexamples(folder: Path, refuted: list[Refutation]) -> None:
    """One file for each refuted record; what an earlier run left goes."""
    if folder.exists():
        shutil.rmtree(folder)
    if refuted:
        folder.mkdir()
    for item in refuted:
        replace_file(folder / item.name(), item.text().encode())


def _rows(records: Records | None) -> LabelledRows | None:
    return None if records is None else LabelledRows(records.x, records.y)


def _sets(sources: Sources) -> dict[str, Records]:
    both = {"forget": sources.forget, "retain": sources.retain}
    return {name: records for name, records in both.items() if records is not None}


def _commitment(key: bytes, records: Records) -> SetCommitment:
    return SetCommitment(set_root(key, canonical_records(records)), len(records.y))


def _statement(
    sources: Sources,
    base: LoadedModel,
    file: PatchFile | None,
    decided: list[Decided],
    evidence: dict[str, bytes],
    sets: dict[str, SetCommitment],
    cross: CrossCheck | None,
) -> Statement:
    now = datetime.now(UTC).replace(microsecond=0)
    assumptions = sorted({name for item in decided for name in item.outcome.assumptions})
    patch = None
    if file is not None and sources.patch_bytes is not None:
        patch = summary_of(file, sha256_hex(sources.patch_bytes), coordinates_of(base.network, file.patch))
    measurements = (*(() if cross is None else (cross.measurement(),)), *sources.measured.entries)
    return Statement(
        patched_name=sources.patched.name,
        patched_sha256=sha256_hex(sources.patched_bytes),
        certificate_id=secrets.token_hex(16),
        issued_at=now,
        not_before=now,
        expires_at=now,
        supersedes=None,
        challenge=None,
        prover=("prune-verify", __version__),
        request_sha256=sha256_hex(sources.request_bytes),
        request_kind=sources.request.kind,
        request_reference=sources.request.reference,
        base_name=sources.base.name,
        base_sha256=sha256_hex(sources.base_bytes),
        base_network=base.network.digest(),
        patch=patch,
        domain=sources.request.domain,
        arithmetics=sources.request.arithmetics,
        encoding_sha256=sources.request.encoding_sha256,
        opset=base.opset,
        forget_set=sets.get("forget"),
        retain_set=sets.get("retain"),
        claims=tuple(statement_of(item) for item in decided),
        evidence=tuple(Evidence(name, sha256_hex(data), len(data)) for name, data in sorted(evidence.items())),
        assumptions=tuple(assumptions),
        non_claims=NON_CLAIMS,
        measurements=measurements,
        environment=(
            ("python", platform.python_version()),
            ("numpy", version("numpy")),
            ("onnx", version("onnx")),
            ("platform", f"{platform.system()} {platform.machine()}"),
        ),
    )


def _dated(statement: Statement, challenge: str | None, days: int) -> Statement:
    if days < 1:
        text = f"--days: expected 1 or more, got {days}"
        raise CertifyInputError(text)
    return replace(statement, challenge=challenge, expires_at=statement.issued_at + timedelta(days=days))


def _written(
    out: Path, statement: bytes, evidence: dict[str, bytes], openings: bytes, sources: Sources, progress: Progress
) -> dict[str, object]:
    """Write to a folder beside the target, let the checker judge it there, and move it into place."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".certify-", dir=out) as name:
        folder = Path(name)
        (folder / "evidence").mkdir()
        for item, data in evidence.items():
            (folder / "evidence" / item).write_bytes(data)
        (folder / "openings.json").write_bytes(openings)
        (folder / "openings.json").chmod(0o600)
        (folder / "statement.json").write_bytes(statement)
        progress("checker in its own process", 0, 1)
        verdict = _judged(folder, statement, sources)
        progress("checker in its own process", 1, 1)
        sources.measured.write(out)
        if (out / "evidence").exists():
            shutil.rmtree(out / "evidence")
        for item in ("evidence", "openings.json", "statement.json"):
            (folder / item).replace(out / item)
    return verdict


def _judged(folder: Path, statement: bytes, sources: Sources) -> dict[str, object]:
    """The checker's verdict on the files, in a separate process.

    Raises:
        RefusedByCheckerError: it rejects them.

    """
    with tempfile.TemporaryDirectory() as name:
        own = Path(name)
        committed = None if sources.committed is None else sources.committed.payload
        certificate, trust, policy, commitment = self_check_files(own, statement, sources.request, committed)
        command = [
            sys.executable, "-m", "prune_verify.checker", "verify", str(certificate), "--json",
            "--base", str(sources.base.resolve()), "--patched", str(sources.patched.resolve()),
            "--trust", str(trust), "--policy", str(policy),
            "--evidence", str(folder / "evidence"), "--openings", str(folder / "openings.json"),
            *sources.arguments, *(() if commitment is None else ("--commitment", str(commitment))),
        ]  # fmt: skip
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603 - this interpreter
    if done.returncode not in (0, 3):
        detail = done.stderr.strip()
        if done.returncode == 1:
            failed = [c for c in json.loads(done.stdout)["checks"] if c["status"] == "FAIL"]
            detail = "; ".join(str(c["detail"]) for c in failed)
        text = f"the checker refuses what was to be issued, and nothing was written: {detail}"
        raise RefusedByCheckerError(text)
    found: dict[str, object] = json.loads(done.stdout)
    return found
