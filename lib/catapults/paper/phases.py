"""What the paper states about the learning rates between which there are catapults (section 2, remark 1); and what
this book adds on the course of a catapult."""

import math
from collections.abc import Sequence

import numpy as np

from ..display import Text, number, table
from ..experiments.phases import NAMES, PhasesRun, middle
from .claims import OURS, Claim, Claims, Tolerance, at_least, claim, over_seeds, within_factor
from .correlation import spearman
from .quotes import LARGEST, LARGEST_QUADRATIC

SAME = 1.5  # factor within which two borders agree
CLOSE = 1.25  # the same where the paper gives an exact number
ALL = at_least(100, "{:g} %")
STRONG = at_least(0.9)
BETWEEN = Tolerance("in this order, on the page's grid of rates", bool)


def claims(runs: Sequence[PhasesRun]) -> Claims:
    """Of the widest network, but for the last."""
    return over_seeds([_of_one_seed(run) for run in runs])


def phase_table(runs: Sequence[PhasesRun]) -> Text:
    """The border of each width over the seeds, and what a catapult at twice the critical rate is like."""
    rows = []
    for width in runs[0].experiment.widths:
        borders = [run.border(width) for run in runs]
        lasts, firsts = ([number(b[side]) if math.isfinite(b[side]) else "–" for b in borders] for side in (0, 1))
        at = [c for run in runs for c in run.of_width(width) if c.multiple == 2 and c.phase == "catapult"]
        heights, durations = [c.height for c in at], [c.back for c in at]
        left = [c.norm_lowest for c in at]
        medians = [number(np.median(v)) if v else "–" for v in (heights, durations, left)]
        rows.append((str(width), f"{runs[0].parameters[width]:,}", ", ".join(lasts), ", ".join(firsts), *medians))
    header = (
        "width",
        "parameters",
        "comes back up to, by seed",
        "no more from, by seed",
        "at 2 η_crit: height",
        "back at iteration",
        "lowest ‖K‖ / first",
    )
    return Text(table(header, rows))


def model_table(runs: Sequence[PhasesRun]) -> Text:
    """The border of each model and width over the seeds: the middle of the two rates between which it lies."""
    rows = []
    for kind in runs[0].kinds:
        for width in runs[0].experiment.widths:
            borders = [run.border(width, kind) for run in runs]
            middles = [middle(border) for border in borders]
            known = [m for m in middles if math.isfinite(m)]
            each = ", ".join(number(m) if math.isfinite(m) else "–" for m in middles)
            rows.append((NAMES[kind], str(width), number(np.median(known)) if known else "–", each))
    return Text(table(("model", "width", "largest η / η_crit, median", "by seed"), rows))


def steps_sentence(runs: Sequence[PhasesRun]) -> Text:
    """Whether the borders depend on the number of steps: when trainings with a catapult are back, at the latest."""
    e = runs[0].experiment
    every = [c for run in runs for kind in run.kinds for width in e.widths for c in run.of_width(width, kind)]
    unsettled = sum(course.phase == "unsettled" for course in every)
    last = max((course.back or 0 for course in every if course.phase == "catapult"), default=0)
    return Text(
        f"Of the {len(every)} trainings {unsettled or 'none'} {'is' if unsettled < 2 else 'are'} unsettled after "
        f"{e.steps} steps. Those with a catapult are back below their start by iteration {last} at the latest."
    )


def sentence(run: PhasesRun, width: int, multiple: float) -> str:
    """What becomes of a training, in one sentence."""
    course = run.courses[width, multiple]
    start = f"At {multiple:g} times the critical rate "
    last = len(course.history.loss) - 1
    if course.phase == "divergence":
        return f"{start}training diverges within {last} iteration{'s' * (last != 1)}."
    if course.phase == "unsettled":
        return f"{start}the loss rises {number(course.height)}-fold and has not come back after {last} iterations."
    norm = f"‖K‖ falls to {100 * course.norm_lowest:.0f} % of where it began"
    if course.norm_lowest == 1:
        norm = "‖K‖ never falls below where it began"
    if course.phase == "lazy":
        rises = "never rises" if course.height == 1 else f"rises {number(course.height)}-fold at most"
        return f"{start}the loss {rises}; {norm}."
    rises = f"the loss rises {number(course.height)}-fold and is back below its start at iteration {course.back}"
    return f"{start}{rises}; {norm}."


def _of_one_seed(run: PhasesRun) -> Claims:
    widest = run.experiment.widths[-1]
    return Claims(
        {
            "lazy": _lazy(run, widest),
            "catapult": _catapult(run, widest),
            "border": _border(run, widest),
            "norm": _norm(run, widest),
            "height": _grows(run, widest, "height"),
            "further": _grows(run, widest, "further"),
            "widths": _widths(run),
        }
        | {name: of(run, widest) for kind, (name, of) in _OF_MODELS.items() if kind in run.experiment.models}
    )


def _share(
    run: PhasesRun, width: int, low: float | int, high: float | int, phases: tuple[str, ...]
) -> tuple[float, int, int]:
    found = [course.phase in phases for course in run.of_width(width) if low < course.multiple < high]
    return (100 * sum(found) / len(found) if found else math.nan), sum(found), len(found)


def _lazy(run: PhasesRun, width: int) -> Claim:
    share, held, of = _share(run, width, 0, 1, ("lazy",))
    return claim(
        "below the critical rate the loss never doubles",
        "convergence where η < η_crit (section 2)",
        f"at {held} of {of} rates",
        ALL,
        share,
        f"At {held} of the {of} rates below the critical one the loss never doubles (width {width}).",
        unless="" if of else "no rate of the page is below the critical one",
        unit="{:.0f} % of the rates",
    )


def _catapult(run: PhasesRun, width: int) -> Claim:
    share, held, of = _share(run, width, 1, 2 + 1e-9, ("lazy", "catapult"))
    spikes = _share(run, width, 1, 2 + 1e-9, ("catapult",))[1]
    return claim(
        "from the critical rate to twice that, training converges all the same",
        "η in (η_crit, 2 η_crit) ends up with a convergence (section 2)",
        f"at {held} of {of} rates, with a catapult at {spikes}",
        ALL,
        share,
        f"At {held} of the {of} rates above the critical one and up to twice that, the loss comes back below where it "
        f"began; at {spikes} of them it has at least doubled on the way (width {width}).",
        unless="" if of else "no rate of the page is there",
        unit="{:.0f} % of the rates",
    )


def _border(run: PhasesRun, width: int) -> Claim:
    last, first = run.border(width)
    value = middle((last, first))
    return claim(
        "the largest rate at which training comes back is about six critical rates",
        f"η_max ≈ {LARGEST:g} η_crit for ReLU networks (remark 1)",
        f"between {number(last)} and {number(first)} η_crit",
        within_factor(SAME, LARGEST),
        value,
        f"Training comes back up to {number(last)} critical rates, and no more at {number(first)} (width {width}).",
        unless="" if math.isfinite(value) else "the border is outside of the page's rates",
        unit="{:.3g} η_crit",
    )


def _norm(run: PhasesRun, width: int) -> Claim:
    found = [course for course in run.of_width(width) if course.phase == "catapult"]
    below = sum(course.norm_lowest < 1 / course.multiple for course in found)
    return claim(
        f"in a catapult the norm of the kernel falls below {run.threshold.replace('‖K‖', 'η')}",
        "‖K‖ decreases, which raises the threshold and allows convergence (section 2)",
        f"at {below} of {len(found)} rates",
        ALL,
        100 * below / len(found) if found else math.nan,
        f"At {below} of the {len(found)} rates with a catapult ‖K‖ falls below {run.threshold.replace('‖K‖', 'η')}, so "
        f"that the rate in use is stable again (width {width}).",
        unless="" if found else "there is no catapult",
        unit="{:.0f} % of the rates",
    )


def _grows(run: PhasesRun, width: int, what: str) -> Claim:
    found = [course for course in run.of_width(width) if course.phase == "catapult"]
    multiples = [course.multiple for course in found]
    values = [1 / c.norm_lowest if what == "further" else c.height for c in found]
    enough = len(found) >= 4
    correlation = spearman(multiples, values) if enough else math.nan
    words = {
        "further": "the larger the rate, the further the norm of the kernel falls",
        "height": "the larger the rate, the higher the catapult",
    }[what]
    ends = f"{number(values[0])} to {number(values[-1])}" if enough else ""
    does = {"further": "‖K‖ falls", "height": "the loss rises"}[what]
    said = f"From the smallest to the largest of the {len(found)} rates with a catapult {does} by a factor of {ends}"
    return claim(
        words,
        "not stated; a measurement of this book",
        f"rank correlation {correlation:.2f} over {len(found)} rates" if enough else f"{len(found)} rates",
        STRONG,
        correlation,
        f"{said} (width {width})." if enough else "Fewer than four rates have a catapult.",
        unless="" if enough else "fewer than four rates have a catapult",
        unit="{:.2f}",
        shown_in=(OURS,),
    )


def _widths(run: PhasesRun) -> Claim:
    borders = {width: run.border(width) for width in run.experiment.widths}
    middles = [math.sqrt(a * b) for a, b in borders.values() if a > 0 and math.isfinite(b)]
    known = len(middles) == len(borders) > 1
    ratio = max(middles) / min(middles) if known else math.nan
    listed = ", ".join(f"{number(a)} to {number(b)} (width {width})" for width, (a, b) in borders.items())
    return claim(
        "in units of the critical rate the border is the same at every width",
        "not stated; a measurement of this book",
        listed,
        within_factor(SAME, 1.0),
        ratio,
        f"The border lies between these multiples of the critical rate: {listed}.",
        unless="" if known else "a border is outside of the page's rates, or there is one width",
        unit="{:.3g} times",
        shown_in=(OURS,),
    )


def _linear(run: PhasesRun, width: int) -> Claim:
    last, first = run.border(width, "linear")
    known = math.isfinite(first) and last > 0
    return claim(
        "a linear model diverges as soon as the rate exceeds the critical one",
        "above η_crit the loss of a linear model increases (section 2)",
        f"between {number(last)} and {number(first)} η_crit",
        BETWEEN,
        last <= 1 <= first,
        f"The linear model comes back up to {number(last)} critical rates, and no more at {number(first)} "
        f"(width {width}).",
        unless="" if known else "the border is outside of the page's rates",
    )


def _quadratic(run: PhasesRun, width: int) -> Claim:
    last, first = run.border(width, "quadratic")
    value = middle((last, first))
    return claim(
        "the quadratic model comes back up to twice the critical rate",
        f"η_max = {LARGEST_QUADRATIC:g} η_crit for quadratic models (remark 1)",
        f"between {number(last)} and {number(first)} η_crit",
        within_factor(CLOSE, LARGEST_QUADRATIC),
        value,
        f"The quadratic model comes back up to {number(last)} critical rates, and no more at {number(first)} "
        f"(width {width}).",
        unless="" if math.isfinite(value) else "the border is outside of the page's rates",
        unit="{:.3g} η_crit",
    )


def _gates(run: PhasesRun, width: int) -> Claim:
    """Whether the borders ascend: of the quadratic model, of fixed gates, of the network."""
    kinds = [kind for kind in ("quadratic", "frozen gates", "network") if kind in run.kinds]
    values = [middle(run.border(width, kind)) for kind in kinds]
    known = len(kinds) == 3 and all(map(math.isfinite, values))
    listed = ", ".join(f"{number(v)} ({NAMES[k]})" for k, v in zip(kinds, values, strict=True)) if known else ""
    return claim(
        "the terms beyond the second order raise the border, and the gates that move raise it further",
        "not stated; a measurement of this book",
        listed,
        BETWEEN,
        known and values[0] < values[1] < values[2],
        f"In critical rates, the borders are {listed} (width {width})." if known else "Not all borders are known.",
        unless="" if known else "a border is outside of the page's rates, or a model is missing",
        shown_in=(OURS,),
    )


_OF_MODELS = {"linear": ("linear", _linear), "quadratic": ("quadratic", _quadratic), "frozen gates": ("gates", _gates)}
