"""A table with categories all the way: encode, train, repair, certify, verify; the encoding is part of what is signed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.__main__ import main as checker_main
from prune_verify.checker.records import load_records
from prune_verify.cli import run_words
from prune_verify.measure.datasets import DataSet
from prune_verify.measure.training import export_onnx, small_mlp, train
from tests.dishonest_owner import run

pytestmark = pytest.mark.prover
JOBS, CITIES = ("baker", "smith", "weaver", "?"), ("Ulm", "Bern", "Graz")


def write(path: Path, rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["age", "job", "city", "hours", "income"], *rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out, rng = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    rows: list[list[object]] = []
    for _ in range(240):
        age, hours = int(rng.integers(17, 90)), round(float(rng.uniform(1, 99)), 2)
        job, city = JOBS[rng.integers(4)], CITIES[rng.integers(3)]
        rows.append([age, job, city, hours, ">50K" if hours + age > 100 else "<=50K"])
    write(out / "train.csv", rows)
    write(out / "forget.csv", rows[:4])
    write(out / "retain.csv", rows[4:])
    run("encode", out / "train.csv", "--label-column", "income", "--out", out / "encoding.json")
    found = load_records(str(out / "train.csv"), what="t", label_column="income", encoding=out / "encoding.json")
    data = DataSet("table", found.x, found.y, found.x, found.y)
    network = train(lambda: small_mlp((found.x.shape[1], 16, 2)), data, epochs=60, seed=0)
    (out / "base.onnx").write_bytes(export_onnx(network, found.x))
    table = ("--label-column", "income", "--encoding", out / "encoding.json")
    sets = ("--forget", out / "forget.csv", "--retain", out / "retain.csv", *table)
    run("repair", out / "base.onnx", *sets, "--radius", "0.002", "--retained-radius", "0.001", "--out", out)
    run("certify", out / "base.onnx", out / "patched.onnx", "--request", out / "request.json", *sets, "--out", out)
    run("keygen", "--out", out / "owner")
    run("trust", "init", out / "trust.json")
    run("trust", "add", out / "trust.json", "--key", out / "owner.pub", "--role", "prover", "--name", "owner")
    run("sign", out / "statement.json", "--key", out / "owner.key", "--out", out / "t.unlearn.json")
    policy = (out / "policy.toml").read_text()
    for old, new in (
        ("min_forget_radius = 0.1", "min_forget_radius = 0.002"),
        ("min_retained_radius = 0.05", "min_retained_radius = 0.001"),
        ("max_already_wrong_share = 0.1", "max_already_wrong_share = 1"),
    ):
        assert old in policy
        policy = policy.replace(old, new)
    (out / "policy.toml").write_text(policy)
    return out


def check(folder: Path, policy: str, *more: str) -> int:
    (folder / "used.toml").write_text(policy)
    words = [
        "verify", str(folder / "t.unlearn.json"), "--base", str(folder / "base.onnx"), "--patched",
        str(folder / "patched.onnx"), "--trust", str(folder / "trust.json"), "--policy", str(folder / "used.toml"),
        "--forget", str(folder / "forget.csv"), "--retain", str(folder / "retain.csv"), *more,
    ]  # fmt: skip
    return checker_main(words)


def test_the_chain_is_verified_under_the_policys_encoding(folder: Path, capsys) -> None:
    digest = json.loads(
        run("encode", folder / "train.csv", "--label-column", "income", "--out", folder / "again.json", "--json")
    )["sha256"]
    policy = (folder / "policy.toml").read_text()
    table = ("--label-column", "income", "--encoding", str(folder / "encoding.json"))
    assert check(folder, policy.replace('"none"', f'"{digest}"'), *table) == 0
    assert "VERDICT: VERIFIED" in capsys.readouterr().out
    assert check(folder, policy, *table) == 1
    assert "encodingSha256" in capsys.readouterr().out
    assert check(folder, policy.replace('"none"', '"' + "ab" * 32 + '"'), *table) == 1


def test_another_encoding_of_the_same_table_is_refused(folder: Path, capsys) -> None:
    encoding = json.loads((folder / "encoding.json").read_bytes())
    digest = json.loads((folder / "request.json").read_bytes())["encodingSha256"]
    encoding["columns"][0]["upper"] = "200"
    (folder / "other.json").write_text(json.dumps(encoding, separators=(",", ":"), sort_keys=True))
    policy = (folder / "policy.toml").read_text().replace('"none"', f'"{digest}"')
    assert check(folder, policy, "--label-column", "income", "--encoding", str(folder / "other.json")) == 1
    assert "encoding of the records" in capsys.readouterr().out


def test_a_table_without_its_encoding_is_refused_by_line(folder: Path) -> None:
    words = [
        "repair",
        folder / "base.onnx",
        "--forget",
        folder / "forget.csv",
        "--retain",
        folder / "retain.csv",
        "--label-column",
        "income",
        "--out",
        folder / "new",
    ]
    code, text = run_words([str(word) for word in words])
    assert code == 2
    assert "forget.csv" in text
    assert "line 2" in text
    assert "encoding" in text


def test_an_encoding_is_never_overwritten(folder: Path) -> None:
    words = ["encode", folder / "train.csv", "--label-column", "income", "--out", folder / "encoding.json"]
    before = (folder / "encoding.json").read_bytes()
    code, text = run_words([str(word) for word in words])
    assert code == 2
    assert "encoding.json" in text
    assert (folder / "encoding.json").read_bytes() == before
