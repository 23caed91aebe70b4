"""From COCO keypoint files and images to batches."""
