"""From COCO keypoint files and pictures to batches."""
