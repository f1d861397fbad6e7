"""The versions stand in three files; these tests hold them together."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_conda_users_get_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip[-1] == "-e ."
    assert dict(pin.split("==") for pin in pip[:-1]) == pins()


def test_the_pins_satisfy_the_project_and_are_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {re.sub("[-_.]+", "-", name).lower(): pin for name, pin in pins().items()}
    extras = project["optional-dependencies"]  # but for the frameworks, which have an environment of their own
    for text in [*project["dependencies"], *extras["book"], *extras["test"]]:
        requirement = Requirement(text)
        pin = pinned[re.sub("[-_.]+", "-", requirement.name).lower()]
        assert pin in requirement.specifier, text
        assert version(requirement.name).partition("+")[0] == pin
