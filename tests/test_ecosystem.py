"""Workflows, forms, hooks and citation name what is there: commands, versions, pages."""

import re
import shlex
from pathlib import Path

import catapults
import pytest
import typer
import yaml
from catapults.book.cli import app
from test_pins import pins

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PROSE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def read(path: Path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs() -> dict[str, dict]:
    return {f"{path.stem}.{name}": job for path in WORKFLOWS for name, job in read(path)["jobs"].items()}


def steps() -> list[dict]:
    return [step for job in jobs().values() for step in job.get("steps", ())]


def commands() -> dict[str, list[str]]:
    """The project's own commands, as words, in workflows and forms."""
    lines = [line.strip() for step in steps() for line in step.get("run", "").splitlines()]
    for path in FORMS:
        text = path.read_text(encoding="utf-8")
        lines += re.findall(r"`([^`]+)`", text) + re.findall(r"placeholder: (catapults .+)", text)
    return {line: shlex.split(line) for line in lines if re.match(r"(make|(\.venv/bin/)?catapults) ", line)}


@pytest.mark.parametrize("words", commands().values(), ids=commands())
def test_commands_exist(words):
    name, *words = words
    if name == "make":
        rules = re.findall(r"^([\w./]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(words) <= set(rules)
        return
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    given = command.make_context(command.name, words)  # fails for an unknown option or a value of the wrong type
    if command.name == "run":
        assert given.params["run"] in read(ROOT / "chapters" / "runs.yml")


def test_the_two_commands_and_the_record_are_run():
    ran = "\n".join(step.get("run", "") for step in steps()).splitlines()
    assert {"make book", "make test", "make lint"} <= set(ran)
    assert any(line.startswith(".venv/bin/catapults record verify --minutes ") for line in ran)


def test_workflows_may_do_little():
    for path in WORKFLOWS:
        assert read(path)["permissions"] == {"contents": "read"} and "concurrency" in read(path), path.name
    more = {name: job["permissions"] for name, job in jobs().items() if "permissions" in job}
    assert more == {
        "book.deploy": {"pages": "write", "id-token": "write"},
        "release.publish": {"contents": "write"},
    }
    for job in jobs().values():
        assert "timeout-minutes" in job or "uses" in job


def test_actions_have_versions():
    used = [(step["uses"], step.get("with", {})) for step in steps() if "uses" in step]
    assert len({action for action, _ in used}) == len({action.partition("@")[0] for action, _ in used})
    for action, given in used:
        assert re.fullmatch(r"actions/[\w-]+@v\d+", action)
        if action.startswith("actions/setup-python@"):
            assert (given["cache"], given["cache-dependency-path"]) == ("pip", "requirements.txt")
        if action.startswith("actions/checkout@"):
            assert given["persist-credentials"] is False


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms(path):
    form = read(path)
    assert form["name"] and form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_the_question_form_names_pages_that_exist():
    (form,) = (path.read_text(encoding="utf-8") for path in FORMS if "question" in path.name)
    titles = {path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for path in (ROOT / "book").glob("*.md")}
    quoted = set(re.findall(r'"([^"]+)"', next(line for line in form.splitlines() if "I have looked" in line)))
    assert quoted and quoted <= titles


def test_hooks_have_the_pinned_versions():
    (local,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    for hook in local["hooks"]:
        (requirement,) = hook["additional_dependencies"]
        name, _, version = requirement.partition("==")
        assert pins()[name] == version
        assert hook["entry"].split()[0] == name


def test_one_version_everywhere():
    citation = read(ROOT / "CITATION.cff")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased, newest, *_ = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    assert unreleased == "[Unreleased]"
    assert newest == f"[{citation['version']}] - {citation['date-released']}"
    assert citation["version"] == catapults.__version__


def test_the_paper_is_cited_as_in_the_book():
    paper = read(ROOT / "CITATION.cff")["preferred-citation"]
    entry = (ROOT / "book" / "references.bib").read_text(encoding="utf-8").partition("\n}")[0]
    assert paper["title"] in entry.replace("{SGD}", "SGD")
    assert " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]) in entry
    assert str(paper["year"]) in entry


@pytest.mark.parametrize("path", [*PROSE, ROOT / "CHANGELOG.md", ROOT / "LICENSE-TEXT.md"], ids=lambda path: path.name)
def test_links_between_files(path):
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert not [link for link in links if not (ROOT / link).exists()]
