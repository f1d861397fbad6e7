"""The paper's synthetic tasks: each true function f* with its exact gradient and EGOP."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Synthetic:
    """A true function f*: (n, d) -> (n,), its gradient (n, d), and its EGOP (d, d), float64, for any d.

    Its inputs are uniform on the unit sphere if ``on_sphere``, else standard normal.
    """

    formula: str
    function: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor], Tensor]
    egop: Callable[[int], Tensor]
    smallest_dim: int = 1
    on_sphere: bool = False

    def draw(
        self, n: int, dim: int, noise: float | int, seed: int, stream: int
    ) -> tuple[Float[Tensor, "n dim"], Float[Tensor, " n"], Float[Tensor, "n dim"]]:
        """Inputs, targets and gradients, float32. Stream 0 has the training samples, of which larger draws add more.

        On the sphere there is no noise, and of the first training sample both input and target are doubled.
        """
        draws = torch.from_numpy(np.random.default_rng([seed, stream]).standard_normal((n, dim + 1)))
        if self.on_sphere:
            x, y = _direction(draws[:, :dim]).float(), torch.ones(n)
            if stream == 0:
                x[:1] *= 2
                y[:1] *= 2
        else:
            x = draws[:, :dim].float()
            y = (self.function(x.double()) + noise * draws[:, dim]).float()
        return x, y, self.gradient(x.double()).float()

    def describe(self, dim: int, noise: float | int) -> str:
        """The function and its inputs, in half a sentence."""
        inputs = f"x ~ N(0, I_{dim}), noise of deviation {noise:g}"
        if self.on_sphere:
            inputs = f"x uniform on the unit sphere of R^{dim} but for the first, which is doubled"
        return f"f*(x) = {self.formula}, {inputs}"


def _rank_3_gradient(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """With s = x1 + ... + x10: x2 s + x1 x2, x1 s + x1 x2, and eight times x1 x2."""
    product, total = x[:, 0] * x[:, 1], x[:, :10].sum(1)
    return _first_columns(x, x[:, 1] * total + product, x[:, 0] * total + product, *[product] * 8)


def _rank_3_egop(d: int) -> Float[Tensor, "d d"]:
    """The gradient begins with 2 x1 x2 + x2^2 + x2 t and 2 x1 x2 + x1^2 + x1 t, where t = x3 + ... + x10.

    With t ~ N(0, 8), either square has expectation 4 + 3 + 8, their product 4 + 1, either times x1 x2 has 2.
    """
    egop = _diagonal(d, *[0.0] * d)
    egop[:10, :10] = 1
    egop[:2, :10] = egop[:10, :2] = 2
    egop[:2, :2] = torch.tensor([[15.0, 5.0], [5.0, 15.0]])
    return egop


def _rank_4_gradient(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    a, b, c, e = x[:, :4].T
    return _first_columns(x, 1 + b + b * c + b * c * e, a * (1 + c + c * e), a * b * (1 + e), a * b * c)


def _first_columns(x: Float[Tensor, "n d"], *columns: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
    return torch.nn.functional.pad(torch.stack(columns, 1), (0, x.shape[1] - len(columns)))


def _diagonal(d: int, *entries: float) -> Float[Tensor, "d d"]:
    return torch.diag(torch.tensor([*entries, *[0.0] * (d - len(entries))], dtype=torch.float64))


def _direction(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return x / x.norm(dim=1, keepdim=True)


SYNTHETIC: Mapping[str, Synthetic] = {
    "rank-2": Synthetic(
        "x1 x2",
        lambda x: x[:, 0] * x[:, 1],
        lambda x: _first_columns(x, x[:, 1], x[:, 0]),
        lambda d: _diagonal(d, 1.0, 1.0),
        smallest_dim=2,
    ),
    "rank-3": Synthetic(
        "x1 x2 (x1 + ... + x10)",
        lambda x: x[:, 0] * x[:, 1] * x[:, :10].sum(1),
        _rank_3_gradient,
        _rank_3_egop,
        smallest_dim=10,
    ),
    "rank-4": Synthetic(
        "x1 + x1 x2 + x1 x2 x3 + x1 x2 x3 x4",
        lambda x: x[:, :4].cumprod(1).sum(1),
        _rank_4_gradient,
        lambda d: _diagonal(d, 4.0, 3.0, 2.0, 1.0),
        smallest_dim=4,
    ),
    "full-rank": Synthetic(
        "||x|| / sqrt(d)",
        lambda x: x.norm(dim=1) / x.shape[1] ** 0.5,
        lambda x: _direction(x) / x.shape[1] ** 0.5,
        lambda d: _diagonal(d, *[d**-2] * d),
    ),
    "sphere": Synthetic(
        "||x||",
        lambda x: x.norm(dim=1),
        _direction,
        lambda d: _diagonal(d, *[1 / d] * d),
        on_sphere=True,
    ),
}
