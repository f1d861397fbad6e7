"""What we ask of the measurements' cost and accuracy, none of which is a statement of the paper."""

from ..display import Text, number, table
from ..experiments.scaling import (
    ALLOWED_ERROR,
    ALLOWED_RATIO,
    BOUND_INPUTS,
    BOUND_SAMPLES,
    BOUND_WIDTH,
    FCN,
    Point,
    ScalingRun,
)

HOLDS, DOES_NOT_HOLD, NOT_COMPARED = "✓ holds", "✗ does not hold", "– not compared"


def bounds(run: ScalingRun) -> Text:
    """A table of our bounds with what the run gave. They are no claims: a summary of claims does not count them."""
    point = run.bounded
    rows = [
        (
            f"a step of the {FCN} of width {BOUND_WIDTH:,} on {BOUND_INPUTS:,} inputs at n = {BOUND_SAMPLES:,}, over a "
            "plain step",
            f"at most {ALLOWED_RATIO}",
            "other sizes" if point is None else number(point.ratio),
            _verdict(None if point is None else point.ratio <= ALLOWED_RATIO),
        )
    ]
    for name, errors in run.errors.items():
        holds = errors.largest <= ALLOWED_ERROR
        what = f"norm and split of the {name} at n = {run.compared:,}, relative difference from float64"
        rows.append((what, f"at most {ALLOWED_ERROR:g}", number(errors.largest), _verdict(holds)))
    return Text(table(("our bound", "allowed", "this run", "verdict"), rows))


def growth(run: ScalingRun) -> Text:
    """How the cost grows, as prose."""
    sentences = []
    for name, points in run.points.items():
        first, last = points[0], points[-1]
        text = f"For the {name} our step takes {number(first.ratio)} times as long as a plain one at n = {first.n:,}"
        text += f" ({_times(first)})"
        if last.n > first.n:
            text += f" and {number(last.ratio)} times as long at n = {last.n:,} ({_times(last)})"
        sentences.append(f"{text}; by multiplications alone it would be {number(last.expected_ratio)} times there.")
    return Text(" ".join(sentences))


def limit(run: ScalingRun) -> Text:
    """Whether the bound on the time of a step holds, and what the count of multiplications says about it."""
    point = run.bounded
    if point is None:
        sizes = f"{BOUND_INPUTS:,} inputs, the width {BOUND_WIDTH:,} and n = {BOUND_SAMPLES:,}"
        return Text(f"Our bound on a step is for {sizes}; this run has other sizes.")
    if point.ratio <= ALLOWED_RATIO:
        return Text(f"The step's bound holds: {number(point.ratio)} plain steps, {ALLOWED_RATIO} allowed.")
    text = f"The step's bound does not hold: {number(point.ratio)} plain steps, {ALLOWED_RATIO} allowed."
    if point.expected_ratio > ALLOWED_RATIO:
        text += (
            f" No detail of the code would change this: with {run.experiment.input_dim} inputs the kernel's "
            f"multiplications alone are {number(point.expected_ratio - 1)} times those of a plain step."
        )
    return Text(text)


def eigenspace(run: ScalingRun) -> Text:
    """What the first step costs beside the later ones, and what a product without the kernel would."""
    sentences = []
    for name, points in run.points.items():
        last = points[-1]
        sentences.append(
            f"For the {name} at n = {last.n:,} the first step takes {number(1e3 * last.first)} ms, a later one "
            f"{number(1e3 * last.ours)} ms; one product of the kernel with a vector, without the kernel, takes "
            f"{number(last.product / last.plain)} plain steps, and the kernel {number(last.kernel_mib)} MiB."
        )
    return Text(" ".join(sentences))


def _times(point: Point) -> str:
    return f"{number(1e3 * point.ours)} ms against {number(1e3 * point.plain)} ms"


def _verdict(holds: bool | None) -> str:
    return NOT_COMPARED if holds is None else HOLDS if holds else DOES_NOT_HOLD
