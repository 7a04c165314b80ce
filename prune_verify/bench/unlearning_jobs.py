"""Networks of ``bench unlearning``, made in processes of their own and kept: bases, and what each way to forget makes.

A job runs in a fresh process with one thread, so that the memory it took can be read from the system and times do not
hang on what ran before. What cannot be had (a family that finds no patch) is kept as well, with the reason.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prune_verify.bench.unlearning_sizes import Labels, Study
from prune_verify.bench.unlearning_store import Store, key_of, outcome_bytes, outcome_of, source_digest
from prune_verify.measure.unlearning_context import Context, Outcome, UnlearnerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

__all__ = ["BASE", "Job", "Jobs", "Made", "Request", "logits_of"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
BASE = "base"
_OWN_TRAINING = ("retrain", "amnesiac", "SISA")  # they start from the records and not from the base
_TRAINED_BY = ("measure/baselines.py", "measure/sisa.py", "measure/training.py", "measure/reassure.py")
_PATCHED_BY = ("repair", "bounds", "checker", "measure/patching.py", "measure/unlearners.py")
_MEGA = 1e6
_ROWS_AT_ONCE = 2000


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be forgotten.

    Args:
        forget: indices of rows of the pool.
        retain: the same of rows that stay.
        classes: labels that are to go as classes.

    """

    forget: Labels
    retain: Labels
    classes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Job:
    """One network to be made.

    Args:
        method: a name of ``UNLEARNERS``, or ``base``.
        seed: of the base, and of the method.
        level: ``records`` or ``class``: which request.

    """

    method: str
    seed: int
    level: str = "records"


@dataclass(frozen=True, eq=False)
class Made:
    """What a job made.

    Args:
        outcome: see :class:`Outcome`; its file is empty where there is no network, and the note says why.
        peak: MB of memory that it took beyond what was there before; None where the system does not say.

    """

    outcome: Outcome
    peak: float | None

    @property
    def failed(self) -> bool:
        """Whether there is no network."""
        return not self.outcome.onnx


@dataclass(frozen=True, eq=False)
class Jobs:
    """Makes networks of one study, and keeps them.

    Args:
        study: data and sizes.
        store: where they are kept.
        margins: float64 [networks, forget]: of the owner's networks, NaN where one saw the record; None before they are
            there.

    """

    study: Study
    store: Store
    margins: Doubles | None = None

    def request(self, job: Job) -> Request:
        """The records that a job is about."""
        study = self.study
        train = np.arange(study.size.train)
        if job.level == "class":
            of = study.y[: study.size.train] == study.forgotten_class
            return Request(train[of], train[~of], (study.forgotten_class,))
        return Request(train[: study.size.records(job.method)], train[study.size.forget :])

    def key(self, job: Job) -> str:
        """The name under which a job's network is kept: everything that it depends on."""
        import torch

        study, size = self.study, self.study.size
        trained = key_of(
            "trained", torch.__version__, source_digest(*_TRAINED_BY), study.x[: size.train], study.y[: size.train],
            repr(study.widths), repr(size.epochs), repr(job.seed),
        )  # fmt: skip
        if job.method == BASE:
            return trained
        request = self.request(job)
        parts: list[str | bytes | npt.NDArray[np.generic]] = [
            "unlearned", trained, job.method, request.forget, request.retain, repr(request.classes),
        ]  # fmt: skip
        if job.method not in _OWN_TRAINING:
            parts += [source_digest(*_PATCHED_BY), repr((study.model, study.narrow, study.learned_radii))]
        if job.method == "non-member" and self.margins is not None:
            parts.append(self.margins)
        if job.method == "non-member, held out":
            others = study.rows("population")
            parts += [others.x, others.y]
        return key_of(*parts)

    def made(self, job: Job) -> Made:
        """The network of a job, made in this process where it is not kept."""
        return Made(*outcome_of(self.store.made(self.key(job), lambda: self._make(job))))

    def logits(self, job: Job) -> Floats:
        """What the network of a job answers on all rows of the study: float32 [rows, labels]; made and kept."""
        study = self.study

        def make() -> bytes:
            return logits_of(self.made(job).outcome.onnx, study.x).tobytes()

        found = self.store.made(key_of("logits", self.key(job)), make)
        return np.frombuffer(found, dtype=np.float32).reshape(-1, study.labels)

    def _make(self, job: Job) -> bytes:
        import torch

        from prune_verify.measure.unlearners import UNLEARNERS
        from prune_verify.repair.errors import RepairError

        torch.set_num_threads(1)
        if job.method == BASE:
            return self._trained(job.seed)
        study, request = self.study, self.request(job)
        base = b"" if job.method in _OWN_TRAINING else self.made(Job(BASE, job.seed)).outcome.onnx
        forget, retain = study.rows(request.forget), study.rows(request.retain)
        context = self._context(base, request, job)
        before = _reset_peak()
        start = time.monotonic()
        try:
            found = UNLEARNERS[job.method](base, forget, retain, context)
        except (RepairError, UnlearnerError) as error:
            found = Outcome(b"", time.monotonic() - start, len(forget.y), str(error))
        return outcome_bytes(found, _peak_since(before))

    def _trained(self, seed: int) -> bytes:
        from prune_verify.measure.baselines import retrain
        from prune_verify.measure.training import export_onnx

        study, before = self.study, _reset_peak()
        found = retrain(self._untrained(), study.rows("train"), epochs=study.size.epochs, seed=seed)
        peak, onnx = _peak_since(before), export_onnx(found.network, study.x[:1])
        return outcome_bytes(Outcome(onnx, found.seconds, 0), peak)

    def _untrained(self) -> Callable[[], nn.Sequential]:
        from prune_verify.measure.training import small_mlp

        return lambda: small_mlp(self.study.widths)

    def _context(self, base: bytes, request: Request, job: Job) -> Context:
        import hashlib

        from prune_verify.checker.claim import LabelledRows
        from prune_verify.repair.redirect import OutMargins

        study, make = self.study, self._untrained()
        network = make()
        if base:
            _load_weights(network, base)
        others = study.rows("population")
        margins = None
        if self.margins is not None and job.level == "records":
            columns = self.margins[:, : len(request.forget)].T
            margins = OutMargins(tuple(column[~np.isnan(column)] for column in columns), per_record=True)
        return Context(
            network.eval(),
            make,
            study.size.epochs,
            job.seed,
            study.model,
            narrow=study.narrow,
            learned_radii=study.learned_radii,
            out_margins=margins,
            held_out=LabelledRows(others.x, others.y),
            classes=request.classes,
            key=hashlib.sha256(f"release {job.seed}".encode()).digest(),
        )

    def run(self, jobs: Sequence[Job], workers: int) -> Iterable[Job]:
        """Make what is missing, in fresh processes; each job as it is done.

        Args:
            jobs: with bases before what is made of them.
            workers: processes at a time.

        Returns:
            Each job as it is done.

        """
        missing = [jobs[place] for place in self.store.missing([self.key(job) for job in jobs])]
        yield from (job for job in jobs if job not in set(missing))
        if not missing:
            return
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["prune_verify.bench.unlearning_preload"])
        with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
            for stage in (True, False):  # bases first
                waiting = {pool.submit(_done, self, job): job for job in missing if (job.method == BASE) == stage}
                try:
                    for future in as_completed(waiting):
                        future.result()
                        yield waiting[future]
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise


def _done(jobs: Jobs, job: Job) -> None:
    """A job, in a process of its own."""
    if not jobs.made(job).failed:
        jobs.logits(job)


def _load_weights(network: nn.Sequential, onnx: bytes) -> None:
    """Give layers the weights of an exported network of the same layers."""
    import torch

    from prune_verify.checker.load_onnx import load_network

    nodes = [node for node in load_network(onnx, "base.onnx").network.nodes if node.op == "Linear"]
    layers = [layer for layer in network if hasattr(layer, "weight")]
    with torch.no_grad():
        for layer, node in zip(layers, nodes, strict=True):
            for name, parameter in layer.named_parameters():
                parameter.copy_(torch.from_numpy(node.arrays[name].copy()))


def logits_of(onnx: bytes, rows: Floats) -> Floats:
    """What onnxruntime answers for a file (``onnx``) on rows [rows, *input_shape], on one thread: [rows, labels]."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]
    return np.concatenate([session.run(None, {name: part})[0] for part in parts])


def _status(what: str) -> float | None:
    """A line of what Linux says of this process, in MB."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{what}:")]
    return int(found[0]) * 1024 / _MEGA if found else None


def _reset_peak() -> float | None:
    """Forget the peak of memory so far; how much is held now, or None where the system has no such thing."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM
    except OSError:
        return None
    return _status("VmRSS")


def _peak_since(before: float | None) -> float | None:
    peak = _status("VmHWM")
    return None if before is None or peak is None else max(0.0, peak - before)
