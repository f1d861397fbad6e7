"""What is kept of an experiment comes back only where everything is as it was."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from catapults import data
from catapults.compute import files, fingerprint, made, store, trainings
from samples import own
from sweep_samples import NETWORK, Walk, Walked, descents

WALKED = Walked(np.arange(5.0), "1", False, 0)
MADE = {"modules": {}, "seconds": 1.0}


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def key(experiment) -> str:
    return store.key(experiment, "cpu")


def kept(experiment, result=WALKED):
    store.save(experiment, result, MADE, key(experiment))
    return store.load(experiment, key(experiment))


def test_a_result_and_what_made_it_come_back():
    result, about = kept(Walk())
    assert result.path.tobytes() == WALKED.path.tobytes() and replace(result, path=0) == replace(WALKED, path=0)
    assert about == MADE


def test_a_file_says_what_it_is(results):
    kept(Walk(seed=3))
    (path,) = results.iterdir()
    assert path.name == f"Walk-{Walk(seed=3).key[:16]}-{key(Walk(seed=3))[:16]}.result"
    said = files.about(path)
    assert (said["name"], said["class"], said["experiment"]) == ("plain, seed 3", "Walk", {"seed": 3})
    assert said["experiment_key"] == Walk(seed=3).key and said["key"] == key(Walk(seed=3))


def test_of_what_there_may_be_results():
    assert store.perhaps([Walk()]) == set()
    kept(Walk())
    store.save(Walk(seed=1), WALKED, MADE, "0" * 64)
    assert store.perhaps([Walk(), Walk(seed=1), Walk(seed=2)]) == {Walk().key, Walk(seed=1).key}


def test_another_experiments_result_is_not_kept(results):
    with pytest.raises(TypeError, match="result: Walked; allowed is Measured"):
        store.save(descents("1.5 eta_crit")[0], WALKED, MADE, "key")
    assert not results.exists()


class TestTheKey:
    def test_is_stable_in_another_process(self):
        code = "from sweep_samples import *; from catapults.compute import store\n"
        code += "print(*(store.key(e, 'cpu') for e in [Walk(seed=3), *descents(2)]))"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [key(e) for e in [Walk(seed=3), *descents(2)]]

    def test_does_not_see_how_many_threads_are_used_now(self, monkeypatch):
        before = key(Walk())
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
        assert key(Walk()) == before

    def test_sees_the_experiment(self):
        experiments = [Walk(), Walk(seed=1), Walk(start=Walk()), *descents("1.5 eta_crit", "2 eta_crit")]
        assert len({key(experiment) for experiment in experiments}) == 6

    def test_sees_versions_and_device(self, monkeypatch):
        before = key(Walk())
        with monkeypatch.context() as patch:
            patch.setattr(fingerprint, "dependencies", lambda: {"torch": "0.1"})
            assert key(Walk()) != before
        with monkeypatch.context() as patch:
            patch.setattr(made.platform, "machine", lambda: "another machine")
            assert key(Walk()) != before
        assert key(Walk()) == before

    def test_sees_the_code_that_a_training_runs_through_and_no_other(self, tmp_path, monkeypatch):
        library = tmp_path / "catapults"
        shutil.copytree(Path(fingerprint.__file__).parents[1], library)
        monkeypatch.setattr(fingerprint, "_PACKAGE", library)
        training = descents("1.5 eta_crit")[0]
        monkeypatch.setattr(trainings, "source_of", lambda _: library / "compute" / "trainings" / "descent.py")
        before = key(training)
        shown = ("figures/base", "paper/claims", "book/cli", "experiments/descent", "compute/sweep", "compute/record")
        for module in shown:
            self.change(library / f"{module}.py", "changed = 1")
            assert key(training) == before, module
        for module in ("models", "data/synthetic", "tangent/kernel", "compute/trainings/descent"):
            self.change(library / f"{module}.py", "# a comment")
            assert key(training) == before, module
            self.change(library / f"{module}.py", "changed = 1")
            assert key(training) != before, module
            before = key(training)

    def change(self, path, line):
        path.write_text(f"{path.read_text()}\n{line}\n")

    def test_sees_the_data(self, tmp_path, monkeypatch):
        (tmp_path / "data").mkdir()
        monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path / "data"))
        with pytest.raises(data.DataUnavailable):
            key(Walk(dataset="mine"))
        own(tmp_path / "data")
        before = key(Walk(dataset="mine"))
        own(tmp_path / "data", train_labels=np.arange(20) % 2)
        after = key(Walk(dataset="mine"))
        assert before != after == store.key(Walk(dataset="mine"), "cpu", data.identity("mine"))

    def test_of_a_restart_sees_the_data_of_what_it_restarts(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path))
        own(tmp_path)
        of, restart = descents("1.5 eta_crit")
        restart = type(restart)(of=type(of).create(**dict(of) | NETWORK | {"dataset": "mine:0,1"}), steps=4)
        before = key(restart)
        own(tmp_path, train_labels=np.arange(20) % 2)
        assert key(restart) != before


class TestAFile:
    def test_that_is_not_there_or_damaged_or_of_another_key_is_none(self, results):
        assert store.load(Walk(), key(Walk())) is None
        kept(Walk())
        (path,) = results.iterdir()
        whole = path.read_bytes()
        for content in (b"", b"damaged", whole[:-1], whole[: len(whole) // 2]):
            path.write_bytes(content)
            assert store.load(Walk(), key(Walk())) is None
        path.write_bytes(whole)
        assert store.load(Walk(), key(Walk())) is not None
        assert store.load(Walk(), key(Walk())[:16] + "0" * 48) is None

    def test_of_a_record_is_none(self):
        files.write(store.path(Walk(), key(Walk())), WALKED, store.about(Walk(), MADE))
        assert store.load(Walk(), key(Walk())) is None

    def test_of_an_earlier_form_of_the_result_is_none(self, monkeypatch):
        kept(Walk())
        monkeypatch.setattr(Walk, "Result", descents(1)[0].Result)
        assert store.load(Walk(), key(Walk())) is None


class TestAFolder:
    def test_is_named_by_the_person_or_by_whoever_asks_or_in_the_cache(self, tmp_path, monkeypatch):
        assert store.folder(tmp_path / "default") == tmp_path / "results"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("CATAPULTS_RESULTS", "here")
        assert store.folder() == tmp_path / "here"
        monkeypatch.delenv("CATAPULTS_RESULTS")
        monkeypatch.setenv("CATAPULTS_CACHE", str(tmp_path / "cache"))
        assert store.folder(tmp_path / "default") == tmp_path / "default"
        assert store.folder() == tmp_path / "cache" / "results"

    def test_that_cannot_be_written_costs_a_warning(self, results):
        results.write_text("not a folder")
        with pytest.warns(UserWarning, match=f"{results}.*: the result of plain, seed 0 could not be kept: "):
            assert store.save(Walk(), WALKED, MADE, key(Walk())) is False
        assert store.perhaps([Walk()]) == set()

    def test_on_a_full_disk_costs_a_warning_and_leaves_nothing_half_written(self, results, monkeypatch):
        def full(self, content):
            with self.open("wb") as file:
                file.write(content[:2])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(type(results), "write_bytes", full)
        with pytest.warns(UserWarning, match="No space left on device"):
            assert store.save(Walk(), WALKED, MADE, key(Walk())) is False
        assert list(results.iterdir()) == []
