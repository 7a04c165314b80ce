"""Many networks of one architecture, each trained on its own part of the records: shadow networks, retrains, ensembles.

Each network is a job of its own, done here or in other processes with one thread of arithmetic, and kept by content:
a run that was ended goes on with those that are missing. What a network is depends on its recipe, its records, its
seed, the version of PyTorch and the kind of device, never on how many workers there are; equal jobs give equal bytes
on one machine. Trained on a GPU instead, logits differ in their last digits, and training enlarges the differences.

Source: Carlini et al., Membership inference attacks from first principles, arXiv 2112.03570, section 4 (shadow models,
each record in half of them).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from prune_verify.certify.jobs import Job, Result, content_key, run_jobs
from prune_verify.checker.load_onnx import load_network
from prune_verify.measure.architecture import TrainableNetwork, untrained
from prune_verify.measure.baselines import Rows
from prune_verify.measure.errors import MeasureInputError
from prune_verify.measure.training import export_onnx, passes

__all__ = [
    "Networks",
    "Recipe",
    "TrainedMany",
    "half_splits",
    "train_bases",
    "train_many",
    "train_one",
    "train_with_accuracy",
]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Device = Literal["cpu", "auto"]
Progress = Callable[[str, int, int], None]
_NAME = "base.onnx"
_FORMAT = b"prune-verify trained network 1"
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: Adam and cross-entropy, from PyTorch's first weights.

    Args:
        base: bytes of an ONNX network of the architecture; its weights do not matter.
        epochs: passes over the network's records.
        batch: records per step.
        rate: Adam's learning rate.
        weight_decay: its L2 penalty.
        device: ``auto`` trains on a GPU where there is one.

    Raises:
        MeasureInputError: a number that is not positive, or a negative penalty.

    """

    base: bytes
    epochs: int
    batch: int = 128
    rate: float = 1e-3
    weight_decay: float = 0.0
    device: Device = "cpu"

    def __post_init__(self) -> None:
        for what in ("epochs", "batch", "rate"):
            if not getattr(self, what) > 0:
                raise MeasureInputError(f"recipe: {what}: expected a positive number, found {getattr(self, what)}")
        if not self.weight_decay >= 0:
            raise MeasureInputError(f"recipe: weight decay: expected 0 or more, found {self.weight_decay}")

    @property
    def key(self) -> bytes:
        """Everything that a result depends on here."""
        numbers = struct.pack("<QQdd", self.epochs, self.batch, self.rate, self.weight_decay)
        return hashlib.sha256(self.base).digest() + numbers + self.kind.encode()

    @property
    def kind(self) -> str:
        """Where it is trained: ``cuda`` where that is wished and there is one, else ``cpu``."""
        return "cuda" if self.device == "auto" and torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, eq=False)
class TrainedMany:
    """What is kept of networks.

    Args:
        logits: float32 [networks, queries, labels].
        accuracy: float64 [networks], share of a network's own training records that it answers with their label.

    """

    logits: Floats
    accuracy: Doubles


@dataclass(frozen=True, eq=False)
class Networks:
    """Networks to be trained.

    Args:
        recipe: how each is trained.
        rows: all records.
        memberships: bool [networks, rows], the part of each network.
        seeds: of first weights and order, one per network.
        what: they are, for progress and errors.

    Raises:
        MeasureInputError: arrays that do not fit one another or the network, or a network without records.
        UnsupportedNetworkError: the architecture has no form here.

    """

    recipe: Recipe
    rows: Rows
    memberships: Bools
    seeds: tuple[int, ...]
    what: str = "shadow networks"

    def __post_init__(self) -> None:
        memberships, labels = self.memberships, self.rows.y
        if memberships.dtype != np.bool_ or memberships.shape != (len(self.seeds), len(labels)) or not self.seeds:
            expected = f"truth values {(len(self.seeds), len(labels))}, a row for each seed"
            text = f"{self.what}: memberships: expected {expected}, found {memberships.dtype} {memberships.shape}"
            raise MeasureInputError(text)
        for place in np.flatnonzero(~memberships.any(axis=1))[:1]:
            text = f"{self.what}: network {place}: expected records to train it on, found none"
            raise MeasureInputError(text)
        untrained(self.recipe.base, _NAME, 0)  # refuses before hours of work
        network = load_network(self.recipe.base, _NAME).network
        shape = (len(labels), *network.input_shape)
        if self.rows.x.shape != shape:
            raise MeasureInputError(f"{self.what}: rows: expected shape {shape}, found {self.rows.x.shape}")
        if labels.min() < 0 or labels.max() >= network.labels:
            text = f"labels from 0 to {network.labels - 1}, found {labels.min()} to {labels.max()}"
            raise MeasureInputError(f"{self.what}: rows: expected {text}")


def half_splits(rows: int, shadows: int, seed: int) -> Bools:
    """Memberships [shadows, rows], each record in exactly half of the shadows, drawn for each record by itself.

    Args:
        rows: number of records.
        shadows: number of shadow networks, even.
        seed: of the draw.

    Raises:
        MeasureInputError: an odd number of shadows, or none.

    Source: arXiv 2112.03570, section 4.

    """
    if shadows < 2 or shadows % 2:  # noqa: PLR2004 - one with and one without
        raise MeasureInputError(f"shadows: expected an even number from 2, found {shadows}")
    drawn = np.random.default_rng(seed).random((shadows, rows))
    return np.asarray(drawn.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable") < shadows // 2)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of arithmetic: sums are added up in an order that no machine's core count changes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def epochs_of(recipe: Recipe, rows: Rows, member: Bools, seed: int) -> Iterator[tuple[TrainableNetwork, Rows]]:
    """The network in training after each epoch, and the rows that it is trained on.

    Args:
        recipe: how.
        rows: records of which it gets its part.
        member: bool [rows], its part.
        seed: of first weights and order.

    """
    own = Rows(rows.x[member], rows.y[member])
    network = untrained(recipe.base, _NAME, seed).to(recipe.kind).train()
    x, y = (tensor.to(recipe.kind) for tensor in own.tensors())
    order = torch.Generator().manual_seed(seed)
    for _ in passes(
        network,
        (x, y),
        epochs=recipe.epochs,
        batch=recipe.batch,
        rate=recipe.rate,
        weight_decay=recipe.weight_decay,
        generator=order,
        fused=True,
    ):
        yield network, own


def train_one(recipe: Recipe, rows: Rows, member: Bools, seed: int) -> TrainableNetwork:
    """One network as :func:`train_many` trains it, in this process.

    Args:
        recipe: how.
        rows: records of which it gets its part.
        member: bool [rows], its part.
        seed: of first weights and order.

    """
    Networks(recipe, rows, member[None], (seed,))
    with one_thread():
        *_, (network, _) = epochs_of(recipe, rows, member, seed)
    return network.cpu().eval()


def logits_of(network: TrainableNetwork, rows: Floats) -> Floats:
    """Logits float32 [rows, labels] of a network, where it is."""
    kind = next(network.parameters()).device
    parts = []
    with torch.no_grad():
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = torch.from_numpy(np.array(rows[start : start + _ROWS_AT_ONCE])).to(kind)
            parts.append(network(part).cpu().numpy())
    return np.concatenate(parts)


# --- jobs ---


@dataclass(frozen=True)
class _Task:
    """One network to train; the arrays that all tasks share are in files.

    Args:
        recipe: how.
        folder: of ``x.npy``, ``y.npy`` and ``queries.npy``.
        member: the packed bits of its part.
        seed: of first weights and order.
        whole: keep the network itself in ONNX instead of its logits.

    """

    recipe: Recipe
    folder: str
    member: bytes
    seed: int
    whole: bool


def _trained(task: _Task) -> Result:
    """Train one network; the worker's side: its accuracy, then its logits or its file."""
    x, y, queries = (np.load(Path(task.folder) / f"{name}.npy", mmap_mode="r") for name in ("x", "y", "queries"))
    member = np.unpackbits(np.frombuffer(task.member, np.uint8), count=len(y)).astype(np.bool_)
    with one_thread():
        *_, (network, own) = epochs_of(task.recipe, Rows(x, y), member, task.seed)
        network.eval()
        right = float((logits_of(network, own.x).argmax(axis=1) == own.y).mean())
        kept = export_onnx(network.cpu(), own.x) if task.whole else logits_of(network, queries).tobytes()
    return Result(struct.pack("<d", right) + kept, final=True)


def _results(
    networks: Networks, queries: Floats, cache: Path | None, workers: int, progress: Progress, *, whole: bool
) -> Iterator[bytes]:
    """What is kept of each network, in order."""
    recipe, rows, what = networks.recipe, networks.rows, networks.what
    if queries.shape[1:] != rows.x.shape[1:] or not len(queries):
        raise MeasureInputError(f"queries: expected rows of shape {rows.x.shape[1:]}, found {queries.shape}")
    arrays: tuple[tuple[str, Floats | Labels], ...] = (
        ("x", np.asarray(rows.x, np.float32)),
        ("y", np.asarray(rows.y, np.int64)),
        ("queries", np.asarray(queries, np.float32)),
    )
    digests = [hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest() for _, array in arrays]
    said = f"{rows.x.shape} {torch.__version__} {'whole' if whole else 'logits'}".encode()
    with TemporaryDirectory(prefix="prune-verify-") as folder:
        for name, array in arrays:
            np.save(Path(folder) / f"{name}.npy", array)
        packed = [np.packbits(member).tobytes() for member in networks.memberships]
        jobs = (
            Job(
                content_key(_FORMAT, recipe.key, *digests, said, member, struct.pack("<q", seed)),
                _Task(recipe, folder, member, seed, whole),
            )
            for member, seed in zip(packed, networks.seeds, strict=True)
        )
        found = run_jobs(
            jobs,
            _trained,
            workers=workers,
            cache=cache,
            progress=lambda done, total: progress(what, done, total),
            total=len(packed),
        )
        for place, result in enumerate(found):
            if not result.data:
                text = f"{what}: network {place}: its process died; fewer workers need less memory"
                raise MeasureInputError(text)
            yield result.data


def _silent(_name: str, _done: int, _total: int) -> None:
    """Show nothing."""


def train_with_accuracy(
    networks: Networks, queries: Floats, *, cache: Path | None = None, workers: int = 1, progress: Progress = _silent
) -> TrainedMany:
    """Train each network on its part of the records, and keep what it answers on the queries.

    Args:
        networks: to be trained.
        queries: float32 [queries, *input_shape].
        cache: folder of what was found, by content; a run that was ended goes on from it.
        workers: processes.
        progress: called with what is trained, and the number of networks that are done and in all.

    Raises:
        MeasureInputError: queries of another shape, or a process that died.
        CertifyError: the cache cannot be written, or workers cannot be had.

    """
    found = list(_results(networks, queries, cache, workers, progress, whole=False))
    logits = np.stack([np.frombuffer(data[8:], np.float32).reshape(len(queries), -1) for data in found])
    return TrainedMany(logits, np.array([struct.unpack("<d", data[:8])[0] for data in found]))


def train_many(
    recipe: Recipe,
    rows: Rows,
    memberships: Bools,
    seeds: Sequence[int],
    queries: Floats,
    *,
    cache: Path | None = None,
    workers: int = 1,
    progress: Progress = _silent,
) -> Floats:
    """Logits float32 [networks, queries, labels] of networks, each trained on its part of the records.

    Args and errors are those of :class:`Networks` and :func:`train_with_accuracy`.

    Args:
        memberships: bool [networks, rows].
        seeds: one for each network.
        queries: float32 [queries, *input_shape].
        cache: folder for logits, by content; or None.
        workers: processes.
        recipe: how each is trained.
        rows: all records.
        progress: called with a name, steps done and steps in all.

    """
    networks = Networks(recipe, rows, memberships, tuple(seeds))
    return train_with_accuracy(networks, queries, cache=cache, workers=workers, progress=progress).logits


def train_bases(
    networks: Networks, *, cache: Path | None = None, workers: int = 1, progress: Progress = _silent
) -> list[bytes]:
    """The same networks as ONNX files, to unlearn from; arguments (cache, workers) of :func:`train_with_accuracy`."""
    found = _results(networks, networks.rows.x[:1], cache, workers, progress, whole=True)
    return [data[8:] for data in found]
