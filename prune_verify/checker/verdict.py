"""The verdict: what the checker answers, in one stable line, a roster, and one JSON object.

Three words and no fourth: VERIFIED (0), REJECTED (1), UNDECIDED (3). Nothing here decides; the
steps of :mod:`prune_verify.checker.verify` fill it in.

Source: FORMATS section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from prune_verify import __version__
from prune_verify.checker.errors import printable

__all__ = ["REJECTED", "UNDECIDED", "VERIFIED", "Check", "ClaimVerdict", "Verdict"]

VERIFIED = "VERIFIED"
REJECTED = "REJECTED"
UNDECIDED = "UNDECIDED"
_EXIT = {VERIFIED: 0, REJECTED: 1, UNDECIDED: 3}


@dataclass(frozen=True)
class Check:
    """One line of the roster.

    Args:
        name: the step, such as ``signature`` or ``claim C1``.
        status: ``PASS``, ``FAIL``, ``SKIP`` or ``UNDECIDED``.
        detail: one sentence.
        code: ``OK`` or the error's code.
        path: the place, for a failure.

    """

    name: str
    status: str
    detail: str
    code: str = "OK"
    path: str = ""


@dataclass(frozen=True)
class ClaimVerdict:
    """A claim with the counts that the checker found itself.

    Args:
        id: as in the certificate.
        kind: ``forget``, ``retain_exact``, ...
        arithmetic: ``real`` or ``ieee754-binary32``.
        region: one phrase, such as ``ball linf 0.1``.
        total: statements.
        proved: of them.
        refuted: of them.
        unknown: of them.
        conflict: of them.
        already_wrong: forget records that the base did not answer with their label.

    """

    id: str
    kind: str
    arithmetic: str
    region: str
    total: int
    proved: int
    refuted: int
    unknown: int
    conflict: int
    already_wrong: int


@dataclass(frozen=True)
class Verdict:
    """The answer to one certificate.

    Args:
        word: ``VERIFIED``, ``REJECTED`` or ``UNDECIDED``.
        code: ``OK`` or the code of the first reason.
        payload_sha256: identity of the certificate; empty until a signature was accepted.
        at_time: the time that validity was judged at.
        signers: (keyid, name) of accepted signatures.
        checks: the roster, in the order of the steps.
        claims: with recomputed counts.
        assumptions: what the verdict rests on beside the trust base.
        warnings: sentences a reader should see.
        digests: (file, SHA-256) of the bytes that were judged and judged by: ``certificate``, ``trust``, ``policy``,
            and ``base`` and ``patched`` once they were found to be the certified ones.

    """

    word: str
    code: str
    payload_sha256: str = ""
    at_time: str = ""
    signers: tuple[tuple[str, str], ...] = ()
    checks: tuple[Check, ...] = ()
    claims: tuple[ClaimVerdict, ...] = ()
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    digests: tuple[tuple[str, str], ...] = ()

    @property
    def exit_code(self) -> int:
        """0, 1 or 3."""
        return _EXIT[self.word]

    def line(self) -> str:
        """The one stable line."""
        return f"VERDICT: {self.word} code={self.code} payload-sha256={self.payload_sha256 or '-'}"

    def text(self) -> str:
        """The stable line, the roster, what the verdict rests on, and warnings."""
        roster = [f"[{c.status}] {c.name} {c.detail}" for c in self.checks]
        rests = (f"rests on: {name}" for name in self.assumptions)
        lines = [*roster, *rests, *(f"warning: {w}" for w in self.warnings)]
        return "\n".join([self.line(), *(printable(line) for line in lines)])  # names come from the owner

    def to_json(self) -> dict[str, object]:
        """The object that ``verify --json`` prints."""
        return {
            "verdict": self.word,
            "code": self.code,
            "exitCode": self.exit_code,
            "payloadSha256": self.payload_sha256,
            "signers": [{"keyid": keyid, "name": name} for keyid, name in self.signers],
            "checks": [
                {"id": c.name, "status": c.status, "code": c.code, "path": c.path, "detail": c.detail}
                for c in self.checks
            ],
            "claims": [
                {
                    "id": c.id,
                    "kind": c.kind,
                    "region": c.region,
                    "arithmetic": c.arithmetic,
                    "total": c.total,
                    "proved": c.proved,
                    "refuted": c.refuted,
                    "unknown": c.unknown,
                    "conflict": c.conflict,
                    "alreadyWrong": c.already_wrong,
                }
                for c in self.claims
            ],
            "assumptions": list(self.assumptions),
            "warnings": list(self.warnings),
            "tool": {"name": "prune-verify", "version": __version__},
            "time": self.at_time,
        }
