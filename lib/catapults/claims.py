"""What the paper states about an experiment, each statement checked against the run with a stated tolerance."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from .display import Text, number, table
from .experiments import GDRun

REPRODUCED, NOT_REPRODUCED, NOT_COMPARED = "reproduced", "not reproduced", "not compared"
_MARK = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", NOT_COMPARED: "–"}


@dataclass(frozen=True)
class Claim:
    """``holds`` is None where the paper gives nothing to compare with."""

    statement: str
    paper: str
    ours: str
    tolerance: str
    holds: bool | None
    sentence: str = ""

    @property
    def verdict(self) -> str:
        return {True: REPRODUCED, False: NOT_REPRODUCED, None: NOT_COMPARED}[self.holds]


class Claims(Mapping[str, Claim]):
    """Claims by name. As the last line of a notebook's cell it shows their table."""

    def __init__(self, claims: dict[str, Claim]):
        self._claims = claims

    def __getitem__(self, name: str) -> Claim:
        return self._claims[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    def __len__(self) -> int:
        return len(self._claims)

    def say(self, *names: str) -> Text:
        """What the run shows about some claims, as prose."""
        return Text(" ".join(self[name].sentence for name in names))

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        rows = [(c.statement, c.paper, c.ours, c.tolerance, f"{_MARK[c.verdict]} {c.verdict}") for c in self.values()]
        text = table(("claim", "paper", "this run", "tolerance", "verdict"), rows)
        claims = {name: asdict(claim) | {"verdict": claim.verdict} for name, claim in self.items()}
        return Text(text, {"kind": "claims", "claims": claims})._repr_mimebundle_()


def gd_catapult(run: GDRun, quoted: dict[str, float]) -> Claims:
    """The claims of section 3.1 for one run.

    ``quoted`` holds the values that the paper quotes for it; ``critical_learning_rate`` is used.
    """
    h, eta, critical, s = run.history, run.learning_rate, run.critical_learning_rate, run.experiment.top
    first, last, peak = h.steps[0], h.steps[-1], h.steps[run.peak]
    spiked = run.peak > 0 and not h.diverged

    rate = Claim(
        "the learning rate exceeds the critical one",
        "η > n/‖K‖",
        f"η = {number(eta)}, n/‖K‖ = {number(critical)}",
        "none",
        eta > critical,
        f"The learning rate is η = {number(eta)} and the critical one n/‖K‖ = {number(critical)} at initialisation: η "
        f"is {number(eta / critical)} times the critical rate"
        + ("." if eta > critical else ", so that no catapult is expected."),
    )
    if h.diverged:
        course = (
            f"The loss starts at {number(first.loss)} and diverges: at iteration {last.iteration} it is "
            f"{number(last.loss)}."
        )
    elif not spiked:
        course = (
            f"The loss never rises above its initial value of {number(first.loss)} and ends at {number(last.loss)}: "
            "no catapult."
        )
    else:
        course = f"The loss rises from {number(first.loss)} to {number(peak.loss)} at iteration {run.peak}, " + (
            f"is below its initial value again at iteration {run.back} and ends at {number(last.loss)}."
            if run.back is not None
            else f"but does not come back below its initial value; it ends at {number(last.loss)}."
        )
    spike = Claim(
        "the loss spikes and comes back",
        "rise, then convergence",
        f"{number(first.loss)} → {number(peak.loss)} (iteration {run.peak}) → {number(last.loss)}",
        "peak ≥ 1.1 × initial loss, end below the initial loss",
        spiked and peak.loss >= 1.1 * first.loss and last.loss < first.loss,
        course,
    )
    norm = Claim(
        "the norm of the tangent kernel ends lower",
        "‖K‖ decreases",
        f"{number(first.kernel_norm)} → {number(last.kernel_norm)}",
        "none",
        last.kernel_norm < first.kernel_norm,
        f"The norm ‖K‖ goes from {number(first.kernel_norm)} to {number(last.kernel_norm)}, so that the critical rate "
        f"n/‖K‖ goes from {number(critical)} to {number(last.critical_learning_rate)}"
        + (f", above the learning rate {number(eta)}." if last.critical_learning_rate > eta else "."),
    )
    share, rise = run.share_of_spike_in_top, run.largest_rise_of_rest
    top = Claim(
        f"the spike lies in the top-{s} eigenspace",
        f"only L≤{s} spikes",
        "no spike" if math.isnan(share) else f"{100 * share:.1f} % of the rise to the peak",
        "≥ 95 %",
        share >= 0.95,
        "There is no spike to attribute."
        if math.isnan(share)
        else f"Of the rise of the loss to its peak, {100 * share:.1f} % lies in the top-{s} eigenspace"
        + (" (over 100 %, since the rest falls meanwhile)." if share > 1 else "."),
    )
    rest = Claim(
        f"the rest of the loss, L>{s}, decreases almost monotonically",
        "almost monotone",
        f"largest rise {100 * rise:.1f} % of its initial value",
        "≤ 5 %",
        rise <= 0.05,
        f"The rest, L>{s}, starts at {number(first.loss_rest)} and "
        + (
            "never rises."
            if rise < 1e-3
            else f"rises above its lowest value so far by at most {100 * rise:.1f} % of its start."
        ),
    )
    few = Claim(
        "few eigendirections are unstable",
        "at most 10 (remark 1)",
        f"at most {h.unstable_directions.max()} at a time",
        "≤ 10",
        bool(h.unstable_directions.max() <= 10),
        f"At no iteration does η exceed n/λᵢ in more than {h.unstable_directions.max()} eigendirection"
        f"{'' if h.unstable_directions.max() == 1 else 's'}.",
    )
    theirs = quoted.get("critical_learning_rate")
    value = Claim(
        "the critical learning rate at initialisation",
        "no value given" if theirs is None else number(theirs),
        number(critical),
        "± 20 %",
        None if theirs is None else abs(critical / theirs - 1) <= 0.2,
        ""
        if theirs is None
        else f"The paper quotes the critical rate {number(theirs)}; ours is {number(critical / theirs)} times that.",
    )
    exact = run.hessian_critical_learning_rate
    hessian = Claim(
        "n/‖K‖ approximates the critical rate of the Hessian",
        "close (appendix A)",
        f"{number(critical)} against {number(exact)}",
        "± 15 %",
        abs(critical / exact - 1) <= 0.15,
        f"The Hessian of the loss at initialisation gives 2/λ = {number(exact)}, the kernel n/‖K‖ = "
        f"{number(critical)}: they differ by {100 * abs(critical / exact - 1):.1f} %.",
    )
    return Claims(
        {
            "rate": rate, "spike": spike, "norm": norm, "top": top, "rest": rest, "few": few, "hessian": hessian,
            "value": value,
        }
    )  # fmt: skip
