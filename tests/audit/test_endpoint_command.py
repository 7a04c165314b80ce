"""The verb `audit` on the committed example: exit codes, what ends an audit, and how it goes on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.network import Network
from prune_verify.cli import run_words
from tests.served_model import METADATA, Logits, Reply, Request, Served, model, protocol, running

pytestmark = [pytest.mark.loopback, pytest.mark.prover]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "certs" / "examples"
EXAMPLE = EXAMPLES / "digits-records-and-class"
SEED = "07" * 32
FAST = ("--rate", "0", "--seed", SEED, "--timeout", "10")
SMALL = (*FAST, "--queries", "100", "--max-deviation", "0.1")
DEAD = 10**9


@pytest.fixture(scope="module")
def patched() -> Network:
    return model(EXAMPLE / "patched.onnx").network


@pytest.fixture(scope="module")
def honest(patched: Network) -> Logits:
    return running(patched)


def words(url: str, *more: str, example: Path = EXAMPLE, records: bool = True) -> list[str]:
    named = ("base.onnx", "patched.onnx", "trust.json", "policy.toml")
    files = [word for name in named for word in (f"--{name.split('.')[0]}", str(example / name))]
    sets = ["--forget", str(example / "forget.npz"), "--retain", str(example / "retain.npz")] if records else []
    certificate = str(next(example.glob("*.unlearn.json")))
    return ["audit", url, "--certificate", certificate, *files, *sets, "--json", "--quiet", *more]


def audit(url: str, *more: str, **given: object) -> tuple[int, dict]:
    code, text = run_words(words(url, *more, **given))  # type: ignore[arg-type]
    found = json.loads(text)
    assert found["exitCode"] == code
    return code, found


def ended(found: dict) -> tuple[str, str, str]:
    """Verdict, code, and the path of the first line of the roster that bears the code."""
    path = next((c["path"] for c in found["checks"] if c["code"] == found["code"] != "OK"), "")
    return found["verdict"], found["code"], path


def test_the_certified_network_is_verified_and_the_result_says_how(honest: Logits) -> None:
    with Served(protocol(honest)) as served:
        code, found = audit(served.url, *FAST)
    assert (code, ended(found)) == (0, ("VERIFIED", "OK", "")), found["checks"]
    told = found["audit"]
    assert (told["seed"], told["endpoint"], told["outputs"], told["datatype"]) == (SEED, served.url, ["logits"], "FP32")
    assert (told["queries"], told["deviations"], told["examples"], told["failure"]) == (1200, 0, [], None)
    assert {kind: row["queries"] for kind, row in told["intervals"].items()} == {
        "forget": 360,
        "class": 360,
        "retained": 240,
        "elsewhere": 240,
        "overall": 1200,
    }
    assert told["power"] == {
        "confidence": 0.95,
        "maxDeviation": 0.01,
        "leastRequests": 299,
        "regions": ["forget", "class"],
    }
    assert told["intervals"]["forget"]["upperBound"] == pytest.approx(1 - 0.05 ** (1 / 360))
    assert told["intervals"]["forget"]["interval"] == {"lower": 0.0, "upper": pytest.approx(1 - 0.025 ** (1 / 360))}
    assert told["intervals"]["forget"]["detectsMaxDeviation"] == pytest.approx(1 - 0.99**360)
    assert told["tolerance"]["given"] is None
    assert 0 < told["tolerance"]["widestInterval"] < 1e-3
    assert len(told["limits"]) == 3
    assert all(any(limit in w for w in found["warnings"]) for limit in told["limits"])
    assert len(served.queries) == 1201  # one of no account


def test_without_a_seed_every_audit_asks_something_else(honest: Logits) -> None:
    asked = []
    for _ in range(2):
        with Served(protocol(honest)) as served:
            _, found = audit(served.url, "--rate", "0", "--queries", "20")
        drawn = [x for x in served.queries if (x * 16 != np.round(x * 16)).any()]  # others may be records
        assert len(drawn) > 3
        asked.append((found["audit"]["seed"], [x.tobytes() for x in drawn]))
        assert not any("seed was given" in warning for warning in found["warnings"])
    assert asked[0][0] != asked[1][0]
    assert not set(asked[0][1]) & set(asked[1][1])


def test_text_for_a_person_begins_with_the_stable_line(honest: Logits) -> None:
    with Served(protocol(honest)) as served:
        line = [word for word in words(served.url, *SMALL) if word != "--json"]
        code, text = run_words(line)
    assert code == 0
    assert text.startswith("VERDICT: VERIFIED code=OK payload-sha256=")
    assert "[PASS] audit forget 30 queries, 0 deviations, at most 9.5 % deviate (confidence 95 %), " in text


OUTPUTS = [
    ("logits", (), ["logits"]),
    ("logits and label", ("--output", "logits", "--label-output", "label"), ["logits", "label"]),
    ("label alone", ("--label-output", "label"), ["label"]),
]


@pytest.mark.parametrize(("what", "more", "outputs"), OUTPUTS, ids=[row[0] for row in OUTPUTS])
def test_logits_labels_or_both_are_compared(
    what: str, more: tuple[str, ...], outputs: list[str], honest: Logits
) -> None:
    base = running(model(EXAMPLE / "base.onnx").network)
    for logits, expected in ((honest, "VERIFIED"), (base, "REJECTED")):
        with Served(protocol(logits)) as served:
            _, found = audit(served.url, *SMALL, *more)
        assert (found["verdict"], found["audit"]["outputs"]) == (expected, outputs)


def test_requests_with_several_queries_count_once_each(honest: Logits) -> None:
    with Served(protocol(honest)) as served:
        _, found = audit(served.url, *SMALL, "--batch", "10")
    assert ended(found) == ("UNDECIDED", "E_FEW_QUERIES", "audit/forget")
    assert [len(x) for x in served.queries] == [10] * 11
    row = found["audit"]["intervals"]["forget"]
    assert (row["queries"], row["requests"] <= 10, row["upperBound"] > 0.2) == (30, True, True)


def test_a_double_precision_model_is_asked_in_double_precision(honest: Logits) -> None:
    metadata = METADATA | {
        "inputs": [{"name": model(EXAMPLE / "patched.onnx").input_name, "datatype": "FP64", "shape": [-1, 64]}]
    }
    with Served(protocol(honest, metadata=metadata)) as served:
        _, found = audit(served.url, *SMALL)
    assert (found["verdict"], found["audit"]["datatype"]) == ("VERIFIED", "FP64")
    assert all(json.loads(r.body)["inputs"][0]["datatype"] == "FP64" for r in served.requests if r.method == "POST")


# --- what ends an audit otherwise ---


def spoilt(honest: Logits, after: int, change: Callable[[dict], object]) -> Callable[[Request], Reply]:
    """Honest until ``after`` answers were given, then one that is changed."""

    def spoil(document: dict, count: int) -> dict | bytes:
        if count == after:
            changed = change(document)
            return changed if isinstance(changed, bytes) else document
        return document

    return protocol(honest, change=spoil)


def output(**members: object) -> Callable[[dict], object]:
    return lambda document: document["outputs"][0].update(members)


def moved(document: dict) -> None:
    document["outputs"][0]["data"][4] += 0.01


DEVIATIONS = [
    ("one logit off by a hundredth", moved, "label"),
    ("NaN", output(data=[float("nan")] * 10), "a finite number"),
    ("an infinite logit", output(data=[float("inf")] * 10), "a finite number"),
    ("one row more", output(shape=[2, 10], data=[0] * 20), "[1, 10]"),
    ("one label fewer", output(shape=[1, 9], data=[0] * 9), "[1, 10]"),
    ("another data type", output(datatype="FP16"), "one of FP32, FP64"),
    ("another output", output(name="other"), "one output named 'logits'"),
    ("no JSON", lambda _: b"<html>", "a JSON value"),
    ("a huge answer", lambda _: b" " * 2**22, "at most"),
]


@pytest.mark.parametrize(("what", "change", "expected"), DEVIATIONS, ids=[row[0] for row in DEVIATIONS])
def test_one_wrong_answer_of_a_served_model_is_a_rejection(
    what: str, change: Callable[[dict], object], expected: str, honest: Logits
) -> None:
    with Served(spoilt(honest, 57, change)) as served:
        code, found = audit(served.url, *SMALL)
    word, reason, path = ended(found)
    assert (code, word, reason) == (1, "REJECTED", "E_DEVIATION")
    (example,) = found["audit"]["examples"]
    assert (example["query"], path) == (56, f"audit/{example['kind']}")  # the first answer is of no account
    assert expected in example["expected"]


FIRST = [
    ("wrong shape", spoilt, output(shape=[1, 9], data=[0] * 9), "first answer: answer/outputs/logits/shape"),
    ("wrong data type", spoilt, output(datatype="FP16"), "first answer: answer/outputs/logits/datatype"),
    ("wrong name", spoilt, output(name="probabilities"), "first answer: answer/outputs"),
]


@pytest.mark.parametrize(("what", "make", "change", "path"), FIRST, ids=[row[0] for row in FIRST])
def test_an_endpoint_that_speaks_otherwise_from_the_start_is_not_audited(
    what, make, change, path, honest: Logits
) -> None:
    with Served(make(honest, 0, change)) as served:
        code, found = audit(served.url, *SMALL)
    assert (code, found["code"]) == (2, "E_ENDPOINT")
    assert found["error"].startswith(path)
    assert len(served.queries) == 1


NO_AUDIT = [
    ("no such model", "/v2/models/other", (), "a model of this name"),
    ("no such version", "/v2/models/digits/versions/9", (), "a model of this name"),
    ("no such host", "", (), "an answer in 1 tries"),
    ("not an address", "/v1/models/digits", (), "address of a model"),
    ("no queries", "/v2/models/digits", ("--queries", "0"), "--queries: number"),
    ("a batch of none", "/v2/models/digits", ("--batch", "0"), "--batch: number"),
    ("a share below zero", "/v2/models/digits", ("--shares", "0.5,-0.1,0.6"), "--shares"),
    ("two shares", "/v2/models/digits", ("--shares", "0.5,0.5"), "--shares"),
    ("no forget share", "/v2/models/digits", ("--shares", "0,0.5,0.5"), "--shares"),
    ("confidence one", "/v2/models/digits", ("--confidence", "1"), "--confidence"),
    ("every deviation accepted", "/v2/models/digits", ("--max-deviation", "1"), "--max-deviation"),
    ("a negative tolerance", "/v2/models/digits", ("--tolerance", "-1"), "--tolerance"),
    ("a short seed", "/v2/models/digits", ("--seed", "0123"), "--seed"),
    ("no time", "/v2/models/digits", ("--timeout", "0"), "--timeout"),
    ("a rate that is not a number", "/v2/models/digits", ("--rate", "nan"), "--rate"),
]


@pytest.mark.parametrize(("what", "path", "more", "says"), NO_AUDIT, ids=[row[0] for row in NO_AUDIT])
def test_what_cannot_be_audited_ends_in_exit_code_2(
    what: str, path: str, more: tuple[str, ...], says: str, honest: Logits
) -> None:
    with Served(protocol(honest)) as served:
        url = served.origin + path if path else "http://127.0.0.1:9/v2/models/digits"
        code, found = audit(url, *SMALL, "--retries", "0", *more)
    assert (code, says in found["error"]) == (2, True), found["error"]
    assert served.queries == []


def failing(honest: Logits, after: int, until: int = DEAD) -> Callable[[Request], Reply]:
    """Honest, but for failures of transport from one inference request to another."""
    handle, count = protocol(honest), [0]

    def answer(request: Request) -> Reply:
        count[0] += request.method == "POST"
        return Reply(b"busy", 503) if request.method == "POST" and after < count[0] <= until else handle(request)

    return answer


def test_a_short_failure_of_transport_changes_nothing(honest: Logits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prune_verify.audit.endpoint_client._FIRST_WAIT", 0.001)
    with Served(failing(honest, 30, 33)) as served:
        assert ended(audit(served.url, *SMALL)[1])[0] == "VERIFIED"


def test_queries_that_were_not_answered_are_no_evidence(honest: Logits) -> None:
    with Served(failing(honest, 90)) as served:
        code, found = audit(served.url, *SMALL, "--retries", "0")
    assert (code, ended(found)) == (3, ("UNDECIDED", "E_ENDPOINT", f"POST {served.url}/infer"))
    assert (found["audit"]["queries"], found["audit"]["intervals"]["overall"]["notAnswered"]) == (89, 11)
    assert "status 503" in found["audit"]["failure"]


def test_a_deviation_counts_although_the_endpoint_failed_later(honest: Logits) -> None:
    lying = spoilt(honest, 20, moved)
    count = [0]

    def handle(request: Request) -> Reply:
        count[0] += request.method == "POST"
        return Reply(b"", 503) if count[0] > 40 else lying(request)

    with Served(handle) as served:
        assert ended(audit(served.url, *SMALL, "--retries", "0")[1])[:2] == ("REJECTED", "E_DEVIATION")


def test_an_endpoint_that_answers_no_query_cannot_be_audited(honest: Logits) -> None:
    with Served(failing(honest, 0)) as served:
        code, found = audit(served.url, *SMALL, "--retries", "0")
    assert (code, found["code"]) == (2, "E_ENDPOINT")


def test_too_few_queries_leave_it_open(honest: Logits) -> None:
    with Served(protocol(honest)) as served:
        code, found = audit(served.url, *FAST, "--queries", "90")
    assert (code, ended(found)) == (3, ("UNDECIDED", "E_FEW_QUERIES", "audit/forget"))
    assert "299 requests without a deviation are needed for 1 %" in next(
        c["detail"] for c in found["checks"] if c["path"] == "audit/forget"
    )


def test_a_tolerance_that_hides_the_base_leaves_it_open(honest: Logits) -> None:
    """Every logit may differ by so much that no label is certain: nothing can be asked that would tell."""
    with Served(protocol(honest)) as served:
        _, found = audit(served.url, *SMALL, "--tolerance", "100")
    assert ended(found) == ("UNDECIDED", "E_FEW_QUERIES", "audit/forget")
    assert (found["audit"]["queries"], found["audit"]["intervals"]["overall"]["notCounted"]) == (0, 100)


def test_a_server_in_half_precision_needs_a_tolerance_and_the_result_names_it(honest: Logits) -> None:
    def half(x: np.ndarray) -> np.ndarray:
        return honest(x).astype(np.float16).astype(np.float32)

    for more, expected, given in (((), "REJECTED", None), (("--tolerance", "0.01"), "VERIFIED", "0.01")):
        with Served(protocol(half)) as served:
            _, found = audit(served.url, *SMALL, *more)
        assert (found["verdict"], found["audit"]["tolerance"]["given"]) == (expected, given)


# --- the certificate ---


def test_a_certificate_that_is_not_verified_ends_the_audit_as_it_ends_verify(honest: Logits) -> None:
    with Served(protocol(honest)) as served:
        code, found = audit(served.url, *SMALL, example=EXAMPLES / "digits-byte-changed_fail")
        assert (code, found["verdict"], found["code"], found["audit"]) == (1, "REJECTED", "E_SIGNATURE", None)
        code, found = audit(served.url, *SMALL, records=False)
        assert (code, found["verdict"], found["code"], found["audit"]) == (3, "UNDECIDED", "E_DATA_MISSING", None)
    assert served.requests == []


def test_an_audit_without_the_records_is_possible_and_capped(honest: Logits) -> None:
    base = running(model(EXAMPLE / "base.onnx").network)
    insecure = ("--insecure-unverified-certificate", "--max-deviation", "0.3")
    with Served(protocol(honest)) as served:
        code, found = audit(served.url, *SMALL, *insecure, records=False)
    assert (code, found["verdict"], found["code"]) == (3, "UNDECIDED", "E_DATA_MISSING")
    assert any("the audit went on as asked" in warning for warning in found["warnings"])
    assert found["audit"]["deviations"] == 0
    with Served(protocol(base)) as served:
        assert audit(served.url, *SMALL, *insecure, records=False)[0] == 1


# --- state ---


def test_an_audit_that_was_cut_off_ends_as_one_that_was_not(honest: Logits, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with Served(protocol(honest)) as served:
        asked = served
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("prune_verify.audit.endpoint_command._ask", interrupted_after(40))
            assert run_words(words(served.url, *SMALL, "--state", str(state)))[0] == 2
        half = len(asked.queries)
        assert (half, state.stat().st_mode & 0o777) == (41, 0o600)
        _, whole = audit(served.url, *SMALL, "--state", str(state))
        assert len(asked.queries) == half + 1 + 60
        again = audit(served.url, *SMALL, "--state", str(state))[1]
        _, fresh = audit(served.url, *SMALL)
    assert whole["audit"] == fresh["audit"] == again["audit"]
    assert whole["verdict"] == "VERIFIED"


def interrupted_after(requests: int) -> Callable:
    from prune_verify.audit import endpoint_command

    ask, count = endpoint_command._ask, [0]

    def once(*given: object) -> object:
        count[0] += 1
        if count[0] > requests:
            raise KeyboardInterrupt
        return ask(*given)  # type: ignore[arg-type]

    return once


def test_a_deviation_is_kept_in_the_state(honest: Logits, tmp_path: Path) -> None:
    state = str(tmp_path / "state.json")
    with Served(spoilt(honest, 10, moved)) as served:
        first = audit(served.url, *SMALL, "--state", state)[1]
        again = audit(served.url, *SMALL, "--state", state)[1]
    assert first["audit"] == again["audit"]
    assert again["verdict"] == "REJECTED"


def test_the_state_of_another_audit_is_refused(honest: Logits, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with Served(protocol(honest)) as served:
        audit(served.url, *SMALL, "--state", str(state))
        for more in (
            ("--queries", "99"),
            ("--batch", "2"),
            ("--tolerance", "0.1"),
            ("--shares", "0.8,0.1,0.1"),
            ("--label-output", "label"),
        ):
            code, found = audit(served.url, *SMALL, *more, "--state", str(state))
            assert (code, found["error"].startswith(f"{state}: state: ")) == (2, True)
        code, found = audit(served.url, *SMALL, "--seed", "08" * 32, "--state", str(state))
        assert (code, found["error"].startswith(f"{state}/seed: state: ")) == (2, True)


STATES = [
    ("not JSON", lambda document: b"{", ""),
    ("another version", lambda document: document | {"formatVersion": 2}, "/formatVersion"),
    (
        "an outcome of another kind",
        lambda document: document | {"outcomes": ["wrong", *document["outcomes"][1:]]},
        "/outcomes/0",
    ),
    ("an outcome too few", lambda document: document | {"outcomes": document["outcomes"][1:]}, "/outcomes"),
    ("a member more", lambda document: document | {"valid": True}, ""),
]


@pytest.mark.parametrize(("what", "change", "path"), STATES, ids=[row[0] for row in STATES])
def test_a_state_that_is_none_is_refused(
    what: str, change: Callable, path: str, honest: Logits, tmp_path: Path
) -> None:
    state = tmp_path / "state.json"
    with Served(protocol(honest)) as served:
        audit(served.url, *SMALL, "--state", str(state))
        changed = change(json.loads(state.read_bytes()))
        state.write_bytes(changed if isinstance(changed, bytes) else json.dumps(changed).encode())
        code, found = audit(served.url, *SMALL, "--state", str(state))
    assert (code, found["error"].startswith(f"{state}{path}: ")) == (2, True), found["error"]


def test_an_audit_that_was_killed_goes_on(honest: Logits, tmp_path: Path) -> None:
    """Another process, and a signal that no program can catch."""
    state, enough = tmp_path / "state.json", threading.Event()
    handle, count = protocol(honest), [0]

    def slow(request: Request) -> Reply:
        count[0] += request.method == "POST"
        if count[0] > 60:
            enough.set()
            time.sleep(0.05)
        return handle(request)

    with Served(slow) as served:
        line = words(served.url, *SMALL, "--state", str(state), "--rate", "50")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        run = subprocess.Popen(
            [sys.executable, "-m", "prune_verify.cli", *line], env=environment, stdout=subprocess.DEVNULL
        )
        assert enough.wait(60)
        run.send_signal(signal.SIGKILL)
        run.wait(60)
        kept = json.loads(state.read_bytes())["outcomes"]
        assert 10 < kept.count("right") < 100
        count[0] = -DEAD
        before = len(served.queries)
        _, resumed = audit(served.url, *SMALL, "--state", str(state))
        assert len(served.queries) - before == 1 + 100 - kept.count("right")
        _, fresh = audit(served.url, *SMALL)
    assert resumed["audit"] == fresh["audit"]


def test_the_queries_of_a_resumed_audit_are_those_of_the_first(honest: Logits, tmp_path: Path) -> None:
    with Served(failing(honest, 50)) as served:
        audit(served.url, *SMALL, "--retries", "0", "--state", str(tmp_path / "s"))
        first = [x.tobytes() for x in served.queries]
    with Served(protocol(honest)) as other:
        code, found = audit(other.url, *SMALL, "--state", str(tmp_path / "s"))
        assert (code, "that of another one" in found["error"]) == (2, True)  # another endpoint
        audit(other.url, *SMALL)
        assert [x.tobytes() for x in other.queries][: len(first)] == first


# --- what it needs ---

BLOCKED = ("torch", "z3", "auto_LiRPA", "onnxruntime", "sklearn", "tqdm", "joblib", "matplotlib")


def with_blocked(names: tuple[str, ...], line: list[str]) -> subprocess.CompletedProcess[str]:
    code = f"import sys\nfor name in {names!r}: sys.modules[name] = None\nfrom prune_verify.cli import main\nsys.exit(main(sys.argv[1:]))\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *line], env=environment, capture_output=True, text=True, check=False
    )


def test_an_auditor_needs_nothing_of_the_prover(honest: Logits) -> None:
    with Served(protocol(honest)) as served:
        done = with_blocked(BLOCKED, words(served.url, *SMALL))
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "VERIFIED"), done.stderr


@pytest.mark.parametrize("name", ["urllib3", "scipy"])
def test_what_is_not_installed_is_named_before_anything_is_asked(name: str, honest: Logits) -> None:
    with Served(protocol(honest)) as served:
        done = with_blocked((name, f"{name}.special"), words(served.url, *SMALL))
    found = json.loads(done.stdout)
    assert (done.returncode, found["code"], "pip install 'prune-verify[endpoint]'" in found["error"]) == (
        2,
        "E_NOT_INSTALLED",
        True,
    )
    assert served.requests == []
