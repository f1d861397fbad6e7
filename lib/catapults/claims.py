"""What the paper states about an experiment, each statement checked against the run with a stated tolerance."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .display import Text, number, table
from .experiments import GDRun
from .training import LearningRate

REPRODUCED, NOT_REPRODUCED, NOT_COMPARED, GIVEN = "reproduced", "not reproduced", "not compared", "set by us"
VERDICTS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", NOT_COMPARED: "–", GIVEN: "·"}


@dataclass(frozen=True)
class Claim:
    """A statement of the paper; ``sentence`` says in words what the run shows about it."""

    statement: str
    paper: str
    ours: str
    tolerance: str
    verdict: str
    sentence: str


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
        rows = [
            (c.statement, f"{VERDICTS[c.verdict]} {c.verdict}", c.paper, c.ours, c.tolerance) for c in self.values()
        ]
        text = table(("claim", "verdict", "paper", "this run", "tolerance"), rows)
        claims = {name: asdict(claim) for name, claim in self.items()}
        return Text(text, {"kind": "claims", "claims": claims})._repr_mimebundle_()


def gd_catapult(run: GDRun, quoted: Mapping[str, Any]) -> Claims:
    """The claims of sections 2 and 3.1 for one run.

    ``quoted`` holds what the paper quotes: ``critical_learning_rate``, ``learning_rate``, and under ``settings`` the
    parameters they belong to. Values of a run with other settings are not compared.
    """
    return Claims(
        {
            "rate": _rate(run, quoted),
            "spike": _spike(run),
            "norm": _norm(run),
            "top": _top(run),
            "rest": _rest(run),
            "few": _few(run),
            "hessian": _hessian(run),
            "value": _value(run, quoted),
        }
    )


def _verdict(holds: bool | None) -> str:
    return NOT_COMPARED if holds is None else REPRODUCED if holds else NOT_REPRODUCED


def _rate(run: GDRun, quoted: Mapping[str, Any]) -> Claim:
    eta, critical = run.learning_rate, run.critical_learning_rate
    relative = LearningRate.parse(run.experiment.learning_rate).relative
    theirs = "η > η_crit (section 2)"
    if {"learning_rate", "critical_learning_rate"} <= quoted.keys():
        rate, threshold = quoted["learning_rate"], quoted["critical_learning_rate"]
        theirs = f"{number(rate)} > {number(threshold)} ({number(rate / threshold)} times)"
    return Claim(
        "the learning rate exceeds the critical one",
        theirs,
        f"{number(eta)} against {number(critical)} ({number(eta / critical)} times)",
        "none; a multiple that we chose" if relative else "none",
        GIVEN if relative else _verdict(eta > critical),
        f"The learning rate is η = {number(eta)} and the critical one {run.threshold} = {number(critical)} at "
        f"initialisation: η is {number(eta / critical)} times the critical rate"
        + ("." if eta > critical else ", so that no catapult is expected."),
    )


def _spike(run: GDRun) -> Claim:
    loss, peak, back = run.history.loss, run.peak, run.back
    start, end = number(loss[0]), number(loss[-1])
    if run.history.diverged:
        course = f"The loss starts at {start} and diverges: at iteration {len(loss) - 1} it is {end}."
    elif peak == 0:
        course = f"The loss never rises above its initial value of {start} and ends at {end}: no catapult."
    elif back is None:
        course = (
            f"The loss rises from {start} to {number(loss[peak])} at iteration {peak}, but does not come back below "
            f"its initial value; it ends at {end}."
        )
    else:
        course = (
            f"The loss rises from {start} to {number(loss[peak])} at iteration {peak}, is below its initial value "
            f"again at iteration {back} and ends at {end}."
        )
    holds = back is not None and bool(loss[peak] >= 2 * loss[0] and back - peak <= 10 and loss[-1] <= loss[0] / 2)
    return Claim(
        "the loss rises steeply, comes back fast and goes on falling",
        "a catapult (section 2)",
        f"{start} → {number(loss[peak])} (iteration {peak}) → {end}",
        "peak at least 2 times, end at most ½ of the initial loss; below it 10 iterations after the peak",
        _verdict(holds),
        course,
    )


def _norm(run: GDRun) -> Claim:
    norm, eta = run.measured("kernel_norm"), run.learning_rate
    first, last, lowest = norm[0], norm[-1], int(norm.argmin())
    threshold = first * run.critical_learning_rate / eta
    if run.history.diverged:
        course = f"The norm ‖K‖ goes from {number(first)} to {number(last)}, the last that was measured."
    else:
        course = (
            f"The norm ‖K‖ starts at {number(first)}, is at most {number(norm.max())} and at least "
            f"{number(norm[lowest])} (iteration {lowest}), and ends at {number(last)}, "
            + ("below" if last < threshold else "above")
            + f" the line at {number(threshold)}; the critical rate goes from {number(run.critical_learning_rate)} to "
            f"{number(run.history.critical_learning_rate[-1])}."
        )
    return Claim(
        "after the spike the norm of the tangent kernel is lower",
        "‖K‖ decreases (section 2)",
        f"{number(first)} → {number(last)}",
        "none; needs a spike",
        _verdict(run.peak > 0 and not run.history.diverged and bool(last < first)),
        course,
    )


def _top(run: GDRun) -> Claim:
    share, s = run.share_of_spike_in_top, run.experiment.top
    if math.isnan(share):
        ours, course = "no spike", "There is no spike that could be attributed to an eigenspace."
    elif share > 1:
        ours = f"{100 * share:.1f} % of the rise to the peak; the rest falls"
        course = f"All of the loss's rise to its peak lies in the top-{s} eigenspace; meanwhile the rest falls."
    else:
        ours = f"{100 * share:.1f} % of the rise to the peak"
        course = f"Of the loss's rise to its peak, {100 * share:.1f} % lies in the top-{s} eigenspace."
    return Claim(
        f"the spike lies in the top-{s} eigenspace",
        f"L≤{s} has the spike (claim 1)",
        ours,
        "at least 95 %",
        _verdict(None if math.isnan(share) else share >= 0.95),
        course,
    )


def _rest(run: GDRun) -> Claim:
    rise, s, start = run.largest_rise_of_rest, run.experiment.top, run.history.loss_rest[0]
    name = rf"$\mathcal{{L}}_{{>{s}}}$"
    if rise < 1e-3:
        course = f"The rest, {name}, starts at {number(start)} and never rises by more than 0.1 % of that."
    else:
        course = (
            f"The rest, {name}, starts at {number(start)} and at its largest rise is {100 * rise:.1f} % of that above "
            "its lowest value so far."
        )
    return Claim(
        f"the rest of the loss, L>{s}, decreases almost monotonically",
        "monotone (claim 1), almost (Fig. 3)",
        f"largest rise {100 * rise:.1f} % of its initial value",
        "at most 5 %",
        _verdict(None if run.history.diverged else rise <= 0.05),
        course,
    )


def _few(run: GDRun) -> Claim:
    most = int(run.history.unstable_directions.max())
    return Claim(
        "a few eigendirections are unstable",
        "some, no more than 10 (remark 1)",
        f"at most {most} at a time",
        "1 to 10",
        _verdict(None if run.history.diverged else 1 <= most <= 10),
        "In no eigendirection and at no iteration does η exceed the critical rate."
        if most == 0
        else f"The largest number of eigendirections in which η exceeds the critical rate at the same time is {most}.",
    )


def _hessian(run: GDRun) -> Claim:
    critical, exact = run.critical_learning_rate, run.hessian_critical_learning_rate
    difference = abs(critical / exact - 1)
    return Claim(
        f"{run.threshold} approximates the critical rate of the Hessian",
        "close for wide networks (appendix A)",
        f"{number(critical)} against {number(exact)}",
        "± 15 %",
        _verdict(difference <= 0.15),
        f"The Hessian of the loss at initialisation gives 2/λ = {number(exact)}, the kernel {run.threshold} = "
        f"{number(critical)}: they differ by {100 * difference:.1f} %.",
    )


def _value(run: GDRun, quoted: Mapping[str, Any]) -> Claim:
    theirs, ours = quoted.get("critical_learning_rate"), run.critical_learning_rate
    other = {
        name: (getattr(run.experiment, name), value)
        for name, value in quoted.get("settings", {}).items()
        if getattr(run.experiment, name) != value
    }
    if theirs is None:
        holds, course = None, "The paper quotes no critical rate for these parameters."
    elif other:
        holds = None
        course = (
            f"The paper quotes the critical rate {number(theirs)}, ours is {number(ours)}; but it is for other "
            "settings: " + ", ".join(f"{name} = {b!r} there, {a!r} here" for name, (a, b) in other.items()) + "."
        )
    else:
        holds = 0.5 <= ours / theirs <= 2
        course = f"The paper quotes the critical rate {number(theirs)}; ours is {number(ours / theirs)} times that."
    return Claim(
        "the critical learning rate at initialisation",
        "none quoted" if theirs is None else number(theirs),
        number(ours),
        "other settings" if other else "factor 2; the gain was chosen to come near",
        _verdict(holds),
        course,
    )
