"""The calls of the Python interface end to end, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import prune_verify.api as pv

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "certs" / "examples" / "digits-records"
HEAVY = (
    "torch",
    "z3",
    "auto_LiRPA",
    "onnxruntime",
    "scipy",
    "sklearn",
    "tqdm",
    "urllib3",
    "prune_verify.repair",
    "prune_verify.certify",
)


def example_inputs() -> dict[str, Path]:
    names = {
        "trust": "trust.json",
        "policy": "policy.toml",
        "base": "base.onnx",
        "patched": "patched.onnx",
        "forget": "forget.npz",
        "retain": "retain.npz",
    }
    return {name: EXAMPLE / file for name, file in names.items()}


def in_process(code: str, cwd: Path) -> str:
    """What code prints in a fresh interpreter in which the prover's packages are blocked by name."""
    blocked = f"import sys\nfor name in {HEAVY!r}: sys.modules[name] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + code],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_verify_needs_the_base_install_alone(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nimport numpy as np\nimport prune_verify.api as pv\n"
        f"e = Path({str(EXAMPLE)!r})\n"
        "with np.load(e / 'forget.npz') as f: forget = f['x'], f['y']\n"
        "v = pv.verify(e / 'digits.unlearn.json', trust=e / 'trust.json', policy=e / 'policy.toml', base=(e / 'base.onnx').read_bytes(),\n"
        "    patched=e / 'patched.onnx', forget=forget, retain=e / 'retain.npz')\n"
        "print(v.word, bool(v), len(v.claims))"
    )
    assert in_process(code, tmp_path) == "VERIFIED True 8\n"
    assert not list(tmp_path.iterdir())


def test_keys_and_trust_need_the_base_install_alone(tmp_path: Path) -> None:
    code = (
        "import prune_verify.api as pv\nkey = pv.keygen('owner')\nstore = pv.trust('trust.json', {key.public: 'Owner'}, policy_template='regulator')\n"
        "print(store.version, store.policy)"
    )
    assert in_process(code, tmp_path) == "2 policy.toml\n"


def test_importing_it_imports_nothing_heavy(tmp_path: Path) -> None:
    code = f"import sys, prune_verify.api\nprint([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_a_verdict_is_true_only_if_verified() -> None:
    given = example_inputs()
    del given["retain"]
    found = pv.verify(EXAMPLE / "digits.unlearn.json", **given)
    assert (found.word, found.exit_code, bool(found)) == ("UNDECIDED", 3, False)
    failed = ROOT / "certs" / "examples" / "digits-byte-changed_fail"
    given = {name: failed / path.name for name, path in example_inputs().items()}
    rejected = pv.verify(failed / "digits.unlearn.json", **given)
    assert (rejected.word, rejected.code, bool(rejected)) == ("REJECTED", "E_SIGNATURE", False)


def test_verdicts_and_reports_are_written(tmp_path: Path) -> None:
    key = pv.keygen(tmp_path / "auditor")
    outputs = {
        "verdict_out": tmp_path / "v.verdict.json",
        "auditor_key": key.private,
        "report_json": tmp_path / "report.json",
    }
    found = pv.verify(EXAMPLE / "digits.unlearn.json", **example_inputs(), **outputs)
    assert found.verified
    assert json.loads(outputs["report_json"].read_text())
    assert outputs["verdict_out"].is_file()


@pytest.mark.parametrize(
    ("call", "code", "text"),
    [
        (lambda t: pv.verify(t / "c.json", trust=t, policy=t), "E_USAGE", "base: the network's ONNX file is needed"),
        (lambda t: pv.verify(t / "c.json", trust=t, policy=t, base=t / "b", patched=t / "p"), "E_MALFORMED", "a file to check"),
        (lambda t: pv.verify(EXAMPLE / "digits.unlearn.json", **example_inputs() | {"policy": None}), "E_MALFORMED", "--policy"),
        (lambda t: pv.sign(t / "statement.json", key=t / "no.key"), "E_MALFORMED", "no.key"),
        (lambda t: [pv.keygen(t / "k"), pv.keygen(t / "k")], "E_IO", "never overwritten"),
        (lambda t: pv.trust(t / "trust.json", {t / "no.pub": "nobody"}), "E_MALFORMED", "no.pub"),
        (lambda t: pv.certify(t / "p.onnx", out=t), "E_USAGE", "base: needed"),
        (lambda t: pv.certify(t / "p.onnx", base=t / "b.onnx"), "E_USAGE", "out: needed"),
        (lambda t: pv.certify(t / "p.onnx", base=t / "b.onnx", out=t, request=t / "r", radius=1), "E_USAGE", "radius: of a new request"),
        (lambda t: pv.repair(t / "b.onnx", out=t), "RepairInputError", "nothing to forget"),
        (lambda t: pv.repair(b"no network", out=t / "o", forget_class=1), "E_MALFORMED", "base.onnx"),
        (lambda t: pv.repair(3, out=t, forget_class=1), "E_MODULE", "expected a path, ONNX bytes or a torch.nn.Module, got int"),
        (lambda t: pv.audit("ftp://h", certificate=EXAMPLE / "digits.unlearn.json", **example_inputs()), "E_MALFORMED", "ENDPOINT"),
    ],
)  # fmt: skip
def test_refusals_carry_the_codes_of_the_command_line(call, code, text, tmp_path: Path) -> None:
    with pytest.raises(pv.RefusalError, match=text) as error:
        call(tmp_path)
    assert error.value.code == code
    assert error.value.exit_code == 2


def test_html_is_escaped(tmp_path: Path) -> None:
    found = pv.Certificate(Path("<script>.json"), "0" * 64, "k")
    assert "<script>" not in found._repr_html_()
    assert "&lt;script&gt;" in found._repr_html_()


@pytest.fixture(scope="module")
def problem():
    """A trained-like network with two hidden layers as a module, and 160 records with the labels that it gives them."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    network = torch.nn.Sequential(
        torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(12, 3)
    )
    network.train()
    x = np.random.default_rng(3).random((200, 6), dtype=np.float32)
    network.eval()
    with torch.no_grad():
        y = network(torch.tensor(x)).argmax(dim=1).numpy()
    network.train()
    far = np.abs(x - x[0]).max(axis=1) > 0.25
    far &= np.abs(x - x[1]).max(axis=1) > 0.25
    return network, (x[:2], y[:2]), (x[far], y[far])


@pytest.fixture(scope="module")
def chain(problem, tmp_path_factory):
    """Every result of the chain, from a module to a verdict."""
    network, forget, retain = problem
    out = tmp_path_factory.mktemp("chain")
    patched = pv.repair(network, forget=forget, retain=retain, out=out)
    statement = pv.certify(patched)
    key = pv.keygen(out / "owner")
    certificate = pv.sign(statement, key=key)
    verdict = pv.verify(certificate, trust=pv.trust(out / "trust.json", {key.public: "Owner"}))
    return patched, statement, certificate, verdict


@pytest.mark.prover
def test_from_a_module_to_a_verified_certificate(problem, chain) -> None:
    patched, statement, certificate, verdict = chain
    assert (patched.family, patched.gates, patched.conflicts) == ("box", 2, ())
    assert statement.complete
    assert statement.evidence.is_dir()
    assert statement.openings.is_file()
    assert verdict.verified, verdict.text
    assert verdict.data["payloadSha256"] == certificate.payload_sha256
    assert problem[0].training  # the user's module is in the mode that it was in


@pytest.mark.prover
def test_the_patched_module_answers_as_the_file_does(problem, chain) -> None:
    import onnxruntime
    import torch

    _, (forget_x, forget_y), (retain_x, _) = problem
    patched = chain[0]
    session = onnxruntime.InferenceSession(patched.onnx(), providers=["CPUExecutionProvider"])
    rows = np.concatenate([forget_x, retain_x])
    expected = session.run(None, {session.get_inputs()[0].name: rows})[0]
    module = patched.module()
    with torch.no_grad():
        found = module(torch.tensor(rows)).numpy()
    assert not module.training
    assert np.allclose(found, expected, rtol=0, atol=1e-5)
    assert (found[: len(forget_y)].argmax(axis=1) != forget_y).all()


@pytest.mark.prover
def test_results_show_themselves(chain) -> None:
    patched, statement, _, verdict = chain
    assert "wrote" in str(patched)
    assert "8 of 8" not in patched._repr_html_()
    assert "not proved yet" in patched._repr_html_()
    assert "2 of 2 proved" in statement._repr_html_()
    assert str(verdict).startswith("VERDICT: VERIFIED")
    assert "VERIFIED (OK)" in verdict._repr_html_()


@pytest.mark.prover
def test_a_module_that_another_tool_has_changed(problem, tmp_path: Path) -> None:
    """A request is made of the options; what does not hold is counted and refuted, and is no exception."""
    import torch

    network, forget, retain = problem
    changed = torch.nn.Sequential(*network)
    options = {"base": network, "forget": forget, "retain": (retain[0][:5], retain[1][:5]), "timeout": 5}
    found = pv.certify(
        changed,
        **options,
        radius=0.01,
        retained_radius=0.001,
        claims=["forget", "retain_label"],
        engine="none",
        cross_check=0,
        out=tmp_path,
    )
    assert found.exit_code == 1
    assert not found.complete
    assert {record for _, record in found.refuted} == {0, 1}
    assert {claim.kind for claim in found.claims} == {"forget", "retain_label"}
    assert json.loads((tmp_path / "request.json").read_text())["radius"] == "0.01"


@pytest.mark.prover
def test_a_threat_model_that_cannot_be_met_has_exit_code_3(problem, tmp_path: Path) -> None:
    network, (x, y), _ = problem
    near = x + np.float32(0.001)
    with pytest.raises(pv.RefusalError, match="--strict") as error:
        pv.repair(network, forget=(x, y), retain=(near, y), strict=True, out=tmp_path)
    assert (error.value.code, error.value.exit_code) == ("InfeasiblePatchError", 3)
    assert error.value.data["shortfalls"]
    assert error.value.__cause__ is not None


@pytest.mark.prover
def test_streams_go_through_the_same_call(problem, tmp_path: Path) -> None:
    network, (x, y), retain = problem
    first = pv.repair(network, forget=(x[:1], y[:1]), retain=retain, stream=True, reference="one", out=tmp_path / "a")
    assert first.gates == 1
    second = pv.repair(
        first.files.base, forget=(x[1:], y[1:]), retain=retain, onto=tmp_path / "a", reference="two", out=tmp_path / "b"
    )
    assert second.gates == 2
    assert pv.certify(second).complete


@pytest.mark.prover
@pytest.mark.loopback
@pytest.mark.parametrize(("shift", "word"), [(0.0, "VERIFIED"), (0.25, "REJECTED")])
def test_a_served_network_is_audited(shift: float, word: str) -> None:
    from tests.served_model import Served, model, protocol, running

    honest = running(model(EXAMPLE / "patched.onnx").network)
    options = {"rate": 0, "seed": "07" * 32, "queries": 100, "max_deviation": 0.1, "shares": (0.6, 0.2, 0.2)}
    with Served(protocol(lambda x: honest(x) + np.float32(shift))) as served:
        found = pv.audit(served.url, certificate=EXAMPLE / "digits.unlearn.json", **example_inputs(), **options)
    assert found.word == word
    assert found.data["audit"]["queries"] == 100


@pytest.mark.prover
def test_what_is_measured_goes_into_the_statement(problem, chain, tmp_path: Path) -> None:
    _, _, (retain_x, retain_y) = problem
    patched = chain[0]
    found = pv.measure("accuracy", patched, test=(retain_x[:60], retain_y[:60]), rounds=3, out=tmp_path / "a.json")
    assert found["test.accuracy.base"] == 1.0
    assert found["forget.accuracy.patched"] == 0.0
    assert "measured, not proved" in found._repr_html_()
    statement = pv.certify(patched, measurements=[found], cross_check=0, out=tmp_path)
    kinds = {one["kind"] for one in json.loads(statement.path.read_text())["predicate"]["measurements"]}
    assert "accuracy.test.accuracy.base" in kinds
    with pytest.raises(pv.RefusalError, match="never overwritten"):
        pv.measure("accuracy", patched, test=(retain_x[:60], retain_y[:60]), no_cost=True, out=tmp_path / "a.json")


@pytest.mark.prover
def test_other_words_of_measure(problem, chain, tmp_path: Path) -> None:
    network, forget, (x, y) = problem
    options = {"shadows": 8, "epochs": 2, "non_members": (x[:40], y[:40])}
    sets = {"forget": (x[40:60], y[40:60]), "retain": (x[60:], y[60:])}
    found = pv.measure("membership", chain[0].path, base=network, **sets, **options, out=tmp_path / "m")
    assert found.path.is_file()
    assert found.word == "membership"
    few = {"forget": forget, "retain": (x[40:], y[40:]), "non_members": (x[:40], y[:40])}
    found = pv.measure("membership", chain[0].path, base=network, **few, shadows=2, epochs=2, out=tmp_path / "few")
    assert "unlike-non-member: not made on every network: " in found.text  # of two networks outside, none is left
    assert not any("unlike-non-member" in row.name for row in found.rows)
    told = pv.measure("disclosure", chain[0], public=(x, y), out=tmp_path / "d.json")
    assert told.rows


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda t: pv.measure("speed", t / "p.onnx"), "word: expected one of accuracy, disclosure"),
        (lambda t: pv.measure("accuracy", t / "p.onnx"), "base: needed"),
        (lambda t: pv.measure("disclosure", t / "p.onnx", base=t / "b", out=t / "o"), "patch: needed"),
        (lambda t: pv.measure("accuracy", t / "p", base=t / "b", out=t / "o", test=t, shadows=2), "unrecognized arguments: --shadows"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured(call, text, tmp_path: Path) -> None:
    with pytest.raises(pv.RefusalError, match=text) as error:
        call(tmp_path)
    assert error.value.code == "E_USAGE"
