"""The results as a picture: cold calls over idle memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ._report import medians
from ._run import Result


def plot_results(results: Sequence[Result], path: Path) -> None:
    """Write a picture, SVG or PNG by the name of ``path``, of the first load: a curve for each
    policy with several settings, and the least possible.

    Needs matplotlib, which is imported here because only pictures do.
    """
    from matplotlib.figure import Figure

    shown = medians([one for one in results if one.load == results[0].load])
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for policy in dict.fromkeys(one.policy for one in shown):
        own = sorted((one.idle, one.cold) for one in shown if one.policy == policy)
        axes.plot([idle for idle, _ in own], [100 * cold for _, cold in own], "o-", label=policy)
    bounds = sorted((one.idle, one.bound) for one in shown)
    axes.plot([idle for idle, _ in bounds], [100 * cold for _, cold in bounds], "k:")
    axes.plot([], [], "k:", label="least possible, nothing ahead of calls")
    for one in shown:
        axes.annotate(one.name.removeprefix(one.policy), (one.idle, 100 * one.cold), fontsize=7)
    axes.set_yscale("log")
    axes.set_xlabel("idle memory, MB on average")
    axes.set_ylabel("cold calls, %")
    axes.legend(fontsize="small")
    figure.savefig(path)
