"""The record: found by experiment alone, with what has changed since, never another one's result, never too large."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from catapults.compute import draws, files, record, store, sweep, trainings
from catapults.experiments.descent import Restart
from catapults.experiments.fits import Strong
from catapults.experiments.scaling import Scaling
from samples import own
from sweep_samples import Walk, Walked, descents


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("CATAPULTS_RECORD", str(tmp_path / "record"))
    return tmp_path / "record"


def computed(*experiments):
    """They, their results and what made them."""
    done = sweep(experiments, processes=1)
    return [(e, done[e], done.outcomes[e.key].made) for e in experiments]


def state(experiment) -> str:
    return record.entry(experiment).state


class TestTaking:
    def test_writes_a_small_file_that_says_what_made_it(self, folder):
        assert record.take(computed(Walk(seed=3))) == 1
        (path,) = folder.iterdir()
        assert path == record.path(Walk(seed=3)) and path.name == f"Walk-{Walk(seed=3).key[:20]}.result"
        about = files.about(path)
        assert about["experiment"] == {"seed": 3} and about["made"]["modules"].keys() >= {"sweep_samples.py"}
        assert {"drawn", "versions", "commit", "device", "date", "seconds", "memory"} <= about["made"].keys()
        result, made = record.load(Walk(seed=3))
        assert about["arrays"][0][:2] == ["path", "<f4"] and result.path.dtype == np.float64 and made == about["made"]

    def test_again_writes_nothing(self):
        ((walk, result, made),) = computed(Walk())
        assert record.take([(walk, result, made)]) == 1
        assert record.take([(walk, result, made | {"date": "another"})]) == 0

    def test_never_puts_older_code_in_the_place_of_that_which_is_here(self):
        ((walk, result, made),) = computed(Walk())
        older, oldest = (made | {"modules": made["modules"] | {"sgd.py": code}} for code in "10")
        assert record.take([(walk, result, oldest)]) == 1 and record.take([(walk, result, older)]) == 1
        assert record.take([(walk, result, oldest), (walk, result, made), (walk, result, older)]) == 1
        assert state(walk) == "current"
        assert record.take([(walk, result, older)]) == 0 and state(walk) == "current"

    def test_of_equal_results_makes_equal_files(self, folder, monkeypatch, tmp_path):
        taken = computed(*descents("1.5 eta_crit"))
        record.take(taken)
        first = {path.name: path.read_bytes() for path in folder.iterdir()}
        monkeypatch.setenv("CATAPULTS_RECORD", str(tmp_path / "again"))
        record.take(reversed(taken))
        assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == first and len(first) == 2

    def test_leaves_out_which_samples_were_in_which_batch(self):
        """The seed draws them again; all else is kept."""
        descent, result, made = computed(*descents("1.5 eta_crit"))[0]
        steps = len(result.history)
        drawn = replace(result, history=replace(result.history, batches=np.ones((steps, 3), int)))
        record.take([(descent, drawn, made)])
        history = record.load(descent)[0].history
        assert history.batches.shape == (steps, 0)
        np.testing.assert_allclose(history.loss, result.history.loss, rtol=1e-6)

    def test_too_much_takes_nothing(self, folder, monkeypatch):
        record.take(computed(Walk()))
        before = {path: path.read_bytes() for path in folder.iterdir()}
        monkeypatch.setattr(record, "LIMIT", 2.5 * len(next(iter(before.values()))))
        assert record.take(computed(Walk(seed=1))) == 1
        with pytest.raises(ValueError, match=r"record: 0\.0 MiB; allowed are 0 MiB"):
            record.take(computed(Walk(seed=2), Walk(seed=3)))
        assert len(list(folder.iterdir())) == 2

    def test_what_is_larger_than_all_may_be(self, monkeypatch):
        noise = Walked(np.random.default_rng(0).standard_normal(4_000_000), "1", False, 0)
        with pytest.raises(ValueError, match=r"record: 1\d\.\d MiB; allowed are 12 MiB"):
            record.take([(Walk(), noise, {"modules": {}})])

    def test_outside_of_a_project(self, monkeypatch, tmp_path):
        monkeypatch.delenv("CATAPULTS_RECORD")
        monkeypatch.chdir(tmp_path)
        assert record.folder() is None and record.load(Walk()) is None and state(Walk()) == "missing"
        with pytest.raises(ValueError, match="record: this is not in a project; go to its folder, or set CATAPULTS_R"):
            record.take([(Walk(), Walked(np.zeros(1), "1", False, 0), {"modules": {}})])

    def test_in_a_project_and_its_folders(self, monkeypatch, tmp_path):
        monkeypatch.delenv("CATAPULTS_RECORD")
        (tmp_path / "chapters").mkdir()
        (tmp_path / "chapters" / "runs.yml").touch()
        for place in (tmp_path, tmp_path / "chapters"):
            monkeypatch.chdir(place)
            assert record.folder() == tmp_path / "record"


class TestAdding:
    def test_takes_over_what_is_stored_and_says_what_is_nowhere(self):
        record.take(computed(Walk(seed=1)))
        computed(Walk(seed=2))
        for path in store.folder().glob(f"Walk-{Walk(seed=1).key[:16]}*"):
            path.unlink()
        added = record.add([Walk(seed=1), Walk(seed=2), Walk(seed=3), Walk(seed=2)], "cpu")
        assert added == (1, [Walk(seed=3)]) and state(Walk(seed=2)) == "current"

    def test_what_draws_from_a_data_set_that_is_not_here(self, monkeypatch, tmp_path):
        assert record.add([Walk(dataset="nowhere"), Walk()], "cpu") == (0, [Walk(dataset="nowhere"), Walk()])
        monkeypatch.setattr(draws, "identity", lambda _: pytest.fail("asked for, although nothing of it is stored"))
        assert record.add([Walk(dataset="nowhere")], "cpu") == (0, [Walk(dataset="nowhere")])


class TestTheStates:
    def test_current_behind_and_missing(self, monkeypatch):
        ((walk, result, made),) = computed(Walk())
        assert record.entry(walk) == record.Entry("plain, seed 0", "missing") and record.load(walk) is None
        record.take([(walk, result, made)])
        entry = record.entry(walk)
        assert (entry.state, entry.made, entry.path) == ("current", made, record.path(walk))
        entry.path.unlink()
        then = made["modules"] | {"sgd.py": "0", "sweep_samples.py": "1"}
        record.take([(walk, result, made | {"modules": then})])
        entry = record.entry(walk)
        assert (entry.state, entry.changed) == ("behind", ("sgd.py", "sweep_samples.py"))
        assert entry.reason == "computed before these modules changed: sgd.py, sweep_samples.py"

    def test_of_all_and_of_what_nobody_asks_for(self):
        record.take(computed(Walk(seed=1), Walk(seed=2)))
        entries = record.status([Walk(seed=3), Walk(seed=2), Walk(seed=2)])
        assert [(e.name, e.state) for e in entries] == [
            ("plain, seed 3", "missing"), ("plain, seed 2", "current"), ("plain, seed 1", "superseded"),
        ]  # fmt: skip
        assert entries[2].reason == "no run asks for it" and entries[2].made["device"].startswith("cpu")

    def test_do_not_depend_on_data_device_or_versions(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path))
        own(tmp_path)
        (taken,) = computed(Walk(dataset="mine"))
        other = taken[2] | {"device": "cuda:0 (another)", "versions": {"torch": "0.1"}}
        record.take([(*taken[:2], other)])
        (tmp_path / "mine.npz").unlink()
        assert state(Walk(dataset="mine")) == "current" and record.load(Walk(dataset="mine"))[1] == other

    def test_of_timings_that_nothing_here_can_take_again(self, monkeypatch):
        def not_here(_):
            raise trainings.NotHere("timings need a checkout")

        record.take(computed(Walk()))
        monkeypatch.setattr(record, "source_of", not_here)
        assert state(Walk()) == "current"


def test_where_timings_are_computed_is_known_without_importing_it():
    timing = Scaling.model_construct()
    assert trainings.source_of(timing) == Path(__file__).parents[1] / "benchmarks" / "scaling.py"


class TestDamage:
    @pytest.mark.parametrize("content", [b"", b"version https://git-lfs", None])
    def test_is_an_error_that_names_the_file(self, content):
        record.take(computed(Walk()))
        path = record.path(Walk())
        path.write_bytes(path.read_bytes()[:-30] if content is None else content)
        for read in (record.load, record.entry, lambda e: record.status([e]), lambda _: record.status([])):
            with pytest.raises(files.Damaged, match=f"{path}: damaged"):
                read(Walk())
        with pytest.raises(files.Damaged, match=f"{path}: damaged"):
            forget()
            sweep([Walk()], again=True, processes=1)

    def test_a_file_of_another_experiment(self):
        record.take(computed(Walk(), Walk(seed=1)))
        record.path(Walk(seed=1)).replace(record.path(Walk()))
        for read in (record.load, record.entry):
            with pytest.raises(files.Damaged, match="holds another experiment, plain, seed 1; get it back from git"):
                read(Walk())

    def test_a_file_that_does_not_say_what_made_it(self):
        ((walk, result, _),) = computed(Walk())
        files.write(record.path(walk), result, store.about(walk, {}))
        with pytest.raises(files.Damaged, match="does not say what made it"):
            record.load(walk)


def forget() -> None:
    """Delete what is stored."""
    for path in store.folder().iterdir():
        path.unlink()


def test_a_training_comes_back_as_it_was_but_for_its_precision():
    training, restart = descents("1.5 eta_crit")
    taken = computed(training, restart)
    record.take(taken)
    for experiment, result, _ in taken:
        back = record.load(experiment)[0]
        assert np.allclose(back.history.loss, result.history.loss, rtol=1e-6)
        assert back.history.tops == result.history.tops and back.history.diverged == result.history.diverged
        assert (back.source, back.parameters, back.outputs) == (result.source, result.parameters, result.outputs)
    assert isinstance(restart, Restart) and state(restart) == "current"


def test_a_strong_models_agop_is_recorded_but_for_a_hundredth():
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0]
    values = np.sort(np.random.default_rng(1).exponential(size=40) ** 6)
    strong = Strong((basis * np.sqrt(values)).astype(np.float32), 0.1, "Images.", 7)
    kept = record._shorter(strong)
    assert kept.factor.dtype == np.float16 and kept.factor.shape[1] < 30
    left_out = np.linalg.norm(kept.egop - strong.egop) / np.linalg.norm(strong.egop)
    assert left_out <= record.REST + 1e-3
