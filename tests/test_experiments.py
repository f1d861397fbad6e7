"""Experiments as values: what is refused, and what their keys depend on."""

import subprocess
import sys

import pytest
from catapults.experiments import Experiment, ParameterError, base
from catapults.experiments.descent import GradientDescent, Measured, Restart
from catapults.experiments.expansion import ExpandedDescent
from catapults.experiments.fits import Fit, StrongModel
from catapults.experiments.kinds import KINDS, restored
from catapults.experiments.stochastic import StochasticDescent
from samples import own
from sweep_samples import NETWORK, Walk

GD = {"learning_rate": "1.5 eta_crit", "steps": 10, "top": 2, "hessian_every": None}
SGD = {
    "train_last_layer": True, "batch_size": 4, "replacement": False, "steps": 10, "stop_below": 0.0, "top": 2,
    "loss_every": 1, "learning_rate": 2, "kernel_every": None, "hessian_every": None,
}  # fmt: skip
STRONG = {
    "architecture": "cnn", "depth": 2, "width": 4, "n_train": 8, "n_validation": 4, "n_test": 4, "batch_size": 4,
    "learning_rate": 0.01, "steps": 5,
}  # fmt: skip
FIT = {
    "n_validation": 4, "n_test": 4, "label_noise": 0.0, "steps": 10, "stop_below": 0.0, "evaluate_every": 2,
    "patience": None, "strong": None, "optimizer": "sgd", "learning_rate": 0.1, "batch_size": 4, "replacement": False,
    "critical_every": None, "settle": None, "initial_scale": 1.0,
}  # fmt: skip
REAL = {"dataset": "cifar-10:0,1", "strong": STRONG}


def descent(**changes) -> GradientDescent:
    return GradientDescent.create(**NETWORK | GD | changes)


def sgd(**changes) -> StochasticDescent:
    return StochasticDescent.create(**NETWORK | SGD | changes)


def fit(**changes) -> Fit:
    return Fit.create(**NETWORK | FIT | changes)


def expanded(**changes) -> ExpandedDescent:
    return ExpandedDescent.create(**NETWORK | {"model": "quadratic", "multiples": [0.5, 2], "steps": 10} | changes)


EVERY = [descent(), expanded(), Restart(of=descent(), steps=3), sgd(), fit(), fit(**REAL), fit(**REAL).needs[0]]


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        "make, changes, said",
        [
            (descent, {"width": 0}, "width = 0: input should be greater than or equal to 1"),
            (descent, {"width": 2.5}, "width = 2.5: input should be a valid integer"),
            (descent, {"width": True}, "width = True: input should be a valid integer"),
            (descent, {"gain": -1.0}, "gain = -1.0: input should be greater than 0"),
            (descent, {"gain": float("inf")}, "gain = inf: input should be a finite number"),
            (descent, {"seed": -1}, "seed = -1: input should be greater than or equal to 0"),
            (descent, {"dataset": "rank-22"}, "dataset = 'rank-22': "),
            (descent, {"dataset": 2024}, "dataset = '2024': "),
            (descent, {"architecture": "rnn"}, "architecture = 'rnn': input should be 'fcn', 'cnn', "),
            (descent, {"architecture": "cnn"}, "architecture = 'cnn': 'rank-2' holds vectors; allowed is 'fcn'"),
            (descent, {"depth": 1}, "depth = 1: allowed are whole numbers of at least 2"),
            (descent, {"norm": "layer"}, "norm = 'layer': architecture 'fcn' has none; allowed is None"),
            (descent, {"image_size": 8}, "image_size = 8: 'rank-2' holds vectors; allowed is None"),
            (
                descent,
                {"labels": "plus-minus"},
                "labels = 'plus-minus': 'rank-2' has no classes; allowed are 'zero-one' and 'unit'",
            ),
            (
                descent,
                {"parameterization": "pytorch", "gain": 2.0},
                "gain = 2.0: PyTorch's default parameterisation has",
            ),
            (descent, {"top": 8}, "top = 8: allowed are whole numbers from 1 to 7, one or several that ascend"),
            (descent, {"top": [2, 1]}, "top = [2, 1]: allowed are whole numbers from 1 to 7, one or several that asc"),
            (descent, {"top": []}, "top = []: allowed are whole numbers from 1 to 7, one or several that ascend"),
            (descent, {"learning_rate": "fast"}, "learning_rate = 'fast': "),
            (descent, {"learning_rate": -1}, "learning_rate = -1: "),
            (descent, {"learning_rate": "1; 10: 2"}, "learning_rate = '1; 10: 2': allowed are changes before 10"),
            (sgd, {"batch_size": 9}, "batch_size = 9: allowed are 1 to n_train = 8"),
            (sgd, {"stop_below": -1.0}, "stop_below = -1.0: input should be greater than or equal to 0"),
            (sgd, {"learning_rate": "1; 10: 2"}, "learning_rate = '1; 10: 2': allowed are changes before 10"),
            (fit, {"batch_size": 9}, "batch_size = 9: allowed are 1 to n_train = 8"),
            (fit, {"optimizer": "lbfgs"}, "optimizer = 'lbfgs': input should be 'sgd'"),
            (fit, {"label_noise": 0.5}, "label_noise = 0.5: 'rank-2' has no classes; allowed is 0"),
            (fit, {"strong": STRONG}, "the EGOP of 'rank-2' is exact; allowed is None"),
            (
                fit,
                REAL | {"strong": None},
                "strong = None: 'cifar-10:0,1' needs a strong model; allowed are its parame",
            ),
            (fit, REAL | {"strong": STRONG | {"dataset": "x"}}, "strong: dataset = 'x'; allowed is that of the task"),
            (fit, REAL | {"strong": STRONG | {"width": 0}}, "strong: width = 0: input should be greater than or equal"),
            (
                fit,
                REAL | {"strong": STRONG | {"batch_size": 9}},
                "strong: batch_size = 9: allowed are 1 to n_train = 8",
            ),
            (fit, REAL | {"strong": STRONG | {"speed": 9}}, "strong: speed: unknown parameter"),
            (
                fit,
                REAL | {"strong": {k: v for k, v in STRONG.items() if k != "depth"}},
                "strong: depth: missing; it has",
            ),
            (fit, {"dataset": "rank-22"}, "dataset = 'rank-22': "),
        ],
    )
    def test_by_name_with_what_is_allowed(self, make, changes, said):
        with pytest.raises(ParameterError) as error:
            make(**changes)
        assert said in str(error.value) and "\n" not in str(error.value)

    def test_every_problem_has_a_line(self):
        with pytest.raises(ParameterError) as error:
            GradientDescent.create(**NETWORK | GD | {"width": 0, "depth": "3", "speed": 1})
        lines = str(error.value).splitlines()
        assert sorted(line.split()[0] for line in lines) == ["depth", "speed:", "width"] and "speed: unknown" in str(
            error
        )

    def test_every_problem_of_a_strong_model_too(self):
        with pytest.raises(ParameterError) as error:
            fit(**REAL | {"strong": {}})
        assert all(line.startswith("strong: ") for line in str(error.value).splitlines()) and "steps" in str(error)

    def test_what_is_missing_is_named(self):
        with pytest.raises(ParameterError, match=r"^steps: missing; it has to be given$"):
            GradientDescent.create(**NETWORK | {name: value for name, value in GD.items() if name != "steps"})

    def test_of_a_notebook_only_the_fields_are_read(self):
        assert GradientDescent.from_namespace(NETWORK | GD | {"In": [], "_": 1}) == descent()


class TestTheKey:
    def test_tells_all_apart(self):
        assert len({experiment.key for experiment in EVERY}) == len(EVERY)

    @pytest.mark.parametrize("experiment", EVERY, ids=lambda e: type(e).__name__)
    def test_sees_every_field(self, experiment):
        others = {
            "dataset": "other", "architecture": "other", "norm": "layer", "image_size": 5, "labels": "other",
            "parameterization": "other", "optimizer": "other", "strong": {"seed": 3}, "of": descent(seed=5),
            "model": "linear", "multiples": [3.0],
        }  # fmt: skip
        keys = {experiment.key}
        for name in type(experiment).model_fields:
            now = getattr(experiment, name)
            other = others[name] if name in others else not now if type(now) is bool else 123
            keys.add(experiment.model_copy(update={name: other}).key)
        assert len(keys) == 1 + len(type(experiment).model_fields)

    def test_does_not_see_a_field_that_is_added_with_a_default(self):
        class Later(GradientDescent):
            momentum: float = 0.0
            of: GradientDescent | None = None

        Later.__name__, Later.__module__ = "GradientDescent", GradientDescent.__module__
        values = NETWORK | GD
        assert Later.create(**values).key == descent().key != Later.create(**values, momentum=0.9).key
        nested = Restart.model_construct(of=Later.create(**values), steps=3)
        assert nested.key == Restart(of=descent(), steps=3).key

    def test_is_the_same_however_a_number_is_written(self):
        assert descent(learning_rate=4).key == descent(learning_rate=4.0).key != descent(learning_rate=4.5).key
        assert descent(learning_rate=4.0).name == descent(learning_rate=4).name
        assert descent(gain=1).key == descent(gain=1.0).key

    def test_is_stable(self):
        """Keys are in the names of recorded files: to change one is to lose what was computed."""
        assert descent().key[:20] == "83861ca0017994a418a3"
        assert fit(**REAL).key[:20] == "242d209f5e12b4ae175e"

    def test_tells_classes_of_one_name_in_different_modules_apart(self):
        class Other(Walk):
            pass

        Other.__name__ = Other.__qualname__ = "Walk"
        assert Other().key != Walk().key

    def test_comes_back_from_what_a_file_says(self):
        for experiment in EVERY:
            fields = experiment.model_dump(mode="json", exclude_defaults=True)
            again = restored(type(experiment).__name__, fields)
            assert again.key == experiment.key and again.name == experiment.name
            assert [need.key for need in again.needs] == [need.key for need in experiment.needs]
        with pytest.raises(ValueError, match="class = 'Walk': allowed are GradientDescent, Restart"):
            restored("Walk", {})


class TestWhatTheyNeed:
    def test_a_restart_needs_what_it_restarts(self):
        assert Restart(of=descent(), steps=3).needs == (descent(),) and descent().needs == sgd().needs == ()

    def test_a_training_on_real_data_needs_its_strong_model_whatever_else_it_is(self):
        assert fit().needs == ()
        (strong,) = fit(**REAL).needs
        assert isinstance(strong, StrongModel) and (strong.dataset, strong.seed) == ("cifar-10:0,1", 0)
        assert fit(**REAL, seed=9, width=64, learning_rate=1, label_noise=0.2).needs == (strong,)
        (other,) = fit(**REAL | {"strong": STRONG | {"seed": 1}}).needs
        assert other.key != strong.key
        assert strong.network().parameterization == "pytorch" and strong.network().width == 4

    def test_data_of_ones_own(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path))
        own(tmp_path)
        assert fit(dataset="mine:0,1", strong=STRONG).needs[0].dataset == "mine:0,1"


def test_names_tell_what_differs():
    changes = ({}, {"width": 33}, {"n_train": 9}, {"seed": 1}, {"learning_rate": 2}, {"steps": 11})
    names = [descent(**change).name for change in changes]
    assert len(set(names)) == len(changes)
    changes = ({}, {"batch_size": 5}, {"initial_scale": 2.0}, {"optimizer": "adam"}, {"learning_rate": 2})
    assert len({fit(**change).name for change in changes}) == len(changes)


def test_every_kind_has_a_result():
    assert {type(e) for e in EVERY} <= set(KINDS.values()) and GradientDescent.Result is Measured
    assert all(issubclass(kind, Experiment) and kind.Result for kind in KINDS.values())


def test_a_value_is_not_changed():
    with pytest.raises(ValueError, match="frozen"):
        descent().width = 3
    assert base.Parameters.model_config["frozen"]


def test_nothing_here_imports_pytorch():
    code = "import sys; from catapults.experiments import kinds; print({'torch', 'dask', 'scipy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_has_lists_or_dictionaries_is_a_key_of_a_dictionary_too():
    one, other = (GradientDescent.create(**NETWORK | GD | {"top": top}) for top in ([1, 2], [1, 3]))
    again = GradientDescent(**dict(one))
    assert {one: "a", other: "b"} == {again: "a", other: "b"}
    assert hash(Restart(of=one, steps=2)) == hash(Restart(of=again, steps=2))
