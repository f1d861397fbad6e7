"""Sweeps in this process, in others and on a Dask cluster: the same results, whatever happens to one of them."""

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import distributed
import numpy as np
import psutil
import pytest
import torch
from catapults import devices
from catapults.compute import ComputationFailed, cluster, draws, estimate, obtain, processes, record, store, workers
from catapults.compute.sweep import check_scheduler, look_up, sweep
from samples import own
from sweep_samples import OtherResult, Walk, descents, pretend, runs, set_environment

HERE = Path(__file__).parent
DIVERGING = 13  # the seed of which a walk says that it diverged


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("CATAPULTS_RECORD", str(tmp_path / "record"))
    return tmp_path / "results"


@pytest.fixture
def marks(tmp_path):
    """The folder in which each run leaves a file."""
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture(scope="module")
def local_cluster():
    """Two workers with a process each."""
    with (
        processes.environment({"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}),
        distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=":0") as local,
    ):
        yield local


@pytest.fixture
def scheduler(local_cluster):
    """Its address; it has both workers again, where the test before has killed one."""
    with distributed.Client(local_cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    return local_cluster.scheduler_address


def walk(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(10).cumsum()


def bits(results, experiments) -> list[bytes]:
    """Of trainings."""
    return [results[e].history.loss.tobytes() + results[e].history.splits.tobytes() for e in experiments]


TRAININGS = descents("1.5 eta_crit", "0.5 eta_crit")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What the trainings give in this process."""
    folders = {"CATAPULTS_RESULTS": str(tmp_path_factory.mktemp("alone")), "CATAPULTS_RECORD": "/nonexistent"}
    with processes.environment(folders):
        trained = bits(sweep(TRAININGS, processes=1), TRAININGS)
    assert len(set(trained)) == 3
    return trained


def killing(mark: Path):
    """Kill the process that leaves this mark, once."""

    def kill():
        while not (mark.exists() and mark.read_text()):
            time.sleep(0.02)
        os.kill(int(mark.read_text()), signal.SIGKILL)

    @contextmanager
    def running():
        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        yield
        thread.join(1)
        assert not thread.is_alive()

    return running()


def recorded(*experiments, code=None) -> None:
    """Compute, put into the record, and forget the stored results; ``code``: pretend that it was other code."""
    done = sweep(experiments, processes=1)
    entries = [(e, done[e], dict(done.outcomes[e.key].made)) for e in experiments]
    record.take((e, r, made | ({"modules": code} if code else {})) for e, r, made in entries)
    for path in store.folder().iterdir():
        path.unlink()


class TestHere:
    def test_results_are_those_of_the_experiments_in_their_order(self):
        experiments = [Walk(seed=seed) for seed in (2, 0, 1)]
        before = torch.get_num_threads()
        torch.set_num_threads(before + 1)
        try:
            done = sweep(experiments, processes=1)
            assert torch.get_num_threads() == before + 1
        finally:
            torch.set_num_threads(before)
        assert [result.path.tolist() for result in done.values()] == [walk(e.seed).tolist() for e in experiments]
        assert list(done) == experiments and {result.threads for result in done.values()} == {"1"}
        assert done.describe() == "3 trainings." and not done.failures
        assert sweep(experiments).describe() == "3 trainings, 3 of them earlier."

    def test_equal_experiments_are_computed_once(self, marks):
        done = sweep([Walk(seed=seed, marks=str(marks)) for seed in (0, 1, 0)], processes=1)
        assert runs(marks) == ["plain, seed 0", "plain, seed 1"] and done.describe() == "2 trainings."

    def test_what_fails_and_what_diverges_is_said_by_name(self, marks):
        bad = Walk(seed=1, marks=str(marks), deed="raise")
        diverging, lost, good = Walk(seed=DIVERGING), Walk(seed=3, dataset="nowhere"), Walk(seed=4)
        for earlier in (0, 2):  # what failed is tried again
            done = sweep([bad, diverging, lost, good], processes=1)
            assert list(done) == [diverging, good] and [o.experiment for o in done.diverged] == [diverging]
            assert done.outcomes[bad.key].failure == "ValueError: as it was told"
            assert done.outcomes[lost.key].failure.startswith("DataUnavailable: nowhere cannot be had")
            assert sum(not o.computed and not o.failure for o in done.outcomes.values()) == earlier
        assert runs(marks) == ["raise, seed 1"] * 2
        beginning = (
            "4 trainings, 2 of them earlier; 1 diverged: plain, seed 13; 2 failed: raise, seed 1: ValueError: as"
        )
        assert done.describe().startswith(beginning) and done.describe().endswith(".")
        with pytest.raises(KeyError, match="no result of raise, seed 1: ValueError: as it was told"):
            done[bad]
        with pytest.raises(KeyError, match="no result of plain, seed 5"):
            done[Walk(seed=5)]

    def test_failures_of_one_name_are_kept_apart(self, marks):
        alike = [Walk(marks=str(marks), deed="raise"), Walk(marks=f"{marks}/.", deed="raise")]
        done = sweep(alike, processes=1)
        assert [outcome.experiment for outcome in done.failures] == alike

    def test_all_others_are_computed_before_a_page_says_what_failed(self, marks):
        bad, good = Walk(marks=str(marks), deed="raise"), Walk(seed=1)
        with pytest.raises(ComputationFailed, match="2 trainings; 1 failed: raise, seed 0: ValueError: as it was told"):
            obtain([bad, good], progress=False)
        assert look_up([bad, good]).keys() == {good.key}

    def test_an_error_that_nobody_expected_is_shown_whole(self, marks):
        with pytest.warns(
            UserWarning, match=r'(?s)err, seed 0: Traceback.*raise RuntimeError\("nobody expected that"\)'
        ):
            done = sweep([Walk(marks=str(marks), deed="err")], processes=1)
        assert done.failures[0].failure == "RuntimeError: nobody expected that"

    def test_a_result_of_the_wrong_kind_is_a_failure(self):
        with pytest.warns(UserWarning, match="TypeError"):
            done = sweep([OtherResult()], processes=1)
        assert done.failures[0].failure == "TypeError: result: Walked; allowed is Experiment"

    def test_an_interrupted_one_goes_on_where_it_was(self, marks):
        deeds = ["", "", "interrupt", ""]
        experiments = [Walk(seed=seed, marks=str(marks), deed=deed) for seed, deed in enumerate(deeds)]
        with pytest.raises(KeyboardInterrupt):
            sweep(experiments, processes=1)
        assert runs(marks) == ["interrupt, seed 2", "plain, seed 0", "plain, seed 1"]
        done = sweep(experiments, processes=1)
        assert runs(marks) == ["interrupt, seed 2"] * 2 + [f"plain, seed {seed}" for seed in (0, 1, 3)]
        assert [outcome.computed for outcome in done.outcomes.values()] == [False, False, True, True]

    def test_what_is_damaged_is_made_again(self):
        experiments = [Walk(seed=seed) for seed in (0, 1)]
        first = sweep(experiments, processes=1)
        store.path(experiments[0], store.key(experiments[0], "cpu")).write_bytes(b"damaged")
        second = sweep(experiments, processes=1)
        assert [outcome.computed for outcome in second.outcomes.values()] == [True, False]
        assert all(first[e].path.tobytes() == second[e].path.tobytes() for e in experiments)

    def test_a_full_disk_loses_no_result(self, results):
        results.write_text("not a folder")
        with pytest.warns(UserWarning, match="the result of plain, seed 0 could not be kept"):
            assert len(sweep([Walk()], processes=1)) == 1

    def test_nothing_to_do(self):
        assert not sweep([]) and sweep([], scheduler="tcp://127.0.0.1:1").describe() == "0 trainings."

    def test_what_is_defined_in_a_notebook_is_refused_before_any_work(self, marks, monkeypatch):
        class Own(Walk):
            pass

        monkeypatch.setattr(Own, "__module__", "__main__")
        here = "Own: what is defined in a notebook or a script cannot be imported by other processes; allowed are"
        with pytest.raises(ValueError, match=here):
            sweep([Walk(marks=str(marks)), Own()], processes=1)
        assert runs(marks) == []

    @pytest.mark.parametrize(
        "arguments, said",
        [
            ({"processes": 0}, "processes = 0: allowed are whole numbers of at least 1"),
            ({"hours": 0}, "hours = 0: allowed are positive numbers, and None"),
            ({"hours": float("nan")}, "hours = nan: allowed are positive numbers, and None"),
            ({"device": "abacus"}, "device = 'abacus'"),
        ],
    )
    def test_arguments_that_are_not_allowed(self, arguments, said, marks):
        with pytest.raises(ValueError, match=re.escape(said)):
            sweep([Walk(marks=str(marks))], **arguments)
        assert runs(marks) == []


class TestWhatOthersNeed:
    def test_is_computed_first_once_and_not_among_the_results(self, marks):
        first = Walk(seed=7, marks=str(marks))
        others = [Walk(seed=seed, start=first) for seed in range(3)]
        done = sweep(others, processes=1)
        assert runs(marks) == ["plain, seed 7"] and list(done) == others
        for other in others:
            assert np.array_equal(done[other].path, walk(7)[-1] + walk(other.seed))
        assert not sweep([first]).outcomes[first.key].computed

    def test_is_among_the_results_where_it_is_asked_for(self, marks):
        first = Walk(seed=7, marks=str(marks))
        done = sweep([Walk(start=first), first], processes=1)
        assert [e.seed for e in done] == [0, 7] and runs(marks) == ["plain, seed 7"]

    def test_comes_from_the_record(self, marks):
        first = Walk(seed=7, marks=str(marks))
        recorded(first)
        assert np.allclose(sweep([Walk(start=first)], processes=1)[Walk(start=first)].path, walk(7)[-1] + walk())
        assert runs(marks) == ["plain, seed 7"]

    def test_from_the_record_gives_the_same_restart(self, alone):
        recorded(TRAININGS[0])
        done = sweep(TRAININGS[2:], processes=1)
        assert bits(done, TRAININGS[2:]) == alone[2:] and done.describe() == "1 training."

    def test_fails_those_that_need_it_by_its_name(self, marks):
        bad = Walk(seed=1, marks=str(marks), deed="raise")
        child = Walk(seed=2, start=bad)
        grandchild, good = Walk(seed=3, start=child), Walk(seed=4)
        done = sweep([grandchild, child, good], processes=1)
        assert done.outcomes[child.key].failure == "it needs raise, seed 1, which failed"
        assert done.outcomes[grandchild.key].failure == "it needs plain, seed 2, which failed"
        assert list(done) == [good] and not any(outcome.unfinished for outcome in done.failures)

    def test_whose_data_cannot_be_had(self):
        child = Walk(start=Walk(seed=1, dataset="nowhere"))
        assert sweep([child], processes=1).outcomes[child.key].failure == "it needs plain, seed 1, which failed"

    def test_restarts_of_different_data_have_keys_of_their_own(self, tmp_path, monkeypatch):
        """Their data set is that of what they restart."""
        monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path))
        own(tmp_path)
        *_, synthetic = descents("1.5 eta_crit")
        of = synthetic.of.model_copy(update={"dataset": "mine:0,1"})
        real = synthetic.model_copy(update={"of": of})
        for experiments in ([synthetic, real], [real, synthetic]):
            done = sweep(experiments, processes=1)
            assert not done.failures
        assert not any(outcome.computed for outcome in done.outcomes.values())


class TestTheOrder:
    @pytest.fixture
    def begun(self, monkeypatch):
        """The seeds, in the order in which they begin; each takes as many seconds as its seed."""
        monkeypatch.setattr(estimate, "seconds", lambda experiment: float(experiment.seed))
        order = []
        monkeypatch.setattr(Walk, "_nothing", lambda self, *_: order.append(self.seed))
        return order

    def test_is_the_longest_first_and_with_it_what_it_needs(self, begun, marks):
        first = Walk(seed=1, marks=str(marks))
        sweep(
            [
                Walk(seed=5, marks=str(marks)),
                Walk(seed=9, marks=str(marks), start=first),
                Walk(seed=3, marks=str(marks)),
            ],
            processes=1,
        )
        assert begun == [1, 9, 5, 3]

    def test_can_be_the_given_one(self, begun, marks):
        first = Walk(seed=1, marks=str(marks))
        sweep([Walk(seed=3, marks=str(marks)), Walk(seed=9, marks=str(marks), start=first)], processes=1, in_order=True)
        assert begun == [3, 1, 9]


class TestTime:
    def test_that_is_over_lets_nothing_begin(self, marks):
        child = Walk(seed=1, start=Walk(marks=str(marks)))
        done = sweep([child, Walk(seed=2, start=child)], processes=1, hours=1e-12)
        assert {outcome.failure for outcome in done.failures} == {"no time was left of 1e-12 hours"}
        assert all(outcome.unfinished for outcome in done.failures) and runs(marks) == []

    def test_stops_a_long_one_which_then_goes_on(self, marks, results):
        long, later = Walk(marks=str(marks), deed="take_long"), Walk(seed=1)
        done = sweep([long, later], processes=1, hours=0.3 / 3600, in_order=True)
        assert done.outcomes[long.key].unfinished and done.outcomes[later.key].unfinished
        (kept,) = results.iterdir()
        assert done.outcomes[long.key].failure == f"OutOfTime: stopped at the time limit; {kept} holds where it was"
        done = sweep([long, later], processes=1)
        assert done[long].resumed == 7 and not kept.exists()

    def test_a_state_stays_until_the_result_is_kept(self, marks, results, monkeypatch):
        long = Walk(marks=str(marks), deed="take_long")
        sweep([long], processes=1, hours=0.1 / 3600)
        (kept,) = results.iterdir()
        with monkeypatch.context() as patch:
            patch.setattr(store, "save", lambda *_: False)  # as on a full disk
            assert sweep([long], processes=1)[long].resumed == 7
        assert kept.exists()


class TestTheRecord:
    def test_is_used_where_nothing_is_stored(self, marks):
        experiment = Walk(marks=str(marks))
        recorded(experiment)
        outcome = sweep([experiment]).outcomes[experiment.key]
        assert not outcome.computed and outcome.changed == () and np.allclose(outcome.result.path, walk())
        assert runs(marks) == ["plain, seed 0"]

    def test_the_store_is_used_first(self):
        experiment = Walk()
        recorded(experiment)
        record.path(experiment).rename(record.path(experiment).with_suffix(".away"))
        sweep([experiment], processes=1)
        record.path(experiment).with_suffix(".away").rename(record.path(experiment))
        assert sweep([experiment])[experiment].path.dtype == np.float64  # of the record it is float32

    def test_of_other_code_is_used_and_said_unless_it_is_to_be_computed_again(self, marks):
        first = Walk(seed=7, marks=str(marks))
        wanted = [Walk(start=first), first]
        recorded(*wanted, code={"sgd.py": "0123456789ab"})
        done = sweep(wanted)
        assert all({"sgd.py", "sweep_samples.py"} <= {*outcome.changed} for outcome in done.outcomes.values())
        assert runs(marks) == ["plain, seed 7"]
        done = sweep(wanted, processes=1, again=True)
        assert [o.computed for o in done.outcomes.values()] == [True, True] and runs(marks) == ["plain, seed 7"] * 2

    def test_asks_for_no_data_set(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path))
        own(tmp_path)
        experiment = Walk(dataset="mine")
        recorded(experiment)
        monkeypatch.setattr(draws, "identity", lambda _: pytest.fail("asked for"))
        assert sweep([experiment]).describe() == "1 training, 1 of them earlier."


class TestHowManyProcesses:
    @pytest.fixture
    def numbers(self, monkeypatch):
        """Those with which a sweep starts processes; 1 stands for none."""
        started = []

        def in_processes(queue, number):
            started.append(number)
            while taken := queue.take():
                yield taken[0].key, workers.Failure("not tried")

        monkeypatch.setattr(workers, "in_processes", in_processes)
        monkeypatch.setattr(workers, "serially", lambda queue, progress: in_processes(queue, 1))
        return started

    @pytest.mark.parametrize("threads, expected", [(1, 1), (2, 2), (9, 3)])
    def test_as_many_as_there_are_threads_and_tasks(self, numbers, monkeypatch, threads, expected):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        sweep([Walk(seed=seed) for seed in range(3)])
        assert numbers == [expected]

    def test_one_on_an_accelerator_unless_more_are_asked_for(self, numbers, monkeypatch):
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        monkeypatch.setattr(devices, "name_of", lambda name="auto": "mps")
        sweep([Walk(seed=seed) for seed in range(3)])
        sweep([Walk(seed=seed) for seed in range(3)], processes=2)
        assert numbers == [1, 2]


class TestProcesses:
    def test_trainings_are_the_same(self, alone):
        assert bits(sweep(TRAININGS, processes=2), TRAININGS) == alone

    def test_one_that_dies_is_tried_again_from_its_checkpoint_and_none_takes_others_along(self, marks, monkeypatch):
        monkeypatch.setattr(workers, "_ATTEMPTS", 2)
        deeds = ("die", "raise", "die_halfway", "wait_to_die")
        dying, raising, halfway, killed = (Walk(seed=k, marks=str(marks), deed=deed) for k, deed in enumerate(deeds))
        good = Walk(seed=9)
        with killing(marks / "wait_to_die, seed 3.0"):
            done = sweep([dying, raising, halfway, killed, good], processes=2)
        assert {outcome.experiment.name: outcome.failure for outcome in done.failures} == {
            "die, seed 0": "its process died 2 times, perhaps for want of memory",
            "raise, seed 1": "ValueError: as it was told",
        }
        assert runs(marks).count("die, seed 0") == 3  # once with others
        assert done[halfway].resumed == 5 and done[good].path.tolist() == walk(9).tolist()
        assert done[killed].threads == "1" and runs(marks).count("wait_to_die, seed 3") == 2
        assert os.getpid() not in {int(path.read_text()) for path in marks.iterdir()}

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
    def test_an_interruption_ends_them_and_keeps_what_is_done(self, how, tmp_path, marks):
        first = Walk()
        script = tmp_path / "script.py"
        script.write_text(
            "from sweep_samples import Walk\nfrom catapults.compute import sweep\n"
            f"sweep([Walk(), Walk(marks={str(marks)!r}, deed='wait_to_die')], processes=2)\n"
        )
        mark, stored = marks / "wait_to_die, seed 0.0", store.path(first, store.key(first, "cpu"))
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
        with subprocess.Popen(
            [sys.executable, script], env=environment(), stderr=subprocess.PIPE, text=True
        ) as process:
            signal.signal(signal.SIGINT, before)
            try:
                for _ in range(600):
                    if stored.exists() and mark.exists() and mark.read_text():
                        break
                    time.sleep(0.1)
                worker = psutil.Process(int(mark.read_text()))
                process.send_signal(how)
                process.wait(timeout=60)
            finally:
                process.kill()
        assert process.returncode != 0
        psutil.wait_procs([worker], 30)
        assert not worker.is_running()
        assert store.load(first, store.key(first, "cpu"))[0].path.tolist() == walk().tolist()

    @pytest.mark.parametrize("through", ["a file", "standard input"])
    def test_from_a_script_that_does_not_ask_whether_it_is_main(self, through, tmp_path, marks):
        """Its processes do not run it again; and what they need is computed once."""
        text = (
            "print('begins')\nfrom sweep_samples import Walk\nfrom catapults.compute import sweep\n"
            f"first = Walk(seed=7, marks={str(marks)!r})\n"
            "print(sweep([Walk(seed=seed, start=first) for seed in range(3)], processes=2).describe())\n"
            "import __main__\nprint(__main__.__spec__, __main__.__file__)\n"
        )
        (tmp_path / "script.py").write_text(text)
        main = str(tmp_path / "script.py") if through == "a file" else "-"
        done = subprocess.run([sys.executable, main], input=text, env=environment(), capture_output=True, text=True)
        assert done.stdout == f"begins\n3 trainings.\nNone {'<stdin>' if main == '-' else main}\n"
        assert not done.stderr and runs(marks) == ["plain, seed 7"]


def environment() -> dict[str, str]:
    """Of processes that find the sample experiments."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}


def test_looking_up_what_is_there_imports_neither_pytorch_nor_dask():
    sweep(TRAININGS, processes=1)
    recorded(Walk())
    sweep(TRAININGS, processes=1)
    code = """
import sys
from catapults.compute import obtain
from sweep_samples import Walk, descents
results = obtain([*descents("1.5 eta_crit", "0.5 eta_crit"), Walk()])
assert results.describe() == "4 trainings, 4 of them earlier.", results.describe()
print(sorted({"torch", "distributed", "dask", "matplotlib"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


class TestProgress:
    @pytest.fixture
    def terminal(self):
        """A terminal's name, and what it has shown."""
        ours, theirs = os.openpty()

        def shown() -> str:
            text = b""
            while select.select([ours], [], [], 0.2)[0]:
                text += os.read(ours, 100_000)
            return text.decode()

        yield os.ttyname(theirs), shown
        os.close(ours)
        os.close(theirs)

    def check(self, text: str) -> None:
        assert "0 of 3 trainings" in text and "3 of 3 trainings" in text and "done: plain, seed 2" in text
        assert "100%" in text and "left" in text

    def test_on_the_terminal(self, terminal, monkeypatch):
        name, shown = terminal
        with open(name, "w") as file:  # noqa: PTH123
            monkeypatch.setattr(sys, "__stderr__", file)
            sweep([Walk(seed=seed) for seed in range(3)], processes=1, progress=True)
        self.check(shown())

    def test_on_the_terminal_of_the_build(self, terminal, monkeypatch, capfd):
        name, shown = terminal
        monkeypatch.setattr(sys, "__stderr__", None)
        monkeypatch.setenv("CATAPULTS_TERMINAL", name)
        sweep([Walk(seed=seed) for seed in range(3)], processes=1, progress=True)
        self.check(shown())
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("wanted", [True, False])
    def test_without_a_terminal_there_is_none(self, wanted, tmp_path, monkeypatch, capfd):
        monkeypatch.setenv("CATAPULTS_TERMINAL", str(tmp_path / "gone"))
        sweep([Walk()], processes=1, progress=wanted)
        assert capfd.readouterr() == ("", "")


class TestTheAddress:
    @pytest.mark.parametrize("scheduler", ["", "localhost", "localhost:8786", "tcp://", "tcp://a b:1", "http://a:1"])
    def test_that_is_none(self, scheduler, marks):
        with pytest.raises(ValueError, match=f"scheduler = {scheduler!r}: allowed is an address such as 'tcp://"):
            sweep([Walk(marks=str(marks))], scheduler=scheduler)
        assert runs(marks) == []

    @pytest.mark.parametrize("scheduler", ["tcp://[::1]:8786", "tcp://[fe80::1%eth0]:8786", "tls://a.b.c:1", None])
    def test_that_is_one(self, scheduler):
        check_scheduler(scheduler)

    @pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://[::1]:1"])
    def test_at_which_nobody_is(self, address, marks, monkeypatch):
        monkeypatch.setattr(cluster, "_PATIENCE", 1)
        with pytest.raises(ConnectionError, match=re.escape(f"scheduler = '{address}': no Dask scheduler answers")):
            sweep([Walk(marks=str(marks))], scheduler=address)
        assert runs(marks) == []

    def test_at_which_somebody_else_is(self, marks, monkeypatch, web):
        monkeypatch.setattr(cluster, "_PATIENCE", 1)
        address = web[1].replace("http", "tcp")
        with pytest.raises(ConnectionError, match=f"scheduler = '{address}': no Dask scheduler answers there"):
            sweep([Walk(marks=str(marks))], scheduler=address)
        assert runs(marks) == []

    def test_is_not_needed_where_all_is_stored(self):
        sweep([Walk()], processes=1)
        assert sweep([Walk()], scheduler="tcp://127.0.0.1:1").describe() == "1 training, 1 of them earlier."


@pytest.mark.xdist_group("cluster")
class TestACluster:
    def test_trainings_are_the_same_and_a_killed_worker_costs_only_time(self, scheduler, alone, marks):
        waiting = Walk(marks=str(marks), deed="wait_to_die")
        with killing(marks / "wait_to_die, seed 0.0"):
            done = sweep([*TRAININGS, waiting], scheduler=scheduler)
        assert not done.failures and runs(marks) == ["wait_to_die, seed 0"] * 2
        assert bits(done, TRAININGS) == alone
        assert not any(outcome.computed for outcome in sweep([*TRAININGS, waiting]).outcomes.values())  # stored here

    def test_gets_from_here_what_its_experiments_need(self, scheduler, marks, tmp_path):
        """One that is stored here and not there; one that is computed there, once."""
        stored, there = Walk(seed=7, marks=str(marks)), Walk(seed=8, marks=str(marks))
        sweep([stored], processes=1)
        children = [Walk(seed=seed, start=start) for start in (stored, there) for seed in range(4)]
        with distributed.Client(scheduler, set_as_default=False) as client:
            client.run(set_environment, {"CATAPULTS_RESULTS": str(tmp_path / "elsewhere")})
        done = sweep(children, scheduler=scheduler)
        assert runs(marks) == ["plain, seed 7", "plain, seed 8"]
        for child in children:
            assert np.array_equal(done[child].path, walk(child.start.seed)[-1] + walk(child.seed))

    def test_goes_on_from_a_checkpoint_of_its_own_folder(self, scheduler, marks, tmp_path, results):
        with distributed.Client(scheduler, set_as_default=False) as client:
            client.run(set_environment, {"CATAPULTS_RESULTS": str(tmp_path / "elsewhere")})
        long = Walk(marks=str(marks), deed="take_long")
        stopped = sweep([long], scheduler=scheduler, hours=0.3 / 3600)
        (kept,) = (tmp_path / "elsewhere").iterdir()
        assert stopped.outcomes[long.key].unfinished and not results.exists()
        assert sweep([long], scheduler=scheduler)[long].resumed == 7 and not kept.exists()

    def test_what_fails_is_said_by_name(self, scheduler, local_cluster, marks, tmp_path, monkeypatch):
        (tmp_path / "data").mkdir()
        own(tmp_path / "data")
        monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path / "data"))
        raising, lost = Walk(seed=1, marks=str(marks), deed="raise"), Walk(seed=2, dataset="mine")
        done = sweep([raising, lost, Walk(), Walk(seed=3, start=raising)], scheduler=scheduler)
        failures = {outcome.experiment.seed: outcome.failure for outcome in done.failures}
        assert failures[1] == "ValueError: as it was told" and failures[3] == "it needs raise, seed 1, which failed"
        assert failures[2].startswith("DataUnavailable: mine cannot be had")  # there, but here
        assert list(done) == [Walk()]
        for _ in range(100):
            if not local_cluster.scheduler.tasks:
                break
            time.sleep(0.1)
        assert not local_cluster.scheduler.tasks

    def test_gets_no_more_than_keeps_it_busy(self, scheduler, local_cluster, monkeypatch):
        waiting = []
        save = store.save
        monkeypatch.setattr(store, "save", lambda *a: waiting.append(len(local_cluster.scheduler.tasks)) or save(*a))
        assert len(sweep([Walk(seed=seed) for seed in range(20)], scheduler=scheduler)) == 20
        assert max(waiting) <= 2 * 2

    def test_a_worker_with_other_versions_is_refused_before_any_work(self, scheduler, marks):
        with distributed.Client(scheduler, set_as_default=False) as client:
            worker = list(client.scheduler_info()["workers"])[0]
            client.run(pretend, "0.1", workers=[worker])
            try:
                with pytest.raises(cluster.WorkersDiffer, match=re.escape(f"worker {worker}: it has torch 0.1, not")):
                    sweep([Walk(marks=str(marks))], scheduler=scheduler)
            finally:
                client.run(pretend, None)
        assert runs(marks) == []

    def test_a_worker_that_comes_later_is_refused_too(self, scheduler, marks, monkeypatch):
        monkeypatch.setattr(cluster, "_compare", lambda *_: None)
        with distributed.Client(scheduler, set_as_default=False) as client:
            client.run(pretend, "0.1")
            try:
                with pytest.raises(cluster.WorkersDiffer, match="worker tcp://.*: it has torch 0.1, not"):
                    sweep([Walk(marks=str(marks))], scheduler=scheduler)
            finally:
                client.run(pretend, None)
        assert runs(marks) == []

    def test_a_worker_with_other_data_is_refused(self, scheduler, marks, tmp_path, monkeypatch):
        for name, classes in (("here", 2), ("there", 4)):
            (tmp_path / name).mkdir()
            own(tmp_path / name, train_labels=np.arange(20) % classes)
        before = os.environ.get("CATAPULTS_DATA", "")
        monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path / "here"))
        with distributed.Client(scheduler, set_as_default=False) as client:
            client.run(set_environment, {"CATAPULTS_DATA": str(tmp_path / "there")})
            try:
                with pytest.raises(cluster.WorkersDiffer, match="data: its mine is not the one here"):
                    sweep([Walk(dataset="mine", marks=str(marks))], scheduler=scheduler)
            finally:
                client.run(set_environment, {"CATAPULTS_DATA": before})
        assert runs(marks) == []

    def test_an_interruption_cancels_the_rest(self, scheduler, local_cluster, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(store, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sweep([Walk(seed=seed) for seed in range(3)], scheduler=scheduler)
        for _ in range(100):
            if not local_cluster.scheduler.tasks:
                break
            time.sleep(0.1)
        assert not local_cluster.scheduler.tasks


@pytest.mark.parametrize(
    "change, said",
    [
        ({"device": "cuda:0 (X)"}, "its device is cuda:0 (X), not cpu"),
        ({"dependencies": {"torch": "2"}}, "it has numpy None, not 1; torch 2, not 1"),
        ({"library": {"sgd.py": "b", "new.py": "c"}}, "its library has another new.py, sgd.py"),
        ({}, ""),
    ],
)
def test_in_what_a_worker_differs(change, said):
    here = {"device": "cpu", "dependencies": {"torch": "1", "numpy": "1"}, "library": {"sgd.py": "a"}}
    assert cluster._difference(here, here | change) == said


class Stopwatch(Walk):
    """One that must not run beside others."""

    alone: ClassVar[bool] = True


def test_what_measures_time_runs_by_itself_after_all_others(monkeypatch):
    together, apart = [], []
    monkeypatch.setattr(workers, "in_processes", lambda queue, number: _taken(queue, together))
    monkeypatch.setattr(workers, "serially", lambda queue, progress: _taken(queue, apart))
    sweep([Stopwatch(seed=1), Walk(seed=1), Walk(seed=2)], processes=2)
    assert together == ["Walk", "Walk"] and apart == ["Stopwatch"]


def _taken(queue, names):
    while taken := queue.take():
        names.append(type(taken[0].experiment).__name__)
        yield taken[0].key, workers.Failure("not tried")
