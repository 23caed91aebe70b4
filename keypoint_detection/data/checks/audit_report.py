"""The report of a check: text for people, JSON for programs."""

from collections import Counter
from typing import Any

import numpy as np

from keypoint_detection.counting import count_in_words
from keypoint_detection.data.checks.audit import Audit
from keypoint_detection.data.checks.findings import Finding
from keypoint_detection.data.checks.parts import Part
from keypoint_detection.data.checks.sizes import measure_sizes

N_EXAMPLES_TEXT = 3
N_EXAMPLES_JSON = 100
HEADINGS = {"error": "Errors", "warning": "Warnings", "note": "Notes"}
INDENT = " " * 9


def format_audit(audit: Audit) -> str:
    """Write the parts, then the findings of each level with their first examples."""
    lines = [_describe_part(part) for part in audit.parts]
    for level, heading in HEADINGS.items():
        findings = [finding for finding in audit.findings if finding.level == level]
        if findings:
            lines += ["", heading]
        for finding in findings:
            lines += _format_finding(finding)
    counts = Counter(finding.level for finding in audit.findings)
    if not counts["error"] and not counts["warning"]:
        return "\n".join([*lines, "", "No errors, no warnings."]) + "\n"
    total = ", ".join(count_in_words(counts[level], level) for level in ("error", "warning"))
    return "\n".join([*lines, "", f"Found {total}."]) + "\n"


def describe_audit(audit: Audit) -> dict[str, Any]:
    """Return the whole report as JSON values."""
    return {
        "findings": [finding.as_dict(N_EXAMPLES_JSON) for finding in audit.findings],
        "parts": [
            {
                "name": part.name,
                "file": str(part.path),
                "images": len(part.sizes),
                "images_without_points": _count_empty(part),
                "points": {
                    name: int(count) for name, count in zip(part.channels, part.in_channels.sum(axis=0), strict=True)
                },
                "sizes": measure_sizes(part).as_dict(),
            }
            for part in audit.parts
        ],
    }


def _describe_part(part: Part) -> str:
    counts = part.in_channels.sum(axis=0)
    name = f"{part.name}: " if part.name else ""
    empty = _count_empty(part)
    numbers = [count_in_words(len(part.sizes), "image"), count_in_words(int(counts.sum()), "point")]
    text = f"{name}{part.path}: {', '.join(numbers)} in {count_in_words(len(part.channels), 'channel')}"
    if len(counts):
        text += f" ({counts.min()} to {counts.max()} each)"
    return text + (f", {count_in_words(empty, 'image')} without points" if empty else "")


def _count_empty(part: Part) -> int:
    return len(part.sizes) - len(np.unique(part.owners[part.in_channels.any(axis=1)]))


def _format_finding(finding: Finding) -> list[str]:
    lines = [f"{finding.count:>7}  {finding.summary}", f"{INDENT}[{finding.kind}] {finding.source}"]
    lines += [f"{INDENT}- {example}" for example in finding.examples[:N_EXAMPLES_TEXT]]
    n_more = finding.count - N_EXAMPLES_TEXT
    return [*lines, f"{INDENT}… and {n_more} more"] if finding.examples and n_more > 0 else lines
