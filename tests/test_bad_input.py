"""Bad input, a row each: a clear error that names the place, a non-zero exit, and nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prune_verify.checker.__main__ import main as checker_main
from prune_verify.cli import run_words
from tests.dishonest_owner import Owner, honest, prepare

pytestmark = pytest.mark.prover
F = np.float32


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Owner:
    folder = tmp_path_factory.mktemp("bad-input")
    prepare(folder)
    honest(folder)
    return Owner(folder)


@pytest.fixture
def folder(chain: Owner, tmp_path: Path) -> Path:
    return chain.copy(tmp_path / "chain").folder


def base_edited(edit: Callable[[onnx.ModelProto], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        model = onnx.load_from_string((folder / "base.onnx").read_bytes())
        edit(model)
        (folder / "base.onnx").write_bytes(model.SerializeToString())

    return spoil


def weights(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if len(t.dims) == 2)


def set_weight(value: float) -> Callable[[Path], None]:
    def edit(model: onnx.ModelProto) -> None:
        tensor = weights(model)
        values = numpy_helper.to_array(tensor).copy()
        values[0, 0] = value
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    return base_edited(edit)


def all_weights(value: float) -> Callable[[Path], None]:
    def edit(model: onnx.ModelProto) -> None:
        tensor = weights(model)
        tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), value, dtype=F), tensor.name))

    return base_edited(edit)


def second_output(model: onnx.ModelProto) -> None:
    name = model.graph.node[0].output[0]
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def softmax_at_the_end(model: onnx.ModelProto) -> None:
    output = model.graph.output[0].name
    model.graph.node[-1].output[0] = "inner"
    model.graph.node.append(helper.make_node("Softmax", ["inner"], [output]))


def external(model: onnx.ModelProto) -> None:
    tensor = weights(model)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def records(which: str, x: Callable[[np.ndarray], np.ndarray] | None = None, y: Callable | None = None) -> Callable:
    def spoil(folder: Path) -> None:
        path = folder / f"{which}.npz"
        found = np.load(path)
        np.savez(path, x=x(found["x"].copy()) if x else found["x"], y=y(found["y"].copy()) if y else found["y"])

    return spoil


def put(place: tuple, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return change


def both_sets(folder: Path) -> None:
    retain, forget = np.load(folder / "retain.npz"), np.load(folder / "forget.npz")
    x = retain["x"].copy()
    x[4] = forget["x"][1]
    np.savez(folder / "retain.npz", x=x, y=retain["y"])


def file(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def nothing(_: Path) -> None:
    return None


# sentence, what is spoilt, further arguments of repair, exit code, words of the error
REPAIR = [
    ("not ONNX", file("base.onnx", b"hello, I am no model"), [], 2, ["base.onnx", "ONNX"]),
    ("an empty file", file("base.onnx", b""), [], 2, ["base.onnx"]),
    ("an opset that is too old", base_edited(lambda m: setattr(m.opset_import[0], "version", 6)), [], 2, ["opset", "6"]),
    ("an operator that is not supported", base_edited(softmax_at_the_end), [], 2, ["Softmax"]),
    ("two outputs", base_edited(second_output), [], 2, ["output"]),
    ("NaN weights", set_weight(float("nan")), [], 2, ["base.onnx", "NaN"]),
    ("infinite weights", set_weight(float("inf")), [], 2, ["base.onnx"]),
    ("weights that overflow float32", all_weights(3e38), [], 3, ["2^100", "--domain"]),
    ("external data", base_edited(external), [], 2, ["external_data=False"]),
    ("rows of another size", records("forget", x=lambda x: x[:, :63]), [], 2, ["forget.npz", "63", "64"]),
    ("a label out of range", records("forget", y=put((2,), 10)), [], 2, ["forget.npz", "row 2", "10"]),
    ("a negative label", records("retain", y=put((7,), -1)), [], 2, ["retain.npz", "row 7"]),
    ("a NaN record", records("forget", x=put((1, 5), np.nan)), [], 2, ["forget.npz", "row 1"]),
    ("records outside the default domain", records("retain", x=put((3, 3), 1.5)), [], 2, ["--domain"]),
    ("records outside the domain that was given", nothing, ["--domain", "0,0.5"], 2, ["row"]),
    ("an empty forget set", records("forget", x=lambda x: x[:0], y=lambda y: y[:0]), [], 2, ["forget.npz"]),
    ("an empty retained set", records("retain", x=lambda x: x[:0], y=lambda y: y[:0]), [], 2, ["retain.npz"]),
    ("the same record in both sets", both_sets, [], 2, ["record 1", "record 4"]),
    ("float64 records", records("forget", x=lambda x: x.astype(np.float64)), [], 2, ["forget.npz", "float32"]),
    ("a class that does not exist", nothing, ["--forget-class", "10"], 2, ["--forget-class 10", "0 to 9"]),
    ("a radius that is no decimal", nothing, ["--radius", "1e-1"], 2, ["--radius"]),
    ("a radius of zero", nothing, ["--radius", "0"], 2, ["radius"]),
    ("a radius below the grid of float32", nothing, ["--radius", "0.00000001"], 2, ["radius", "ulp"]),
    ("an empty domain", nothing, ["--domain", "1,0"], 2, ["domain"]),
    ("a family that does not fit", nothing, ["--family", "class-cap"], 2, ["--family class-cap", "box"]),
    ("a margin too large for the head", nothing, ["--margin", "1000000000000000000000"], 3, ["2^60"]),
    ("conflicts under --strict", records("retain", x=lambda x: np.vstack([np.clip(x[:1] * 0 + np.load("{forget}")["x"][0] + F(0.01), 0, 1), x[1:]])), ["--strict"], 3, ["retained records 0"]),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "spoil", "more", "code", "words"), REPAIR, ids=[row[0] for row in REPAIR])
def test_repair(
    folder: Path, sentence: str, spoil: Callable, more: list[str], code: int, words: list[str], monkeypatch
) -> None:
    load = np.load
    monkeypatch.setattr(np, "load", lambda name: load(str(name).replace("{forget}", str(folder / "forget.npz"))))
    spoil(folder)
    monkeypatch.undo()
    out = folder / "new"
    found, text = run_words(
        ["repair", str(folder / "base.onnx"), "--forget", str(folder / "forget.npz"), "--retain",
         str(folder / "retain.npz"), "--out", str(out), *more]
    )  # fmt: skip
    assert found == code, text
    for word in words:
        assert word in text
    assert not out.exists() or not list(out.iterdir()), "nothing half-written"


def test_repair_with_nothing_to_forget(folder: Path) -> None:
    code, text = run_words(["repair", str(folder / "base.onnx"), "--out", str(folder / "new")])
    assert code == 2
    assert "--forget" in text


def test_an_output_folder_that_cannot_be_written(folder: Path) -> None:
    (folder / "new").write_text("a file stands where the folder should be")
    data = ["--forget", str(folder / "forget.npz"), "--retain", str(folder / "retain.npz")]
    code, text = run_words(["repair", str(folder / "base.onnx"), *data, "--out", str(folder / "new")])
    assert code == 2
    assert "--out" in text
    assert (folder / "new").read_text().startswith("a file stands")


def test_records_that_the_base_misclassifies_are_forgotten_and_listed(folder: Path) -> None:
    found = np.load(folder / "forget.npz")
    y = found["y"].copy()
    y[1] = (y[1] + 1) % 10
    np.savez(folder / "forget.npz", x=found["x"], y=y)
    data = ["--forget", str(folder / "forget.npz"), "--retain", str(folder / "retain.npz")]
    assert run_words(["repair", str(folder / "base.onnx"), *data, "--out", str(folder)])[0] == 0
    words = [
        "certify",
        str(folder / "base.onnx"),
        str(folder / "patched.onnx"),
        "--request",
        str(folder / "request.json"),
    ]
    code, text = run_words([*words, *data, "--cross-check", "0", "--out", str(folder)])
    assert code == 0
    assert "1 answered wrongly by the base already" in text
    claim = json.loads((folder / "statement.json").read_bytes())["predicate"]["claims"][0]
    assert [item["index"] for item in claim["alreadyWrong"]] == [1]
    assert claim["counts"]["proved"] == 4


def swapped(name: str) -> Callable[[Path], None]:
    """Another network in the place of one of the two."""

    def spoil(folder: Path) -> None:
        other = "base.onnx" if name == "patched.onnx" else "patched.onnx"
        (folder / name).write_bytes((folder / other).read_bytes())

    return spoil


# sentence, what is spoilt, exit code, words
CERTIFY = [
    ("no request", lambda f: (f / "request.json").unlink(), 2, ["request.json"]),
    ("a request that is no JSON", file("request.json", b"{"), 2, ["request.json", "JSON"]),
    (
        "the patched model swapped",
        swapped("patched.onnx"),
        2,
        ["patched.onnx", "base and patch.json give the patched network"],
    ),
    ("the base swapped", swapped("base.onnx"), 2, ["patched.onnx"]),
    ("no patch parameters", lambda f: (f / "patch.json").unlink(), 2, ["patch.json"]),
    ("other records than those repaired", records("forget", x=lambda x: 1 - x), 3, []),
]


@pytest.mark.parametrize(("sentence", "spoil", "code", "words"), CERTIFY, ids=[row[0] for row in CERTIFY])
def test_certify(folder: Path, sentence: str, spoil: Callable, code: int, words: list[str]) -> None:
    spoil(folder)
    out = folder / "certified"
    found, text = run_words(
        ["certify", str(folder / "base.onnx"), str(folder / "patched.onnx"), "--request", str(folder / "request.json"),
         "--forget", str(folder / "forget.npz"), "--retain", str(folder / "retain.npz"), "--cross-check", "0", "--out", str(out)]
    )  # fmt: skip
    assert found == code, text
    for word in words:
        assert word in text
    if code == 2:
        assert not out.exists() or not list(out.iterdir())


def test_what_the_checker_refuses_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prover's own counts are wrong: the checker, in its own process, says so, and no statement appears."""
    from dataclasses import replace

    from prune_verify.certify import claims, issue

    honest_decide = claims.decide

    def lying(problem, claim):
        outcome = honest_decide(problem, claim)
        return replace(outcome, total=outcome.total + 1, proved=outcome.proved + 1)

    monkeypatch.setattr(claims, "decide", lying)
    assert issue.decide_all is claims.decide_all
    out = folder / "certified"
    code, text = run_words(
        ["certify", str(folder / "base.onnx"), str(folder / "patched.onnx"), "--request", str(folder / "request.json"),
         "--forget", str(folder / "forget.npz"), "--retain", str(folder / "retain.npz"), "--cross-check", "0", "--out", str(out)]
    )  # fmt: skip
    assert code == 1
    assert "counts" in text
    assert list(out.iterdir()) == []


# sentence, what is spoilt, arguments left out or added, exit code, words on standard output or error
VERIFY = [
    ("no trust store", nothing, {"--trust": None}, 2, ["--trust", "trust init"]),
    ("no policy", nothing, {"--policy": None}, 2, ["--policy", "trust init"]),
    ("a trust store that is missing", lambda f: (f / "trust.json").unlink(), {}, 2, ["trust.json"]),
    ("a policy with a misspelt demand", lambda f: (f / "policy.toml").write_text((f / "policy.toml").read_text().replace("min_margin", "min_marign")), {}, 2, ["policy.toml/claims/min_"]),
    ("a base that is missing", lambda f: (f / "base.onnx").unlink(), {}, 2, ["base.onnx"]),
    ("a certificate that is missing", lambda f: (f / "a.unlearn.json").unlink(), {}, 2, ["a.unlearn.json"]),
    ("the patched model swapped", swapped("patched.onnx"), {}, 1, ["VERDICT: REJECTED code=E_SUBJECT", "patched.onnx"]),
    ("the base swapped", swapped("base.onnx"), {}, 1, ["VERDICT: REJECTED code=E_SUBJECT", "originalModel"]),
    ("expired", nothing, {"--at-time": "2090-01-01T00:00:00Z"}, 1, ["VERDICT: REJECTED"]),
    ("evidence missing", lambda f: (f / "evidence" / "patch.json").unlink(), {}, 3, ["VERDICT: UNDECIDED code=E_DATA_MISSING"]),
    ("openings missing", lambda f: (f / "openings.json").unlink(), {}, 3, ["VERDICT: UNDECIDED code=E_DATA_MISSING", "no opening"]),
    ("records missing", nothing, {"--retain": None}, 3, ["VERDICT: UNDECIDED code=E_DATA_MISSING"]),
    ("a certificate that is no JSON", file("a.unlearn.json", b"PK\x03\x04"), {}, 1, ["VERDICT: REJECTED code=E_MALFORMED"]),
    ("openings of another shape", file("openings.json", b"[]"), {}, 1, ["VERDICT: REJECTED code=E_MALFORMED"]),
    ("records that are no npz", file("forget.npz", b"hello"), {}, 1, ["VERDICT: REJECTED", "forget.npz"]),
    ("a challenge that is none", nothing, {"--challenge": "nowhere.json"}, 2, ["nowhere.json"]),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "spoil", "changed", "code", "words"), VERIFY, ids=[row[0] for row in VERIFY])
def test_verify(
    folder: Path, sentence: str, spoil: Callable, changed: dict, code: int, words: list[str], capsys
) -> None:
    spoil(folder)
    found = Owner(folder).words()
    for name, value in changed.items():
        if name in found:
            place = found.index(name)
            del found[place : place + 2]
        if value is not None:
            found += [name, value]
    assert checker_main(found) == code
    said = capsys.readouterr()
    text = said.out + said.err
    for word in words:
        assert word in text
    assert "VERIFIED" not in text.replace("UNVERIFIED", "")


def test_a_wrong_key(folder: Path, capsys) -> None:
    """The auditor trusts another key than the one that signed."""
    run_words(["keygen", "--out", str(folder / "other")])
    (folder / "trust.json").unlink()
    policy = (folder / "policy.toml").read_text()
    (folder / "policy.toml").unlink()
    run_words(["trust", "init", str(folder / "trust.json")])
    (folder / "policy.toml").write_text(policy)
    words = ["--key", str(folder / "other.pub"), "--role", "prover", "--name", "somebody else"]
    assert run_words(["trust", "add", str(folder / "trust.json"), *words])[0] == 0
    assert checker_main(Owner(folder).words()) == 1
    assert "VERDICT: REJECTED code=E_SIGNATURE" in capsys.readouterr().out


def test_a_trust_store_without_keys(folder: Path, capsys) -> None:
    (folder / "trust.json").unlink()
    (folder / "policy.toml").rename(folder / "kept.toml")
    run_words(["trust", "init", str(folder / "trust.json")])
    assert checker_main(Owner(folder).words()) == 1
    assert "role prover" in capsys.readouterr().out
    (folder / "kept.toml").rename(folder / "policy.toml")  # beside a policy that has seen a later store it is no store
    assert checker_main(Owner(folder).words()) == 2
    assert "min_trust_version" in capsys.readouterr().err


def test_signing_without_a_key(folder: Path) -> None:
    words = [
        "sign",
        str(folder / "statement.json"),
        "--key",
        str(folder / "no.key"),
        "--out",
        str(folder / "b.unlearn.json"),
    ]
    code, text = run_words(words)
    assert code == 2
    assert "no.key" in text
    assert not (folder / "b.unlearn.json").exists()


def test_json_is_one_object_and_logs_go_elsewhere(folder: Path, capsys) -> None:
    from prune_verify.cli import main

    assert main([*Owner(folder).words(), "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["verdict"], verdict["exitCode"]) == ("VERIFIED", 0)
    assert {"payloadSha256", "signers", "checks", "claims", "assumptions", "warnings", "tool", "time"} <= set(verdict)
    assert main(["repair", "nowhere.onnx", "--forget-class", "1", "--out", str(folder / "x"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["exitCode"] == 2
