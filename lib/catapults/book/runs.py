"""``chapters/runs.yml``: the single list of what the book contains."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import field_validator

from ..experiments import Page, ParameterError, Parameters
from ..paper.items import PAPER, item_of, listed, number_of
from .chapter import Chapter

PRESETS = ("smoke", "laptop", "book", "paper")
KINDS = ("size", "seed", "reading", "statistics", "the paper")
_LONG = 120  # characters of two values that are too long for a sentence


class RunsError(Exception):
    """runs.yml is wrong; the message says where and what is allowed."""


class Reason(Parameters):
    """Why a claim of a run does not hold: what was tested. ``see``: runs whose claim of the same name shows it, or
    ``RUN CLAIM`` for another one."""

    kind: Literal["size", "seed", "reading", "statistics", "the paper"]
    text: str
    see: list[str] = []

    def shown_by(self, name: str) -> list[tuple[str, str]]:
        """Runs with their claims."""
        return [(run, claim or name) for run, _, claim in (entry.partition(" ") for entry in self.see)]


class _Entry(Parameters):
    chapter: str
    title: str
    figures: list[str]
    tables: list[str] = []
    panel: str = ""
    note: str = ""
    parameters: dict[str, Any] = {}
    smoke: dict[str, Any] = {}
    laptop: dict[str, Any] = {}
    book: dict[str, Any] | Literal["laptop"] = {}
    reasons: dict[str, Reason] = {}

    @field_validator("figures", "tables")
    @classmethod
    def _of_the_paper(cls, value: list[str], info) -> list[str]:
        kind = info.field_name.removesuffix("s")
        for label in value:
            if not re.fullmatch(r"[1-9]\d*[a-z]?", label) or number_of(label) not in PAPER[kind]:
                allowed = f"{PAPER[kind][0]} to {PAPER[kind][-1]}, with or without a panel's letter"
                raise ValueError(f"{kind} {label!r}: allowed are {allowed}")
        return value

    def departures(self, preset: str) -> dict[str, Any]:
        """What a preset has instead of ``parameters``."""
        stated = {"smoke": self.smoke, "laptop": self.laptop, "book": self.book}.get(preset, {})
        return self.laptop if stated == "laptop" else stated


class _UniqueKeys(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
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

    ``figures`` and ``tables`` are those of the paper that it corresponds to: none for a run of our own. ``short``: its
    name under a panel, where that is not the end of its title.
    """

    name: str
    chapter: Chapter
    title: str
    figures: tuple[str, ...]
    tables: tuple[str, ...]
    note: str
    settings: Mapping[str, Mapping[str, Any]]
    reasons: Mapping[str, Reason] = field(default_factory=dict)
    short: str = ""

    def page(self, preset: str) -> Page:
        """What its notebook describes under a preset."""
        return self.chapter.page.from_namespace(self.settings[preset])

    @property
    def is_main(self) -> bool:
        """Whether this is the run that gives the chapter's own page."""
        return self.name == self.chapter.name

    @property
    def trains_itself(self) -> bool:
        """Whether its page has no experiments: its notebook trains what it shows while it is executed."""
        return not self.page("book").experiments()

    @property
    def panel(self) -> str:
        """What its panels of the paper's figures show, in a few words."""
        return self.short or self.title.rpartition(": ")[2]

    @property
    def in_paper(self) -> str:
        """The paper's figures and tables that it corresponds to; empty for a run of our own."""
        return listed(self.items)

    @property
    def items(self) -> list[tuple[str, str]]:
        """The same one by one: the figure or table, ``"figure 7"``, and the label of its panel, ``"7a"``."""
        kinds = {"figure": self.figures, "table": self.tables}
        return [(item_of(kind, label), label) for kind, labels in kinds.items() for label in labels]

    def departures(self, preset: str) -> dict[str, tuple[Any, Any]]:
        """Parameters whose value under the preset is not the paper's: name -> (value, the paper's value).

        More seeds than the paper has are no departure.
        """
        different = difference(self.settings[preset], self.settings["paper"])
        if "seeds" in different:
            ours, theirs = map(how_many, different["seeds"])
            if ours >= theirs:
                del different["seeds"]
        return different

    def made_with(self, preset: str) -> str:
        """A sentence on the preset and where it departs from the paper's settings."""
        made, departures = f"Made with the preset **{preset}**", self.departures(preset)
        if not self.items:
            return f"{made}. The paper has no such run."
        if departures:
            return f"{made}, which departs from the preset **paper**: {in_words(departures, 'there: ')}."
        sizes = "the sizes that the paper states, and ours where it states none"
        return f"{made}, which here is the same as **paper**: {sizes}."


def how_many(seeds: Any) -> int:
    """Seeds are a number of them, or listed."""
    return len(seeds) if isinstance(seeds, Sized) else seeds


def in_words(changes: Mapping[str, tuple[Any, Any]], other: str = "instead of ") -> str:
    """Changed parameters as Markdown; values that are too long are left to the page's parameters."""
    return ", ".join(
        f"`{name} = {ours!r}` ({other}`{theirs!r}`)"
        if len(f"{ours!r}{theirs!r}") < _LONG
        else f"`{name}` (see the parameters)"
        for name, (ours, theirs) in changes.items()
    )


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The names whose values differ: name -> (our value, their value)."""
    return {name: (value, theirs[name]) for name, value in ours.items() if value != theirs[name]}


def load(folder: Path) -> dict[str, Run]:
    """The runs by name, in the file's order; ``folder`` holds runs.yml and the chapters.

    ``parameters`` are the paper's settings; ``smoke``, ``laptop`` and ``book`` say where presets depart from them.

    Raises :class:`RunsError` for a file that cannot be read and for every parameter that its chapter refuses.
    """
    path = folder / "runs.yml"
    try:
        entries = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
        parsed = _parsed(entries, path)
    except (OSError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise RunsError(f"{path}: {error}") from None
    chapters: dict[str, Chapter] = {}
    runs, problems = {}, []
    for name, entry in parsed.items():
        if entry.chapter not in chapters:
            chapters[entry.chapter] = Chapter.load(folder / f"{entry.chapter}.ipynb")
        chapter = chapters[entry.chapter]
        settings = {}
        for preset in PRESETS:
            try:
                settings[preset] = chapter.resolve(entry.parameters | entry.departures(preset))
            except ParameterError as error:
                problems += [f"{path}: run {name!r}, preset {preset!r}: {line}" for line in str(error).splitlines()]
        items = tuple(entry.figures), tuple(entry.tables)
        runs[name] = Run(name, chapter, entry.title, *items, entry.note, settings, entry.reasons, entry.panel)
    lacking = chapters.keys() - runs.keys()
    problems += [f"{path}: chapter {name!r} has no run of its own name, its main page" for name in sorted(lacking)]
    if problems:
        raise RunsError("\n".join(problems))
    return runs


def check_name(name: str, runs: Iterable[str]) -> None:
    """Raise :class:`ParameterError` for a name that no run has."""
    runs = list(runs)
    if name not in runs:
        near = difflib.get_close_matches(name, runs, 1)
        suggestion = f"did you mean {near[0]!r}? " if near else ""
        raise ParameterError(f"run = {name!r}: {suggestion}allowed are {', '.join(runs)}")


def _parsed(entries: Mapping[Any, Mapping[str, Any]], path: Path) -> dict[str, _Entry]:
    parsed, problems = {}, []
    for name, entry in entries.items():
        try:
            parsed[str(name)] = _Entry.create(**entry)
        except ParameterError as error:
            problems += [f"{path}: run {str(name)!r}: {line}" for line in str(error).splitlines()]
    if problems:
        raise RunsError("\n".join(problems))
    return parsed
