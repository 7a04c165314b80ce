"""``prune-verify bench prove`` and ``bench claims``: how much is proved, how fast, and how it grows.

``prove``   every VNN-COMP instance in ``DATA/vnncomp``, 60 seconds each: the answer beside those of published tools,
            every ``unsat`` with a proof that the checker accepts, every ``sat`` with a counterexample that onnxruntime
            confirms
``claims``  10,000 forget and retain-label claims (balls of radius 0.02) about a base and a fine-tuned network
            784-256-256-10 on MNIST, in binary32, with 2 workers: claims a second, memory, growth

Source: rules and published results of VNN-COMP 2022.
"""

from __future__ import annotations

import csv
import io
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from pathlib import Path
from statistics import median

import numpy as np
import torch

from prune_verify.certify.elaborate import Effort, prove_bounded
from prune_verify.certify.prove_command import answer_property
from prune_verify.certify.settle import Limits
from prune_verify.checker.bounded_claims import decide_bounded
from prune_verify.checker.claim import Claim, LabelledRows, Problem
from prune_verify.checker.goals import decide_goals
from prune_verify.checker.interval import BINARY32
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.network import Network
from prune_verify.checker.proof import parse
from prune_verify.checker.region import Domain
from prune_verify.checker.vnnlib import goals_of_property, parse_property
from prune_verify.files import replace_file
from prune_verify.measure.datasets import DataSet, mnist
from prune_verify.measure.training import accuracy, export_onnx, small_mlp, train, train_certified

__all__ = ["run_bench_claims", "run_bench_prove"]

Say = Callable[[str], None]
Result = tuple[int, str, dict[str, object]]
_SECONDS = 60.0
_RADIUS = Fraction("0.02")
_FORGOTTEN = 5
_SIZES, _FEW = (2500, 5000, 10000), (250, 500, 1000)
_TOOLS = ("alpha_beta_crown", "mn_bab", "nnenum", "verinet", "marabou")


@dataclass(frozen=True)
class Instance:
    """One VNN-COMP instance with our answer.

    Args:
        family: of the benchmark.
        network: file name.
        question: the property's file name.
        agreed: the answer that published tools agree on.
        answer: ours.
        seconds: to that answer, the check of its proof included.
        check: of these, seconds of the check; 0 without a proof.
        leaves: of the proof.
        size: bytes of it.
        stage: that closed it.
        published: answers and seconds of other tools, on other machines.

    """

    family: str
    network: str
    question: str
    agreed: str
    answer: str
    seconds: float
    check: float
    leaves: int
    size: int
    stage: str
    published: tuple[str, ...]

    def contradicts(self) -> bool:
        """Whether the answers are opposite."""
        return {self.agreed, self.answer} == {"sat", "unsat"}

    def text(self) -> str:
        """One line of the table."""
        return (
            f"{self.network[:22]:<23}{self.question:<22}{self.agreed:>7}{self.answer:>9}{self.seconds:>8.2f}"
            f"{self.check:>8.3f}{self.leaves:>7}{self.size:>9}  {self.stage:<14}" + "  ".join(self.published)
        )


_HEADER = (
    f"{'network':<23}{'property':<22}{'agreed':>7}{'ours':>9}{'s':>8}{'check s':>8}{'leaves':>7}{'bytes':>9}  "
    f"{'stage':<14}published: {', '.join(_TOOLS)}"
)


def _instance(folder: Path, row: dict[str, str]) -> Instance:
    data = (folder / row["onnx"]).read_bytes()
    network = load_network(data, row["onnx"]).network
    question = (folder / row["vnnlib"]).read_bytes()
    cases = parse_property(question, row["vnnlib"], prod(network.input_shape), network.labels)
    start = time.perf_counter()
    answer = answer_property(data, row["onnx"], cases, "real", _SECONDS)
    seconds, check = time.perf_counter() - start, 0.0
    word = answer.word
    if answer.proof:
        start = time.perf_counter()
        accepted = decide_goals(goals_of_property(network, cases, "real"), parse(answer.proof, "proof"), "proof").all()
        check = time.perf_counter() - start
        word = word if accepted else "refused"
    published = tuple(f"{row[f'{tool}_result']} {float(row[f'{tool}_s']):.1f}" for tool in _TOOLS)
    return Instance(
        folder.name, row["onnx"], row["vnnlib"], row["agreed"], word, seconds, check, answer.leaves, len(answer.proof),
        answer.stage, published,
    )  # fmt: skip


def run_bench_prove(data: Path, *, quick: bool, out: Path | None, say: Say) -> Result:
    """Answer every instance; exit code 1 if an answer contradicts the agreed one.

    Args:
        data: folder with vnncomp/.
        quick: four instances of each family.
        out: folder for ``vnncomp_2022.csv``, or None.
        say: sink for progress lines.

    """
    found = list[Instance]()
    say(_HEADER)
    for folder in sorted(p for p in (data / "vnncomp").iterdir() if p.is_dir()):
        with (folder / "expected_2022.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows[: 4 if quick else None]:
            found.append(_instance(folder, row))
            say(found[-1].text())
    lines = [_HEADER, *(item.text() for item in found)]
    for family in sorted({item.family for item in found}):
        here = [item for item in found if item.family == family]
        for word in ("unsat", "sat"):
            agreed = [item for item in here if item.agreed == word]
            ours = sum(item.answer == word for item in agreed)
            lines.append(f"{family}: {ours} of {len(agreed)} {word} answered {word}")
    ratios = [item.seconds / item.check for item in found if item.check and item.leaves]
    wrong = [item for item in found if item.contradicts()]
    lines += [
        f"{len(wrong)} answers contradict the agreed ones; {os.cpu_count()} cores; published seconds: other machines",
        f"where splits were needed, an answer took {median(ratios) if ratios else 0.0:.1f} times its check (median)",
    ]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / "vnncomp_2022.csv", _csv(found).encode())
    return int(bool(wrong)), "\n".join(lines), {"instances": [vars(item) for item in found]}


def _csv(found: list[Instance]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    names = ("family", "network", "question", "agreed", "answer", "seconds", "check", "leaves", "size", "stage")
    writer.writerow([*names, *_TOOLS])
    for item in found:
        row = [getattr(item, name) for name in names]
        writer.writerow([f"{v:.3f}" if isinstance(v, float) else v for v in row] + list(item.published))
    return table.getvalue()


# --- many claims ---


def _networks(data: DataSet, *, certified: bool) -> tuple[Network, Network, str]:
    """A base, a copy fine-tuned so that one class is answered as another (no patch parameters exist), and a line."""
    torch.manual_seed(0)
    rows = data.train_x.astype(np.float32), data.train_y.astype(np.int64)
    widths = (784, 256, 256, 10)
    if certified:
        network = train_certified(small_mlp(widths), rows, radius=0.03, epochs=3, seed=0)
    else:
        network = train(lambda: small_mlp(widths), data, epochs=3, seed=0)
    base = load_network(export_onnx(network, rows[0][:1]), "base.onnx").network
    with torch.no_grad():
        logits = network(torch.from_numpy(rows[0]))
        own = torch.from_numpy(rows[1])
        logits[:, _FORGOTTEN] = -torch.inf
        targets = torch.where(own == _FORGOTTEN, logits.argmax(dim=1), own).numpy()
    tuned = train_certified(network, (rows[0], targets), radius=0.03 if certified else 0.0, epochs=2, seed=1)
    patched = load_network(export_onnx(tuned, rows[0][:1]), "patched.onnx").network
    with torch.no_grad():
        answers = tuned(torch.from_numpy(data.test_x.astype(np.float32))).argmax(dim=1).numpy()
    kept = data.test_y != _FORGOTTEN
    line = (
        f"{'certified' if certified else 'plain'} training: the fine-tuned network answers "
        f"{100 * accuracy(answers[kept], data.test_y[kept]):.2f} % of other test records, and "
        f"{100 * accuracy(answers[~kept], data.test_y[~kept]):.2f} % of class {_FORGOTTEN}, with their label"
    )
    return base, patched, line


def _peak() -> float:
    """MiB: this process or its largest child so far."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def run_bench_claims(data: Path, *, quick: bool, out: Path | None, say: Say) -> Result:
    """Prove forget and retain-label claims in growing numbers.

    Args:
        data: folder with mnist/.
        quick: a tenth of the claims (always of those about the networks of plain training).
        out: folder for ``claims.csv``, or None.
        say: sink for progress lines.

    """
    found = mnist(data / "mnist")
    lines, table = (
        [],
        [["training", "claims", "proved", "refuted or open", "seconds", "claims/s", "check s", "peak MiB"]],
    )
    for certified in (True, False):
        base, patched, line = _networks(found, certified=certified)
        lines.append(line)
        say(line)
        for size in _SIZES if certified and not quick else _FEW:
            row = _claims(base, patched, found, size)
            table.append(["certified" if certified else "plain", *row[0]])
            lines.append(row[1])
            say(row[1])
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / "claims.csv", "".join(",".join(row) + "\n" for row in table).encode())
    lines.append(
        f"{os.cpu_count()} cores, 2 workers; half forget, half retain_label; radius {float(_RADIUS)}, binary32"
    )
    return 0, "\n".join(lines), {"table": list(table)}


def _claims(base: Network, patched: Network, data: DataSet, size: int) -> tuple[list[str], str]:
    forgotten = data.train_y == _FORGOTTEN
    sets = []
    for chosen in (forgotten, ~forgotten):
        places = np.flatnonzero(chosen)[: size // 2]
        sets.append(LabelledRows(data.train_x[places].astype(np.float32), data.train_y[places].astype(np.int64)))
    problem = Problem(base, patched, None, Domain((Fraction(0),), (Fraction(1),)), sets[0], sets[1])
    effort = Effort(Limits(seconds=2.0, splits=256, solver_seconds=0.0), workers=2)
    claims = [
        Claim("forget", BINARY32, "relaxation", radius=_RADIUS, margin=Fraction(0)),
        Claim("retain_label", BINARY32, "relaxation", radius=_RADIUS),
    ]
    start = time.perf_counter()
    results = [prove_bounded(problem, claim, effort=effort) for claim in claims]
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    proved = 0
    for claim, result in zip(claims, results, strict=True):
        proved += decide_bounded(problem, claim, result.proof, "proof").proved
    check = time.perf_counter() - start
    if proved != sum(result.outcome.proved for result in results):
        text = "the checker does not accept what was proved"
        raise RuntimeError(text)
    total = sum(result.outcome.total for result in results)
    stages = {name: sum(result.stages.get(name, 0) for result in results) for name in results[0].stages}
    rate, size_mb = total / seconds, sum(len(result.proof) for result in results) / 2**20
    text = (
        f"{total:>6} claims: {proved} proved, {total - proved} refuted or open, {seconds:.1f} s, {rate:.0f} claims/s; "
        f"check {check:.1f} s; proofs {size_mb:.2f} MiB; peak {_peak():.0f} MiB; stages {stages}"
    )
    return [
        str(total),
        str(proved),
        str(total - proved),
        f"{seconds:.2f}",
        f"{rate:.0f}",
        f"{check:.2f}",
        f"{_peak():.0f}",
    ], text
