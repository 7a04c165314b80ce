"""What a deployed file answers, and an owner who states true counts of a bad patch: shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from prune_verify.checker.claim import LabelledRows, Problem, decide
from prune_verify.checker.claim_json import parse_claim
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.policy import parse_policy
from prune_verify.checker.records import load_records
from prune_verify.checker.verify_claims import counts_of
from tests.dishonest_owner import Owner

Floats = npt.NDArray[np.float32]


def served(data: bytes) -> Callable[[Floats], Floats]:
    """The deployed program: logits of rows, by onnxruntime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda rows: session.run(None, {name: np.ascontiguousarray(rows, dtype=np.float32)})[0]


def programs(owner: Owner) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
    """Base and patched network, as deployed."""
    base, patched = ((owner.folder / f"{name}.onnx").read_bytes() for name in ("base", "patched"))
    return served(base), served(patched)


def records(owner: Owner, which: str) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Forget or retained records with their labels."""
    with np.load(owner.folder / f"{which}.npz") as arrays:
        return arrays["x"], arrays["y"]


def margins(logits: Floats, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The label's logit less the greatest other one, exactly."""
    values = logits.astype(np.float64)
    own = values[np.arange(len(labels)), labels].copy()
    values[np.arange(len(labels)), labels] = -np.inf
    found: npt.NDArray[np.float64] = own - values.max(axis=1)
    return found


def around(x: Floats, radius: float, count: int, seed: int = 0) -> Floats:
    """Inputs of the balls of records, cut at [0, 1]: corners and what lies between, [records x count, n]."""
    rng = np.random.default_rng(seed)
    steps = rng.uniform(-1, 1, (len(x), count, x.shape[1]))
    steps[:, ::2] = np.sign(steps[:, ::2])
    rows = x[:, np.newaxis].astype(np.float64) + 0.999 * radius * steps
    found: Floats = np.clip(rows, 0, 1).astype(np.float32).reshape(-1, x.shape[1])
    return found


def problem_of(owner: Owner) -> Problem:
    """The files as the checker reads them."""
    names = ("base.onnx", "patched.onnx")
    base, patched = (load_network((owner.folder / name).read_bytes(), name).network for name in names)
    sets = [load_records(str(owner.folder / f"{name}.npz"), what=name) for name in ("forget", "retain")]
    domain = parse_policy((owner.folder / "policy.toml").read_bytes(), "policy.toml").domain
    return Problem(base, patched, owner.patch(), domain, *(LabelledRows(one.x, one.y) for one in sets))


def state_true_counts(owner: Owner) -> None:
    """The owner lets every structural claim stand and states what really follows for it."""
    problem = problem_of(owner)

    def change(document: dict) -> None:
        for item in document["predicate"]["claims"]:
            outcome = decide(problem, parse_claim(item, "claim").claim)
            counts = counts_of(outcome)
            item["counts"] = {
                "total": counts.total, "proved": counts.proved, "provedByBound": counts.proved_by_bound, "refuted": 0,
                "unknown": counts.unknown, "conflict": counts.conflict, "alreadyWrong": counts.already_wrong,
            }  # fmt: skip
            item["conflicts"], item["unknowns"] = list(outcome.conflicts), list(outcome.unknowns)

    owner.edit(change)
