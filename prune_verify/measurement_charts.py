"""The pictures of measurement files, from their series by name; in files of their own and in reports alike.

    curve.NETWORK.MODE.RECORDS[.low|.high]    share of forgotten records answered, after 0, 1, 2, ... epochs
    roc.NETWORK.ATTACK.fpr, ... .tpr          a ROC curve, its steps from (0, 0) to (1, 1)

Whatever else a file holds is no picture. The file may be foreign: numbers were parsed strictly, and text is escaped.

Source: prune_verify.measurement_file; ROC curves on logarithmic axes as in Carlini et al., arXiv 2112.03570.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prune_verify.charts import Axis, Curve, chart, log_axis, share_axis
from prune_verify.markup import Html

__all__ = ["CURVE", "relearning_charts", "roc_charts"]

CURVE = "curve."
_ROC, _FALSE, _TRUE = "roc.", ".fpr", ".tpr"
Series = Mapping[str, Sequence[str]]
_MOST_CHARTS = 24
_PARTS = 3


def _numbers(series: Series, name: str) -> list[float]:
    return [float(value) for value in series.get(name, ())]


def relearning_charts(series: Series) -> list[Html]:
    """A chart for each mode and set of records, a curve in it for each network; at most 24 charts.

    Args:
        series: of a measurement file.

    """
    places: dict[tuple[str, str], list[str]] = {}
    for name in series:
        parts = name.removeprefix(CURVE).split(".")
        if name.startswith(CURVE) and len(parts) == _PARTS and series[name]:
            places.setdefault((parts[1], parts[2]), []).append(parts[0])
    charts = []
    for (mode, records), networks in list(places.items())[:_MOST_CHARTS]:
        curves = []
        for network in networks:
            key = f"{CURVE}{network}.{mode}.{records}"
            middle, low, high = (_numbers(series, key + end) for end in ("", ".low", ".high"))
            band = [(float(i), *ends) for i, ends in enumerate(zip(low, high, strict=False))]
            curves.append(Curve(network, [(float(i), v) for i, v in enumerate(middle)], band))
        last = max(max(len(curve.points) for curve in curves) - 1, 1)
        ticks = tuple((float(v), str(v)) for v in sorted({0, last // 4, last // 2, 3 * last // 4, last}))
        across = Axis("epochs", 0.0, float(last), ticks)
        heading = f"{mode}, attacker has: {records}"
        charts.append(chart(heading, across, share_axis("watched forgotten records answered"), curves))
    return charts


def roc_charts(series: Series) -> list[Html]:
    """A chart for each network under attack, with logarithmic axes and a curve for each attack; at most 24 charts.

    Args:
        series: of a measurement file.

    """
    places: dict[str, list[Curve]] = {}
    for name in series:
        who = name.removeprefix(_ROC).removesuffix(_FALSE)
        network, _, attack = who.partition(".")
        across, up = _numbers(series, name), _numbers(series, f"{_ROC}{who}{_TRUE}")
        if name == f"{_ROC}{network}.{attack}{_FALSE}" and across and len(across) == len(up):
            places.setdefault(network, []).append(Curve(attack, list(zip(across, up, strict=True))))
    charts = []
    for network, curves in list(places.items())[:_MOST_CHARTS]:
        least = min([1.0, *(x for curve in curves for x, _ in curve.points if x > 0)])
        axes = log_axis("false positives (share of non-members)", least), log_axis("members found", least)
        charts.append(chart(f"membership inference, {network}", *axes, curves, diagonal=True))
    return charts
