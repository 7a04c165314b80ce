"""``prune-verify bench vectors``: what it counts, and that a wrong answer ends it with 1."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from pathlib import Path

import pytest

from prune_verify.bench.vectors import ACCEPT, EITHER, REFUSE, Answer, Suite, run_bench_vectors
from prune_verify.cli import main

# suite -> (must be accepted: accepted, refused; must be refused: accepted, refused; left open: accepted, refused)
FIGURES = {
    "Wycheproof Ed25519": (88, 0, 0, 63, 0, 0),
    "Wycheproof ECDSA P-256": (174, 0, 0, 310, 0, 0),
    "transparency-dev/merkle inclusion": (6, 0, 0, 92, 0, 0),
    "JSONTestSuite": (76, 19, 0, 188, 0, 35),
    "JSONTestSuite, as signed files": (40, 55, 0, 188, 0, 35),
}


def _figures(rows: dict) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(row[expected][word] for expected in (ACCEPT, REFUSE, EITHER) for word in ("accepted", "refused"))
        for name, row in rows.items()
    }


@pytest.mark.shared_data
def test_public_vectors_are_answered_as_their_suites_say(shared_data: Path, capsys) -> None:
    if not (shared_data / "vectors").is_dir():
        pytest.skip(f"no vectors at {shared_data}")
    assert main(["bench", "vectors", "--data", str(shared_data), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert _figures(found["suites"]) | FIGURES == _figures(found["suites"])
    assert found["wrong"] == 0
    purposes = [line for line in found["details"] if "refused on purpose" in line]
    assert len(purposes) == 7
    assert "y_object_duplicated_key.json" in "".join(purposes)


def test_vectors_of_points_where_they_are(shared_data: Path) -> None:
    """C2SP/CCTV is under a licence of its own and not part of this project: laid in DATA, it is answered as well."""
    if not (shared_data / "vectors" / "cctv").is_dir():
        pytest.skip(f"no CCTV vectors at {shared_data}/vectors/cctv")
    _, _, found = run_bench_vectors(shared_data, say=lambda _: None)
    assert _figures(found["suites"])["CCTV Ed25519"] == (0, 0, 0, 912, 2, 0)


# --- a data folder of our own, with one right vector in each suite and a wrong one where a row says so ---


def _leaf() -> bytes:
    return sha256(b"\0leaf").digest()


def _write(folder: Path, name: str, value: object) -> None:
    path = folder / "vectors" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def _inclusion(*, refuse: bool) -> dict[str, object]:
    text = base64.b64encode(_leaf()).decode()
    return {"leafIdx": 0, "treeSize": 1, "root": text, "leafHash": text, "proof": None, "wantErr": refuse}


def _signature(result: str, sig: str) -> dict[str, object]:
    key = "302a300506032b6570032100d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"  # RFC 8032, 7.1
    return {
        "testGroups": [
            {
                "publicKeyDer": key,
                "tests": [{"tcId": 9, "comment": "empty", "flags": [], "msg": "", "sig": sig, "result": result}],
            }
        ]
    }


GOOD = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
_ED = "wycheproof/ed25519_test.json"
_IDENTITY = {"number": 3, "key": "01" + "00" * 31, "sig": "01" + "00" * 63, "msg": "m", "flags": ["low_order_A"]}
PLANTED = [
    ("all right", _ED, _signature("valid", GOOD), 0, ""),
    ("an invalid signature that verifies", _ED, _signature("invalid", GOOD), 1, "WRONG Wycheproof Ed25519: 9 (empty): must refuse, got accepted"),
    ("a valid signature that does not", _ED, _signature("valid", GOOD[:-2] + "00"), 1, "WRONG Wycheproof Ed25519: 9 (empty): must accept, got signature"),
    ("an acceptable signature", _ED, _signature("acceptable", GOOD), 0, "Wycheproof Ed25519: left open by the suite, 1: accepted"),
    ("a key of low order, refused when it is loaded", "cctv/ed25519vectors.json", [_IDENTITY], 0, ""),
    ("a good key under a flag that must be refused", "cctv/ed25519vectors.json", [_IDENTITY | {"key": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "sig": GOOD, "msg": ""}], 1, "WRONG CCTV Ed25519: 3 (low_order_A): must refuse"),
    ("an inclusion that holds and must not", "merkle/testdata/inclusion/0/a.json", _inclusion(refuse=True), 1, "WRONG transparency-dev/merkle inclusion: 0/a.json: must refuse"),
    ("an inclusion that holds", "merkle/testdata/inclusion/0/a.json", _inclusion(refuse=False), 0, ""),
    ("JSON that must not be read and is", "json/test_parsing/n_a.json", "{}", 1, "WRONG JSONTestSuite: n_a.json: must refuse"),
    ("JSON that must be read and is none", "json/test_parsing/y_a.json", "{", 1, "WRONG JSONTestSuite: y_a.json: must accept, got JSON"),
    ("JSON that is refused on purpose", "json/test_parsing/y_a.json", "[1.5]", 0, "JSONTestSuite: 1 refused on purpose (JSON number; no float"),
    ("JSON in another spelling than signed files have", "json/test_parsing/y_a.json", "[ 1]", 0, "as signed files: 1 refused on purpose (canonical JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "name", "value", "code", "says"), PLANTED, ids=[row[0] for row in PLANTED])
def test_a_wrong_answer_ends_the_run_with_1(
    sentence: str, name: str, value: object, code: int, says: str, tmp_path: Path
) -> None:
    _write(tmp_path, name, value)
    found, text, data = run_bench_vectors(tmp_path, say=lambda _: None)
    assert (found, says in text) == (code, True), text
    assert data["wrong"] == text.count("WRONG ")
    assert "not in" in text  # the other suites are named as absent


def test_suites_that_are_left_out_are_counted(tmp_path: Path) -> None:
    _write(tmp_path, "merkle/testdata/inclusion/a.json", _inclusion(refuse=False))
    _write(tmp_path, "merkle/testdata/consistency/a.json", {})
    _, text, _ = run_bench_vectors(tmp_path, say=lambda _: None)
    assert "transparency-dev/merkle consistency: 1 vectors left out (proofs that one tree" in text


def test_an_answer_without_a_stated_reason_is_wrong() -> None:
    rows = [(ACCEPT, "", "", False), (ACCEPT, "rule", "", True), (ACCEPT, "rule", "why", False), (REFUSE, "", "", True),
            (REFUSE, "rule", "", False), (EITHER, "", "", False), (EITHER, "rule", "", False)]  # fmt: skip
    for expected, reason, why, wrong in rows:
        answer = Answer("v", expected, reason, why)
        assert answer.wrong == wrong
        assert bool([line for line in Suite("s", (answer,)).disagreements() if line.startswith("WRONG")]) == wrong


def test_without_data_it_says_what_is_needed(tmp_path: Path, capsys) -> None:
    assert main(["bench", "vectors"]) == 2
    assert main(["bench", "vectors", "--data", str(tmp_path)]) == 2
    assert "a folder vectors/ in it" in capsys.readouterr().err
    (tmp_path / "vectors").mkdir()
    assert main(["bench", "vectors", "--data", str(tmp_path)]) == 1  # nothing was answered: no success
