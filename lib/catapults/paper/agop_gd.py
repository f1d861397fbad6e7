"""What the paper states about catapults of gradient descent, test performance and the AGOP (section 4, appendix D)."""

import math

import torch

from ..agop import alignment
from ..display import Text, number, table
from ..experiments.agop_gd import RaisedRun
from ..experiments.learning import Trained, performance_name, performances
from .claims import Claim, Claims, verdict
from .correlation import STRONG, decimals, percent_or_loss, signed, spearman, together

FULL_RANK = "full-rank"
SAME = 0.05  # relative difference of a test performance, and difference of an alignment, that counts as none


def claims(run: RaisedRun) -> Claims:
    """The claims of section 4 and appendix D for one run."""
    full = run.experiment.dataset == FULL_RANK
    found = {"catapults": _catapults(run)}
    theirs = "learning the EGOP strongly correlates with test performance (section 4)"
    every = [*run.raised, *([run.small] if run.small is not None else [])]
    if full:
        found |= {"no_better": _no_better(run), "no_alignment": _no_alignment(run)}
    else:
        found |= {
            "performance": _follows(run, "performance"),
            "alignment": _follows(run, "alignment"),
            "correlation": together(every, run.experiment.dataset, theirs),
            "validation": _follows(run, "validation"),
        }
        if run.experiment.strong is None:
            found["closer"] = _closer(run)
    if run.small is not None:
        found["small"] = _small(run)
    return Claims(found | {"schedule": _schedule(run)})


def training_table(run: RaisedRun) -> Text:
    """The trainings one by one."""
    title = performance_name(run.experiment.dataset)
    rows = [_row(run, f"{k} raise{'s' * (k != 1)}", result) for k, result in enumerate(run.raised)]
    if run.literal is not None:
        rows.append(_row(run, "the paper's schedule", run.literal))
    if run.small is not None:
        rows.append(_row(run, f"small initialisation, σ = {run.experiment.small_scale:g}", run.small))
    header = ("training", "catapults", "largest rate", title, "alignment", "best iteration", "training loss at the end")
    return Text(table(header, rows))


def _row(run: RaisedRun, name: str, result: Trained) -> tuple[str, ...]:
    (value,) = performances([result], run.experiment.dataset)
    end = "diverges" if result.diverged else number(result.training_loss[-1])
    return (
        name,
        str(result.spikes),
        number(result.learning_rate.max()) if len(result.learning_rate) else "–",
        percent_or_loss(value, _is_loss(run)),
        decimals(result.alignment, 3),
        str(result.iterations[result.best]),
        end,
    )


def _is_loss(run: RaisedRun) -> bool:
    return performance_name(run.experiment.dataset) == "test loss"


def _catapults(run: RaisedRun) -> Claim:
    counts = [result.spikes for result in run.raised]
    listed = ", ".join(map(str, counts))
    return Claim(
        "raising the rate again and again causes several catapults",
        "yes (section 3.2, Figs. 8, 27, 28)",
        f"{listed} with 0 to {len(counts) - 1} raises",
        "at least two more than without a raise, in some training",
        verdict(max(counts) >= counts[0] + 2),
        f"The trainings with 0 to {len(counts) - 1} raises have {listed} catapults: peaks of "
        f"the training loss that stand out by a factor of two.",
    )


def _follows(run: RaisedRun, what: str) -> Claim:
    """Whether a measurement goes up or down with the number of catapults."""
    counts, dataset = [float(r.spikes) for r in run.raised], run.experiment.dataset
    title = {"validation": performance_name(dataset).replace("test", "best validation")}.get(what, what)
    title = performance_name(dataset) if what == "performance" else title
    sign = 1 if what == "alignment" else -1
    values = {
        "performance": performances(run.raised, dataset).tolist(),
        "validation": [_best_validation(result, _is_loss(run)) for result in run.raised],
        "alignment": [result.alignment for result in run.raised],
    }[what]
    words = [decimals(v, 2) if what == "alignment" else percent_or_loss(v, _is_loss(run)) for v in values]
    statement = f"the {title} {'grows' if sign > 0 else 'falls'} as the number of catapults grows"
    theirs = "as the test performance (Fig. 24)" if what == "validation" else "for all tasks (section 4, Fig. 8)"
    rank = spearman(counts, values)
    fewest, most = (of(range(len(counts)), key=lambda k: counts[k]) for of in (min, max))
    change = values[most] - values[fewest]
    holds = None if math.isnan(rank + change) else sign * rank >= STRONG and sign * change > 0
    return Claim(
        statement,
        theirs,
        f"{words[fewest]} with {counts[fewest]:.0f}, {words[most]} with {counts[most]:.0f}; rank correlation "
        f"{signed(rank)}",
        f"Spearman's rank correlation at least {STRONG:g} in size, most catapults better than fewest",
        verdict(holds),
        f"The {title} is {words[fewest]} with {_catapults_of(counts[fewest])} and {words[most]} with "
        f"{_catapults_of(counts[most])}; its rank correlation with the number of catapults is {signed(rank)}.",
        ("figure 24",) if what == "validation" else (),
    )


def _best_validation(result: Trained, is_loss: bool) -> float:
    return float((result.validation_loss if is_loss else result.validation_error)[result.best])


def _closer(run: RaisedRun) -> Claim:
    """Of the pictures: their corners, compared with the true one's."""
    fewest, most = (of(run.raised, key=lambda result: result.spikes) for of in (min, max))
    values = [alignment(*map(torch.from_numpy, (r.corner, r.true_corner))) for r in (fewest, most)]
    words = [decimals(value, 3) for value in values]
    return Claim(
        "with more catapults the picture of the AGOP is closer to the true one",
        "the features are learned better (appendix D.2, Fig. 26)",
        f"cosine of the corners {words[0]} with {fewest.spikes}, {words[1]} with {most.spikes}",
        "a larger cosine of the rows and columns that are shown",
        verdict(None if fewest.spikes == most.spikes or math.isnan(sum(values)) else values[1] > values[0]),
        f"The cosine between the rows and columns shown and those of the true AGOP is {words[0]} with "
        f"{_catapults_of(fewest.spikes)} and {words[1]} with {_catapults_of(most.spikes)}.",
        ("figure 26",),
    )


def _catapults_of(count: float | int) -> str:
    return "no catapult" if count == 0 else f"{count:.0f} catapult{'s' * (count != 1)}"


def _small(run: RaisedRun) -> Claim:
    every = [*run.raised, run.small]
    *others, small = performances(every, run.experiment.dataset)
    of_small, best_alignment = run.small.alignment, _best_alignment(run.raised)
    title, loss = performance_name(run.experiment.dataset), _is_loss(run)
    ours = f"{percent_or_loss(small, loss)} and {decimals(of_small, 3)}"
    best = f"{percent_or_loss(min(others), loss)} and {decimals(best_alignment, 3)}"
    as_good = small <= (1 + SAME) * min(others) and of_small >= best_alignment - SAME
    return Claim(
        f"a small initialisation gives the smallest {title} and the best alignment",
        "yes (appendix D.2, Fig. 25)",
        f"{ours}; the best with catapults {best}",
        f"as good, within {SAME:g} of the alignment and {100 * SAME:g} % of the {title}",
        verdict(None if math.isnan(of_small + best_alignment) else bool(as_good)),
        f"From the small initialisation the {title} is {percent_or_loss(small, loss)} and the alignment "
        f"{decimals(of_small, 3)}; the best of the trainings with catapults have {best}.",
        ("figure 25",),
    )


def _no_better(run: RaisedRun) -> Claim:
    values = performances(run.raised, run.experiment.dataset)
    title, loss = performance_name(run.experiment.dataset), _is_loss(run)
    first, best = percent_or_loss(values[0], loss), percent_or_loss(values[1:].min(), loss)
    return Claim(
        f"catapults do not improve the {title} where f* has full rank",
        "they do not (appendix D.4, Fig. 28)",
        f"{first} without, at best {best} with",
        f"no better by more than {100 * SAME:g} %",
        verdict(bool(values[1:].min() >= (1 - SAME) * values[0])),
        f"Without a raise the {title} is {first}; the best with raises is {best}.",
    )


def _no_alignment(run: RaisedRun) -> Claim:
    first, best = run.raised[0].alignment, _best_alignment(run.raised[1:])
    without, with_raises = decimals(first, 3), decimals(best, 3)
    return Claim(
        "nor the alignment",
        "they do not (appendix D.4, Fig. 28)",
        f"{without} without, at best {with_raises} with",
        f"no better by more than {SAME:g}",
        verdict(None if math.isnan(first + best) else best <= first + SAME),
        f"Without a raise the alignment is {without}; the best with raises is {with_raises}.",
    )


def _best_alignment(trained: list[Trained]) -> float:
    """Of those that have one; else NaN."""
    return max((r.alignment for r in trained if not math.isnan(r.alignment)), default=math.nan)


def _schedule(run: RaisedRun) -> Claim:
    literal = run.literal if run.literal is not None else run.raised[-1]
    rates = run.experiment.literal_schedule or run.experiment.learning_rate
    end = (
        f"diverges at iteration {len(literal.batch_loss)}, at rate {number(literal.learning_rate[-1])}"
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
