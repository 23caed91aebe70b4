"""The code of the page on poses, and how far a pose is from the true one."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAGE = Path(__file__).parents[1] / "docs/how-to/pose.md"
HALF_TURN = np.diag([-1, -1, 1])


def load_find_pose() -> Any:
    """Return the function that the page defines in its first Python block."""
    block = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    namespace: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), namespace)
    return namespace["find_pose"]


def camera_matrix(image: dict[str, Any]) -> NDArray[np.float64]:
    f, (cx, cy) = image["camera"]["focal_px"], image["camera"]["principal"]
    return np.array([[f, 0, cx], [0, f, cy], [0, 0, 1]])


def measure_pose_errors(
    rotation: NDArray[np.float64], centre: NDArray[np.float64], pose: dict[str, Any]
) -> tuple[float, float]:
    """Return the angle to the true rotation in degrees, up to half a turn of the box, and the distance in metres."""
    turns = [rotation.T @ np.array(pose["rotation"]), HALF_TURN @ rotation.T @ np.array(pose["rotation"])]
    angle = min(float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))) for turn in turns)
    return angle, float(np.linalg.norm(centre - pose["translation_m"]))
