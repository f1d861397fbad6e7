"""What each run of the book shows: results, obtained in one sweep for all runs, and the claims that they decide."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from ..compute import Results, estimate, sweep
from ..compute.made import Made
from ..compute.sweep import Outcome, look_up
from ..experiments import Experiment, Page
from ..paper import Claims, judge
from .project import refusals
from .runs import Run

AFFORDABLE = 20.0  # seconds of a core, estimated, that a page of the preset ``book`` may train while the book is built
DATA_MISSING, FAILED, NOT_COMPUTED = "data set missing", "the run failed", "not computed yet"


@dataclass(frozen=True)
class Sheet:
    """A run under a preset, and what became of it.

    ``outcomes``: of its page's experiments and of what these need, by key, where something is known of them.
    ``claims``: none where a result is missing. ``notebook``: executed, at ``path``; ``None`` where it was not.
    ``failure``: of judging the claims or of executing the notebook.
    """

    run: Run
    preset: str
    page: Page
    outcomes: Mapping[str, Outcome]
    claims: Claims = field(default_factory=lambda: Claims({}))
    notebook: nbformat.NotebookNode | None = None
    path: Path | None = None
    cached: bool = False
    failure: str = ""

    @property
    def values(self) -> Mapping[str, Any]:
        """All parameters of its notebook."""
        return self.run.settings[self.preset]

    @property
    def device(self) -> str:
        """Where its notebook computes what is missing."""
        return self.values.get("device", "auto")

    @property
    def results(self) -> Results:
        return Results(self.outcomes)

    @functools.cached_property
    def absent(self) -> list[Experiment]:
        """What has to be trained before it can be shown."""
        return absent(self.page, self.outcomes)

    @property
    def complete(self) -> bool:
        """Whether it can be shown: all results are there, and the claims could be judged."""
        return not self.absent and not self.failure

    @property
    def state(self) -> str:
        """Why it cannot be shown, in a few words; empty where it can."""
        if self.failure:
            return FAILED
        if not self.absent:
            return ""
        failures = self._failures
        if any(_lacks_data(outcome) for outcome in failures):
            return DATA_MISSING
        return FAILED if any(not outcome.unfinished for outcome in failures) else NOT_COMPUTED

    @property
    def reason(self) -> str:
        """The same at length, with what to do."""
        if self.failure:
            return self.failure
        failures = self._failures
        if any(map(_lacks_data, failures)):
            failures = list(filter(_lacks_data, failures))
        if failures:
            return "\n\n".join(dict.fromkeys(outcome.failure for outcome in failures))
        number, seconds = len(self.absent), sum(map(estimate.seconds, self.absent))
        return (
            f"{number} training{'s are' if number > 1 else ' is'} missing from the record and from this machine. To "
            f"compute {'them' if number > 1 else 'it'}, which takes about {duration(seconds)} on one core, or less:\n\n"
            f"catapults compute {self.run.name}{'' if self.preset == 'book' else f' --preset {self.preset}'}"
        )

    @property
    def _failures(self) -> list[Outcome]:
        found = (self.outcomes.get(experiment.key) for experiment in self.absent)
        return [outcome for outcome in found if outcome is not None and outcome.failure]

    @functools.cached_property
    def made(self) -> list[Made]:
        """What made each of its results."""
        found = (self.outcomes.get(experiment.key) for experiment in self.page.experiments())
        return [outcome.made for outcome in found if outcome is not None and not outcome.failure]

    @property
    def cost(self) -> str:
        """How long its results took to compute, and on what; empty where there are none."""
        made = self.made
        devices = ", ".join(dict.fromkeys(m["device"] for m in made))
        return f"{duration(sum(m['seconds'] for m in made))} on {devices}" if made else ""

    @property
    def source(self) -> str:
        """A sentence on its data for each of the sources that its results name."""
        sources = (getattr(result, "source", "") for result in self.results.values())
        return " ".join(dict.fromkeys(source for source in sources if source))


def obtain(runs: Mapping[str, Run], preset: str, say: Callable[[str], None]) -> dict[str, Sheet]:
    """The runs' sheets by name, with their results: those stored or recorded, and those that are trained here and now.

    In the preset ``book`` these are the trainings of pages that lack no more than ``AFFORDABLE`` seconds of them; in
    any other all. Raises :class:`catapults.compute.files.Damaged` for a damaged record, and
    :class:`catapults.experiments.ParameterError` for what this machine cannot hold, before any work.
    """
    pages = {name: run.page(preset) for name, run in runs.items()}
    outcomes = look_up(list({e.key: e for page in pages.values() for e in page.experiments()}.values()))
    wanted: dict[str, Experiment] = {}
    for page in pages.values():
        lacking = absent(page, outcomes)
        if preset != "book" or sum(map(estimate.seconds, lacking)) <= AFFORDABLE:
            wanted |= {experiment.key: experiment for experiment in lacking}
    if wanted:
        say(f"{len(wanted)} training{'s' * (len(wanted) > 1)} to run")
        with refusals():
            outcomes |= sweep(list(wanted.values()), progress=True).outcomes
    return {name: sheet_of(run, preset, pages[name], outcomes) for name, run in runs.items()}


def sheet_of(run: Run, preset: str, page: Page, outcomes: Mapping[str, Outcome]) -> Sheet:
    """With its claims, where all results are there; ``outcomes`` may be those of other pages, too."""
    own = [e for experiment in page.experiments() for e in (experiment, *experiment.needs)]
    sheet = Sheet(run, preset, page, {e.key: outcomes[e.key] for e in own if e.key in outcomes})
    if not sheet.complete:
        return sheet
    try:
        return Sheet(run, preset, page, sheet.outcomes, judge(page, sheet.results))
    except Exception as error:  # of any claim: the other runs go on
        return Sheet(run, preset, page, sheet.outcomes, failure=f"its claims: {type(error).__name__}: {error}")


def absent(page: Page, outcomes: Mapping[str, Outcome]) -> list[Experiment]:
    """The page's experiments that have no result, and what these need that has none, each once."""

    def lacks(experiment: Experiment) -> bool:
        return experiment.key not in outcomes or bool(outcomes[experiment.key].failure)

    found = [e for experiment in page.experiments() if lacks(experiment) for e in (*experiment.needs, experiment)]
    return list({e.key: e for e in found if lacks(e)}.values())


def duration(seconds: float) -> str:
    """In words, with two significant digits at most."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 99.5 else f"{seconds:.0f} s"


def when(made: Iterable[Made]) -> str:
    """From when to when results were computed, and at which commits."""
    every = list(made)
    dates = sorted({m["date"] for m in every})
    commits = ", ".join(dict.fromkeys(m["commit"] for m in every))
    return f"{dates[0] if len(dates) == 1 else f'{dates[0]} to {dates[-1]}'}, at commit {commits}" if every else ""


def _lacks_data(outcome: Outcome) -> bool:
    return outcome.failure.startswith("DataUnavailable:")
