"""``prune-verify bench repair``: what each family of patches is worth, beside retraining, REASSURE and other baselines.

Everything is measured on the files that a user would deploy, through onnxruntime; what is proved comes from the
verdict of ``verify``. Times that are compared are of one run on one machine. Digits always, MNIST from the folder that
``--data`` names, and records of one's own (``--train``, ``--test``).

Source: MATHS 7 (figures to beat).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prune_verify.bench.chain import BenchError, Chain, Task, UnmetError, answers_of, timed
from prune_verify.bench.own_data import OwnData
from prune_verify.bench.repair_families import baselines, copies, dense, families, told
from prune_verify.bench.repair_rows import SEED, Bench, Cells, Say, measured, proved
from prune_verify.bench.tables import aligned, csv_bytes

if TYPE_CHECKING:
    from prune_verify.measure.datasets import DataSet

__all__ = ["run_bench_repair"]

_TABLE = ("--radius", "0.002", "--retained-radius", "0.001")  # 0.1 of a column holds hundreds of people
Section = Callable[[Bench, Chain, Say], Iterable[Cells]]


def _records(bench: Bench, chain: Chain, say: Say) -> Iterator[Cells]:
    """Forgetting records: family box at the input, for more and more records, beside retraining once."""
    for count in bench.counts:
        say(f"{bench.task.name}: {count} records")
        sets = bench.split(count)
        links = chain.run(f"{bench.task.name}-records-{count}", bench.task, sets, bench.task.options)
        yield {
            "data": bench.task.name,
            "records": count,
            "s per request": round(float(links.repaired["secondsPerRequest"]), 4),
            "wall s": round(links.repair.seconds, 1),
            "retrain s": round(bench.seconds, 1),
            "forget proved": proved(links, "forget"),
            "bit-identical proved": proved(links, "retain_exact"),
            **measured(bench, links, sets["forget"]),
        }


def _classes(bench: Bench, chain: Chain, say: Say) -> Iterator[Cells]:
    """Forgetting a class: by a cap for all inputs, and by a learned patch from a sample of its members."""
    label = bench.forgotten_class
    say(f"{bench.task.name}: class {label}")
    links = chain.run(f"{bench.task.name}-class", bench.task, {}, ("--forget-class", str(label)))
    for_all = all(c["proved"] == c["total"] for c in links.claims if c["kind"] == "forget_class")
    seconds = round(links.repair.seconds, 1)
    yield _class_row(
        bench, links.folder, "class-cap", {"all inputs proved": for_all, "s": seconds, "verdict": links.ended}
    )
    of = np.flatnonzero(bench.task.y == label)
    others = np.flatnonzero(bench.task.y != label)
    folder = chain.folder / f"{bench.task.name}-concept"
    options = (
        *("--family", "learned", "--concept", "--margin", "0.5"),
        *("--radius", "0.02", "--retained-radius", "0.01"),
    )
    try:
        found, spent = chain.repair_only(folder, bench.task, {"forget": of, "retain": others}, options)
    except UnmetError as error:
        yield {
            "data": bench.task.name,
            "class": label,
            "family": "learned",
            "verdict": f"repair, exit 3: {error}"[:200],
        }
        return
    yield _class_row(
        bench,
        folder,
        "learned",
        {"all inputs proved": False, "s": round(spent.seconds, 1), "verdict": "; ".join(found["notes"])},
    )


def _class_row(bench: Bench, folder: Path, family: str, more: Cells) -> Cells:
    task = bench.task
    before, after = (answers_of(folder / name, task.test_x).argmax(axis=1) for name in ("base.onnx", "patched.onnx"))
    of = task.test_y == bench.forgotten_class
    return {
        "data": task.name,
        "class": bench.forgotten_class,
        "family": family,
        "recognised before %": round(100 * float((before[of] == bench.forgotten_class).mean()), 2),
        "after %": round(100 * float((after[of] == bench.forgotten_class).mean()), 2),
        "others before %": round(100 * float((before == task.test_y)[~of].mean()), 2),
        "others after %": round(100 * float((after == task.test_y)[~of].mean()), 2),
        **more,
    }


def _unmet(error: UnmetError) -> str:
    return f"repair, exit 3: {error}"[:200]


def _streams(bench: Bench, chain: Chain, say: Say) -> Iterator[Cells]:
    """Requests of one record each onto more and more earlier ones: what the next one costs."""
    order = np.random.default_rng(SEED).permutation(len(bench.task.y))
    most = bench.counts[-1]
    folder = chain.folder / f"{bench.task.name}-stream"
    folder.mkdir()
    base, retain = folder / "base.onnx", folder / "retain.npz"
    base.write_bytes(bench.task.base)
    np.savez(retain, x=bench.task.x[order[most:]], y=bench.task.y[order[most:]])
    live, before = 0, ["--stream"]
    for upto in (9, most // 2 - 1, most - 1):
        for count in (max(1, upto - live), 1):
            say(f"{bench.task.name}: {count} more requests onto {live}")
            new, out = folder / f"{live}.npz", folder / f"out-{live + count}"
            rows = order[live : live + count]
            np.savez(new, x=bench.task.x[rows], y=bench.task.y[rows])
            words: list[str | Path] = [
                "repair",
                base,
                *before,
                "--reference",
                f"R{live}",
                "--forget",
                new,
                "--retain",
                retain,
            ]
            cost, code, said = timed([*words, "--out", out, "--json"])
            if code:
                message = f"repair --onto ended with {code}: {said[:400]}"
                raise BenchError(message)
            live, before, found = live + count, ["--onto", str(out)], json.loads(said)
            if count == 1:
                yield {
                    "data": bench.task.name,
                    "request": live,
                    "gates s": round(float(found["gateSeconds"]), 4),
                    "wall s": round(cost.seconds, 1),
                    "MiB": round(cost.mebibytes),
                    "bytes of patches %": round(100 * float(found["growth"]["patch_share"]), 2),
                    "latency x": round(float(found["growth"]["latency_factor"]), 2),
                    "time to retrain": found["timeToRetrain"],
                }


_SECTIONS: dict[str, Section] = {
    "records": _records,
    "classes": _classes,
    "streams": _streams,
    "one point: REASSURE and ours": dense,
    "copies": copies,
    "families": families,
    "disclosure": told,
    "baselines": baselines,
}


@dataclass(frozen=True)
class _Size:
    """How large the runs on a data set are; see :class:`Bench`."""

    widths: tuple[int, ...]
    epochs: int
    counts: tuple[int, ...]
    few: int
    image: tuple[int, int] | None
    options: tuple[str, ...] = ()
    radii: tuple[str, str] = ("0.004", "0.002")


def _bench(name: str, data: DataSet, size: _Size, say: Say) -> Bench:
    """Train a network on a data set."""
    from prune_verify.measure.baselines import Rows, retrain
    from prune_verify.measure.training import export_onnx, small_mlp, train

    say(f"training on {name}")
    network = train(lambda: small_mlp(size.widths), data, epochs=size.epochs, seed=SEED)
    again = retrain(lambda: small_mlp(size.widths), Rows(data.train_x, data.train_y), epochs=size.epochs, seed=SEED)
    sets = data.train_x, data.train_y, data.test_x, data.test_y
    task = Task(name, export_onnx(network, data.train_x), *sets, size.options)
    return Bench(
        task,
        network,
        data,
        lambda: small_mlp(size.widths),
        size.epochs,
        again.seconds,
        size.counts,
        min(5, int(data.train_y.max())),
        size.image,
        size.few,
        size.radii,
    )


def _benches(data: Path | None, own: OwnData | None, say: Say, *, quick: bool) -> Iterator[Bench]:
    """Digits, MNIST from a folder, and records of one's own."""
    from prune_verify.measure.datasets import digits, mnist

    yield _bench("digits", digits(), _Size((64, 64, 32, 10), 60, (5, 20, 80), 20, (8, 8), radii=("0.02", "0.01")), say)
    if data is not None:
        counts = (100,) if quick else (100, 200, 300, 500, 1000)
        size = _Size((784, 256, 256, 10), 4, counts, 5 if quick else 20, (28, 28))
        yield _bench("mnist", mnist(data / "mnist"), size, say)
    if own is not None:
        found, image = own.load()
        widths = (found.train_x.shape[1], 64, 32, int(max(found.train_y.max(), found.test_y.max())) + 1)
        size = _Size(widths, 20, (5, 20), 5, image, _TABLE if own.table else ())
        yield _bench(found.name, found, size, say)


def _written(out: Path, tables: dict[str, list[Cells]]) -> None:
    """A CSV for each table, and all of them as JSON."""
    for name, rows in tables.items():
        (out / f"repair_{name.split(':')[0].replace(' ', '_')}.csv").write_bytes(csv_bytes(rows))
    (out / "repair.json").write_text(json.dumps(tables, indent=1))


def run_bench_repair(
    data: Path | None, own: OwnData | None = None, *, quick: bool, out: Path | None, say: Say
) -> tuple[int, str, dict[str, object]]:
    """Measure every family, and what it is compared with.

    Args:
        data: folder with mnist/; without MNIST when None.
        own: further records, with values in [0, 1].
        quick: fewer records.
        out: where tables and plots go; only printed when None.
        say: sink for progress lines.

    Returns:
        Exit code, tables, and the object for ``--json``.

    Raises:
        BenchError: a verb failed.

    """
    tables: dict[str, list[Cells]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        chain = Chain(Path(temporary))
        for bench in _benches(data, own, say, quick=quick):
            for name, section in _SECTIONS.items():
                for row in section(bench, chain, say):
                    tables.setdefault(name, []).append(row)
    lines = [f"repair on {os.cpu_count()} cores; every verb a process of its own, start-up included in wall seconds"]
    for name, rows in tables.items():
        lines += ["", name, *aligned(rows)]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        _written(out, tables)
        from prune_verify.bench.plots import draw

        lines += ["", *draw(tables, out)]
    return 0, "\n".join(lines), {"tables": tables}
