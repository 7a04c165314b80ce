"""An honest owner who needs neither chance nor floating-point training: the same bytes on every machine.

The base is a 64-8-4 ReLU network for the digits 0 to 3: an integer perceptron, whose scores w x are written as
ReLU(w x) - ReLU(-w x). Gates are boxes on few coordinates around four records. Keys come from fixed seeds and
must never be trusted by anyone.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from functools import cache
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

from prune_verify.checker.claim import Claim, LabelledRows, Outcome, Problem, decide
from prune_verify.checker.claim_json import ClaimStatement, Counts
from prune_verify.checker.encoding import canonical_json, sha256_hex
from prune_verify.checker.envelope import PAYLOAD_TYPE, Envelope, emit_envelope, pae
from prune_verify.checker.interval import interval_pass, logit_spread
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.merkle import set_root
from prune_verify.checker.patch import Gate, Interval, JointPatch, Patch
from prune_verify.checker.patch_json import PatchFile, emit_patch
from prune_verify.checker.policy import ROLES, TrustedKey, TrustStore, default_policy_text, emit_trust
from prune_verify.checker.rebuild import coordinates_of
from prune_verify.checker.records import Records, canonical_records
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.checker.statement import (
    NON_CLAIMS,
    Evidence,
    SetCommitment,
    Statement,
    emit_statement,
)
from prune_verify.checker.verify import summary_of
from prune_verify.repair.export import export_patched
from prune_verify.signing import PrivateKey, public_half

__all__ = [
    "AT_TIME", "CERTIFICATE", "DOMAIN", "LABELS", "RADIUS", "RETAINED_RADIUS", "SIZE", "Chain", "base_model",
    "claims_of", "gates_of", "head_of", "key", "npz", "policy", "scores", "sets", "sign", "statement_of_claim",
    "trust", "write",
]  # fmt: skip

F = np.float32
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

SIZE, LABELS = 64, 4
FORGOTTEN = (17, 41, 42, 48)  # of the digits 0 to 3, in the order of scikit-learn; one of each label
RETAINED = 41  # odd, so that the Merkle tree has a node without a sibling
LEVELS = 16
CERTIFICATE = "certificate.unlearn.json"
AT_TIME = "2030-01-01T00:00:00Z"
ISSUED = datetime(2029, 12, 1, tzinfo=UTC)
EXPIRES = datetime(2039, 12, 1, tzinfo=UTC)
_STORE_EXPIRES = datetime(2099, 1, 1, tzinfo=UTC)
DOMAIN = Domain((Fraction(0),), (Fraction(1),))
RADIUS, RETAINED_RADIUS, MARGIN = Fraction(1, 10), Fraction(1, 20), Fraction(1, 20)
ARITHMETICS = (BINARY32, REAL)
_GAMMA = F(64)
_SCALE = 2.0**-7
_ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


# --- keys ---


_half = cache(public_half)  # it looks for torsion, which takes a while


@cache
def key(name: str, kind: str = "ed25519") -> PrivateKey:
    """A TEST key from a fixed seed: whoever reads this file can sign with it."""
    seed = sha256(f"prune-verify test key, trust it never: {name}".encode()).digest()
    if kind == "ed25519":
        return Ed25519PrivateKey.from_private_bytes(seed)
    return ec.derive_private_key(int.from_bytes(seed, "big") % (_ORDER_P256 - 1) + 1, ec.SECP256R1())


def signature(message: bytes, signer: PrivateKey) -> bytes:
    """A signature that is the same each time."""
    if isinstance(signer, Ed25519PrivateKey):
        return signer.sign(message)
    return signer.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def sign(payload: bytes, *signers: PrivateKey, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """An envelope over the payload, as the owner makes it."""
    signed = tuple((_half(one).keyid, signature(pae(payload_type, payload), one)) for one in signers)
    return emit_envelope(Envelope(payload_type, payload, signed))


def trusted(name: str, *, kind: str = "ed25519", roles: tuple[str, ...] = ("prover",), **changed: object) -> TrustedKey:
    """A test key as a trust store lists it."""
    start, end = datetime(2025, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)
    listed = TrustedKey(_half(key(name, kind)), f"TEST {name}", roles, start, end)
    return replace(listed, **changed)  # type: ignore[arg-type] # as named


def trust(*keys: TrustedKey, threshold: int = 1, expires: datetime = _STORE_EXPIRES) -> bytes:
    """A trust store."""
    thresholds = dict.fromkeys(ROLES, 1) | {"prover": threshold}
    return emit_trust(TrustStore(1, expires, keys, thresholds))


# --- data and networks ---


def npz(x: Floats, y: Labels) -> bytes:
    """An npz file without times or compression."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in (("x.npy", x), ("y.npy", y)):
            inner = io.BytesIO()
            np.lib.format.write_array(inner, np.ascontiguousarray(array), version=(1, 0))
            archive.writestr(zipfile.ZipInfo(name), inner.getvalue())
    return buffer.getvalue()


def _digits() -> tuple[npt.NDArray[np.int64], Labels]:
    data = load_digits()
    few = data.target < LABELS
    return data.data[few].astype(np.int64), data.target[few].astype(np.int64)


def sets() -> tuple[Floats, Labels, Floats, Labels]:
    """Forget and retained records, with their labels."""
    x, y = _digits()
    forgotten = np.isin(np.arange(len(y)), FORGOTTEN)
    rows = (x / LEVELS).astype(np.float32)
    others = np.flatnonzero(~forgotten)[:RETAINED]
    return rows[forgotten], y[forgotten], rows[others], y[others]


def _perceptron() -> npt.NDArray[np.int64]:
    """Integer weights [labels, inputs] that answer every one of the digits 0 to 3 with its label."""
    x, y = _digits()
    weights = np.zeros((LABELS, SIZE), dtype=np.int64)
    for _ in range(200):
        wrong = 0
        for row, label in zip(x, y, strict=True):
            scores = weights @ row
            scores[label] -= 60 * LEVELS
            best = int(scores.argmax())
            if best != label:
                weights[label] += row
                weights[best] -= row
                wrong += 1
        if not wrong:
            break
    return weights


def scores() -> npt.NDArray[np.float64]:
    """The weights of the base's scores [labels, inputs]: multiples of 2^-7."""
    return _perceptron() * _SCALE


def base_model() -> onnx.ModelProto:
    """The base network: two ``Gemm`` with a ``Relu`` between them."""
    weights = scores().astype(np.float32)
    first = np.concatenate([weights, -weights])
    second = np.concatenate([np.eye(LABELS), -np.eye(LABELS)], axis=1).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["logits"], "second", transB=1),
    ]
    constants = {
        "w1": first, "b1": np.zeros(2 * LABELS, np.float32), "w2": second, "b2": np.zeros(LABELS, np.float32),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "base",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", LABELS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="prune-verify vectors")
    model.ir_version = 8
    return model


# --- the patch ---


def _edges(value: np.float32) -> tuple[np.float32 | None, np.float32 | None]:
    """Float32 edges around the forget ball in one coordinate; none where the ball reaches the end of D."""
    low, high = Fraction(float(value)) - RADIUS, Fraction(float(value)) + RADIUS
    below, above = F(float(low)), F(float(high))
    below = np.nextafter(below, F(-9)) if Fraction(float(below)) > low else below
    above = np.nextafter(above, F(9)) if Fraction(float(above)) < high else above
    return (below if low > 0 else None), (above if high < 1 else None)


def gates_of(x: Floats, y: Labels, others: Floats, skip: tuple[int, ...] = ()) -> tuple[Gate, ...]:
    """A box on few coordinates per forget record, which separates it from every retained ball."""
    need = float(RADIUS + RETAINED_RADIUS) + 2.0 / float(_GAMMA)
    gates = []
    for index, (row, label) in enumerate(zip(x, y, strict=True)):
        if int(label) in skip:
            continue
        apart = np.abs(others - row) >= need
        chosen: list[int] = []
        left = np.ones(len(others), dtype=np.bool_)
        while left.any():
            best = int((apart & left[:, np.newaxis]).sum(axis=0).argmax())
            if not (apart[:, best] & left).any():
                break
            chosen.append(best)
            left &= ~apart[:, best]
        intervals = tuple(Interval(j, *_edges(row[j])) for j in sorted(chosen))
        gates.append(Gate(int(label), _GAMMA, intervals, (index,)))
    return tuple(gates)


def head_of(base_bytes: bytes, classes: tuple[int, ...], gates: tuple[Gate, ...]) -> JointPatch:
    """The gates under a head whose constants leave room."""
    tau = F(0.125)
    if not gates:
        return JointPatch(LABELS, classes, tau, F(0), F(0), ())
    base = load_network(base_bytes, "base.onnx").network
    lower, upper = DOMAIN.outward(base.input_shape)
    labels = tuple(j for j in range(LABELS) if j not in classes)
    intervals = interval_pass(base, lower[np.newaxis], upper[np.newaxis], BINARY32)
    spread = float(logit_spread(base, intervals, labels))
    shift = F(np.ceil(spread * 1.01 + 1))
    return JointPatch(LABELS, classes, tau, shift, F(np.ceil((spread + float(shift)) * 1.01 + 1)), gates)


# --- the whole chain ---


def policy(**changed: str) -> bytes:
    """The policy of the vectors: the default one with small limits."""
    text = default_policy_text()
    for old, new in {
        "min_retain_records = 100": "min_retain_records = 40",
        "max_age_days = 365": "max_age_days = 3650",
        "max_model_bytes = 1073741824": "max_model_bytes = 1048576",
        "max_evidence_bytes = 268435456": "max_evidence_bytes = 1048576",
        "max_records = 16777216": "max_records = 100000",
    }.items():
        text = text.replace(old, new)
    for name, value in changed.items():
        line = next(line for line in text.splitlines() if line.startswith(f"{name} ="))
        text = text.replace(line, f"{name} = {value}")
    return text.encode()


def statement_of_claim(place: int, claim: Claim, outcome: Outcome) -> ClaimStatement:
    """What an honest statement says of a claim."""
    counts = Counts(
        outcome.total, outcome.proved, outcome.by_bound, 0, len(outcome.unknowns), len(outcome.conflicts),
        len(outcome.already_wrong),
    )  # fmt: skip
    rest = (outcome.conflicts, outcome.unknowns, outcome.already_wrong)
    return ClaimStatement(f"C{place + 1}", claim, counts, *rest)


def claims_of(kind: str, patch: JointPatch) -> list[Claim]:
    """The claims of a request of this kind, each in both arithmetics."""
    logits = patch.allowed if patch.forgotten_classes else None
    found = []
    if "records" in kind:
        found += [
            Claim("forget", BINARY32, "structural", radius=RADIUS, margin=MARGIN),
            Claim("retain_exact", BINARY32, "structural", radius=RETAINED_RADIUS, logits=logits),
            Claim("locality", BINARY32, "structural", logits=logits),
        ]
    for label in patch.forgotten_classes:
        found += [
            Claim("forget_class", BINARY32, "structural", label=label, margin=MARGIN),
            Claim("retain_other_labels", BINARY32, "structural", label=label, outside_supports=bool(patch.gates)),
        ]
    return [replace(claim, arithmetic=arithmetic) for claim in found for arithmetic in ARITHMETICS]


def _commitment_key(which: str) -> bytes:
    return sha256(f"prune-verify test opening: {which}".encode()).digest()


@dataclass
class Chain:
    """All files of one certificate, which the owner may change and sign again.

    Args:
        files: by name, ``statement.json`` (the payload) among them.

    """

    files: dict[str, bytes]

    def copy(self) -> Chain:
        """The same files, to be changed."""
        return Chain(dict(self.files))

    def statement(self) -> dict[str, Any]:
        """The statement as data."""
        found: dict[str, Any] = json.loads(self.files["statement.json"])
        return found

    def put(self, document: dict[str, Any], signer: PrivateKey | None = None) -> Chain:
        """Sign another statement."""
        return self.put_payload(canonical_json(document), signer)

    def put_payload(self, payload: bytes, signer: PrivateKey | None = None) -> Chain:
        """Sign any bytes."""
        self.files["statement.json"] = payload
        self.files[CERTIFICATE] = sign(payload, signer or key("owner"))
        return self

    def swap(self, name: str, content: bytes) -> Chain:
        """Another file in place, its digest in the statement, signed again."""
        self.files[name] = content
        document = self.statement()
        if name == "patched.onnx":
            document["subject"][0]["digest"]["sha256"] = sha256_hex(content)
        if name == "base.onnx":
            document["predicate"]["originalModel"]["sha256"] = sha256_hex(content)
        for item in document["predicate"]["evidence"]:
            if f"evidence/{item['name']}" == name:
                item |= {"sha256": sha256_hex(content), "bytes": len(content)}
        return self.put(document)

    def records(self, which: str, x: Floats, y: Labels) -> Chain:
        """Another set of records, committed to anew and signed."""
        self.files[f"{which}.npz"] = npz(x, y)
        root = set_root(_commitment_key(which), canonical_records(Records(x, y, None, which)))
        document = self.statement()
        document["predicate"][f"{which}Set"] = {"root": root, "size": len(y)}
        return self.put(document)

    def deploy(self, patch: Patch) -> Chain:
        """Another patch: file, network, digests and summary agree, signed; the claims stay as they were."""
        base_bytes = self.files["base.onnx"]
        base = load_network(base_bytes, "base.onnx")
        file, size = PatchFile(patch, base.network.digest()), coordinates_of(base.network, patch)
        content = emit_patch(file, size)
        self.swap("evidence/patch.json", content)
        self.swap("patched.onnx", export_patched(base_bytes, base, patch))
        summary = summary_of(file, sha256_hex(content), size)
        document = self.statement()
        document["predicate"]["patch"] = {
            "sha256": summary.sha256, "family": summary.family, "gates": summary.gates,
            "forgottenClasses": list(summary.forgotten_classes), "maxCoordinates": summary.max_coordinates,
            "disclosedCoordinates": summary.disclosed_coordinates, "disclosedBits": summary.disclosed_bits,
        }  # fmt: skip
        return self.put(document)


def write(
    kind: str,
    patch: Patch,
    claims: list[tuple[Claim, Outcome]],
    evidence: dict[str, bytes],
    base_bytes: bytes,
    *,
    withheld: bool = False,
) -> Chain:
    """An honest certificate.

    Args:
        kind: of the request.
        patch: the patch.
        claims: with their outcomes.
        evidence: the proofs, by name.
        base_bytes: the base network.
        withheld: the patched network is one of foreign making: no patch.json.

    """
    base = load_network(base_bytes, "base.onnx")
    file, size = PatchFile(patch, base.network.digest()), coordinates_of(base.network, patch)
    content = emit_patch(file, size)
    evidence = evidence if withheld else {"patch.json": content} | evidence
    patched = export_patched(base_bytes, base, patch)
    commitments: dict[str, SetCommitment | None] = {"forget": None, "retain": None}
    files = {"base.onnx": base_bytes, "patched.onnx": patched}
    if "records" in kind:
        x, y, others, labels = sets()
        for which, rows, answers in (("forget", x, y), ("retain", others, labels)):
            root = set_root(_commitment_key(which), canonical_records(Records(rows, answers, None, which)))
            commitments[which] = SetCommitment(root, len(answers))
            files[f"{which}.npz"] = npz(rows, answers)
    statement = Statement(
        patched_name="patched.onnx",
        patched_sha256=sha256_hex(patched),
        certificate_id=sha256(f"vectors: {kind}".encode()).hexdigest()[:32],
        issued_at=ISSUED,
        not_before=ISSUED,
        expires_at=EXPIRES,
        supersedes=None,
        challenge=None,
        prover=("prune-verify vectors", "1"),
        request_sha256=sha256_hex(b"a request that only the parties keep"),
        request_kind=kind,
        request_reference="test vector",
        base_name="base.onnx",
        base_sha256=sha256_hex(base_bytes),
        base_network=base.network.digest(),
        patch=None if withheld else summary_of(file, sha256_hex(content), size),
        domain=DOMAIN,
        arithmetics=ARITHMETICS,
        encoding_sha256=None,
        opset=base.opset,
        forget_set=commitments["forget"],
        retain_set=commitments["retain"],
        claims=tuple(statement_of_claim(place, *one) for place, one in enumerate(claims)),
        evidence=tuple(Evidence(name, sha256_hex(data), len(data)) for name, data in sorted(evidence.items())),
        assumptions=(),
        non_claims=NON_CLAIMS,
        measurements=(),
        environment=(("python", "3"), ("numpy", "2"), ("onnx", "1"), ("platform", "any")),
    )
    files |= {f"evidence/{name}": data for name, data in evidence.items()}
    openings = {
        which: None if commitments[which] is None else _commitment_key(which).hex() for which in ("forget", "retain")
    }
    files["openings.json"] = canonical_json({"formatVersion": 1, **openings})
    files["trust.json"] = trust(trusted("owner"), trusted("auditor", roles=("auditor",)))
    files["policy.toml"] = policy()
    while len(emit_statement(statement)) % 3 != 1:  # base64 with unused bits at its end, for vectors about them
        statement = replace(statement, request_reference=statement.request_reference + ".")
    return Chain(files).put_payload(emit_statement(statement))


def structural(kind: str, classes: tuple[int, ...] = (), base_bytes: bytes = b"") -> Chain:
    """An honest certificate of family ``box`` or ``class-cap``, for the usual base or one that answers alike."""
    base_bytes = base_bytes or base_model().SerializeToString()
    base = load_network(base_bytes, "base.onnx")
    x, y, others, labels = sets()
    gates = gates_of(x, y, others, skip=classes) if "records" in kind else ()
    patch = head_of(base_bytes, classes, gates)
    x, others = x.reshape(-1, *base.network.input_shape), others.reshape(-1, *base.network.input_shape)
    patched = load_network(export_patched(base_bytes, base, patch), "patched.onnx").network
    problem = Problem(base.network, patched, patch, DOMAIN, LabelledRows(x, y), LabelledRows(others, labels))
    claims = [(claim, decide(problem, claim)) for claim in claims_of(kind, patch)]
    return write(kind, patch, claims, {}, base_bytes)
