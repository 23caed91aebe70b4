from collections.abc import Callable
from pathlib import Path

import pytest

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
        (ONE_ANIMAL.replace("img1.png", "img9.png"), "there is no image 'labeled-data/trial/img9.png'"),
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
