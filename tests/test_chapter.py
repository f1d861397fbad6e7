"""Parameters of a chapter, and runs.yml: everything that is refused before a kernel starts."""

import nbformat
import pytest
import yaml
from book_project import PARAMETERS, ROOT, notebook, project
from catapults.book import runs
from catapults.book.chapter import Chapter, ChapterError, Parameter
from catapults.book.runs import RunsError
from catapults.book.stage import with_run_sheets
from catapults.experiments import ParameterError
from catapults.experiments.gd_catapult import GDCatapult


@pytest.fixture
def chapter(tmp_path):
    return Chapter.load(project(tmp_path, {"small": notebook()}) / "chapters" / "small.ipynb")


def test_the_parameters_cell_is_read(chapter):
    assert list(chapter.parameters) == [line.split(":")[0] for line in PARAMETERS.strip().splitlines()]
    width = chapter.parameters["width"]
    assert (width.annotation, width.default, width.meaning) == ("int", 16, "neurons")
    assert chapter.page is GDCatapult


@pytest.mark.parametrize(
    "typed, name, value",
    [
        ("width=32", "width", 32),
        ("bias=true", "bias", True),
        ("gain=2", "gain", 2.0),
        ("image_size=None", "image_size", None),
        ("image_size=8", "image_size", 8),
        ("learning_rate=1.67 eta_crit", "learning_rate", "1.67 eta_crit"),
        ("dataset=cifar-10:7,9", "dataset", "cifar-10:7,9"),
        ("labels=plus-minus", "labels", "plus-minus"),
        ("top=5", "top", 5),
        ("top=[5]", "top", [5]),
        ("top=[1, 3]", "top", [1, 3]),
        ("hessian_every=None", "hessian_every", None),
        ("hessian_every=4", "hessian_every", 4),
        ("norm=layer", "norm", "layer"),
        ("learning_rate='8'", "learning_rate", "8"),
        ('dataset="rank-3"', "dataset", "rank-3"),
    ],
)
def test_values_from_the_command_line(chapter, typed, name, value):
    assert chapter.read([typed]) == {name: value}


@pytest.mark.parametrize("typed", ["learning_rate=8", "learning_rate=0.5", "learning_rate=1e-2"])
def test_absolute_learning_rates_from_the_command_line(chapter, typed):
    chapter.resolve(chapter.read([typed]))


@pytest.mark.parametrize(
    "typed, message",
    [
        ("widht=3", "widht: unknown parameter of chapter 'small'; did you mean 'width'"),
        ("momentum=0.9", "momentum: unknown parameter of chapter 'small'; allowed are dataset, architecture"),
        ("width=wide", "width = 'wide': allowed is int"),
        ("width=2.5", "width = '2.5': allowed is int"),
        ("width=[16]", r"width = '\[16\]': allowed is int"),
        ("top=[1, 3", r"top = '\[1, 3': allowed is Union\[int, list\]"),
        ("top=[1, x]", r"top = '\[1, x\]': allowed is Union\[int, list\]"),
        ("top=[1] * 3", r"top = '\[1\] \* 3': allowed is Union"),
        ("top=one", "top = 'one': allowed is Union"),
        ("top=[3, 1]", r"top = \[3, 1\]: allowed are whole numbers from 1 to 7, one or several that ascend"),
        ("top=[1, 2.5]", r"top = \[1, 2.5\]: input should be a valid integer"),
        ("top=[]", r"top = \[\]: allowed are whole numbers from 1 to 7"),
        ("hessian_every=0", "hessian_every = 0: input should be greater than or equal to 1"),
        ("norm=layer", "norm = 'layer': architecture 'fcn' has none; allowed is None"),
        ("bias=perhaps", "bias = 'perhaps': allowed is bool"),
        ("width=-3", "width = -3: input should be greater than or equal to 1"),
        ("top=8", "top = 8: allowed are whole numbers from 1 to 7"),
        ("learning_rate=quick", "learning_rate = 'quick': allowed are a positive number"),
        ("dataset=rnak-2", "dataset = 'rnak-2'.*did you mean 'rank-2'"),
        ("width", "-p width: allowed is -p name=value"),
        ("seeds=0", "seeds = 0: input should be greater than or equal to 1"),
        ("device=cuda:7", "device = 'cuda:7': allowed on this machine are auto"),
        ("device=tpu", "device = 'tpu': allowed on this machine are auto"),
        ("scheduler=10.0.0.1", "scheduler = '10.0.0.1': allowed is an address such as 'tcp://127.0.0.1:8786', or None"),
    ],
)
def test_refusals(chapter, typed, message):
    with pytest.raises(ParameterError, match=message):
        chapter.resolve(chapter.read([typed]))


def test_a_wrong_type_from_python(chapter):
    with pytest.raises(ParameterError, match="width = '16': allowed is int"):
        chapter.resolve({"width": "16"})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda nb: nb.cells[2].metadata.clear(), "has 0 cells tagged 'parameters'"),
        (lambda nb: nb.metadata.clear(), "its metadata names no page, but None; allowed is module.Class"),
        (
            lambda nb: nb.cells[2].update(source="width = 3"),
            "parameters cell, line 1: allowed is `name: type = default",
        ),
        (lambda nb: nb.cells[2].update(source="width: int = 2*8"), "parameters cell, line 1: allowed is"),
        (lambda nb: nb.cells[2].update(source="width: Foo = 2"), "parameters cell, line 1: .*Foo"),
        (lambda nb: nb.cells[2].update(source="width: int = 'a'"), "parameters cell, line 1: "),
        (lambda nb: nb.cells[2].update(source="width: = 3"), "parameters cell: invalid syntax"),
    ],
)
def test_notebooks_that_are_no_chapters(tmp_path, change, message):
    broken = notebook()
    change(broken)
    nbformat.write(broken, tmp_path / "broken.ipynb")
    with pytest.raises(ChapterError, match=message):
        Chapter.load(tmp_path / "broken.ipynb")


@pytest.mark.parametrize(
    "stated, message",
    [
        ("GDCatapult", "No module named 'catapults.experiments.GDCatapult'"),
        ("gd_catapul.GDCatapult", "No module named 'catapults.experiments.gd_catapul'"),
        ("gd_catapult", "the module has no page ''"),
        ("gd_catapult.Missing", "the module has no page 'Missing'"),
        ("gd_catapult.GDRun", "the module has no page 'GDRun'"),
        (".GDCatapult", "names no page, but '.GDCatapult'"),
        ("gd_catapult.GDCatapult.run", "the module has no page 'GDCatapult.run'"),
        (3, "names no page, but 3"),
    ],
)
def test_metadata_that_name_no_page(tmp_path, stated, message):
    broken = notebook()
    broken.metadata["catapults"]["page"] = stated
    nbformat.write(broken, tmp_path / "broken.ipynb")
    with pytest.raises(ChapterError, match=message):
        Chapter.load(tmp_path / "broken.ipynb")


def test_a_file_that_is_no_notebook(tmp_path):
    (tmp_path / "text.ipynb").write_text("no json")
    with pytest.raises(ChapterError, match="not a readable notebook"):
        Chapter.load(tmp_path / "text.ipynb")


def entries(folder, **changed):
    path = folder / "chapters" / "runs.yml"
    content = yaml.safe_load(path.read_text())
    content["small"] |= changed
    path.write_text(yaml.safe_dump(content))
    return folder / "chapters"


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"parameters": {"widht": 3}}, "run 'small', preset 'smoke': widht: unknown parameter"),
        ({"laptop": {"steps": 0}}, "run 'small', preset 'laptop': steps = 0"),
        ({"parameter": {}}, "run 'small': parameter: unknown parameter; did you mean 'parameters'\\?"),
        ({"smoke": 3}, "run 'small': smoke = 3: input should be a valid dictionary"),
    ],
)
def test_runs_are_checked_whole_before_any_work(tmp_path, changed, message):
    with pytest.raises(RunsError, match=message):
        runs.load(entries(project(tmp_path, {"small": notebook()}), **changed))


def test_a_run_that_stands_twice(tmp_path):
    folder = project(tmp_path, {"small": notebook()}) / "chapters"
    text = (folder / "runs.yml").read_text()
    (folder / "runs.yml").write_text(text + text)
    with pytest.raises(RunsError, match="small: stands twice"):
        runs.load(folder)


def test_a_chapter_without_its_main_page(tmp_path):
    folder = project(tmp_path, {"small": notebook()}, {"other": {"chapter": "small"}}) / "chapters"
    with pytest.raises(RunsError, match="chapter 'small' has no run of its own name"):
        runs.load(folder)


def test_presets_depart_from_the_papers_settings(tmp_path):
    root = project(tmp_path, {"small": notebook()})
    run = runs.load(entries(root, parameters={"width": 99}, laptop={"width": 9, "seeds": 1}, book={"seeds": 3}))[
        "small"
    ]
    assert run.departures("laptop") == {"width": (9, 99)}
    assert run.departures("smoke") == {"steps": (2, 3)}
    assert run.departures("paper") == {}
    assert run.departures("book") == {} and run.settings["book"]["seeds"] == 3  # more seeds are no departure
    assert len(run.page("book").experiments()) == 3 and run.page("laptop").width == 9
    run = runs.load(entries(root, book="laptop"))["small"]
    assert run.settings["book"] == run.settings["laptop"] and "`width = 9` (there: `99`)" in run.made_with("book")


def test_fewer_seeds_than_the_papers_are_a_departure():
    run = runs.load(ROOT / "chapters")["agop_optimizers"]
    assert run.departures("laptop")["seeds"] == ([0], [0, 1, 2])


def test_dictionaries_from_the_command_line():
    chapter = Chapter.load(ROOT / "chapters" / "agop_optimizers.ipynb")
    rates = {"adam": 0.001, "sgd": 2.0}
    assert chapter.read(["rates={'adam': 0.001, 'sgd': 2.0}"]) == {"rates": rates}
    assert chapter.resolve({"rates": rates})["rates"] == rates
    with pytest.raises(ParameterError, match="'adm' is no optimiser; allowed are gd, sgd"):
        chapter.resolve(chapter.read(["rates={'adm': 0.001, 'sgd': 2.0}"]))
    chapter = Chapter.load(ROOT / "chapters" / "agop_gd.ipynb")
    small = chapter.read(["small_scale=None", "small_learning_rate=none"])
    assert small == {"small_scale": None, "small_learning_rate": None} and chapter.resolve(small)


class TestTheBooksOwn:
    def test_each_run_has_a_page_of_which_the_sidebar_names_few(self):
        toc = (ROOT / "_toc.yml").read_text()
        every = with_run_sheets(toc, runs.load(ROOT / "chapters"))
        for name in runs.load(ROOT / "chapters"):
            assert every.count(f"file: chapters/{name}\n") == 1, name
        shown = [line for line in toc.splitlines() if "file: " in line and not line.startswith(" " * 14)]  # two levels
        assert "root: " in toc and 1 + len(shown) <= 24

    def test_parameters_are_those_of_the_page_and_where_to_compute(self):
        for run in runs.load(ROOT / "chapters").values():
            where = set() if run.trains_itself else {"device", "scheduler"}
            assert run.chapter.parameters.keys() == run.chapter.page.model_fields.keys() | where
            assert all(parameter.meaning for parameter in run.chapter.parameters.values())

    def test_every_run_resolves_in_every_preset(self):
        for run in runs.load(ROOT / "chapters").values():
            for preset in runs.PRESETS:
                values = run.settings[preset]
                assert run.chapter.resolve(values) == values and values.get("device", "auto") == "auto"
                assert bool(run.page(preset).experiments()) != run.trains_itself

    def test_no_run_is_larger_than_the_papers(self):
        for run in runs.load(ROOT / "chapters").values():
            for preset in ("smoke", "laptop", "book"):
                for name, (ours, theirs) in run.departures(preset).items():
                    larger = name in ("depth", "width", "n_train", "steps", "restart_steps") and ours > theirs
                    assert not larger, (run.name, preset, name)

    def test_fully_connected_networks_have_the_papers_sizes_in_the_book(self):
        for run in runs.load(ROOT / "chapters").values():
            values = run.settings["book"]
            if values.get("architecture") == "fcn" and run.name not in NOT_COMPUTED_YET:
                assert run.departures("book").keys() <= {"strong"}, run.name  # which is a convolutional network
                assert (len(values["seeds"]) if isinstance(values["seeds"], list) else values["seeds"]) >= 3, run.name
            elif run.name == "match_rates":
                assert run.departures("book").keys() == {"cnn"}
            else:  # at the paper's sizes where a GPU has computed them
                assert values == run.settings["laptop"] or not run.departures("book"), run.name

    def test_each_figure_has_a_page(self):
        shown = {label for run in runs.load(ROOT / "chapters").values() for label in run.figures}
        panels = {3: "ab", 4: "ab", 6: "ab", 12: "abc", 13: "ab", 17: "ab", 18: "ab", 19: "ab", 22: "abc", 23: "ab"}
        panels |= dict.fromkeys((7, 8, 9, 10, 11, 14, 15, 16, 20, 21, 24, 25, 29, 30, 31), "abcd")
        panels |= {10: "abcd", 27: "abc", 32: "abc", 33: "ab", 34: "ab"} | dict.fromkeys((2, 5, 26, 28), " ")
        assert {f"{number}{panel}".strip() for number, of in panels.items() for panel in of} == shown
        tables = {label for run in runs.load(ROOT / "chapters").values() for label in run.tables}
        assert tables == {"1", "2", "3"}

    def test_notebooks_hold_no_output(self):
        for path in (ROOT / "chapters").glob("*.ipynb"):
            cells = nbformat.read(path, as_version=4).cells
            assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path


NOT_COMPUTED_YET = {  # at the paper's sizes, which take hours: the book has those of laptop
    *(f"agop_sgd-small-rate{task}" for task in ("", "-rank-3", "-celeba")),
    *("agop_gd-fashion", "agop_sgd-fashion", "agop_sgd-pytorch-celeba"),
}


@pytest.mark.parametrize(
    "annotation, words",
    [
        ("str", "text"),
        ("Optional[int]", "whole number or None"),
        ("Union[float, str, None]", "number or text or None"),
        ("list[int]", "list of whole numbers"),
    ],
)
def test_types_in_words(annotation, words):
    assert Parameter("a", annotation, None, "").in_words == words
