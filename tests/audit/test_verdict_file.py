"""The auditor's verdict file: what is signed, who may have signed it, and what a third party finds."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from prune_verify.audit.keys import keygen, load_private_key
from prune_verify.audit.trust import trust_add, trust_init
from prune_verify.audit.verdict_file import check_verdict, verdict_writer
from prune_verify.audit.verdict_statement import VERDICT_EXTENSION, VSA_TYPE, emit_verdict, parse_verdict
from prune_verify.checker.__main__ import main as checker_main
from prune_verify.checker.encoding import canonical_json, sha256_hex
from prune_verify.checker.envelope import parse_envelope
from prune_verify.checker.errors import MalformedInputError, UnsupportedVersionError
from prune_verify.cli import run_words
from prune_verify.signing import sign_payload

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "certs" / "examples" / "digits-records"
CHANGED = ROOT / "certs" / "examples" / "digits-byte-changed_fail"
SCHEMA = json.loads((ROOT / "certs" / "schema" / "verdict.schema.json").read_text())
EXT = VERDICT_EXTENSION
PLACE = f"a.verdict.json/payload/predicate/{EXT}"


def certificate_of(example: Path) -> Path:
    return next(example.glob("*.unlearn.json"))


def verify_words(example: Path, *more: str | Path, records: bool = True) -> list[str]:
    sets = ["--forget", example / "forget.npz", "--retain", example / "retain.npz"] if records else []
    words = [
        "verify", certificate_of(example), "--base", example / "base.onnx", "--patched", example / "patched.onnx",
        "--trust", example / "trust.json", "--policy", example / "policy.toml", *sets, *more, "--quiet",
    ]  # fmt: skip
    return [str(word) for word in words]


def verify(example: Path, *more: str | Path, records: bool = True) -> tuple[int, str]:
    return run_words(verify_words(example, *more, records=records))


class Auditor:
    """A folder with an auditor's key, the trust store of somebody who relies on it, and a verdict."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = keygen(folder / "auditor")
        self.trust, self.out = folder / "trust.json", folder / "a.verdict.json"
        trust_init(self.trust, folder / "policy.toml")
        trust_add(self.trust, self.made.public, "auditor", "Audit Ltd")

    @property
    def options(self) -> tuple[str | Path, ...]:
        return ("--verdict-out", self.out, "--auditor-key", self.made.private)

    def document(self) -> dict:
        return json.loads(parse_envelope(self.out.read_bytes(), "v").payload)

    def sign(self, document: dict) -> None:
        """Sign whatever somebody with the auditor's key likes."""
        self.out.write_bytes(sign_payload(canonical_json(document), load_private_key(self.made.private)))

    def check(self, **more: Path):
        return check_verdict(self.out, self.trust, **more)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Auditor:
    auditor = Auditor(tmp_path_factory.mktemp("auditor"))
    code, text = verify(EXAMPLE, *auditor.options)
    assert code == 0, text
    assert f"wrote {auditor.out}, signed by {auditor.made.keyid}" in text
    return auditor


@pytest.fixture
def auditor(made: Auditor, tmp_path: Path) -> Auditor:
    """The same, to be changed."""
    shutil.copytree(made.folder, tmp_path / "copy")
    copy = object.__new__(Auditor)
    copy.folder, copy.made = tmp_path / "copy", replace(made.made, private=tmp_path / "copy" / "auditor.key")
    copy.trust, copy.out = copy.folder / "trust.json", copy.folder / "a.verdict.json"
    return copy


# --- what is written ---


def test_a_verified_certificate_has_passed(made: Auditor) -> None:
    document = made.document()
    predicate, own = document["predicate"], document["predicate"][EXT]
    identity = sha256_hex(parse_envelope(certificate_of(EXAMPLE).read_bytes(), "c").payload)
    patched = sha256_hex((EXAMPLE / "patched.onnx").read_bytes())
    assert document["predicateType"] == VSA_TYPE
    assert document["subject"] == [{"name": "patched.onnx", "digest": {"sha256": patched}}]
    assert predicate["verificationResult"] == "PASSED"
    assert predicate["verifiedLevels"] == ["PRUNE_VERIFY_VERIFIED"]
    assert [item["digest"]["sha256"] for item in predicate["inputAttestations"]] == [identity]
    assert predicate["policy"]["digest"]["sha256"] == sha256_hex((EXAMPLE / "policy.toml").read_bytes())
    assert predicate["verifier"]["id"].endswith(made.made.keyid)
    assert own["files"]["trust"] == sha256_hex((EXAMPLE / "trust.json").read_bytes())
    assert own["files"]["certificate"] == sha256_hex(certificate_of(EXAMPLE).read_bytes())
    assert (own["challenge"], own["atTime"], own["code"]) == (None, None, "OK")
    assert own["claims"][0]["proved"] == own["claims"][0]["total"] == 3


def test_it_is_of_its_schema_and_says_what_the_checker_said(made: Auditor) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(made.document())
    _, text = verify(EXAMPLE, "--json")
    said, own = json.loads(text), made.document()["predicate"][EXT]
    assert [own[name] for name in ("verdict", "code", "claims", "assumptions", "warnings")] == [
        said[name] for name in ("verdict", "code", "claims", "assumptions", "warnings")
    ]
    assert [c["status"] for c in own["checks"]] == [c["status"] for c in said["checks"]]


def test_the_same_check_at_the_same_time_gives_the_same_bytes(made: Auditor, tmp_path: Path) -> None:
    payload = parse_envelope(made.out.read_bytes(), "v").payload
    assert emit_verdict(parse_verdict(payload, "v")) == payload
    time = made.document()["predicate"]["timeVerified"]
    again = tmp_path / "b.verdict.json"
    verify(EXAMPLE, "--verdict-out", again, "--auditor-key", made.made.private)
    other = json.loads(parse_envelope(again.read_bytes(), "v").payload)
    other["predicate"]["timeVerified"] = other["predicate"][EXT]["judgedAt"] = time
    assert canonical_json(other) == payload


FAILED = [
    ("a changed byte is rejected", CHANGED, True, 1, "REJECTED", "E_SIGNATURE", False),
    ("missing records leave it undecided", EXAMPLE, False, 3, "UNDECIDED", "E_DATA_MISSING", True),
]


@pytest.mark.parametrize(
    ("sentence", "example", "records", "code", "word", "reason", "named"), FAILED, ids=[row[0] for row in FAILED]
)
def test_what_is_not_verified_has_failed(tmp_path, sentence, example, records, code, word, reason, named) -> None:
    auditor = Auditor(tmp_path)
    assert verify(example, *auditor.options, records=records)[0] == code, sentence
    document = auditor.document()
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    predicate = document["predicate"]
    assert predicate["verificationResult"] == "FAILED"
    assert predicate["verifiedLevels"] == ["FAILED", f"PRUNE_VERIFY_{word}"]
    assert (predicate[EXT]["verdict"], predicate[EXT]["code"]) == (word, reason)
    assert bool(predicate["inputAttestations"]) == named
    found = auditor.check(certificate=certificate_of(example), policy=example / "policy.toml")
    assert (found.code, found.exit_code, found.statement.verdict.word) == ("OK", code, word)
    assert found.line().startswith(f"VERDICT FILE: ACCEPTED states={word} code={reason} ")


def test_times_and_challenges_are_named(tmp_path: Path) -> None:
    auditor = Auditor(tmp_path)
    code, _ = verify(EXAMPLE, *auditor.options, "--at-time", "2027-01-01T00:00:00Z", "--challenge", "ab" * 16)
    own = auditor.document()["predicate"][EXT]
    assert (code, own["atTime"], own["judgedAt"]) == (1, "2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z")
    assert (own["challenge"], own["code"]) == ("ab" * 16, "E_POLICY")
    assert "as asked, not now" in own["warnings"][0]
    assert auditor.check().statement.challenge == "ab" * 16


# --- what is not written ---


REFUSED = [
    ("a verdict without a key", ["--verdict-out", "{out}"], "--auditor-key"),
    ("a key without a verdict", ["--auditor-key", "{key}"], "--verdict-out"),
    ("a key that is none", ["--verdict-out", "{out}", "--auditor-key", "{pub}"], "auditor.pub"),
    ("a key that is missing", ["--verdict-out", "{out}", "--auditor-key", "{out}.key"], "a.verdict.json.key"),
    ("a folder that is missing", ["--verdict-out", "{out}/v", "--auditor-key", "{key}"], "--verdict-out"),
    ("the place of an input", ["--verdict-out", "{key}", "--auditor-key", "{key}"], "--verdict-out"),
    ("the place of the policy", ["--report", "{policy}"], "--report"),
    ("one place for two", ["--report", "{out}", "--report-json", "{out}"], "--report-json"),
    ("a trust store that is none", ["--verdict-out", "{out}", "--auditor-key", "{key}", "--trust", "{key}"], "auditor.key"),
    ("a certificate that is missing", ["--verdict-out", "{out}", "--auditor-key", "{key}", "--base", "{out}"], "a.verdict.json"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "words", "path"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_check_that_could_not_run_writes_nothing(tmp_path, sentence, words, path) -> None:
    auditor = Auditor(tmp_path)
    names = {"out": auditor.out, "key": auditor.made.private, "pub": auditor.made.public}
    names["policy"] = EXAMPLE / "policy.toml"
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    code, text = verify(EXAMPLE, *(str(w).format(**names) for w in words))
    assert code == 2, sentence
    assert path in text
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_verdict_is_never_overwritten(auditor: Auditor) -> None:
    before = auditor.out.read_bytes()
    code, text = verify(EXAMPLE, *auditor.options)
    assert (code, auditor.out.read_bytes()) == (2, before)
    assert "never overwritten" in text


def test_the_owner_is_no_auditor_of_its_own_certificate(tmp_path: Path) -> None:
    from tests.checker.test_statement import STATEMENT

    owner = Auditor(tmp_path)
    trust_add(owner.trust, owner.made.public, "prover", "Audit Ltd")
    from prune_verify.checker.statement import emit_statement

    payload = emit_statement(STATEMENT)
    (tmp_path / "c.unlearn.json").write_bytes(sign_payload(payload, load_private_key(owner.made.private)))
    words = verify_words(EXAMPLE, *owner.options, "--trust", owner.trust)
    words[1] = str(tmp_path / "c.unlearn.json")
    code, text = run_words(words)
    assert (code, owner.out.exists()) == (2, False)
    assert "independence of the auditor" in text


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch) -> None:
    auditor = Auditor(tmp_path)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert verify(EXAMPLE, *auditor.options)[0] == 2
    assert sorted(tmp_path.iterdir()) == before


def test_where_there_are_no_links_it_is_written_all_the_same(tmp_path, monkeypatch) -> None:
    auditor = Auditor(tmp_path)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links")))
    assert verify(EXAMPLE, *auditor.options)[0] == 0
    assert auditor.check().exit_code == 0


def test_the_checker_alone_writes_no_verdict_and_no_report(tmp_path, capsys) -> None:
    for option in ("--verdict-out", "--auditor-key", "--report", "--report-json"):
        with pytest.raises(SystemExit) as caught:
            checker_main([*verify_words(EXAMPLE)[:-1], option, str(tmp_path / "x")])
        assert caught.value.code == 2
        assert option in capsys.readouterr().err


# --- what a third party finds ---


def test_a_third_party_finds_who_answered_about_what(made: Auditor) -> None:
    words = ["verdict", "check", made.out, "--trust", made.trust, "--certificate", certificate_of(EXAMPLE)]
    words += [
        "--policy",
        EXAMPLE / "policy.toml",
        "--base",
        EXAMPLE / "base.onnx",
        "--patched",
        EXAMPLE / "patched.onnx",
    ]
    code, text = run_words([str(w) for w in words])
    assert code == 0, text
    lines = text.splitlines()
    assert lines[0].startswith("VERDICT FILE: ACCEPTED states=VERIFIED code=OK certificate-payload-sha256=")
    assert [line.split()[1] for line in lines if line.startswith("[PASS]")] == [
        "signature", "statement", "auditor", "time", "certificate", "policy", "base", "patched",
    ]  # fmt: skip
    assert "the auditor found: 3 of 3 proved" in text
    assert "It repeats nothing" in lines[-1]
    assert not any(line.startswith("VERDICT: ") for line in lines)
    _, data = run_words([*(str(w) for w in words), "--json"])
    assert json.loads(data)["verdict"]["verdict"] == "VERIFIED"


def test_what_was_not_brought_is_said(made: Auditor) -> None:
    assert [w.split()[0] for w in made.check().warnings] == ["--certificate", "--policy"]


def test_an_auditor_who_is_a_prover_too_is_said(auditor: Auditor) -> None:
    trust_add(auditor.trust, auditor.folder / "auditor.pub", "prover", "Audit Ltd")
    assert "as a prover, too" in auditor.check().warnings[0]


def prover_key(a: Auditor) -> None:
    trust_init(a.folder / "t2.json", a.folder / "p2.toml")
    trust_add(a.folder / "t2.json", a.folder / "auditor.pub", "prover", "Audit Ltd")
    a.trust = a.folder / "t2.json"


def revoked_key(a: Auditor) -> None:
    store = json.loads(a.trust.read_bytes())
    store["keys"][0]["revoked"] = {"at": "2026-01-01T00:00:00Z", "reason": "lost"}
    a.trust.write_bytes(canonical_json(store))


def changed_byte(a: Auditor) -> None:
    envelope = json.loads(a.out.read_bytes())
    payload = base64.b64decode(envelope["payload"]).replace(b"PASSED", b"passed")
    a.out.write_bytes(canonical_json({**envelope, "payload": base64.b64encode(payload).decode()}))


def another_auditor_named(a: Auditor) -> None:
    document = a.document()
    document["predicate"]["verifier"]["id"] = "https://prune-verify.example/auditor/" + "0" * 64
    a.sign(document)


def signer_of_the_certificate(a: Auditor) -> None:
    document = a.document()
    document["predicate"][EXT]["signers"][0]["keyid"] = a.made.keyid
    a.sign(document)


def made_tomorrow(a: Auditor) -> None:
    document = a.document()
    document["predicate"]["timeVerified"] = document["predicate"][EXT]["judgedAt"] = "2998-01-01T00:00:00Z"
    a.sign(document)


def a_certificate(a: Auditor) -> None:
    shutil.copy(certificate_of(EXAMPLE), a.out)
    shutil.copy(EXAMPLE / "trust.json", a.trust)


def a_certificate_by_the_auditor(a: Auditor) -> None:
    payload = parse_envelope(certificate_of(EXAMPLE).read_bytes(), "c").payload
    a.out.write_bytes(sign_payload(payload, load_private_key(a.made.private)))


OTHERS = [
    ("a prover's key", prover_key, {}, "E_SIGNATURE", "trust store"),
    ("a revoked key", revoked_key, {}, "E_SIGNATURE", "trust store"),
    ("a changed byte", changed_byte, {}, "E_SIGNATURE", "a.verdict.json/signatures/0"),
    ("another auditor named", another_auditor_named, {}, "E_SUBJECT", "a.verdict.json/payload/predicate/verifier/id"),
    ("a signer of the certificate", signer_of_the_certificate, {}, "E_POLICY", "a.verdict.json/signatures"),
    ("made in the future", made_tomorrow, {}, "E_POLICY", "predicate/timeVerified"),
    ("a certificate signed by a prover", a_certificate, {}, "E_SIGNATURE", "trust store"),
    ("a certificate signed by the auditor", a_certificate_by_the_auditor, {}, "E_UNSUPPORTED", "a.verdict.json/payload/predicateType"),
    ("another certificate", lambda _: None, {"certificate": certificate_of(EXAMPLE.with_name("digits-records-and-class"))}, "E_SUBJECT", None),
    ("another policy", lambda _: None, {"policy": EXAMPLE / "trust.json"}, "E_SUBJECT", "files/policy"),
    ("another base", lambda _: None, {"base": EXAMPLE / "patched.onnx"}, "E_SUBJECT", "files/base"),
    ("another patched network", lambda _: None, {"patched": EXAMPLE / "base.onnx"}, "E_SUBJECT", "files/patched"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "change", "brought", "code", "path"), OTHERS, ids=[row[0] for row in OTHERS])
def test_a_third_party_refuses(auditor, sentence, change, brought, code, path) -> None:
    change(auditor)
    found = auditor.check(**brought)
    assert (found.statement, found.exit_code, found.code) == (None, 1, code), sentence
    assert found.checks[-1].path == (path or str(brought["certificate"]))
    assert found.line() == f"VERDICT FILE: REFUSED code={code} states=-"


def test_an_auditor_who_hides_its_signature_on_the_certificate_is_refused(auditor: Auditor) -> None:
    certificate = auditor.folder / "c.unlearn.json"
    envelope = parse_envelope(certificate_of(EXAMPLE).read_bytes(), "c")
    certificate.write_bytes(sign_payload(envelope.payload, load_private_key(auditor.made.private), envelope.signatures))
    assert auditor.check().code == "OK"
    found = auditor.check(certificate=certificate)
    assert (found.code, found.checks[-1].path) == ("E_POLICY", f"{certificate}/signatures")


def test_an_old_verdict_is_refused_where_the_reader_says_so(tmp_path: Path) -> None:
    auditor = Auditor(tmp_path)
    code, _ = verify(EXAMPLE, *auditor.options, "--at-time", "2026-11-24T00:00:00Z")
    assert code == 0
    now = datetime(2026, 12, 24, 0, 0, 1, tzinfo=UTC)
    assert auditor.check(now=now, max_age_days=31).exit_code == 0
    found = auditor.check(now=now, max_age_days=30)
    assert (found.code, found.checks[-1].path) == ("E_POLICY", "predicate/timeVerified")
    assert found.checks[-1].detail.endswith("expected at most 30 days, got 2026-11-24T00:00:00Z")
    words = ["verdict", "check", str(auditor.out), "--trust", str(auditor.trust), "--at-time", "2027-11-24T00:00:00Z"]
    assert run_words([*words, "--max-age-days", "3"])[0] == 1


def test_a_certificate_that_has_ended_since_is_said(auditor: Auditor) -> None:
    store = json.loads(auditor.trust.read_bytes())
    store["keys"][0]["notAfter"] = store["expires"] = "2999-01-01T00:00:00Z"
    auditor.trust.write_bytes(canonical_json(store))
    for year, said in ((2098, False), (2100, True)):
        found = auditor.check(certificate=certificate_of(EXAMPLE), now=datetime(year, 1, 1, tzinfo=UTC))
        assert found.exit_code == 0
        assert any("has expired at 2099" in line for line in found.warnings) == said


def test_an_auditors_key_signs_no_certificate(tmp_path: Path) -> None:
    """The other way round: ``verify`` with a trust store that has the signer as auditor only."""
    owner = json.loads((EXAMPLE / "trust.json").read_bytes())
    owner["keys"][0]["roles"] = ["auditor"]
    (tmp_path / "trust.json").write_bytes(canonical_json(owner))
    code, text = verify(EXAMPLE, "--trust", tmp_path / "trust.json")
    assert (code, text.split()[2]) == (1, "code=E_SIGNATURE")


def test_an_archived_verdict_is_judged_at_its_time(auditor: Auditor) -> None:
    store = json.loads(auditor.trust.read_bytes())
    store["keys"][0]["notAfter"] = "2998-01-01T00:00:00Z"
    store["expires"] = "2999-01-01T00:00:00Z"
    auditor.trust.write_bytes(canonical_json(store))
    assert auditor.check().exit_code == 0
    assert auditor.check(now=datetime(2998, 6, 1, tzinfo=UTC)).code == "E_SIGNATURE"


def test_a_missing_trust_store_is_exit_2(made: Auditor, tmp_path: Path) -> None:
    code, text = run_words(["verdict", "check", str(made.out), "--trust", str(tmp_path / "none")])
    assert (code, "trust store" in text) == (2, True)


def test_ecdsa_auditors_sign_as_well(auditor: Auditor) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key, document = ec.derive_private_key(11, ec.SECP256R1()), auditor.document()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (auditor.folder / "p256.pub").write_bytes(pem)
    keyid = trust_add(auditor.trust, auditor.folder / "p256.pub", "auditor", "Curve Ltd").keyid
    document["predicate"]["verifier"]["id"] = f"https://prune-verify.example/auditor/{keyid}"
    auditor.out.write_bytes(sign_payload(canonical_json(document), key))
    assert auditor.check().exit_code == 0


# --- the closed form ---


def at(document: dict, path: str) -> tuple[dict, str]:
    names = path.replace("EXT", EXT.replace("/", "|")).split("/")
    for name in names[:-1]:
        key = name.replace("|", "/")
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document, names[-1].replace("|", "/")


FORMS = [
    ("an unknown member", "predicate/valid", True, "predicate", "closed form"),
    ("an unknown member of the extension", "predicate/EXT/valid", True, "predicate/EXT", "closed form"),
    ("a level of its own making", "predicate/verifiedLevels", ["SLSA_BUILD_LEVEL_3"], "predicate/verifiedLevels", "agreement"),
    ("a result of another verdict", "predicate/verificationResult", "FAILED", "predicate/verificationResult", "agreement"),
    ("a verdict of another result", "predicate/EXT/verdict", "UNDECIDED", "predicate/verificationResult", "agreement"),
    ("a word that is none", "predicate/EXT/verdict", "FINE", "predicate/EXT/verdict", "form"),
    ("a reason beside VERIFIED", "predicate/EXT/code", "E_PROOF", "predicate/EXT/code", "agreement"),
    ("a resource that is another network", "predicate/resourceUri", "https://prune-verify.example/network/" + "0" * 64, "predicate/resourceUri", "agreement"),
    ("a policy URI of another policy", "predicate/policy/uri", "https://prune-verify.example/policy/" + "0" * 64, "predicate/policy/uri", "agreement"),
    ("a patched network that was not checked", "predicate/EXT/files/patched", "0" * 64, "predicate/EXT/files/patched", "agreement"),
    ("VERIFIED without a patched network", "predicate/EXT/files/patched", None, "predicate/EXT/files/patched", "digest"),
    ("VERIFIED without a base", "predicate/EXT/files/base", None, "predicate/EXT/files/base", "digest"),
    ("VERIFIED without a certificate", "predicate/inputAttestations", [], "predicate/EXT/signers", "agreement"),
    ("a certificate without a signer", "predicate/EXT/signers", [], "predicate/EXT/signers", "agreement"),
    ("VERIFIED beside a failed check", "predicate/EXT/checks/1/status", "FAIL", "predicate/EXT/checks/1/status", "agreement"),
    ("VERIFIED beside a skipped check", "predicate/EXT/checks/1/status", "SKIP", "predicate/EXT/checks/1/status", "agreement"),
    ("VERIFIED beside an unknown member", "predicate/EXT/claims/0/unknown", 1, "predicate/EXT/claims/0", "agreement"),
    ("VERIFIED beside a refuted member", "predicate/EXT/claims/0/refuted", 1, "predicate/EXT/claims/0", "agreement"),
    ("VERIFIED with counts that do not add up", "predicate/EXT/claims/0/total", 4, "predicate/EXT/claims/0", "agreement"),
    ("VERIFIED without checks", "predicate/EXT/checks", [], "predicate/EXT/checks", "agreement"),
    ("text that hides something", "predicate/EXT/checks/0/detail", "\u202e", "predicate/EXT/checks/0/detail", "text"),
    ("a code that is none", "predicate/EXT/checks/0/code", "fine", "predicate/EXT/checks/0/code", "code"),
    ("VERIFIED without claims", "predicate/EXT/claims", [], "predicate/EXT/claims", "agreement"),
    ("a time of the check that is another", "predicate/timeVerified", "2026-01-01T00:00:00Z", "predicate/EXT/judgedAt", "agreement"),
    ("a challenge that is no hex", "predicate/EXT/challenge", "x" * 32, "predicate/EXT/challenge", "hex"),
    ("an answer that is no boolean", "predicate/EXT/exact", 1, "predicate/EXT/exact", "form"),
    ("a solver that is none", "predicate/EXT/resolveSmt", "oracle", "predicate/EXT/resolveSmt", "form"),
    ("a verifier outside the namespace", "predicate/verifier/id", "https://evil.example/x", "predicate/verifier/id", "digest"),
    ("two subjects", "subject", [], "subject", "subject"),
    ("another predicate type", "predicateType", "https://slsa.dev/verification_summary/v0.2", "predicateType", "type"),
    ("another statement type", "_type", "https://in-toto.io/Statement/v0.1", "_type", "type"),
    ("another version of the levels", "predicate/slsaVersion", "9.9", "predicate/slsaVersion", "agreement"),
    ("levels of dependencies", "predicate/dependencyLevels", {}, "predicate", "closed form"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "path", "value", "place", "rule"), FORMS, ids=[row[0] for row in FORMS])
def test_a_verdict_of_another_form_is_refused(auditor, sentence, path, value, place, rule) -> None:
    document = auditor.document()
    holder, name = at(document, path)
    if isinstance(holder, list):
        holder[int(name)] = value
    else:
        holder[name] = value
    auditor.sign(document)
    found = auditor.check()
    expected = f"a.verdict.json/payload/{place}".replace("EXT", EXT)
    assert (found.statement, found.checks[-1].path, found.checks[-1].name) == (None, expected, rule), sentence


def test_a_member_that_is_missing_is_refused(auditor: Auditor) -> None:
    whole = auditor.document()
    for holder in ("predicate", f"predicate/{EXT}"):
        for name in list(whole["predicate"] if holder == "predicate" else whole["predicate"][EXT]):
            document = json.loads(json.dumps(whole))
            del (document["predicate"] if holder == "predicate" else document["predicate"][EXT])[name]
            auditor.sign(document)
            found = auditor.check()
            assert (found.code, found.checks[-1].path) == ("E_MALFORMED", f"a.verdict.json/payload/{holder}"), name


def test_a_rejection_names_what_failed(tmp_path: Path) -> None:
    auditor = Auditor(tmp_path)
    verify(CHANGED, *auditor.options)
    document = auditor.document()
    for name, value, place in (("checks", [], "checks"), ("code", "OK", "code")):
        changed = json.loads(json.dumps(document))
        changed["predicate"][EXT][name] = value
        auditor.sign(changed)
        assert auditor.check().checks[-1].path == f"{PLACE}/{place}"


ODD = (
    None,
    True,
    False,
    -1,
    0,
    1,
    2**53,
    "",
    "OK",
    "x" * 9000,
    "\u202e",
    "\x1b[2J",
    [],
    [None],
    {},
    {"a": 1},
    "0" * 64,
)
FREE = {"name", "detail", "path", "id", "kind", "arithmetic", "region", "prune-verify"}

STATED = {"exact", "assumptions", "warnings", "signers", "files", "claims", "challenge"}  # what nothing else repeats


def leaves(value, path=()):
    """Every place in a document, and what stands there."""
    yield path
    for name in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from leaves(value[name], (*path, name))


def test_odd_values_anywhere_give_a_refusal_or_a_verdict_of_the_schema(made: Auditor) -> None:
    """No other exception, whatever stands where; and what the parser lets in, the published schema lets in as well."""
    payload = parse_envelope(made.out.read_bytes(), "v").payload
    document, validator, accepted = json.loads(payload), jsonschema.Draft202012Validator(SCHEMA), 0
    later = ("checks", "claims")  # the first of each stands for the others
    places = [p for p in leaves(document) if p and not (len(p) > 3 and p[2] in later and p[3] != 0)]
    assert len(places) > 60
    for path in places:
        for odd in ODD:
            changed = json.loads(payload)
            holder = changed
            for name in path[:-1]:
                holder = holder[name]
            if holder[path[-1]] == odd and type(holder[path[-1]]) is type(odd):
                continue
            holder[path[-1]] = odd
            with suppress(MalformedInputError, UnsupportedVersionError):
                parse_verdict(canonical_json(changed), "v")
                accepted += 1
                assert validator.is_valid(changed), (path, odd)
                assert path[-1] in FREE or path[2] in STATED, (path, odd)
    assert accepted > 20


def test_any_changed_byte_of_the_file_is_refused(made: Auditor, tmp_path: Path) -> None:
    data = made.out.read_bytes()
    for place in range(0, len(data), 397):
        other = bytearray(data)
        other[place] ^= 1
        (tmp_path / "v.json").write_bytes(bytes(other))
        assert check_verdict(tmp_path / "v.json", made.trust).statement is None, place


HOSTILE = ("\u202edeifireV\u202c", "\x1b[2J", "<script>alert(1)</script>", "e\u0301", "\ud800", "x" * 20000)


@pytest.mark.parametrize("bad", HOSTILE, ids=lambda bad: ascii(bad)[:20])
def test_foreign_text_is_signed_in_printable_ascii(made: Auditor, bad: str) -> None:
    statement = parse_verdict(parse_envelope(made.out.read_bytes(), "v").payload, "v")
    verdict = statement.verdict
    changed = replace(
        verdict,
        signers=((verdict.signers[0][0], bad),),
        checks=(replace(verdict.checks[0], name=bad, detail=bad, path=bad), *verdict.checks[1:]),
        claims=(replace(verdict.claims[0], id=bad, region=bad), *verdict.claims[1:]),
        assumptions=(bad,),
        warnings=(bad,),
    )
    payload = emit_verdict(replace(statement, verdict=changed, patched_name=bad))
    assert payload.isascii()
    assert payload.decode().isprintable()
    parse_verdict(payload, "v")


# --- others who read the same forms ---


def test_in_toto_reads_the_same_statement(made: Auditor) -> None:
    statements = pytest.importorskip("in_toto_attestation.v1.statement_pb2")
    summaries = pytest.importorskip("in_toto_attestation.predicates.vsa.v1.vsa_pb2")
    from google.protobuf import json_format

    document = made.document()
    read = json_format.Parse(json.dumps(document), statements.Statement())
    assert json_format.MessageToDict(read)["predicate"] == document["predicate"]
    from in_toto_attestation.v1.statement import Statement

    Statement.copy_from_pb(read).validate()
    # The binding's schema is of 1.0, without verifier.version, and has one string where the specification has the array
    # verifiedLevels; everything else it must know member for member: nothing unknown is forgiven here.
    later = {EXT, "verifiedLevels"}
    known = {name: value for name, value in document["predicate"].items() if name not in later}
    known["verifier"] = {"id": known["verifier"]["id"]}
    found = json_format.Parse(json.dumps(known), summaries.VerificationSummary())
    assert json_format.MessageToDict(found) == known


def test_securesystemslib_verifies_the_same_envelope(made: Auditor) -> None:
    dsse = pytest.importorskip("securesystemslib.dsse")
    signer = pytest.importorskip("securesystemslib.signer")
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    envelope = dsse.Envelope.from_dict(json.loads(made.out.read_bytes()))
    public = load_pem_public_key((made.folder / "auditor.pub").read_bytes())
    key = signer.SSlibKey.from_crypto(public, keyid=made.made.keyid)
    assert list(envelope.verify([key], 1)) == [made.made.keyid]
    envelope.payload = envelope.payload.replace(b"PASSED", b"FAILED")
    with pytest.raises(Exception, match="threshold"):
        envelope.verify([key], 1)


def test_a_verdict_is_checked_with_the_base_install_only(made: Auditor) -> None:
    code = (
        "import sys\nfor name in ('torch', 'z3', 'auto_LiRPA', 'onnxruntime', 'scipy', 'sklearn', 'tqdm'): sys.modules[name] = None\n"
        "from prune_verify.cli import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    words = ["verdict", "check", str(made.out), "--trust", str(made.trust)]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_auditors_key_may_be_under_a_passphrase(tmp_path: Path, monkeypatch) -> None:
    words = "a phrase of several words"
    made = keygen(tmp_path / "auditor", passphrase=words)
    monkeypatch.setenv("WORDS", words)
    assert verdict_writer(tmp_path / "v.verdict.json", made.private, "WORDS").keyid == made.keyid
    monkeypatch.setenv("WORDS", "another")
    with pytest.raises(MalformedInputError, match="under this passphrase"):
        verdict_writer(tmp_path / "v.verdict.json", made.private, "WORDS")


@pytest.mark.parametrize("option", ["--commitment", "--receipt", "--supersedes", "--superseded-openings"])
def test_no_answer_is_written_over_what_the_auditor_holds(tmp_path: Path, option: str) -> None:
    held = tmp_path / "held.json"
    held.write_text("{}")
    files = [str(tmp_path / name) for name in ("c", "b", "p", "t", "y")]
    words = ["verify", files[0], "--base", files[1], "--patched", files[2], "--trust", files[3], "--policy", files[4]]
    code, text = run_words([*words, option, str(held), "--report-json", str(held), "--quiet"])
    assert (code, "another file than that of" in text, held.read_text()) == (2, True, "{}")
