"""Typed values that say what is trained or measured: validated with messages for people, before any work starts."""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .. import schedules
from ..data import names

PositiveInt = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _whole(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


Rate = Annotated[int | float | str, BeforeValidator(_whole)]  # 4 and 4.0 are the same training


def _readable(value: int | float | str, info: Any) -> int | float | str:
    schedules.check(value, info.field_name)
    return value


Scheduled = Annotated[Rate, AfterValidator(_readable)]  # what catapults.schedules.parse reads


def _as_text(value: Any) -> Any:
    return str(value) if type(value) in (int, float) else value


Word = Annotated[str, BeforeValidator(_as_text)]  # papermill reads a name or a schedule that looks like a number as one


class ParameterError(ValueError):
    """One or several parameters are not allowed; the message has a line for each."""


class Parameters(BaseModel):
    """An immutable value. Its fields have no defaults: those stand in the parameters cell of a chapter.

    A field that is added later has one, which leaves the keys of all that was computed before as they were.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __hash__(self) -> int:  # pydantic's own refuses fields that are lists or dictionaries
        return hash(self.model_dump_json())

    @classmethod
    def create(cls, **values: Any) -> "Parameters":
        """Validate the values. Raises :class:`ParameterError`, which names parameter, value and what is allowed."""
        try:
            return cls(**values)
        except ValidationError as error:
            problems: dict[str, list[str]] = {}  # several on one value where a union allows several types
            for detail in error.errors():
                start, message = _explain(detail, values, cls.model_fields)
                problems.setdefault(start, []).append(message)
            lines = (start + _either(messages) for start, messages in problems.items())
            raise ParameterError("\n".join(lines)) from None

    @classmethod
    def from_namespace(cls, namespace: Mapping[str, Any]) -> "Parameters":
        """The same from a notebook's ``globals()``, of which only the names of the fields are read."""
        return cls.create(**{name: namespace[name] for name in cls.model_fields if name in namespace})

    def shared_with(self, other: type["Parameters"]) -> dict[str, Any]:
        """The values of the fields that another class has as well."""
        return {name: getattr(self, name) for name in other.model_fields if name in type(self).model_fields}


class Experiment(Parameters):
    """What is trained or measured, once. Never where: no device, no scheduler, no threads.

    ``Result``: a frozen dataclass of numpy arrays, numbers, strings, truth values, ``None``, tuples of these but
    arrays, and such dataclasses.
    """

    Result: ClassVar[type]
    alone: ClassVar[bool] = False  # whether it measures time, so that nothing else may run beside it

    @property
    def name(self) -> str:
        """For people."""
        raise NotImplementedError

    @property
    def needs(self) -> "tuple[Experiment, ...]":
        """Other experiments whose results this one starts from."""
        return ()

    @property
    def key(self) -> str:
        """The sha256 of the class's name, outside of this library with its module's, and of all fields that do not have
        their default."""
        kind, fields = type(self), self.model_dump(mode="json", exclude_defaults=True)
        ours = kind.__module__.startswith("catapults.")
        name = kind.__name__ if ours else f"{kind.__module__}.{kind.__qualname__}"
        return hashlib.sha256(json.dumps([name, fields], sort_keys=True).encode()).hexdigest()


class Page(Parameters):
    """The parameters of a chapter's notebook, and the experiments that they describe."""

    @property
    def has_own_data(self) -> bool:
        """Whether its data are a person's own, which the paper does not have."""
        dataset = getattr(self, "dataset", None)
        return dataset is not None and not names.parse(dataset).of_the_paper

    def experiments(self) -> list[Experiment]:
        """All that the page shows, for every seed."""
        return [experiment for page in self.of_each_seed() for experiment in page.trainings().values()]

    def with_seeds(self, number: int) -> "Page":
        """This page with so many seeds, or with the seeds from 0 on where it lists them."""
        seeds = list(range(number)) if isinstance(self.seeds, list) else number
        return self.model_copy(update={"seeds": seeds} if "seeds" in type(self).model_fields else {})

    def trainings(self) -> Mapping[Any, Experiment]:
        """Of one seed, by what they are for."""
        raise NotImplementedError

    def of_each_seed(self) -> "list[Page]":
        """This page with one seed, that and the next ones: as many as ``seeds``."""
        one = {"seeds": 1}
        return [self.model_copy(update=one | {"seed": self.seed + k}) for k in range(self.seeds)]

    def runs(self, results: Mapping[Experiment, Any]) -> list[Any]:
        """What the page shows, once for each seed. Raises ``KeyError`` for a result that is not there."""
        return [page.run({name: results[e] for name, e in page.trainings().items()}) for page in self.of_each_seed()]

    def run(self, results: Mapping[Any, Any]) -> Any:
        """What the page shows of one seed; ``results`` by the names of :meth:`trainings`."""
        raise NotImplementedError


def _explain(detail: Any, values: dict[str, Any], fields: Iterable[str]) -> tuple[str, str]:
    """What one of pydantic's error details says: ``name = value: `` and ``what is allowed``."""
    message = detail["msg"].removeprefix("Value error, ")
    name = str(detail["loc"][0]) if detail["loc"] else ""
    if not name or message.startswith((f"{name} =", f"{name}:")):
        return message, ""
    if detail["type"] == "missing":
        return f"{name}: ", "missing; it has to be given"
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, fields, 1)
        return f"{name}: ", f"unknown parameter{f'; did you mean {near[0]!r}?' if near else ''}"
    return f"{name} = {values[name]!r}: ", f"{message[0].lower()}{message[1:]}"


def _either(messages: list[str]) -> str:
    """Messages on one value, of which any one has to be followed."""
    first, *others = dict.fromkeys(messages)
    return ", or ".join([first, *(message.removeprefix("input should be ") for message in others)])
