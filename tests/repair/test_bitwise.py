"""What onnxruntime computes on the deployed file: base logits bit for bit on retained balls, the forgotten label never.

On digits always, on MNIST at full size behind ``slow``; 100,000 points each. Logits are compared within
one run: an audit copy of the graph, in memory, gives the base's logits as a second output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from prune_verify.checker.claim import Claim, LabelledRows, Problem, decide
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.patch import JointPatch
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, head_margin
from prune_verify.measure.datasets import DataSet, digits, mnist
from prune_verify.measure.training import export_onnx, small_mlp, train
from prune_verify.repair.engine import repair_box
from prune_verify.repair.export import export_patched
from prune_verify.repair.head import head_bounds
from prune_verify.repair.threat_model import default_threat_model

pytestmark = pytest.mark.prover
F = np.float32
UNIT = Domain((Fraction(0),), (Fraction(1),))
MODEL = default_threat_model(UNIT)
POINTS = 100_000
BATCH = 5000
INNER = "prune_verify/base_logits_1"


def scaled(data: bytes, scale: float) -> bytes:
    """The last layer's weights and biases times ``scale``."""
    model = onnx.load_from_string(data)
    last = model.graph.node[-1]
    for tensor in model.graph.initializer:
        if tensor.name in last.input:
            values = numpy_helper.to_array(tensor) * F(scale)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(F), tensor.name))
    return model.SerializeToString()


@dataclass(frozen=True, eq=False)
class Deployed:
    """A patched network with its data, ready to be asked."""

    forget: LabelledRows
    retain: LabelledRows
    patch: JointPatch
    session: ort.InferenceSession
    claimed: Fraction
    base_labels: np.ndarray

    def ask(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Patched and base logits of one run."""
        shaped = x.reshape(-1, *self.forget.x.shape[1:]).astype(F)
        patched, base = self.session.run(None, {self.session.get_inputs()[0].name: shaped})
        return patched, base


def deployed(data: DataSet, base_bytes: bytes, count: int, classes: tuple[int, ...] = ()) -> Deployed:
    base = load_network(base_bytes, "base.onnx")
    forget = LabelledRows(data.train_x[:count], data.train_y[:count])
    retain = LabelledRows(data.train_x[count:], data.train_y[count:])
    found = repair_box(base.network, forget, retain, MODEL, classes=classes)
    exported = export_patched(base_bytes, base, found.patch)
    patched = load_network(exported, "patched.onnx").network
    files = Problem(base.network, patched, found.patch, UNIT, forget, retain)
    logits = found.patch.allowed if classes else None
    forgetting = decide(files, Claim("forget", BINARY32, "structural", MODEL.radius, MODEL.margin))
    exact = decide(files, Claim("retain_exact", BINARY32, "structural", MODEL.retained_radius, logits=logits))
    assert (forgetting.unknowns, exact.conflicts) == ((), ())
    bounds = head_bounds(base.network, found.patch.allowed, UNIT, (BINARY32,))
    head_margin(found.patch, MODEL.margin, bounds.magnitude[BINARY32], BINARY32)
    model = onnx.load_from_string(exported)
    model.graph.output.append(helper.make_tensor_value_info(INNER, TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    labels = np.array([gate.label for gate in found.patch.gates])
    return Deployed(forget, retain, found.patch, session, MODEL.margin, labels)


def in_ball(centres: np.ndarray, radius: Fraction, rng: np.random.Generator) -> np.ndarray:
    """Corners and random points of balls cut to [0, 1], as float32 that lie inside exactly."""
    reach = float(radius)
    low = np.maximum(centres.astype(np.float64) - reach, 0.0)
    high = np.minimum(centres.astype(np.float64) + reach, 1.0)
    share = rng.random(centres.shape)
    corners = rng.random((len(centres), 1)) < 0.5
    share = np.where(corners, np.round(share), share)
    x = (low + share * (high - low)).astype(F)
    x = np.where(x < low, np.nextafter(x, F(2)), x)
    return np.where(x > high, np.nextafter(x, F(-1)), x)


def batches(rng: np.random.Generator, count: int) -> Iterator[np.ndarray]:
    for _ in range(POINTS // BATCH):
        yield rng.integers(0, count, BATCH)


def check_retained(one: Deployed, seed: int) -> None:
    rng, kept = np.random.default_rng(seed), one.retain.flat()
    allowed = list(one.patch.allowed)
    for rows in batches(rng, len(kept)):
        patched, base = one.ask(in_ball(kept[rows], MODEL.retained_radius, rng))
        assert np.array_equal(patched[:, allowed], base[:, allowed])


def check_forgotten(one: Deployed, seed: int) -> None:
    """Balls, corners, and slabs: the coordinates that no gate of the record reads are anywhere in [0, 1]."""
    rng, lost = np.random.default_rng(seed), one.forget.flat()
    reads = np.ones(lost.shape, dtype=np.bool_)
    for gate in one.patch.gates:
        for record in gate.records:
            reads[record] = False
            reads[record, [i.coordinate for i in gate.intervals]] = True
    for rows in batches(rng, len(lost)):
        inside = in_ball(lost[rows], MODEL.radius, rng)
        free = rng.random(inside.shape).astype(F)
        slab = rng.random((len(rows), 1)) < 0.5
        x = np.where(slab & ~reads[rows], free, inside)
        patched = one.ask(x)[0].astype(np.float64)
        labels = one.forget.y[rows]
        # Other labels' gates may be open elsewhere in a slab; the rule asks for one label whose gates are closed.
        ok = ~slab[:, 0] | some_label_closed(one, x)
        own = patched[np.arange(len(rows)), labels]
        patched[np.arange(len(rows)), labels] = -np.inf
        assert (own <= patched.max(axis=1) - float(one.claimed))[ok].all()
        assert ok.mean() > 0.5


def violations(one: Deployed, x: np.ndarray) -> np.ndarray:
    """Float32 violation of every gate at every row."""
    found = np.zeros((len(x), len(one.patch.gates)), dtype=F)
    for place, gate in enumerate(one.patch.gates):
        for i in gate.intervals:
            if i.high is not None:
                found[:, place] += np.maximum(x[:, i.coordinate] - i.high, F(0))
            if i.low is not None:
                found[:, place] += np.maximum(i.low - x[:, i.coordinate], F(0))
    return found


def some_label_closed(one: Deployed, x: np.ndarray) -> np.ndarray:
    touched = violations(one, x) < 2 / np.array([float(g.gamma) for g in one.patch.gates])
    open_labels = [touched[:, one.base_labels == label].any(axis=1) for label in one.patch.allowed]
    return ~np.logical_and.reduce(open_labels)


def check_overlaps(one: Deployed, seed: int) -> None:
    """Points inside boxes of several labels at once: none of these labels is answered."""
    rng, tried = np.random.default_rng(seed), 0
    for _ in range(400):
        first, second, third = rng.choice(len(one.patch.gates), 3, replace=False)
        chosen = [one.patch.gates[g] for g in (first, second, third)]
        places = [i.coordinate for gate in chosen for i in gate.intervals]
        if len({gate.label for gate in chosen}) < 3 or len(set(places)) < len(places):
            continue
        x = rng.random((64, one.forget.flat().shape[1])).astype(F)
        for gate in chosen:
            for i in gate.intervals:
                low, high = (F(0) if i.low is None else i.low), (F(1) if i.high is None else i.high)
                x[:, i.coordinate] = np.clip(low + rng.random(64).astype(F) * (high - low), low, high)
        x = x[some_label_closed(one, x)]
        if not len(x):
            continue
        answers = one.ask(x)[0].argmax(axis=1)
        assert not np.isin(answers, [gate.label for gate in chosen]).any()
        tried += len(x)
    assert tried >= 1000


@pytest.fixture(scope="module")
def digits_base() -> tuple[DataSet, bytes]:
    data = digits(seed=0)
    return data, export_onnx(train(lambda: small_mlp((64, 64, 32, 10)), data, epochs=40, seed=0), data.train_x)


@pytest.mark.parametrize("scale", [1.0, 1e9], ids=["logits as trained", "logits times 1e9"])
def test_digits(digits_base: tuple[DataSet, bytes], scale: float) -> None:
    data, base = digits_base
    one = deployed(data, scaled(base, scale), 60)
    check_retained(one, 1)
    check_forgotten(one, 2)
    check_overlaps(one, 3)


@pytest.mark.parametrize("scale", [1.0, 1e9], ids=["logits as trained", "logits times 1e9"])
def test_digits_with_a_forgotten_class(digits_base: tuple[DataSet, bytes], scale: float) -> None:
    data, base = digits_base
    one = deployed(data, scaled(base, scale), 40, classes=(3,))
    check_retained(one, 4)
    check_forgotten(one, 5)
    rng = np.random.default_rng(6)
    for wide in (1.0, 100.0):  # class-cap holds for every input, inside the domain or not
        for _ in range(POINTS // BATCH):
            x = (rng.random((BATCH, 64)) * 2 * wide - wide).astype(F)
            patched, base_logits = one.ask(x)
            answers, before = patched.argmax(axis=1), base_logits.argmax(axis=1)
            assert not (answers == 3).any()
            if wide == 1.0:
                assert (patched[:, 3] < patched.max(axis=1)).all()
            closed = ~(violations(one, x) < 2 / np.array([float(g.gamma) for g in one.patch.gates])).any(axis=1)
            inside = ((x >= 0) & (x <= 1)).all(axis=1)
            keeps = closed & inside & (before != 3)
            assert (answers[keeps] == before[keeps]).all()


@pytest.mark.slow
def test_mnist_at_full_size(shared_data: Path) -> None:
    """1,000 forgotten, 59,000 retained, as trained and at logits of 1e9."""
    data = mnist(shared_data / "mnist")
    base = export_onnx(train(lambda: small_mlp((784, 256, 256, 10)), data, epochs=2, seed=0), data.train_x)
    for scale in (1.0, 1e9):
        one = deployed(data, scaled(base, scale), 1000)
        assert max(len(gate.intervals) for gate in one.patch.gates) <= 16
        check_retained(one, 1)
        check_forgotten(one, 2)
        check_overlaps(one, 3)
