"""The tables of ``bench repair`` that compare: one point with REASSURE, copies, families, disclosure, baselines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from prune_verify.bench.chain import Chain, UnmetError, accuracy_of, answers_of
from prune_verify.bench.repair_rows import SEED, Bench, Cells, Labels, Say, measured, proved
from prune_verify.checker.claim import LabelledRows
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.patch_json import parse_patch
from prune_verify.checker.region import Domain

if TYPE_CHECKING:
    from prune_verify.measure.baselines import Unlearned
    from prune_verify.repair.threat_model import ThreatModel

__all__ = ["baselines", "copies", "dense", "families", "told"]

Options = tuple[str | Path, ...]
_POINTS = 5
_TRIES = 3  # of each; the quickest counts, since other work on a machine only adds to it
_SOME_RETAINED = 2000
_SMALLEST = Fraction(1, 10**6)


def _rows(bench: Bench, rows: Labels) -> LabelledRows:
    return LabelledRows(bench.task.x[rows], bench.task.y[rows])


def _model(radius: Fraction | str, retained: Fraction | str) -> ThreatModel:
    from prune_verify.repair.threat_model import ThreatModel

    return ThreatModel(Domain((Fraction(0),), (Fraction(1),)), Fraction(radius), Fraction(retained))


def _asked(bench: Bench) -> tuple[str, str]:
    """Forget and retained radius of gates at the input."""
    asked = bench.task.options
    return (asked[1], asked[3]) if asked else ("0.1", "0.05")


def dense(bench: Bench, _chain: Chain, say: Say) -> Iterator[Cells]:
    """The same points by REASSURE and by us, one at a time, all other records retained; the best of three runs each."""
    from prune_verify.measure.reassure import dense_patch
    from prune_verify.repair.engine import repair_box
    from prune_verify.repair.export import export_patched

    base = load_network(bench.task.base, "base.onnx")
    parameters = sum(value.numel() for value in bench.network.parameters())
    retain = _rows(bench, bench.split(_POINTS)["retain"])
    ratios, shares = [], []
    for row in bench.split(_POINTS)["forget"]:
        say(f"{bench.task.name}: record {row} by REASSURE and by us")
        x, label = bench.task.x[row], int(bench.task.y[row])
        target = int(np.argsort(np.where(np.arange(base.network.labels) == label, -np.inf, _logits(bench, row)))[-1])
        one = LabelledRows(x[np.newaxis], bench.task.y[row : row + 1])
        theirs = min(
            (dense_patch(bench.network, x.reshape(-1), target, margin=0.1) for _ in range(_TRIES)),
            key=lambda found: found.seconds,
        )
        spent = []
        for _ in range(_TRIES):
            start = time.monotonic()
            ours = repair_box(base.network, one, retain, _model(*_asked(bench)))
            spent.append(time.monotonic() - start)
        seconds = min(spent)
        added = len(export_patched(bench.task.base, base, ours.patch)) - len(bench.task.base)
        ratios.append(theirs.seconds / seconds)
        shares.append((theirs.parameters / parameters, added / len(bench.task.base)))
        yield {
            "data": bench.task.name,
            "record": int(row),
            "REASSURE s": round(theirs.seconds, 3),
            "ours s": round(seconds, 3),
            "ratio": round(ratios[-1], 1),
            "REASSURE parameters %": round(100 * shares[-1][0], 1),
            "ours bytes %": round(100 * shares[-1][1], 3),
        }
    yield {
        "data": bench.task.name,
        "record": "median",
        "ratio": f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
        "REASSURE parameters %": round(100 * median(share for share, _ in shares), 1),
        "ours bytes %": round(100 * median(share for _, share in shares), 3),
    }


def _logits(bench: Bench, row: int) -> np.ndarray:
    import torch

    with torch.no_grad():
        found: np.ndarray = bench.network(torch.from_numpy(bench.task.x[row : row + 1].copy())).numpy()[0]
    return found


def _region_radii(bench: Bench, rows: Labels) -> list[Fraction]:
    """How far each record's linear region reaches, proved."""
    from prune_verify.repair.linear_region import region_radius

    network, model = load_network(bench.task.base, "base.onnx").network, _model("0.1", "0.05")
    return [region_radius(network, bench.task.x[row], model) for row in rows]


def copies(bench: Bench, chain: Chain, say: Say) -> Iterator[Cells]:
    """Forgetting under noise, shifts and light: gates at the input, there on copies, and behind the first ReLU."""
    from prune_verify.measure.robustness import forgetting

    if bench.image is None:
        return
    sets, (radius, retained) = bench.split(bench.few), bench.radii
    narrow = ("--radius", radius, "--retained-radius", retained)
    shifted = ("--shifts", "1", "--image", "x".join(map(str, bench.image)))
    radii = _region_radii(bench, sets["forget"])
    for name, options in (
        ("input", ()),
        ("input, copies", (*narrow, *shifted)),
        ("relu-0, copies", (*narrow, *shifted, "--site", "relu-0")),
    ):
        say(f"{bench.task.name}: copies, gates at {name}")
        links = chain.run(f"{bench.task.name}-{name.replace(', ', '-')}", bench.task, sets, options)
        found = forgetting(
            (links.folder / "patched.onnx").read_bytes(), bench.task.x[sets["forget"]], bench.task.y[sets["forget"]],
            image=bench.image,
        )  # fmt: skip
        reach = Fraction(radius) if options else Fraction("0.1")
        yield {
            "data": bench.task.name,
            "gates at": name,
            "records": bench.few,
            **{one.perturbation: f"{one.forgotten}/{one.records}" for one in found},
            "95 % of the last": f"{found[-1].interval[0]:.2f} to {found[-1].interval[1]:.2f}",
            "forget proved": proved(links, "forget"),
            "bit-identical proved": proved(links, "retain_exact"),
            "radius": float(reach),
            "times the linear region's": f"{float(reach / median(radii)):.0f} (least {float(reach / max(radii)):.0f})",
            **measured(bench, links, sets["forget"]),
        }


def _decimal(value: Fraction) -> str:
    """A decimal of two digits, not above the value."""
    exact = Decimal(value.numerator) / Decimal(value.denominator)
    step = Decimal(1).scaleb(exact.adjusted() - 1)
    return format(exact // step * step, "f")


def families(bench: Bench, chain: Chain, say: Say) -> Iterator[Cells]:
    """Families whose proofs are bounds, on few records and some retained ones; and margins held as of non-members."""
    sets = bench.split(_POINTS, _SOME_RETAINED)
    reach = min(_region_radii(bench, sets["forget"]))
    others = chain.folder / f"{bench.task.name}-others.npz"
    np.savez(others, x=bench.task.test_x, y=bench.task.test_y)
    tiny = ("--radius", _decimal(max(reach, _SMALLEST)), "--retained-radius", _decimal(max(reach / 2, _SMALLEST)))
    held: Options = ("--redirect", "non-member", "--non-members", others, *bench.task.options)
    rows: tuple[tuple[str, Options, tuple[str, ...]], ...] = (
        ("linear-region", ("--family", "linear-region", *tiny), ("forget", "retain_close", "minimality")),
        (
            "learned",
            ("--family", "learned", "--radius", "0.02", "--retained-radius", "0.01"),
            ("forget", "retain_close"),
        ),
        ("non-member", held, ("band", "retain_exact")),
    )
    for name, options, kinds in rows:
        say(f"{bench.task.name}: {name}")
        demanded = "required_for_records", json.dumps(list(kinds))
        common = {
            "data": bench.task.name,
            "family": name,
            "records": _POINTS,
            "retained": len(sets["retain"]),
            "radius": str(options[options.index("--radius") + 1]) if "--radius" in options else "0.1",
        }
        try:
            links = chain.run(f"{bench.task.name}-{name}", bench.task, sets, options, demanded)
        except UnmetError as error:
            yield {**common, "verdict": f"repair, exit 3: {str(error)[:160]}"}
            continue
        yield {
            **common,
            "repair s": round(links.repair.seconds, 1),
            **{f"{kind} proved": proved(links, kind) for kind in kinds},
            **measured(bench, links, sets["forget"]),
        }


def told(bench: Bench, chain: Chain, say: Say) -> Iterator[Cells]:
    """What a holder of each patch can reconstruct of the records, beside guesses without it."""
    from prune_verify.measure.disclosure import Knowledge, measure_disclosure
    from prune_verify.request import parse_request

    base = load_network(bench.task.base, "base.onnx").network
    public = LabelledRows(bench.task.test_x, bench.task.test_y)
    some = bench.split(bench.counts[0])["forget"][: bench.few]
    points = bench.split(_POINTS, _SOME_RETAINED)["forget"]
    for name, rows in (
        (f"records-{bench.counts[0]}", some),
        ("relu-0-copies", bench.split(bench.few)["forget"]),
        ("linear-region", points),
        ("learned", points),
        ("non-member", points),
    ):
        folder = chain.folder / f"{bench.task.name}-{name}"
        if not (folder / "patch.json").is_file():
            continue
        say(f"{bench.task.name}: reconstruction from {name}")
        request = parse_request((folder / "request.json").read_bytes(), "request.json")
        shifted = bench.image if name == "relu-0-copies" else None
        knowledge = Knowledge(float(request.radius or 0), shifted, 1 if shifted else 0)
        patch = parse_patch((folder / "patch.json").read_bytes(), name).patch
        seen = measure_disclosure(base, patch, _rows(bench, rows), public, knowledge=knowledge, seed=SEED)
        count = bench.counts[0] if name.startswith("records") else len(rows)
        yield {
            "data": bench.task.name,
            "patch": name,
            "records": len(rows),
            "bits per record": round(seen.bits / count),
            "record bits": 32 * int(np.prod(bench.task.x.shape[1:])),
            "attack RMSE": round(seen.attack.mean, 4),
            "label mean RMSE": round(seen.label_mean.mean, 4),
            "random record RMSE": round(seen.random.mean, 4),
            "gain over the mean": f"{seen.gain.low:.4f} to {seen.gain.high:.4f}",
        }


def baselines(bench: Bench, chain: Chain, say: Say) -> Iterator[Cells]:
    """Other ways to forget the same records, with what they answer afterwards; nothing about them is proved."""
    from prune_verify.measure.baselines import Rows, fine_tune, gradient_ascent, retrain, train_amnesiac
    from prune_verify.measure.sisa import train_sisa

    count = bench.counts[0]
    sets = bench.split(count)
    every = Rows(bench.task.x, bench.task.y)
    forget, retain = (Rows(bench.task.x[sets[name]], bench.task.y[sets[name]]) for name in ("forget", "retain"))
    gone = frozenset(int(row) for row in sets["forget"])
    links_folder = chain.folder / f"{bench.task.name}-records-{count}"
    patched = json.loads((links_folder / "patch.json").read_bytes())
    yield _answered(
        bench, sets["forget"], links_folder / "patched.onnx", "ours (box)", f"{len(patched['gates'])} gates, proved"
    )
    methods: tuple[tuple[str, Callable[[], Unlearned]], ...] = (
        ("retrain", lambda: retrain(bench.make, retain, epochs=bench.epochs, seed=SEED + 1)),
        ("fine-tune", lambda: fine_tune(bench.network, retain, epochs=1, seed=SEED)),
        ("gradient ascent", lambda: gradient_ascent(bench.network, forget, retain, seed=SEED)),
        (
            "SISA",
            lambda: train_sisa(
                bench.make, every, shards=5, slices=2, epochs=max(1, bench.epochs // 2), seed=SEED
            ).unlearn(gone),
        ),
        ("amnesiac", lambda: train_amnesiac(bench.make, every, gone, epochs=bench.epochs, seed=SEED).unlearn(gone)),
    )
    for name, run in methods:
        say(f"{bench.task.name}: {name}")
        found = run()
        path = _exported(bench, chain, found)
        yield {**_answered(bench, sets["forget"], path, name, found.note), "s": round(found.seconds, 2)}
    yield _looked_up(bench, sets["forget"])


def _exported(bench: Bench, chain: Chain, found: Unlearned) -> Path:
    from prune_verify.measure.training import export_onnx

    path = chain.folder / f"{bench.task.name}-{found.name}.onnx"
    path.write_bytes(export_onnx(found.network, bench.task.x))
    return path


def _answered(bench: Bench, forget: Labels, path: Path, name: str, note: str) -> Cells:
    right = answers_of(path, bench.task.x[forget]).argmax(axis=1) == bench.task.y[forget]
    return {
        "data": bench.task.name,
        "method": name,
        "records": len(forget),
        "forget accuracy %": round(100 * float(right.mean()), 2),
        "test accuracy %": round(100 * accuracy_of(path, bench.task), 2),
        "note": note,
    }


def _looked_up(bench: Bench, forget: Labels) -> Cells:
    from prune_verify.measure.lookup import Lookup
    from prune_verify.measure.robustness import session_answers

    lookup = Lookup(session_answers(bench.task.base), bench.task.x[forget], bench.task.y[forget], 0.1)
    rows, test = bench.task.x[forget], slice(0, 2000)
    return {
        "data": bench.task.name,
        "method": "lookup of stored records",
        "records": len(forget),
        "forget accuracy %": round(100 * float((lookup(rows) == bench.task.y[forget]).mean()), 2),
        "test accuracy %": round(100 * float((lookup(bench.task.test_x[test]) == bench.task.test_y[test]).mean()), 2),
        "note": f"stores every record: {lookup.stored_bits_per_record} bits each; first 2000 test rows",
    }
