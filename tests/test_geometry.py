import math

import pytest
import torch

from keypoint_detection.geometry import apply_affine, compose_affine, invert_affine, map_detections
from keypoint_detection.types import Detections


def turn(degrees: float, shift: tuple[float, float]) -> torch.Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, -s, shift[0]], [s, c, shift[1]]])


def test_each_group_of_points_has_its_own_map():
    points = torch.ones(2, 3, 4, 2)
    mapped = apply_affine(points, torch.stack([turn(90, (0, 0)), turn(0, (10, 20))]))
    assert mapped.shape == points.shape
    assert mapped[0, 2, 3].tolist() == pytest.approx([-1, 1], abs=1e-6)
    assert mapped[1, 0, 0].tolist() == [11, 21]


def test_no_points_stay_no_points():
    assert apply_affine(torch.zeros(2, 3, 0, 2), torch.zeros(2, 2, 3)).shape == (2, 3, 0, 2)


def test_composition_applies_the_first_map_first():
    composed = compose_affine(turn(90, (0, 0)), turn(0, (5, 0)))
    assert apply_affine(torch.tensor([[[1.0, 0.0]]]), composed[None])[0, 0].tolist() == pytest.approx([5, 1], abs=1e-6)


def test_the_inverse_leads_back():
    matrix = turn(37, (3, -8)) * 1.7
    there_and_back = compose_affine(matrix, invert_affine(matrix))
    assert there_and_back.flatten().tolist() == pytest.approx([1, 0, 0, 0, 1, 0], abs=1e-5)


def test_a_singular_map_has_no_inverse():
    with pytest.raises(RuntimeError):
        invert_affine(torch.zeros(2, 3))


def test_detections_are_mapped_in_full_precision_whatever_the_precision_of_the_network():
    generator = torch.Generator().manual_seed(0)
    points = 1000 * torch.rand(2, 3, 4, 2, generator=generator)
    root = torch.rand(2, 3, 4, 2, 2, generator=generator)
    detections = Detections(points, torch.ones(2, 3, 4), covariances=root @ root.mT)
    matrices = torch.stack([turn(30, (0.3, -7)), 2.5 * turn(-80, (4, 1))])
    expected = map_detections(detections, matrices)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = map_detections(detections, matrices)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    linear = matrices[:, None, None, :, :2]
    torch.testing.assert_close(found.covariances, linear @ root @ root.mT @ linear.mT)
