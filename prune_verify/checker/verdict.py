"""The verdict: what the checker answers, in one stable line, a roster, and one JSON object.

Three words and no fourth: VERIFIED (0), REJECTED (1), UNDECIDED (3). Nothing here decides; the
steps of :mod:`prune_verify.checker.verify` fill it in.

Source: FORMATS section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from prune_verify import __version__
from prune_verify.checker.encoding import format_time
from prune_verify.checker.errors import CheckError, printable

__all__ = ["REJECTED", "UNDECIDED", "VERIFIED", "Check", "ClaimVerdict", "Roster", "Verdict", "named_signers"]

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

    @classmethod
    def of_error(cls, error: CheckError, status: str = "FAIL") -> Check:
        """The line of a step that ended in an error."""
        return cls(error.rule, status, str(error), error.code, error.path)

    def line(self) -> str:
        """For a person."""
        return f"[{self.status}] {self.name} {self.detail}"

    def to_json(self) -> dict[str, str]:
        """An object of ``checks``."""
        rest = {"code": self.code, "path": self.path, "detail": self.detail}
        return {"id": self.name, "status": self.status, **rest}


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
        roster = [check.line() for check in self.checks]
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
            "checks": [check.to_json() for check in self.checks],
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


def named_signers(signers: tuple[tuple[str, str], ...]) -> str:
    """Who signed, ``signers`` as (keyid, name), each with the beginning of the keyid."""
    return ", ".join(f"{who} ({keyid[:16]})" for keyid, who in signers)


@dataclass(kw_only=True)
class Roster:
    """What the steps of a check have established so far, by the names that it has in the :class:`Verdict` to come."""

    now: datetime  # validity is judged at this time
    payload_sha256: str = ""
    signers: tuple[tuple[str, str], ...] = ()
    checks: list[Check] = field(default_factory=list)
    claims: list[ClaimVerdict] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)

    def passed(self, name: str, detail: str) -> None:
        """Note a step by name that holds, with a detail."""
        self.checks.append(Check(name, "PASS", detail))

    def signed(self) -> None:
        """Note who signed."""
        self.passed("signature", f"by {named_signers(self.signers)}")

    def verdict(self, word: str, code: str) -> Verdict:
        """The verdict of this word and code, with everything found."""
        return Verdict(
            word=word,
            code=code,
            payload_sha256=self.payload_sha256,
            at_time=format_time(self.now),
            signers=self.signers,
            checks=tuple(self.checks),
            claims=tuple(self.claims),
            assumptions=tuple(self.assumptions),
            warnings=tuple(self.warnings),
            digests=tuple(sorted(self.digests.items())),
        )
