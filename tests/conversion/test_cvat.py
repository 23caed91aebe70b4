from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

# After https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/.
DRAWING = (
    '<line x1="1" y1="1" x2="9" y2="9" data-type="edge" data-node-from="1" data-node-to="2"></line>'
    '<circle r="1" cx="1" cy="1" data-type="element node" data-element-id="1" data-node-id="1" data-label-name="nose">'
    '</circle><circle r="1" cx="9" cy="9" data-type="element node" data-node-id="2" data-label-name="tail"></circle>'
)
SKELETONS = f"""\
<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><name>t</name><labels>
    <label><name>tail</name><type>points</type><attributes></attributes><parent>mouse</parent></label>
    <label><name>mouse</name><type>skeleton</type><attributes></attributes>
      <svg>{escape(DRAWING)}</svg></label>
    <label><name>nose</name><type>points</type><attributes></attributes><parent>mouse</parent></label>
  </labels></task></meta>
  <image id="0" name="a/0.png" subset="Train" width="80" height="40">
    <skeleton label="mouse" source="manual" z_order="0">
      <points label="nose" source="manual" outside="0" occluded="0" points="10.25,20.50"></points>
      <points label="tail" source="manual" outside="0" occluded="1" points="30.00,5.00"></points>
    </skeleton>
    <skeleton label="mouse" source="manual" z_order="0">
      <points label="tail" source="manual" outside="1" occluded="0" points="3.00,5.00"></points>
      <points label="nose" source="manual" outside="0" occluded="0" points="11.00,12.00"></points>
    </skeleton>
    <box label="cage" source="manual" occluded="0" xtl="1.0" ytl="1.0" xbr="5.0" ybr="5.0" z_order="0"></box>
  </image>
  <image id="1" name="a/1.png" subset="Validation" width="80" height="40"></image>
  <image id="2" name="a/2.png" subset="Validation" width="80" height="40">
    <skeleton label="mouse"><points label="nose" outside="0" occluded="0" points="1.00,2.00"></points></skeleton>
  </image>
</annotations>
"""
POINTS = """\
<annotations>
  <image id="0" name="a/0.png" width="80" height="40">
    <points label="tail" occluded="0" points="30.00,5.00" group_id="1"></points>
    <points label="nose" occluded="0" points="10.00,20.00" group_id="1"></points>
    <points label="nose" occluded="1" points="50.00,20.00;60.00,21.00"></points>
  </image>
</annotations>
"""


@pytest.fixture
def export(tmp_path: Path, draw: Callable[..., Path]) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        for name in ("a/0.png", "a/1.png", "a/2.png"):
            draw(f"images/{name}")
        path = tmp_path / "annotations.xml"
        path.write_text(text)
        return path

    return write


def test_skeletons_are_instances_with_their_flags(export, read):
    labels = read(export(SKELETONS))
    (mouse,) = labels.categories
    assert (mouse.name, mouse.keypoints, mouse.skeleton) == ("mouse", ["tail", "nose"], [(1, 0)])
    one, other = labels.images[0].instances
    assert one.points.tolist() == [[30.0, 5.0], [10.25, 20.5]]
    assert one.visibility.tolist() == [1, 2]
    assert other.points.tolist() == [[0.0, 0.0], [11.0, 12.0]]
    assert other.visibility.tolist() == [0, 2]


def test_subsets_are_parts_and_images_without_shapes_are_kept(export, read):
    labels = read(export(SKELETONS))
    assert [(image.name, image.split, len(image.instances)) for image in labels.images] == [
        ("a/0.png", "train", 2),
        ("a/1.png", "val", 0),
        ("a/2.png", "val", 1),
    ]


def test_shapes_that_are_left_out_are_told(export, read):
    assert read(export(SKELETONS)).notes == ["Shapes of the kind 'box' are left out: 1."]


def test_the_folder_of_an_export_is_read(export, read):
    assert len(read(export(SKELETONS).parent).images) == 3


def test_single_points_are_gathered_by_their_group(export, read):
    labels = read(export(POINTS))
    (category,) = labels.categories
    assert (category.name, category.keypoints) == ("object", ["tail", "nose"])
    found = [(one.points.tolist(), one.visibility.tolist()) for one in labels.images[0].instances]
    assert found == [
        ([[30.0, 5.0], [10.0, 20.0]], [2, 2]),
        ([[0.0, 0.0], [50.0, 20.0]], [0, 1]),
        ([[0.0, 0.0], [60.0, 21.0]], [0, 1]),
    ]


def test_the_order_of_single_points_can_be_said(export, read):
    (category,) = read(export(POINTS), keypoints=["nose", "tail"]).categories
    assert category.keypoints == ["nose", "tail"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SKELETONS[:900], "not valid XML"),
        ("<html></html>", "begins with <html>"),
        ("<annotations><track id='0'></track></annotations>", "export it again as 'CVAT for images 1.1'"),
        ("<annotations></annotations>", "has no <image>"),
        (SKELETONS.replace("10.25,20.50", "10.25"), "'nose' has points='10.25'; 'x,y' is expected"),
        (SKELETONS.replace('height="40"', 'height="41"'), "the labels are for 41x80 .* has 40x80"),
        (SKELETONS.replace("a/1.png", "a/9.png"), "1 of 3 images is missing in .* e.g. 'a/9.png'"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(export, read, text, message):
    source = export(text)
    with pytest.raises(ValueError, match=message):
        read(source)


def test_a_skeleton_that_nobody_gave_points_is_left_out(export, read):
    empty = '<skeleton label="rat" source="manual" z_order="0"></skeleton>'
    labels = read(export(SKELETONS.replace("<box", f"{empty}<box")))
    assert [one.name for one in labels.categories] == ["mouse"]
    assert len(labels.images[0].instances) == 2


SUBSETS = """\
<annotations>
  <image id="0" name="0.png" subset="Train" task_id="1" width="80" height="40">
    <points label="nose" occluded="0" points="10,10"/></image>
  <image id="1" name="0.png" subset="Validation" task_id="2" width="80" height="40">
    <points label="nose" occluded="0" points="50,30"/></image>
</annotations>
"""


def test_the_images_of_each_subset_of_a_project_are_in_its_folder(draw, read, tmp_path):
    paths = [draw(f"images/{subset}/0.png") for subset in ("Train", "Validation")]
    (tmp_path / "annotations.xml").write_text(SUBSETS)
    labels = read(tmp_path)
    found = [(image.path, image.name, image.split, image.instances[0].points.tolist()) for image in labels.images]
    assert found == [
        (paths[0], "Train/0.png", "train", [[10.0, 10.0]]),
        (paths[1], "Validation/0.png", "val", [[50.0, 30.0]]),
    ]


@pytest.mark.parametrize("subsets", [("Train", "Validation"), ("Train", "Train")])
def test_images_of_one_name_in_two_subsets_or_tasks_never_share_a_file(draw, read, tmp_path, subsets):
    draw("images/Train/0.png")
    (tmp_path / "annotations.xml").write_text(SUBSETS.replace("Validation", subsets[1]))
    with pytest.raises(
        ValueError, match=r"'2/\w+/0.png' and '1/Train/0.png' are two images in the labels, but both lead to"
    ):
        read(tmp_path, image_root=tmp_path / "images" / "Train")


def test_images_without_a_subset_may_be_in_the_default_folder(draw, read, tmp_path):
    path = draw("images/default/a/0.png")
    (tmp_path / "annotations.xml").write_text(POINTS)
    assert [image.path for image in read(tmp_path).images] == [path]


def test_the_images_of_each_task_may_be_in_a_folder_of_its_id(draw, read, tmp_path):
    draw("0.png")
    (tmp_path / "annotations.xml").write_text(SUBSETS.replace("Validation", "Train"))
    with pytest.raises(ValueError, match=r"Put the images of each task in a folder named after its id"):
        read(tmp_path)
    paths = [draw("1/0.png"), draw("2/0.png")]
    assert [image.path for image in read(tmp_path).images] == paths
