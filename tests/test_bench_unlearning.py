"""``bench unlearning``, small: every row has every column, rates that cannot be resolved are n/a, and a kill loses little."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prune_verify.bench.tables import aligned, csv_bytes
from prune_verify.bench.unlearning import _shadows, study_tables
from prune_verify.bench.unlearning_attacks import LIRA, UNLIKE, Attacked, Shadows, mean_auc
from prune_verify.bench.unlearning_ensembles import NAMES, told_apart
from prune_verify.bench.unlearning_jobs import BASE, Job, Jobs
from prune_verify.bench.unlearning_plots import draw
from prune_verify.bench.unlearning_rows import METHODS, control_seeds
from prune_verify.bench.unlearning_sizes import sizes, studies
from prune_verify.bench.unlearning_store import Store, key_of, outcome_bytes, outcome_of, source_digest
from prune_verify.bench.unlearning_words import sentences
from prune_verify.cli import run_words
from prune_verify.measure.unlearning_context import Outcome

pytestmark = pytest.mark.prover
FEW = (("linear-region", 3), ("learned", 2), ("REASSURE", 2))
TINY = {
    "train": 200, "forget": 30, "judged": 200, "population": 260, "epochs": 40, "shadows": 8, "owner_shadows": 16,
    "retrained": 1, "ensemble": 2, "ensembles": ("box",), "few": FEW,
}  # fmt: skip
COLUMNS = {
    "data", "method", "records", "forget accuracy %", "retain accuracy %", "test accuracy %",
    "LiRA TPR at 0.1 % FPR", "LiRA TPR at 1 % FPR", "LiRA AUC", "unlike a non-member TPR at 0.1 % FPR",
    "unlike a non-member TPR at 1 % FPR", "unlike a non-member AUC", "unlike, all logits AUC", "RMIA AUC",
    "two versions AUC", "networks", "LiRA AUC, mean", "unlike a non-member AUC, mean", *NAMES, "relearning epochs", "bits per record", "s",
    "file MB", "peak MB", "note",
}  # fmt: skip


def tiny_study(**more):
    by_name = {name: replace(size, **{**TINY, **more}) for name, size in sizes(quick=True).items()}
    return studies(None, by_name)[0]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return study_tables(tiny_study(), Store(tmp_path_factory.mktemp("store")), workers=2, say=lambda _: None)


def test_every_way_has_a_row_with_every_column(tables) -> None:
    rows = {row["method"]: row for row in tables.records}
    assert list(rows) == ["base", "retrain 1", *METHODS, "lookup"]
    for name, row in rows.items():
        if name != "lookup":
            assert set(row) == COLUMNS, name
    for name in ("box", "relu-0", "lookup"):
        assert rows[name]["forget accuracy %"] == 0
        assert rows[name]["retain accuracy %"] >= rows["base"]["retain accuracy %"] - 1
    assert rows["non-member"]["forget accuracy %"] > 30
    assert rows["lookup"]["bits per record"] > 5 * rows["box"]["bits per record"]
    assert rows["box"]["networks"] == 2
    assert rows["SISA"]["networks"] == "n/a"
    assert rows["learned"]["records"] == 2
    for name in ("box", "relu-0", "non-member", "linear-region", "learned"):
        assert rows[name]["relearning epochs"].startswith("0, strip; head "), name
    for name in ("base", "retrain 1", "fine-tune"):
        assert rows[name]["relearning epochs"].startswith("head "), name


def test_too_few_non_members_give_no_rate(tables) -> None:
    for row in tables.records[:-1]:
        assert row["LiRA TPR at 0.1 % FPR"] == row["unlike a non-member TPR at 0.1 % FPR"] == "n/a"
        assert "[" in row["LiRA TPR at 1 % FPR"]
    scores = np.linspace(0, 1, 1000)
    cells = Attacked({LIRA: scores + 0.5, UNLIKE: scores}, {LIRA: scores, UNLIKE: scores}).cells()
    assert cells["LiRA TPR at 0.1 % FPR"].startswith("0.5")
    assert cells["RMIA AUC"] == "n/a"


def test_a_class_is_forgotten_beside_other_ways(tables) -> None:
    rows = {row["method"]: row for row in tables.classes}
    assert list(rows) == ["base", "retrain", "class-cap", "fine-tune", "gradient ascent"]
    assert rows["base"]["recognised %"] > 50
    assert rows["class-cap"]["recognised %"] == rows["retrain"]["recognised %"] == 0
    assert rows["class-cap"]["others %"] >= rows["base"]["others %"]


def test_text_pictures_and_files_hold_the_same(tables, tmp_path: Path) -> None:
    text = "\n".join(tables.lines())
    assert "still remembered?" in text
    assert all(sentence in text for sentence in tables.said)
    assert len(tables.said) == 6
    (line,) = draw([("digits", tables.rows.attacked)], tmp_path)
    picture = (tmp_path / "unlearning_digits.svg").read_text()
    assert line == f"wrote {tmp_path / 'unlearning_digits.svg'}"
    assert picture.count("<svg ") == 1
    header, *lines = csv_bytes(tables.records).decode().splitlines()
    assert set(header.replace('"LiRA AUC, mean"', "LiRA AUC; mean").split(",")) >= {"method", "LiRA AUC; mean", "note"}
    assert len(lines) == len(tables.records)


def test_the_owners_networks_are_not_the_attackers(tables) -> None:
    study, attacker = tables.study, tables.rows.attacker.shadows
    margins = tables.rows.jobs.margins
    assert np.isnan(margins).sum(axis=0).tolist() == [8] * 30
    assert attacker.inside.shape == (8, 660)
    assert not attacker.inside[:, study.part("population")].any()
    own = Shadows(attacker.logits, attacker.inside).out_margins(study)
    assert not np.isin(own[~np.isnan(own)], margins[~np.isnan(margins)]).any()


def test_ensembles_are_told_apart_where_they_differ_and_not_where_they_are_alike(tmp_path: Path) -> None:
    rng, labels, store = np.random.default_rng(0), np.zeros(30, dtype=np.int64), Store(tmp_path)

    def networks(shift: float, count: int = 20):
        return (rng.normal(size=(count, 30, 3)) + np.array([shift, 0, 0])).astype(np.float32)

    theirs, alike, other = networks(0), networks(0), networks(3)
    area = [float(told_apart(one, theirs, labels, store)["U-LiRA AUC"].split()[0]) for one in (alike, other)]
    assert area[0] == pytest.approx(0.5, abs=0.06)
    assert area[1] > 0.9
    score = [float(told_apart(one, theirs, labels, store)[NAMES[1]].split()[0]) for one in (alike, other)]
    assert score[1] < score[0]
    assert len(list(tmp_path.iterdir())) == 2
    assert told_apart(networks(0, 19), theirs, labels, store) == dict.fromkeys(NAMES, "n/a")


def test_a_second_run_makes_nothing(tables, monkeypatch) -> None:
    def refuse(*_):
        raise AssertionError("made again")

    monkeypatch.setattr(Jobs, "_make", refuse)
    again = study_tables(tables.study, tables.rows.jobs.store, workers=1, say=lambda _: None)
    assert again.records == tables.records
    assert again.classes == tables.classes


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.test_bench_unlearning import some_networks

def killed(done):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    some_networks(Path({store!r}), killed)
"""


def some_networks(folder: Path, done=lambda _: None):
    """Shadow networks and five jobs of a small study."""
    study, store = tiny_study(), Store(folder)
    shadows = _shadows(study, 7, 4, store, 1, lambda _: None)
    jobs, wanted = (
        Jobs(study, store),
        [Job(BASE, 0), *(Job(m, 0) for m in ("box", "retrain", "fine-tune")), Job("box", 1)],
    )
    for count, _ in enumerate(jobs.run(wanted, 1)):
        done(count + 1)
    return jobs, wanted, shadows


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, repository: Path, monkeypatch) -> None:
    script, store = tmp_path / "killed.py", tmp_path / "store"
    script.write_text(KILLED.format(root=str(repository), store=str(store)))
    done = subprocess.run([sys.executable, str(script)], check=False, capture_output=True, cwd=repository)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    kept = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    assert len(kept) >= 4 + 2 * 3  # shadow networks; networks and their logits
    assert not [path for path in kept if path.suffix == ".part"]
    jobs, wanted, _ = some_networks(store)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    monkeypatch.setattr(Jobs, "_make", lambda *_: pytest.fail("made again"))
    assert [jobs.made(job).failed for job in wanted] == [False] * 5


def test_what_was_kept_is_made_anew_when_it_is_damaged_or_its_origin_changes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.made("a", lambda: b"one") == b"one"
    assert store.made("a", lambda: b"two") == b"one"
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-1])
    assert store.missing(["a", "b"]) == [0, 1]
    assert store.made("a", lambda: b"two") == b"two"
    x = np.arange(6, dtype=np.float32)
    keys = [key_of("a", x), key_of("a", x.reshape(2, 3)), key_of("a", x + 1), key_of(b"a", x), key_of("ab", x)]
    assert len({*keys, key_of("a", x.astype(np.float64))}) == 6
    assert source_digest("repair") != source_digest("measure/sisa.py")


def test_keys_depend_on_what_a_network_depends_on_and_on_nothing_else(tmp_path: Path) -> None:
    study = tiny_study()
    jobs, margins = Jobs(study, Store(tmp_path)), np.ones((16, 30))
    other = Jobs(study, Store(tmp_path), margins)
    same = [Job("box", 0), Job("retrain", 3), Job(BASE, 0)]
    assert [jobs.key(job) for job in same] == [other.key(job) for job in same]
    assert jobs.key(Job("non-member", 0)) != other.key(Job("non-member", 0))
    every = [
        *same,
        Job(BASE, 1),
        Job("box", 1),
        Job("retrain", 0, "class"),
        *(Job("retrain", s) for s in control_seeds(2)),
    ]
    assert len({jobs.key(job) for job in every}) == len(every)


def test_outcomes_survive_their_files() -> None:
    for outcome, peak in ((Outcome(b"net", 1.5, 3, "note", 64), 2.5), (Outcome(b"", 0.5, 3, "why not"), None)):
        found, told = outcome_of(outcome_bytes(outcome, peak))
        assert (found.onnx, found.seconds, found.records, found.note, found.patch_bits, told) == (
            outcome.onnx, outcome.seconds, outcome.records, outcome.note, outcome.patch_bits, peak,
        )  # fmt: skip


class Fake:
    """Rows with given scores, for the sentences."""

    def __init__(self, redirect: float, retrained: float, base: float) -> None:
        from prune_verify.bench.unlearning_rows import Rows

        rng = np.random.default_rng(0)
        others = rng.normal(size=1000)

        def at(shift: float) -> Attacked:
            members = np.random.default_rng(1).normal(shift, size=400)
            names = (LIRA, UNLIKE, "unlike-outputs")
            return Attacked(dict.fromkeys(names, members), dict.fromkeys(names, others))

        jobs = Jobs(tiny_study(), None)
        found = {"base": at(base), "retrain 1": at(retrained), "non-member": at(redirect)}
        self.rows = Rows(jobs, None, {**found, "non-member, held out": at(3)})


@pytest.mark.parametrize(
    ("sentence", "redirect", "retrained", "base", "words"),
    [
        ("private", 0.0, 0.0, 1.0, ("are at chance", "the attack sees it", "not above retraining's")),
        ("conspicuous", 0.5, 0.0, 1.0, ("are at chance", "ABOVE retraining's by more than its interval")),
        ("too ordinary", -0.5, 0.0, 1.0, ("are at chance", "below retraining's by more")),
        ("a control that fails", 0.5, 0.5, 1.0, ("are NOT at chance: do not trust this table",)),
        ("a base that does not leak", 0.0, 0.0, 0.0, ("the attack sees nothing here",)),
    ],
)
def test_sentences_say_what_the_numbers_say(sentence, redirect, retrained, base, words) -> None:
    said = sentences(Fake(redirect, retrained, base).rows)
    text = "\n".join(said[:-2])
    for word in words:
        assert word in text, text
    assert all("ABOVE retraining's" in line for line in said[-2:])  # held out: not of this record


def test_ensembles_count_where_there_are_any() -> None:
    rows = Fake(0.5, 0, 1).rows
    assert "(one network)" in sentences(rows)[0]
    rows.ensembles["non-member"] = [rows.attacked["retrain 1"]] * 4
    assert "mean of 4 networks" in sentences(rows)[2]
    assert "not above" in sentences(rows)[2]


def test_a_redirect_without_a_patch_is_said_to_have_none() -> None:
    rows = Fake(0, 0, 1).rows
    del rows.attacked["non-member"]
    assert "redirect non-member: no patch was found" in "\n".join(sentences(rows))
    rows.attacked.pop("retrain 1")
    assert "no network was retrained" in sentences(rows)[0]


def test_the_mean_of_networks_is_no_surer_than_one_of_them() -> None:
    rng = np.random.default_rng(2)
    one = Attacked({LIRA: rng.normal(size=50)}, {LIRA: rng.normal(size=100)})
    found, alone = mean_auc([one] * 9, LIRA), one.auc(LIRA)
    assert (found.value, found.low, found.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [{"a": 1, "bb": "long cell"}, {"a": 22, "c": None}]
    assert aligned(rows) == [" a         bb     c", " 1  long cell      ", "22             None"]
    assert aligned(rows, ("a", "missing")) == [" a", " 1", "22"]


@pytest.mark.parametrize(
    ("sentence", "words", "said"),
    [
        ("neither size", ["unlearning"], "expected --quick or --full"),
        ("both sizes", ["unlearning", "--quick", "--full"], "expected --quick or --full"),
        ("full for another word", ["chain", "--full"], "belong to bench unlearning, not to bench chain"),
        ("a cache for another word", ["repair", "--cache", "c"], "belong to bench unlearning, not to bench repair"),
        ("records of one's own", ["unlearning", "--quick", "--train", "a", "--test", "b"], "belong to bench repair"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)  # fmt: skip
def test_what_is_not_meant_is_refused(sentence, words, said) -> None:
    code, text = run_words(["bench", *words, "--quiet"])
    assert code == 2
    assert said in text


def test_too_few_records_are_refused() -> None:
    from prune_verify.bench.chain import BenchError

    with pytest.raises(BenchError, match="digits: expected 2000 different rows, found 1797"):
        tiny_study(train=1000, judged=740)


@pytest.mark.slow
def test_mnist_and_adult_have_tables_too(tmp_path: Path, shared_data: Path, monkeypatch) -> None:
    from prune_verify.bench import unlearning

    small = {name: replace(size, **{**TINY, "train": 500, "judged": 1000, "forget": 100, "epochs": 60, "ensemble": 0})
             for name, size in sizes(quick=True).items()}  # fmt: skip
    small["digits"] = replace(small["digits"], **TINY)
    monkeypatch.setattr(unlearning, "sizes", lambda *, quick: small)
    out = tmp_path / "out"
    code, text = run_words(
        [
            "bench",
            "unlearning",
            "--quick",
            "--data",
            str(shared_data),
            "--out",
            str(out),
            "--cache",
            str(tmp_path / "c"),
            "--quiet",
            "--json",
        ]
    )
    assert code == 0, text
    found = json.loads(text)
    assert set(found["tables"]) == {"digits", "mnist", "adult"}
    for name in ("mnist", "adult"):
        rows = {row["method"]: row for row in found["tables"][name]["records"]}
        assert rows["box"]["forget accuracy %"] == 0
        assert rows["box"]["LiRA TPR at 0.1 % FPR"] != "n/a"
        assert (out / f"unlearning_{name}.svg").is_file()
    facts = json.loads((out / "unlearning.json").read_bytes())
    assert facts["sizes"]["mnist"]["train"] == 500
    assert os.cpu_count() == facts["machine"]["cores"]
