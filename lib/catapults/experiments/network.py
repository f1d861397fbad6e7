"""A network and its training set, as experiments and pages name them (appendix F)."""

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from .. import data
from .base import Parameters, Positive, PositiveInt, Seed, Word

Architecture = Literal["fcn", "cnn", "wrn", "vit", "myrtle"]
Labels = Literal["zero-one", "plus-minus", "unit"]  # unit: targets of a synthetic task over their standard deviation


class Network(Parameters):
    """A network at initialisation and the training set that it is to learn, both drawn by ``seed``."""

    dataset: Word
    architecture: Architecture
    norm: Literal["layer"] | None
    depth: PositiveInt
    width: PositiveInt
    image_size: PositiveInt | None
    n_train: Annotated[int, Field(ge=2)]
    labels: Labels
    parameterization: Literal["ntk", "pytorch"]
    gain: Positive
    bias: bool
    seed: Seed

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str) -> str:
        data.check_name(value, "dataset")
        return value

    @model_validator(mode="after")
    def _network_fits_the_data(self) -> "Network":
        if data.is_synthetic(self.dataset):
            if self.architecture != "fcn":
                held = f"{self.dataset!r} holds vectors"
                raise ValueError(f"architecture = {self.architecture!r}: {held}; allowed is 'fcn'")
            if self.image_size is not None:
                raise ValueError(f"image_size = {self.image_size!r}: {self.dataset!r} holds vectors; allowed is None")
            if self.labels == "plus-minus":
                allowed = "allowed are 'zero-one' and 'unit'"
                raise ValueError(f"labels = {self.labels!r}: {self.dataset!r} has no classes; {allowed}")
        elif self.labels == "unit":
            allowed = "allowed are 'zero-one' and 'plus-minus'"
            raise ValueError(f"labels = 'unit': {self.dataset!r} has classes; {allowed}")
        if self.architecture in ("fcn", "cnn") and self.depth < 2:
            raise ValueError(f"depth = {self.depth!r}: allowed are whole numbers of at least 2")
        if self.architecture == "myrtle" and self.depth != 5:
            raise ValueError(f"depth = {self.depth!r}: the Myrtle network has 5 weight layers; allowed is 5")
        if self.architecture == "vit" and self.width % 4:
            raise ValueError(f"width = {self.width!r}: a transformer with 4 heads allows multiples of 4")
        if self.architecture == "wrn" and (self.depth < 10 or self.depth % 6 != 4):
            raise ValueError(f"depth = {self.depth!r}: a Wide ResNet allows 6 b + 4 for b blocks a group (10, 16, ...)")
        if self.architecture in ("wrn", "vit", "myrtle") and self.image_size is not None and self.image_size % 4:
            raise ValueError(
                f"image_size = {self.image_size!r}: architecture {self.architecture!r} allows multiples of 4"
            )
        if self.architecture != "wrn" and self.norm is not None:
            raise ValueError(f"norm = {self.norm!r}: architecture {self.architecture!r} has none; allowed is None")
        if self.parameterization == "pytorch" and self.gain != 1:
            raise ValueError(f"gain = {self.gain!r}: PyTorch's default parameterisation has none; allowed is 1")
        return self

    @property
    def short(self) -> str:
        """Data, network and seed in a few words, to tell trainings apart."""
        size = "" if self.image_size is None else f", {self.image_size}x{self.image_size} pixels"
        form = "" if self.parameterization == "ntk" else ", pytorch"
        return f"{self.dataset}, {self.architecture} {self.depth}x{self.width}{size}{form}, n = {self.n_train}"


def threshold(outputs: int) -> str:
    """How the critical learning rate is written for a number of outputs."""
    return "n/‖K‖" if outputs == 1 else "nc/‖K‖"


def check_tops(top: int | list[int], n_train: int, dataset: str) -> None:
    """Raise ``ValueError`` unless these are dimensions of top eigenspaces of the kernel, in ascending order."""
    tops = top if isinstance(top, list) else [top]
    outputs = data.n_outputs(dataset)
    largest = math.inf if outputs is None else n_train * outputs - 1
    if not tops or sorted(set(tops)) != tops or not 1 <= tops[0] <= tops[-1] <= largest:
        limits = "of at least 1" if outputs is None else f"from 1 to {largest}"
        raise ValueError(f"top = {top!r}: allowed are whole numbers {limits}, one or several that ascend")
