"""``verify`` with something to write (a verdict, a report), and ``verdict check``, as the command line runs them.

Keys, folders and places are looked at before the check begins, which may take an hour; a verdict is signed only
when one was reached.

Source: FORMATS section 3.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from prune_verify.audit.report_command import report_of_verification
from prune_verify.audit.verdict_file import VerdictWriter, check_verdict, verdict_writer
from prune_verify.checker.__main__ import challenge_of, run_verify
from prune_verify.checker.encoding import parse_time
from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.verdict import Verdict

__all__ = ["verdict_check_command", "verify_command"]

_READ = (
    "certificate", "base", "patched", "trust", "policy", "openings", "encoding", "learning", "auditor_key", "challenge",
    "forget", "retain", "test", "commitment", "receipt", "supersedes", "superseded_forget", "superseded_openings",
    "measurements",
)  # fmt: skip
_WRITTEN = ("verdict_out", "report", "report_json")


def verify_command(options: argparse.Namespace, say: Callable[[str], None]) -> tuple[int, str, object]:
    """Verify, and write what was asked for.

    Args:
        options: the arguments of ``verify``.
        say: called with a few words before each long step.

    Returns:
        Exit code, text, and the object for ``--json``.

    Raises:
        CheckError: could not run, or nothing may be written as asked (exit 2).
        OSError: a file cannot be written.

    """
    writer = _prepared(options)
    options.challenge = challenge_of(options.challenge)  # read once: what is checked is what is signed and shown
    verdict = run_verify(options, say)
    if options.report is not None or options.report_json is not None:
        report_of_verification(verdict, options)
    wrote = [f"wrote {path}" for path in (options.report, options.report_json) if path is not None]
    if writer is not None:  # last: where the command ends with 2, there is no verdict
        _write_verdict(writer, verdict, options)
        wrote.append(f"wrote {writer.path}, signed by {writer.keyid}")
    return verdict.exit_code, "\n".join([verdict.text(), *wrote]), verdict.to_json()


def _prepared(options: argparse.Namespace) -> VerdictWriter | None:
    """Everything that can be refused before the check: places that are inputs or missing, half a pair, a bad key."""
    if (options.verdict_out is None) != (options.auditor_key is None):
        missing, given = (
            ("--auditor-key", "--verdict-out") if options.auditor_key is None else ("--verdict-out", "--auditor-key")
        )
        raise MalformedInputError(
            missing, "a verdict and the key that signs it", f"both, or neither: {given} is given", "nothing"
        )
    taken = {_real(str(found)): name for name in _READ for found in _each(getattr(options, name))}
    for name in _WRITTEN:
        path: Path | None = getattr(options, name)
        if path is None:
            continue
        option, place = f"--{name.replace('_', '-')}", _real(str(path))
        if place in taken:
            other = taken[place].replace("_", "-")
            raise MalformedInputError(option, "a place to write", f"another file than that of {other}", str(path))
        if not path.parent.is_dir():
            raise MalformedInputError(option, "a place to write", "a folder that exists", str(path.parent))
        taken[place] = name
    return (
        None
        if options.verdict_out is None
        else verdict_writer(options.verdict_out, options.auditor_key, options.passphrase_env)
    )


def _each(found: object) -> list[object]:
    """The values of an option that may be missing or given several times."""
    return found if isinstance(found, list) else [] if found is None else [found]


def _real(path: str) -> str:
    try:
        return str(Path(path).resolve())
    except (OSError, ValueError):  # no path at all, as a challenge in hex may be
        return path


def _write_verdict(writer: VerdictWriter, verdict: Verdict, options: argparse.Namespace) -> None:
    writer.write(
        verdict,
        options.patched,
        at_time=parse_time(options.at_time, "--at-time") if options.at_time else None,
        challenge=options.challenge,
        exact=options.exact,
        resolve_smt=options.resolve_smt,
    )


def verdict_check_command(options: argparse.Namespace) -> tuple[int, str, object]:
    """Check a verdict file.

    Returns:
        Exit code, text, and the object for ``--json``.

    Raises:
        CheckError: could not run (exit 2).
        OSError: a network cannot be read.

    """
    found = check_verdict(
        options.file,
        options.trust,
        certificate=options.certificate,
        policy=options.policy,
        base=options.base,
        patched=options.patched,
        now=parse_time(options.at_time, "--at-time") if options.at_time else None,
        max_age_days=options.max_age_days,
    )
    return found.exit_code, found.text(), found.to_json()
