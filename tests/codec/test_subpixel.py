import pytest
import torch

from keypoint_detection.codec.subpixel import top_of_parabola


@pytest.mark.parametrize("centre", [4.1, 3.6, 4.5])
def test_the_top_of_a_gaussian_is_found_exactly(centre):
    cells = torch.arange(9.0)
    logarithms = -((cells - centre) ** 2) / 2 / 1.5**2
    peak = torch.tensor([[[round(centre)]]])
    shift = top_of_parabola(lambda index: logarithms[index], peak, 9)
    assert peak.item() + shift.item() == pytest.approx(centre, abs=1e-5)


def test_three_cells_do_at_the_border():
    logarithms = -((torch.arange(5.0) - 0.2) ** 2) / 2
    shift = top_of_parabola(lambda index: logarithms[index], torch.tensor([[[0]]]), 5)
    assert shift.item() == pytest.approx(0.2, abs=1e-5)


def test_a_line_of_two_cells_has_its_top_in_the_middle():
    assert top_of_parabola(lambda index: index.float(), torch.tensor([[[1]]]), 2).item() == 0
