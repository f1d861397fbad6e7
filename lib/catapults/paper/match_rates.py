"""What the paper states about how often the loss rises where the rate exceeds the batch's critical one (Table 2)."""

import math
from collections.abc import Mapping
from typing import Any

from ..display import Text, number, table
from ..experiments.match_rates import ABOVE, NETWORK, NETWORKS, MatchRun, Rates
from .claims import Claim, Claims, verdict
from .sgd_spikes import READINGS

POINTS = 5.0  # percentage points that our mean may lie below the paper's


def claims(run: MatchRun, quoted: Mapping[str, Any]) -> Claims:
    """Table 2's three rows, which count the total training loss; and the same by the loss of the step's batch.

    ``quoted`` may hold the paper's mean and standard deviation in per cent, ``fcn`` and ``fcn_deviation`` and so on.
    """
    return Claims(
        {
            f"{name}_{reading}": _rate(NETWORKS[name], rates, reading, _quoted(quoted if counts else {}, name))
            for name, rates in run.networks.items()
            for reading, counts in (("whole", True), ("batch", False))  # what the paper counts
        }
    )


def rate_table(run: MatchRun, quoted: Mapping[str, Any]) -> Text:
    """Table 2 with both readings beside the paper's figures."""
    rows = [
        (
            NETWORKS[name],
            _plus_minus(*_quoted(quoted, name)),
            *(_plus_minus(*rates.percent(reading)) for reading in READINGS),
            _counts(rates, "whole"),
            _listed(rates.spikes),
        )
        for name, rates in run.networks.items()
    ]
    header = ("network", "paper", *READINGS.values(), "rises of the whole set's loss, by seed", "spikes, by seed")
    return Text(table(header, rows))


def search_table(run: MatchRun, quoted: Mapping[str, Any]) -> Text:
    """Every setting that was tried for the reading by the whole set's loss, those of the table above first."""
    tried = [({NETWORK: name}, rates) for name, rates in run.networks.items()]
    tried += zip(run.experiment.search, run.search, strict=True)
    rows = []
    for setting, rates in sorted(tried, key=lambda row: list(NETWORKS).index(row[0][NETWORK])):
        name = setting[NETWORK]
        mean, deviation = rates.percent("whole")
        meets = _meets(mean, _quoted(quoted, name)[0])
        ends = [run.history for run in rates.runs]
        rows.append(
            (
                NETWORKS[name],
                _changes(setting),
                _plus_minus(mean, deviation),
                "–" if meets is None else "yes" if meets else "no",
                _counts(rates, "whole"),
                _listed(rates.spikes),
                f"{sum(h.converged for h in ends)} of {len(ends)}"
                + (f", {sum(h.diverged for h in ends)} diverged" if any(h.diverged for h in ends) else ""),
            )
        )
    header = ("network", "changed", "match rate", "meets the paper's", "rises, by seed", "spikes, by seed", "converged")
    return Text(table(header, rows))


def search_result(run: MatchRun, quoted: Mapping[str, Any]) -> Text:
    """What the search found for each network, as prose."""
    sentences = []
    for name, rates in run.networks.items():
        tried = [rates] + [r for s, r in zip(run.experiment.search, run.search, strict=True) if s[NETWORK] == name]
        known = [mean for r in tried if math.isfinite(mean := r.percent("whole")[0])]
        if not known:
            continue
        theirs = _quoted(quoted, name)
        meeting = sum(bool(_meets(rate, theirs[0])) for rate in known)
        low, high = (number(pick(known)) for pick in (min, max))
        title = f"{NETWORKS[name][0].upper()}{NETWORKS[name][1:]}"
        text = f"{title}: of {len(known)} settings with a rate they range from {low} % to {high} %"
        sentences.append(text + ("." if math.isnan(theirs[0]) else f", and {meeting} meet the paper's."))
    return Text(" ".join(sentences))


def _quoted(quoted: Mapping[str, Any], name: str) -> tuple[float, float]:
    """The paper's mean and standard deviation for a network; NaN where not quoted."""
    return quoted.get(name, math.nan), quoted.get(f"{name}_deviation", math.nan)


def _rate(network: str, rates: Rates, reading: str, theirs: tuple[float, float]) -> Claim:
    mean, deviation = rates.percent(reading)
    ours = _plus_minus(mean, deviation)
    return Claim(
        f"{network}: η > η_crit(X_batch) where {READINGS[reading]} rises",
        "not quoted" if math.isnan(theirs[0]) else f"{_plus_minus(*theirs)} (Table 2)",
        ours,
        f"at most {POINTS:g} percentage points lower; runs that diverge do not count",
        verdict(_meets(mean, theirs[0])),
        f"For the {network} the match rate by {READINGS[reading]} is {ours}"
        + ("." if math.isnan(theirs[0]) else f"; the paper has {_plus_minus(*theirs)}."),
    )


def _meets(mean: float, theirs: float) -> bool | None:
    """Whether a match rate is as high as the paper's; None where either is unknown."""
    return None if math.isnan(theirs) or math.isnan(mean) else mean >= theirs - POINTS


def _plus_minus(mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return "–"
    return f"{mean:.1f} %" if math.isnan(deviation) else f"{mean:.1f} ± {deviation:.1f} %"


def _counts(rates: Rates, reading: str) -> str:
    return ", ".join(f"{m.hits} of {m.rises}" for m in rates.counts[reading])


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values))


def _changes(setting: Mapping[str, Any]) -> str:
    """What a setting of the search changes, in words."""
    words = [f"`{name} = {value!r}`" for name, value in setting.items() if name not in (NETWORK, ABOVE)]
    if ABOVE in setting:
        words.append(f"only rises by more than {100 * setting[ABOVE]:g} %")
    return ", ".join(words) or "nothing: as above"
