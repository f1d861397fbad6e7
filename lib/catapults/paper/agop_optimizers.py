"""What the paper states about optimisers: test performance goes with the alignment of the AGOP (Fig. 11)."""

import math
from collections.abc import Sequence

from ..display import Text, number, table
from ..experiments.agop_optimizers import TITLES, OptimizerRun
from ..experiments.fits import Fitted, undiverged
from .claims import Claim, Claims, over_seeds, verdict
from .correlation import STRONG, correlations, signed
from .measurements import ALIGNMENT, ends, performance, without_diverged


def claims(runs: Sequence[OptimizerRun]) -> Claims:
    """The claims of section 4 on each run."""
    return over_seeds([_claims(run) for run in runs])


def optimizer_table(run: OptimizerRun) -> Text:
    """Means and standard deviations over the seeds, for each optimiser."""
    test = performance(run.experiment.measure)
    rows = []
    for name, rate in run.experiment.rates.items():
        every = run.of(name)
        compared = undiverged(every)
        steps = number(sum(r.steps for r in every) / len(every))
        measured = test.write_mean(compared), ALIGNMENT.write_mean(compared)
        rows.append((TITLES[name], f"{rate:g}", *measured, steps, ends(every)))
    return Text(table(("optimiser", "rate", test.title, ALIGNMENT.title, "steps", "converged"), rows))


def _claims(run: OptimizerRun) -> Claims:
    every = list(run.results.values())
    found = correlations(undiverged(every), performance(run.experiment.measure))
    return Claims({kind.lower(): _falls(run, every, kind, value) for kind, value in found.items()})


def _falls(run: OptimizerRun, every: list[Fitted], kind: str, found: float) -> Claim:
    title, note = performance(run.experiment.measure).title, without_diverged(every)
    return Claim(
        f"{title} falls with the AGOP alignment ({kind})",
        "the alignment strongly correlates with the test performance (section 4, Fig. 11)",
        signed(found) + (note and f"; {note}"),
        f"at most −{STRONG:g}",
        verdict(None if math.isnan(found) else found <= -STRONG),
        f"{kind}'s correlation of alignment and {title} over {len(undiverged(every))} trainings is {signed(found)}"
        f"{note and f'; {note}'}.",
    )
