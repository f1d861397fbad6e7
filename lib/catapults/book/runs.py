"""``chapters/runs.yml``: the single list of what the book contains."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ..experiments import NetworkExperiment, ParameterError
from .chapter import Chapter

PRESETS = ("smoke", "laptop", "paper")
_OF_A_NETWORK = [name for name in NetworkExperiment.model_fields if name not in ("labels", "seed", "device")]


class RunsError(Exception):
    """runs.yml is wrong; the message says where and what is allowed."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    chapter: str
    title: str
    figures: list[str]
    tables: list[str] = []
    note: str = ""
    alone: bool = False
    quoted: dict[str, float] = {}
    parameters: dict[str, Any] = {}
    smoke: dict[str, Any] = {}
    laptop: dict[str, Any] = {}


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a name that stands twice, of which YAML would drop the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := {str(name) for name in names if names.count(name) > 1}:
            raise yaml.YAMLError(f"{', '.join(sorted(twice))}: stands twice{node.start_mark}; allowed is once")
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Run:
    """One page of the book: a chapter with parameters. ``settings`` are all parameters under each preset.

    ``figures`` and ``tables`` are those of the paper that it corresponds to: none for a run of our own. ``alone``: no
    other run is executed meanwhile.
    """

    name: str
    chapter: Chapter
    title: str
    figures: tuple[str, ...]
    tables: tuple[str, ...]
    note: str
    alone: bool
    settings: Mapping[str, Mapping[str, Any]]

    @property
    def is_main(self) -> bool:
        """Whether this is the run that gives the chapter's own page."""
        return self.name == self.chapter.name

    @property
    def in_paper(self) -> str:
        """The paper's figures and tables that it corresponds to; empty for a run of our own."""
        kinds = {"figure": self.figures, "table": self.tables}
        return ", ".join(f"{kind}{'s' * (len(of) > 1)} {', '.join(of)}" for kind, of in kinds.items() if of)

    def departures(self, preset: str) -> dict[str, tuple[Any, Any]]:
        """Parameters whose value under the preset is not the paper's: name -> (value, the paper's value)."""
        return difference(self.settings[preset], self.settings["paper"])


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (value, theirs[name]) for name, value in ours.items() if value != theirs[name]}


def load(folder: Path) -> dict[str, Run]:
    """The runs by name, in the file's order; ``folder`` holds runs.yml and the chapters.

    ``parameters`` are the paper's settings; ``smoke`` and ``laptop`` say where these presets depart from them.

    Raises :class:`RunsError` for a file that cannot be read and for every parameter that its chapter refuses.
    """
    path = folder / "runs.yml"
    try:
        entries = yaml.load(path.read_text(), _UniqueKeys)
        parsed = {str(name): _Entry(**entry) for name, entry in entries.items()}
    except (OSError, yaml.YAMLError, ValidationError, TypeError, AttributeError) as error:
        raise RunsError(f"{path}: {error}") from None
    chapters: dict[str, Chapter] = {}
    runs, problems = {}, []
    for name, entry in parsed.items():
        if entry.chapter not in chapters:
            chapters[entry.chapter] = Chapter.load(folder / f"{entry.chapter}.ipynb")
        chapter = chapters[entry.chapter]
        settings = {}
        stated = {name: value for name, value in entry.parameters.items() if name in _OF_A_NETWORK}
        quoted = entry.quoted and {**entry.quoted, "settings": {**chapter.defaults(_OF_A_NETWORK), **stated}}
        for preset in PRESETS:
            try:
                given = {**entry.parameters, **getattr(entry, preset, {})}
                if quoted or "quoted" in chapter.parameters:
                    given |= {"quoted": quoted}
                settings[preset] = chapter.resolve(given)
            except ParameterError as error:
                problems += [f"{path}: run {name!r}, preset {preset!r}: {line}" for line in str(error).splitlines()]
        shown = tuple(entry.figures), tuple(entry.tables)
        runs[name] = Run(name, chapter, entry.title, *shown, entry.note, entry.alone, settings)
    lacking = chapters.keys() - runs.keys()
    problems += [f"{path}: chapter {name!r} has no run of its own name, its main page" for name in sorted(lacking)]
    if problems:
        raise RunsError("\n".join(problems))
    return runs
