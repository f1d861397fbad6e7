"""What the paper states about catapults of gradient descent, test performance and the AGOP (section 4, appendix D)."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..display import Text, number, table
from ..experiments.agop_gd import RaisedRun
from ..experiments.fits import Fitted, undiverged
from .claims import Claim, Claims, Tolerance, at_least, claim, over_seeds
from .correlation import Order, follows, means_at, together
from .measurements import (
    ALIGNMENT,
    CATAPULTS,
    LEARNED,
    NORM,
    Measurement,
    catapults_of,
    linear_fvu,
    nothing_to_compare,
    performance,
    told_apart,
    validation,
    without_diverged,
)

FULL_RANK = "full-rank"
SAME = 0.05  # relative difference of a test performance, and difference of an alignment, that counts as none
SEVERAL = at_least(2)  # more than without a raise
CLOSER = Tolerance("a larger cosine of the rows and columns that are shown", lambda pair: pair[1] > pair[0])
NO_BETTER = Tolerance(f"no better by more than {100 * SAME:g} %", lambda pair: pair[1] >= (1 - SAME) * pair[0])
NO_CLOSER = Tolerance(f"no better by more than {SAME:g}", lambda pair: pair[1] <= pair[0] + SAME)
NOT_DIVERGED = Tolerance("it does not", lambda diverged: not diverged)


def claims(runs: Sequence[RaisedRun]) -> Claims:
    """The claims of section 4 and appendix D over the seeds."""
    e = runs[0].experiment
    one_by_one = dict(over_seeds([_of_one_seed(run) for run in runs]))
    if e.dataset == FULL_RANK:
        return Claims(one_by_one)
    theirs = "for all tasks (section 4, Fig. 8)"
    every = [result for run in runs for result in (*run.raised, *([] if run.small is None else [run.small]))]
    unless = nothing_to_compare(every, runs[0].strong, e.classes)
    rows = [undiverged([*run.raised, *([] if run.small is None else [run.small])]) for run in runs]
    apart = told_apart(every, e.measure, e.n_test * len(runs))
    test, valid, note = performance(e.measure), validation(e.measure), without_diverged(every)
    strongly = "learning the EGOP strongly correlates with test performance (section 4)"
    over_all = {
        "performance": _follows(runs, test, False, theirs, unless=unless, apart=apart),
        "alignment": _follows(runs, ALIGNMENT, True, theirs, unless=unless),
        "correlation": together(rows, test, strongly, note, unless),
        "validation": _follows(runs, valid, False, "as the test performance (Fig. 24)", "figure 24", unless=unless),
    }
    first = {"catapults": one_by_one.pop("catapults")}
    return Claims(first | over_all | one_by_one)


def training_table(run: RaisedRun) -> Text:
    """The trainings of a seed one by one."""
    test = performance(run.experiment.measure)
    rows = [_row(f"{k} raise{'s' * (k != 1)}", result, test) for k, result in enumerate(run.raised)]
    if run.literal is not None:
        rows.append(_row("the paper's schedule", run.literal, test))
    if run.small is not None:
        rows.append(_row(f"small initialisation, σ = {run.experiment.small_scale:g}", run.small, test))
    measured = "catapults", "largest rate", test.title, ALIGNMENT.title, "‖K‖, best / first", "best iteration"
    text, linear = table(("training", *measured, "training loss at the end"), rows), linear_fvu(run.results)
    if not math.isnan(linear):
        text += f"\n\nA constant has the FVU 1, the best linear predictor {linear:.2f}."
    return Text(text)


def _row(name: str, result: Fitted, test: Measurement) -> tuple[str, ...]:
    return (
        name,
        str(catapults_of(result)),
        number(result.learning_rate.max()) if result.steps else "–",
        test.write(test.of(result)),
        ALIGNMENT.write(ALIGNMENT.of(result)),
        NORM.write(NORM.of(result)),
        str(result.evaluated[result.best]),
        "diverges" if result.diverged else number(result.training_loss[-1]),
    )


def _of_one_seed(run: RaisedRun) -> Claims:
    e = run.experiment
    found = {"catapults": _catapults(run)}
    if e.dataset == FULL_RANK:
        found |= {"no_better": _no_better(run), "no_alignment": _no_alignment(run)}
    elif e.strong is None:
        found["closer"] = _closer(run)
    if run.small is not None:
        found["small"] = _small(run)
    return Claims(found | {"schedule": _schedule(run)})


def _catapults(run: RaisedRun) -> Claim:
    first, finished = run.raised[0], undiverged(run.raised)
    listed = ", ".join(f"{catapults_of(r)}{' (diverges)' * r.diverged}" for r in run.raised)
    raises = f"with 0 to {len(run.raised) - 1} raises"
    more = max((catapults_of(r) for r in finished), default=0) - catapults_of(first)
    return claim(
        "raising the rate again and again causes several catapults",
        "yes (section 3.2, Figs. 8, 27, 28)",
        f"{listed} {raises}",
        Tolerance(f"{SEVERAL.words} more than without a raise, in a training that does not diverge", SEVERAL.holds),
        more,
        f"The trainings {raises} have {listed} catapults: peaks of the training loss that stand out by a factor of "
        "two, while the rate exceeds the critical one.",
        unless="the training without a raise diverges" if first.diverged else "",
        unit="{:.0f} more",
    )


def _follows(
    runs: Sequence[RaisedRun],
    measurement: Measurement,
    grows: bool,
    paper: str,
    *shown_in: str,
    unless: str,
    apart: float = 0.0,
) -> Claim:
    """Whether a measurement goes with the number of catapults."""
    note = without_diverged([result for run in runs for result in run.raised])
    order = Order(CATAPULTS.title, f"as the {CATAPULTS.title} grows", 1, "", note)
    by_seed = []
    for run in runs:
        compared = undiverged(run.raised)
        by_seed.append(means_at([catapults_of(r) for r in compared], [measurement.of(r) for r in compared]))
    return follows(measurement, grows, order, by_seed, paper, *shown_in, unless=unless, apart=apart)


def _closer(run: RaisedRun) -> Claim:
    """Of the pictures: their corners, compared with the true one's."""
    compared = undiverged(run.raised)
    fewest, most = (of(compared, key=catapults_of) if compared else run.raised[0] for of in (min, max))
    values = [cosine(result.corner, result.true_corner) for result in (fewest, most)]
    words = [ALIGNMENT.write(value) for value in values]
    sentence = (
        f"The cosine between the rows and columns shown and those of the true AGOP is {words[0]} with "
        f"{_catapults_of(fewest)} and {words[1]} with {_catapults_of(most)}."
    )
    unless = "not known" if math.isnan(sum(values)) else ""
    if catapults_of(fewest) == catapults_of(most):
        unless = "no training has more catapults than another"
        sentence = "No training has more catapults than another, so their pictures are not compared."
    return claim(
        "with more catapults the picture of the AGOP is closer to the true one",
        "the features are learned better (appendix D.2, Fig. 26)",
        f"cosine of the corners {words[0]} with {catapults_of(fewest)}, {words[1]} with {catapults_of(most)}",
        CLOSER,
        values,
        sentence,
        unless=unless,
        shown_in=("figure 26",),
    )


def cosine(a: Float[np.ndarray, "k k"], b: Float[np.ndarray, "k k"]) -> float:
    """Of the angle between two matrices, eq. (6); NaN where one of them is zero or not finite."""
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float((a * b).sum() / norms) if 0 < norms < math.inf else math.nan


def _catapults_of(result: Fitted) -> str:
    count = catapults_of(result)
    return "no catapult" if count == 0 else f"{count} catapult{'s' * (count != 1)}"


def _small(run: RaisedRun) -> Claim:
    """The small initialisation against the best of the trainings with raises, by each measurement."""
    test, small, compared = performance(run.experiment.measure), run.small, undiverged(run.raised)
    best = _best(test, compared), _best(ALIGNMENT, compared)
    ours = test.of(small), ALIGNMENT.of(small)
    words = [f"{test.write(a)} and {ALIGNMENT.write(b)}" for a, b in (ours, best)]
    as_good = ours[0] <= (1 + SAME) * best[0] and ours[1] >= best[1] - SAME
    end = ", which diverges," if small.diverged else ""
    return claim(
        f"a small initialisation gives the smallest {test.title} and the best alignment",
        "yes (appendix D.2, Fig. 25)",
        f"{words[0]}{end.removesuffix(',')}; the best with catapults {words[1]}",
        Tolerance(f"as good, within {SAME:g} in alignment and {100 * SAME:g} % in {test.title}", bool),
        as_good,
        f"With the small initialisation{end} {test.title} and alignment are {words[0]}; the best of the trainings with "
        f"catapults have {words[1]}.",
        unless="it diverges" if small.diverged else "not measured" if math.isnan(sum(ours + best)) else "",
        shown_in=("figure 25",),
    )


def _best(measurement: Measurement, results: list[Fitted]) -> float:
    """Of those that have it; else NaN."""
    values = [value for result in results if not math.isnan(value := measurement.of(result))]
    return max(values, key=lambda value: measurement.better * value, default=math.nan)


def _no_better(run: RaisedRun) -> Claim:
    test = performance(run.experiment.measure)
    first, best = _without_and_with(run, test)
    unless = "the training without a raise diverges, or all others do" if math.isnan(first + best) else ""
    if not unless and min(first, best) > LEARNED:
        unless = f"no training comes 10 % below the FVU 1 of a constant: {test.write(min(first, best))} at best"
    return claim(
        f"catapults do not improve the {test.title} where f* has full rank",
        "they do not (appendix D.4, Fig. 28)",
        f"{test.write(first)} without, at best {test.write(best)} with",
        NO_BETTER,
        (first, best),
        f"Without a raise the {test.title} is {test.write(first)}; the best with raises is {test.write(best)}. A "
        "constant has 1.",
        unless=unless,
    )


def _no_alignment(run: RaisedRun) -> Claim:
    first, best = _without_and_with(run, ALIGNMENT)
    without, with_raises = ALIGNMENT.write(first), ALIGNMENT.write(best)
    return claim(
        "catapults do not improve the alignment where f* has full rank",
        "they do not (appendix D.4, Fig. 28)",
        f"{without} without, at best {with_raises} with",
        NO_CLOSER,
        (first, best),
        f"Without a raise the alignment is {without}; the best with raises is {with_raises}.",
        unless="the training without a raise diverges, or all others do" if math.isnan(first + best) else "",
    )


def _without_and_with(run: RaisedRun, measurement: Measurement) -> tuple[float, float]:
    """Of the training without a raise, and the best of those with raises; NaN for those that diverge."""
    first, *others = run.raised
    return math.nan if first.diverged else measurement.of(first), _best(measurement, undiverged(others))


def _schedule(run: RaisedRun) -> Claim:
    literal = run.literal if run.literal is not None else run.raised[-1]
    rates = run.experiment.literal_schedule or run.experiment.learning_rate
    end = (
        f"diverges at iteration {literal.steps}, at rate {number(literal.learning_rate[-1])}"
        if literal.diverged
        else f"the loss ends at {number(literal.training_loss[-1])}"
    )
    theirs = "current" not in rates
    return claim(
        "the paper's schedule of rates does not diverge",
        "not stated, but it is the one used (appendices F.4, F.6)",
        end,
        NOT_DIVERGED,
        literal.diverged,
        f"With {'the paper’s schedule' if theirs else 'this schedule'} {'training ' if literal.diverged else ''}{end}.",
        unless="" if theirs else "this schedule is ours",
    )
