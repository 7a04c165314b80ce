"""Run a program that checks certificates over the conformance cases; the standard library only. See README.md.

python run.py [--exit-codes] [--only NAME,..] [--jobs N] [--timeout S] [--junit FILE] PROGRAM [WORD ...]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from time import monotonic
from typing import Any
from xml.etree import ElementTree as ET

HERE = Path(__file__).resolve().parent
CASES = HERE / "cases"
BASES = HERE.parent / "vectors" / "base"
ABOUT = ("expected.json", "README.md")  # of a folder: about the case, no files of it
STANDARD = (
    "certificate.unlearn.json", "--base", "base.onnx", "--patched", "patched.onnx", "--trust", "trust.json",
    "--policy", "policy.toml", "--json",
)  # fmt: skip
VERIFIED, COULD_NOT_RUN = 0, 2
VERDICTS = ("VERIFIED", "REJECTED", "UNDECIDED")


@dataclass(frozen=True)
class Outcome:
    """What a program made of a case.

    Args:
        name: of the folder.
        wrong: what is not as expected, or empty.
        seconds: of the run.
        accepted: VERIFIED where it must not be: the one fault that lets a forger through.

    """

    name: str
    wrong: str
    seconds: float
    accepted: bool = False


def names_of(only: str = "") -> list[str]:
    """The cases, in the order of their names: all, or those that match a name with * and ?."""
    patterns = [pattern for pattern in only.split(",") if pattern]
    found = sorted(path.name for path in CASES.iterdir() if path.is_dir())
    return [name for name in found if not patterns or any(fnmatch(name, pattern) for pattern in patterns)]


def expected_of(name: str) -> dict[str, Any]:
    """What a folder says that the answer must be."""
    found: dict[str, Any] = json.loads((CASES / name / "expected.json").read_text(encoding="utf-8"))
    return found


def _put(target: Path, form: dict[str, Any], folder: Path) -> None:
    """Something that is no plain file."""
    target.unlink(missing_ok=True)
    if "symlink" in form:
        target.symlink_to(form["symlink"])
    elif "hardlink" in form:
        os.link(folder / form["hardlink"], target)
    elif "fifo" in form:
        os.mkfifo(target)
    elif "folder" in form:
        target.mkdir()
    elif "sparse" in form:
        with target.open("wb") as stream:
            stream.truncate(form["sparse"])


def lay(name: str, folder: Path) -> list[str]:
    """Lay a case's files into a folder, the honest ones first; gives the arguments of the program."""
    expected = expected_of(name)
    shutil.copytree(BASES / expected["base"], folder, dirs_exist_ok=True)
    shutil.copytree(CASES / name, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*ABOUT))
    for file, form in expected["instead"].items():
        _put(folder / file, form, folder)
    return [*STANDARD, *expected["arguments"]]


def fault(expected: dict[str, Any], code: int, printed: str, complained: str, *, exit_codes: bool = False) -> str:
    """What is wrong with an answer, in a few words; empty when nothing is."""
    if code != expected["exitCode"]:
        return f"exit code {code} instead of {expected['exitCode']}"
    if exit_codes:
        return ""
    if code == COULD_NOT_RUN:
        if any(word in printed for word in VERDICTS):
            return "a verdict, although there is none"
        return "" if expected["path"] in printed + complained else f"{expected['path']!r} is not named"
    try:
        found = json.loads(printed)
        path = next((c["path"] for c in found["checks"] if c["code"] == found["code"] != "OK"), "")
        got = {"code": found["code"], "path": path, "payloadSha256": found["payloadSha256"]}
    except (ValueError, KeyError, TypeError) as error:
        return f"standard output is not the object that is asked for: {error!r}"[:200]
    wanted = {member: expected[member] for member in got}
    if code != VERIFIED:
        wanted["payloadSha256"] = got["payloadSha256"]  # it may be refused before anybody knows what was signed
    return "; ".join(f"{k} {got[k]!r} instead of {wanted[k]!r}" for k in got if got[k] != wanted[k])


def run_case(name: str, program: Sequence[str], *, exit_codes: bool, timeout: float) -> Outcome:
    """Run the program on one case, in a folder that holds nothing else."""
    expected, start = expected_of(name), monotonic()
    with tempfile.TemporaryDirectory() as folder:
        words = lay(name, Path(folder))
        try:
            done = subprocess.run(  # noqa: S603 - the program that the caller named
                [*program, *words], cwd=folder, capture_output=True, text=True, errors="replace", check=False,
                stdin=subprocess.DEVNULL, timeout=timeout,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Outcome(name, f"no answer within {timeout:g} seconds", monotonic() - start)
    wrong = fault(expected, done.returncode, done.stdout, done.stderr, exit_codes=exit_codes)
    accepted = done.returncode == VERIFIED != expected["exitCode"]
    return Outcome(name, wrong, monotonic() - start, accepted)


def junit(outcomes: Sequence[Outcome]) -> bytes:
    """The outcomes as a JUnit report."""
    failures = sum(1 for outcome in outcomes if outcome.wrong)
    suite = ET.Element("testsuite", name="prune-verify conformance", tests=str(len(outcomes)), failures=str(failures))
    for outcome in outcomes:
        case = ET.SubElement(
            suite, "testcase", classname="conformance", name=outcome.name, time=f"{outcome.seconds:.3f}"
        )
        if outcome.wrong:
            ET.SubElement(case, "failure", message=outcome.wrong)
    return ET.tostring(suite, encoding="utf-8", xml_declaration=True)


def main(argv: list[str]) -> int:
    """Run the cases; 1 when one of them fails, 2 when there is nothing to run."""
    parser = argparse.ArgumentParser(description="run a certificate checker over the conformance cases")
    parser.add_argument("--exit-codes", action="store_true", help="compare exit codes only")
    parser.add_argument("--only", default="", help="names of folders, separated by commas; * and ? stand for anything")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds that a case may take")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write a JUnit report")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="the program and its first words")
    options = parser.parse_args(argv)
    names = names_of(options.only)
    if not options.program or not names:
        missing = "no program" if names else f"no case is named {options.only}"
        sys.stderr.write(f"nothing to run: {missing}; such as: run.py python -P -m prune_verify.checker verify\n")
        return 2
    program = [str(Path(w).absolute()) if os.sep in w and Path(w).exists() else w for w in options.program]
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        outcomes = list(
            pool.map(
                lambda name: run_case(name, program, exit_codes=options.exit_codes, timeout=options.timeout), names
            )
        )
    for outcome in outcomes:
        if outcome.wrong:
            word = "ACCEPTED" if outcome.accepted else "FAIL"
            sys.stdout.write(f"{word} {outcome.name}: {outcome.wrong}\n")
    if options.junit is not None:
        options.junit.write_bytes(junit(outcomes))
    failed, accepted = sum(1 for o in outcomes if o.wrong), sum(1 for o in outcomes if o.accepted)
    sys.stdout.write(f"{len(outcomes) - failed} of {len(outcomes)} cases passed\n")
    if accepted:
        sys.stdout.write(f"VERIFIED though it must not be: {accepted}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
