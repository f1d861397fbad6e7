"""What the paper states about optimisers: test performance goes with the alignment of the AGOP (Fig. 11)."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..display import Text, number, table
from ..experiments.agop_optimizers import TITLES, OptimizerRun
from ..experiments.fits import Fitted, undiverged
from .claims import NOT_COMPARED, Claim, Claims, at_most, given, of_share
from .correlation import STRONG, correlations, signed
from .measurements import ALIGNMENT, NORM, ends, linear_fvu, nothing_to_compare, performance, without_diverged

FALLS = at_most(-STRONG)


def claims(runs: Sequence[OptimizerRun]) -> Claims:
    """The claims of section 4 over the seeds, which are all in one run."""
    (run,) = runs
    return _claims(run)


def optimizer_table(run: OptimizerRun) -> Text:
    """Means and standard deviations over the seeds, for each optimiser."""
    test = performance(run.experiment.measure)
    rows = []
    for name, rate in run.experiment.rates.items():
        every = run.of(name)
        compared = undiverged(every)
        steps = number(sum(r.steps for r in every) / len(every))
        measured = [m.write_mean(compared) for m in (test, ALIGNMENT, NORM)]
        rows.append((TITLES[name], f"{rate:g}", *measured, steps, ends(every)))
    header = "optimiser", "rate", test.title, ALIGNMENT.title, "‖K‖, best / first", "steps", "converged"
    text, linear = table(header, rows), linear_fvu(run.results.values())
    if not math.isnan(linear):
        text += f"\n\nA constant has the FVU 1, the best linear predictor {linear:.2f}."
    return Text(text)


def _claims(run: OptimizerRun) -> Claims:
    e, every = run.experiment, list(run.results.values())
    test = performance(e.measure)
    unless = nothing_to_compare(every, run.strong, e.classes)
    rows = [undiverged(run.results[name, seed] for name in e.rates) for seed in e.seeds]
    found = [correlations(results, test) for results in rows]
    claims = {
        kind.lower(): _falls(run, every, kind, [c[kind] for c in found], unless) for kind in ("Pearson", "Spearman")
    }
    return Claims(claims | {"settings": _settings(run)})


def _falls(run: OptimizerRun, every: list[Fitted], kind: str, values: list[float], unless: str) -> Claim:
    title, note = performance(run.experiment.measure).title, without_diverged(every)
    known = [value for value in values if not math.isnan(value)]
    held = sum(map(FALLS.holds, known)), len(known)
    middle = signed(float(np.median(known))) if known else "–"
    ours = middle if len(known) < 2 else f"median {middle}, {signed(min(known))} to {signed(max(known))}"
    compared = known and not unless
    return Claim(
        f"{title} falls with the AGOP alignment ({kind})",
        "the alignment strongly correlates with the test performance (section 4, Fig. 11)",
        ours + (note and f"; {note}"),
        f"{FALLS.words} over the optimisers of a seed",
        of_share(*held) if compared else NOT_COMPARED,
        f"{kind}'s correlation of alignment and {title} over a seed's optimisers is {ours}{note and f'; {note}'}.",
        ("figure 11",),
        held if compared else None,
        why=unless or ("" if known else "there are not three different trainings in any seed"),
    )


def _settings(run: OptimizerRun) -> Claim:
    """Table 3 is a list of settings: it claims nothing."""
    rates = ", ".join(f"{TITLES[name]} {rate:g}" for name, rate in run.experiment.rates.items())
    claim = given("each optimiser has its learning rate", "Table 3", rates, f"The learning rates are {rates}.")
    return replace(claim, tolerance="none; a list of settings", shown_in=("table 3",))
