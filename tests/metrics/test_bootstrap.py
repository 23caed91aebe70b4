import numpy as np
import pytest
import torch

from keypoint_detection.metrics.bootstrap import percentile_interval, resample_images


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_resample_has_as_many_images_as_the_data_set() -> None:
    counts = resample_images(7, 50, seeded(0))
    assert counts.shape == (7, 50)
    assert (counts.sum(0) == 7).all()
    assert counts.std() > 0.5


def test_seed_decides_and_global_state_stays() -> None:
    state = torch.get_rng_state()
    first, same, other = (resample_images(20, 10, seeded(seed)) for seed in (1, 1, 2))
    assert first.equal(same)
    assert not first.equal(other)
    assert torch.get_rng_state().equal(state)


def test_interval_of_a_mean_is_that_of_theory() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(5, 2, 400)).float()
    low, high = percentile_interval(values @ resample_images(400, 4000, seeded(0)) / 400, 0.95)
    margin = 1.96 * values.std().item() / 20
    assert low.item() == pytest.approx(values.mean().item() - margin, abs=0.02)
    assert high.item() == pytest.approx(values.mean().item() + margin, abs=0.02)


def test_undefined_resamples_are_left_out() -> None:
    values = torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan], [1.0, torch.nan]])
    low, high = percentile_interval(values, 0.95)
    assert low[0] == high[0] == 1
    assert low[1].isnan()


@pytest.mark.parametrize(("n_images", "n_resamples"), [(0, 10), (3, 0)])
def test_nothing_to_resample_is_refused(n_images: int, n_resamples: int) -> None:
    with pytest.raises(ValueError, match=f"at least one image and one resample, found {n_images} and {n_resamples}"):
        resample_images(n_images, n_resamples, seeded(0))


def test_level_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1, found 95"):
        percentile_interval(torch.zeros(3), 95)
