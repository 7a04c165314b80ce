"""Pictures of the tables of ``bench repair``: cost against requests, and what is still forgotten of changed copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["NO_PLOTS", "draw", "pyplot"]

NO_PLOTS = "no plots: pip install 'prune-verify[plots]'"

Cells = dict[str, object]
_PERTURBED = ("none", "noise of 1/255 on every number", "brightness -0.1", "brightness +0.1", "one pixel, each way")


def pyplot() -> Any:  # noqa: ANN401 - matplotlib has no types
    """Matplotlib's ``pyplot``, writing SVG; None where matplotlib is missing."""
    try:
        import matplotlib as mpl

        mpl.use("svg")
        from matplotlib import pyplot as plt
    except ModuleNotFoundError:
        return None
    return plt


def draw(tables: dict[str, list[Cells]], out: Path) -> list[str]:
    """Write ``repair_cost.svg`` and ``repair_copies.svg``.

    Args:
        tables: rows by table.
        out: the folder.

    Returns:
        Lines that say what was written, or what is missing to write it.

    """
    plt = pyplot()
    if plt is None:
        return [NO_PLOTS]
    lines = []
    for name, rows, paint in (("cost", tables["records"], _cost), ("copies", tables.get("copies", []), _copies)):
        if rows:
            figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
            paint(axes, rows)
            path = out / f"repair_{name}.svg"
            figure.savefig(path)
            plt.close(figure)
            lines.append(f"wrote {path}")
    return lines


def _number(value: object) -> float:
    return float(str(value))


def _cost(axes: Any, rows: list[Cells]) -> None:  # noqa: ANN401 - matplotlib has no types
    """Seconds per request against requests, and retraining as a line."""
    for data in dict.fromkeys(str(row["data"]) for row in rows):
        own = [row for row in rows if row["data"] == data]
        (line,) = axes.plot(
            [_number(row["records"]) for row in own],
            [_number(row["s per request"]) for row in own],
            "o-",
            label=f"{data}: a gate",
        )
        axes.axhline(_number(own[0]["retrain s"]), color=line.get_color(), linestyle="--", label=f"{data}: retraining")
    axes.set(xscale="log", yscale="log", xlabel="records forgotten", ylabel="seconds")
    axes.legend()


def _copies(axes: Any, rows: list[Cells]) -> None:  # noqa: ANN401 - matplotlib has no types
    """Share of records still forgotten, by perturbation and by what the gates read."""
    names = [name for name in rows[0] if name in _PERTURBED or name.startswith("one pixel each way or none")]
    for place, row in enumerate(rows):
        shares = []
        for name in names:
            hits, _, trials = str(row[name]).partition("/")
            shares.append(int(hits) / int(trials))
        width = 0.8 / len(rows)
        axes.bar(
            [i + place * width for i in range(len(names))], shares, width, label=f"{row['data']}: {row['gates at']}"
        )
    axes.set_xticks(
        range(len(names)), [name.replace(", ", ",\n").replace(" on ", "\non ") for name in names], fontsize=6
    )
    axes.set(ylabel="share of records still forgotten", ylim=(0, 1.05))
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))  # beside the bars
