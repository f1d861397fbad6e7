"""A job: experiments that go to another machine with the tensors that they draw, and whose results come home."""

import os
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from catapults import compute
from catapults.compute import files, job, record
from catapults.experiments.descent import GradientDescent, Restart
from catapults.experiments.fits import Fit
from catapults.training import Loop
from samples import own
from sweep_samples import Walk

NETWORK = dict(
    dataset="rank-2", architecture="fcn", depth=2, width=16, norm=None, image_size=None, n_train=8, labels="zero-one",
    parameterization="ntk", gain=1.0, bias=False, seed=0,
)  # fmt: skip
DESCENT = GradientDescent.create(**NETWORK, learning_rate="1.5 eta_crit", steps=4, top=2, hessian_every=None)
RESTART = Restart(of=DESCENT, steps=3)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("CATAPULTS_RECORD", str(tmp_path / "record"))


def same(a, b) -> bool:
    return np.array_equal(a.history.loss, b.history.loss) and np.array_equal(a.history.splits, b.history.splits)


def test_a_job_computes_what_is_computed_here_and_comes_home(tmp_path):
    assert job.pack([RESTART], tmp_path / "job") == ([RESTART], {})
    assert len(job.run(tmp_path / "job", processes=1)) == 2  # what it needs is computed as well
    here = compute.sweep([DESCENT, RESTART], processes=1)
    for experiment, result, made in job.results(tmp_path / "job"):
        assert same(result, here[experiment]) and made["drawn"] == here.outcomes[experiment.key].made["drawn"]
    assert record.take(job.results(tmp_path / "job")) == 2
    assert record.entry(RESTART).state == "current"


def test_what_is_here_already_is_packed_as_a_result_that_others_start_from(tmp_path):
    compute.sweep([DESCENT], processes=1)
    assert job.pack([DESCENT, RESTART], tmp_path / "job") == ([RESTART], {})
    done = job.run(tmp_path / "job", processes=1)
    assert [e.key for e in done] == [RESTART.key]


def test_a_job_needs_no_data_set(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path))
    own(tmp_path)
    sizes = {"n_train": 4, "n_validation": 6, "n_test": 4}
    strong = {"architecture": "cnn", "depth": 2, "width": 4, "batch_size": 4, "learning_rate": 0.01, "steps": 2}
    values = {"label_noise": 0.0, "steps": 4, "stop_below": 0.0, "evaluate_every": 2, "patience": None}
    how = {"learning_rate": 0.1, "batch_size": 4, "replacement": False, "critical_every": 1, "settle": None}
    fit = Fit.create(
        **NETWORK | {"dataset": "mine:0,1"} | sizes | values | how,
        strong=strong | sizes,
        optimizer="sgd",
        initial_scale=1.0,
    )
    job.pack([fit], tmp_path / "job")
    monkeypatch.delenv("CATAPULTS_DATA")
    done = job.run(tmp_path / "job", processes=1)
    assert not done.failures and [e.key for e in done] == [fit.needs[0].key, fit.key]


def test_what_draws_from_data_that_cannot_be_had_is_named_and_the_rest_packed(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path))
    own(tmp_path)
    real = NETWORK | {"dataset": "mine:0,1"}
    absent = GradientDescent.create(**real, learning_rate="1.5 eta_crit", steps=4, top=2, hessian_every=None)
    monkeypatch.delenv("CATAPULTS_DATA")
    packed, refused = job.pack([absent, Restart(of=absent, steps=3), DESCENT], tmp_path / "job")
    assert packed == [DESCENT] and refused.keys() == {"mine:0,1"} and "mine.npz is not in" in refused["mine:0,1"]
    assert [e.key for e in job.run(tmp_path / "job", processes=1)] == [DESCENT.key]


def test_results_of_a_persons_own_experiments_stay_where_they_are(tmp_path):
    compute.sweep([DESCENT, Walk()], processes=1)
    assert [experiment for experiment, *_ in job.results(tmp_path / "results")] == [DESCENT]


def test_the_line_has_the_hours_that_were_asked_for(tmp_path):
    job.pack([DESCENT], tmp_path / "job", hours=8.0)
    assert "python -m catapults.compute job --hours 8\n" in (tmp_path / "job" / "README.txt").read_text()


def test_what_the_record_has_from_other_code_is_packed_again(tmp_path):
    done = compute.sweep([DESCENT], processes=1)
    made = done.outcomes[DESCENT.key].made
    record.take([(DESCENT, done[DESCENT], made | {"modules": made["modules"] | {"sgd.py": "0"}})])
    for path in (tmp_path / "results").iterdir():
        path.unlink()
    assert job.pack([DESCENT], tmp_path / "job")[0] == []
    assert job.pack([DESCENT], tmp_path / "again", again=True)[0] == [DESCENT]
    assert job.pack([RESTART], tmp_path / "both", again=True)[0] == [RESTART]
    assert len(job.run(tmp_path / "both", processes=1)) == 2  # what it needs is computed by the same code


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no job and no results; allowed"):
        list(job.results(tmp_path / "nowhere"))


def test_a_file_that_does_not_say_what_was_computed_is_named(tmp_path):
    compute.sweep([DESCENT], processes=1)
    (path,) = (tmp_path / "results").glob("*.result")
    result, about = files.read(path, DESCENT.Result)
    files.write(path, result, {name: about[name] for name in ("class", "made")})
    with pytest.raises(files.Damaged, match=f"{path.name}: does not say what was computed"):
        list(job.results(tmp_path / "results"))


def test_a_job_stops_in_time_and_goes_on(tmp_path):
    job.pack([DESCENT, RESTART], tmp_path / "job")
    stopped = job.run(tmp_path / "job", hours=1e-9, processes=1)
    assert not len(stopped) and all(outcome.unfinished for outcome in stopped.failures)
    assert len(job.run(tmp_path / "job", processes=1)) == 2


def test_what_is_no_job_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no job"):
        job.run(tmp_path)


def test_a_damaged_result_is_named(tmp_path):
    job.pack([DESCENT], tmp_path / "job")
    job.run(tmp_path / "job", processes=1)
    (path,) = (tmp_path / "job" / "results").glob("*.result")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(files.Damaged, match=path.name):
        list(job.results(tmp_path / "job"))


def test_a_job_runs_where_only_the_library_is(tmp_path):
    """In an environment that sees what the library depends on, and neither Jupyter nor Sphinx nor a data set."""
    from importlib.metadata import requires

    job.pack([DESCENT], tmp_path / "job")
    venv.create(tmp_path / "env", symlinks=True)
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    for name in _closure([r for r in requires("catapults") if "extra ==" not in r]):
        _link(name, site)
    (site / "library.pth").write_text(str(Path(__file__).parents[1] / "lib"), encoding="utf-8")
    python = tmp_path / "env" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CATAPULTS", "PYTHON"))}
    absent = subprocess.run([python, "-c", "import papermill"], env=environment, capture_output=True)
    assert absent.returncode
    line = job.line(tmp_path / "job").split()[1:]
    done = subprocess.run([python, *line], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "job" / "results").glob("*.result"))) == 1


def _closure(requirements: list[str]) -> set[str]:
    """The names of the distributions that these need, directly or through others."""
    from importlib.metadata import PackageNotFoundError, distribution

    from packaging.requirements import Requirement

    names, waiting = set(), list(requirements)
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name in names or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            waiting += distribution(requirement.name).requires or []
        except PackageNotFoundError:
            continue
        names.add(requirement.name)
    return names


def _link(name: str, site: Path) -> None:
    """Make what a distribution has installed visible in another environment."""
    from importlib.metadata import distribution

    for top in {file.parts[0] for file in distribution(name).files if ".." not in file.parts}:
        place = site / top
        if not place.exists() and top not in ("__pycache__",):
            place.symlink_to(Path(distribution(name).locate_file(top)))


def test_the_one_line_is_a_command_of_this_library():
    line = [sys.executable, "-m", "catapults.compute", "--help"]
    assert subprocess.run(line, capture_output=True).returncode == 0


LONG = GradientDescent.create(
    **NETWORK | {"n_train": 32, "width": 64}, learning_rate="1.5 eta_crit", steps=2000, top=2, hessian_every=None
)
RUN = """
import sys
import time
from catapults.compute import checkpoints, job
checkpoints.Checkpoint.due = lambda self: True
job.run(__import__("pathlib").Path(sys.argv[1]), processes=1)
"""


def test_a_training_that_is_killed_goes_on_from_its_checkpoint_bit_for_bit(tmp_path):
    job.pack([LONG], tmp_path / "job")
    results = tmp_path / "job" / "results"
    process = subprocess.Popen([sys.executable, "-c", RUN, tmp_path / "job"])
    while not list(results.glob("*.checkpoint")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    (kept,) = results.glob("*.checkpoint")
    step = torch.load(kept, weights_only=True)["iteration"]
    assert 0 < step < LONG.steps and not list(results.glob("*.result"))

    begun = []
    restore = Loop._load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_load", lambda self, state: (begun.append(state["iteration"]), restore(self, state)))
        done = job.run(tmp_path / "job", processes=1)
    whole = compute.sweep([LONG], processes=1)[LONG].history
    ours = done[LONG].history
    assert begun == [step] and not list(results.glob("*.checkpoint"))
    for column in ("loss", "splits", "kernel_norm", "learning_rate", "critical_learning_rate"):
        assert np.array_equal(getattr(ours, column), getattr(whole, column), equal_nan=True)
