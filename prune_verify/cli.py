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
from typing import TYPE_CHECKING

from prune_verify import __version__
from prune_verify.audit.endpoint_options import add_audit
from prune_verify.audit.key_options import Adder, add_challenge, add_keygen, add_sign, add_trust
from prune_verify.checker.__main__ import (
    add_proof_arguments,
    add_verify_arguments,
    render_verdict,
    run_check_proof,
    run_verify,
)
from prune_verify.refusals import refusal_of
from prune_verify.repair_options import add_repair, is_stream
from prune_verify.verb_examples import add_examples
from prune_verify.verb_options import (
    add_answers,
    add_bench,
    add_certify,
    add_completion,
    add_demo,
    add_encode,
    add_export,
    add_inspect,
    add_prove,
    add_request,
    add_verdict,
    common_options,
)

if TYPE_CHECKING:
    from prune_verify.progress import Progress

__all__ = ["command_line", "main"]

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


def _completion(options: argparse.Namespace) -> Result:
    from prune_verify.completion import script

    text = script(options.shell)
    return Result(0, text.rstrip("\n"), {"shell": options.shell, "script": text})


def _repair(options: argparse.Namespace) -> Result:
    if is_stream(options):
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


def _measure(options: argparse.Namespace) -> Result:
    from prune_verify.measure.command import run_measure

    with _progress(options) as progress:
        return Result(*run_measure(options, progress))


def _bench(options: argparse.Namespace) -> Result:
    from prune_verify.bench.command import run_bench
    from prune_verify.bench.own_data import OwnData

    if (options.train is None) != (options.test is None):
        return _failed("bench repair needs --train and --test together", "E_USAGE", 2)
    own = None if options.train is None else OwnData(options.train, options.test, options.label_column)
    rest = {name: getattr(options, name) for name in ("data", "quick", "full", "out", "cache")}
    return Result(*run_bench(options.what, own=own, say=_say(options), **rest))


def command_line() -> argparse.ArgumentParser:
    """The parser of every verb, from which help and the scripts of shells come too."""
    parser = argparse.ArgumentParser(
        prog="prune-verify", description="verified patch certificates for machine unlearning"
    )
    parser.add_argument("--version", action="version", version=f"prune-verify {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    common = [common_options()]
    from prune_verify.audit.commitments import add_verbs
    from prune_verify.measure.command import add_measure

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

    add_demo(add("demo", _demo, "the whole chain on the embedded data set, in about a minute"))
    add("doctor", _doctor, "what is installed, what is missing and the line that installs it")
    add_completion(add("completion", _completion, "print a script that completes command lines in your shell"))
    add_encode(add("encode", _encode, "fit the encoding of a csv table: numbers scaled to [0, 1], categories one-hot"))
    add_repair(add("repair", _repair, "find a patch that forgets records or classes"))
    add_request(add("request", _request, "write what is asked of a patched network that was made elsewhere"))
    add_certify(
        add("certify", _certify, "prove what the patched network does, and write a statement the checker accepts")
    )
    add_export(
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
    add_answers(verify)
    add_verdict(add("verdict", _verdict, "check a verdict file: which auditor signed it, and about which files"))
    check = add("check-proof", _check_proof, "check a proof that a VNN-LIB property has no counterexample")
    add_proof_arguments(check)
    add_prove(add("prove", _prove, "prove that a VNN-LIB property has no counterexample, and write the proof"))
    add_inspect(add("inspect", _inspect, "show a certificate without checking it"))
    add_audit(add("audit", _audit, "ask a deployed model whether it is the network of a certificate"))
    add_measure(actions("measure", _measure, "measure what is never proved: accuracy, disclosure, relearning, ..."))
    add_bench(add("bench", _bench, "measure the chain, repair, proving, checking or vectors, on this machine"))
    add_examples(parser)
    return parser


def _run(options: argparse.Namespace) -> Result:
    """Run one verb; what it refuses becomes a result with the exit code that it stands for."""
    try:
        with redirect_stdout(sys.stderr):  # libraries that print must not reach the one object on standard output
            result: Result = options.run(options)
    except (Exception, KeyboardInterrupt) as error:
        refused = refusal_of(error)
        if refused is None:
            raise
        return _failed(refused.text, refused.code, refused.exit_code, refused.data)
    return result


def _failed(text: str, code: str, exit_code: int, more: Mapping[str, object] = {}) -> Result:
    return Result(exit_code, text, {"error": text, "code": code, "exitCode": exit_code, **more}, failed=True)


def _shown(options: argparse.Namespace, result: Result) -> str:
    return json.dumps(result.data, sort_keys=True) if options.json else result.text


def run_words(argv: Sequence[str]) -> tuple[int, str]:
    """Run one verb in this process and give its exit code and what it prints."""
    options = command_line().parse_args(argv)
    result = _run(options)
    return result.code, _shown(options, result)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        The exit code.

    """
    options = command_line().parse_args(argv)
    result = _run(options)
    if result.failed:
        sys.stderr.write(f"prune-verify {options.verb}: {result.text}\n")
    if options.json or not result.failed:
        sys.stdout.write(_shown(options, result) + "\n")
    return result.code


if __name__ == "__main__":
    sys.exit(main())
