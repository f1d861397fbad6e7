"""``chapters/runs.yml``: the single list of what the book contains."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from ..experiments import NetworkExperiment, ParameterError
from .chapter import Chapter

PRESETS = ("smoke", "laptop", "paper")
PAPER = {"figure": range(2, 35), "table": range(1, 4)}  # its figure 1 is a picture from an encyclopaedia
_LONG = 120  # characters of two values that are too long for a sentence
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
    long: bool = False
    alone: bool = False
    quoted: dict[str, float] = {}
    parameters: dict[str, Any] = {}
    smoke: dict[str, Any] = {}
    laptop: dict[str, Any] = {}

    @field_validator("figures", "tables")
    @classmethod
    def _of_the_paper(cls, value: list[str], info) -> list[str]:
        kind = info.field_name.removesuffix("s")
        for label in value:
            if not re.fullmatch(r"[1-9]\d*[a-z]?", label) or number_of(label) not in PAPER[kind]:
                allowed = f"{PAPER[kind][0]} to {PAPER[kind][-1]}, with or without a panel's letter"
                raise ValueError(f"{kind} {label!r}: allowed are {allowed}")
        return value


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a name that stands twice, of which YAML would drop the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        names = [self.construct_object(key, deep=True) for key in keys]
        if twice := {str(name) for name in names if names.count(name) > 1}:
            raise yaml.YAMLError(f"{', '.join(sorted(twice))}: stands twice{node.start_mark}; allowed is once")
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Run:
    """One page of the book: a chapter with parameters. ``settings`` are all parameters under each preset.

    ``figures`` and ``tables`` are those of the paper that it corresponds to: none for a run of our own. ``long``: it
    is executed before the others, so that these are not done long before it. ``alone``: no other run is executed
    meanwhile.
    """

    name: str
    chapter: Chapter
    title: str
    figures: tuple[str, ...]
    tables: tuple[str, ...]
    note: str
    long: bool
    alone: bool
    settings: Mapping[str, Mapping[str, Any]]

    @property
    def is_main(self) -> bool:
        """Whether this is the run that gives the chapter's own page."""
        return self.name == self.chapter.name

    @property
    def in_paper(self) -> str:
        """The paper's figures and tables that it corresponds to; empty for a run of our own."""
        return listed(self.items)

    @property
    def items(self) -> list[tuple[str, str]]:
        """The same one by one: the figure or table, ``"figure 7"``, and the label of its panel, ``"7a"``."""
        kinds = {"figure": self.figures, "table": self.tables}
        return [(f"{kind} {number_of(label)}", label) for kind, labels in kinds.items() for label in labels]

    def departures(self, preset: str) -> dict[str, tuple[Any, Any]]:
        """Parameters whose value under the preset is not the paper's: name -> (value, the paper's value)."""
        return difference(self.settings[preset], self.settings["paper"])

    def made_with(self, preset: str) -> str:
        """A sentence on the preset and where it departs from the paper's settings."""
        made, departures = f"Made with the preset **{preset}**", self.departures(preset)
        if not self.items:
            return f"{made}. The paper has no such run."
        if departures:
            return f"{made}, which departs from the preset **paper**: {in_words(departures, 'there: ')}."
        sizes = "the sizes that the paper states, and ours where it states none"
        return f"{made}, which here is the same as **paper**: {sizes}."


def listed(items: Iterable[tuple[str, str]]) -> str:
    """Figures and tables of the paper in words: "figures 7a, 12b, table 2"."""
    labels: dict[str, list[str]] = {}
    for item, label in items:
        labels.setdefault(item.split()[0], []).append(label)
    return ", ".join(f"{kind}{'s' * (len(of) > 1)} {', '.join(of)}" for kind, of in labels.items())


def number_of(label: str) -> int:
    """Of a figure or table: 7 for ``"7a"``."""
    return int(label.rstrip("abcdefghijklmnopqrstuvwxyz"))


def in_words(changes: Mapping[str, tuple[Any, Any]], other: str = "instead of ") -> str:
    """Changed parameters as Markdown; values that are too long are left to the page's parameters."""
    return ", ".join(
        f"`{name} = {ours!r}` ({other}`{theirs!r}`)"
        if len(f"{ours!r}{theirs!r}") < _LONG
        else f"`{name}` (shown with the parameters)"
        for name, (ours, theirs) in changes.items()
    )


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (value, theirs[name]) for name, value in ours.items() if value != theirs[name]}


def load(folder: Path) -> dict[str, Run]:
    """The runs by name, in the file's order; ``folder`` holds runs.yml and the chapters.

    ``parameters`` are the paper's settings; ``smoke`` and ``laptop`` say where these presets depart from them.

    Raises :class:`RunsError` for a file that cannot be read and for every parameter that its chapter refuses.
    """
    path = folder / "runs.yml"
    try:
        entries = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
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
        runs[name] = Run(name, chapter, entry.title, *shown, entry.note, entry.long, entry.alone, settings)
    lacking = chapters.keys() - runs.keys()
    problems += [f"{path}: chapter {name!r} has no run of its own name, its main page" for name in sorted(lacking)]
    if problems:
        raise RunsError("\n".join(problems))
    return runs
