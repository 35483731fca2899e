from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fpcli.scores.curvature import (
    Spectrum,
    compute_gradient,
    make_loss,
    make_products,
    run_lanczos,
    solve_exactly,
)
from fpcli.scores.rates import (
    bound_along_segment,
    bound_nearby,
    find_spectral_gap,
    find_widest_gap,
    measure_mass_above,
)
from fpcli.tasks.classify import Classify


def spectrum(*values: float) -> Spectrum:
    found = torch.tensor(values, dtype=torch.float64)
    return Spectrum(found, torch.full_like(found, 1 / len(found)), is_exact=True)


SADDLE = spectrum(-0.30, -0.01, 0, 0, 0.02, 0.05, 0.06, 0.9, 1.0, 4.0)


@pytest.mark.parametrize(
    ("lipschitz", "any_sign", "nonnegative", "last"),
    [(0.02, 1, 7, 9), (0.05, 1, 7, 9), (0.3, 9, 9, 9), (1.0, None, None, None)],
)
def test_the_gaps_of_a_saddle(
    lipschitz: float, any_sign: int | None, nonnegative: int | None, last: int | None
) -> None:
    first = find_spectral_gap(SADDLE, lipschitz, pick="first", is_nonnegative=False)
    beyond_zero = find_spectral_gap(SADDLE, lipschitz, pick="first")
    final = find_spectral_gap(SADDLE, lipschitz, pick="last")
    assert [gap and gap.below for gap in (first, beyond_zero, final)] == [
        any_sign, nonnegative, last,
    ]  # fmt: skip


def test_first_last_and_largest_gap() -> None:
    steps = spectrum(0, 0, 1, 1, 2)
    assert find_spectral_gap(steps, 0.0, pick="first").rate == pytest.approx(0.4)  # type: ignore[union-attr]
    assert find_spectral_gap(steps, 0.0, pick="last").rate == pytest.approx(0.8)  # type: ignore[union-attr]
    assert find_spectral_gap(SADDLE, 0.02, pick="largest").width == pytest.approx(3.0)  # type: ignore[union-attr]
    assert find_widest_gap(SADDLE) == pytest.approx(3.0)


def regression() -> tuple[Tensor, Tensor]:
    x = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 0, 1, 0]] * 2, dtype=torch.float64)
    return x, torch.zeros(4, dtype=torch.float64)


def test_a_quadratic_loss_has_no_nonlinear_part() -> None:
    """f = |Xw - y|^2 / (2 N) with the rows above: H = X^T X / 4 has eigenvalues 0, 0, 0, 1, 1."""
    x, y = regression()

    def loss(w: Tensor) -> Tensor:
        return (x @ w - y).square().sum() / 8

    at = torch.linspace(-1, 1, 5, dtype=torch.float64)
    product = make_products(loss, at)
    found = solve_exactly(product, 5)
    assert found.values.tolist() == pytest.approx([0, 0, 0, 1, 1], abs=1e-12)
    lipschitz = bound_along_segment(loss, at, product, torch.ones(5, dtype=torch.float64))
    assert lipschitz < 1e-12
    assert bound_nearby(loss, at, product, torch.Generator().manual_seed(0)) < 1e-10
    for pick in ("first", "last"):
        gap = find_spectral_gap(found, lipschitz, pick=pick)  # type: ignore[arg-type]
        assert gap is not None
        assert (gap.below, gap.rate) == (3, pytest.approx(0.6))


def test_the_lipschitz_constant_along_a_segment() -> None:
    """f = w1^4 / 4 + w2^2 at (1, 1): B(x) = (-1 - 3 x1^2 - x1^3, -2)."""

    def loss(w: Tensor) -> Tensor:
        return w[0] ** 4 / 4 + w[1] ** 2

    at = torch.ones(2, dtype=torch.float64)
    shift = torch.tensor([-0.5, 0.3], dtype=torch.float64)
    product = make_products(loss, at)
    assert bound_along_segment(loss, at, product, shift, points=2) == pytest.approx(1.0718661571)
    assert bound_along_segment(loss, at, product, shift) == pytest.approx(1.8629033811)
    assert bound_along_segment(loss, at, product, torch.zeros(2, dtype=torch.float64)) == 0.0


def test_scaling_the_loss_scales_both_sides() -> None:
    def loss(w: Tensor) -> Tensor:
        return (w**4).sum() / 4 + w.prod()

    at = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    shift = torch.tensor([0.1, 0.2, -0.3], dtype=torch.float64)

    def of(scale: float) -> tuple[Tensor, float]:
        def scaled(w: Tensor) -> Tensor:
            return scale * loss(w)

        product = make_products(scaled, at)
        return solve_exactly(product, 3).values, bound_along_segment(scaled, at, product, shift)

    (values, lipschitz), (scaled_values, scaled_lipschitz) = of(1.0), of(3.0)
    assert torch.allclose(3 * values, scaled_values)
    assert scaled_lipschitz == pytest.approx(3 * lipschitz)


def test_full_lanczos_finds_the_eigenvalues() -> None:
    generator = torch.Generator().manual_seed(1)
    factor = torch.randn(40, 40, generator=generator, dtype=torch.float64)
    matrix = factor @ factor.T
    found = run_lanczos(lambda v: matrix @ v, 40, generator, steps=40, probes=1)
    assert torch.allclose(found.values, torch.linalg.eigvalsh(matrix), atol=1e-6)
    assert float(found.weights.sum()) == pytest.approx(1.0)
    pooled = run_lanczos(lambda v: matrix @ v, 40, generator, steps=10, probes=3)
    assert len(pooled.values) == 30
    assert float(pooled.weights.sum()) == pytest.approx(1.0)
    # Every probe integrates the identity exactly: the mean eigenvalue of a random vector's measure.
    assert bool((pooled.values.diff() >= 0).all())


def test_an_invariant_subspace_ends_lanczos_early() -> None:
    found = run_lanczos(lambda v: 2 * v, 10, torch.Generator().manual_seed(0), steps=5, probes=1)
    assert found.values.tolist() == pytest.approx([2.0])


def test_the_mass_above_a_threshold() -> None:
    """FedDUAP's rule keeps the complement of the gap rule: 0.4 for (0, 0, 0, 1, 1)."""
    assert measure_mass_above(spectrum(0, 0, 0, 1, 1)) == pytest.approx(0.4)
    assert measure_mass_above(spectrum(-1, -1)) == pytest.approx(0.0, abs=1e-5)


def test_the_loss_of_a_network_is_that_of_evaluation() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0])
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss, at = make_loss(model, (x, y), Classify(2))
    model.eval()
    with torch.no_grad():
        expected = float(nn.functional.cross_entropy(model(x), y))
    assert float(loss(at)) == pytest.approx(expected, abs=1e-6)
    assert len(at) == sum(p.numel() for p in model.parameters()) == len(compute_gradient(loss, at))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.train()
    loss, _ = make_loss(model, (x, y), Classify(2))
    loss(at)
    assert model.training
