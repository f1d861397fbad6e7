"""What the paper states about catapults of gradient descent, test performance and the AGOP (section 4, appendix D)."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..display import Text, number, table
from ..experiments.agop_gd import RaisedRun
from ..experiments.fits import Fitted, undiverged
from .claims import Claim, Claims, over_seeds, verdict
from .correlation import Order, correlated, follows
from .measurements import ALIGNMENT, CATAPULTS, Measurement, performance, validation, without_diverged

FULL_RANK = "full-rank"
SAME = 0.05  # relative difference of a test performance, and difference of an alignment, that counts as none


def claims(runs: Sequence[RaisedRun]) -> Claims:
    """The claims of section 4 and appendix D on each run."""
    return over_seeds([_claims(run) for run in runs])


def training_table(run: RaisedRun) -> Text:
    """The trainings one by one."""
    test = performance(run.experiment.measure)
    rows = [_row(f"{k} raise{'s' * (k != 1)}", result, test) for k, result in enumerate(run.raised)]
    if run.literal is not None:
        rows.append(_row("the paper's schedule", run.literal, test))
    if run.small is not None:
        rows.append(_row(f"small initialisation, σ = {run.experiment.small_scale:g}", run.small, test))
    measured = "catapults", "largest rate", test.title, ALIGNMENT.title, "best iteration"
    return Text(table(("training", *measured, "training loss at the end"), rows))


def _row(name: str, result: Fitted, test: Measurement) -> tuple[str, ...]:
    return (
        name,
        str(result.spikes),
        number(result.learning_rate.max()) if result.steps else "–",
        test.write(test.of(result)),
        ALIGNMENT.write(ALIGNMENT.of(result)),
        str(result.evaluated[result.best]),
        "diverges" if result.diverged else number(result.training_loss[-1]),
    )


def _claims(run: RaisedRun) -> Claims:
    e = run.experiment
    found = {"catapults": _catapults(run)}
    if e.dataset == FULL_RANK:
        found |= {"no_better": _no_better(run), "no_alignment": _no_alignment(run)}
    else:
        test, valid = performance(e.measure), validation(e.measure)
        every = [*run.raised, *([run.small] if run.small is not None else [])]
        theirs = "for all tasks (section 4, Fig. 8)"
        found |= {
            "performance": _follows(run, test, False, theirs),
            "alignment": _follows(run, ALIGNMENT, True, theirs),
            "correlation": correlated(
                undiverged(every),
                test,
                "learning the EGOP strongly correlates with test performance (section 4)",
                without_diverged(every),
            ),
            "validation": _follows(run, valid, False, "as the test performance (Fig. 24)", "figure 24"),
        }
        if e.strong is None:
            found["closer"] = _closer(run)
    if run.small is not None:
        found["small"] = _small(run)
    return Claims(found | {"schedule": _schedule(run)})


def _catapults(run: RaisedRun) -> Claim:
    first, finished = run.raised[0], undiverged(run.raised)
    listed = ", ".join(f"{r.spikes}{' (diverges)' * r.diverged}" for r in run.raised)
    raises = f"with 0 to {len(run.raised) - 1} raises"
    most = max((r.spikes for r in finished), default=0)
    return Claim(
        "raising the rate again and again causes several catapults",
        "yes (section 3.2, Figs. 8, 27, 28)",
        f"{listed} {raises}",
        "at least two more than without a raise, in at least one training that does not diverge",
        verdict(None if first.diverged else most >= first.spikes + 2),
        f"The trainings {raises} have {listed} catapults: peaks of the training loss that stand out by a factor of "
        "two.",
    )


def _follows(run: RaisedRun, measurement: Measurement, grows: bool, paper: str, *shown_in: str) -> Claim:
    """Whether a measurement goes with the number of catapults."""
    compared = undiverged(run.raised)
    counts = [result.spikes for result in compared]
    order = Order(CATAPULTS.title, f"as the {CATAPULTS.title} grows", 1, counts, "", without_diverged(run.raised))
    return follows(measurement, grows, order, [measurement.of(result) for result in compared], paper, *shown_in)


def _closer(run: RaisedRun) -> Claim:
    """Of the pictures: their corners, compared with the true one's."""
    compared = undiverged(run.raised)
    fewest, most = (of(compared, key=lambda result: result.spikes) if compared else run.raised[0] for of in (min, max))
    values = [cosine(result.corner, result.true_corner) for result in (fewest, most)]
    words = [ALIGNMENT.write(value) for value in values]
    sentence = (
        f"The cosine between the rows and columns shown and those of the true AGOP is {words[0]} with "
        f"{_catapults_of(fewest)} and {words[1]} with {_catapults_of(most)}."
    )
    if fewest.spikes == most.spikes:
        sentence = "No training has more catapults than another, so their pictures are not compared."
    return Claim(
        "with more catapults the picture of the AGOP is closer to the true one",
        "the features are learned better (appendix D.2, Fig. 26)",
        f"cosine of the corners {words[0]} with {fewest.spikes}, {words[1]} with {most.spikes}",
        "a larger cosine of the rows and columns that are shown",
        verdict(None if fewest.spikes == most.spikes or math.isnan(sum(values)) else values[1] > values[0]),
        sentence,
        ("figure 26",),
    )


def cosine(a: Float[np.ndarray, "k k"], b: Float[np.ndarray, "k k"]) -> float:
    """Of the angle between two matrices, eq. (6); NaN where one of them is zero or not finite."""
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float((a * b).sum() / norms) if 0 < norms < math.inf else math.nan


def _catapults_of(result: Fitted) -> str:
    return "no catapult" if result.spikes == 0 else f"{result.spikes} catapult{'s' * (result.spikes != 1)}"


def _small(run: RaisedRun) -> Claim:
    """The small initialisation against the best of the trainings with raises, by each measurement."""
    test, small, compared = performance(run.experiment.measure), run.small, undiverged(run.raised)
    best = _best(test, compared), _best(ALIGNMENT, compared)
    ours = test.of(small), ALIGNMENT.of(small)
    words = [f"{test.write(a)} and {ALIGNMENT.write(b)}" for a, b in (ours, best)]
    as_good = ours[0] <= (1 + SAME) * best[0] and ours[1] >= best[1] - SAME
    end = ", which diverges," if small.diverged else ""
    return Claim(
        f"a small initialisation gives the smallest {test.title} and the best alignment",
        "yes (appendix D.2, Fig. 25)",
        f"{words[0]}{end.removesuffix(',')}; the best with catapults {words[1]}",
        f"as good, within {SAME:g} in alignment and {100 * SAME:g} % in {test.title}",
        verdict(None if small.diverged or math.isnan(sum(ours + best)) else bool(as_good)),
        f"With the small initialisation{end} {test.title} and alignment are {words[0]}; the best of the trainings with "
        f"catapults have {words[1]}.",
        ("figure 25",),
    )


def _best(measurement: Measurement, results: list[Fitted]) -> float:
    """Of those that have it; else NaN."""
    values = [value for result in results if not math.isnan(value := measurement.of(result))]
    return max(values, key=lambda value: measurement.better * value, default=math.nan)


def _no_better(run: RaisedRun) -> Claim:
    test = performance(run.experiment.measure)
    first, best = _without_and_with(run, test)
    return Claim(
        f"catapults do not improve the {test.title} where f* has full rank",
        "they do not (appendix D.4, Fig. 28)",
        f"{test.write(first)} without, at best {test.write(best)} with",
        f"no better by more than {100 * SAME:g} %",
        verdict(None if math.isnan(first + best) else best >= (1 - SAME) * first),
        f"Without a raise the {test.title} is {test.write(first)}; the best with raises is {test.write(best)}.",
    )


def _no_alignment(run: RaisedRun) -> Claim:
    first, best = _without_and_with(run, ALIGNMENT)
    without, with_raises = ALIGNMENT.write(first), ALIGNMENT.write(best)
    return Claim(
        "catapults do not improve the alignment where f* has full rank",
        "they do not (appendix D.4, Fig. 28)",
        f"{without} without, at best {with_raises} with",
        f"no better by more than {SAME:g}",
        verdict(None if math.isnan(first + best) else best <= first + SAME),
        f"Without a raise the alignment is {without}; the best with raises is {with_raises}.",
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
    return Claim(
        "the paper's schedule of rates does not diverge",
        "not stated, but it is the one used (appendices F.4, F.6)",
        end,
        "none",
        verdict(not literal.diverged if theirs else None),
        f"With {'the paper’s schedule' if theirs else 'this schedule'} {'training ' if literal.diverged else ''}{end}.",
    )
