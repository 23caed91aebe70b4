"""Find labels that belong to the image before or after their own, as in a list that slipped by one line."""

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.data.checks.findings import Finding
from keypoint_detection.data.checks.parts import Part

# With fewer labelled images than this, no firm conclusion is possible.
MIN_IMAGES = 20
# Number of standard errors by which labels must fit the neighbouring image better before it is reported.
MIN_SIGMAS = 5.0
# Better than their own image, and better than images this many places away: labelled points may lie where most images
# differ from the median and their own does not, so that every other image seems to fit better.
COMPARED_SHIFTS = (0, 5, -5)
# Share of the points outside their image that must be inside the neighbouring one.
OUTSIDE_RATIO = 0.2
MIN_OUTSIDE = 10


def check_shift(part: Part, thumbnails: NDArray[np.uint8]) -> list[Finding]:
    """Find out whether labels fit the previous or the next image better than their own.

    There are two signs: points outside their image but inside a neighbour of another size; and, if the camera does not
    move, something at the points that this neighbour shows but other images do not.

    Args:
        part: labels and sizes.
        thumbnails: (I, side, side) grey images; those of unreadable images are ignored.
    """
    for order, described in ((np.arange(len(part.sizes)), "of the file"), (_by_name(part), "of their names")):
        for shift in (1, -1):
            text = _fits_better(part, thumbnails, order, shift)
            if text:
                which = "next" if shift == 1 else "previous"
                summary = (
                    f"images have labels that fit the {which} image, in the order {described}, better than their own "
                    f"({text}): have they slipped by one?"
                )
                return [Finding("warning", "shifted", str(part.path), len(order), summary)]
    return []


def _by_name(part: Part) -> NDArray[np.int64]:
    order: NDArray[np.int64] = np.argsort(part.table.image_paths, kind="stable")
    return order


def _fits_better(part: Part, thumbnails: NDArray[np.uint8], order: NDArray[np.int64], shift: int) -> str:
    """Explain why labels fit the image `shift` places further on better than their own; empty if they do not."""
    is_known: NDArray[np.bool_] = part.sizes.min(axis=1) > 0
    partner = _partners(order, shift)
    owners = part.owners
    rows = np.flatnonzero(is_known[owners] & is_known[partner[owners]])
    if len(np.unique(owners[rows])) < MIN_IMAGES:
        return ""
    points, limits = part.table.truths.points[rows], part.sizes[partner[owners[rows]]][:, ::-1]
    n_outside = int(part.is_outside[rows].sum())
    n_outside_there = int(((points < 0) | (points > limits)).any(axis=1).sum())
    if n_outside >= MIN_OUTSIDE and n_outside_there < OUTSIDE_RATIO * n_outside:
        return f"{n_outside} points are outside their own image, {n_outside_there} outside that one"
    rarity = _rarity(thumbnails, is_known)
    sigmas = min(_compare_rarity(part, rarity, partner, _partners(order, other), rows) for other in COMPARED_SHIFTS)
    if sigmas > MIN_SIGMAS:
        return f"the distinct parts of that image are nearer to them, by {sigmas:.0f} standard errors"
    return ""


def _partners(order: NDArray[np.int64], shift: int) -> NDArray[np.int64]:
    """Return for each image the one `shift` places further on."""
    partners = np.empty_like(order)
    partners[order] = np.roll(order, -shift)
    return partners


def _rarity(thumbnails: NDArray[np.uint8], is_known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return (I, side, side) in [0, 1]: the rank of each pixel's difference from the median of all images."""
    background = np.median(thumbnails[is_known], axis=0)
    flat = np.abs(thumbnails.astype(np.float32) - background).reshape(len(thumbnails), -1)
    ranks: NDArray[np.float32] = flat.argsort(axis=1).argsort(axis=1).astype(np.float32) / flat.shape[1]
    return ranks.reshape(thumbnails.shape)


def _compare_rarity(
    part: Part,
    rarity: NDArray[np.float32],
    partner: NDArray[np.int64],
    other: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> float:
    """Return by how many standard errors labelled points are rarer in partner images than in others."""
    side = rarity.shape[-1]
    owners = part.owners[rows]
    is_readable = part.sizes[other[owners]].min(axis=1) > 0
    rows, owners = rows[is_readable], owners[is_readable]
    there, elsewhere = (
        rarity[(images, *_cells(part.table.truths.points[rows], part.sizes[images], side))]
        for images in (partner[owners], other[owners])
    )
    labelled, members = np.unique(owners, return_inverse=True)
    sums = np.bincount(members.reshape(-1), weights=there.astype(np.float64) - elsewhere, minlength=len(labelled))
    gains = sums / np.bincount(members.reshape(-1), minlength=len(labelled))
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return float(gains.mean() / error) if error else 0.0


def _cells(points: NDArray[np.float32], sizes: NDArray[np.int64], side: int) -> tuple[NDArray[np.int64], ...]:
    """Return the row and column of points in thumbnails."""
    cells = (points / sizes[:, ::-1] * side).astype(np.int64).clip(0, side - 1)
    return cells[:, 1], cells[:, 0]
