"""``python -P -m prune_verify.checker {verify,check-proof,check-receipt}``: the checker alone, base install only.

Source: FORMATS section 3 (arguments and exit codes).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from prune_verify import __version__
from prune_verify.checker.check_proof import ARITHMETICS, ProofVerdict, check_proof
from prune_verify.checker.check_receipt import ReceiptInputs, check_receipt
from prune_verify.checker.encoding import Members, parse_json, parse_time, read_file
from prune_verify.checker.errors import CheckError, MalformedInputError
from prune_verify.checker.solver import SOLVERS
from prune_verify.checker.verdict import Verdict
from prune_verify.checker.verify import Inputs, verify

__all__ = [
    "add_input_arguments",
    "add_proof_arguments",
    "add_receipt_arguments",
    "add_verify_arguments",
    "challenge_of",
    "main",
    "render_verdict",
    "run_check_proof",
    "run_check_receipt",
    "run_verify",
]


_NONCE = re.compile("(?:[0-9a-f]{2}){16,64}")  # 16 to 64 bytes
_EXACT = "compute every bound that decides in integers (python-flint makes it fast) instead of rigorous float64"


def add_verify_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``verify``, the same for the checker alone and for ``prune-verify verify``."""
    parser.add_argument("certificate", type=Path, metavar="NAME.unlearn.json", help="what the owner handed in")
    add_input_arguments(parser)


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """What a verification reads beside the certificate, and how it is done."""
    parser.add_argument("--base", type=Path, required=True, metavar="BASE.onnx", help="the base network")
    parser.add_argument("--patched", type=Path, required=True, metavar="PATCHED.onnx", help="the deployed network")
    parser.add_argument(
        "--trust", type=Path, metavar="TRUST.json", help="your store (required; `prune-verify trust init` makes one)"
    )
    parser.add_argument(
        "--policy", type=Path, metavar="POLICY.toml", help="yours (required; `prune-verify trust init` writes one)"
    )
    parser.add_argument("--evidence", type=Path, metavar="DIR", help="default: evidence/ beside the certificate")
    parser.add_argument("--forget", metavar="RECORDS", help="the forget set: npz, csv, or IMAGES,LABELS[:indices.txt]")
    parser.add_argument("--retain", metavar="RECORDS", help="the retained set")
    parser.add_argument("--openings", type=Path, metavar="FILE", help="default: openings.json beside the certificate")
    _add_earlier_files(parser)
    parser.add_argument("--label-column", metavar="NAME", help="label column of csv records")
    parser.add_argument("--encoding", type=Path, metavar="ENCODING.json", help="encoding of csv records")
    parser.add_argument("--challenge", metavar="FILE|HEX", help="the nonce that you gave the owner")
    parser.add_argument("--exact", action="store_true", help=_EXACT)
    parser.add_argument(
        "--resolve-smt", choices=SOLVERS, help="put what the owner left to z3 to this solver, installed here"
    )
    parser.add_argument("--at-time", metavar="T", help="judge validity at this time, YYYY-MM-DDTHH:MM:SSZ")
    for name, what in (("signature", "whoever signed, or nobody"), ("time", "whatever the dates say")):
        parser.add_argument(
            f"--insecure-skip-{name}", action="store_true", help=f"show the rest, {what}; never more than UNDECIDED"
        )


def _add_earlier_files(parser: argparse.ArgumentParser) -> None:
    """What the auditor holds from before: a commitment, receipts, the certificate that is replaced."""
    parser.add_argument(
        "--commitment",
        type=Path,
        metavar="C.commitment.json",
        help="of the training set, as you got it before training: forget and retained set together must be that set",
    )
    parser.add_argument(
        "--receipt",
        type=Path,
        action="append",
        default=[],
        metavar="R.receipt.json",
        help="of a data subject, whose record must be among the forgotten ones (repeatable)",
    )
    parser.add_argument(
        "--supersedes",
        type=Path,
        metavar="OLD.unlearn.json",
        help="the certificate that this one replaces, as you hold it: compare what both cover",
    )
    parser.add_argument("--superseded-forget", metavar="RECORDS", help="its forget set: compare record by record")
    parser.add_argument(
        "--superseded-openings", type=Path, metavar="FILE", help="default: openings.json beside OLD.unlearn.json"
    )


def add_proof_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``check-proof``."""
    parser.add_argument("network", type=Path, metavar="NET.onnx", help="the network that the property is about")
    parser.add_argument("property", type=Path, metavar="PROPERTY.vnnlib", help="what no input may do, in VNN-LIB 1.0")
    parser.add_argument("proof", type=Path, metavar="PROOF", help="as `prove --proof` wrote it")
    parser.add_argument(
        "--arithmetic", choices=ARITHMETICS, help="demand it; default: the proof's own, named in the answer"
    )
    parser.add_argument("--exact", action="store_true", help=_EXACT)


def add_receipt_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``check-receipt``, which ``prune-verify receipt check`` takes as well."""
    parser.add_argument("receipt", type=Path, metavar="R.receipt.json", help="as the owner gave it to you")
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument(
        "--commitment", type=Path, metavar="C.commitment.json", help="the record is in this committed training set"
    )
    one.add_argument(
        "--certificate", type=Path, metavar="NAME.unlearn.json", help="the record is in this certificate's forget set"
    )
    parser.add_argument(
        "--trust", type=Path, metavar="TRUST.json", help="yours; for --certificate, and to know who signed a commitment"
    )
    parser.add_argument("--record", metavar="RECORDS", help="your own record, to be compared: a file of one record")
    parser.add_argument("--label-column", metavar="NAME", help="label column of a csv record")
    parser.add_argument("--encoding", type=Path, metavar="ENCODING.json", help="encoding of a csv record")
    parser.add_argument("--at-time", metavar="T", help="judge keys at this time, YYYY-MM-DDTHH:MM:SSZ")


def run_check_receipt(options: argparse.Namespace) -> Verdict:
    """Check a receipt with parsed arguments.

    Raises:
        CheckError: could not run (exit 2).

    """
    inputs = ReceiptInputs(
        receipt=options.receipt,
        commitment=options.commitment,
        certificate=options.certificate,
        trust=options.trust,
        record=options.record,
        label_column=options.label_column,
        encoding=options.encoding,
        at_time=parse_time(options.at_time, "--at-time") if options.at_time else None,
    )
    return check_receipt(inputs)


def run_check_proof(options: argparse.Namespace) -> ProofVerdict:
    """Check a proof with parsed arguments.

    Raises:
        CheckError: could not run (exit 2).

    """
    return check_proof(options.network, options.property, options.proof, options.arithmetic, exact=options.exact)


def challenge_of(value: str | None) -> str | None:
    """A challenge from a value that is hex or names a challenge file.

    Raises:
        MalformedInputError: neither.

    """
    if value is None:
        return None
    if _NONCE.fullmatch(value):
        return value
    data, names = read_file(Path(value), "challenge", 2**16), ("formatVersion", "nonce", "createdAt", "note")
    fields = Members(parse_json(data, value), value, names)
    fields.integer("formatVersion", least=1, most=1)
    fields.time("createdAt")
    fields.text("note")
    nonce = fields.text("nonce", longest=128)
    if not _NONCE.fullmatch(nonce):
        raise MalformedInputError(fields.place("nonce"), "nonce", "32 to 128 lower-case hex digits", nonce)
    return nonce


def run_verify(options: argparse.Namespace, say: Callable[[str], None] = lambda _: None) -> Verdict:
    """Verify with parsed arguments.

    Raises:
        CheckError: could not run (exit 2).

    """
    for name in ("trust", "policy"):
        if getattr(options, name) is None:
            text = (
                "prune-verify trust init TRUST.json makes one, with a policy beside it; nothing is trusted by default"
            )
            raise MalformedInputError(f"--{name}", "the auditor's own file", text, "nothing")
    inputs = Inputs(
        certificate=options.certificate,
        base=options.base,
        patched=options.patched,
        trust=options.trust,
        policy=options.policy,
        evidence=options.evidence,
        openings=options.openings,
        forget=options.forget,
        retain=options.retain,
        label_column=options.label_column,
        encoding=options.encoding,
        challenge=challenge_of(options.challenge),
        supersedes=options.supersedes,
        superseded_forget=options.superseded_forget,
        superseded_openings=options.superseded_openings,
        insecure_skip_signature=options.insecure_skip_signature,
        insecure_skip_time=options.insecure_skip_time,
        exact=options.exact,
        resolve_smt=options.resolve_smt,
        at_time=parse_time(options.at_time, "--at-time") if options.at_time else None,
        commitment=options.commitment,
        receipts=tuple(options.receipt),
    )
    return verify(inputs, say)


def render_verdict(verdict: Verdict) -> str:
    """The verdict for a person: the stable line first."""
    return verdict.text()


_VERBS: dict[str, Callable[[argparse.Namespace], Verdict | ProofVerdict]] = {
    "verify": run_verify,
    "check-proof": run_check_proof,
    "check-receipt": run_check_receipt,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checker alone, with the arguments ``argv`` (default: those of the process).

    Returns:
        The exit code: 0 VERIFIED, 1 REJECTED, 3 UNDECIDED, 2 could not run.

    """
    parser = argparse.ArgumentParser(
        prog="python -P -m prune_verify.checker", description="check an unlearning certificate"
    )
    parser.add_argument("--version", action="version", version=f"prune-verify checker {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    one = verbs.add_parser(
        "verify", help="check a certificate", description="check a certificate; nothing is trusted by default"
    )
    add_verify_arguments(one)
    other = verbs.add_parser("check-proof", help="check a proof that a VNN-LIB property is unsat")
    add_proof_arguments(other)
    third = verbs.add_parser("check-receipt", help="check a receipt as the person whom its record is about")
    add_receipt_arguments(third)
    for each in (one, other, third):
        each.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(argv)
    try:
        verdict = _VERBS[options.verb](options)
    except CheckError as error:
        sys.stderr.write(f"could not run: {error}\n")
        return 2
    text = json.dumps(verdict.to_json(), sort_keys=True) if options.json else verdict.text()
    sys.stdout.write(text + "\n")
    return verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
