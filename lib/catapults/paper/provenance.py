"""Where what a page shows comes from: when, where and by which code its results were computed, and what has changed."""

import os
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Literal

from .. import __version__
from ..compute import Results, record
from ..compute.files import Damaged, about
from ..compute.made import Made, commit
from ..compute.sweep import Outcome
from ..display import Text, number, table
from ..experiments import Experiment, Page

PRESET = "CATAPULTS_PRESET"  # set by the build command for the notebooks it executes
Origin = Literal["record", "store", "now"]
_ORIGINS: dict[Origin, str] = {
    "record": "from the record",
    "store": "computed earlier on this machine",
    "now": "computed for this page",
}


def provenance(page: Page, results: Results | None = None) -> Text:
    """The box at the end of a page. Its data has the same facts. ``results``: none of a page without experiments."""
    facts = _of_none() if results is None else _of_results(outcomes_of(page.experiments(), results))
    facts["this page"] = _executed()
    return Text(table(("what made this page", "details"), facts.items()), {"kind": "provenance"} | facts)


def _of_results(outcomes: Sequence[Outcome]) -> dict[str, str]:
    made = [outcome.made for outcome in outcomes]
    return {
        "results": f"{len(outcomes)}: {', '.join(origins(outcomes))}",
        "computed": _dates(made),
        "on": _counted(m["device"] for m in made),
        "by the code at commit": _counted(m["commit"] for m in made),
        "with": "; ".join(_versions(made)),
        "which took": f"{number(sum(m['seconds'] for m in made))} s of one core in all",
        "changed since": _changed(outcomes),
    }


def _of_none() -> dict[str, str]:
    """Of a page without experiments."""
    return {
        "results": "none of the record or the store: the page trains what it shows",
        "computed": "while the page was executed",
        "on": f"cpu ({platform.machine()})",
        "with": "; ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "scipy")),
        "changed since": "nothing: where the library's code has changed, the page is executed again",
    }


def outcomes_of(experiments: Iterable[Experiment], results: Results) -> list[Outcome]:
    """Of different experiments, each once."""
    return [results.outcomes[key] for key in dict.fromkeys(experiment.key for experiment in experiments)]


def origin(outcome: Outcome) -> Origin:
    """Where a result was found, or that it was computed."""
    if outcome.computed:
        return "now"
    place = record.path(outcome.experiment)
    try:
        recorded = place is not None and place.exists() and about(place)["made"] == outcome.made
    except Damaged:
        recorded = False
    return "record" if recorded else "store"


def origins(outcomes: Sequence[Outcome]) -> list[str]:
    """How many of the results come from where, in words."""
    counts = Counter(map(origin, outcomes))
    if len(counts) == 1:
        return [("all " if len(outcomes) > 1 else "") + _ORIGINS[next(iter(counts))]]
    return [f"{counts[where]} {words}" for where, words in _ORIGINS.items() if where in counts]


def _dates(made: Sequence[Made]) -> str:
    dates = sorted(m["date"] for m in made)
    return dates[0] if dates[0] == dates[-1] else f"between {dates[0]} and {dates[-1]}"


def _versions(made: Sequence[Made]) -> list[str]:
    names = ("catapults", "python", "torch", "numpy", "scipy")
    return [f"{'Python' if name == 'python' else name} {_counted(m['versions'][name] for m in made)}" for name in names]


def _counted(values: Iterable[Any]) -> str:
    """The one value, or all with their numbers."""
    counts = Counter(values)
    if len(counts) == 1:
        return str(next(iter(counts)))
    return ", ".join(f"{value} ({count} of them)" for value, count in counts.most_common())


def _changed(outcomes: Sequence[Outcome]) -> str:
    """The modules, for results of the record."""
    behind = [outcome for outcome in outcomes if outcome.changed]
    if not behind:
        return "nothing: today's code would compute them in the same way"
    modules = ", ".join(f"`{name}`" for name in sorted({name for outcome in behind for name in outcome.changed}))
    which = "all results" if len(behind) == len(outcomes) else f"{len(behind)} of the {len(outcomes)} results"
    return f"{modules}, through which the trainings of {which} ran"


def _executed() -> str:
    preset = os.environ.get(PRESET)
    how = "by itself, without a preset" if preset is None else f"in the preset {preset}"
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"executed {when} {how}, by catapults {__version__} at commit {commit()}, Python {platform.python_version()}"
