"""The results as a picture: the slowest per cent and the cold starts of each placer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ._run import Result

_PANELS = (("slowdown_p99", "slowdown, p99", "log"), ("cold_share", "cold starts", "linear"))


def plot_results(results: Sequence[Result], path: Path) -> None:
    """Write a picture, SVG or PNG by the name of ``path``: groups of bars, one bar per placer.

    Needs matplotlib, which is imported here because only pictures do.
    """
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys((result.runners, result.load) for result in results))
    placers = list(dict.fromkeys(result.placer for result in results))
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots(len(_PANELS), 1, sharex=True)
    width = 0.8 / len(placers)
    for panel, (field, label, scale) in zip(axes, _PANELS, strict=True):
        for index, placer in enumerate(placers):
            own = [result for result in results if result.placer == placer]
            places = [groups.index((one.runners, one.load)) + index * width for one in own]
            panel.bar(places, [getattr(one, field) for one in own], width, label=placer)
        panel.set_ylabel(label)
        panel.set_yscale(scale)
    axes[-1].set_xticks(
        [number + 0.4 - width / 2 for number in range(len(groups))],
        [f"{runners} runners\n{load:.0%} load" for runners, load in groups],
    )
    axes[0].legend(ncols=len(placers), fontsize="small")
    figure.savefig(path)
