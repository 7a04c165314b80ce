"""The command ``prune-verify``: thin; each verb imports its room inside its function.

Exit codes (FORMATS section 3): 0 done or VERIFIED, 1 REJECTED or refuted, 2 could not run, 3 UNDECIDED or
cannot meet the threat model.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prune_verify import __version__
from prune_verify.audit.endpoint_options import add_audit
from prune_verify.audit.key_options import Adder, add_challenge, add_keygen, add_secret, add_sign, add_trust
from prune_verify.checker.__main__ import (
    add_proof_arguments,
    add_verify_arguments,
    render_verdict,
    run_check_proof,
    run_verify,
)
from prune_verify.checker.check_proof import ARITHMETICS
from prune_verify.checker.errors import CheckError
from prune_verify.repair_options import OF_STREAMS, add_repair

if TYPE_CHECKING:
    from prune_verify.progress import Progress

__all__ = ["main"]

Json = object


@dataclass(frozen=True)
class Result:
    """What a verb hands back: an exit code, the text for a person, and one object for ``--json``."""

    code: int
    text: str
    data: Json
    failed: bool = False


def _progress(options: argparse.Namespace) -> Progress:
    from prune_verify.progress import Progress

    return Progress(enabled=not options.quiet and sys.stderr.isatty())


def _demo(options: argparse.Namespace) -> Result:
    from prune_verify.demo import run_demo

    return Result(*run_demo(options.out, seed=options.seed, say=_say(options)))


def _say(options: argparse.Namespace) -> Callable[[str], None]:
    """A sink for progress lines: standard error, or nothing under --quiet."""

    def say(line: str) -> None:
        if not options.quiet:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    return say


def _doctor(_: argparse.Namespace) -> Result:
    from prune_verify.doctor import examine

    return Result(*examine())


def _repair(options: argparse.Namespace) -> Result:
    if options.stream or any(getattr(options, name) is not None for name in OF_STREAMS):
        from prune_verify.repair.stream_command import stream_command as command
    else:
        from prune_verify.repair.command import repair_command as command

    with _progress(options) as progress:
        return Result(*command(options, progress))


def _request(options: argparse.Namespace) -> Result:
    from prune_verify.certify.request_command import request_command

    return Result(*request_command(options))


def _certify(options: argparse.Namespace) -> Result:
    from prune_verify.certify.command import certify_command

    with _progress(options) as progress:
        return Result(*certify_command(options, progress))


def _export(options: argparse.Namespace) -> Result:
    from prune_verify.certify.export_command import export_command

    with _progress(options) as progress:
        return Result(*export_command(options, progress))


def _keygen(options: argparse.Namespace) -> Result:
    from prune_verify.audit.key_commands import keygen_command

    return Result(*keygen_command(options))


def _trust(options: argparse.Namespace) -> Result:
    from prune_verify.audit.key_commands import trust_command

    return Result(*trust_command(options))


def _challenge(options: argparse.Namespace) -> Result:
    from prune_verify.audit.key_commands import challenge_command

    return Result(*challenge_command(options))


def _sign(options: argparse.Namespace) -> Result:
    from prune_verify.audit.key_commands import sign_command

    return Result(*sign_command(options))


def _commitments(options: argparse.Namespace) -> Result:
    from prune_verify.audit.commitments import run_verb

    return Result(*run_verb(options))


def _inspect(options: argparse.Namespace) -> Result:
    from prune_verify.audit.inspect import inspect_text
    from prune_verify.checker.encoding import read_file

    text = inspect_text(read_file(options.file, "certificate", 2**26))
    return Result(0, text, {"unverified": text})


def _encode(options: argparse.Namespace) -> Result:
    from prune_verify.checker.records import emit_encoding, fit_encoding

    found = fit_encoding(options.table, options.label_column)
    with options.out.open("xb") as file:  # an encoding that networks were trained with is never overwritten
        file.write(emit_encoding(found))
    labels = ", ".join(found.labels)
    text = f"wrote {options.out}: {found.width} numbers per record, labels {labels}\nsha256 {found.sha256}"
    return Result(0, text, {"encoding": str(options.out), "width": found.width, "sha256": found.sha256})


def _verify(options: argparse.Namespace) -> Result:
    say = _say(options) if sys.stderr.isatty() else lambda _: None
    if not any((options.report, options.report_json, options.verdict_out, options.auditor_key)):
        verdict = run_verify(options, say)
        return Result(verdict.exit_code, render_verdict(verdict), verdict.to_json())
    from prune_verify.audit.verify_command import verify_command

    return Result(*verify_command(options, say))


def _verdict(options: argparse.Namespace) -> Result:
    from prune_verify.audit.verify_command import verdict_check_command

    return Result(*verdict_check_command(options))


def _check_proof(options: argparse.Namespace) -> Result:
    verdict = run_check_proof(options)
    return Result(verdict.exit_code, verdict.text(), verdict.to_json())


def _prove(options: argparse.Namespace) -> Result:
    from prune_verify.certify.prove_command import prove_command

    return Result(*prove_command(options))


def _audit(options: argparse.Namespace) -> Result:
    try:
        from prune_verify.audit.endpoint_command import audit_command
    except ModuleNotFoundError as error:
        text = f"{error.name} is not installed; audit needs it: pip install 'prune-verify[endpoint]'"
        return _failed(text, "E_NOT_INSTALLED", 2)

    with _progress(options) as progress:
        return Result(*audit_command(options, progress, _say(options) if sys.stderr.isatty() else lambda _: None))


def _bench(options: argparse.Namespace) -> Result:
    from prune_verify.bench.command import run_bench
    from prune_verify.bench.own_data import OwnData

    if (options.train is None) != (options.test is None):
        return _failed("bench repair needs --train and --test together", "E_USAGE", 2)
    own = None if options.train is None else OwnData(options.train, options.test, options.label_column)
    rest = {"data": options.data, "own": own, "quick": options.quick, "out": options.out, "say": _say(options)}
    return Result(*run_bench(options.what, **rest))


def _common() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on standard output, everything else on standard error"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _add_request(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", type=Path, metavar="BASE.onnx")
    parser.add_argument("patched", type=Path, nargs="?", metavar="PATCHED.onnx", help="checked to fit the base")
    parser.add_argument("--forget", metavar="RECORDS", help="records to forget: npz, csv, or IMAGES,LABELS[:FILE]")
    parser.add_argument(
        "--forget-class", type=int, action="append", default=[], metavar="C", help="a label to forget (repeatable)"
    )
    parser.add_argument("--retain", metavar="RECORDS", help="records that must stay as they are")
    parser.add_argument("--label-column", metavar="NAME", help="label column of csv files")
    parser.add_argument("--encoding", type=Path, metavar="ENCODING.json", help="apply this encoding to csv files")
    parser.add_argument("--domain", metavar="LO,HI|FILE", help="input domain; default 0,1 when all data lie in it")
    parser.add_argument("--radius", help="radius of the forget balls in input units (decimal)")
    parser.add_argument("--retained-radius", help="radius of the retained balls (decimal)")
    parser.add_argument("--margin", help="least margin of every forget claim (decimal)")
    parser.add_argument("--delta", help="retain_close: largest change of a logit (decimal)")
    parser.add_argument("--band", metavar="LO,HI", help="band: ends of the forgotten label's margin, as --band=-9,-0.5")
    parser.add_argument("--cover", type=int, help="minimality: separating coordinates per retained record")
    parser.add_argument(
        "--claims", metavar="KIND,..", help="default: forget,retain_label; with --delta and --band also theirs"
    )
    parser.add_argument("--arithmetic", default="binary32,real", metavar="NAME,..", help="default: binary32,real")
    parser.add_argument("--reference", default="", help="opaque reference of the request")
    parser.add_argument("--out", type=Path, required=True, metavar="REQUEST.json")


def _add_sources(parser: argparse.ArgumentParser) -> None:
    """What ``certify`` and ``export`` read."""
    parser.add_argument("base", type=Path, metavar="BASE.onnx")
    parser.add_argument("patched", type=Path, metavar="PATCHED.onnx")
    parser.add_argument("--request", type=Path, required=True, metavar="REQUEST.json")
    parser.add_argument("--forget", metavar="RECORDS")
    parser.add_argument("--retain", metavar="RECORDS")
    parser.add_argument("--label-column", metavar="NAME")
    parser.add_argument("--encoding", type=Path, metavar="ENCODING.json")
    parser.add_argument("--patch", type=Path, help="default: patch.json beside the patched network")


def _add_export(parser: argparse.ArgumentParser) -> None:
    _add_sources(parser)
    parser.add_argument(
        "--records", default="0:10", metavar="FIRST:END", help="of each claim (default 0:10; : for all)"
    )
    parser.add_argument("--arithmetic", choices=ARITHMETICS, default="real", help="of the claims (default real)")
    parser.add_argument("--timeout", type=int, default=300, metavar="S", help="in instances.csv (default 300 seconds)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")


def _add_certify(parser: argparse.ArgumentParser) -> None:
    from prune_verify.certify.committed import add_committed

    _add_sources(parser)
    add_committed(parser)
    parser.add_argument("--challenge", metavar="FILE|HEX", help="the auditor's nonce")
    parser.add_argument("--supersedes", type=Path, metavar="CERTIFICATE", help="an earlier one that this one replaces")
    parser.add_argument(
        "--withdrawn", type=int, default=0, metavar="N", help="its records and classes that were taken back"
    )
    parser.add_argument("--days", type=int, default=365, help="validity from now")
    parser.add_argument(
        "--cross-check",
        type=int,
        default=10,
        metavar="N",
        help="forget claims to cross-check with auto_LiRPA (evenly spread)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds of branch and bound, and of each solver query, for one record (default 10)",
    )
    parser.add_argument(
        "--engine",
        default="auto_lirpa",
        metavar="NAME",
        help="what looks for slopes: auto_lirpa (the default), or none: rule crown, splits and z3 alone",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that prove (default 1)")
    parser.add_argument("--cluster", metavar="tcp://HOST:PORT", help="a Dask scheduler whose workers prove instead")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep what was found here, by content; a killed run goes on from it"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prune-verify", description="verified patch certificates for machine unlearning"
    )
    parser.add_argument("--version", action="version", version=f"prune-verify {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    common = [_common()]
    from prune_verify.audit.commitments import add_verbs

    def add(name: str, run: Callable[[argparse.Namespace], Result], text: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text, parents=common)
        made.set_defaults(run=run)
        return made

    def actions(name: str, run: Callable[[argparse.Namespace], Result], text: str) -> Adder:
        of_verb = verbs.add_parser(name, help=text, description=text)
        listed = of_verb.add_subparsers(dest="action", required=True, metavar="ACTION")

        def action(word: str, what: str) -> argparse.ArgumentParser:
            made = listed.add_parser(word, help=what, description=what, parents=common)
            made.set_defaults(run=run)
            return made

        return action

    demo = add("demo", _demo, "the whole chain on the embedded data set, in about a minute")
    demo.add_argument("--out", type=Path, default=Path("demo-out"), metavar="DIR")
    demo.add_argument("--seed", type=int, default=0)
    add("doctor", _doctor, "what is installed, what is missing and the line that installs it")
    _add_encode(add("encode", _encode, "fit the encoding of a csv table: numbers scaled to [0, 1], categories one-hot"))
    add_repair(add("repair", _repair, "find a patch that forgets records or classes"))
    _add_request(add("request", _request, "write what is asked of a patched network that was made elsewhere"))
    _add_certify(
        add("certify", _certify, "prove what the patched network does, and write a statement the checker accepts")
    )
    _add_export(
        add(
            "export", _export, "write a request's claims as VNN-LIB properties with their networks, for other verifiers"
        )
    )
    add_keygen(add("keygen", _keygen, "make a signing key, or show the public half of one on a token"))
    add_trust(actions("trust", _trust, "the auditor's trust store: whose keys count, in which roles, and from when on"))
    add_challenge(actions("challenge", _challenge, "the auditor's own nonces"))
    add_verbs(verbs, common, _commitments)
    add_sign(add("sign", _sign, "sign a statement"))
    verify = add("verify", _verify, "check a certificate as an auditor who trusts nothing the owner says")
    add_verify_arguments(verify)
    _add_answers(verify)
    _add_verdict(add("verdict", _verdict, "check a verdict file: which auditor signed it, and about which files"))
    check = add("check-proof", _check_proof, "check a proof that a VNN-LIB property has no counterexample")
    add_proof_arguments(check)
    _add_prove(add("prove", _prove, "prove that a VNN-LIB property has no counterexample, and write the proof"))
    add("inspect", _inspect, "show a certificate without checking it").add_argument("file", type=Path)
    add_audit(add("audit", _audit, "ask a deployed model whether it is the network of a certificate"))
    bench = add("bench", _bench, "measure the chain, repair, proving, checking or vectors, on this machine")
    bench.add_argument("what", choices=["chain", "repair", "check", "prove", "claims", "vectors"])
    bench.add_argument("--data", type=Path, help="folder with mnist/, adult/, vnncomp/, vectors/ (default: digits)")
    bench.add_argument("--train", metavar="RECORDS", help="repair: records of your own as well (npz, csv or idx)")
    bench.add_argument("--test", metavar="RECORDS", help="repair: test records of the same kind")
    bench.add_argument("--label-column", metavar="NAME", help="repair: of csv files")
    bench.add_argument("--quick", action="store_true", help="smaller sizes")
    bench.add_argument("--out", type=Path, metavar="DIR", help="where it writes (default: a temporary folder)")
    return parser


def _add_answers(parser: argparse.ArgumentParser) -> None:
    """What ``verify`` writes beside its answer."""
    parser.add_argument(
        "--verdict-out", type=Path, metavar="NAME.verdict.json", help="a signed verdict for third parties"
    )
    parser.add_argument("--auditor-key", metavar="FILE|URI", help="the key that signs it")
    add_secret(parser, "passphrase or PIN")
    parser.add_argument("--report", type=Path, metavar="OUT.html", help="a report for people, one self-contained file")
    parser.add_argument("--report-json", type=Path, metavar="OUT.json", help="the same report as data")
    parser.add_argument("--test", metavar="RECORDS", help="held-out records for the report's before-and-after table")
    parser.add_argument("--learning", type=Path, metavar="learning.json", help="learning curves for the report")


def _add_verdict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["check"])
    parser.add_argument("file", type=Path, metavar="NAME.verdict.json")
    parser.add_argument(
        "--trust", type=Path, required=True, help="your trust store; the signer needs role auditor in it"
    )
    parser.add_argument(
        "--certificate", type=Path, metavar="NAME.unlearn.json", help="it must be about this certificate"
    )
    parser.add_argument("--policy", type=Path, help="it must have been judged by this policy")
    parser.add_argument("--base", type=Path, help="it must be about this base network")
    parser.add_argument("--patched", type=Path, help="it must be about this patched network")
    parser.add_argument("--at-time", metavar="T", help="judge keys at this time, YYYY-MM-DDTHH:MM:SSZ")
    parser.add_argument("--max-age-days", type=int, metavar="N", help="refuse a verdict that judged validity earlier")


def _add_encode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, metavar="TABLE.csv")
    parser.add_argument("--label-column", required=True, metavar="NAME")
    parser.add_argument("--out", type=Path, required=True, metavar="ENCODING.json")


def _add_prove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", type=Path, metavar="NET.onnx")
    parser.add_argument("property", type=Path, metavar="PROPERTY.vnnlib", help="VNN-LIB 1.0")
    parser.add_argument("--proof", type=Path, metavar="P", help="write the proof of an unsat answer here")
    parser.add_argument(
        "--counterexample",
        type=Path,
        metavar="C",
        help="write the counterexample of a sat answer here, in VNN-COMP's form",
    )
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds (default 60)")
    parser.add_argument("--arithmetic", choices=ARITHMETICS, default="real", help="of the claim (default real)")


def _refusals() -> tuple[type[Exception], ...]:
    """The refusals of rooms that have been imported; each carries its exit code."""
    found: list[type[Exception]] = [CheckError, OSError]
    for module, name in (
        ("prune_verify.request_sets", "RequestInputError"),
        ("prune_verify.repair.errors", "RepairError"),
        ("prune_verify.certify.errors", "CertifyError"),
        ("prune_verify.bounds.errors", "BoundsError"),
        ("prune_verify.demo", "DemoError"),
        ("prune_verify.bench.chain", "BenchError"),
    ):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def _run(options: argparse.Namespace) -> Result:
    """Run one verb; what it refuses becomes a result with the exit code that it stands for."""
    try:
        with redirect_stdout(sys.stderr):  # libraries that print must not reach the one object on standard output
            result: Result = options.run(options)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("prune_verify"):
            raise
        text = f"{error.name} is not installed; `prune-verify doctor` prints the line that installs it"
        return _failed(text, "E_NOT_INSTALLED", 2)
    except KeyboardInterrupt:
        return _failed("interrupted; nothing half-written was left", "E_INTERRUPTED", 2)
    except Exception as error:
        if not isinstance(error, _refusals()):
            raise
        if isinstance(error, OSError):
            return _failed(f"{error.filename or ''}: {error.strerror or error}", "E_IO", 2)
        code, exit_code = str(getattr(error, "code", type(error).__name__)), int(getattr(error, "exit_code", 2))
        return _failed(str(error), code, exit_code, getattr(error, "data", {}))
    return result


def _failed(text: str, code: str, exit_code: int, more: Mapping[str, object] = {}) -> Result:
    return Result(exit_code, text, {"error": text, "code": code, "exitCode": exit_code, **more}, failed=True)


def _shown(options: argparse.Namespace, result: Result) -> str:
    return json.dumps(result.data, sort_keys=True) if options.json else result.text


def run_words(argv: Sequence[str]) -> tuple[int, str]:
    """Run one verb in this process and give its exit code and what it prints."""
    options = _parser().parse_args(argv)
    result = _run(options)
    return result.code, _shown(options, result)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        The exit code.

    """
    options = _parser().parse_args(argv)
    result = _run(options)
    if result.failed:
        sys.stderr.write(f"prune-verify {options.verb}: {result.text}\n")
    if options.json or not result.failed:
        sys.stdout.write(_shown(options, result) + "\n")
    return result.code


if __name__ == "__main__":
    sys.exit(main())
