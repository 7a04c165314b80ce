"""``verify --verdict-out`` writes the auditor's signed verdict; ``verdict check`` reads one as a third party does.

A verdict file is trusted only as far as its signer: a key that the reader's own trust store has in the role
``auditor``. It repeats nothing: who wants to know rather than to believe runs ``verify`` again.

Steps of ``verdict check``, in this order:

 1. the reader's own trust store (bad or missing: exit 2)
 2. size cap, strict envelope, strict base64
 3. signatures over the PAE of the exact payload bytes, by keys with role auditor
 4. payload type; strict payload JSON of the same bytes; closed schema; predicate type; agreement with itself
 5. the verifier that it names is one of the keys that signed, and none of them signed the certificate
 6. not made in the future, and judged no longer ago than the reader allows
 7. the certificate, policy, base and patched network that the reader brings are those that it names

Source: certs/SPEC.md section 9; FORMATS sections 1 and 3; THREATS 2 "Envelope and keys".
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prune_verify import __version__
from prune_verify.audit.keys import load_private_key
from prune_verify.audit.verdict_statement import VerdictStatement, emit_verdict, parse_verdict
from prune_verify.checker.encoding import format_time, read_file, sha256_hex
from prune_verify.checker.envelope import open_envelope, parse_envelope
from prune_verify.checker.errors import CheckError, MalformedInputError, PolicyError, SubjectMismatchError, printable
from prune_verify.checker.policy import parse_trust
from prune_verify.checker.statement import parse_statement
from prune_verify.checker.verdict import REJECTED, Check, Verdict, named_signers
from prune_verify.checker.verify import MAX_CERTIFICATE_BYTES, MAX_OWN_BYTES
from prune_verify.files import new_file
from prune_verify.signing import PrivateKey, public_half, sign_payload

__all__ = ["CheckedVerdict", "VerdictWriter", "check_verdict", "sha256_of_file", "verdict_writer"]

_ROLE = "auditor"


# --- writing ---


@dataclass(frozen=True)
class VerdictWriter:
    """A key, its ``keyid`` and a free place for one verdict, looked at before a check that may take long."""

    path: Path
    key: PrivateKey
    keyid: str

    def write(
        self,
        verdict: Verdict,
        patched: Path,
        *,
        at_time: datetime | None = None,
        challenge: str | None = None,
        exact: bool = False,
        resolve_smt: str | None = None,
    ) -> str:
        """Sign a verdict and write it whole; gives the SHA-256 of its payload.

        Args:
            verdict: of the checker.
            patched: the file that the checker was given.
            at_time: as the checker was given it.
            challenge: as the checker was given it.
            exact: as the checker was given it.
            resolve_smt: as the checker was given it.

        Raises:
            PolicyError: the key signed the certificate as well: nobody is the auditor of their own certificate.
            MalformedInputError: the patched network has changed since it was checked.
            OSError: the file exists, or cannot be written.

        """
        if self.keyid in dict(verdict.signers):
            raise PolicyError(
                "--auditor-key", "independence of the auditor", "another key", "a signer's of the certificate"
            )
        digest = sha256_of_file(patched)
        if dict(verdict.digests).get("patched", digest) != digest:
            raise MalformedInputError(str(patched), "patched network", "the file that was checked", "one changed since")
        statement = VerdictStatement(
            verdict=verdict,
            auditor=self.keyid,
            time_verified=_time_of(verdict, at_time),
            patched_name=patched.name,
            patched_sha256=digest,
            at_time=at_time,
            challenge=challenge,
            exact=exact,
            resolve_smt=resolve_smt,
            version=__version__,
        )
        payload = emit_verdict(statement)
        parse_verdict(payload, self.path.name)
        new_file(self.path, sign_payload(payload, self.key))
        return sha256_hex(payload)


def _time_of(verdict: Verdict, at_time: datetime | None) -> datetime:
    """When the check was made: the time that validity was judged at, unless another was asked for."""
    if at_time is not None:
        return datetime.now(UTC).replace(microsecond=0)
    return datetime.fromisoformat(verdict.at_time)


def verdict_writer(path: Path, key: str | Path, variable: str | None = None) -> VerdictWriter:
    """The writer of a verdict file, before the check begins.

    Args:
        path: where it will be written; must not exist.
        key: the auditor's private key: a file, or the URI of a token or key service.
        variable: name of the environment variable with its passphrase or PIN; without it the terminal is asked.

    Raises:
        CheckError: the key cannot be used.
        OSError: the file exists, or its folder does not.

    """
    if os.path.lexists(path):
        raise FileExistsError(17, "exists already; a verdict is never overwritten", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(2, "no such folder for the verdict", str(path.parent))
    private = load_private_key(key, variable)
    return VerdictWriter(path, private, public_half(private).keyid)


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file of any size, in lower-case hex.

    Raises:
        OSError: it cannot be read.

    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --- checking ---


@dataclass(frozen=True)
class CheckedVerdict:
    """What ``verdict check`` found.

    Args:
        statement: the verdict that a trusted auditor signed, or None where the file was refused.
        code: ``OK`` or the code of the refusal.
        payload_sha256: of the verdict's own payload; empty until a signature was accepted.
        signers: (keyid, name) of the auditors.
        checks: the roster.
        warnings: sentences a reader should see.

    """

    statement: VerdictStatement | None
    code: str
    payload_sha256: str
    signers: tuple[tuple[str, str], ...]
    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0: accepted, and it says VERIFIED; 3: accepted, UNDECIDED; 1: accepted, REJECTED, or a refused file."""
        return 1 if self.statement is None else self.statement.verdict.exit_code

    def line(self) -> str:
        """The one stable line; it never begins as the checker's own does."""
        if self.statement is None:
            return f"VERDICT FILE: REFUSED code={self.code} states=-"
        said = self.statement.verdict
        digest = said.payload_sha256 or "-"
        return f"VERDICT FILE: ACCEPTED states={said.word} code={said.code} certificate-payload-sha256={digest}"

    def text(self) -> str:
        """The stable line, the roster, what the verdict rests on, and what this was not."""
        lines = [check.line() for check in self.checks]
        if self.statement is not None:
            said = self.statement.verdict
            lines += [
                f"the auditor found: {c.proved} of {c.total} proved, {c.conflict} in conflict, "
                f"for claim {c.id} {c.kind} {c.arithmetic} {c.region}"
                for c in said.claims
            ]
            lines += [f"the auditor found: {c.status} {c.name} {c.detail}" for c in said.checks if c.status != "PASS"]
            lines += [f"rests on: {name}" for name in said.assumptions]
            lines += [f"the auditor warns: {line}" for line in said.warnings]
        lines += [f"warning: {line}" for line in self.warnings]
        lines.append("This tells who answered, and about which files. It repeats nothing: `verify` does.")
        return "\n".join([self.line(), *(printable(line) for line in lines)])

    def to_json(self) -> dict[str, object]:
        """The object that ``verdict check --json`` prints."""
        said = self.statement
        return {
            "accepted": said is not None,
            "code": self.code,
            "exitCode": self.exit_code,
            "payloadSha256": self.payload_sha256,
            "signers": [{"keyid": keyid, "name": name} for keyid, name in self.signers],
            "checks": [check.to_json() for check in self.checks],
            "warnings": list(self.warnings),
            "verdict": None if said is None else said.verdict.to_json(),
            "patchedSha256": None if said is None else said.patched_sha256,
            "timeVerified": None if said is None else format_time(said.time_verified),
            "challenge": None if said is None else said.challenge,
        }


def check_verdict(
    path: Path,
    trust: Path,
    *,
    certificate: Path | None = None,
    policy: Path | None = None,
    base: Path | None = None,
    patched: Path | None = None,
    now: datetime | None = None,
    max_age_days: int | None = None,
) -> CheckedVerdict:
    """Check a verdict file as a third party who trusts the auditors in their own trust store, and nobody else.

    Args:
        path: the verdict file.
        trust: the reader's trust store.
        certificate: the certificate that the verdict is to be about, or None.
        policy: the policy that it was to be judged by, or None.
        base: the base network, or None.
        patched: the patched network, or None.
        now: judge keys at this time; now by default.
        max_age_days: refuse a verdict that judged validity longer ago, or None.

    Returns:
        What was found, whatever the file holds.

    Raises:
        CheckError: the reader's own trust store cannot be used, or a file is missing (exit 2).

    """
    store = parse_trust(read_file(trust, "trust store", MAX_OWN_BYTES), str(trust))  # (1)
    data = read_file(path, "verdict file", MAX_CERTIFICATE_BYTES)  # (2)
    brought = {
        "certificate": None if certificate is None else read_file(certificate, "certificate", MAX_CERTIFICATE_BYTES),
        "policy": None if policy is None else read_file(policy, "policy", MAX_OWN_BYTES),
    }
    networks = {name: sha256_of_file(file) for name, file in (("base", base), ("patched", patched)) if file is not None}
    time = now or datetime.now(UTC).replace(microsecond=0)
    checks: list[Check] = []
    warnings: list[str] = []
    signers: tuple[tuple[str, str], ...] = ()
    digest = ""
    try:
        keys, threshold = store.keys_for(_ROLE, time)
        opened = open_envelope(data, path.name, keys, threshold)  # (3)
        digest, signers = opened.payload_sha256, opened.signers
        checks.append(Check("signature", "PASS", f"by {named_signers(signers)}"))
        statement = parse_verdict(opened.payload, f"{path.name}/payload")  # (4)
        made = format_time(statement.time_verified)
        checks.append(Check("statement", "PASS", f"made at {made} about {statement.patched_name}"))
        checks.append(_independent(statement, signers, path.name))  # (5)
        checks.append(_timely(statement, time, max_age_days))  # (6)
        if brought["certificate"] is not None:  # (7)
            checks += _of_certificate(statement, brought["certificate"], str(certificate), signers)
            warnings += _expired(statement, brought["certificate"], time)
        if brought["policy"] is not None:
            checks.append(_same(statement, "policy", sha256_hex(brought["policy"])))
        checks += [_same(statement, name, found) for name, found in networks.items()]
    except CheckError as error:
        checks.append(Check.of_error(error))
        return CheckedVerdict(None, error.code, digest, signers, tuple(checks))
    provers = {item.key.keyid for item in store.keys if "prover" in item.roles}
    twice = [f"your trust store has {name} as a prover, too" for keyid, name in signers if keyid in provers]
    absent = [
        f"--{name} was not given: that it is the one you mean was not checked"
        for name, given in (("certificate", certificate), ("policy", policy))
        if given is None
    ]
    return CheckedVerdict(statement, "OK", digest, signers, tuple(checks), (*warnings, *twice, *absent))


def _independent(statement: VerdictStatement, signers: tuple[tuple[str, str], ...], path: str) -> Check:
    """The verifier is who signed (VSA, step 4), and not who is judged."""
    if statement.auditor not in dict(signers):
        raise SubjectMismatchError(
            f"{path}/payload/predicate/verifier/id", "verifier", "one of the keys that signed", statement.auditor
        )
    same = dict(signers).keys() & dict(statement.verdict.signers).keys()
    if same:
        raise PolicyError(
            f"{path}/signatures", "independence of the auditor", "no signer of the certificate", min(same)
        )
    return Check("auditor", "PASS", "the verifier that is named signed, and did not sign the certificate")


def _timely(statement: VerdictStatement, time: datetime, max_age_days: int | None) -> Check:
    """Made in the past, and about a time that is recent enough for the reader."""
    made, judged = statement.time_verified, statement.at_time or statement.time_verified
    if made > time:
        raise PolicyError("predicate/timeVerified", "time of the verdict", "not in the future", format_time(made))
    if max_age_days is not None and time - judged > timedelta(days=max_age_days):
        raise PolicyError(
            "predicate/timeVerified", "age of the verdict", f"at most {max_age_days} days", format_time(judged)
        )
    return Check("time", "PASS", f"validity was judged at {format_time(judged)}, {(time - judged).days} days ago")


def _expired(statement: VerdictStatement, certificate: bytes, time: datetime) -> list[str]:
    """That the certificate has ended since it was judged."""
    if not statement.verdict.payload_sha256 or statement.verdict.word == REJECTED:
        return []
    ends = parse_statement(parse_envelope(certificate, "certificate").payload, "certificate").expires_at
    return [f"the certificate has expired at {format_time(ends)}, after it was judged"] if ends <= time else []


def _of_certificate(
    statement: VerdictStatement, data: bytes, name: str, signers: tuple[tuple[str, str], ...]
) -> list[Check]:
    """The certificate is the one that was judged; its own signature is what ``verify`` looks at."""
    found = sha256_hex(data)
    if not statement.verdict.payload_sha256:  # no signature was accepted: the file itself is all there is to name
        if statement.digest("certificate") != found:
            raise SubjectMismatchError(name, "certificate that was judged", str(statement.digest("certificate")), found)
        return [Check("certificate", "PASS", "the file that was judged; no signature on it was accepted")]
    envelope = parse_envelope(data, name)
    payload = envelope.payload
    own = dict(signers).keys() & dict(envelope.signatures).keys()
    if own:  # whatever the verdict says of its signers
        raise PolicyError(
            f"{name}/signatures", "independence of the auditor", "no key that signed the verdict", min(own)
        )
    if sha256_hex(payload) != statement.verdict.payload_sha256:
        raise SubjectMismatchError(
            name, "certificate that was judged", statement.verdict.payload_sha256, sha256_hex(payload)
        )
    if statement.digest("patched") is not None:
        certified = parse_statement(payload, f"{name}/payload")
        for what, expected in (("base", certified.base_sha256), ("patched", certified.patched_sha256)):
            if statement.digest(what) != expected:
                raise SubjectMismatchError(f"files/{what}", f"{what} network", expected, str(statement.digest(what)))
    return [Check("certificate", "PASS", "the one that was judged")]


def _same(statement: VerdictStatement, name: str, found: str) -> Check:
    """A file of the reader's is the one that the verdict names."""
    named = statement.patched_sha256 if name == "patched" else statement.digest(name)
    if named != found:
        raise SubjectMismatchError(f"files/{name}", f"digest of the {name} that was judged", named or "none", found)
    return Check(name, "PASS", f"the one that the verdict names ({found[:16]})")
