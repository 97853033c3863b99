"""The loss terms against their equations, written out with numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss
from scipy import ndimage

from d3m.errors import D3MError
from d3m_training.train import losses


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_weighted_mean() -> None:
    """Pixels count by their weight; where nothing weighs the mean is 0, not NaN."""
    values, weight = _random(2, 3, 4, 5), _random(2, 1, 4, 5, seed=1)
    expected = np.average(values.numpy(), weights=np.broadcast_to(weight.numpy(), values.shape))
    assert float(losses.mean_over(values, weight)) == pytest.approx(expected)
    assert float(losses.mean_over(values, 0 * weight)) == 0


def test_tumour_weight() -> None:
    """The enhancing tumour and three pixels around it weigh `weight`, the rest of the brain 1, the outside nothing."""
    enhancing = torch.zeros(1, 1, 24, 24)
    enhancing[0, 0, 10:13, 11] = 1
    inside = torch.ones_like(enhancing)
    inside[..., :, :9] = 0
    near = ndimage.binary_dilation(enhancing[0, 0].numpy() > 0, np.ones((7, 7)))
    expected = np.where(inside[0, 0] > 0, np.where(near, 5, 1), 0)
    np.testing.assert_array_equal(losses.tumour_weight(enhancing, inside, 5)[0, 0], expected)
    np.testing.assert_array_equal(losses.dilate(enhancing, 3)[0, 0], near)


def test_soft_dice_is_monais() -> None:
    """Equal to MONAI's Dice loss over the batch with the same smoothing."""
    probability, enhancing = _random(3, 1, 8, 8), (_random(3, 1, 8, 8, seed=1) > 0.8).double()
    monai = DiceLoss(batch=True, smooth_nr=1, smooth_dr=1)(probability, enhancing)
    ours = losses.soft_dice(probability, enhancing, torch.ones_like(enhancing))
    assert float(ours) == pytest.approx(float(monai))
    weight = (_random(3, 1, 8, 8, seed=2) > 0.5).double()
    masked = DiceLoss(batch=True, smooth_nr=1, smooth_dr=1)(probability * weight, enhancing * weight)
    assert float(losses.soft_dice(probability, enhancing, weight)) == pytest.approx(float(masked))


def test_soft_dice_without_enhancement() -> None:
    """No enhancing pixel and a correct empty prediction cost nothing; a false one costs, with a gradient."""
    nothing = torch.zeros(2, 1, 8, 8)
    assert float(losses.soft_dice(nothing, nothing, nothing + 1)) == 0
    guess = torch.full_like(nothing, 0.5, requires_grad=True)
    loss = losses.soft_dice(guess, nothing, nothing + 1)
    loss.backward()
    assert float(loss.detach()) > 0.9
    assert guess.grad is not None
    assert (guess.grad > 0).all()


def test_hinge_is_squared_error_inside() -> None:
    """Between 0 and 1 the mask's term is the squared error; beyond, only the wrong side costs."""
    probability, enhancing = _random(2, 1, 8, 8), (_random(2, 1, 8, 8, seed=1) > 0.5).double()
    np.testing.assert_allclose(losses.hinge_squared(probability, enhancing), (probability - enhancing) ** 2)
    beyond = torch.tensor([-3.0, 4.0])
    assert losses.hinge_squared(beyond, torch.zeros(2)).tolist() == [0, 16]
    assert losses.hinge_squared(beyond, torch.ones(2)).tolist() == [16, 0]


def test_sure_and_wrong_still_learns() -> None:
    """A prediction far beyond [0, 1] has a gradient towards the truth where it is wrong, none where it is right."""
    for term in (losses.hinge_squared, _dice_of_clamped):
        value = torch.tensor([-2.0, 3.0, -2.0, 3.0], requires_grad=True)
        term(value, torch.tensor([1.0, 0.0, 0.0, 1.0])).sum().backward()
        assert value.grad is not None
        assert torch.sign(value.grad).tolist() == [-1, 1, 0, 0]


def _dice_of_clamped(probability: torch.Tensor, enhancing: torch.Tensor) -> torch.Tensor:
    return losses.soft_dice(losses.clamp_right(probability, enhancing), enhancing, torch.ones_like(enhancing))


def test_field_outside() -> None:
    """The squared length of the field away from the tumour, of labelled slices alone."""
    field, near = _random(2, 2, 6, 6), (_random(2, 1, 6, 6, seed=1) > 0.7).double()
    labelled = torch.tensor([1.0, 0.0], dtype=torch.float64)[:, None, None, None]
    away = near[0, 0].numpy() == 0
    expected = (field[0].numpy() ** 2).sum(0)[away].mean()
    assert float(losses.field_outside(field, near, labelled)) == pytest.approx(expected)
    assert float(losses.field_outside(field, near, 0 * labelled)) == 0


def test_smoothness() -> None:
    """Half the mean squared forward differences along rows and columns, weighted by sample; a shift costs nothing."""
    field, weight = _random(3, 2, 5, 7), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    f = field.numpy()
    each = [(np.mean(np.diff(s, axis=1) ** 2) + np.mean(np.diff(s, axis=2) ** 2)) / 2 for s in f]
    assert float(losses.weighted_smoothness(field, weight)) == pytest.approx(np.mean(np.array(each) * weight.numpy()))
    assert float(losses.weighted_smoothness(torch.ones_like(field) * 3, weight)) == 0


def test_region_cross_entropy() -> None:
    """Binary cross-entropy where the labels are known, written out."""
    logits, regions, weight = (
        _random(2, 2, 4, 4) * 6 - 3,
        (_random(2, 2, 4, 4, seed=1) > 0.5).double(),
        _random(2, 1, 4, 4),
    )
    p, g = 1 / (1 + np.exp(-logits.numpy())), regions.numpy()
    values = -(g * np.log(p) + (1 - g) * np.log(1 - p))
    expected = np.average(values, weights=np.broadcast_to(weight.numpy(), values.shape))
    assert float(losses.region_cross_entropy(logits, regions, weight)) == pytest.approx(expected)


def test_divergence_is_an_error() -> None:
    """NaN ends a training with a sentence instead of spoiling its checkpoints."""
    assert float(losses.finite(torch.tensor(1.0))) == 1
    for value in (float("nan"), float("inf")):
        with pytest.raises(D3MError, match="not finite"):
            losses.finite(torch.tensor(value))
