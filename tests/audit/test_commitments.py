"""``commit``, ``countersign``, ``receipt make`` and ``receipt check`` as commands: what is written, and what is refused."""

from __future__ import annotations

import json
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.__main__ import main as checker_main
from prune_verify.checker.check_receipt import ReceiptInputs, check_receipt
from prune_verify.checker.commitment import parse_commitment, parse_openings
from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.errors import MalformedInputError
from prune_verify.checker.merkle import set_root
from prune_verify.checker.records import canonical_records, load_records
from prune_verify.cli import run_words

F = np.float32


def run(*words: object, expected: int = 0) -> str:
    code, text = run_words([str(word) for word in words])
    assert code == expected, text
    return text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A committed training set of 21 records, one of them twice, and a trust store with both roles."""
    rng = np.random.default_rng(0)
    x, y = rng.random((21, 2, 3), dtype=F), rng.integers(0, 4, 21)
    x[20], y[20] = x[5], y[5]
    np.savez(tmp_path / "train.npz", x=x, y=y)
    run("trust", "init", tmp_path / "trust.json")
    for name, role in (("owner", "prover"), ("auditor", "auditor")):
        run("keygen", "--out", tmp_path / name)
        run("trust", "add", tmp_path / "trust.json", "--key", tmp_path / f"{name}.pub", "--role", role, "--name", name)
    run(
        "commit", tmp_path / "train.npz", "--key", tmp_path / "owner.key", "--out", tmp_path / "train", "--name", "bank"
    )
    return tmp_path


def commitment(folder: Path):
    return parse_commitment(parse_envelope((folder / "train.commitment.json").read_bytes(), "c").payload, "c")


def test_what_commit_writes(folder: Path) -> None:
    found = commitment(folder)
    openings = parse_openings((folder / "train.openings.json").read_bytes(), "o")
    records = load_records(str(folder / "train.npz"), what="t")
    assert openings.training is not None
    assert (found.name, found.size, found.encoding_sha256) == ("bank", 21, None)
    assert found.root == set_root(openings.training.key, canonical_records(records))
    assert stat.S_IMODE((folder / "train.openings.json").stat().st_mode) == 0o600
    assert openings.training.key.hex().encode() not in (folder / "train.commitment.json").read_bytes()


def test_two_commitments_of_one_set_have_nothing_in_common(folder: Path) -> None:
    run("commit", folder / "train.npz", "--key", folder / "owner.key", "--out", folder / "again")
    again = parse_commitment(parse_envelope((folder / "again.commitment.json").read_bytes(), "c").payload, "c")
    assert again.name == "again"
    assert again.root != commitment(folder).root


@pytest.mark.parametrize("which", ["train.commitment.json", "train.openings.json"])
def test_neither_file_is_ever_overwritten_and_nothing_is_left_half_written(folder: Path, which: str) -> None:
    other = {"train.commitment.json": "train.openings.json", "train.openings.json": "train.commitment.json"}[which]
    (folder / other).unlink()
    before = (folder / which).read_bytes()
    text = run(
        "commit", folder / "train.npz", "--key", folder / "owner.key", "--out", folder / "train", expected=2
    )  # fmt: skip
    assert which in text
    assert (folder / which).read_bytes() == before
    assert not (folder / other).exists()


def test_openings_of_a_commitment_that_could_not_be_written_are_not_left(folder: Path, monkeypatch) -> None:
    from prune_verify.audit import commitments

    write = commitments.new_file

    def full(path: Path, content: bytes, mode: int) -> None:
        if path.name.endswith(".commitment.json"):
            raise OSError(28, "No space left on device", str(path))
        write(path, content, mode)

    monkeypatch.setattr(commitments, "new_file", full)
    words = ("commit", folder / "train.npz", "--key", folder / "owner.key", "--out", folder / "new")
    assert "No space left" in run(*words, expected=2)
    assert not list(folder.glob("new.*"))


def npz(x: np.ndarray, y: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.savez(folder / "bad.npz", x=x, y=y)


ONES = np.ones((3, 2), dtype=F)
NAN = np.array([[1, 1], [1, np.nan], [1, 1]], dtype=F)
LABELS = np.zeros(3, dtype=np.int64)
REFUSED = [
    ("no records", npz(ONES[:0], LABELS[:0]), {}, "bad.npz"),
    ("a NaN value", npz(NAN, LABELS), {}, "bad.npz: row 1, value 1"),
    ("a negative label", npz(ONES, LABELS - 1), {}, "bad.npz: row 0"),
    ("no such file", lambda folder: None, {}, "bad.npz"),
    ("a public key", npz(ONES, LABELS), {"--key": "owner.pub"}, "owner.pub"),
    ("an empty name", npz(ONES, LABELS), {"--name": ""}, "--name"),
    ("a name with a control character", npz(ONES, LABELS), {"--name": "a\x1b[2J"}, "--name"),
    ("no such folder", npz(ONES, LABELS), {"--out": "nowhere/new"}, "nowhere"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "make", "changed", "words"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_commit_refuses(folder: Path, sentence: str, make: Callable, changed: dict, words: str) -> None:
    make(folder)
    given = {"--key": "owner.key", "--out": "new", "--name": "n"} | changed
    arguments = [
        part for name, value in given.items() for part in (name, value if name == "--name" else folder / value)
    ]
    assert words in run("commit", folder / "bad.npz", *arguments, expected=2)
    assert not list(folder.glob("new.*"))


def test_a_countersignature_is_added_once(folder: Path) -> None:
    file = folder / "train.commitment.json"
    text = run("countersign", file, "--key", folder / "auditor.key")
    assert "21 records" in text
    assert "2 signatures" in text
    before = file.read_bytes()
    assert "each keyid once" in run("countersign", file, "--key", folder / "auditor.key", expected=2)
    assert file.read_bytes() == before
    assert "predicateType" in run(
        "countersign", shutil.copy("certs/examples/digits-records/digits.unlearn.json", folder / "x"), "--key",
        folder / "auditor.key", expected=2,
    )  # fmt: skip


# --- receipts of a training set ---


def receipt(folder: Path, *which: object, expected: int = 0, **changed: object) -> str:
    given = {"commitment": folder / "train.commitment.json", "out": folder / "r.receipt.json"} | changed
    options = [part for name, value in given.items() for part in (f"--{name}", value)]
    return run("receipt", "make", folder / "train.npz", *options, *which, expected=expected)


def check(folder: Path, *more: object, expected: int = 0, trust: bool = True) -> str:
    words = ["--trust", folder / "trust.json"] if trust else []
    commitment = ("--commitment", folder / "train.commitment.json")
    return run("receipt", "check", folder / "r.receipt.json", *commitment, *words, *more, expected=expected)


def own(folder: Path, place: int, label: int = 0) -> Path:
    found = np.load(folder / "train.npz")
    np.savez(folder / "own.npz", x=found["x"][place : place + 1], y=found["y"][place : place + 1] + label)
    return folder / "own.npz"


@pytest.mark.parametrize("index", [0, 15, 16, 20])
def test_a_receipt_is_written_for_one_person_and_checked_by_that_person(folder: Path, index: int) -> None:
    receipt(folder, "--index", index)
    assert stat.S_IMODE((folder / "r.receipt.json").stat().st_mode) == 0o600
    text = check(folder, "--record", own(folder, index))
    assert text.startswith("VERDICT: VERIFIED code=OK payload-sha256=")
    for words in (
        "[PASS] signature by owner",
        f"record {index} of the 21 of the training-set",
        "[PASS] record is yours",
    ):
        assert words in text
    text = check(folder)
    assert "for you to compare" in text


def test_a_receipt_by_value_finds_the_first_of_equal_records(folder: Path) -> None:
    assert "record 5 of the 21" in receipt(folder, "--record", own(folder, 20))


def test_without_a_trust_store_the_verdict_names_what_it_rests_on(folder: Path) -> None:
    receipt(folder, "--index", 3)
    assert "rests on: commitment_as_brought" in check(folder, trust=False)
    assert "rests on" not in check(folder)


def test_somebody_elses_record_is_refused(folder: Path) -> None:
    receipt(folder, "--index", 3)
    for spec in (own(folder, 4), own(folder, 3, label=1)):
        text = check(folder, "--record", spec, expected=1)
        assert text.startswith("VERDICT: REJECTED code=E_SUBJECT")
        assert "r.receipt.json/record" in text
    assert "train.npz" in check(folder, "--record", folder / "train.npz", expected=2)


def test_tables_are_committed_to_under_their_encoding(folder: Path) -> None:
    """A subject of a table brings its own row as csv, and the encoding that is part of what was committed to."""
    rows = [
        "age,job,income",
        *(f"{20 + i},{('baker', 'smith')[i % 2]},{('low', 'high')[i % 3 == 0]}" for i in range(9)),
    ]
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    (folder / "mine.csv").write_text("\n".join((rows[0], rows[5])) + "\n")
    run("encode", folder / "table.csv", "--label-column", "income", "--out", folder / "e.json")
    table = ("--label-column", "income", "--encoding", folder / "e.json")
    run("commit", folder / "table.csv", "--key", folder / "owner.key", "--out", folder / "table", *table)
    found = parse_commitment(parse_envelope((folder / "table.commitment.json").read_bytes(), "c").payload, "c")
    encoding = load_records(str(folder / "table.csv"), what="t", label_column="income", encoding=folder / "e.json")
    assert (found.size, found.encoding_sha256) == (9, encoding.encoding_sha256)
    made, commitment = folder / "t.receipt.json", ("--commitment", folder / "table.commitment.json")
    mine = ("--record", folder / "mine.csv", *table)
    assert "record 4 of the 9" in run("receipt", "make", folder / "table.csv", *commitment, *mine, "--out", made)
    assert "is yours" in run("receipt", "check", made, *commitment, "--trust", folder / "trust.json", *mine)
    (folder / "mine.csv").write_text("\n".join((rows[0], rows[6])) + "\n")
    text = run("receipt", "check", made, *commitment, "--trust", folder / "trust.json", *mine, expected=1)
    assert "your record" in text


UNMADE = [
    ("an index at the size", ("--index", 21), {}, "--index"),
    ("a negative index", ("--index", -1), {}, "--index"),
    ("a record that is not in the set", ("--record", "own.npz"), {}, "own.npz"),
    ("a file of two records", ("--record", "two.npz"), {}, "two.npz"),
    ("openings of another set", ("--index", 1), {"openings": "other.openings.json"}, "train.npz"),
    ("openings of no training set", ("--index", 1), {"openings": "none.json"}, "none.json"),
    ("no openings", ("--index", 1), {"openings": "nowhere.json"}, "nowhere.json"),
    ("no commitment", ("--index", 1), {"commitment": "nowhere.json"}, "nowhere.json"),
    ("a receipt that exists", ("--index", 1), {"out": "train.npz"}, "train.npz"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "which", "changed", "words"), UNMADE, ids=[row[0] for row in UNMADE])
def test_what_receipt_make_refuses(folder: Path, sentence: str, which: tuple, changed: dict, words: str) -> None:
    own(folder, 2, label=1)
    found = np.load(folder / "train.npz")
    np.savez(folder / "two.npz", x=found["x"][:2], y=found["y"][:2])
    run("commit", folder / "train.npz", "--key", folder / "owner.key", "--out", folder / "other")
    (folder / "none.json").write_bytes(b'{"forget":null,"formatVersion":1,"retain":null}')
    before = (folder / "train.npz").read_bytes()
    arguments = [folder / part if str(part).endswith(".npz") else part for part in which]
    assert words in receipt(folder, *arguments, expected=2, **{name: folder / value for name, value in changed.items()})
    assert not (folder / "r.receipt.json").exists()
    assert (folder / "train.npz").read_bytes() == before


@pytest.mark.slow
def test_sixty_thousand_records_take_seconds(folder: Path, shared_data: Path) -> None:
    mnist = shared_data / "mnist"
    images, labels = (mnist / f"train-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
    start = time.monotonic()
    run("commit", f"{images},{labels}", "--key", folder / "owner.key", "--out", folder / "mnist")
    commitment = ("--commitment", folder / "mnist.commitment.json")
    out = folder / "m.receipt.json"
    run("receipt", "make", f"{images},{labels}", *commitment, "--index", 59_999, "--out", out)
    run("receipt", "check", out, *commitment, "--trust", folder / "trust.json")
    assert time.monotonic() - start < 60
    assert out.stat().st_size < 8192


# --- receipts of the forget set of a certificate, from the committed example; the checker alone checks them ---


@pytest.fixture
def example(tmp_path: Path, repository: Path) -> Path:
    target = tmp_path / "example"
    shutil.copytree(repository / "certs" / "examples" / "digits-records", target)
    certificate = ("--certificate", target / "digits.unlearn.json")
    run("receipt", "make", target / "forget.npz", *certificate, "--index", 2, "--out", target / "f.receipt.json")
    return target


def words(example: Path, **changed: object) -> list[str]:
    given = {"certificate": example / "digits.unlearn.json", "trust": example / "trust.json"} | changed
    options = [str(part) for name, value in given.items() if value is not None for part in (f"--{name}", value)]
    return ["check-receipt", str(example / "f.receipt.json"), *options]


def test_a_receipt_of_a_forget_set(example: Path, capsys) -> None:
    assert checker_main([*words(example), "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["verdict"], verdict["exitCode"]) == ("VERIFIED", 0)
    assert any("record 2 of the" in item["detail"] for item in verdict["checks"])
    assert any("decided by verify" in text for text in verdict["warnings"])


def edit(name: str, change: Callable[[dict], None]) -> Callable[[Path], None]:
    def spoil(example: Path) -> None:
        document = json.loads((example / name).read_bytes())
        change(document)
        (example / name).write_text(json.dumps(document, separators=(",", ":"), sort_keys=True))

    return spoil


CHECKED = [
    ("no trust store", lambda e: None, {"trust": None}, 2, "--trust"),
    ("a trust store that is none", lambda e: (e / "trust.json").write_text("{}"), {}, 2, "trust.json"),
    ("no certificate of this name", lambda e: None, {"certificate": "nowhere.json"}, 2, "nowhere.json"),
    ("no receipt", lambda e: (e / "f.receipt.json").unlink(), {}, 2, "f.receipt.json"),
    ("own record that is none", lambda e: None, {"record": "nowhere.npz"}, 2, "nowhere.npz"),
    ("nobody trusted", edit("trust.json", lambda d: d.update(keys=[])), {}, 1, "E_SIGNATURE"),
    ("a certificate with a changed byte", edit("digits.unlearn.json", lambda d: d.update(payload=d["payload"][:-4] + "AAA=")), {}, 1, "E_SIGNATURE"),
    ("a receipt of the training set", edit("f.receipt.json", lambda d: d.update(of="training-set")), {}, 1, "f.receipt.json/of"),
    ("a receipt of another certificate", edit("f.receipt.json", lambda d: d.update(source="00" * 32)), {}, 1, "f.receipt.json/source"),
    ("another salt", edit("f.receipt.json", lambda d: d.update(salt="00" * 32)), {}, 1, "E_PROOF"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "spoil", "changed", "code", "text"), CHECKED, ids=[row[0] for row in CHECKED])
def test_what_the_subject_refuses(
    example: Path, sentence: str, spoil, changed: dict, code: int, text: str, capsys
) -> None:
    spoil(example)
    assert checker_main(words(example, **changed)) == code
    said = capsys.readouterr()
    assert text in said.out + said.err
    assert "VERIFIED" not in said.out + said.err


def test_a_receipt_is_checked_against_one_set(example: Path) -> None:
    certificate = example / "digits.unlearn.json"
    for given in ({}, {"commitment": certificate, "certificate": certificate}):
        with pytest.raises(MalformedInputError) as caught:
            check_receipt(ReceiptInputs(example / "f.receipt.json", trust=example / "trust.json", **given))
        assert caught.value.path == "--commitment"


def test_a_certificate_without_a_forget_set_has_no_receipts(example: Path, capsys) -> None:
    """As signed by the owner for a class request without records; the statement is signed anew by a trusted key."""
    import base64

    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from prune_verify.checker.encoding import canonical_json
    from prune_verify.signing import sign_payload

    run("keygen", "--out", example / "new")
    run("trust", "add", example / "trust.json", "--key", example / "new.pub", "--role", "prover", "--name", "new")
    path = example / "digits.unlearn.json"
    statement = json.loads(base64.b64decode(json.loads(path.read_bytes())["payload"]))
    statement["predicate"]["forgetSet"] = None
    path.write_bytes(
        sign_payload(canonical_json(statement), load_pem_private_key((example / "new.key").read_bytes(), None))
    )
    assert checker_main(words(example)) == 1
    assert "predicate/forgetSet" in capsys.readouterr().out
    text = run(
        "receipt", "make", example / "forget.npz", "--certificate", path, "--index", 0, "--out", example / "g", expected=2
    )  # fmt: skip
    assert "forgetSet" in text
