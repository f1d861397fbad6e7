"""The kernel of models and inputs as people bring them, against one backward pass a row in float64."""

import copy
import math

import pytest
import torch
from catapults import devices, models, tangent
from catapults.agop import agop
from catapults.tangent import embedding, general, hessian
from torch import nn


def reference(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """J J^T in float64."""
    model = copy.deepcopy(model).double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for output in model(inputs).flatten():
        gradient = torch.autograd.grad(output, parameters, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([(g.to_dense() if g.is_sparse else g).flatten() for g in gradient]))
    return torch.stack(rows) @ torch.stack(rows).T


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours.double() - theirs).norm() / theirs.norm()).item()


NETWORKS = {
    "chain": lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)),
    "structured": lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2)),
    "general": lambda: nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 2)),
    "one by one": lambda: nn.Sequential(nn.Linear(8, 16), nn.PReLU(), nn.Linear(16, 2)),
    "convolutions": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 2, 2)),
        nn.Conv2d(2, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 2),
    ),
}


@pytest.fixture(params=NETWORKS)
def model(request):
    return NETWORKS[request.param]()


def training_step(model: nn.Module, inputs: torch.Tensor) -> list[torch.Tensor]:
    """The weights after J^T 1 was added to them."""
    model = copy.deepcopy(model)
    parameters = dict(model.named_parameters())
    linearization = tangent.linearize(model, inputs)
    linearization.norm_and_vjp(torch.ones_like(linearization.outputs), add_to=parameters)
    return list(parameters.values())


class Casting(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inner(x)


class TestAutocast:
    def test_around_a_measurement_it_is_off(self, model):
        x, y = torch.randn(6, 8), torch.randn(6, 2)
        expected = tangent.tangent_kernel(model, x), hessian.critical_learning_rate(model, x, y), agop(model, x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours = tangent.tangent_kernel(model, x), hessian.critical_learning_rate(model, x, y), agop(model, x)
            assert torch.is_autocast_enabled("cpu")
        assert torch.equal(ours[0], expected[0]) and ours[1] == expected[1] and torch.equal(ours[2], expected[2])

    def test_within_the_model_it_is_the_models(self, model):
        x = torch.randn(6, 8)
        kernel = tangent.tangent_kernel(Casting(model), x)
        assert kernel.dtype == torch.float32 and 0 < error(kernel, reference(model, x)) < 0.05
        assert agop(Casting(model), x).dtype == torch.float32

    def test_a_step_and_products(self, model):
        x = torch.randn(6, 8)
        casting = Casting(model)
        for ours, theirs in zip(training_step(casting, x), training_step(model, x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)
        linearization = tangent.linearize(casting, x)
        vectors = torch.randn(12, 2)
        torch.testing.assert_close(linearization @ vectors, linearization.kernel() @ vectors, rtol=1e-3, atol=1e-3)

    def test_hessian(self, model):
        x, y = torch.randn(6, 8), torch.randn(6, 2)
        expected = hessian.critical_learning_rate(model, x, y)
        ours = hessian.critical_learning_rate(Casting(model), x, y, tolerance=1e-2)
        assert ours == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
class TestHalfPrecision:
    def test_kernel(self, model, dtype):
        model, x = model.to(dtype), torch.randn(6, 8).to(dtype)
        kernel = tangent.tangent_kernel(model, x)
        assert kernel.dtype == dtype and error(kernel, reference(model, x)) < 0.05
        assert agop(model, x).dtype == dtype

    def test_norm_of_a_step(self, model, dtype):
        model, x = model.to(dtype), torch.randn(6, 8).to(dtype)
        linearization = tangent.linearize(model, x)
        norm, _ = linearization.norm_and_vjp(torch.ones(6, 2))
        assert norm == pytest.approx(torch.linalg.eigvalsh(reference(model, x))[-1].item(), rel=0.05)


def test_layers_of_different_types():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(4, 5).bfloat16(), nn.LayerNorm(5), nn.Linear(5, 1)

        def forward(self, x):
            return self.last(torch.tanh(self.norm(self.first(x).to(self.last.weight))))

    model, x = Mixed(), torch.randn(6, 4).bfloat16()
    kernel = tangent.tangent_kernel(model, x)
    assert kernel.dtype == torch.float32 and error(kernel, reference(model, x)) < 0.05
    types = [p.dtype for p in model.parameters()]
    assert [p.dtype for p in training_step(model, x)] == types


class TestInferenceMode:
    def test_around_a_measurement(self, model):
        x, y = torch.randn(6, 8), torch.randn(6, 2)
        expected = tangent.tangent_kernel(model, x), hessian.critical_learning_rate(model, x, y), agop(model, x)
        with torch.inference_mode():
            ours = tangent.tangent_kernel(model, x), hessian.critical_learning_rate(model, x, y), agop(model, x)
        assert torch.equal(ours[0], expected[0]) and ours[1] == expected[1] and torch.equal(ours[2], expected[2])

    @pytest.mark.parametrize("inside", [False, True])
    def test_inputs_made_in_it(self, model, inside):
        x, y = torch.randn(6, 8), torch.randn(6, 2)
        expected = tangent.tangent_kernel(model, x), hessian.critical_learning_rate(model, x, y)
        with torch.inference_mode():
            made = x.clone()
        with torch.inference_mode(inside):
            ours = tangent.tangent_kernel(model, made), hessian.critical_learning_rate(model, made, y)
        assert torch.equal(ours[0], expected[0]) and ours[1] == expected[1]


class TestCompiled:
    """The kernel, step and Hessian of a compiled model are those of the model itself."""

    @pytest.fixture(params=["whole", "in place", "a part"])
    def compiled(self, request, model):
        torch._dynamo.reset()
        theirs = copy.deepcopy(model)
        if request.param == "whole":
            theirs = torch.compile(theirs, backend="aot_eager")
        elif request.param == "in place":
            theirs.compile(backend="aot_eager")
        else:
            theirs = nn.Sequential(nn.Identity(), torch.compile(theirs, backend="aot_eager"))
        return theirs

    @pytest.mark.parametrize("called", [False, True])
    def test_measurements(self, model, compiled, called):
        x, y = torch.randn(6, 8), torch.randn(6, 2)
        if called:
            compiled(x).sum().backward()
        torch.testing.assert_close(tangent.tangent_kernel(compiled, x), tangent.tangent_kernel(model, x))
        expected = hessian.critical_learning_rate(model, x, y)
        assert hessian.critical_learning_rate(compiled, x, y) == pytest.approx(expected, rel=1e-3)
        torch.testing.assert_close(agop(compiled, x), agop(model, x))

    def test_a_step(self, model, compiled):
        x = torch.randn(6, 8)
        plan = tangent.layers(compiled, x)
        parameters = dict(compiled.named_parameters())
        for _ in range(2):
            linearization = tangent.linearize(compiled, x, plan)
            _, gradient = linearization.norm_and_vjp(torch.ones(6, 2), add_to=parameters)
            assert gradient.keys() == parameters.keys()
        twice = copy.deepcopy(model)
        for _ in range(2):
            for p, new in zip(twice.parameters(), training_step(twice, x), strict=True):
                p.data.copy_(new)
        for ours, theirs in zip(parameters.values(), twice.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)


class Words(nn.Module):
    """Looked up (n, ...) words, their mean, and two outputs."""

    def __init__(self, table: nn.Module, positions: bool = False):
        super().__init__()
        self.table, self.last = table, nn.Linear(4, 2)
        self.positions = nn.Embedding(3, 4) if positions else None

    def forward(self, words):
        vectors = self.table(words)
        if self.positions is not None:
            vectors = vectors + self.positions(torch.arange(words.shape[-1]))
        return self.last(torch.tanh(vectors.flatten(1, -2).mean(1) if vectors.dim() > 2 else vectors))


class Generating(nn.Embedding):
    """A class of one's own with the parameters of an embedding: of no known kind."""


class TestEmbeddings:
    TABLES = {
        "dense": lambda: nn.Embedding(9, 4),
        "sparse gradients": lambda: nn.Embedding(9, 4, sparse=True),
        "padding": lambda: nn.Embedding(9, 4, padding_idx=2),
        "scaled gradients": lambda: nn.Embedding(9, 4, scale_grad_by_freq=True),
    }
    SHAPES = {"one word": (7,), "some words": (7, 3), "two axes": (7, 2, 3)}

    @pytest.fixture(params=TABLES)
    def table(self, request):
        return self.TABLES[request.param]()

    @pytest.fixture(params=SHAPES)
    def words(self, request):
        return torch.randint(0, 9, self.SHAPES[request.param])

    @staticmethod
    def plain(model: nn.Module) -> nn.Module:
        """The same function with gradients as they are."""
        model = copy.deepcopy(model)
        model.table.sparse = model.table.scale_grad_by_freq = False
        return model.double()

    def test_kernel(self, table, words):
        model = Words(table).double()
        assert tangent.layers(model, words).structured == ("table", "last")
        assert error(tangent.tangent_kernel(model, words), reference(self.plain(model), words)) < 1e-10

    def test_blocks_change_nothing(self, table, words, monkeypatch):
        model = Words(table).double()
        whole = tangent.tangent_kernel(model, words)
        monkeypatch.setattr(embedding.EmbeddingPart, "_block", lambda self: 8 * 6**2)
        torch.testing.assert_close(tangent.tangent_kernel(model, words), whole)

    def test_products(self, table, words):
        model = Words(table).double()
        linearization = tangent.linearize(model, words)
        cotangent = torch.randn(7, 2, dtype=torch.float64)
        plain = self.plain(model)
        expected = torch.autograd.grad((plain(words) * cotangent).sum(), list(plain.parameters()))
        for ours, theirs in zip(linearization.vjp(cotangent).values(), expected, strict=True):
            torch.testing.assert_close(ours, theirs)
        vectors = torch.randn(14, 3, dtype=torch.float64)
        torch.testing.assert_close(linearization @ vectors, linearization.kernel() @ vectors)

    def test_of_positions_beside(self):
        model, words = Words(nn.Embedding(9, 4), positions=True), torch.randint(0, 9, (7, 3))
        assert tangent.layers(model, words).general == ("positions.weight",)
        assert error(tangent.tangent_kernel(model, words), reference(model, words)) < 1e-5

    @pytest.mark.filterwarnings("ignore:There is a performance drop")
    @pytest.mark.parametrize(
        "table",
        [
            lambda: nn.EmbeddingBag(9, 4, mode="sum"),
            lambda: nn.EmbeddingBag(9, 4, sparse=True),
            lambda: Generating(9, 4, sparse=True),
        ],
    )
    def test_of_other_kinds(self, table):
        model, words = Words(table()), torch.randint(0, 9, (7, 3))
        assert "table.weight" in tangent.layers(model, words).general
        assert error(tangent.tangent_kernel(model, words), reference(model, words)) < 1e-5

    def test_a_table_that_is_also_the_last_layer(self):
        class Tied(Words):
            def forward(self, words):
                return super().forward(words) @ self.table.weight[:2]

        model, words = Tied(nn.Embedding(9, 4)), torch.randint(0, 9, (7, 3))
        assert tangent.layers(model, words).general == ("table.weight",)
        assert error(tangent.tangent_kernel(model, words), reference(model, words)) < 1e-5


class TestJacobiansThatDoNotFit:
    """They come a block of samples at a time, and give the same."""

    @pytest.fixture(params=[1, 2, 5], ids="in blocks of {}".format)
    def in_blocks(self, request, monkeypatch):
        monkeypatch.setattr(general, "_SMALL", 0)
        of_a_sample = 2 * 8 * (16 + 16)  # outputs, bytes, weights and biases of the norm
        free = of_a_sample * 2 * (request.param + 0.5) / general._SHARE
        monkeypatch.setattr(devices, "free_memory", lambda device: free)

    @pytest.fixture
    def model(self):
        return NETWORKS["general"]().double()

    def test_everything(self, model, in_blocks):
        x = torch.randn(13, 8, dtype=torch.float64)
        linearization = tangent.linearize(model, x)
        assert isinstance(linearization.parts[0], general.GeneralPartInBlocks)
        kernel, cotangent = linearization.kernel(), torch.randn(13, 2, dtype=torch.float64)
        assert torch.equal(kernel, kernel.T) and error(kernel, reference(model, x)) < 1e-10
        vectors = torch.randn(26, 3, dtype=torch.float64)
        torch.testing.assert_close(linearization @ vectors, kernel @ vectors)
        expected = torch.autograd.grad((model(x) * cotangent).sum(), list(model.parameters()))
        for gradient in (linearization.vjp(cotangent), linearization.kernel_and_vjp(cotangent)[1]):
            for (name, _), theirs in zip(model.named_parameters(), expected, strict=True):
                torch.testing.assert_close(gradient[name], theirs)

    def test_a_step_in_place_and_what_comes_after(self, model, in_blocks):
        x, cotangent = torch.randn(13, 8, dtype=torch.float64), torch.randn(13, 2, dtype=torch.float64)
        kernel, gradient = tangent.linearize(model, x).kernel_and_vjp(cotangent)
        expected = {name: p.detach() + gradient[name] for name, p in model.named_parameters()}
        linearization = tangent.linearize(model, x)
        same, _ = linearization.kernel_and_vjp(cotangent, add_to=dict(model.named_parameters()))
        torch.testing.assert_close(same, kernel)
        for name, p in model.named_parameters():
            torch.testing.assert_close(p.detach(), expected[name])
        with pytest.raises(ValueError, match="its weights have changed since it was linearized"):
            linearization.kernel()

    def test_few_are_kept_without_a_look_at_the_memory(self, model, monkeypatch):
        monkeypatch.setattr(devices, "free_memory", lambda device: pytest.fail("looked"))
        linearization = tangent.linearize(model, torch.randn(13, 8, dtype=torch.float64))
        assert isinstance(linearization.parts[-1], general.GeneralPart)


class TestResidual:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.uint8, torch.bool, torch.float16])
    @pytest.mark.parametrize("shape", [(4,), (4, 1)])
    def test_is_in_the_outputs_type_and_shape(self, dtype, shape):
        outputs, targets = torch.randn(4, 1), torch.tensor([0, 1, 1, 0])
        residual = tangent.residual_of(outputs, targets.to(dtype).reshape(shape))
        torch.testing.assert_close(residual, outputs - targets[:, None].float(), rtol=0, atol=0)

    @pytest.mark.usefixtures("no_type_checks")
    @pytest.mark.parametrize("targets", [torch.ones(3), torch.ones(4, 2), torch.ones(2, 2), torch.ones(4) + 0j])
    def test_refuses(self, targets):
        with pytest.raises(ValueError, match="targets: "):
            tangent.residual_of(torch.randn(4, 1), targets)


def test_the_learning_rate_of_a_model_that_never_learns_is_infinite():
    model = nn.Linear(4, 1)
    model.requires_grad_(False).spare = nn.Parameter(torch.ones(2))
    kernel = tangent.tangent_kernel(model, torch.randn(5, 4))
    assert not kernel.any() and tangent.critical_learning_rate(kernel, 5) == math.inf


def test_a_compiled_chain_is_no_chain_and_gives_the_same():
    model, x = models.fcn(4, 6, 3), torch.randn(5, 4)
    compiled = torch.compile(model, backend="eager")
    assert tangent.layers(model, x).chain and tangent.layers(compiled, x).compiled
    torch.testing.assert_close(tangent.tangent_kernel(compiled, x), tangent.tangent_kernel(model, x))
