"""The figure of what the measurements cost."""

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from ..display import Figure, number
from ..experiments.scaling import ALLOWED_RATIO, BOUND_SAMPLES, CNN, FCN, Point, ScalingRun
from .base import INK, REST, TOP, canvas, plain_numbers

_STYLES = {FCN: {"color": TOP, "linestyle": "-", "marker": "o"}, CNN: {"color": REST, "linestyle": "--", "marker": "s"}}
_PLAIN = {FCN: "-.", CNN: ":"}


def cost(run: ScalingRun) -> Figure:
    """Our step over a plain step above, the time of both below, over the number of samples."""
    bounded = run.bounded is not None
    with canvas("cost", height=5.6) as (figure, save):
        above, below = figure.subplots(2, sharex=True)
        for name, points in run.points.items():
            n = [p.n for p in points]
            style = _STYLES[name] | {"markersize": 5}
            above.plot(n, [p.ratio for p in points], label=name, **style)
            expected = [p.expected_ratio for p in points]
            above.plot(n, expected, color=style["color"], linestyle=":", linewidth=1, marker="")
            below.plot(n, [1e3 * p.ours for p in points], label=f"{name}, our step", **style)
            thin = style | {"linestyle": _PLAIN[name], "linewidth": 1, "markerfacecolor": "none"}
            below.plot(n, [1e3 * p.plain for p in points], label=f"{name}, plain step", **thin)
        if bounded:
            above.plot(BOUND_SAMPLES, ALLOWED_RATIO, color=INK, linestyle="", marker="v", label=f"our bound, {FCN}")
        above.set(ylabel="our step / plain step")
        below.set(ylabel="ms for a step", xlabel="number of samples n")
        for axes in (above, below):
            _logarithmic(axes, run.experiment.samples)
            axes.legend(fontsize=9)
    bound = f" The triangle is our bound for the {FCN}." if bounded else ""
    return save(
        f"Above, the time of a step that measures kernel, norm and split, over that of a plain step; the thin dotted "
        f"lines count multiplications only.{bound} Below, both in milliseconds: ours with filled markers, the plain "
        f"step as thin lines with open markers. Medians on {run.device}, both axes logarithmic.",
        f"Two panels over the number of samples, logarithmic axes. "
        f"{' '.join(_course(name, points) for name, points in run.points.items())}",
    )


def _logarithmic(axes: Axes, samples: list[int]) -> None:
    axes.set(xscale="log", yscale="log")
    low, high = axes.get_ylim()
    plain_numbers(axes.yaxis, low, high)
    axes.xaxis.set_major_locator(FixedLocator(samples))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _course(name: str, points: list[Point]) -> str:
    steps = ", ".join(
        f"{number(p.ratio)} at n = {p.n:,} ({number(1e3 * p.ours)} ms against {number(1e3 * p.plain)} ms)"
        for p in points
    )
    counted = number(points[-1].expected_ratio)
    return f"Our step over a plain step, {name}: {steps}. By multiplications it would be {counted} at the last n."
