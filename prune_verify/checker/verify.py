"""Verification of a certificate, step by step, in the order of FORMATS section 3.

 1. the auditor's own files: trust store and policy (bad, missing, or a store older than the policy: exit 2, no verdict)
 2. size cap, strict envelope, strict base64
 3. signatures over the PAE of the exact payload bytes, by keys and roles of the trust store
 4. payload type; strict payload JSON of the same bytes; closed schema; predicate type; keys that are for this base
 5. time, challenge, and the certificate that this one replaces
 6. digests of the models and of the evidence, each read once
 7. the models and the patch, parsed from those bytes
 8. the records against model and domain; commitments of the forget and retained sets; that both together are the
    training set of the auditor's commitment; receipts of data subjects
 9. every claim, decided again from the files; counts compared
10. what the policy demands
11. the verdict

Nothing that steers a check comes from the certificate: domain, minima, limits and permitted
assumptions are the policy's. A step that fails ends the run with REJECTED; what cannot be decided
leaves UNDECIDED. Source: FORMATS 3, THREATS 0 to 2, certs/SPEC.md section 8.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prune_verify.checker.claim import LabelledRows, Problem
from prune_verify.checker.commitment import check_commitment
from prune_verify.checker.encoding import format_time, read_file, sha256_hex
from prune_verify.checker.envelope import PAYLOAD_TYPE, open_envelope, parse_envelope
from prune_verify.checker.errors import (
    AssumptionNotPermittedError,
    CheckError,
    LimitError,
    MalformedInputError,
    PolicyError,
    ProofError,
    SignatureError,
    SubjectMismatchError,
    UnsupportedVersionError,
)
from prune_verify.checker.interval import require_ieee_float64
from prune_verify.checker.load_onnx import LoadedModel, LoadLimits, load_network
from prune_verify.checker.opened_sets import read_openings, require_committed
from prune_verify.checker.patch import JointPatch, LearnedPatch
from prune_verify.checker.patch_json import PatchFile, disclosed, parse_patch, require_disclosed
from prune_verify.checker.policy import parse_policy, parse_trust
from prune_verify.checker.rebuild import coordinates_of
from prune_verify.checker.receipt import check_receipts
from prune_verify.checker.records import (
    Records,
    check_against,
    distinct,
    duplicates_between,
    load_records,
)
from prune_verify.checker.solver import require_solver
from prune_verify.checker.statement import PatchSummary, Statement, parse_statement
from prune_verify.checker.verdict import REJECTED, UNDECIDED, VERIFIED, Check, Verdict
from prune_verify.checker.verify_claims import DATA_MISSING, Inputs, Run, decide_claims, require_demands
from prune_verify.checker.verify_supersession import replaced, require_covered

__all__ = ["Inputs", "summary_of", "verify"]

INSECURE = "E_INSECURE"
MAX_CERTIFICATE_BYTES = 2**26
MAX_OWN_BYTES = 2**22


def verify(inputs: Inputs, say: Callable[[str], None] = lambda _: None) -> Verdict:
    """Check a certificate as an auditor who trusts nothing that the owner says.

    Args:
        inputs: the files.
        say: called with a few words before each long step.

    Returns:
        The verdict, whatever the owner's files hold.

    Raises:
        CheckError: the auditor's own trust store or policy cannot be used, or a file is missing, or this process does
            not compute as IEEE 754 has it (exit 2).

    """
    require_ieee_float64()
    if inputs.resolve_smt is not None:
        require_solver(inputs.resolve_smt)
    owned = (inputs.certificate, inputs.base, inputs.patched, inputs.commitment, inputs.supersedes, *inputs.receipts)
    for path in owned:
        if path is not None and not path.is_file():
            raise MalformedInputError(str(path), "a file to check", "a file", "no file of this name")
    trust_bytes = read_file(inputs.trust, "trust store", MAX_OWN_BYTES)  # (1)
    policy_bytes = read_file(inputs.policy, "policy", MAX_OWN_BYTES)
    trust, policy = parse_trust(trust_bytes, str(inputs.trust)), parse_policy(policy_bytes, str(inputs.policy))
    trust.require_version(policy.min_trust_version, str(inputs.trust))
    run = Run(inputs, trust, policy, now=inputs.at_time or datetime.now(UTC).replace(microsecond=0))
    run.digests |= {"trust": sha256_hex(trust_bytes), "policy": sha256_hex(policy_bytes)}
    run.passed("trust store", f"version {trust.version}, sha256 {run.digests['trust']}")
    if inputs.at_time is not None:
        run.warnings.append(f"validity was judged at {format_time(run.now)}, as asked, not now")
    try:
        statement = _signed(run)
        _timely(run, statement)
        earlier = replaced(run, statement)
        problem = _files(run, statement, say)
        if earlier is not None:
            require_covered(run, statement, earlier, problem.forget)
        outcomes = decide_claims(run, statement, problem, say)
        require_demands(run, statement, problem, outcomes)
        run.require_time("verification")
    except AssumptionNotPermittedError as error:
        return _ended(run, UNDECIDED, error)
    except LimitError as error:
        return _ended(run, UNDECIDED if run.payload_sha256 else REJECTED, error)
    except CheckError as error:
        return _ended(run, REJECTED, error)
    return run.verdict(*((UNDECIDED, run.undecided[0]) if run.undecided else (VERIFIED, "OK")))  # (11)


def _ended(run: Run, word: str, error: CheckError) -> Verdict:
    run.checks.append(Check.of_error(error, "FAIL" if word == REJECTED else "UNDECIDED"))
    return run.verdict(word, error.code)


def _signed(run: Run) -> Statement:
    """Steps 2 to 4: who signed, and what."""
    name, policy = run.inputs.certificate.name, run.policy
    data = read_file(run.inputs.certificate, "certificate", MAX_CERTIFICATE_BYTES)  # (2)
    run.digests["certificate"] = sha256_hex(data)
    if run.inputs.insecure_skip_signature:
        return _unsigned(run, data, name)
    dated = not run.inputs.insecure_skip_time
    keys, threshold = run.trust.keys_for("prover", run.now, dated=dated)
    least = max(threshold, policy.min_prover_signatures)
    opened = open_envelope(data, name, keys, least)  # (3)
    run.payload_sha256 = opened.payload_sha256
    statement = parse_statement(opened.payload, f"{name}/payload")  # (4)
    run.signers = _bound(run, statement, opened.signers, least, "prover")
    if policy.min_auditor_signatures:
        others, threshold = run.trust.keys_for("auditor", run.now, dated=dated)
        others = {keyid: item for keyid, item in others.items() if keyid not in dict(run.signers)}
        least = max(threshold, policy.min_auditor_signatures)
        counter = open_envelope(data, name, others, least, "countersigners with role auditor").signers
        run.signers += _bound(run, statement, counter, least, "auditor")
    run.signed()
    run.passed("statement", f"{len(statement.claims)} claims about {statement.patched_name}")
    return statement


def _unsigned(run: Run, data: bytes, name: str) -> Statement:
    """What the file says, whoever signed it: ``--insecure-skip-signature``."""
    run.open("signature", "SKIP", "--insecure-skip-signature: nobody vouches for what this file says", INSECURE)
    envelope = parse_envelope(data, name)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise UnsupportedVersionError(f"{name}/payloadType", "payload type", PAYLOAD_TYPE, envelope.payload_type)
    return parse_statement(envelope.payload, f"{name}/payload")


def _bound(
    run: Run, statement: Statement, signers: tuple[tuple[str, str], ...], least: int, role: str
) -> tuple[tuple[str, str], ...]:
    """The signers whose keys may sign about this base network: owner A's key says nothing of owner B's model."""
    keys = {item.key.keyid: item for item in run.trust.keys}
    counted, left = list[tuple[str, str]](), list[tuple[str, str]]()
    for keyid, who in signers:
        may = keys[keyid].speaks_of(statement.base_sha256, bound=run.policy.require_bound_keys)
        (counted if may else left).append((keyid, who))
        revoked = keys[keyid].revoked
        if may and revoked is not None:
            run.warnings.append(f"the key of {who} is revoked from {format_time(revoked[0])} on: {revoked[1]}")
    if len(counted) < least:
        got = f"{len(counted)}; not bound to it: {', '.join(who for _, who in left)}"
        rule = f"signers with role {role} whose keys are for this base network"
        raise SignatureError("predicate/originalModel/sha256", rule, f"at least {least}", got)
    return tuple(counted)


def _timely(run: Run, statement: Statement) -> None:
    """Step 5: validity, age, the auditor's challenge (T11)."""
    if run.inputs.insecure_skip_time:
        run.open("validity", "SKIP", "--insecure-skip-time: no date was looked at, of file, keys or store", INSECURE)
    for holds, name, expected, got in (
        (statement.issued_at <= run.now, "issuedAt", "not in the future", statement.issued_at),
        (statement.not_before <= run.now, "notBefore", "not in the future", statement.not_before),
        (run.now < statement.expires_at, "expiresAt", f"later than {format_time(run.now)}", statement.expires_at),
        (
            run.now - statement.issued_at <= timedelta(days=run.policy.max_age_days),
            "issuedAt",
            f"at most {run.policy.max_age_days} days old",
            statement.issued_at,
        ),
    ):
        if not holds and not run.inputs.insecure_skip_time:
            raise PolicyError(f"predicate/{name}", "validity", expected, format_time(got))
    wanted = run.inputs.challenge
    if wanted is None and run.policy.require_challenge:
        raise PolicyError("--challenge", "the policy requires a challenge", "the auditor's own nonce", "nothing")
    if wanted is not None and statement.challenge != wanted:
        raise PolicyError("predicate/challenge", "the auditor's challenge", wanted, statement.challenge or "nothing")
    if not run.inputs.insecure_skip_time:
        run.passed("validity", f"until {format_time(statement.expires_at)}")
    if wanted is not None:
        run.passed("challenge", f"answered: {wanted}")


def _read_named(path: Path, what: str, limit: int, sha256: str, place: str) -> bytes:
    """A file read once, refused unless it has the digest that the certificate names."""
    data = read_file(path, what, limit)
    if sha256_hex(data) != sha256:
        raise SubjectMismatchError(place, f"digest of {path.name}", sha256, sha256_hex(data))
    return data


def _files(run: Run, statement: Statement, say: Callable[[str], None]) -> Problem:
    """Steps 6 to 8: every file that the claims speak of."""
    policy, inputs = run.policy, run.inputs
    limits = LoadLimits(max_bytes=policy.max_model_bytes)
    size = policy.max_model_bytes
    base_bytes = _read_named(inputs.base, "base network", size, statement.base_sha256, "predicate/originalModel/sha256")
    patched_bytes = _read_named(inputs.patched, "patched network", size, statement.patched_sha256, "subject/0/digest")
    run.digests |= {"base": statement.base_sha256, "patched": statement.patched_sha256}
    run.passed("models", "base and patched network have the certified digests")
    patch_bytes = _evidence(run, statement)
    base = load_network(base_bytes, inputs.base.name, limits)  # (7)
    patched = load_network(patched_bytes, inputs.patched.name, limits)
    _same_outside(base, patched, statement)
    patch = None if patch_bytes is None else _patch(patch_bytes, base, statement)
    if statement.domain != policy.domain:
        got = f"{statement.domain.lower[0]}..{statement.domain.upper[0]}"
        raise PolicyError("predicate/semantics/domain", "the domain of the policy", "the same interval(s)", got)
    if statement.encoding_sha256 != policy.encoding_sha256:
        wanted = policy.encoding_sha256 or "none"
        raise PolicyError(
            "predicate/semantics/encodingSha256", "the policy's encoding", wanted, str(statement.encoding_sha256)
        )
    policy.domain.require_size(_size(base))
    problem = Problem(
        base.network, patched.network, None if patch is None else patch.patch, policy.domain, exact=run.inputs.exact
    )
    if problem.patch is not None:
        problem.require_rebuilt()
        run.passed("patched network", "is the base with exactly the patch's nodes, rebuilt here")
    say("reading the records")
    openings = read_openings(inputs.openings or inputs.certificate.parent / "openings.json")
    forget = _records(run, statement, base, "forget", openings.forget)  # (8)
    retain = _records(run, statement, base, "retain", openings.retain)
    _disjoint(forget, retain)
    check_receipts(run, statement, forget, retain, check_commitment(run, statement, forget, retain, openings.training))
    problem.forget = None if forget is None else LabelledRows(forget.x, forget.y)
    problem.retain = None if retain is None else LabelledRows(retain.x, retain.y)
    return problem


def _size(model: LoadedModel) -> int:
    total = 1
    for length in model.network.input_shape:
        total *= length
    return total


def _same_outside(base: LoadedModel, patched: LoadedModel, statement: Statement) -> None:
    """The patched network can stand in the base's place; the digests that the statement names are true."""
    for name, expected, got in (
        ("input name", base.input_name, patched.input_name),
        ("output name", base.output_name, patched.output_name),
        ("opset", str(base.opset), str(patched.opset)),
        ("opset in the statement", str(statement.opset), str(patched.opset)),
        ("base network", statement.base_network, base.network.digest()),
    ):
        if expected != got:
            raise SubjectMismatchError("patched.onnx", name, expected, got)


def _evidence(run: Run, statement: Statement) -> bytes | None:
    """Step 6 for the evidence: missing leaves claims open, another content is a refusal. Gives ``patch.json``."""
    folder = run.inputs.evidence or run.inputs.certificate.parent / "evidence"
    for item in statement.evidence:
        place = f"predicate/evidence/{item.name}"
        if item.size > run.policy.max_evidence_bytes:
            raise LimitError(place, "size of evidence", f"at most {run.policy.max_evidence_bytes}", str(item.size))
        if not (folder / item.name).is_file():
            run.open(f"evidence {item.name}", "SKIP", f"not in {folder}", DATA_MISSING)
            continue
        data = _read_named(folder / item.name, "evidence", run.policy.max_evidence_bytes, item.sha256, place)
        if len(data) != item.size:
            raise SubjectMismatchError(f"{place}/bytes", "size of evidence", str(len(data)), str(item.size))
        run.evidence[item.name] = data
    if run.evidence:
        run.passed("evidence", f"{len(run.evidence)} files with the certified digests")
    patch = statement.patch
    if patch is None:
        return None
    if not any(item.name == "patch.json" and item.sha256 == patch.sha256 for item in statement.evidence):
        raise MalformedInputError("predicate/patch/sha256", "patch", "the digest of evidence patch.json", patch.sha256)
    return run.evidence.get("patch.json")


def summary_of(file: PatchFile, sha256: str, size: int) -> PatchSummary:
    """What a statement says of a patch with this ``sha256``, from its parameters; ``size``: of what gates read."""
    patch = file.patch
    coordinates, bits = disclosed(patch, size)
    gates = () if isinstance(patch, LearnedPatch) else patch.gates
    return PatchSummary(
        sha256=sha256,
        family=patch.family,
        gates=len(gates),
        forgotten_classes=patch.forgotten_classes if isinstance(patch, JointPatch) else (),
        max_coordinates=max((len(gate.intervals) for gate in gates), default=0),
        disclosed_coordinates=coordinates,
        disclosed_bits=bits,
    )


def _patch(data: bytes, base: LoadedModel, statement: Statement) -> PatchFile:
    file = parse_patch(data, "evidence/patch.json")
    if file.base_network != statement.base_network:
        raise SubjectMismatchError(
            "evidence/patch.json/baseNetwork", "base network", statement.base_network, file.base_network
        )
    size = coordinates_of(base.network, file.patch)
    require_disclosed(data, "evidence/patch.json", file.patch, size)
    expected = summary_of(file, sha256_hex(data), size)
    if statement.patch != expected:
        raise ProofError("predicate/patch", "summary of the patch", str(expected), str(statement.patch))
    return file


def _records(run: Run, statement: Statement, base: LoadedModel, which: str, key: bytes | None) -> Records | None:
    """Step 8 for one set: in the domain, of the model's shape, and the set that was committed."""
    commitment = statement.forget_set if which == "forget" else statement.retain_set
    spec = run.inputs.forget if which == "forget" else run.inputs.retain
    if commitment is None:
        return None
    if spec is None or key is None:
        missing = f"--{which} was not given" if spec is None else f"no opening for the {which} set"
        run.open(f"{which} set", "SKIP", missing, DATA_MISSING)
        return None
    records: Records = load_records(
        spec,
        what=f"{which} set",
        label_column=run.inputs.label_column,
        encoding=run.inputs.encoding,
        max_records=run.policy.max_records,
    )
    if records.encoding_sha256 != statement.encoding_sha256:
        got = str(records.encoding_sha256)
        raise SubjectMismatchError(f"{which} set", "encoding of the records", str(statement.encoding_sha256), got)
    records = check_against(
        records,
        input_shape=base.network.input_shape,
        labels=base.network.labels,
        domain=run.policy.domain,
        what=f"{which} set",
    )
    require_committed(records, commitment, key, f"predicate/{which}Set")
    run.distinct[which] = distinct(records)
    run.passed(f"{which} set", f"{commitment.size} records, as committed, {run.distinct[which]} different")
    return records


def _disjoint(forget: Records | None, retain: Records | None) -> None:
    """No record is both to be forgotten and to be retained (T13)."""
    both = [] if forget is None or retain is None else duplicates_between(forget, retain)
    if both:
        first = f"forget record {both[0][0]} is retained record {both[0][1]}"
        raise PolicyError("retain set", "forget and retained sets are disjoint", "no record in both", first)
