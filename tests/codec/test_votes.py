"""Votes for the centres of objects: what is learned, and how the points are grouped by them."""

import math
from dataclasses import replace

import pytest
import torch

from keypoint_detection.codec.votes import VoteCodec, encode_votes, group_points
from keypoint_detection.types import Detections

CODEC = VoteCodec(stride=2, sigma_px=2.0, capacities=(4, 1), radius_px=6.0)
SIZE = (30, 40)


def encode_one_by_one(points, centres, visibility, size, stride, sigma_px):
    """The definition: every cell takes the vote of the nearest point that is near enough."""
    B, C, K = visibility.shape
    votes, near = torch.zeros(B, C, 2, *size), torch.zeros(B, C, *size, dtype=torch.bool)
    reach = max(sigma_px * math.sqrt(2 * math.log(2)), 1.5 * stride)
    for b, c, row, column in torch.cartesian_prod(*map(torch.arange, (B, C, *size))).tolist():
        middle = torch.tensor([(column + 0.5) * stride, (row + 0.5) * stride])
        distances = [float((points[b, c, k] - middle).norm()) if visibility[b, c, k] else math.inf for k in range(K)]
        nearest = min(range(K), key=distances.__getitem__)
        if distances[nearest] <= reach:
            votes[b, c, :, row, column] = centres[b, c, nearest] - middle
            near[b, c, row, column] = True
    return votes, near


@pytest.mark.parametrize(("stride", "sigma_px"), [(2, 2.0), (1, 3.0), (4, 1.0)])
def test_cells_vote_as_the_nearest_point_does(stride, sigma_px):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2, 2, 5, 2, generator=generator) * torch.tensor([52.0, 40.0]) - 6
    centres = torch.rand(2, 2, 5, 2, generator=generator) * 100 - 20
    visibility = torch.randint(3, (2, 2, 5), generator=generator)
    size = (30 // stride, 40 // stride)
    found = encode_votes(points, centres, visibility, size, stride, sigma_px)
    votes, near = encode_one_by_one(points, centres, visibility, size, stride, sigma_px)
    torch.testing.assert_close(found.votes, votes)
    assert torch.equal(found.is_near, near)
    assert 0 < near.float().mean() < 1


def group_truth(points, centres, scores, codec=CODEC):
    """Group points by the votes that a perfect network would give."""
    visibility = torch.full(points.shape[:3], 2)
    votes = codec.encode(points, centres, visibility, SIZE).votes
    return codec.group(Detections(points, scores), votes).grouping


def two_objects():
    # Channel 0: two corners of each of two objects; channel 1: one handle of each; then unused slots.
    points = torch.tensor([[[[10, 10], [50, 12], [10, 30], [52, 31]], [[20, 20], [60, 22], [0, 0], [0, 0]]]]).float()
    left, right = [15.0, 20.0], [55.0, 20.5]
    centres = torch.tensor([[[left, right, left, right], [left, right, [0, 0], [0, 0]]]])
    scores = torch.tensor([[[0.9, 0.8, 0.7, 0.6], [0.9, 0.5, 0, 0]]])
    return points, centres, scores


# Half of the lengths of the highest votes of the two objects, and the radius.
MEAN_REACH = 6 + 0.75 * (math.hypot(5, 10) + math.hypot(5, 8.5)) / 2


def test_points_that_see_the_same_centre_are_an_object():
    grouping = group_truth(*two_objects())
    assert grouping.objects.tolist() == [[[0, 1, 0, 1], [0, 1, -1, -1]]]
    assert grouping.object_scores[0, :3].tolist() == pytest.approx([(0.9 + 0.7 + 0.9) / 5, (0.8 + 0.6 + 0.5) / 5, 0])
    assert grouping.votes[0, 0, 1].tolist() == pytest.approx([55, 20.5], abs=1e-4)
    # The other object is 40 px away, seen from its highest point; the vote is at its own centre.
    assert grouping.margins[0, 0, 0] == pytest.approx(math.hypot(40, 0.5) / MEAN_REACH, abs=1e-3)
    assert grouping.margins[0, 1, 2] == 0


def test_an_object_of_its_own_is_as_certain_as_can_be():
    points, centres, scores = two_objects()
    scores[0, 0, 1] = scores[0, 0, 3] = scores[0, 1, 1] = 0
    grouping = group_truth(points, centres, scores)
    assert grouping.objects[0, 0].tolist() == [0, -1, 0, -1]
    assert grouping.margins[0, 0, 0] == 8


def test_the_probability_of_belonging_follows_the_margin():
    points, centres, scores = two_objects()
    grouping = group_truth(points, centres, scores, replace(CODEC, of_margin=(2.0, -3.0)))
    expected = torch.sigmoid(2 * grouping.margins - 3) * (grouping.objects >= 0)
    torch.testing.assert_close(grouping.belonging, expected)
    margin = math.hypot(40, 0.5) / MEAN_REACH
    assert grouping.belonging[0, 0, 0] == pytest.approx(1 / (1 + math.exp(3 - 2 * margin)), abs=1e-4)
    assert group_truth(points, centres, scores).belonging is None


def test_what_a_validation_measured_is_used():
    measured = CODEC.with_validation({"vote_radius_px": 9, "vote_margins": [0.5, -1]})
    assert (measured.radius_px, measured.of_margin) == (9.0, (0.5, -1.0))
    for nothing in (None, {}, {"vote_radius_px": None, "vote_margins": None}):
        assert CODEC.with_validation(nothing) == CODEC


def test_an_object_keeps_the_highest_points_of_a_channel():
    points, centres, scores = two_objects()
    centres[0, 1, 1] = centres[0, 1, 0]  # a second handle that sees the left object
    grouping = group_truth(points, centres, scores)
    assert grouping.objects[0, 1].tolist() == [0, -1, -1, -1]


def test_centres_may_be_outside_the_image():
    points, centres, scores = two_objects()
    outwards = torch.where(centres < 30, -30.0, 30.0) * torch.tensor([1, 0])
    grouping = group_truth(points, centres + outwards, scores)
    assert grouping.votes[0, 0, 0, 0] < 0
    assert grouping.objects.tolist() == [[[0, 1, 0, 1], [0, 1, -1, -1]]]


def test_a_vote_between_two_centres_goes_to_the_nearer_one():
    # Votes for 20, 25 and 27 on a line: 25 is in reach of 20, but nearer to 27, which is a centre of its own.
    points = torch.tensor([[[[20.0, 20.0], [25, 20], [27, 20]]]])
    centres = points.clone()
    grouping = group_truth(points, centres, torch.tensor([[[0.9, 0.5, 0.7]]]), VoteCodec(2, 2.0, (4,), 6.0))
    assert grouping.objects.tolist() == [[[1, 0, 0]]]


def test_long_votes_may_differ_by_more():
    # Votes for places 10 px apart, from points near them and far from them.
    points = torch.tensor([[[[20.0, 20.0], [30, 20]]]])
    scores, codec = torch.tensor([[[0.9, 0.8]]]), VoteCodec(2, 2.0, (4,), 6.0)
    assert group_truth(points, points.clone(), scores, codec).objects.tolist() == [[[0, 1]]]
    assert group_truth(points, points + torch.tensor([0.0, 20.0]), scores, codec).objects.tolist() == [[[0, 0]]]


def test_images_of_a_batch_are_grouped_alone():
    points, centres, scores = two_objects()
    empty = torch.zeros_like(scores)
    both = group_truth(
        *(torch.cat([one, other]) for one, other in ((points, points), (centres, centres), (scores, empty)))
    )
    alone = group_truth(points, centres, scores)
    for one, other in zip(both[:4], alone[:4], strict=True):
        torch.testing.assert_close(one[:1], other)
    assert (both.objects[1] == -1).all()
    assert (both.object_scores[1] == 0).all()


def test_grouping_can_be_exported():
    class Module(torch.nn.Module):
        def forward(self, points, scores, votes):
            capacities = torch.tensor(CODEC.capacities)
            return group_points(Detections(points, scores), votes, 2, 6.0, capacities).grouping

    points, centres, scores = two_objects()
    votes = CODEC.encode(points, centres, torch.full(points.shape[:3], 2), SIZE).votes
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        Module(), tuple(torch.cat([one, one]) for one in (points, scores, votes)), dynamic_shapes=({0: batch},) * 3
    )
    found = program.module()(points, scores, votes)
    for one, other in zip(found, Module()(points, scores, votes), strict=True):
        torch.testing.assert_close(one, other)
