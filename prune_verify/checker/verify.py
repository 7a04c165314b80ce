"""Verification of a certificate, step by step, in the order of FORMATS section 3.

 1. the auditor's own files: trust store, policy (bad: exit 2, not a verdict)
 2. size cap, strict envelope, strict base64
 3. signatures over the PAE of the exact payload bytes, by keys and roles of the trust store
 4. payload type; strict payload JSON of the same bytes; closed schema; predicate type
 5. time, challenge
 6. digests of the models and of the evidence, each read once
 7. the models, the patch and the request, parsed from those bytes
 8. commitments of the forget and retained sets; the records against model and domain
 9. every claim, decided again from the files; counts compared
10. what the policy demands
11. the verdict

Nothing that steers a check comes from the certificate: domain, minima, limits and permitted
assumptions are the policy's. A step that fails ends the run with REJECTED; what cannot be decided
leaves UNDECIDED. Source: FORMATS 3, THREATS 0 to 2, certs/SPEC.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

__all__ = ["Inputs", "verify"]


@dataclass(frozen=True)
class Inputs:
    """The files that the auditor brings or names.

    Args:
        certificate: the signed envelope.
        base: the base network as the auditor has it.
        patched: the deployed patched network.
        trust: the auditor's trust store.
        policy: the auditor's policy.
        evidence: folder of the evidence; beside the certificate by default.
        openings: salts of the committed sets; ``openings.json`` beside the certificate by default.
        forget: records, or None when the auditor may not see them.
        retain: records, or None.
        label_column: of csv records.
        challenge: the auditor's nonce in hex, or None.
        at_time: judge validity at this time instead of now (archived certificates).

    """

    certificate: Path
    base: Path
    patched: Path
    trust: Path
    policy: Path
    evidence: Path | None = None
    openings: Path | None = None
    forget: str | None = None
    retain: str | None = None
    label_column: str | None = None
    challenge: str | None = None
    at_time: datetime | None = None
