"""The names of data sets and tasks: which are known, and what each means. Telling so reads no file."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from .celeba import CELEBA
from .cifar10 import CIFAR_10
from .dataset import Dataset
from .fashion_mnist import FASHION_MNIST
from .folders import data_folder
from .npz import read_npz
from .svhn import SVHN
from .usps import USPS

SYNTHETIC = ("rank-2", "rank-3", "rank-4", "full-rank", "sphere")  # drawn by .synthetic
DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (CIFAR_10, SVHN, USPS, FASHION_MNIST, CELEBA)}
ALIASES: Mapping[str, str] = {
    "cifar-2": "cifar-10:7,9",
    "svhn-2": "svhn:0,2",
    "usps-2": "usps:0,2",
    "fashion-mnist-2": "fashion-mnist:0,2",
}


@dataclass(frozen=True)
class Name:
    """What a name means: the data set or synthetic task ``base``, and the ``classes`` that are listed, if any are."""

    base: str
    classes: tuple[int, ...] | None = None

    @property
    def synthetic(self) -> bool:
        return self.base in SYNTHETIC

    @property
    def outputs(self) -> int | None:
        """How many numbers a target has: one for regression and two classes, else one per class.

        ``None`` where that takes reading the file.
        """
        if self.synthetic:
            return 1
        classes = len(self.classes) if self.classes else self.dataset.classes
        return 1 if classes == 2 else classes

    @property
    def known(self) -> bool:
        """Whether this is the paper's, or a person's own file that is in the folder ``CATAPULTS_DATA``."""
        folder = data_folder()
        return self.synthetic or self.base in DATASETS or bool(folder and (folder / f"{self.base}.npz").exists())

    @property
    def of_the_paper(self) -> bool:
        """Whether it is no person's own file."""
        return self.synthetic or self.base in DATASETS

    @property
    def dataset(self) -> Dataset:
        """The real data set: one of ``DATASETS``, else ``NAME.npz``, whether it is there or not."""
        return DATASETS.get(self.base) or Dataset(self.base, self.base, None, None, {f"{self.base}.npz": read_npz})


def parse(name: str, parameter: str = "name") -> Name:
    """What ``name`` means. Raises ``ValueError`` for a malformed one, as a value of ``parameter``."""
    if not isinstance(name, str):
        raise ValueError(f"{parameter} = {name!r}: allowed is text, such as {str(name)!r}")
    match = re.fullmatch(r"(\w[\w.-]*)(?::(-?\d+(?:,-?\d+)*))?", ALIASES.get(name, name), re.ASCII)
    if not match:
        raise ValueError(f"{parameter} = {name!r}: {allowed(name.partition(':')[0])}")
    base, classes = match[1], tuple(int(number) for number in (match[2] or "").split(",") if number)
    if classes and (base in SYNTHETIC or base in ALIASES):
        raise ValueError(f"{parameter} = {name!r}: {base} takes no classes")
    if classes and (len(classes) == 1 or len(set(classes)) < len(classes)):
        raise ValueError(f"{parameter} = {name!r}: allowed are two or more different classes")
    return Name(base, classes or None)


def check_name(name: str, parameter: str = "name") -> None:
    """Raise ``ValueError`` for a name that ``load`` cannot know, as a value of ``parameter``."""
    parsed = parse(name, parameter)
    if not parsed.known:
        raise ValueError(f"{parameter} = {name!r}: {allowed(parsed.base)}")


def is_synthetic(name: str, parameter: str = "name") -> bool:
    """Whether this is a synthetic task: vectors with an exact EGOP. Raises as :func:`parse`."""
    return parse(name, parameter).synthetic


def n_outputs(name: str, parameter: str = "name") -> int | None:
    """:attr:`Name.outputs` of this name. Raises as :func:`parse`."""
    return parse(name, parameter).outputs


def available_names() -> list[str]:
    """Every name that ``load`` knows, including the ``.npz`` files of the folder ``CATAPULTS_DATA``."""
    return [*SYNTHETIC, *DATASETS, *ALIASES, *own_names()]


def own_names() -> list[str]:
    """A person's own data sets: the ``.npz`` files of the folder ``CATAPULTS_DATA`` that belong to no other."""
    folder, known = data_folder(), {file for dataset in DATASETS.values() for file in dataset.files}
    return sorted(path.stem for path in folder.glob("*.npz") if path.name not in known) if folder else []


def allowed(base: str) -> str:
    """Which names are allowed, and which one is probably meant by one that is not."""
    names = available_names()
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(base.lower(), lower, 1) if base not in names else []
    suggestion = f"did you mean {lower[near[0]]!r}? " if near else ""
    forms = f"allowed are NAME and NAME:CLASS,CLASS with NAME one of {', '.join(names)}"
    folder = data_folder() or "not set"
    return f"{suggestion}{forms}, or any NAME with a file NAME.npz in the folder CATAPULTS_DATA ({folder})"
