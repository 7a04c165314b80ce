"""``prune-verify bench unlearning``: every way to forget beside genuine retraining, under attacks in both directions.

Networks that know their training rows by heart, records drawn at random from them, and attackers with shadow networks
of their own. Everything here is measured, nothing proved. What is dear is kept by content (``--cache``), so that a run
that was ended goes on.

Source: MATHS 6; Carlini et al., arXiv 2112.03570; Hayes et al., Inexact unlearning needs more careful evaluations,
arXiv 2403.01218 (ensembles); Georgiev et al., arXiv 2410.23232 (KLoM).
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from prune_verify.bench.tables import aligned, csv_bytes
from prune_verify.bench.unlearning_attacks import Attacker, Shadows
from prune_verify.bench.unlearning_ensembles import NAMES
from prune_verify.bench.unlearning_jobs import BASE, Job, Jobs
from prune_verify.bench.unlearning_relearning import COLUMN
from prune_verify.bench.unlearning_rows import (
    CLASS_METHODS,
    METHODS,
    RETRAIN,
    Cells,
    Rows,
    control_seeds,
    retrain_seeds,
)
from prune_verify.bench.unlearning_sizes import SEED, Size, Study, sizes, studies
from prune_verify.bench.unlearning_store import Store
from prune_verify.bench.unlearning_words import sentences
from prune_verify.files import replace_file

__all__ = ["run_bench_unlearning", "study_tables"]

Say = Callable[[str], None]
_ATTACKER, _OWNER = 10_000, 20_000  # first seeds of their shadow networks
_ANSWERS = (
    "method", "records", "forget accuracy %", "retain accuracy %", "test accuracy %", COLUMN, "bits per record", "s",
    "file MB", "peak MB", "note",
)  # fmt: skip
_ONE_SIDED = (
    "method", "LiRA TPR at 0.1 % FPR", "LiRA TPR at 1 % FPR", "LiRA AUC", "RMIA AUC",
)  # fmt: skip
_TWO_SIDED = (
    "method", "unlike a non-member TPR at 0.1 % FPR", "unlike a non-member TPR at 1 % FPR", "unlike a non-member AUC",
    "unlike, all logits AUC", "two versions AUC",
)  # fmt: skip


_TOGETHER = ("method", "networks", "LiRA AUC, mean", "unlike a non-member AUC, mean", *NAMES)


@dataclass(frozen=True, eq=False)
class Tables:
    """What was found on one data set.

    Args:
        study: the records and sizes.
        rows: with what attacks found, for pictures.
        records: the table about records.
        classes: the table about a class.
        said: sentences.
        seconds: of this run; less where parts were kept from earlier ones.

    """

    study: Study
    rows: Rows
    records: list[Cells]
    classes: list[Cells]
    said: list[str]
    seconds: float

    def lines(self) -> list[str]:
        """The tables in columns, with the sentences after them."""
        name, size = self.study.name, self.study.size
        blocks = (
            ("answers and cost", _ANSWERS),
            ("still remembered?", _ONE_SIDED),
            ("conspicuous?", _TWO_SIDED),
            ("ensembles beside retrained ones", _TOGETHER),
        )
        found = [f"{name}: {size.text()}"]
        for title, columns in blocks:
            found += ["", f"{name}, records: {title}", *aligned(self.records, columns)]
        found += ["", f"{name}, class {self.study.forgotten_class}", *aligned(self.classes)]
        return [*found, "", *self.said]


def _shadows(study: Study, seed: int, count: int, store: Store, workers: int, say: Say) -> Shadows:
    """Networks trained on halves of the pool, kept by content."""
    import numpy as np
    import torch

    from prune_verify.measure.baselines import Rows as Records
    from prune_verify.measure.shadow_training import Recipe, half_splits, train_many
    from prune_verify.measure.training import export_onnx, small_mlp

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        recipe = Recipe(export_onnx(small_mlp(study.widths), study.x[:1]), study.size.epochs)
    pool = study.part("pool")
    inside = half_splits(pool.stop, count, seed)
    rows = Records(study.x[pool], study.y[pool])
    logits = train_many(
        recipe, rows, inside, range(seed, seed + count), study.x, cache=store.folder / "shadows", workers=workers,
        progress=_every_tenth(say),
    )  # fmt: skip
    nowhere = np.zeros((count, len(study.y) - pool.stop), dtype=np.bool_)
    return Shadows(logits, np.concatenate([inside, nowhere], axis=1))


def _every_tenth(say: Say) -> Callable[[str, int, int], None]:
    def progress(what: str, done: int, total: int) -> None:
        if done % max(1, total // 10) == 0:
            say(f"{what}: {done} of {total}")

    return progress


def _wanted(size: Size) -> tuple[list[Job], list[Job]]:
    """Jobs whose cost is reported, one at a time, and those of ensembles."""
    reported = [Job(BASE, 0), *(Job(RETRAIN, seed) for seed in control_seeds(size.retrained))]
    reported += [Job(method, 0) for method in METHODS]
    reported += [Job(method, 0, "class") for method in CLASS_METHODS]
    seeds = range(size.ensemble)
    together = [Job(BASE, seed) for seed in seeds]
    together += [Job(method, seed) for method in size.ensembles for seed in seeds]
    together += [Job(RETRAIN, seed) for seed in (*retrain_seeds(size.ensemble), *control_seeds(size.ensemble))]
    return reported, together


def study_tables(study: Study, store: Store, *, workers: int, say: Say) -> Tables:
    """Everything about one data set.

    Args:
        study: records and sizes.
        store: where what is dear is kept.
        workers: processes.
        say: sink for progress lines.

    """
    start, size = time.monotonic(), study.size
    say(f"{study.name}: {size.text()}")
    say(f"{study.name}: the attacker's networks")
    theirs = _shadows(study, _ATTACKER, size.shadows, store, workers, say)
    say(f"{study.name}: the owner's networks")
    own = _shadows(study, _OWNER, size.owner_shadows, store, workers, say)
    jobs = Jobs(study, store, own.out_margins(study))
    reported, together = _wanted(size)
    for some, processes in ((reported, 1), (together, workers)):
        for place, job in enumerate(jobs.run(some, processes)):
            say(f"{study.name}: {place + 1} of {len(some)}: {job.method}, seed {job.seed}, {job.level}")
    rows = Rows(jobs, Attacker(study, theirs))
    if size.ensemble:
        for method in size.ensembles:
            rows.attack_ensemble(method, range(size.ensemble), say)
        rows.attack_ensemble(RETRAIN, control_seeds(size.ensemble), say)
    records, classes = list(rows.records(say)), list(rows.classes(say))
    return Tables(study, rows, records, classes, sentences(rows), time.monotonic() - start)


@contextmanager
def _store(cache: Path | None) -> Iterator[Store]:
    if cache is not None:
        yield Store(cache)
        return
    with tempfile.TemporaryDirectory(prefix="prune-verify-bench-") as folder:
        yield Store(Path(folder))


def _machine() -> dict[str, object]:
    import onnxruntime
    import torch

    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _written(out: Path, found: Sequence[Tables], facts: dict[str, object]) -> list[str]:
    """Tables as csv, sizes and sentences as JSON, pictures; lines that say what was written."""
    out.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {}
    for one in found:
        files[f"unlearning_{one.study.name}.csv"] = csv_bytes(one.records)
        files[f"unlearning_{one.study.name}_class.csv"] = csv_bytes(one.classes)
    files["unlearning.json"] = json.dumps(facts, indent=1).encode() + b"\n"
    for name, content in files.items():
        replace_file(out / name, content)
    from prune_verify.bench.unlearning_plots import draw

    return [f"wrote {out / name}" for name in files] + draw([(one.study.name, one.rows.attacked) for one in found], out)


def run_bench_unlearning(
    data: Path | None, *, full: bool, out: Path | None, cache: Path | None, say: Say
) -> tuple[int, str, dict[str, object]]:
    """Measure every way to forget on every data set.

    Args:
        data: folder with mnist/ and adult/; digits only when None.
        full: the large sizes instead of the quick ones.
        out: where tables and pictures go; only printed when None.
        cache: where networks are kept between runs; nowhere when None.
        say: sink for progress lines.

    Returns:
        Exit code, tables, and the object for ``--json``.

    Raises:
        BenchError: too few records.

    """
    workers = min(2, os.cpu_count() or 1)
    by_name = sizes(quick=not full)
    lines = [f"unlearning on {os.cpu_count()} cores, {workers} processes, seed {SEED}"]
    found = []
    with _store(cache) as store:
        for study in studies(data, by_name):
            found.append(study_tables(study, store, workers=workers, say=say))
            lines += ["", *found[-1].lines()]
    facts: dict[str, object] = {
        "command": "prune-verify bench unlearning " + ("--full" if full else "--quick"),
        "machine": _machine(),
        "seed": SEED,
        "sizes": {one.study.name: asdict(one.study.size) for one in found},
        "seconds": {one.study.name: round(one.seconds, 1) for one in found},
        "sentences": {one.study.name: one.said for one in found},
    }
    if out is not None:
        lines += ["", *_written(out, found, facts)]
    tables = {one.study.name: {"records": one.records, "class": one.classes} for one in found}
    return 0, "\n".join(lines), {**facts, "tables": tables}
