"""Labels of other programs to COCO keypoints and back, one module per format."""
