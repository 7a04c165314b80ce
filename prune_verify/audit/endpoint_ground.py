"""What challenges are drawn from: the certified files, the regions that claims speak of, and the records at hand.

Nothing here is believed that ``verify`` has not checked: the files have the digests of the signed statement, and a
certificate that was not verified caps the verdict.

Source: certs/SPEC.md section 10.2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prune_verify.audit.endpoint_answers import Suppressed
from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.encoding import read_file, sha256_hex
from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.errors import MalformedInputError, SubjectMismatchError
from prune_verify.checker.load_onnx import LoadedModel, LoadLimits, load_network
from prune_verify.checker.network import Network
from prune_verify.checker.patch import INPUT, Gate, JointPatch
from prune_verify.checker.patch_json import parse_patch
from prune_verify.checker.policy import Policy, parse_policy
from prune_verify.checker.records import check_against, load_records
from prune_verify.checker.region import Domain, float64_not_above, float64_not_below
from prune_verify.checker.rules import BINARY32
from prune_verify.checker.statement import Statement, parse_statement
from prune_verify.checker.verdict import Verdict
from prune_verify.checker.verify import MAX_CERTIFICATE_BYTES, MAX_OWN_BYTES

__all__ = ["Box", "Ground", "ball", "domain_box", "read_ground"]

Rows = npt.NDArray[np.float32]
Box = tuple[Rows, Rows]
_RETAINING = ("retain_exact", "retain_label", "retain_close")


@dataclass(frozen=True, eq=False)
class Ground:
    """What the audit knows of the certified network and its claims.

    Args:
        base: the base network: what a server that strips the patch would answer with.
        patched: the certified network.
        input_name: of the file.
        output_name: of the file.
        domain: of the policy.
        forget: forget records, or None where the auditor may not see them.
        retain: retained records, or None.
        held: indices of forget records that a claim F or BD in binary32 was proved for.
        suppressed: the claim F at each of ``held``; None where only BD speaks of it.
        radius: of the forget balls; None without such a claim.
        retained_radius: of the retained balls; None without such a claim.
        gates: box gates at the input.
        classes: claims FC.
        source: digest of certificate and files, so that a kept state fits one audit only.

    """

    base: Network
    patched: Network
    input_name: str
    output_name: str
    domain: Domain
    forget: LabelledRows | None
    retain: LabelledRows | None
    held: tuple[int, ...]
    suppressed: tuple[Suppressed | None, ...]
    radius: Fraction | None
    retained_radius: Fraction | None
    gates: tuple[Gate, ...]
    classes: tuple[Suppressed, ...]
    source: str


def _upwards(values: npt.NDArray[np.float64]) -> Rows:
    """The least float32 numbers that are not below."""
    near = values.astype(np.float32)
    return np.where(near.astype(np.float64) < values, np.nextafter(near, np.float32(np.inf)), near)


def domain_box(domain: Domain, shape: Sequence[int]) -> Box:
    """The least and greatest float32 numbers of the domain, each of the input's per-row shape."""
    size = int(np.prod(shape, dtype=np.int64))
    low = np.array([float64_not_below(v) for v in domain.lower])
    high = np.array([float64_not_above(v) for v in domain.upper])
    lower, upper = _upwards(np.broadcast_to(low, size)), -_upwards(-np.broadcast_to(high, size))
    return lower.reshape(tuple(shape)), upper.reshape(tuple(shape))


def ball(centre: Rows, radius: Fraction, inside: Box) -> Box:
    """The least and greatest float32 numbers of a ball within a box: every point between them lies in both.

    Args:
        centre: float32 [n] or [rows, n].
        radius: in input units.
        inside: the box that it is cut to.

    """
    reach, middle = float64_not_above(radius), centre.astype(np.float64)
    lower = _upwards(np.nextafter(middle - reach, np.inf))  # the difference may have been rounded outwards
    upper = -_upwards(-np.nextafter(middle + reach, -np.inf))
    return np.minimum(np.maximum(lower, inside[0]), centre), np.maximum(np.minimum(upper, inside[1]), centre)


def read_ground(options: argparse.Namespace, verdict: Verdict) -> Ground:
    """Read once more what ``verify`` has checked, and refuse what is no longer the same.

    Args:
        options: the arguments of ``audit``.
        verdict: of ``verify``.

    Raises:
        CheckError: a file cannot be read, or is not the one that the certificate names.

    """
    certificate: Path = options.certificate
    envelope = parse_envelope(read_file(certificate, "certificate", MAX_CERTIFICATE_BYTES), certificate.name)
    payload_sha256 = sha256_hex(envelope.payload)
    if verdict.payload_sha256 not in ("", payload_sha256):
        raise SubjectMismatchError(certificate.name, "the certificate verified", verdict.payload_sha256, payload_sha256)
    statement = parse_statement(envelope.payload, f"{certificate.name}/payload")
    policy = parse_policy(read_file(options.policy, "policy", MAX_OWN_BYTES), str(options.policy))
    base = _model(options.base, statement.base_sha256, policy, "predicate/originalModel/sha256")
    patched = _model(options.patched, statement.patched_sha256, policy, "subject/0/digest")
    forget, retain = (_records(options, which, base, policy) for which in ("forget", "retain"))
    claims = [item for item in statement.claims if item.claim.arithmetic == BINARY32]
    radius, held, suppressed = _held(statement, forget)
    retained = [item.claim.radius for item in claims if item.claim.kind in _RETAINING and item.claim.radius is not None]
    classes = {
        item.claim.label: Suppressed(item.claim.label, item.claim.margin)
        for item in claims
        if item.claim.kind == "forget_class" and item.claim.label is not None and item.claim.margin is not None
    }
    return Ground(
        base=base.network,
        patched=patched.network,
        input_name=patched.input_name,
        output_name=patched.output_name,
        domain=policy.domain,
        forget=forget,
        retain=retain,
        held=held,
        suppressed=suppressed,
        radius=radius,
        retained_radius=max(retained, default=None),
        gates=_gates(options, statement),
        classes=tuple(classes.values()),
        source=payload_sha256,
    )


def _model(path: Path, sha256: str, policy: Policy, place: str) -> LoadedModel:
    data = read_file(path, "network", policy.max_model_bytes)
    if sha256_hex(data) != sha256:
        raise SubjectMismatchError(place, f"digest of {path.name}", sha256, sha256_hex(data))
    return load_network(data, path.name, LoadLimits(max_bytes=policy.max_model_bytes))


def _records(options: argparse.Namespace, which: str, base: LoadedModel, policy: Policy) -> LabelledRows | None:
    spec = getattr(options, which)
    if spec is None:
        return None
    what, network = f"{which} set", base.network
    found = load_records(
        spec,
        what=what,
        label_column=options.label_column,
        encoding=options.encoding,
        max_records=policy.max_records,
    )
    shape, labels = network.input_shape, network.labels
    found = check_against(found, input_shape=shape, labels=labels, domain=policy.domain, what=what)
    return LabelledRows(found.x, found.y)


def _held(
    statement: Statement, forget: LabelledRows | None
) -> tuple[Fraction | None, tuple[int, ...], tuple[Suppressed | None, ...]]:
    """The widest ball that claims F and BD prove, the records that they prove it for, and the margins of F."""
    claims = [item for item in statement.claims if item.claim.kind in ("forget", "band")]
    claims = [item for item in claims if item.claim.arithmetic == BINARY32 and item.claim.radius is not None]
    if forget is None or not claims:
        return None, (), ()
    best = max(claims, key=lambda item: item.claim.radius or Fraction(0))
    for item in claims:
        if any(index >= len(forget.y) for index in item.unknowns):
            path, got = f"predicate/claims/{item.id}/unknowns", f"{len(forget.y)} records"
            raise MalformedInputError(path, "indices of forget records", "the set of the certificate", got)
    held = tuple(index for index in range(len(forget.y)) if index not in set(best.unknowns))
    margin = best.claim.margin if best.claim.kind == "forget" else None
    return (
        best.claim.radius,
        held,
        tuple(None if margin is None else Suppressed(int(forget.y[i]), margin) for i in held),
    )


def _gates(options: argparse.Namespace, statement: Statement) -> tuple[Gate, ...]:
    """The box gates at the input, from the evidence."""
    folder: Path = options.evidence or options.certificate.parent / "evidence"
    path = folder / "patch.json"
    if statement.patch is None or not path.is_file():
        return ()
    data = read_file(path, "evidence", MAX_CERTIFICATE_BYTES)
    if sha256_hex(data) != statement.patch.sha256:
        raise SubjectMismatchError(
            "predicate/patch/sha256", "digest of patch.json", statement.patch.sha256, sha256_hex(data)
        )
    patch = parse_patch(data, "evidence/patch.json").patch
    return patch.gates if isinstance(patch, JointPatch) and patch.sites == (INPUT,) else ()
