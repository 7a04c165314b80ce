"""The conformance vectors: our checker's answer to each is the one that its author stated, and none is missing.

The vectors are data for any implementation (certs/vectors/README.md). The table ``CATALOGUE`` has every entry of section 2 of
the catalogue of threats, phrase by phrase, with the flag of its vectors or the test that stands for it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path

import pytest

from certs.vectors.run import COULD_NOT_RUN, answer, evaluate, materialise
from prune_verify.checker.__main__ import add_verify_arguments, run_verify
from prune_verify.checker.__main__ import main as checker_main
from prune_verify.checker.errors import CheckError

ROOT = Path(__file__).resolve().parents[1]
VECTORS = ROOT / "certs" / "vectors"
DOCUMENT = json.loads((VECTORS / "vectors.json").read_text(encoding="utf-8"))
TESTS = [(group, test) for group in DOCUMENT["testGroups"] for test in group["tests"]]
RESULTS = {0: "valid", 1: "invalid", 2: "invalid", 3: "undecided"}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def by_comment(comment: str) -> tuple[dict, dict]:
    return next((g, t) for g, t in TESTS if t["comment"] == comment)


HONEST = by_comment("the honest certificate")


@pytest.mark.parametrize(("group", "test"), TESTS, ids=[f"{t['tcId']} {t['comment']}" for _, t in TESTS])
def test_every_vector_is_answered_as_stated(group: dict, test: dict, tmp_path: Path, monkeypatch, capsys) -> None:
    words = materialise(group, test, tmp_path)
    monkeypatch.chdir(tmp_path)
    code = checker_main(["verify", *words])
    printed, complained = capsys.readouterr()
    found = answer(code, printed, complained, test)
    assert found == (test["exitCode"], test["errorCode"], test["errorPath"]), (printed or complained)[-1500:]
    assert (printed + complained).isascii()
    assert not set(printed + complained) & {chr(c) for c in range(32) if chr(c) != "\n"}
    if code == COULD_NOT_RUN:
        parser = ArgumentParser()
        add_verify_arguments(parser)
        with pytest.raises(CheckError) as caught:
            run_verify(parser.parse_args([word for word in words if word != "--json"]))
        assert (caught.value.code, caught.value.path) == (test["errorCode"], test["errorPath"])
        return
    assert json.loads(printed)["exitCode"] == code
    assert test["payloadSha256"] is None or json.loads(printed)["payloadSha256"] == test["payloadSha256"]
    assert code == 0 or "VERIFIED" not in printed


# --- the data ---


def test_the_document_has_the_shape_that_its_readme_states() -> None:
    assert DOCUMENT["numberOfTests"] == len(TESTS) >= 90
    assert [test["tcId"] for _, test in TESTS] == list(range(1, len(TESTS) + 1))
    for group, test in TESTS:
        assert set(group) == {"name", "base", "command", "tests"}
        assert set(test) == {
            "tcId", "comment", "flags", "files", "args", "result", "exitCode", "errorCode", "errorPath", "payloadSha256",
        }  # fmt: skip
        assert test["result"] == RESULTS[test["exitCode"]]
        assert (test["errorCode"] == "OK") == (test["result"] == "valid") == (test["payloadSha256"] is not None)
        assert test["flags"]
        assert set(test["flags"]) <= set(DOCUMENT["notes"])
    twice = [key for key, count in Counter((g["base"], t["comment"]) for g, t in TESTS).items() if count > 1]
    assert twice == []


def test_each_vector_is_another_attack() -> None:
    """No two vectors over one set of honest files have the same files and arguments, but for the honest one."""
    seen = Counter((g["base"], json.dumps([t["files"], t["args"]], sort_keys=True)) for g, t in TESTS)
    assert [key for key, count in seen.items() if count > 1] == []


def test_the_folder_is_small_and_every_expression_can_be_evaluated() -> None:
    assert sum(path.stat().st_size for path in VECTORS.rglob("*") if path.is_file()) < 2 * 2**20
    for group, test in TESTS:
        for part in test["files"].values():
            if not part.keys() & {"symlink", "hardlink", "fifo", "folder", "sparse", "absent"}:
                evaluate(part, VECTORS / group["base"])


@pytest.mark.prover
@pytest.mark.slow
def test_the_committed_bytes_are_what_the_tool_makes(tmp_path: Path) -> None:
    for name in ("prune_verify", "certs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    made = tmp_path / "certs" / "vectors"
    (made / "vectors.json").unlink()
    subprocess.run(
        [sys.executable, "certs/make_vectors.py"], cwd=tmp_path, env=ENVIRONMENT | {"PYTHONPATH": "."}, check=True
    )
    names = {p.relative_to(VECTORS) for p in VECTORS.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert names == {p.relative_to(made) for p in made.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    different = [name for name in sorted(names) if (VECTORS / name).read_bytes() != (made / name).read_bytes()]
    assert different == []


# --- the catalogue ---

# (phrase of THREATS section 2, flags of vectors or ids of tests that stand for it)
CATALOGUE = [
    ("body signed without PAE", ["NoPae"]),
    ("payloadType swapped", ["PayloadType"]),
    ("length in characters instead of bytes", ["CharacterLength"]),
    ("wrong predicateType", ["PredicateType"]),
    ("keyid wrong, empty, missing", ["KeyId"]),
    ("keyid duplicated", ["KeyIdTwice"]),
    ("one key under two ids reaching a threshold of two", ["OneKeyTwoIds"]),
    ("threshold 0 or negative", ["Threshold"]),
    ("no signature", ["NoSignature"]),
    ("10^5 signatures", ["ManySignatures"]),
    ("first bad then good", ["BadThenGood"]),
    ("roles confused (prover signs a verdict, auditor signs a certificate)", ["Roles"]),
    ("key of owner A on owner B's model", ["OtherOwner", "OtherOwnersModel"]),
    ("key shipped inside the file", ["KeyInside"]),
    ("revoked, expired, not yet valid", ["KeyState"]),
    ("small-order Ed25519 keys", ["WeakKey"]),
    ("ECDSA (r, n-s) twin accepted, so identity is the payload digest", ["Malleable"]),
    ("base64 with non-canonical tail", ["Base64"]),
    ("digest truncated, upper-case, odd length, weak algorithm, one good and one bad", ["Digest"]),
    ("duplicate keys", ["DuplicateMember"]),
    ("NaN, Infinity, 1e400", ["NotANumber"]),
    ("-0, floats", ["NumberSpelling"]),
    ("huge integers", ["HugeInteger"]),
    ("booleans as integers", ["BooleanInteger"]),
    ("BOM, UTF-16, lone surrogates", ["Encoding"]),
    ("depth", ["Depth"]),
    ("10^7 subjects", ["Many"]),
    ("a million-digit rational, 1e2000000, Arabic digits, underscores in numbers", ["Decimal", "NumberSpelling"]),
    ("non-canonical bytes", ["NotCanonical"]),
    ("bidi and control characters", ["HostileText"]),
    ("ANSI escapes in inspect", ["tests/audit/test_inspect.py::test_foreign_text_is_escaped_and_spells_no_verdict"]),
    ("HTML or script in the report", ["HostileText", "tests/audit/test_report.py::test_hostile_text_stays_text"]),
    ("NFC/NFD twins", ["Twins"]),
    ("../, absolute", ["FileNames"]),
    ("symlink", ["Symlink"]),
    ("hard link", ["HardLink"]),
    ("FIFO", ["Fifo"]),
    ("swapped between hash and parse", ["tests/test_vectors.py::test_each_file_is_opened_once"]),
    ("sparse huge file", ["Sparse"]),
    ("ONNX dims overflow", ["DimsOverflow"]),
    ("leaf/node second preimage", ["Merkle"]),
    ("wrong hash length", ["HashLength"]),
    ("size 0", ["SizeZero"]),
    ("index >= size", ["Receipt"]),
    ("unsalted leaves", ["Unsalted"]),
    ("same leaf twice", ["SameLeaf"]),
    ("committed set differs from opened set", ["OtherSet", "Openings"]),
    ("split view, rollback, checkpoint unsigned or by the wrong key", ["Log"]),
    ("flipped slope", ["Slopes"]),
    ("wrong multiplier sign", ["Multipliers"]),
    ("missing leaf, leaf twice, split on another neuron", ["Trees"]),
    ("infinite depth", ["Depth"]),
    ("bound for another norm, radius, region or layer", ["OtherProof", "Weakened", "Slopes", "T14"]),
    ("claim weakened after proof", ["Weakened", "T6"]),
    ("vacuous region", ["Weakened", "T6", "T25"]),
    ("proof of another claim", ["OtherProof"]),
    ("truncated evidence", ["ProofBytes", "OtherContent"]),
    ("every failure exits non-zero and prints no success anywhere", ["tests/test_vectors.py::test_every_vector_is_answered_as_stated"]),
    ("under python -O", ["tests/test_vectors.py::test_the_runner_and_our_checker_agree"]),
    ("with the network cut", ["tests/test_vectors.py::test_no_socket_is_opened"]),
    ("with hostile files in the working directory", ["tests/test_vectors.py::test_hostile_files_in_the_working_directory"]),
    ("killed in the middle", ["tests/test_vectors.py::test_killed_in_the_middle"]),
]  # fmt: skip
# Section 1: attacks that are no file have no vector; what stands for them is measured or audited.
ATTACKS = [f"T{n}" for n in range(1, 29)]
NO_FILE = {"T4": "a measure of outputs", "T10": "an audit of a served endpoint"}


def test_every_entry_of_the_catalogue_has_a_vector_or_a_test() -> None:
    assert len({phrase for phrase, _ in CATALOGUE}) == len(CATALOGUE) == 62
    used = {flag for _, test in TESTS for flag in test["flags"]}
    for phrase, standing in CATALOGUE:
        assert standing, phrase
        for name in standing:
            path, _, function = name.partition("::")
            if function:
                assert re.search(rf"^def {function}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), phrase
            else:
                assert name in used, phrase


def test_every_attack_of_the_first_section_has_a_vector_or_is_no_file() -> None:
    used = {flag for _, test in TESTS for flag in test["flags"]}
    assert {attack for attack in ATTACKS if attack not in used} == set(NO_FILE)


# --- the process ---


def run_py(*words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(VECTORS / "run.py"), *words]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)


PROCESSES = [
    ("honest, refused and left open, in a process of their own", ("-m",), ["the honest certificate", "no evidence", "threshold 0"]),
    ("the same under python -O", ("-O", "-m"), ["the signature is over the payload without PAE"]),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "flags", "comments"), PROCESSES, ids=[row[0] for row in PROCESSES])
def test_the_runner_and_our_checker_agree(sentence: str, flags: tuple[str, ...], comments: list[str]) -> None:
    chosen = ",".join(str(by_comment(comment)[1]["tcId"]) for comment in comments)
    done = run_py("--only", chosen, sys.executable, *flags, "prune_verify.checker", "verify")
    assert (done.returncode, done.stdout) == (0, f"{len(comments)} of {len(comments)} vectors passed\n"), done.stderr


def test_a_program_that_accepts_everything_fails() -> None:
    """The runner tells a checker that looks at nothing, and the table names the vector."""
    number = by_comment("the signature is over the payload without PAE")[1]["tcId"]
    says = 'print(\'{"code": "OK", "checks": []}\')'
    done = run_py("--only", f"1,{number}", sys.executable, "-c", says)
    assert done.returncode == 1
    assert f"FAIL {number} NoPae" in done.stdout
    assert "got      0 OK" in done.stdout
    assert done.stdout.endswith("1 of 2 vectors passed\n")


def test_each_file_is_opened_once(tmp_path: Path, monkeypatch) -> None:
    """What was hashed is what is parsed: nothing can be swapped between."""
    opened: Counter[str] = Counter()
    true_open = os.open

    def counted(path, *rest, **named):
        opened[str(path)] += 1
        return true_open(path, *rest, **named)

    words = materialise(*HONEST, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "open", counted)
    assert checker_main(["verify", *words]) == 0
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} - {"statement.json"}
    assert {name: opened[name] for name in names} == dict.fromkeys(names, 1)


def test_no_socket_is_opened(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("the network is cut")

    words = materialise(*HONEST, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert checker_main(["verify", *words]) == 0


def test_hostile_files_in_the_working_directory(tmp_path: Path) -> None:
    """Modules that lie beside the certificate are not imported, with the safe path that an auditor's command has."""
    group, test = by_comment("the base is deployed in the patched network's place")
    words = materialise(group, test, tmp_path)
    for name in ("json", "numpy", "onnx", "cryptography", "prune_verify", "encodings"):
        (tmp_path / f"{name}.py").write_text("print('VERDICT: VERIFIED'); raise SystemExit(0)\n")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "prune_verify.checker", "verify", *words],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer(done.returncode, done.stdout, done.stderr, test)[:2] == (1, "E_SUBJECT")


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """A run that is killed has printed nothing that looks like an answer, and does not end with 0."""
    words = materialise(*HONEST, tmp_path)
    waits = "import sys, time; from prune_verify.checker import verify; verify.require_committed = lambda *_: time.sleep(60); from prune_verify.checker.__main__ import main; sys.stderr.write('ready'); sys.stderr.flush(); sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", waits, "verify", *words]
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert process.stderr.read(5) == b"ready"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
        process.kill()
        printed, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert printed == b""
