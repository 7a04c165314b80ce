"""The end of every ``--help``: who uses which verb, and command lines as people type them; a test parses every one."""

from __future__ import annotations

import argparse

__all__ = ["EXAMPLES", "PROGRAM", "add_examples"]

PROGRAM = """\
owners:         repair (or request), certify, sign; before training: commit
auditors:       trust, challenge, countersign, verify, audit, inspect
third parties:  verdict check
data subjects:  receipt check

exit codes: 0 done or VERIFIED, 1 REJECTED or refuted, 2 could not run, 3 UNDECIDED or a threat model that cannot be met

prune-verify VERB --help ends with examples; README.md has the whole chain of them, and `demo` runs it.\
"""

_SETS = "--forget forget.npz --retain retain.npz"
_AUDITOR = f"--base base.onnx --patched patched.onnx --trust trust.json --policy policy.toml {_SETS}"

# By verb, or by verb and action.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("prune-verify demo --out demo-out",),
    "doctor": ("prune-verify doctor", "prune-verify doctor --json"),
    "completion": (
        "prune-verify completion bash > ~/.local/share/bash-completion/completions/prune-verify",
        'prune-verify completion zsh > "${fpath[1]}/_prune-verify"',
        "prune-verify completion fish > ~/.config/fish/completions/prune-verify.fish",
    ),
    "encode": ("prune-verify encode train.csv --label-column income --out encoding.json",),
    "repair": (
        f"prune-verify repair base.onnx {_SETS} --out out",
        "prune-verify repair base.onnx --forget-class 3 --out out",
        "prune-verify repair base.onnx --onto out --forget more.npz --retain retain.npz --out next",
    ),
    "request": (f"prune-verify request base.onnx changed.onnx {_SETS} --out request.json",),
    "certify": (
        f"prune-verify certify base.onnx out/patched.onnx --request out/request.json {_SETS} --out out",
        (
            f"prune-verify certify base.onnx out/patched.onnx --request out/request.json {_SETS} --workers 8 "
            "--cache proofs --challenge challenge.json --out out"
        ),
        (
            f"prune-verify certify base.onnx out/patched.onnx --request out/request.json {_SETS} "
            "--measurements accuracy.json disclosure.json --out out"
        ),
    ),
    "export": (f"prune-verify export base.onnx out/patched.onnx --request out/request.json {_SETS} --out vnnlib",),
    "keygen": ("prune-verify keygen --out owner", "prune-verify keygen --encrypt --out owner"),
    "trust init": ("prune-verify trust init trust.json --policy-template regulator",),
    "trust add": ('prune-verify trust add trust.json --key owner.pub --name "Owner Ltd" --base base.onnx',),
    "trust revoke": (
        'prune-verify trust revoke trust.json --key owner.pub --reason "laptop stolen" --at 2026-05-01T00:00:00Z',
    ),
    "trust threshold": ("prune-verify trust threshold trust.json --role prover --threshold 2",),
    "trust renew": ("prune-verify trust renew trust.json --days 365",),
    "trust show": ("prune-verify trust show trust.json",),
    "challenge new": ("prune-verify challenge new --out challenge.json",),
    "commit": ("prune-verify commit train.npz --key owner.key --out train",),
    "countersign": ("prune-verify countersign train.commitment.json --key auditor.key",),
    "receipt make": (
        (
            "prune-verify receipt make train.npz --commitment train.commitment.json --record theirs.npz "
            "--out theirs.receipt.json"
        ),
    ),
    "receipt check": (
        (
            "prune-verify receipt check theirs.receipt.json --commitment train.commitment.json --trust trust.json "
            "--record mine.npz"
        ),
    ),
    "sign": (
        "prune-verify sign out/statement.json --key owner.key --out out/mine.unlearn.json",
        "prune-verify sign out/statement.json --key 'hsm:2?label=TOKEN' --out out/mine.unlearn.json",
    ),
    "verify": (
        f"prune-verify verify mine.unlearn.json {_AUDITOR}",
        (
            f"prune-verify verify mine.unlearn.json {_AUDITOR} --verdict-out mine.verdict.json "
            "--auditor-key auditor.key --report report.html"
        ),
    ),
    "verdict": (
        (
            "prune-verify verdict check mine.verdict.json --trust regulator.json --certificate mine.unlearn.json "
            "--policy policy.toml"
        ),
    ),
    "check-proof": ("prune-verify check-proof net.onnx property.vnnlib p.proof --exact",),
    "prove": ("prune-verify prove net.onnx property.vnnlib --proof p.proof --counterexample c.txt",),
    "inspect": ("prune-verify inspect mine.unlearn.json",),
    "measure accuracy": (
        "prune-verify measure accuracy base.onnx patched.onnx --test test.npz --forget forget.npz --retain retain.npz",
    ),
    "measure disclosure": (
        (
            "prune-verify measure disclosure base.onnx out/patch.json --forget forget.npz --public test.npz "
            "--image 8x8 --svg guesses.svg --out disclosure.json"
        ),
    ),
    "measure relearning": (
        (
            "prune-verify measure relearning base.onnx patched.onnx --forget forget.npz --retain retain.npz "
            "--test test.npz --svg curves.svg --out relearning.json"
        ),
    ),
    "measure membership": (
        (
            "prune-verify measure membership base.onnx patched.onnx --forget forget.npz --retain retain.npz "
            "--non-members test.npz --workers 2 --cache shadows --out OUT"
        ),
        (
            "prune-verify measure membership base.onnx patched.onnx --forget forget.npz --retain retain.npz "
            "--non-members test.npz --ensembles 20 --family non-member --cache shadows --out OUT"
        ),
    ),
    "audit": (
        f"prune-verify audit https://models.example/v2/models/credit --certificate mine.unlearn.json {_AUDITOR}",
    ),
    "bench": (
        "prune-verify bench chain --quick",
        "prune-verify bench repair --data DIR --out OUT",
        "prune-verify bench unlearning --quick --data DIR --out OUT --cache CACHE",
    ),
}


def add_examples(parser: argparse.ArgumentParser, verb: str = "") -> None:
    """Give the program and the verbs under it the ends of their help, as they stand in ``PROGRAM`` and ``EXAMPLES``.

    Args:
        parser: of the program, or of a verb that has actions.
        verb: the name of that verb; empty for the program.

    """
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list of a parser's subparsers
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for name, under in action.choices.items():
                add_examples(under, f"{verb} {name}".lstrip())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter  # the ends are laid out by hand
    if not verb:
        parser.epilog = PROGRAM
    if verb in EXAMPLES:
        parser.epilog = "\n".join(["examples:", *(f"  {line}" for line in EXAMPLES[verb])])
