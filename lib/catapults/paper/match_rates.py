"""What the paper states about how often the loss rises where the rate exceeds the batch's critical one (Table 2)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..display import Text, number, table
from ..experiments.match_rates import ABOVE, NETWORK, NETWORKS, MatchRun, Rates
from ..experiments.sgd_spikes import READINGS, Reading
from . import quotes
from .claims import COMPARED, NOT_COMPARED, OURS, Claim, Claims, Tolerance, at_least, of_share
from .quotes import MatchRate

POINTS = 5.0  # percentage points that a seed's match rate may lie below the paper's mean
EXPLAINED = at_least(75, "{:g} % of the rises")
TAUTOLOGY = "to first order it holds for every training: the descent lemma"


def claims(runs: Sequence[MatchRun]) -> Claims:
    """Table 2's three rows, which count the total training loss, over the seeds; the same by the loss of the step's
    batch, which is close to a tautology; and how many rises the break-even rate explains."""
    (run,) = runs  # all seeds together
    quoted = quotes.match_rates(run.experiment)
    found = {}
    for name, rates in run.networks.items():
        found[f"{name}_whole"] = _rate(NETWORKS[name], rates, "whole", quoted.get(name))
        found[f"{name}_batch"] = _rate(NETWORKS[name], rates, "batch", None)
        found[f"{name}_explained"] = _explained(NETWORKS[name], rates)
    return Claims(found)


def rate_table(run: MatchRun) -> Text:
    """Table 2 with both readings beside the paper's figures, and what they would be if the loss rose at random."""
    quoted = quotes.match_rates(run.experiment)
    rows = [
        (
            NETWORKS[name],
            _percent(quoted[name]) if name in quoted else "–",
            *(_plus_minus(*rates.percent(reading)) for reading in READINGS),
            _plus_minus(rates.base("whole"), math.nan),
            _counts(rates, "whole"),
            _listed(rates.spikes),
        )
        for name, rates in run.networks.items()
    ]
    header = ("network", "paper", *READINGS.values(), "η > η_crit, of all steps")
    return Text(table((*header, "rises of the whole set's loss, by seed", "spikes, by seed"), rows))


def parts_table(run: MatchRun) -> Text:
    """What a match rate is made of, beta p / (beta p + (1 - beta) q), and what the break-even rate explains; for every
    setting whose trainings measured it."""
    tried = [({NETWORK: name}, rates) for name, rates in run.networks.items()]
    tried += [s for s in zip(run.experiment.search, run.search, strict=True) if ABOVE not in s[0]]
    rows = []
    for setting, rates in sorted(tried, key=lambda row: list(NETWORKS).index(row[0][NETWORK])):
        of = rates.parts("whole")
        lift = number(of["p"] / of["q"]) if of["q"] > 0 and of["p"] >= 0 else "–"
        named = (NETWORKS[setting[NETWORK]], _changes(setting), _plus_minus(*rates.percent("whole")))
        shares = (_plus_minus(of[name], math.nan) for name in ("beta", "p", "q"))
        rows.append(
            (*named, *shares, lift, _plus_minus(*rates.explained("rate")), _plus_minus(*rates.explained("right")))
        )
    header = (
        "network",
        "changed",
        "match rate",
        "β: steps above",
        "p: rises of these",
        "q: rises of the others",
        "p / q",
    )
    return Text(table((*header, "rises with η > η*_whole", "steps where this rule is right"), rows))


def search_table(run: MatchRun) -> Text:
    """Every setting that was tried for the reading by the whole set's loss, those of the table above first."""
    quoted = quotes.match_rates(run.experiment)
    tried = [({NETWORK: name}, rates) for name, rates in run.networks.items()]
    tried += zip(run.experiment.search, run.search, strict=True)
    rows = []
    for setting, rates in sorted(tried, key=lambda row: list(NETWORKS).index(row[0][NETWORK])):
        name = setting[NETWORK]
        mean, deviation = rates.percent("whole")
        meets = _meets(mean, quoted.get(name))
        ends = [run.history for run in rates.runs]
        rows.append(
            (
                NETWORKS[name],
                _changes(setting),
                _plus_minus(mean, deviation),
                _plus_minus(rates.base("whole"), math.nan),
                "–" if meets is None else "yes" if meets else "no",
                _counts(rates, "whole"),
                _listed(rates.spikes),
                f"{sum(h.converged for h in ends)} of {len(ends)}"
                + (f", {sum(h.diverged for h in ends)} diverged" if any(h.diverged for h in ends) else ""),
            )
        )
    header = ("network", "changed", "match rate", "η > η_crit, of all steps", "meets the paper's")
    return Text(table((*header, "rises, by seed", "spikes, by seed", "converged"), rows))


def search_result(run: MatchRun) -> Text:
    """What the search found for each network, as prose."""
    quoted = quotes.match_rates(run.experiment)
    sentences = []
    for name, rates in run.networks.items():
        tried = [rates] + [r for s, r in zip(run.experiment.search, run.search, strict=True) if s[NETWORK] == name]
        known = [mean for r in tried if math.isfinite(mean := r.percent("whole")[0])]
        if not known:
            continue
        theirs = quoted.get(name)
        meeting = sum(bool(_meets(rate, theirs)) for rate in known)
        low, high = (number(pick(known)) for pick in (min, max))
        settings = "1 setting" if len(known) == 1 else f"{len(known)} settings"
        text = f"For the {NETWORKS[name]}, {settings} gave a match rate, from {low} % to {high} %"
        sentences.append(
            text + ("." if theirs is None else f"; {meeting} of these meet the paper's {_percent(theirs)}.")
        )
    return Text(" ".join(sentences))


def _rate(network: str, rates: Rates, reading: Reading, theirs: MatchRate | None) -> Claim:
    """Of the paper's, or with ``theirs`` None one that is only shown."""
    mean, deviation = rates.percent(reading)
    e = rates.runs[0].experiment
    elsewhere = "" if theirs is None else theirs.elsewhere(e)
    ours = _plus_minus(mean, deviation)
    if not math.isnan(mean):
        ours += f" (of all steps {_plus_minus(rates.base(reading), math.nan)})"
    chosen = ""
    if theirs is not None and e.learning_rate != theirs.learning_rate:
        rate = str(e.learning_rate).replace("eta_crit", "η_crit")
        chosen = f"; at a rate that we chose, {rate}, not the paper's {number(theirs.learning_rate)}"
    sentence = f"For the {network}, η > η_crit(X_batch) on {_plus_minus(mean, deviation)} of the steps on which "
    sentence += f"{READINGS[reading]} rises"
    sentence += "." if math.isnan(mean) else f", and on {_plus_minus(rates.base(reading), math.nan)} of all steps."
    if theirs is not None:
        sentence += f" The paper has {_percent(theirs)}{f' for other settings: {elsewhere}' if elsewhere else ''}."
    why = "the paper has other settings: " + elsewhere if elsewhere else ""
    if theirs is None:
        why = TAUTOLOGY if reading == "batch" else "the paper states none"
    least = Tolerance(
        f"in each seed at most {POINTS:g} percentage points below the paper's; runs that diverge do not count{chosen}",
        lambda rate: rate >= (0 if theirs is None else theirs.mean) - POINTS,
    )
    return _over(
        f"{network}: η > η_crit(X_batch) where {READINGS[reading]} rises",
        "not quoted" if theirs is None else f"{_percent(theirs)} ({theirs.where})",
        ours,
        least,
        rates.by_seed(reading),
        sentence,
        why,
        (OURS,) if theirs is None else (),
    )


def _explained(network: str, rates: Rates) -> Claim:
    mean, deviation = rates.explained("rate")
    right = _plus_minus(*rates.explained("right"))
    return _over(
        f"{network}: the whole set's loss rises where η exceeds the step's break-even rate η*_whole",
        "ours: the first-order theory of one step",
        f"{_plus_minus(mean, deviation)} of the rises; right at {right} of the steps",
        EXPLAINED,
        [100 * e.rate for e in rates.of_steps],
        f"For the {network}, η > η*_whole on {_plus_minus(mean, deviation)} of the steps on which the loss of the "
        f"whole training set rises. The rule is right at {right} of all steps.",
        "" if rates.of_steps else "not measured",
        (OURS,),
    )


def _over(
    statement: str,
    paper: str,
    ours: str,
    tolerance: Tolerance,
    values: Sequence[float],
    sentence: str,
    why: str,
    shown_in: tuple[str, ...],
) -> Claim:
    """A claim with one value a seed; ``why`` it is not compared, if it is not."""
    verdicts = [v for v in map(tolerance.judge, values) if v in COMPARED]
    held = (sum(tolerance.holds(v) for v in values if not math.isnan(v)), len(verdicts))
    if why or not verdicts:
        why = why or "no training has a rise"
        return Claim(statement, paper, ours, tolerance.words, NOT_COMPARED, sentence, shown_in, why=why)
    return Claim(statement, paper, ours, tolerance.words, of_share(*held), sentence, shown_in, held)


def _meets(mean: float, theirs: MatchRate | None) -> bool | None:
    """Whether a match rate is as high as the paper's; None where either is unknown."""
    return None if theirs is None or math.isnan(mean) else mean >= theirs.mean - POINTS


def _percent(quote: MatchRate) -> str:
    return _plus_minus(quote.mean, quote.deviation)


def _plus_minus(mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return "–"
    return f"{mean:.1f} %" if math.isnan(deviation) else f"{mean:.1f} ± {deviation:.1f} %"


def _counts(rates: Rates, reading: Reading) -> str:
    return ", ".join(f"{m.hits} of {m.rises}" for m in rates.counts[reading])


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values))


def _changes(setting: Mapping[str, Any]) -> str:
    """What a setting of the search changes, in words."""
    words = [f"`{name} = {value!r}`" for name, value in setting.items() if name not in (NETWORK, ABOVE)]
    if ABOVE in setting:
        words.append(f"only rises by more than {100 * setting[ABOVE]:g} %")
    return ", ".join(words) or "nothing: as above"
