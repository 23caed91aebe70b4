"""Blobs whose centre is known, and where images say it is."""

import numpy as np
import torch


def disc_image(x: float, y: float, size=(96, 128), radius=6.0) -> torch.Tensor:
    """A smooth white blob on black with its centre of mass at continuous (x, y)."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    blob = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
    return torch.from_numpy(blob.astype(np.uint8)).expand(3, -1, -1).contiguous()


def centre_of_mass(image: torch.Tensor) -> list[float]:
    weights = image[0].double()
    weights = (weights - weights.min()).clamp(min=20) - 20  # grey bars and rounding carry no weight
    rows, columns = torch.meshgrid(
        torch.arange(len(weights)) + 0.5, torch.arange(weights.shape[1]) + 0.5, indexing="ij"
    )
    return [float((weights * axis).sum() / weights.sum()) for axis in (columns, rows)]
