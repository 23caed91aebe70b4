"""Votes of points for the centre of their object: what a network learns, and how they group the points.

Every cell near a point holds the vector from itself to the centre of the point's object, as in PersonLab (Papandreou
et al. 2018, https://arxiv.org/abs/1803.08225) and Panoptic-DeepLab (Cheng et al. 2020,
https://arxiv.org/abs/1911.10194). Points whose votes meet are one object.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from keypoint_detection.types import NOT_LABELLED, Detections, Grouping

# A point votes where its Gaussian is above a half, and in all cells that a vote at the point is read from.
_REACH_SIGMAS = math.sqrt(2 * math.log(2))
_REACH_CELLS = 1.5
# Chains of votes, each of which would absorb the next, are followed up to this length.
_N_ROUNDS = 8
# Radius of detectors that no validation has measured one for.
DEFAULT_RADIUS_PX = 8.0
# Votes err by a share of their length: those of large objects may differ by more.
LENGTH_SHARE = 0.75
# Objects whose centres are closer than this in the network's input cannot be told apart: votes err by some pixels.
CLOSEST_CENTRES_PX = 8.0
# The keys of the radius and of what margins say in the result of a validation.
RADIUS_KEY, MARGINS_KEY = "vote_radius_px", "vote_margins"
# No image has more objects; the lowest ones are left out.
MAX_OBJECTS = 100
# Margins are limited to this many reaches: points further from any other object are all equally certain.
LARGEST_MARGIN = 8.0


class VoteTargets(NamedTuple):
    """What the votes should be.

    Attributes:
        votes: (B, C, 2, h, w) float32, from each cell to the centre, in input pixels; 0 where no point is near.
        is_near: (B, C, h, w) bool, where a point is near.
    """

    votes: Tensor
    is_near: Tensor


@torch.no_grad()
def encode_votes(
    points: Tensor, centres: Tensor, visibility: Tensor, size: tuple[int, int], stride: int, sigma_px: float
) -> VoteTargets:
    """Return the votes of the cells near points; of several points, the nearest counts.

    Args:
        points: (B, C, K, 2) float, input pixels.
        centres: (B, C, K, 2) float, the centre of each point's object, input pixels; may be outside the image.
        visibility: (B, C, K); where it is 0, there is no point.
        size: (h, w) of the maps in cells.
        stride: input pixels per cell, along each axis.
        sigma_px: standard deviation of the points' Gaussians in input pixels.

    >>> targets = encode_votes(torch.tensor([[[[1.0, 1.0]]]]), torch.tensor([[[[5.0, 1.0]]]]), torch.tensor([[[2]]]),
    ...     (1, 3), stride=2, sigma_px=1.0)
    >>> targets.votes[0, 0, 0].tolist(), targets.is_near[0, 0].tolist()
    ([[4.0, 2.0, 0.0]], [[True, True, False]])
    """
    B, C, K = visibility.shape
    height, width = size
    reach = max(_REACH_SIGMAS * sigma_px / stride, _REACH_CELLS)
    side = torch.arange(-math.ceil(reach), math.ceil(reach) + 1, device=points.device)
    # (B * C, K, n, n, 2): the cells around each point, x and y.
    window = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1)
    places = points.reshape(B * C, K, 1, 1, 2).float() / stride - 0.5
    cells = places.nan_to_num(-1e6).clamp(-1e6, 1e6).round().long() + window
    distances = torch.linalg.vector_norm(cells - places, dim=-1)
    x, y = cells.unbind(-1)
    is_labelled = (visibility != NOT_LABELLED).view(B * C, K, 1, 1)
    is_near = is_labelled & (distances <= reach) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    every_map = torch.arange(B * C, device=points.device)[:, None, None, None].expand_as(x)
    # Pairs of a point and a cell near it, ordered by cell, then distance: the first of a cell is its nearest point.
    order = distances.flatten().argsort(stable=True)
    order = order[is_near.flatten()[order]]
    where, ordered = ((every_map * height + y) * width + x).flatten()[order].sort(stable=True)
    is_nearest = torch.ones_like(where, dtype=torch.bool)
    is_nearest[1:] = where[1:] != where[:-1]
    order, where = order[ordered[is_nearest]], where[is_nearest]
    ways = centres.reshape(B * C, K, 1, 1, 2).float() - (cells + 0.5) * stride
    votes = points.new_zeros(B * C * height * width, 2, dtype=torch.float32)
    near = torch.zeros(B * C * height * width, dtype=torch.bool, device=points.device)
    votes[where] = ways.flatten(0, -2)[order]
    near[where] = True
    votes = votes.view(B, C, height, width, 2).permute(0, 1, 4, 2, 3)
    return VoteTargets(votes.contiguous(), near.view(B, C, height, width))


def group_points(
    detections: Detections,
    votes: Tensor,
    stride: int,
    radius_px: float,
    capacities: Tensor,
    of_margin: tuple[float, float] | None = None,
) -> Detections:
    """Tell which detections belong to one object: those whose votes for its centre meet.

    The votes of the highest points are centres; each absorbs those within reach: the radius and three quarters of the
    mean length of the two votes. Every point then goes to the nearest centre, in reaches, and an object keeps of each
    channel the highest points only. Only operations that can be traced and exported are used.

    Args:
        detections: in input pixels, by descending score in each channel.
        votes: (B, C, 2, h, w), as from a network, in input pixels.
        stride: input pixels per cell, along each axis.
        radius_px: the reach of votes without length, in input pixels.
        capacities: (C,) the maximum number of points of a channel in one object.
        of_margin: slope and intercept of the log-odds of belonging to the object, given the margin; None if unknown.

    Returns:
        The detections with their grouping. An object's score is the sum of its points' scores over the number of
        points that an object can have.
    """
    points, scores = detections.points, detections.scores
    ways = _read(votes, points / stride - 0.5)
    seen, lengths = points + ways, torch.linalg.vector_norm(ways, dim=-1)
    to_centres = measure_to_centres(seen.flatten(1, 2), lengths.flatten(1), scores.flatten(1), radius_px)
    grouping = _assign(scores, seen, to_centres, capacities)
    if of_margin is not None:
        belonging = torch.sigmoid(of_margin[0] * grouping.margins + of_margin[1]) * (grouping.objects >= 0)
        grouping = grouping._replace(belonging=belonging)
    return detections._replace(grouping=grouping)


def measure_to_centres(flat: Tensor, lengths: Tensor, values: Tensor, radius_px: float) -> Tensor:
    """Choose the votes that are centres, and measure the distance of every vote to them.

    Args:
        flat: (B, N, 2) where the points of an image see the centre of their object.
        lengths: (B, N) how far that is from the point.
        values: (B, N) their scores; 0 marks an unused slot.
        radius_px: each centre absorbs lower votes within reach; see `group_points`.

    Returns:
        (B, N, N) from each vote to each other one that is a centre, in reaches; inf to those that are not.
    """
    N = flat.shape[1]
    reaches = radius_px + LENGTH_SHARE * (lengths[:, :, None] + lengths[:, None]) / 2
    distances = torch.linalg.vector_norm(flat[:, :, None] - flat[:, None], dim=3) / reaches  # (B, N, N)
    numbers = torch.arange(N, device=values.device)
    is_higher = (values[:, None] > values[:, :, None]) | (
        (values[:, None] == values[:, :, None]) & (numbers < numbers[:, None])
    )  # (B, N, N): whether the column is above the row
    is_point = values > 0
    absorbs = is_higher & (distances < 1) & is_point[:, None]
    is_centre = is_point
    for _ in range(_N_ROUNDS):
        is_centre = is_point & ~(absorbs & is_centre[:, None]).any(2)
    to_centres: Tensor = distances.masked_fill(~is_centre[:, None], torch.inf)
    return to_centres


def _read(votes: Tensor, places: Tensor) -> Tensor:
    """Read votes (B, C, 2, h, w) at places (B, C, D, 2) in cells between the cells' centres: (B, C, D, 2)."""
    height, width = votes.shape[-2:]
    flat = votes.flatten(3)  # (B, C, 2, h * w)
    x, y = places.unbind(-1)
    x, y = x.clamp(min=0), y.clamp(min=0)
    left, top = x.floor(), y.floor()
    across, down = x - left, y - top
    result = torch.zeros_like(places)
    for shift_x, weight_x in ((0, 1 - across), (1, across)):
        for shift_y, weight_y in ((0, 1 - down), (1, down)):
            column = (left.long() + shift_x).clamp(max=width - 1)
            row = (top.long() + shift_y).clamp(max=height - 1)
            index = (row * width + column)[:, :, None].expand(-1, -1, 2, -1)
            result = result + flat.gather(3, index).mT * (weight_x * weight_y)[..., None]
    return result


def _assign(scores: Tensor, seen: Tensor, to_centres: Tensor, capacities: Tensor) -> Grouping:
    """Give each point to the nearest centre, given the distances of `measure_to_centres`."""
    B, C, D = scores.shape
    N = C * D
    is_point = scores.flatten(1) > 0
    distance, owner = to_centres.min(2)  # (B, N)
    is_member = is_point & (distance < 1)
    # An object keeps of each channel only the highest points, which come first.
    owners = owner.masked_fill(~is_member, -1).view(B, C, D)
    is_same = (owners[..., None] == owners[:, :, None]).tril(-1)  # (B, C, D, D): a higher point of the same object
    is_member = is_member & (is_same.sum(3) < capacities[:, None]).flatten(1)
    centre = torch.arange(N, device=scores.device)
    membership = (owner[..., None] == centre) & is_member[..., None]  # (B, N points, N centres)
    totals = (membership * scores.flatten(1)[..., None]).sum(1) / capacities.sum()  # (B, N)
    n_objects = min(N, MAX_OBJECTS)
    object_scores, chosen = totals.topk(n_objects)  # (B, O)
    is_mine = (owner[..., None] == chosen[:, None]) & is_member[..., None]  # (B, N, O)
    objects = torch.where(is_mine.any(2), is_mine.int().argmax(2), -1)
    # To the nearest centre of another object that has points.
    others = to_centres.masked_fill(~(totals > 0)[:, None] | (owner[..., None] == centre), torch.inf)
    margins = (others.min(2).values - distance).clamp(max=LARGEST_MARGIN)
    return Grouping(
        objects=objects.view(B, C, D),
        object_scores=object_scores,
        votes=seen * (scores > 0)[..., None],
        margins=(margins * is_member).view(B, C, D),
    )


@dataclass(frozen=True)
class VoteCodec:
    """Hold the settings that `encode_votes` and `group_points` must agree on.

    Attributes:
        stride: input pixels per cell of the maps.
        sigma_px: standard deviation of the Gaussians in input pixels.
        capacities: the maximum number of points of each channel in one object: that of its keypoint types.
        radius_px: the reach of votes without length, in input pixels.
        of_margin: slope and intercept of the log-odds of belonging, given the margin; None if unknown.
    """

    stride: int
    sigma_px: float
    capacities: tuple[int, ...]
    radius_px: float = DEFAULT_RADIUS_PX
    of_margin: tuple[float, float] | None = None

    @classmethod
    def for_channels(cls, channels: Mapping[str, Collection[str]], stride: int, sigma_px: float) -> "VoteCodec":
        """Make the codec of a detector, given the keypoint types of each of its channels."""
        # The exporter accepts only plain numbers, not the parser's restricted ones.
        return cls(int(stride), float(sigma_px), tuple(map(len, channels.values())))

    def with_validation(self, validation: Mapping[str, Any] | None) -> "VoteCodec":
        """Take what a validation stored in a checkpoint has measured, if anything."""
        radius, margins = ((validation or {}).get(key) for key in (RADIUS_KEY, MARGINS_KEY))
        return replace(
            self,
            radius_px=self.radius_px if radius is None else float(radius),
            of_margin=None if margins is None else (float(margins[0]), float(margins[1])),
        )

    def encode(self, points: Tensor, centres: Tensor, visibility: Tensor, size: tuple[int, int]) -> VoteTargets:
        """Return the votes of the cells near points, for maps of `size` (h, w) cells; see `encode_votes`."""
        return encode_votes(points, centres, visibility, size, self.stride, self.sigma_px)

    def group(self, detections: Detections, votes: Tensor) -> Detections:
        """Tell which detections belong to one object; see `group_points`."""
        capacities = torch.tensor(self.capacities, device=detections.scores.device)
        return group_points(detections, votes, self.stride, self.radius_px, capacities, self.of_margin)
