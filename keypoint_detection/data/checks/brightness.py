"""Find images that are nearly black, as 12-bit values in 16-bit files are."""

import numpy as np

from keypoint_detection.counting import agree
from keypoint_detection.data.checks.findings import Finding
from keypoint_detection.data.checks.likeness import ScannedPart

# Of 255. Twelve bits in a 16-bit file reach 15; even photographs in the dark have brighter spots than this.
NEARLY_BLACK = 24


def check_brightness(seen: ScannedPart) -> list[Finding]:
    """Find images without a single bright spot in their thumbnail."""
    brightest = seen.thumbnails.max(axis=(1, 2))
    rows = np.flatnonzero(brightest < NEARLY_BLACK).tolist()
    if not rows:
        return []
    text = agree(len(rows), "image is nearly black. If it has", "images are nearly black. If they have")
    text += " 16 bits of which fewer are used, as many cameras write them, scale the values to the full range."
    examples = tuple(f"{seen.describe(row)}: at most {brightest[row]} of 255" for row in rows)
    return [Finding("warning", "nearly_black", str(seen.part.path), len(rows), text, examples)]
