"""What the paper states about optimisers: test performance goes with the alignment of the AGOP (Fig. 11)."""

import math

from ..display import Text, number, table
from ..experiments.agop_optimizers import TITLES, OptimizerRun
from ..experiments.learning import mean_and_deviation, performance_name, performances
from .claims import Claim, Claims, verdict
from .correlation import STRONG, pearson, plus_minus, signed, spearman


def claims(run: OptimizerRun) -> Claims:
    """The claims of section 4 for one run."""
    return Claims({"pearson": _correlation(run, "Pearson"), "spearman": _correlation(run, "Spearman")})


def optimizer_table(run: OptimizerRun) -> Text:
    """Means and standard deviations over the seeds, for each optimiser."""
    e = run.experiment
    title = performance_name(e.dataset)
    rows = []
    for name, rate in e.rates.items():
        m = {what: mean_and_deviation(values) for what, values in run.measured(name).items()}
        results = run.of(name)
        test = plus_minus(*m["test"], digits=3) if title == "test loss" else plus_minus(*m["test"], 1, 100, " %")
        ends = f"{sum(r.converged for r in results)} of {len(results)}"
        if diverged := sum(r.diverged for r in results):
            ends += f", {diverged} diverge"
        steps = number(sum(len(r.batch_loss) for r in results) / len(results))
        rows.append((TITLES[name], f"{rate:g}", test, plus_minus(*m["alignment"], digits=3), steps, ends))
    return Text(table(("optimiser", "rate", title, "alignment", "steps", "converged"), rows))


def _correlation(run: OptimizerRun, kind: str) -> Claim:
    results = list(run.results.values())
    title = performance_name(run.experiment.dataset)
    values, alignments = performances(results, run.experiment.dataset), [r.alignment for r in results]
    found = {"Pearson": pearson, "Spearman": spearman}[kind](alignments, values)
    return Claim(
        f"{title} falls with the AGOP alignment ({kind})",
        "the alignment strongly correlates with the test performance (section 4, Fig. 11)",
        signed(found),
        f"at most −{STRONG:g}",
        verdict(None if math.isnan(found) else found <= -STRONG),
        f"Over all {len(results)} trainings {kind}'s correlation of alignment and {title} is {signed(found)}.",
    )
