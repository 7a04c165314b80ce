"""The conformance cases: our checker's answer to each folder is the one that it states, and no kind of attack is without one.

The cases are data for any program (certs/conformance/README.md). ``MAKES`` and what follows it tell that they are what
the tool makes, that a program which accepts everything fails exactly where it must, and that the runner says so.
"""

from __future__ import annotations

import functools
import json
import os
import random
import re
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from certs.conformance.run import (
    ABOUT,
    CASES,
    COULD_NOT_RUN,
    STANDARD,
    VERIFIED,
    expected_of,
    fault,
    lay,
    names_of,
)
from prune_verify.checker import errors, policy
from prune_verify.checker.__main__ import add_verify_arguments, run_verify
from prune_verify.checker.__main__ import main as checker_main
from prune_verify.checker.errors import CheckError

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "certs" / "conformance" / "run.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
NAMES = names_of()
EXPECTED = {name: expected_of(name) for name in NAMES}
NEGATIVE = [name for name in NAMES if EXPECTED[name]["exitCode"] != VERIFIED]
SUFFIXES = {0: "", 1: "_fail", 2: "_unusable_fail", 3: "_undecided_fail"}
WORDS = {0: "VERIFIED", 1: "REJECTED", 2: None, 3: "UNDECIDED"}
# (line of the roster, the last step that can end before it stands there, the first that can end after)
PASSED = [("signature", 4, 4), ("statement", 4, 5), ("validity", 5, 5), ("models", 6, 6), ("policy", 10, 11)]
WITHOUT_A_FILE = {"T4", "T10"}  # a measure of outputs; an audit of a served endpoint

_load_public_key = functools.cache(policy.load_public_key)  # a pure function, and a slow one


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "load_public_key", _load_public_key)


# --- every case ---


@pytest.mark.parametrize("name", NAMES)
def test_every_case_is_answered_as_its_folder_states(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    expected, words = EXPECTED[name], lay(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    code = checker_main(["verify", *words])
    printed, complained = capsys.readouterr()
    assert fault(expected, code, printed, complained) == "", (printed or complained)[-1500:]
    assert (printed + complained).isascii()
    assert code == VERIFIED or "VERIFIED" not in printed + complained
    if code == COULD_NOT_RUN:
        parser = ArgumentParser()
        add_verify_arguments(parser)
        with pytest.raises(CheckError) as caught:
            run_verify(parser.parse_args([word for word in words if word != "--json"]))
        assert (caught.value.code, caught.value.path) == (expected["code"], expected["path"])
        return
    found = json.loads(printed)
    assert (found["verdict"], found["exitCode"]) == (expected["verdict"], expected["exitCode"])
    _require_step(expected, found["checks"])


def _require_step(expected: dict, checks: list[dict]) -> None:
    """The answer was found at the step that the folder names: what comes before it passed, what comes after did not."""
    passed = {check["id"] for check in checks if check["status"] == "PASS"}
    ended = expected["exitCode"] == 1 or any(c["status"] == "UNDECIDED" and c["path"] for c in checks)
    for line, last, first in PASSED:
        assert line in passed or expected["step"] <= last or not ended, line
        assert not (ended and line in passed and expected["step"] < first), line


# --- the data ---


def test_the_names_say_what_must_verify() -> None:
    for name, expected in EXPECTED.items():
        suffix = next(s for s in ("_unusable_fail", "_undecided_fail", "_fail", "") if name.endswith(s))
        assert suffix == SUFFIXES[expected["exitCode"]], name
        assert re.fullmatch(r"[a-z0-9-]+", name.removesuffix(suffix)), name
        assert expected["verdict"] == WORDS[expected["exitCode"]]
        assert (expected["code"] == "OK") == (expected["exitCode"] == 0) == (expected["payloadSha256"] is not None)


def test_there_are_enough_and_every_folder_is_whole() -> None:
    honest = [name for name in NAMES if name not in NEGATIVE]
    assert len(NAMES) >= 150
    assert len(honest) >= 50
    assert 3 * len(NEGATIVE) >= 2 * len(NAMES)
    for name in NAMES:
        page = (CASES / name / "README.md").read_text(encoding="ascii")
        assert re.match(r"[^\n]+\.\n\n", page), name
        assert set(EXPECTED[name]) == {
            "verdict", "exitCode", "code", "path", "payloadSha256", "base", "arguments", "instead", "step", "flag", "threat",
        }  # fmt: skip


def test_no_two_cases_are_the_same() -> None:
    seen = Counter()
    for name, expected in EXPECTED.items():
        files = {p.relative_to(CASES / name): p.read_bytes() for p in (CASES / name).rglob("*") if p.is_file()}
        own = sorted((str(path), data) for path, data in files.items() if str(path) not in ABOUT)
        seen[json.dumps([expected["base"], expected["arguments"], expected["instead"]]), tuple(own)] += 1
    assert max(seen.values()) == 1


def test_the_folder_is_small_and_holds_plain_files_only() -> None:
    paths = [path for path in RUN.parent.rglob("*") if "__pycache__" not in path.parts]
    assert not [path for path in paths if path.is_symlink() or not (path.is_file() or path.is_dir())]
    assert sum(path.stat().st_size for path in paths if path.is_file()) < 3.25 * 2**20
    assert max(path.stat().st_size for path in paths if path.is_file()) < 2**16 + 2**15  # README.md is the largest


def test_the_index_names_every_case() -> None:
    index = (RUN.parent / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[([a-z0-9_-]+)\]\(cases/\1\) \|", index, re.MULTILINE)) == NAMES
    assert f"{len(NAMES)} cases: {len(NAMES) - len(NEGATIVE)} must be VERIFIED, {len(NEGATIVE)} must not." in index


# --- what is covered ---


def test_every_flag_of_the_vectors_has_a_case() -> None:
    """The vectors' flags stand for every row of the catalogue of threats that is a file (tests/test_vectors.py)."""
    notes = json.loads((ROOT / "certs" / "vectors" / "vectors.json").read_text(encoding="utf-8"))["notes"]
    assert set(notes) - {expected["flag"] for expected in EXPECTED.values()} == set()
    attacks = {threat for expected in EXPECTED.values() for threat in re.findall(r"T\d+", expected["threat"])}
    assert {f"T{n}" for n in range(1, 29)} - attacks == WITHOUT_A_FILE


def test_every_error_code_and_every_step_has_a_case() -> None:
    classes = [errors.CheckError]
    for one in classes:
        classes += one.__subclasses__()
    ours = {one.code for one in classes[1:] if one.__module__ == errors.__name__}
    named = {expected["code"] for expected in EXPECTED.values()}
    assert named == ours | {"OK", "E_DATA_MISSING", "E_UNKNOWN", "E_ARITHMETIC", "E_INSECURE"}
    assert {expected["step"] for expected in EXPECTED.values()} == set(range(1, 12))


def test_every_family_has_honest_and_forged_cases() -> None:
    bases = {path.name for path in (ROOT / "certs" / "vectors" / "base").iterdir()}
    for names in ([n for n in NAMES if n not in NEGATIVE], NEGATIVE):
        assert {EXPECTED[name]["base"] for name in names} == bases


# --- made by the tool ---


def _some(count: int) -> list[str]:
    """Cases at random, others each day: the day is in the name of a failure."""
    return random.Random(time.strftime("%Y-%m-%d")).sample(NAMES, count)


def _require_made(names: list[str]) -> None:
    from certs.make_conformance import NOTES, folders, honest
    from certs.vector_maker.folders import laid, name_of

    by_name = {name_of(folder): folder for folder in folders()}
    assert sorted(by_name) == NAMES
    for name in names:
        folder = by_name[name]
        made = laid(folder, honest(folder.base), NOTES)
        kept = {str(p.relative_to(CASES / name)): p.read_bytes() for p in (CASES / name).rglob("*") if p.is_file()}
        assert made.keys() == kept.keys(), name
        assert [file for file in made if made[file] != kept[file]] == [], name


@pytest.mark.prover
def test_a_few_cases_are_what_the_tool_makes() -> None:
    _require_made(_some(12))


@pytest.mark.prover
@pytest.mark.slow
def test_all_cases_and_the_index_are_what_the_tool_makes() -> None:
    from certs.make_conformance import HEAD, NOTES, folders
    from certs.vector_maker.folders import index

    _require_made(NAMES)
    assert index(folders(), NOTES, HEAD) == (RUN.parent / "README.md").read_text(encoding="utf-8")


# --- the runner ---


def run_py(*words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(RUN), *words]  # -I: the standard library only
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def _accepted(names: list[str]) -> list[str]:
    return [f"ACCEPTED {name}: exit code 0 instead of {EXPECTED[name]['exitCode']}" for name in names]


def test_a_program_that_accepts_everything_fails_exactly_the_negative_cases(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    done = run_py("--exit-codes", "--jobs", "2", "--junit", str(report), "true")
    assert (done.returncode, done.stderr) == (1, "")
    *lines, passed, accepted = done.stdout.splitlines()
    assert lines == _accepted(NEGATIVE)
    assert passed == f"{len(NAMES) - len(NEGATIVE)} of {len(NAMES)} cases passed"
    assert accepted == f"VERIFIED though it must not be: {len(NEGATIVE)}"
    suite = ET.parse(report).getroot()  # noqa: S314 - our own file
    assert (suite.get("tests"), suite.get("failures")) == (str(len(NAMES)), str(len(NEGATIVE)))
    assert [case.get("name") for case in suite if len(case)] == NEGATIVE


def test_a_lax_program_whose_words_are_right_fails_the_negative_cases_too(tmp_path: Path) -> None:
    """It says VERIFIED to everything, with the identity of what it was shown."""
    lax = tmp_path / "lax.py"
    lax.write_text(
        "#!" + sys.executable + " -IS\n"
        "import base64, hashlib, json, sys\n"
        "payload = json.load(open(sys.argv[1], 'rb'))['payload']\n"
        "identity = hashlib.sha256(base64.b64decode(payload)).hexdigest()\n"
        "print(json.dumps({'verdict': 'VERIFIED', 'code': 'OK', 'payloadSha256': identity, 'checks': []}))\n"
    )
    lax.chmod(0o755)
    chosen = ["expired_fail", "honest-learned", "honest-records", "margin-zero_fail", "patch-stripped_fail"]
    done = run_py("--only", ",".join(chosen), str(lax), folder=tmp_path)
    assert done.stdout.splitlines()[:-2] == _accepted([name for name in chosen if name in NEGATIVE])
    assert "2 of 5 cases passed\n" in done.stdout


def test_our_checker_passes_in_processes_of_its_own() -> None:
    chosen = "honest-records,signature-without-pae_fail,evidence-fifo_undecided_fail,trust-identity-key_unusable_fail"
    done = run_py("--only", chosen, "--jobs", "2", sys.executable, "-P", "-m", "prune_verify.checker", "verify")
    assert (done.returncode, done.stdout) == (0, "4 of 4 cases passed\n"), done.stdout + done.stderr


def _says(text: str, code: int) -> str:
    return f"import sys; print({text!r}); sys.exit({code})"


ANSWERS = [
    ("the right exit code alone", "expired_fail", ("--exit-codes",), _says("no", 1), 0, ""),
    ("the right exit code without an object", "expired_fail", (), _says("no", 1), 1, "FAIL expired_fail: standard output is not the object"),
    ("another code", "expired_fail", (), _says('{"code": "E_PROOF", "payloadSha256": "", "checks": []}', 1), 1, "code 'E_PROOF' instead of 'E_POLICY'"),
    ("another place", "expired_fail", (), _says('{"code": "E_POLICY", "payloadSha256": "", "checks": []}', 1), 1, "path '' instead of 'predicate/expiresAt'"),
    ("another identity", "honest-records", (), _says('{"code": "OK", "payloadSha256": "00", "checks": []}', 0), 1, "payloadSha256 '00' instead of"),
    ("REJECTED where it must be UNDECIDED", "evidence-missing_undecided_fail", (), _says("", 1), 1, "exit code 1 instead of 3"),
    ("a verdict where the auditor's files cannot be used", "policy-nan_unusable_fail", (), _says("REJECTED policy.toml/claims/min_margin", 2), 1, "a verdict, although there is none"),
    ("no place where the auditor's files cannot be used", "policy-nan_unusable_fail", (), _says("error", 2), 1, "'policy.toml/claims/min_margin' is not named"),
    ("the place in an object", "policy-nan_unusable_fail", (), _says('{"error": "policy.toml/claims/min_margin: form"}', 2), 0, "1 of 1 cases passed"),
    ("no answer in time", "expired_fail", ("--timeout", "0.2"), "import time; time.sleep(60)", 1, "no answer within 0.2 seconds"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "name", "options", "program", "code", "says"), ANSWERS, ids=[r[0] for r in ANSWERS]
)
def test_the_runner_tells(
    sentence: str, name: str, options: tuple[str, ...], program: str, code: int, says: str
) -> None:
    done = run_py("--only", name, *options, sys.executable, "-c", program)
    assert done.returncode == code, done.stderr
    assert says in done.stdout


def test_the_runner_says_when_there_is_nothing_to_run() -> None:
    assert run_py("--only", "no-such-case", "true").returncode == 2
    done = run_py()
    assert (done.returncode, done.stdout) == (2, "")
    assert "no program" in done.stderr


def test_the_standard_arguments_are_those_of_the_readme() -> None:
    index = (RUN.parent / "README.md").read_text(encoding="utf-8")
    assert f"    PROGRAM {' '.join(STANDARD)} ARGUMENTS\n" in index


# --- the divergences ---


def test_every_divergence_names_what_shows_it() -> None:
    """Each row of certs/DIVERGENCES.md ends with cases or tests that exist, and has a standard, an answer and a reason."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "certs" / "DIVERGENCES.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| the standard")
    ]
    assert len(rows) >= 30
    for row in rows:
        assert len(row) == 4, row
        assert all(row), row
        shown = re.findall(r"`([^`]+)`", row[3])
        assert shown, row
        assert [name for name in shown if name not in EXPECTED and not (ROOT / name).is_file()] == [], row
        accepts_more = "**more**" in row[1]
        cases = [EXPECTED[name]["exitCode"] for name in shown if name in EXPECTED]
        assert not accepts_more or not any(cases), row
