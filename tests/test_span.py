import copy

import pytest
import torch
from catapults import models, tangent
from catapults.tangent.span import within_span
from torch import nn

N, SIZE = 5, 12


def problem(seed=0):
    torch.manual_seed(seed)
    return models.fcn(SIZE, 7, 3, bias=True).double(), torch.randn(N, 3, 2, 2, dtype=torch.float64)


def chain_of(model, inputs):
    return tangent.layers(model, inputs).chain


def test_inside_the_network_is_the_same_on_fewer_numbers():
    model, inputs = problem()
    outputs, kernel, weight = model(inputs), tangent.tangent_kernel(model, inputs), model[1].weight
    with within_span(model, inputs, chain_of(model, inputs)) as coordinates:
        assert coordinates.shape == (N, N) and model[1].weight.shape == (7, N)
        torch.testing.assert_close(model(coordinates), outputs)
        torch.testing.assert_close(tangent.tangent_kernel(model, coordinates), kernel)
    assert model[1].weight is weight
    assert torch.equal(model(inputs), outputs)


def test_training_inside_is_training_outside():
    model, inputs = problem()
    plain = copy.deepcopy(model)

    def train(network, data):
        optimiser = torch.optim.SGD(network.parameters(), lr=0.3)
        for _ in range(4):
            optimiser.zero_grad()
            network(data).square().mean().backward()
            optimiser.step()

    train(plain, inputs)
    start = model[1].weight.detach().clone()
    with within_span(model, inputs, chain_of(model, inputs)) as coordinates:
        train(model, coordinates)
    assert not torch.equal(model[1].weight, start)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_what_is_not_trained_stays_as_it_is():
    model, inputs = problem()
    model[1].weight.requires_grad_(False)
    start = model[1].weight.clone()
    with within_span(model, inputs, chain_of(model, inputs)):
        assert not model[1].weight.requires_grad
    assert torch.equal(model[1].weight, start)


def test_an_exception_leaves_a_model_of_the_original_inputs():
    model, inputs = problem()
    with pytest.raises(KeyboardInterrupt), within_span(model, inputs, chain_of(model, inputs)) as coordinates:
        with torch.no_grad():
            model[1].weight += 1
        outputs = model(coordinates)
        raise KeyboardInterrupt
    torch.testing.assert_close(model(inputs), outputs)


@pytest.mark.parametrize(
    "model, inputs",
    [
        (models.fcn(SIZE, 7, 3), torch.randn(SIZE, SIZE)),
        (models.cnn(3, 2, 4, 2), torch.randn(N, 3, 2, 2)),
        (nn.Sequential(nn.ReLU(), nn.Linear(SIZE, 1)), torch.randn(N, SIZE)),
    ],
    ids=["as many samples as inputs", "convolutions", "begins with a ReLU"],
)
def test_where_nothing_is_to_be_had(model, inputs):
    parameters = list(model.parameters())
    with within_span(model, inputs, chain_of(model, inputs)) as coordinates:
        assert coordinates is inputs
        assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
