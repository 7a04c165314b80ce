"""Commitments and receipts in the certificate game (T13, T19): the owner forges the data, and the checker says where.

The certificate is the same throughout and honest on its own: what differs is the set that was committed to before
training, how the owner opens it, and what data subjects bring. Each row pins code and path.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.check_receipt import ReceiptInputs, check_receipt
from prune_verify.checker.commitment import OpenedCommitment, open_commitment
from prune_verify.checker.encoding import canonical_json, sha256_hex
from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.errors import CheckError
from prune_verify.checker.merkle import inclusion_path, leaf_hash, node_hash, record_salt, root_of
from prune_verify.checker.policy import parse_trust
from prune_verify.checker.receipt import emit_receipt, parse_receipt, require_belongs
from prune_verify.checker.records import canonical_record
from prune_verify.checker.statement import SetCommitment
from prune_verify.cli import run_words
from tests.committed_owner import (
    KEY,
    PLACES,
    SIZE,
    commit_to,
    demand,
    leaves_of,
    open_with,
    signed,
    training,
    verdict_of,
)
from tests.dishonest_owner import Owner, failure, run

pytestmark = pytest.mark.prover
F = np.float32


def test_the_honest_chain_is_verified_and_the_roster_names_the_commitment(committed: Owner) -> None:
    verdict = verdict_of(committed)
    assert (verdict.word, verdict.code) == ("VERIFIED", "OK"), verdict.text()
    detail = next(check.detail for check in verdict.checks if check.name == "commitment")
    for words in ("the 404 records", "exactly 4 to forget and 400 to retain", "by owner", "countersigned by auditor"):
        assert words in detail
    assert any("that the base was trained on it is not shown" in text for text in verdict.warnings)
    assert (
        verdict.exit_code == committed.exit_code("--commitment", str(committed.folder / "train.commitment.json")) == 0
    )


def test_what_the_forgers_change_is_verified_unchanged(committed: Owner) -> None:
    """The rows below pass for no other reason: the same forging of the right set, rightly opened, is accepted."""
    opened()(committed.folder)
    assert verdict_of(committed).word == "VERIFIED"


# --- what stands beside an honest certificate: another set was committed to ---


def committed_set(change: Callable[[np.ndarray, np.ndarray], tuple]) -> Callable[[Path], None]:
    """The honest commitment to another training set; the owner opens it as it opened its own."""

    def spoil(folder: Path) -> None:
        commit_to(folder, leaves_of(*change(*training(folder))))
        open_with(folder)

    return spoil


def moved(place: int, by: float) -> Callable[[np.ndarray, np.ndarray], tuple]:
    def change(x: np.ndarray, y: np.ndarray) -> tuple:
        x[place, 10] = abs(x[place, 10] - F(by))
        return x, y

    return change


def relabelled(place: int) -> Callable[[np.ndarray, np.ndarray], tuple]:
    def change(x: np.ndarray, y: np.ndarray) -> tuple:
        y[place] = (y[place] + 1) % 10
        return x, y

    return change


def negative_zero(x: np.ndarray, y: np.ndarray) -> tuple:
    place = int(np.flatnonzero(x[5] == 0)[0])
    x[5, place] = F(-0.0)
    return x, y


def with_more(x: np.ndarray, y: np.ndarray) -> tuple:
    """50 records that are hard to retain were in the training set and are left out of the retained set."""
    return np.vstack([x, 1 - x[:50]]), np.concatenate([y, y[:50]])


def without_one(x: np.ndarray, y: np.ndarray) -> tuple:
    """The record that is said to be forgotten was never in the training set."""
    keep = np.arange(SIZE) != PLACES[1]
    return x[keep], y[keep]


def exchanged(x: np.ndarray, y: np.ndarray) -> tuple:
    """Hard records of the training set were exchanged for easy ones, one for one."""
    x[200:220] = 1 - x[200:220]
    return x, y


def in_another_order(x: np.ndarray, y: np.ndarray) -> tuple:
    order = np.roll(np.arange(SIZE), 1)
    return x[order], y[order]


def opened(indices: tuple[int, ...] = PLACES, twins: tuple = (), key: bytes = KEY) -> Callable[[Path], None]:
    """The right commitment, opened otherwise."""

    def spoil(folder: Path) -> None:
        commit_to(folder, leaves_of(*training(folder)))
        open_with(folder, indices, twins, key)

    return spoil


def with_leaves(of: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    """A commitment whose leaves are made otherwise from the records of the training set."""

    def spoil(folder: Path) -> None:
        records = [canonical_record(row, int(label)) for row, label in zip(*training(folder), strict=True)]
        commit_to(folder, of(records))
        open_with(folder)

    return spoil


def unsalted(records: list[bytes]) -> list[bytes]:
    return [hashlib.sha256(b"\0" + record).digest() for record in records]


def without_prefix(records: list[bytes]) -> list[bytes]:
    return [hashlib.sha256(record_salt(KEY, i) + record).digest() for i, record in enumerate(records)]


def one_salt(records: list[bytes]) -> list[bytes]:
    return [leaf_hash(record_salt(KEY, 0), record) for record in records]


def inner_nodes(records: list[bytes]) -> list[bytes]:
    """Half as many leaves, which are the inner nodes of the true tree: the root is the same."""
    leaves = [leaf_hash(record_salt(KEY, i), record) for i, record in enumerate(records)]
    return [node_hash(a, b) for a, b in zip(leaves[::2], leaves[1::2], strict=True)]


def stated(path: str, value: object, **more: object) -> Callable[[Path], None]:
    """A commitment to the right set whose statement says something else, signed by whom it needs."""

    def change(document: dict) -> None:
        *parents, last = path.split("/")
        target = document
        for name in parents:
            target = target[int(name)] if isinstance(target, list) else target[name]
        target[last] = value

    def spoil(folder: Path) -> None:
        commit_to(folder, leaves_of(*training(folder)), change=change, **more)
        open_with(folder)

    return spoil


def signed_by(*names: str) -> Callable[[Path], None]:
    return stated("predicate/purpose", "training-set", signers=names)


def certificate_as_commitment(folder: Path) -> None:
    (folder / "train.commitment.json").write_bytes((folder / "a.unlearn.json").read_bytes())
    demand(folder, "require_commitment")


def vouched_by_owner_twice(folder: Path) -> None:
    """The owner's one key under two roles is the auditor's own doing; a second copy of the signature is not."""
    signed_by("owner")(folder)
    path = folder / "train.commitment.json"
    document = json.loads(path.read_bytes())
    document["signatures"] *= 2
    path.write_bytes(canonical_json(document))


def signature_under_the_auditors_keyid(folder: Path) -> None:
    signed_by("owner", "auditor")(folder)
    path = folder / "train.commitment.json"
    document = json.loads(path.read_bytes())
    first, second = document["signatures"]
    second["sig"] = first["sig"]
    path.write_bytes(canonical_json(document))


def the_auditors_signature_of_another(folder: Path) -> None:
    """The auditor signed what it was shown; the owner puts another training set under that signature."""
    path = folder / "train.commitment.json"
    shown = json.loads(path.read_bytes())["signatures"][1]
    signed_by("owner")(folder)
    document = json.loads(path.read_bytes())
    document["signatures"].append(shown)
    path.write_bytes(canonical_json(document))


def hard_record_as_twin(folder: Path) -> None:
    """A record that the retained set leaves out is declared to be a twin of a forgotten one."""
    x, y = training(folder)
    hard = 1 - x[9]
    commit_to(folder, leaves_of(np.vstack([x, hard[None]]), np.append(y, 3)))
    open_with(folder, twins=((SIZE, canonical_record(hard, 3)),))


def twin(folder: Path) -> None:
    """The training set has the values of forget record 2 once more, under another label."""
    x, y = training(folder)
    other = (int(y[PLACES[2]]) + 1) % 10
    commit_to(folder, leaves_of(np.vstack([x, x[PLACES[2]][None]]), np.append(y, other)))
    open_with(folder, twins=((SIZE, canonical_record(x[PLACES[2]], other)),))


SUBJECT, POLICY, FORM, SIGNATURE = "E_SUBJECT", "E_POLICY", "E_MALFORMED", "E_SIGNATURE"
NAME = "train.commitment.json"
OPENED = "openings.json/training"
ATTACKS = [
    ("a near-duplicate is forgotten in the record's place", committed_set(moved(PLACES[0], 0.01)), SUBJECT, "commitment/root"),
    ("one float32 step beside the record", committed_set(moved(PLACES[0], 2**-24)), SUBJECT, "commitment/root"),
    ("the record is forgotten under another label", committed_set(relabelled(PLACES[3])), SUBJECT, "commitment/root"),
    ("a retained record under another label", committed_set(relabelled(5)), SUBJECT, "commitment/root"),
    ("a zero of the other sign is another record", committed_set(negative_zero), SUBJECT, "commitment/root"),
    ("a record that was never used is forgotten", committed_set(without_one), SUBJECT, "commitment/predicate/size"),
    ("hard records are left out of the retained set", committed_set(with_more), SUBJECT, "commitment/predicate/size"),
    ("hard records are exchanged for easy ones", committed_set(exchanged), SUBJECT, "commitment/root"),
    ("the committed set in another order", committed_set(in_another_order), SUBJECT, "commitment/root"),
    ("the same place for two records", opened((150, 150, 403, 0)), FORM, OPENED),
    ("a place beyond the set", opened((150, 60, 404, 0)), FORM, OPENED),
    ("the places exchanged", opened((60, 150, 403, 0)), SUBJECT, "commitment/root"),
    ("a place less than forget records", opened(PLACES[:3]), SUBJECT, f"{OPENED}/forgetIndices"),
    ("a place more", opened((*PLACES, 7)), SUBJECT, f"{OPENED}/forgetIndices"),
    ("another key", opened(key=KEY[::-1]), SUBJECT, "commitment/root"),
    ("a record left out, called a twin", hard_record_as_twin, POLICY, f"{OPENED}/twins/0/record"),
    ("a twin, which the policy counts as a conflict", twin, POLICY, f"{OPENED}/twins"),
    ("unsalted leaves, which can be guessed", with_leaves(unsalted), SUBJECT, "commitment/root"),
    ("leaves without their prefix", with_leaves(without_prefix), SUBJECT, "commitment/root"),
    ("one salt for all leaves", with_leaves(one_salt), SUBJECT, "commitment/root"),
    ("inner nodes as leaves: the same root, half the size", with_leaves(inner_nodes), SUBJECT, "commitment/predicate/size"),
    ("made after the certificate", stated("predicate/committedAt", "2098-01-01T00:00:00Z"), POLICY, "commitment/predicate/committedAt"),
    ("another encoding", stated("predicate/encodingSha256", "ab" * 32), SUBJECT, "predicate/semantics/encodingSha256"),
    ("for another purpose", stated("predicate/purpose", "validation-set"), FORM, f"{NAME}/payload/predicate/purpose"),
    ("size 0", stated("predicate/size", 0), FORM, f"{NAME}/payload/predicate/size"),
    ("a size that is not the set's", stated("predicate/size", 405), SUBJECT, "commitment/predicate/size"),
    ("a root of another length", stated("subject/0/digest", {"saltedMerkleSha256": "ab" * 31}), FORM, f"{NAME}/payload/subject/0/digest/saltedMerkleSha256"),
    ("a root of another kind", stated("subject/0/digest", {"sha256": "ab" * 32}), FORM, f"{NAME}/payload/subject/0/digest"),
    ("a member that nobody reads", stated("predicate/trained", True), FORM, f"{NAME}/payload/predicate"),
    ("signed by nobody", signed_by(), FORM, f"{NAME}/signatures"),
    ("signed by an unknown key", signed_by("stranger"), SIGNATURE, f"{NAME}/signatures"),
    ("signed by the auditor alone", signed_by("auditor"), SIGNATURE, f"{NAME}/signatures"),
    ("not countersigned: its time is the owner's word", signed_by("owner"), SIGNATURE, f"{NAME}/signatures"),
    ("countersigned by a stranger", signed_by("owner", "stranger"), SIGNATURE, f"{NAME}/signatures"),
    ("one signature twice", vouched_by_owner_twice, "E_KEYID", f"{NAME}/signatures"),
    ("the owner's signature under the auditor's keyid", signature_under_the_auditors_keyid, "E_KEYID", f"{NAME}/signatures/1/keyid"),
    ("the auditor's signature under another commitment", the_auditors_signature_of_another, SIGNATURE, f"{NAME}/signatures/1"),
    ("a certificate in the commitment's place", certificate_as_commitment, "E_UNSUPPORTED", f"{NAME}/payload/predicateType"),
    ("no JSON", lambda folder: (folder / NAME).write_bytes(b"{") and None, FORM, NAME),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "spoil", "code", "path"), ATTACKS, ids=[row[0] for row in ATTACKS])
def test_forged_sets(committed: Owner, attack: str, spoil: Callable[[Path], None], code: str, path: str) -> None:
    spoil(committed.folder)
    assert failure(verdict_of(committed)) == ("REJECTED", code, path)


def test_a_policy_that_demands_auditors_needs_a_trust_store_that_names_one(committed: Owner) -> None:
    path = committed.folder / "trust.json"
    document = json.loads(path.read_bytes())
    document["keys"] = [item for item in document["keys"] if item["roles"] != ["auditor"]]
    path.write_bytes(canonical_json(document))
    assert failure(verdict_of(committed)) == ("REJECTED", SIGNATURE, "trust store")


def test_every_byte_of_commitment_and_receipt_counts(committed: Owner) -> None:
    """Each byte changed in turn, one cut off, one added: refused, and the honest bytes are accepted."""
    folder, rng, now = committed.folder, np.random.default_rng(0), datetime.now(UTC)
    trust = parse_trust((folder / "trust.json").read_bytes(), "trust.json")
    slip = receipt(folder, PLACES[0]).read_bytes()

    def opened_commitment(data: bytes) -> OpenedCommitment:
        return open_commitment(data, "c", trust, now, countersigned=True)

    honest = (folder / NAME).read_bytes()
    found = opened_commitment(honest)
    whole = SetCommitment(found.commitment.root, found.commitment.size)

    def belongs(data: bytes) -> None:
        require_belongs(parse_receipt(data, "r"), "r", found.payload_sha256, whole)

    belongs(slip)
    for data, check in ((honest, opened_commitment), (slip, belongs)):
        for place in range(len(data)):
            changed = bytearray(data)
            changed[place] = (changed[place] + int(rng.integers(1, 256))) % 256
            with pytest.raises(CheckError):
                check(bytes(changed))
        for other in (data[:-1], data + b"\n", b"", data * 2):
            with pytest.raises(CheckError):
                check(other)


def test_an_honest_twin_is_verified_where_the_policy_permits_the_conflict(committed: Owner) -> None:
    twin(committed.folder)
    policy = committed.folder / "policy.toml"
    policy.write_text(policy.read_text().replace("max_conflicts = 0", "max_conflicts = 1"))
    verdict = verdict_of(committed)
    assert verdict.word == "VERIFIED"
    assert any("and 1 twins of the former" in check.detail for check in verdict.checks)


def test_overlapping_and_empty_sets_are_refused_before_the_commitment_is_compared(committed: Owner) -> None:
    """The owner commits in the certificate to what it shows; the commitment made before training is honest."""
    folder = committed.folder
    opened()(folder)
    found, forget = np.load(folder / "retain.npz"), np.load(folder / "forget.npz")
    x, y = found["x"].copy(), found["y"].copy()
    x[3], y[3] = forget["x"][1], forget["y"][1]
    key = bytes.fromhex(json.loads((folder / "openings.json").read_bytes())["retain"])
    np.savez(folder / "retain.npz", x=x, y=y)
    root = root_of(leaves_of(x, y, key)).hex()
    committed.edit(lambda document: document["predicate"]["retainSet"].update(root=root))
    assert failure(verdict_of(committed)) == ("REJECTED", POLICY, "retain set")
    np.savez(folder / "retain.npz", x=x[:0], y=y[:0])
    word, code, path = failure(verdict_of(committed))
    assert (word, code) == ("REJECTED", FORM)
    assert "retain.npz" in path


def strip_training(folder: Path) -> None:
    document = json.loads((folder / "openings.json").read_bytes())
    del document["training"]
    (folder / "openings.json").write_bytes(canonical_json(document))


MISSING = [
    ("no commitment, which the policy demands", {"commitment": None}, lambda folder: None),
    ("the training set is not opened", {}, strip_training),
    ("no openings at all", {}, lambda folder: (folder / "openings.json").unlink()),
    ("no forget set", {"forget": None}, lambda folder: None),
    ("no retained set", {"retain": None}, lambda folder: None),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "changed", "spoil"), MISSING, ids=[row[0] for row in MISSING])
def test_missing_data_leaves_the_commitment_open(committed: Owner, sentence: str, changed: dict, spoil) -> None:
    spoil(committed.folder)
    verdict = verdict_of(committed, **changed)
    assert (verdict.word, verdict.code) == ("UNDECIDED", "E_DATA_MISSING")
    assert [check.status for check in verdict.checks if check.name == "commitment"] == ["SKIP"]


def test_what_the_policy_does_not_demand(committed: Owner) -> None:
    """Without a demand nothing is skipped; the time of a commitment without countersignature is marked as a word."""
    demand(committed.folder)
    assert verdict_of(committed, commitment=None).word == "VERIFIED"
    signed_by("owner")(committed.folder)
    verdict = verdict_of(committed)
    assert verdict.word == "VERIFIED"
    assert any("its signers' word" in text for text in verdict.warnings)


def test_a_commitment_that_is_missing_could_not_be_checked(committed: Owner, capsys) -> None:
    assert committed.exit_code("--commitment", str(committed.folder / "nowhere.json")) == 2
    assert "nowhere.json" in capsys.readouterr().err


def test_a_backdated_commitment_gets_no_countersignature(committed: Owner) -> None:
    """After the fact the owner can write any time and sign; the auditor's own command refuses to vouch for it."""
    signed_by("owner")(committed.folder)  # says yesterday, a second and more ago
    words = ["countersign", str(committed.folder / NAME), "--key", str(committed.folder / "auditor.key")]
    before = (committed.folder / NAME).read_bytes()
    for more, code in ((["--hours", "1"], 2), (["--hours", "30"], 0)):
        found, text = run_words([*words, *more])
        assert found == code, text
        assert ((committed.folder / NAME).read_bytes() == before) == (code == 2)
    stated("predicate/committedAt", "2098-01-01T00:00:00Z", signers=("owner",))(committed.folder)
    found, text = run_words([*words, "--hours", "100000"])
    assert found == 2
    assert "committedAt" in text


def certify(folder: Path, out: str, *, expected: int) -> str:
    """``certify`` with the commitment, as the owner would run it."""
    return run(
        "certify", folder / "base.onnx", folder / "patched.onnx", "--request", folder / "request.json", "--forget",
        folder / "forget.npz", "--retain", folder / "retain.npz", "--commitment", folder / NAME,
        "--commitment-openings", folder / "train.openings.json", "--training", folder / "train.npz",
        "--cross-check", "0", "--out", folder / out, expected=expected,
    )  # fmt: skip


REFUSED_AT_ONCE = [
    ("a near-duplicate of the record", "forget", lambda x: np.clip(x + F(2**-10), 0, 1), "forget.npz: record 0, 1, 2, 3 (4 in all) is no record"),
    ("a record left out", "retain", lambda x: x[1:], "train.npz: record 1 (1 in all) is neither to be forgotten nor in"),
    ("another training set than was committed to", "train", lambda x: x[::-1], "is not the set that"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "which", "change", "words"), REFUSED_AT_ONCE, ids=[row[0] for row in REFUSED_AT_ONCE]
)
def test_certify_refuses_at_once_and_names_the_records(
    committed: Owner, sentence: str, which: str, change, words
) -> None:
    path = committed.folder / f"{which}.npz"
    found = np.load(path)
    x = change(found["x"])
    np.savez(path, x=x, y=found["y"][-len(x) :])
    assert words in certify(committed.folder, "again", expected=2)
    assert not (committed.folder / "again").exists()


def test_the_checker_judges_the_commitment_before_anything_is_written(committed: Owner, monkeypatch) -> None:
    """An owner's program that finds the wrong places: the checker, in its own process, says so, and nothing appears."""
    from prune_verify.certify import committed as room

    honest = room.training_opening
    monkeypatch.setattr(
        room, "training_opening", lambda *args: replace(honest(*args), forget_indices=(60, 150, 403, 0))
    )
    assert "root of the training set" in certify(committed.folder, "again", expected=1)
    assert list((committed.folder / "again").iterdir()) == []


def test_a_twin_all_the_way(committed: Owner) -> None:
    """A training set with a twin of a forgotten record: certify names it, and the policy decides."""
    folder = committed.folder
    x, y = training(folder)
    np.savez(folder / "train.npz", x=np.vstack([x, x[PLACES[2]][None]]), y=np.append(y, (y[PLACES[2]] + 1) % 10))
    for name in (NAME, "train.openings.json"):
        (folder / name).unlink()
    run("commit", folder / "train.npz", "--key", folder / "owner.key", "--out", folder / "train")
    assert "but for 1 twins of forgotten records (404)" in certify(folder, ".", expected=0)
    (folder / "a.unlearn.json").unlink()
    run("sign", folder / "statement.json", "--key", folder / "owner.key", "--out", folder / "a.unlearn.json")
    demand(folder, "require_commitment")
    assert failure(verdict_of(committed)) == ("REJECTED", POLICY, f"{OPENED}/twins")
    policy = folder / "policy.toml"
    policy.write_text(policy.read_text().replace("max_conflicts = 0", "max_conflicts = 1"))
    assert verdict_of(committed).word == "VERIFIED"


# --- receipts ---


def receipt(folder: Path, index: int, *, name: str = "r") -> Path:
    """An honest receipt of the honest training set."""
    out = folder / f"{name}.receipt.json"
    words = ("--commitment", folder / NAME, "--index", str(index), "--out", out)
    run("receipt", "make", folder / "train.npz", *words)
    return out


def forget_receipt(folder: Path, index: int = 1) -> Path:
    out = folder / "f.receipt.json"
    words = ("--certificate", folder / "a.unlearn.json", "--index", str(index), "--out", out)
    run("receipt", "make", folder / "forget.npz", *words)
    return out


def edited(path: Path, /, **members: object) -> Path:
    path.write_bytes(canonical_json(json.loads(path.read_bytes()) | members))
    return path


def test_receipts_of_forgotten_records_are_verified(committed: Owner) -> None:
    folder = committed.folder
    receipts = (*(receipt(folder, place, name=f"r{place}") for place in PLACES), forget_receipt(folder))
    verdict = verdict_of(committed, receipts=receipts)
    assert verdict.word == "VERIFIED", verdict.text()
    details = [check.detail for check in verdict.checks if check.name.startswith("receipt")]
    assert [f"is forget record {i}" in detail for i, detail in zip((0, 1, 2, 3, 1), details, strict=True)] == [True] * 5


def test_receipts_that_nothing_can_be_said_of(committed: Owner) -> None:
    demand(committed.folder)
    one = receipt(committed.folder, PLACES[0])
    for changed in ({"commitment": None}, {"forget": None}, {"retain": None}):
        verdict = verdict_of(committed, receipts=(one,), **changed)
        assert (verdict.word, verdict.code) == ("UNDECIDED", "E_DATA_MISSING")
        assert [check.status for check in verdict.checks if check.name == "receipt r.receipt.json"] == ["SKIP"]


def another_record(folder: Path) -> Path:
    path = receipt(folder, PLACES[0])
    found = parse_receipt(path.read_bytes(), "r")
    x, y = training(folder)
    x[PLACES[0], 0] = F(0.5)
    path.write_bytes(emit_receipt(replace(found, record=canonical_record(x[PLACES[0]], int(y[PLACES[0]])))))
    return path


def relabelled_record(folder: Path) -> Path:
    path = receipt(folder, PLACES[0])
    found = parse_receipt(path.read_bytes(), "r")
    path.write_bytes(emit_receipt(replace(found, record=found.record[:-1] + b"\x07")))
    return path


def of_another_set(folder: Path) -> Path:
    """The owner gives subjects receipts of a set that nobody committed to."""
    leaves = leaves_of(*training(folder))
    found = parse_receipt(receipt(folder, PLACES[0]).read_bytes(), "r")
    path, salt = tuple(inclusion_path(leaves, PLACES[0])), record_salt(KEY, PLACES[0])
    (folder / "r.receipt.json").write_bytes(
        emit_receipt(replace(found, root=root_of(leaves).hex(), salt=salt, path=path))
    )
    return folder / "r.receipt.json"


def inner_node_as_record(folder: Path) -> Path:
    """The two children of an inner node as a record, and a path that is one shorter."""
    path = receipt(folder, PLACES[0])
    found = json.loads(path.read_bytes())
    children = base64.b64encode(bytes(32) + bytes.fromhex(found["path"][0])).decode()
    return edited(path, record=children, path=found["path"][1:], index=found["index"] // 2, size=SIZE // 2)


def member(**members: object) -> Callable[[Path], Path]:
    return lambda folder: edited(receipt(folder, PLACES[0]), **members)


def path_of(change: Callable[[list[str]], list[str]]) -> Callable[[Path], Path]:
    def spoil(folder: Path) -> Path:
        path = receipt(folder, PLACES[0])
        return edited(path, path=change(json.loads(path.read_bytes())["path"]))

    return spoil


R = "r.receipt.json"
RECEIPTS = [
    ("its record is retained", lambda folder: receipt(folder, 5), SUBJECT, f"{R}/record"),
    ("another record", another_record, "E_PROOF", f"{R}/path"),
    ("another label", relabelled_record, "E_PROOF", f"{R}/path"),
    ("another salt", member(salt="00" * 32), "E_PROOF", f"{R}/path"),
    ("another index", member(index=151), "E_PROOF", f"{R}/path"),
    ("another size", member(size=405), SUBJECT, f"{R}/size"),
    ("another root", member(root="00" * 32), SUBJECT, f"{R}/root"),
    ("of another set", of_another_set, SUBJECT, f"{R}/root"),
    ("of another commitment", member(source="00" * 32), SUBJECT, f"{R}/source"),
    ("said to be of the forget set", member(of="forget-set"), SUBJECT, f"{R}/source"),
    ("of neither set", member(of="holy-set"), FORM, f"{R}/of"),
    ("an index at the size", member(index=SIZE), FORM, f"{R}/index"),
    ("a negative index", member(index=-1), FORM, f"{R}/index"),
    ("size 0", member(size=0), FORM, f"{R}/size"),
    ("a path that is too short", path_of(lambda path: path[:-1]), "E_PROOF", f"{R}/path"),
    ("a path that is too long", path_of(lambda path: [*path, path[0]]), "E_PROOF", f"{R}/path"),
    ("siblings exchanged", path_of(lambda path: [path[1], path[0], *path[2:]]), "E_PROOF", f"{R}/path"),
    ("a sibling of another length", path_of(lambda path: [path[0][:62], *path[1:]]), FORM, f"{R}/path/0"),
    ("an inner node as a leaf", inner_node_as_record, FORM, f"{R}/record"),
    ("a member that nobody reads", member(valid=True), FORM, R),
    ("no JSON", lambda folder: [(folder / R).write_bytes(b"[]"), folder / R][1], FORM, R),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "make", "code", "path"), RECEIPTS, ids=[row[0] for row in RECEIPTS])
def test_forged_receipts(committed: Owner, attack: str, make: Callable[[Path], Path], code: str, path: str) -> None:
    """The auditor refuses them in ``verify``; but for the first, so does the subject in ``receipt check``."""
    made = make(committed.folder)
    assert failure(verdict_of(committed, receipts=(made,))) == ("REJECTED", code, path)
    trust = committed.folder / "trust.json"
    own = check_receipt(ReceiptInputs(made, commitment=committed.folder / NAME, trust=trust))
    if attack == "its record is retained":
        assert own.word == "VERIFIED"
        return
    if attack == "said to be of the forget set":
        path = f"{R}/of"
    assert failure(own) == ("REJECTED", code, path)


def test_a_record_of_neither_set_is_said_to_be_one(committed: Owner) -> None:
    """A twin may stand in neither set, but then it is not forgotten under its own label."""
    folder = committed.folder
    x, y = training(folder)
    other = (int(y[PLACES[2]]) + 1) % 10
    leaves = leaves_of(np.vstack([x, x[PLACES[2]][None]]), np.append(y, other))
    twin(folder)
    policy = folder / "policy.toml"
    policy.write_text(policy.read_text().replace("max_conflicts = 0", "max_conflicts = 1"))
    found = parse_receipt(forget_receipt(folder, 2).read_bytes(), "r")
    source = sha256_hex(parse_envelope((folder / NAME).read_bytes(), NAME).payload)
    made = replace(
        found, of="training-set", source_sha256=source, root=root_of(leaves).hex(), size=SIZE + 1, index=SIZE,
        salt=record_salt(KEY, SIZE), record=canonical_record(x[PLACES[2]], other), path=tuple(inclusion_path(leaves, SIZE)),
    )  # fmt: skip
    (folder / R).write_bytes(emit_receipt(made))
    verdict = verdict_of(committed, receipts=(folder / R,))
    assert failure(verdict) == ("REJECTED", SUBJECT, f"{R}/record")
    assert "a record of neither set" in verdict.checks[-1].detail


def test_a_receipt_of_another_certificate(committed: Owner) -> None:
    """The same forget set under another key and certificate: the receipt names the payload it belongs to."""
    made = forget_receipt(committed.folder)
    committed.edit(lambda document: document["predicate"].update(certificateId="00" * 16))
    assert failure(verdict_of(committed, receipts=(made,))) == ("REJECTED", SUBJECT, "f.receipt.json/source")


def test_envelopes_of_nobody_are_refused_by_whoever_checks(committed: Owner) -> None:
    folder = committed.folder
    made = receipt(folder, PLACES[0])
    payload = json.loads((folder / NAME).read_bytes())["payload"]
    for signers, code in (((), FORM), (("stranger",), SIGNATURE), (("auditor",), SIGNATURE)):
        (folder / NAME).write_bytes(signed(folder, base64.b64decode(payload), signers))
        found = check_receipt(ReceiptInputs(made, commitment=folder / NAME, trust=folder / "trust.json"))
        assert failure(found) == ("REJECTED", code, f"{NAME}/signatures")
