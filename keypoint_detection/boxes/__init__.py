"""Seeded, procedurally drawn images of cardboard boxes, written as a COCO keypoint data set."""
