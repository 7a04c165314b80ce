"""``check-proof NET.onnx PROPERTY.vnnlib P``: whether a proof shows that a property has no counterexample.

The auditor brings network and property; the proof is the prover's. What is decided is named in the answer:
``unsat`` over the reals, or for every execution in float32.

Source: FORMATS section 3; certs/SPEC.md section 5.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from prune_verify.checker.encoding import Json, read_file, sha256_hex
from prune_verify.checker.errors import CheckError, LimitError, ProofError
from prune_verify.checker.goals import decide_goals
from prune_verify.checker.interval import BINARY32, require_ieee_float64
from prune_verify.checker.load_onnx import LoadLimits, load_network
from prune_verify.checker.proof import MAX_PROOF_BYTES, parse
from prune_verify.checker.verdict import REJECTED, UNDECIDED, VERIFIED
from prune_verify.checker.vnnlib import MAX_BYTES, goals_of_property, parse_property

__all__ = ["PROPERTY", "ProofVerdict", "check_proof"]

PROPERTY = "property"
ARITHMETICS = (BINARY32, "real")
_EXIT_CODES = {VERIFIED: 0, REJECTED: 1, UNDECIDED: 3}


@dataclass(frozen=True)
class ProofVerdict:
    """The answer to one property.

    Args:
        word: VERIFIED (the property is unsat), REJECTED or UNDECIDED.
        code: OK or an error code.
        arithmetic: that the proof speaks of.
        proof_sha256: digest of the proof file.
        detail: what was proved, or what is wrong and where.

    """

    word: str
    code: str
    arithmetic: str
    proof_sha256: str
    detail: str

    @property
    def exit_code(self) -> int:
        """0 VERIFIED, 1 REJECTED, 3 UNDECIDED."""
        return _EXIT_CODES[self.word]

    def text(self) -> str:
        """The stable line, and what was found."""
        line = f"VERDICT: {self.word} code={self.code} arithmetic={self.arithmetic} proof-sha256={self.proof_sha256}"
        return f"{line}\n{self.detail}"

    def to_json(self) -> Json:
        """One JSON object."""
        return {
            "verdict": self.word, "code": self.code, "exitCode": self.exit_code, "arithmetic": self.arithmetic,
            "proofSha256": self.proof_sha256, "detail": self.detail,
        }  # fmt: skip


def check_proof(
    network: Path, question: Path, proof: Path, arithmetic: str | None = None, *, exact: bool = False
) -> ProofVerdict:
    """Check one proof of ``unsat``.

    Args:
        network: ONNX file.
        question: VNN-LIB 1.0 file.
        proof: the proof file.
        arithmetic: that the auditor demands; None: the proof's own, which the answer names.
        exact: bounds in integers.

    Raises:
        CheckError: network or property cannot be used (they are the auditor's), or this process does not compute as
            IEEE 754 has it (exit 2).

    """
    require_ieee_float64()
    model = load_network(read_file(network, "network", 2**30), str(network), LoadLimits()).network
    size = prod(model.input_shape)
    cases = parse_property(read_file(question, "property", MAX_BYTES), str(question), size, model.labels)
    data = read_file(proof, "proof", MAX_PROOF_BYTES)
    digest, stated = sha256_hex(data), arithmetic or "none"
    try:
        found = parse(data, "proof")
        stated = found.arithmetic if found.arithmetic in ARITHMETICS else stated
        goals = goals_of_property(model, cases, arithmetic or found.arithmetic)
        for name, expected, got in (
            ("arithmetic", arithmetic or stated, found.arithmetic),
            ("kind", PROPERTY, found.kind),
            ("method", "relaxation", found.method),
            ("network", model.digest(), found.network),
            ("records", str(goals.records), str(found.records)),
            ("smt", "0", str(len(found.smt))),
        ):
            if expected != got:
                raise ProofError(f"proof/{name}", "the property that the proof is for", expected, got)
        proved = decide_goals(replace(goals, exact=exact), found, "proof")
    except LimitError as error:
        return ProofVerdict(UNDECIDED, error.code, stated, digest, str(error))
    except CheckError as error:
        return ProofVerdict(REJECTED, error.code, stated, digest, str(error))
    numbers = "integers" if exact else "float64 with rounding bounds"
    detail = (
        f"{int(proved.sum())} of {proved.size} cases proved impossible, {len(found.trees)} of them by splits; {numbers}"
    )
    if proved.all():
        return ProofVerdict(VERIFIED, "OK", stated, digest, f"unsat: {detail}")
    return ProofVerdict(UNDECIDED, "E_UNKNOWN", stated, digest, detail)
