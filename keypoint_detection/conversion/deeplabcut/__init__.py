"""Label tables of DeepLabCut: CollectedData_*.csv, of one or several animals.

The columns have a header of several rows: scorer, bodyparts and coords, with individuals between the first two if
there are several animals. Body parts that occur only once in an image are under the individual `single`. Each row
begins with the image: `labeled-data/VIDEO/img0001.png` in one cell or in three. An unlabelled point is empty.

Coordinates name pixels: DeepLabCut's labelling tools (napari, matplotlib) show the centre of the top-left pixel at (0,
0). There is no visibility: labelled points are read as visible.

https://deeplabcut.github.io/DeepLabCut/docs/convert_maDLC.html. sleap-io reads such tables too, but silently leaves out
rows whose image is missing, and sorts the body parts of a project by name.
"""

from pathlib import Path

from keypoint_detection.conversion.deeplabcut.reading import read
from keypoint_detection.conversion.deeplabcut.tables import IMAGE_FOLDER, is_deeplabcut
from keypoint_detection.conversion.deeplabcut.writing import write
from keypoint_detection.conversion.label_set import Format

DEEPLABCUT = Format(
    title="DeepLabCut",
    coordinates="pixel_index",
    recognises=is_deeplabcut,
    read=read,
    write=write,
    has_occluded=False,
    image_folder=IMAGE_FOLDER,
    # One folder for each video, without subfolders.
    place_image=lambda split, parts: Path("_".join(parts[:-1]) or "images", parts[-1]),
)
