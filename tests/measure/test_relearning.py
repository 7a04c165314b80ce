"""Relearning: what comes back, from how little, beside a network that never saw it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.checker.claim import strict_answers
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network, Node
from prune_verify.measure.baselines import Rows
from prune_verify.measure.errors import MeasureInputError
from prune_verify.measure.relearning import Attack, Relearner, epochs_until, head_of, mean_interval, stripped
from prune_verify.measure.relearning_plan import Sets, known_of, prototypes_of, sizes_of
from prune_verify.measure.relearning_results import Results, strip_rows
from tests.unlearned_digits import unlearned_digits

pytestmark = pytest.mark.prover


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    """The networks are small: two threads only wait for one another."""
    import torch

    torch.set_num_threads(1)


F = np.float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return unlearned_digits(tmp_path_factory.mktemp("digits"))


def rows_of(folder, name) -> Rows:
    with np.load(folder / f"{name}.npz") as found:
        return Rows(found["x"], found["y"])


@pytest.fixture(scope="module")
def base(folder) -> Network:
    return load_network((folder / "base.onnx").read_bytes(), "base.onnx").network


@pytest.fixture(scope="module")
def patched(folder) -> bytes:
    return (folder / "out" / "patched.onnx").read_bytes()


# --- what the attacker has ---


def some(labels) -> Rows:
    y = np.array(labels, dtype=np.int64)
    return Rows(np.arange(len(y), dtype=F)[:, np.newaxis], y)


@pytest.mark.parametrize(
    ("text", "forgotten", "sizes"),
    [("1,2,5", 5, (1, 2)), ("10", 5, ()), ("5,1,1", 6, (1, 5)), ("1", 1, ())],
)
def test_fewer_records_than_there_are_are_known(text, forgotten, sizes) -> None:
    assert sizes_of(text, forgotten) == sizes


@pytest.mark.parametrize("text", ["", "0", "a", "1,-2", "1.5"])
def test_numbers_of_records_are_integers_from_one(text) -> None:
    with pytest.raises(MeasureInputError, match="--records: expected numbers from 1"):
        sizes_of(text, 9)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12), st.integers(0, 5))
def test_what_is_known_is_never_watched_unless_all_is(labels, seed) -> None:
    sets = Sets.of(some(labels), some([0]), some([0, 1, 2, 3] * 4), 6, seed)
    for plans in (known_of, prototypes_of):
        for plan in plans(sets, (1, 2), seed):
            known, watched = set(plan.known.x[:, 0].tolist()), set(plan.watched.x[:, 0].tolist())
            if plan.name in {"all", "others"}:
                assert len(plan.watched.y) == len(labels)
            else:
                assert known | watched == set(range(len(labels)))
                assert not known & watched
                counts = [int((plan.known.y == label).sum()) for label in range(4)]
                assert (sum(counts) if plans is known_of else max(counts)) == int(plan.name)


def test_others_have_the_labels_of_forgotten_records_and_leave_the_test_set() -> None:
    test = some([0, 1, 1, 1, 1, 2, 2])
    sets = Sets.of(some([1]), some([0]), test, 100, 0)
    assert sets.others.y.tolist() == [1, 1]  # half of those with the label
    assert sorted([*sets.others.x[:, 0], *sets.test.x[:, 0]]) == list(range(7))
    assert len(Sets.of(some([1]), some([0]), test, 1, 0).others.y) == 1
    assert not len(Sets.of(some([1]), some([0]), test, 0, 0).others.y)


def test_what_the_control_is_to_know_is_what_it_was_trained_on() -> None:
    sets = Sets.of(some([1, 1]), some([0, 2]), some([0, 1, 1, 2, 3]), 0, 0)
    assert sets.kept_test().y.tolist() == [0, 2]
    assert Sets.of(some([1]), some([7]), some([0, 1]), 0, 0).kept_test().y.tolist() == [0, 1]
    assert sorted(sets.retained_part(5, 0).y.tolist()) == [0, 2]
    assert len(sets.retained_part(1, 0).y) == 1


# --- epochs and intervals ---


@pytest.mark.parametrize(
    ("watched", "target", "epochs"),
    [([0, 0.5, 1], 1, 2), ([1, 0, 0], 1, 0), ([0, 0.5, 0.9], 1, None), ([0, 0.9, 0.5], 0.9, 1), ([0.3], 0.1 + 0.2, 0)],
)
def test_the_first_epoch_that_reaches_the_target_counts(watched, target, epochs) -> None:
    assert epochs_until(np.array(watched, dtype=float), target) == epochs


def test_one_seed_has_no_interval_and_several_have_students() -> None:
    assert mean_interval([2.0]) == (2.0, None)
    mean, ends = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert ends == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))


# --- the attacks ---


def test_the_head_is_the_last_layer_of_the_network_itself(base, patched) -> None:
    network = load_network(patched, "patched.onnx").network
    head, own = head_of(network, base), head_of(network)
    assert own > head  # the gates end in a linear layer of their own
    assert np.array_equal(network.nodes[head].arrays["weight"], base.nodes[head_of(base)].arrays["weight"])


def test_a_network_without_a_linear_layer_has_no_head() -> None:
    network = Network((Node("Input", (), (3,)), Node("Relu", (0,), (3,))), 1)
    with pytest.raises(MeasureInputError, match="head: expected a linear layer with 3 outputs, found none"):
        head_of(network)


def test_gates_are_taken_off_without_training(folder, base, patched) -> None:
    forget = rows_of(folder, "forget")
    network = load_network(patched, "patched.onnx").network
    assert (strict_answers(network, forget.x) != forget.y).all()
    found = stripped(base, network)
    assert found is not None
    assert np.array_equal(strict_answers(found, forget.x), strict_answers(base, forget.x))
    rows, said = strip_rows(base, network, forget)
    assert [(row.name, row.value) for row in rows] == [
        ("strip.base-in-file", "1"),
        ("strip.epochs", "0"),
        ("strip.accuracy", "1"),
    ]
    assert "the weights of the base are still in the file" in said[0]
    assert "5 of 5 forgotten records" in said[0]


def test_a_network_of_other_weights_cannot_be_stripped(base, folder) -> None:
    nodes = tuple(
        Node(n.op, n.inputs, n.shape, n.ints, {k: v + F(2**-20) if k == "weight" else v for k, v in n.arrays.items()})
        for n in base.nodes
    )
    other = Network(nodes, base.output)
    assert stripped(base, other) is None
    rows, said = strip_rows(base, other, rows_of(folder, "forget"))
    assert [(row.name, row.value) for row in rows] == [("strip.base-in-file", "0")]
    assert "not found inside the file" in said[0]


def test_fine_tuning_begins_from_the_same_weights_every_time(folder, base, patched) -> None:
    forget, test = rows_of(folder, "forget"), rows_of(folder, "test")
    network, attack = Relearner(patched, "patched.onnx", base), Attack(6, 8, 0.001)
    first, again = (network.fine_tuned(forget, forget, test, attack, head=False, seed=0) for _ in range(2))
    assert first.watched.tolist() == again.watched.tolist()
    assert len(first.watched) == 7
    assert first.watched[0] == 0
    assert first.watched[-1] == 1  # a patch does not withstand whoever may train the file
    assert network.accuracy(forget) == 0


def test_an_attacker_with_retained_records_does_not_lose_the_rest(folder, base, patched) -> None:
    sets = Sets.of(rows_of(folder, "forget"), rows_of(folder, "retain"), rows_of(folder, "test"), 0, 0)
    found = []
    for retained in (0, 200):
        results = Results(
            ((folder / "base.onnx").read_bytes(), base), {"patched": [patched], "retrain": [patched]}, sets, Attack(20, 8, 0.01, retained), 1.0, (0, 1)
        )  # fmt: skip
        results.measure(("full",), (), lambda *_: None)
        rows = {row.name: float(row.value) for row in results.rows()}
        assert rows["patched.full.all.accuracy"] == 1
        found.append(rows["patched.full.all.test"])
    assert found[0] < 0.88 < found[1]


def test_only_the_head_is_trained_where_that_is_asked(folder, base) -> None:
    forget, test = rows_of(folder, "forget"), rows_of(folder, "test")
    network = Relearner((folder / "base.onnx").read_bytes(), "base.onnx", base)
    before = {name: value.clone() for name, value in network._module.state_dict().items()}
    network.fine_tuned(Rows(forget.x, (forget.y + 1) % 10), forget, test, Attack(2, 8, 0.01), head=True, seed=0)
    changed = {name for name, value in network._module.state_dict().items() if not value.equal(before[name])}
    assert changed == {f"weight_{head_of(base)}", f"bias_{head_of(base)}"}


def test_prototypes_answer_with_the_nearest_mean_feature(base, folder) -> None:
    retain, test, forget = (rows_of(folder, name) for name in ("retain", "test", "forget"))
    network = Relearner((folder / "base.onnx").read_bytes(), "base.onnx", base)
    run = network.prototyped(forget, retain, forget, test)
    assert run.watched.tolist()[0] == 1
    assert run.test > 0.8  # means of features tell digits apart
    swapped = network.prototyped(Rows(forget.x, (forget.y + 1) % 10), retain, forget, test)
    assert swapped.watched[1] < run.watched[1]


# --- results ---


@pytest.fixture(scope="module")
def results(folder, base, patched) -> Results:
    """The patched network beside the base itself as a control that has forgotten nothing."""
    sets = Sets.of(rows_of(folder, "forget"), rows_of(folder, "retain"), rows_of(folder, "test"), 40, 0)
    data = (folder / "base.onnx").read_bytes()
    found = Results((data, base), {"patched": [patched], "retrain": [data]}, sets, Attack(4, 8, 0.001), 1.0, (0, 2))
    found.measure(("head", "full", "prototype"), (1,), lambda *_: None)
    return found


def test_a_control_that_knows_the_records_is_back_at_once(results) -> None:
    rows = {row.name: row for row in results.rows()}
    assert rows["retrain.full.all.epochs"].value == "0"
    assert rows["patched.accuracy"].value == "0"
    assert rows["base.accuracy"].value == "1"
    own, control = (float(rows[f"{name}.full.all.epochs"].value) for name in ("patched", "retrain"))
    assert float(rows["patched-beside-retrain.full.all.epochs"].value) == control - own
    assert "which count as that" in rows["patched.head.all.epochs"].note  # gates stand behind the head
    assert len({row.name for row in results.rows()}) == len(results.rows())
    said = " ".join(results.said())
    assert "patched: head: not back within 4 epochs on all forgotten records" in said
    assert "retrain: full: back after 0.0 epochs on all forgotten records" in said


def test_curves_are_shares_with_their_least_and_greatest_seed(results) -> None:
    series = results.series()
    assert {name.count(".") for name in series} == {3, 4}
    for name in series:
        if not name.endswith((".low", ".high")):
            middle, low, high = ([float(v) for v in series[name + end]] for end in ("", ".low", ".high"))
            assert len(middle) == 5
            assert all(0 <= a <= b <= c <= 1 for a, b, c in zip(low, middle, high, strict=True))


def test_more_rows_than_a_file_has_room_for_are_refused_first(results) -> None:
    results.require_room(("head", "full", "prototype"), (1, 2, 5, 10, 50))
    with pytest.raises(MeasureInputError, match="at most 256 rows, found"):
        results.require_room(("head", "full", "prototype"), tuple(range(1, 40)))


def test_the_planned_rows_are_no_fewer_than_there_are(results, monkeypatch) -> None:
    monkeypatch.setattr("prune_verify.measure.relearning_results.MOST_ROWS", len(results.rows()) - 1)
    with pytest.raises(MeasureInputError, match="rows, found"):
        results.require_room(("head", "full", "prototype"), (1,))
