"""A chapter: a notebook, the parameters that its ``parameters`` cell declares, and what they describe."""

import ast
import difflib
import functools
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import nbformat
from pydantic import ConfigDict, TypeAdapter, ValidationError

from .. import devices
from ..compute.sweep import check_scheduler
from ..experiments import Page, ParameterError


class ChapterError(Exception):
    """A notebook is not a chapter; the message says what it lacks."""


@dataclass(frozen=True)
class Parameter:
    """One line ``name: type = default  # meaning`` of the parameters cell."""

    name: str
    annotation: str
    default: Any
    meaning: str

    @property
    def in_words(self) -> str:
        """The type for people: "number or text"."""
        return _in_words(ast.parse(self.annotation, mode="eval").body)

    @functools.cached_property
    def type(self) -> TypeAdapter:
        return TypeAdapter(eval(self.annotation, vars(typing)), config=ConfigDict(strict=True))

    def read(self, text: str) -> Any:
        """A value as typed on a command line: text that begins with a bracket or a quote is one of Python's literals.

        Raises :class:`ParameterError`.
        """
        if text.lower() in ("none", "null") and re.search(r"\b(Optional|None)\b", self.annotation):
            return None
        try:
            if text.startswith(("[", "{", "(", "'", '"')):
                return self.type.validate_python(ast.literal_eval(text))
            return self.type.validate_strings(text, strict=False)
        except (ValidationError, SyntaxError, ValueError):
            raise ParameterError(f"{self.name} = {text!r}: allowed is {self.annotation}") from None


@dataclass(frozen=True)
class Chapter:
    name: str
    path: Path
    notebook: nbformat.NotebookNode
    parameters: Mapping[str, Parameter]
    page: type[Page]

    @classmethod
    def load(cls, path: Path) -> "Chapter":
        """Raises :class:`ChapterError` for a file that is no notebook, or has no parameters cell or page."""
        try:
            notebook = nbformat.read(path, as_version=4)
        except (OSError, ValueError) as error:
            raise ChapterError(f"{path}: not a readable notebook ({error})") from None
        page = _page(notebook.metadata.get("catapults", {}).get("page"), path)
        cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
        if len(cells) != 1:
            raise ChapterError(f"{path}: has {len(cells)} cells tagged 'parameters'; allowed is exactly one")
        return cls(path.stem, path, notebook, _declared(cells[0].source, path), page)

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters: those given, else the chapter's defaults.

        Raises :class:`ParameterError` for an unknown name, a wrong type and an impossible value, also of those that say
        where to compute.
        """
        problems = []
        for name, value in given.items():
            if name not in self.parameters:
                near = difflib.get_close_matches(name, self.parameters, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else "allowed are " + ", ".join(self.parameters)
                problems.append(f"{name}: unknown parameter of chapter {self.name!r}; {hint}")
                continue
            try:
                self.parameters[name].type.validate_python(value)
            except ValidationError:
                problems.append(f"{name} = {value!r}: allowed is {self.parameters[name].annotation}")
        if problems:
            raise ParameterError("\n".join(problems))
        values = {name: parameter.default for name, parameter in self.parameters.items()} | dict(given)
        self.page.from_namespace(values)
        try:
            devices.name_of(values.get("device", "auto"))
            check_scheduler(values.get("scheduler"))
        except ValueError as error:
            raise ParameterError(str(error)) from None
        return values

    def read(self, assignments: list[str]) -> dict[str, Any]:
        """Parameters from ``name=value`` strings. Raises :class:`ParameterError`."""
        values: dict[str, Any] = {}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            name = name.strip()
            if not equals:
                raise ParameterError(f"-p {assignment}: allowed is -p name=value")
            values[name] = self.parameters[name].read(text) if name in self.parameters else text
        return values


def _page(stated: Any, path: Path) -> type[Page]:
    """The class that a notebook's metadata names as ``module.Class``."""
    module, _, name = str(stated).partition(".")
    reason = f"the module has no page {name!r}"
    try:
        found = getattr(import_module(f"catapults.experiments.{module}"), name, None)
    except ImportError as error:
        found, reason = None, str(error)
    if not (isinstance(found, type) and issubclass(found, Page)):
        form = "module.Class of catapults.experiments"
        raise ChapterError(f"{path}: its metadata names no page, but {stated!r}; allowed is {form} ({reason})")
    return found


_TYPES = {"str": "text", "int": "whole number", "float": "number", "bool": "True or False", "dict": "dictionary"}


def _in_words(annotation: ast.expr) -> str:
    if not isinstance(annotation, ast.Subscript):
        word = ast.unparse(annotation)
        return _TYPES.get(word, word)
    inner = annotation.slice
    if annotation.value.id == "Optional":
        return f"{_in_words(inner)} or None"
    if annotation.value.id == "Union":
        return " or ".join(map(_in_words, inner.elts))
    return f"{annotation.value.id} of {_in_words(inner)}s"


def _declared(source: str, path: Path) -> dict[str, Parameter]:
    lines = source.splitlines()
    parameters = {}
    try:
        nodes = ast.parse(source).body
    except SyntaxError as error:
        raise ChapterError(f"{path}: parameters cell: {error}") from None
    for node in nodes:
        try:
            _, _, meaning = lines[node.end_lineno - 1][node.end_col_offset :].partition("#")
            name, annotation = node.target.id, ast.unparse(node.annotation)
            parameters[name] = Parameter(name, annotation, ast.literal_eval(node.value), meaning.strip())
            parameters[name].type.validate_python(parameters[name].default)
        except (AttributeError, NameError, TypeError, ValueError) as error:
            form = "name: type = default  # meaning"
            raise ChapterError(f"{path}: parameters cell, line {node.lineno}: allowed is `{form}` ({error})") from None
    return parameters
