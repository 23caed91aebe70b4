"""Run the command line with `python -m keypoint_detection`."""

from keypoint_detection.cli import main

main()
