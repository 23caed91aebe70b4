from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from keypoint_detection.data.video import write_video

# As DeepLabCut 2 and 3 write it: the path of an image in three cells; `img1.png` lacks a point.
ONE_ANIMAL = """\
scorer,,,Ann,Ann,Ann,Ann
bodyparts,,,tail,tail,nose,nose
coords,,,x,y,x,y
labeled-data,trial,img0.png,10,20,30.5,5.25
labeled-data,trial,img1.png,,,31,6
"""
# As early versions write it: one cell, with the separators of Windows.
EARLY = """\
scorer,Ann,Ann
bodyparts,nose,nose
coords,x,y
labeled-data\\trial\\img0.png,30,5
"""
SEVERAL = """\
scorer,,,Ann,Ann,Ann,Ann,Ann,Ann
individuals,,,m1,m1,m2,m2,single,single
bodyparts,,,nose,nose,nose,nose,lamp,lamp
coords,,,x,y,x,y,x,y
labeled-data,trial,img0.png,1,2,3,4,70,30
labeled-data,trial,img1.png,,,5,6,,
"""


@pytest.fixture
def project(tmp_path: Path, draw: Callable[..., Path]) -> Callable[[str], Path]:
    def write(table: str) -> Path:
        for name in ("img0.png", "img1.png"):
            draw(f"project/labeled-data/trial/{name}")
        (tmp_path / "project" / "config.yaml").write_text("Task: mouse\nscorer: Ann\nskeleton: [[nose, tail]]\n")
        (tmp_path / "project" / "labeled-data" / "trial" / "CollectedData_Ann.csv").write_text(table)
        return tmp_path / "project"

    return write


def test_integers_of_a_table_name_pixel_centres(project, read):
    labels = read(project(ONE_ANIMAL))
    assert [image.name for image in labels.images] == ["labeled-data/trial/img0.png", "labeled-data/trial/img1.png"]
    (category,) = labels.categories
    assert (category.name, category.keypoints, category.skeleton) == ("mouse", ["tail", "nose"], [(1, 0)])
    (instance,) = labels.images[0].instances
    assert instance.points.tolist() == [[10.5, 20.5], [31.0, 5.75]]
    assert instance.visibility.tolist() == [2, 2]


def test_an_empty_cell_is_a_point_that_is_not_labelled(project, read):
    (instance,) = read(project(ONE_ANIMAL)).images[1].instances
    assert instance.visibility.tolist() == [0, 2]
    assert instance.points.tolist() == [[0, 0], [31.5, 6.5]]


@pytest.mark.parametrize("place", ["", "config.yaml", "labeled-data/trial", "labeled-data/trial/CollectedData_Ann.csv"])
def test_a_project_is_read_from_any_of_its_places(project, read, place):
    assert len(read(project(ONE_ANIMAL) / place).images) == 2


def test_early_tables_keep_the_path_in_one_cell(project, read):
    (image,) = read(project(EARLY)).images
    assert image.instances[0].points.tolist() == [[30.5, 5.5]]


def test_several_animals_are_instances_and_unique_parts_a_category(project, read):
    labels = read(project(SEVERAL))
    assert [(one.name, one.keypoints) for one in labels.categories] == [("mouse", ["nose"]), ("single", ["lamp"])]
    found = [(one.category, one.points.tolist()) for one in labels.images[0].instances]
    assert found == [(0, [[1.5, 2.5]]), (0, [[3.5, 4.5]]), (1, [[70.5, 30.5]])]
    assert [one.points.tolist() for one in labels.images[1].instances] == [[[5.5, 6.5]]]


def test_an_h5_table_stands_for_the_csv_beside_it_and_is_never_opened(project, read):
    folder = project(SEVERAL) / "labeled-data" / "trial"
    (folder / "CollectedData_Ann.h5").write_bytes(b"not even HDF5")
    assert len(read(folder / "CollectedData_Ann.h5").images) == 2
    (folder / "CollectedData_Ann.csv").unlink()
    for source in (folder, folder / "CollectedData_Ann.h5"):
        with pytest.raises(ValueError, match=r"CollectedData_Ann\.h5: the same table as \.csv is expected beside it"):
            read(source)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (ONE_ANIMAL.replace("10,20", "ten,20"), "tail has x = 'ten'; a number is expected"),
        (ONE_ANIMAL.replace("10,20", ",20"), "x = nan and y = 20.0; two numbers or none"),
        (ONE_ANIMAL.replace(",5.25", ""), "row 4 has 6 cells; 7 are expected"),
        (ONE_ANIMAL.replace("img1.png", "img9.png"), "e.g. 'labeled-data/trial/img9.png'"),
        ("scorer,,,a,a\nimage,1,2,3,4\n", "a DeepLabCut table of labels begins with"),
        ("\n".join(ONE_ANIMAL.splitlines()[:3]), "no rows below its header"),
        (EARLY.replace("coords,x,y", "coords,x,likelihood"), "has predictions of a network"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(project, read, table, message):
    source = project(table)
    with pytest.raises(ValueError, match=r"CollectedData_Ann\.csv") as caught:
        read(source)
    assert message in str(caught.value)


def test_the_scorer_of_the_project_decides_between_tables(project, read):
    root = project(ONE_ANIMAL)
    folder = root / "labeled-data" / "trial"
    for name in ("Annwindows", "Bob"):
        (folder / f"CollectedData_{name}.csv").write_text(ONE_ANIMAL.replace("30.5", "40"))
    labels = read(root)
    assert [image.instances[0].points.tolist()[1] for image in labels.images] == [[31.0, 5.75], [31.5, 6.5]]
    assert labels.notes == [
        f"Left out because the scorer of the project is 'Ann': {folder / f'CollectedData_{name}.csv'}."
        for name in ("Annwindows", "Bob")
    ]
    (root / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"img0.png is labelled in .*_Ann.csv and .*_Annwindows.csv. Keep one of them"):
        read(root)


def test_a_copy_of_a_folder_does_not_label_its_images_again(project, read):
    root = project(ONE_ANIMAL)
    copy = root / "labeled-data" / "trial_old"
    copy.mkdir()
    (copy / "CollectedData_Ann.csv").write_text(ONE_ANIMAL)
    with pytest.raises(ValueError, match=r"trial/img0.png is labelled in .*trial/Coll.* and .*trial_old/Coll"):
        read(root)


def test_an_image_with_two_rows_is_refused(project, read):
    with pytest.raises(ValueError, match=r"trial/img1.png is labelled twice in .*CollectedData_Ann.csv"):
        read(project(ONE_ANIMAL + "labeled-data,trial,img1.png,,,35,6\n"))


@pytest.fixture
def without_frames(project) -> Callable[..., Path]:
    def write(*videos: str) -> Path:
        root = project(ONE_ANIMAL)
        for image in (root / "labeled-data" / "trial").glob("*.png"):
            image.unlink()
        for number, video in enumerate(videos):
            (root / video).parent.mkdir(exist_ok=True)
            grey = np.full((48, 64, 3), 100 * number, np.uint8)
            write_video(str(root / "new.mp4"), [grey] * 5, Fraction(25))
            (root / "new.mp4").rename(root / video)
        return root

    return write


def test_frames_are_taken_from_a_video_whose_suffix_is_in_capitals(without_frames, read):
    labels = read(without_frames("videos/trial.MP4"))
    assert [image.read().shape for image in labels.images] == [(48, 64, 3)] * 2


def test_the_project_decides_between_videos_of_one_name(without_frames, read):
    root = without_frames("videos/trial.mp4", "videos/trial.avi")
    with pytest.raises(ValueError, match=r"is a frame of .*trial\.\w+ or of .*trial\.\w+; remove one"):
        read(root)
    with (root / "config.yaml").open("a") as file:
        file.write("video_sets:\n  C:\\project\\videos\\trial.avi: {crop: '0, 64, 0, 48'}\n")
    assert abs(float(read(root).images[0].read().mean()) - 100) < 3


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_table_saved_by_a_spreadsheet_is_read(project, read, separator):
    table = ONE_ANIMAL.replace(",", separator).replace(".5", ",5").replace(".25", ",25")
    labels = read(project(table) / "labeled-data" / "trial" / "CollectedData_Ann.csv")
    assert labels.images[0].instances[0].points.tolist() == [[10.5, 20.5], [31.0, 5.75]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tail,tail,nose,nose", "nose,nose,nose,nose", "its header has the column nose x 2 times"),
        (
            "tail,tail",
            "Unnamed: 3_level_1,Unnamed: 3_level_1",
            "has the column Unnamed: 3_level_1 x, which is not a name",
        ),
    ],
)
def test_columns_of_one_name_or_none_are_refused(project, read, old, new, message):
    with pytest.raises(ValueError, match=message):
        read(project(ONE_ANIMAL.replace(old, new)))


def test_a_folder_whose_images_were_deleted_is_left_out_on_request(project, read):
    root = project(ONE_ANIMAL)
    gone = root / "labeled-data" / "gone"
    gone.mkdir()
    (gone / "CollectedData_Ann.csv").write_text(ONE_ANIMAL.replace("trial", "gone"))
    with pytest.raises(ValueError, match="2 of 2 images are missing"):
        read(root)
    labels = read(root, missing_images="skip")
    assert len(labels.images) == 2
    assert len(labels.notes) == 1


def test_differences_between_the_project_and_its_tables_are_told(project, read):
    root = project(ONE_ANIMAL)
    (root / "labeled-data" / "bare").mkdir()
    (root / "labeled-data" / "trial_labeled").mkdir()
    (root / "config.yaml").write_text("Task: mouse\nscorer: Bob\nbodyparts: [nose, paw]\n")
    table = root / "labeled-data" / "trial" / "CollectedData_Ann.csv"
    assert read(root).notes == [
        f"The scorer of the project is 'Bob', but {table} is read, as its folder has no other table.",
        "Body parts differ: paw only in config.yaml; tail only in the tables. Those of the tables are read.",
        f"Left out: 1 folder without a table, e.g. {root / 'labeled-data' / 'bare'}.",
    ]


def test_frames_of_a_project_that_crops_are_cropped(without_frames, read):
    root = without_frames("videos/trial.mp4")
    with (root / "config.yaml").open("a") as file:
        file.write("cropping: true\nvideo_sets:\n  /there/videos/trial.mp4: {crop: '4, 60, 2, 40'}\n")
    assert [image.read().shape for image in read(root).images] == [(38, 56, 3)] * 2


def test_a_crop_beyond_the_video_is_refused(without_frames, read):
    root = without_frames("videos/trial.mp4")
    with (root / "config.yaml").open("a") as file:
        file.write("cropping: true\nvideo_sets:\n  trial.mp4: {crop: '4, 65, 2, 40'}\n")
    with pytest.raises(ValueError, match=r"its crop \[4, 65, 2, 40\] in config.yaml .* is not inside"):
        read(root).images[0].read()
