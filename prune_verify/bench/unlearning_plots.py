"""Pictures of ``bench unlearning``: ROC curves on log axes, of the one-sided and the two-sided attack side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prune_verify.bench.plots import NO_PLOTS, pyplot
from prune_verify.bench.unlearning_attacks import LIRA, UNLIKE, Attacked
from prune_verify.measure.roc import roc

__all__ = ["draw"]

_CURVES = {"base": "base", "retrain 1": "retrained", "box": "box", "non-member": "non-member"}
_PANELS = ((LIRA, "LiRA: still remembered?"), (UNLIKE, "unlike a non-member: conspicuous?"))


def draw(found: Sequence[tuple[str, Mapping[str, Attacked]]], out: Path) -> list[str]:
    """Write ``unlearning_NAME.svg`` for each data set.

    Args:
        found: what attacks found by row, with the name of the data set.
        out: the folder.

    Returns:
        Lines that say what was written, or what is missing to write it.

    """
    plt = pyplot()
    if plt is None:
        return [NO_PLOTS]
    lines = []
    for name, attacked in found:
        with plt.rc_context({"svg.hashsalt": "prune-verify"}):
            figure, panels = plt.subplots(1, len(_PANELS), figsize=(9, 4.4), layout="constrained", sharey=True)
            for axes, (attack, title) in zip(panels, _PANELS, strict=True):
                _curves(axes, attacked, attack)
                axes.set_title(f"{name}: {title}", fontsize=10)
            panels[0].set_ylabel("forgotten records found")
            path = out / f"unlearning_{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            plt.close(figure)
        lines.append(f"wrote {path}")
    return lines


def _curves(axes: Any, attacked: Mapping[str, Attacked], attack: str) -> None:  # noqa: ANN401 - matplotlib has no types
    """One panel: a curve for each row that is there, and chance."""
    least = 1.0
    for row, label in _CURVES.items():
        if row in attacked:
            curve = roc(attacked[row].members[attack], attacked[row].others[attack])
            least = min(least, 1 / len(attacked[row].others[attack]))
            area = attacked[row].auc(attack).value
            axes.step(curve.false_positive, curve.true_positive, where="post", label=f"{label}, AUC {area:.2f}")
    axes.plot([least, 1], [least, 1], "k:", linewidth=1, label="chance")
    axes.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1.05))
    axes.set_xlabel("others taken for them")
    axes.legend(fontsize=8, loc="lower right")
