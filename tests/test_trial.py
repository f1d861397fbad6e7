"""What models may do in their forward pass, and what kernel, AGOP and Hessian refuse alike."""

import copy
import random

import numpy as np
import pytest
import torch
from catapults import models, tangent
from catapults.agop import agop
from catapults.tangent import hessian
from torch import nn
from torch.nn import functional as F

MEASUREMENTS = {
    "kernel": tangent.tangent_kernel,
    "agop": agop,
    "hessian": lambda model, x: hessian.critical_learning_rate(model, x, torch.ones(len(x), 1)),
    "hessian from a start": lambda model, x: hessian.critical_learning_rate(
        model, x, torch.ones(len(x), 1), start=torch.ones(sum(p.numel() for p in model.parameters()))
    ),
}


@pytest.fixture(params=MEASUREMENTS)
def measure(request):
    return MEASUREMENTS[request.param]


class Between(nn.Module):
    """Two layers with something between them."""

    def __init__(self, between, width: int = 16):
        super().__init__()
        self.first, self.between, self.last = nn.Linear(4, width), between, nn.Linear(width, 1)

    def forward(self, x):
        return self.last(self.between(torch.tanh(self.first(x))))


class OnSequences(nn.Module):
    """(n, 3, 4) to (n, 1), by a layer of which the first output counts."""

    def __init__(self, layer: nn.Module, width: int):
        super().__init__()
        self.layer, self.last = layer, nn.Linear(width, 1)

    def forward(self, x):
        arguments = (x, x, x) if isinstance(self.layer, nn.MultiheadAttention) else (x,)
        return self.last(torch.tanh(self.layer(*arguments)[0][:, -1]))


def seeded_noise(x):
    """The same at each call."""
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        return x + torch.randn(x.shape[1])


def reseeding_noise(x):
    torch.manual_seed(3)
    return x + torch.randn(x.shape[1])


def numpys_noise(x):
    return x * float(np.random.rand())


def pythons_noise(x):
    return x * random.random()


@pytest.mark.filterwarnings("ignore:RNN module weights")
class TestRefusedAlike:
    RANDOM = {
        "dropout": lambda: Between(lambda x: F.dropout(x, 0.5)),
        "an argument of attention": lambda: OnSequences(nn.MultiheadAttention(4, 2, dropout=0.3, batch_first=True), 4),
        "an argument of LSTM": lambda: OnSequences(nn.LSTM(4, 6, 2, dropout=0.5, batch_first=True), 6),
        "noise": lambda: Between(lambda x: x * (1 + 0.1 * torch.randn(len(x), 16))),
        "RReLU": lambda: Between(nn.RReLU()),
        "NumPy's": lambda: Between(numpys_noise),
        "Python's": lambda: Between(pythons_noise),
    }

    @pytest.mark.parametrize("name", RANDOM)
    def test_random_models(self, measure, name):
        model = self.RANDOM[name]()
        x = torch.randn(6, 3, 4) if isinstance(model, OnSequences) else torch.randn(6, 4)
        with pytest.raises(ValueError, match="model: is random: its forward pass draws random numbers|or is random"):
            measure(model, x)

    @pytest.mark.parametrize("seed", range(10))
    def test_randomness_that_seldom_shows(self, measure, seed):
        torch.manual_seed(seed)
        with pytest.raises(ValueError, match="is random"):
            measure(Between(lambda x: F.dropout(x, 1e-4)), torch.randn(6, 4))

    MIXING = {
        "a layer that takes samples for time": lambda: OnSequences(nn.GRU(4, 6), 6),
        "sums over samples before": lambda: Between(lambda x: x.cumsum(0)),
        "sums over samples after": lambda: Between(lambda x: x.flip(0).cumsum(0).flip(0)),
        "softmax over samples": lambda: Between(nn.Softmax(0)),
        "samples that find no room": lambda: Between(lambda x: x * (torch.arange(len(x)) < 5)[:, None]),
    }

    @pytest.mark.parametrize("name", MIXING)
    def test_models_that_mix_samples(self, measure, name):
        model = self.MIXING[name]()
        x = torch.randn(6, 3, 4) if isinstance(model, OnSequences) else torch.randn(6, 4)
        with pytest.raises(ValueError, match="depends on the other samples"):
            measure(model, x)

    OVERWRITING = {
        "by a ReLU": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1)),
        "by the first lines": lambda: Normalising(),
    }

    @pytest.mark.parametrize("name", OVERWRITING)
    def test_models_that_overwrite_their_inputs(self, measure, name):
        x = torch.randn(6, 4)
        before = x.clone()
        with pytest.raises(ValueError, match="changes its inputs in place"):
            measure(self.OVERWRITING[name](), x)
        assert torch.equal(x, before)

    def test_models_that_change_their_parameters(self):
        model = nn.Sequential(nn.Embedding(9, 4, max_norm=0.5), nn.Flatten(), nn.Linear(8, 1))
        before = model[0].weight.detach().clone()
        with pytest.raises(ValueError, match=r"changes parameter '0\.weight'"):
            tangent.tangent_kernel(model, torch.randint(0, 9, (5, 2)))
        assert torch.equal(model[0].weight, before)

    @pytest.mark.usefixtures("no_type_checks")
    @pytest.mark.parametrize("kind", [dict, list, np.ndarray])
    def test_inputs_that_are_no_tensor(self, measure, kind):
        given = {dict: {"x": torch.randn(5, 4)}, list: [torch.randn(4)] * 5, np.ndarray: np.ones((5, 4), np.float32)}
        with pytest.raises(TypeError, match=f"inputs: a {kind.__name__}; allowed is a tensor"):
            measure(models.fcn(4, 6, 2), given[kind])

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
    def test_inputs_of_another_type_than_the_models(self, measure, dtype):
        with pytest.raises(
            ValueError, match=f"inputs: {dtype} on cpu, with which the model fails.*torch.float32 on cpu"
        ):
            measure(models.fcn(4, 6, 2), torch.ones(5, 4, dtype=dtype))

    def test_lazy_parameters(self):
        model = nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.LazyLinear(1))
        for measure in (tangent.tangent_kernel, agop):
            with pytest.raises(ValueError, match=r"model: '0\.weight' has no shape yet"):
                measure(model, torch.randn(5, 4))
        model(torch.randn(5, 4))
        assert tangent.tangent_kernel(model, torch.randn(5, 4)).shape == (5, 5)

    def test_parameters_made_in_inference_mode(self, measure):
        with torch.inference_mode():
            model = models.fcn(4, 6, 2)
        with pytest.raises(ValueError, match=r"parameter '1\.weight' was made under torch\.inference_mode"):
            measure(model, torch.randn(5, 4))

    def test_outputs_that_are_not_real_numbers(self):
        model = Between(lambda x: x + 0j)
        model.last = nn.Linear(16, 1, dtype=torch.complex64)
        with pytest.raises(ValueError, match="its outputs are torch.complex64; allowed are real"):
            tangent.tangent_kernel(model, torch.randn(5, 4))


class Normalising(nn.Linear):
    def __init__(self):
        super().__init__(4, 1)

    def forward(self, x):
        x -= 0.5
        return super().forward(x.div_(0.25))


@pytest.mark.parametrize("between", [seeded_noise, reseeding_noise, nn.Dropout(0.0)])
def test_what_is_the_same_at_each_call_is_not_random(measure, between):
    value = measure(Between(between), torch.randn(6, 4))
    assert torch.isfinite(torch.as_tensor(value)).all()


def test_numbers_of_ones_own_that_matter_in_training_mode_only(measure):
    value = measure(Between(nn.RReLU()).eval(), torch.randn(6, 4))
    assert torch.isfinite(torch.as_tensor(value)).all()


class Stateful(nn.Module):
    """Changes something that it holds at every call."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.first, self.norm, self.last = nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 1)
        self.register_buffer("mean", torch.zeros(5))
        self.plain, self.calls, self.seen, self.latest = torch.zeros(()), 0, [], {}

    def forward(self, x):
        h = torch.tanh(self.norm(self.first(x)))
        match self.kind:
            case "buffer in place":
                self.mean.mul_(0.9).add_(0.1 * h.detach().mean(0))
            case "buffer reassigned":
                self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
            case "a tensor that is no buffer":
                self.plain += 1
            case "a number":
                self.calls += 1
            case "a list of activations":
                self.seen.append(h)
            case "a dictionary of activations":
                self.latest["h"] = h
            case "a new attribute":
                self.kept = h
        return self.last(h)

    def state(self):
        return (
            self.mean.tolist(),
            self.plain.item(),
            self.calls,
            len(self.seen),
            len(self.latest),
            hasattr(self, "kept"),
        )


class TestTheModelIsLeftAsItWas:
    KINDS = (
        "buffer in place",
        "buffer reassigned",
        "a tensor that is no buffer",
        "a number",
        "a list of activations",
        "a dictionary of activations",
        "a new attribute",
    )

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_it_holds(self, measure, kind):
        model, x = Stateful(kind), torch.randn(6, 4)
        buffer, before, weights = model.mean, model.state(), copy.deepcopy(list(model.parameters()))
        measure(model, x)
        assert model.state() == before and model.mean is buffer
        assert all(torch.equal(p, q) and p.grad is None for p, q in zip(model.parameters(), weights, strict=True))

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_kernel_is_that_of_the_model_without_it(self, kind):
        model, x = Stateful(kind), torch.randn(6, 4)
        plain = Stateful("nothing")
        plain.load_state_dict(model.state_dict())
        torch.testing.assert_close(tangent.tangent_kernel(model, x), tangent.tangent_kernel(plain, x))

    def test_a_step_of_training_moves_the_state(self):
        model, x = Stateful("a number"), torch.randn(6, 4)
        plan = tangent.layers(model, x)
        tangent.linearize(model, x, plan)
        assert plan.changes_state and model.calls == 0
        tangent.linearize(model, x, plan, moves_state=True)
        assert model.calls == 1

    def test_running_statistics(self, measure):
        norm = nn.InstanceNorm1d(3, affine=True, track_running_stats=True)
        model = nn.Sequential(nn.Conv1d(2, 3, 3), norm, nn.Tanh(), nn.Flatten(), nn.Linear(21, 1))
        before = copy.deepcopy(model.state_dict())
        measure(model, torch.randn(6, 2, 9))
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert model.training and norm.training

    def test_random_numbers_to_come(self, measure):
        model, other, x = Between(reseeding_noise), Between(nn.ReLU()), torch.randn(6, 4)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()
        measure(other, x)
        tangent.layers(model, x)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state()[1].tolist() == before[1]

    def test_random_numbers_after_a_refusal(self, measure):
        model, before = Between(nn.RReLU()), torch.get_rng_state()
        with pytest.raises(ValueError, match="is random"):
            measure(model, torch.ones(6, 4))
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("norm", [lambda: nn.LayerNorm(5), nn.Identity], ids=["general", "structured"])
    def test_what_a_hook_keeps_can_be_used(self, measure, norm):
        model = nn.Sequential(nn.Linear(4, 5), norm(), nn.Tanh(), nn.Linear(5, 1))
        seen = []
        handle = model[1].register_forward_hook(lambda module, arguments, output: seen.append(output))
        measure(model, torch.randn(6, 4))
        assert seen and all(np.isfinite(output.detach().numpy()).all() for output in seen)
        assert list(model[1]._forward_hooks) == [handle.id]


def test_whether_the_model_holds_state_or_not_the_plan_is_the_same():
    x = torch.randn(5, 4)
    plain, counting = (tangent.layers(Stateful(kind), x) for kind in ("nothing", "a number"))
    assert plain.structured == counting.structured and plain.general == counting.general
    assert (plain.changes_state, counting.changes_state) == (False, True)
