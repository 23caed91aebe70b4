"""Label Studio: its JSON export (not JSON-MIN), and pre-annotations to import.

Keypoints are `keypointlabels`, objects `rectanglelabels` whose label is the category. A keypoint belongs to the
rectangle that is its parent (`parentID`), that it has a relation to, or, failing both, to the only rectangle around it.
Without rectangles, the n-th point of every label belongs to the n-th object, whose category is `object`. A point whose
region has a choice or a text like "occluded" has v=1, others v=2. Coordinates are percentages of the image's width and
height, hence continuous.

A task can have several images: `to_name` names the object tag that a region is on, which shows one entry of `data`, and
`item_index` the page if that is a list.

The order of the keypoints is that of `label_config.xml` beside the export, if there is one, otherwise that of
`--keypoints`, otherwise the order in which they first appear.

https://labelstud.io/guide/task_format. sleap-io reads only tasks made from its own videos, and returns the keypoints in
an order that changes with every run.
"""

from keypoint_detection.conversion.label_set import Format
from keypoint_detection.conversion.label_studio.reading import is_label_studio, read
from keypoint_detection.conversion.label_studio.writing import write

LABEL_STUDIO = Format(
    title="Label Studio",
    coordinates="continuous",
    recognises=lambda source: False,
    recognises_json=is_label_studio,
    read=read,
    write=write,
    source_suffix=".json",
    skeletons="none",
    has_equal_names=False,
    image_folder="images",
)
