"""Norms, positions and class tokens without a Jacobian by torch.func: beside float64 automatic differentiation."""

import copy

import pytest
import torch
from catapults import models, tangent
from catapults.tangent import extended
from test_tangent import NETWORKS, attention, error, jacobian
from torch import nn

pytestmark = [
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
    pytest.mark.filterwarnings("ignore:.*scaled_dot_product_attention"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]


class ClassToken(nn.Module):
    """A token before all others, and positions: both as vision transformers have them."""

    def __init__(self, positions=(1, 5, 6)):
        super().__init__()
        self.first = nn.Parameter(torch.randn(1, 1, 6))
        self.positions = nn.Parameter(torch.randn(positions))
        self.mix, self.norm, self.out = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, x):
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.positions
        return self.out(torch.tanh(self.norm(self.mix(x).cumsum(1)))[:, 0])


class Scaled(nn.Module):
    """Parameters of one's own that are no addition: a scale for each feature, a matrix, one that is detached."""

    def __init__(self):
        super().__init__()
        self.scale, self.matrix = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6, 6))
        self.stopped, self.twice = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))

    def forward(self, x):
        inner = torch.tanh((x * self.scale + self.stopped.detach()) @ self.matrix + self.twice)
        return (inner * self.twice).sum(1)


class OverPositions(nn.Module):
    """As many features as positions: a copy for each of five samples would fit where it does not belong."""

    def __init__(self):
        super().__init__()
        self.shift, self.out = nn.Parameter(torch.randn(2)), nn.Linear(4, 1)

    def forward(self, x):  # (n, 2, 2)
        return self.out(torch.tanh(x + self.shift).flatten(1))


def channels(norm):
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), norm, nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))


def frozen(model, *names):
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return model


OURS = {  # how many parameters are left to the general route
    "class token": (ClassToken, (4, 6), 0),
    "positions without an axis of samples": (lambda: ClassToken((5, 6)), (4, 6), 0),
    "one position for all": (lambda: ClassToken((1, 1, 6)), (4, 6), 0),
    "a scale, a matrix": (Scaled, (6,), 1),
    "features as many as samples of a trial": (OverPositions, (2, 2), 1),
    "group norm": (lambda: channels(nn.GroupNorm(2, 4)), (2, 3, 3), 0),
    "instance norm": (lambda: channels(nn.InstanceNorm2d(4, affine=True)), (2, 3, 3), 0),
    "layer norm over all axes": (lambda: channels(nn.LayerNorm((4, 3, 3))), (2, 3, 3), 0),
    "RMS norm": (lambda: nn.Sequential(nn.Linear(6, 4), nn.RMSNorm(4), nn.Linear(4, 2)), (3, 6), 0),
    "a norm first": (lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 2)), (6,), 0),
    "a norm alone": (lambda: nn.LayerNorm(6), (6,), 0),
    "a norm with a frozen weight": (lambda: frozen(channels(nn.GroupNorm(2, 4)), "1.weight"), (2, 3, 3), 0),
    "a norm with a frozen bias": (lambda: frozen(channels(nn.GroupNorm(2, 4)), "1.bias"), (2, 3, 3), 0),
    "a norm without bias": (lambda: nn.Sequential(nn.LayerNorm(6, bias=False), nn.Linear(6, 2)), (6,), 0),
    "a norm that is called twice": (lambda: nn.Sequential(*[nn.LayerNorm(6)] * 2, nn.Linear(6, 2)), (6,), 2),
    "running statistics": (
        lambda: channels(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)).eval(), (2, 3, 3), 2,
    ),
    "a wide resnet with norms": (lambda: models.wide_resnet(2, 8, 1, norm="layer"), (2, 8, 8), 0),
}  # fmt: skip
ALL = {name: (build, shape) for name, (build, shape, _) in (NETWORKS | OURS).items()}


@pytest.fixture(params=ALL)
def problem(request):
    build, shape = ALL[request.param]
    model = build().double()
    return model, torch.randn(5, *shape, dtype=torch.float64)


class TestEveryNetwork:
    def test_kernel_and_products(self, problem):
        model, inputs = problem
        J = jacobian(copy.deepcopy(model), inputs)
        linearization = extended.linearize(model, inputs)
        K = J @ J.T
        assert error(linearization.kernel(), K) <= 1e-10
        cotangent = torch.randn_like(linearization.outputs)
        expected = (cotangent.flatten() @ J).split([p.numel() for p in model.parameters() if p.requires_grad])
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        for gradient in (linearization.vjp(cotangent), linearization.kernel_and_vjp(cotangent)[1]):
            assert gradient.keys() == set(names)
            for name, theirs in zip(names, expected, strict=True):
                torch.testing.assert_close(gradient[name].flatten(), theirs)
        vectors = torch.randn(len(linearization), 2, dtype=torch.float64)
        torch.testing.assert_close(linearization @ vectors, K @ vectors)
        by_layer = linearization.kernels_by_layer()
        assert error(sum(by_layer.values()), K) <= 1e-10

    def test_a_step_in_place(self, problem):
        model, inputs = problem
        plan = extended.layers(model, inputs)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        linearization = extended.linearize(model, inputs, plan)
        cotangent = torch.randn_like(linearization.outputs)
        gradient = linearization.vjp(cotangent)
        named = dict(model.named_parameters())
        extended.linearize(model, inputs, plan).vjp(cotangent, add_to=named)
        for name, g in gradient.items():
            torch.testing.assert_close(named[name].detach(), before[name] + g)


@pytest.mark.parametrize("name", OURS)
def test_what_is_left_to_the_general_route(name):
    build, shape, general = OURS[name]
    assert len(extended.layers(build(), torch.randn(5, *shape)).layers.general) == general


def test_a_transformer_of_the_book_needs_none():
    model, inputs = models.vit(3, 8, 8), torch.randn(4, 3, 8, 8)
    plan = extended.layers(model, inputs)
    assert not plan.layers.general and plan.copied == ("1.positions",) and len(plan.norms) == 9
    K = tangent.tangent_kernel(model, inputs)
    torch.testing.assert_close(extended.linearize(model, inputs, plan).kernel(), K, rtol=1e-4, atol=1e-4)


def test_the_model_is_left_as_it_was():
    model = ClassToken()
    held = {name: (id(p), p.detach().clone()) for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    extended.linearize(model, torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0))).kernel()
    assert all(id(p) == held[n][0] and torch.equal(p, held[n][1]) for n, p in model.named_parameters())
    assert all(isinstance(p, nn.Parameter) and p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_the_model_is_left_as_it_was_by_a_forward_pass_that_fails():
    class Fails(ClassToken):
        def forward(self, x):
            if len(x) == 5:
                raise RuntimeError("five")
            return super().forward(x)

    model, inputs = Fails(), torch.randn(6, 4, 6)
    plan = extended.layers(model, inputs)
    with pytest.raises(RuntimeError, match="five"):
        extended.linearize(model, inputs[:5], plan)
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())


def test_copies_that_would_not_fit_are_not_made(monkeypatch):
    model = ClassToken()
    monkeypatch.setattr(extended.devices, "free_memory", lambda device: 100)
    assert extended.layers(model, torch.randn(5, 4, 6)).copied == ()


def test_models_without_a_kernel_are_refused():
    for model, says in ((nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), "batch"), (nn.Dropout(), "none of its")):
        with pytest.raises(ValueError, match=says):
            extended.linearize(model, torch.randn(5, 6))


def test_attention_of_pytorch():
    model = attention().double()
    inputs = torch.randn(4, *NETWORKS["attention"][1], dtype=torch.float64)
    J = jacobian(copy.deepcopy(model), inputs)
    assert error(extended.linearize(model, inputs).kernel(), J @ J.T) <= 1e-10
