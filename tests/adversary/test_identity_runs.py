"""The owner's own box patch with patch.json withheld: RX by names against the structural rule, and in onnxruntime."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from prune_verify.checker.claim import Claim, LabelledRows, Problem, decide
from prune_verify.checker.identity import decide_identity
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.patch_json import parse_patch
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from tests.dishonest_owner import Owner, failure, prepare, run

pytestmark = pytest.mark.prover
DOMAIN = Domain((Fraction(0),), (Fraction(1),))
RADIUS = Fraction("0.05")
WORDS = ("--radius", "0.1", "--retained-radius", "0.05", "--claims", "forget,retain_exact")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A box patch for eleven records (gates of unequal size), its patch.json put away."""
    folder = tmp_path_factory.mktemp("withheld")
    prepare(folder)
    with np.load(folder / "retain.npz") as data:
        x, y = data["x"], data["y"]
    with np.load(folder / "forget.npz") as data:
        forget_x, forget_y = np.concatenate([data["x"], x[::60]]), np.concatenate([data["y"], y[::60]])
    np.savez(folder / "forget.npz", x=forget_x, y=forget_y)
    keep = np.ones(len(y), dtype=bool)
    keep[::60] = False
    np.savez(folder / "retain.npz", x=x[keep], y=y[keep])
    records = ("--forget", folder / "forget.npz", "--retain", folder / "retain.npz")
    run("repair", folder / "base.onnx", *records, "--out", folder)
    (folder / "patch.json").rename(folder / "withheld.json")
    return folder


def _problem(folder: Path, *, known: bool) -> Problem:
    base, patched = (load_network((folder / f"{n}.onnx").read_bytes(), n).network for n in ("base", "patched"))
    patch = parse_patch((folder / "withheld.json").read_bytes(), "patch.json").patch if known else None
    with np.load(folder / "retain.npz") as data:
        rows = LabelledRows(data["x"], data["y"])
    return Problem(base, patched, patch, DOMAIN, retain=rows)


@pytest.mark.parametrize("arithmetic", [BINARY32, REAL])
def test_what_the_structural_rule_proves_is_proved_without_the_patch(folder: Path, arithmetic: str) -> None:
    claim = Claim("retain_exact", arithmetic, "structural", radius=RADIUS)
    structural = decide(_problem(folder, known=True), claim)
    claim = Claim("retain_exact", arithmetic, "identity", radius=RADIUS)
    found = decide_identity(_problem(folder, known=False), claim)
    assert found.proved >= 0.99 * structural.proved


def _audited(folder: Path) -> bytes:
    """The patched network with the base's logits as a second output."""
    base, model = (onnx.load(folder / f"{name}.onnx") for name in ("base", "patched"))
    last = next(node for node in base.graph.node if base.graph.output[0].name in node.output)
    twin = next(n for n in model.graph.node if n.op_type == last.op_type and list(n.input) == list(last.input))
    model.graph.output.append(helper.make_tensor_value_info(twin.output[0], onnx.TensorProto.FLOAT, None))
    return model.SerializeToString()


@pytest.mark.parametrize("flush", ["0", "1"])
@pytest.mark.parametrize("optimised", [False, True])
def test_onnxruntime_sees_no_difference_on_balls_that_are_proved(folder: Path, optimised: bool, flush: str) -> None:
    import onnxruntime

    problem = _problem(folder, known=False)
    claim = Claim("retain_exact", BINARY32, "identity", radius=RADIUS)
    outcome = decide_identity(problem, claim)
    proved = np.setdiff1d(np.arange(outcome.total), outcome.unknowns)
    assert len(proved) > 300
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    options.add_session_config_entry("session.set_denormal_as_zero", flush)
    session = onnxruntime.InferenceSession(_audited(folder), options, providers=["CPUExecutionProvider"])
    rng, centres = np.random.default_rng(0), problem.rows("retain").x[proved]
    for _ in range(20):
        steps = rng.choice([-1.0, 0.0, 1.0, 0.5], centres.shape) * rng.random((len(centres), 1)) ** 0.25
        x = np.clip(centres + 0.0499999 * steps, 0, 1).astype(np.float32)
        logits, base = session.run(None, {session.get_inputs()[0].name: x})
        assert (logits == base).all()


def test_a_gate_of_the_patch_is_seen_where_it_is_open(folder: Path) -> None:
    """The check above can fail: on forget records the two outputs differ."""
    import onnxruntime

    session = onnxruntime.InferenceSession(_audited(folder), providers=["CPUExecutionProvider"])
    with np.load(folder / "forget.npz") as data:
        x = data["x"]
    logits, base = session.run(None, {session.get_inputs()[0].name: x})
    moved = (logits != base).any(axis=1)
    assert moved.sum() >= len(moved) - 1  # one is answered otherwise by the base already
    problem = _problem(folder, known=False)
    problem.retain = LabelledRows(x, np.zeros(len(x), dtype=np.int64))
    outcome = decide_identity(problem, Claim("retain_exact", BINARY32, "identity", radius=RADIUS))
    assert set(np.flatnonzero(moved)) <= set(outcome.unknowns)


@pytest.fixture(scope="module")
def chain(folder: Path) -> Owner:
    """Request, certificate and signature from the two networks and the records alone."""
    target = folder / "chain"
    target.mkdir()
    for path in folder.glob("*.*"):
        if path.name not in ("withheld.json", "request.json"):
            shutil.copy(path, target)
    records = ("--forget", target / "forget.npz", "--retain", target / "retain.npz")
    networks = (target / "base.onnx", target / "patched.onnx")
    run("request", *networks, *records, *WORDS, "--out", target / "request.json")
    code = 3  # the forget claims of a box patch are out of reach of bounds within a second
    run("certify", *networks, "--request", target / "request.json", *records, "--timeout", "0.2", "--out", target,
        expected=code)  # fmt: skip
    run("keygen", "--out", target / "owner")
    run("trust", "init", target / "trust.json")
    run("trust", "add", target / "trust.json", "--key", target / "owner.pub", "--role", "prover", "--name", "owner")
    run("sign", target / "statement.json", "--key", target / "owner.key", "--out", target / "a.unlearn.json")
    policy = (target / "policy.toml").read_text()
    (target / "policy.toml").write_text(policy.replace('"retain_exact", "locality"]', '"retain_exact"]'))
    return Owner(target)


@pytest.fixture
def owner(chain: Owner, tmp_path: Path) -> Owner:
    return chain.copy(tmp_path / "chain")


def test_the_claim_is_certified_and_checked_without_evidence(owner: Owner) -> None:
    verdict = owner.verdict()
    exact = [claim for claim in verdict.claims if claim.kind == "retain_exact"]
    assert [claim.total == claim.proved for claim in exact] == [True, True], verdict.text()
    methods = {claim["kind"]: claim["method"] for claim in owner.statement()["predicate"]["claims"]}
    assert methods["retain_exact"] == "identity"
    assert not any(item["name"] in ("C3.proof", "C4.proof") for item in owner.statement()["predicate"]["evidence"])


def test_more_than_follows_is_refused(owner: Owner) -> None:
    def wider(document: dict) -> None:
        document["predicate"]["claims"][2]["region"]["radius"] = "0.9"

    owner.edit(wider)
    word, code, path = failure(owner.verdict())
    assert (word, code, path) == ("REJECTED", "E_PROOF", "predicate/claims/C3/counts")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"method": "structural"}, ("REJECTED", "E_PROOF", "patch.json")),
        ({"logits": [0]}, ("REJECTED", "E_PROOF", "claim retain_exact")),
        ({"kind": "retain_label"}, ("REJECTED", "E_UNSUPPORTED", "claim retain_label")),
    ],
    ids=str,
)
def test_other_claims_of_this_method_are_refused(owner: Owner, change: dict, expected: tuple[str, str, str]) -> None:
    owner.edit(lambda document: document["predicate"]["claims"][2].update(change))
    assert failure(owner.verdict()) == expected
