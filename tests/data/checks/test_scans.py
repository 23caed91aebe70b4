"""Images are read alike by threads and by processes."""

import pytest
from data.checks.sets import draw, write_set

from keypoint_detection.data.checks import scans
from keypoint_detection.data.checks.scans import scan_images
from keypoint_detection.images import ImageError, scan_image


@pytest.mark.parametrize("n_worth_processes", [1, 100])
def test_all_images_are_read_in_their_order(tmp_path, monkeypatch, n_worth_processes):
    monkeypatch.setattr(scans, "N_WORTH_PROCESSES", n_worth_processes)
    names = [f"{number}.png" for number in range(20)]
    write_set(tmp_path, {name: draw(number) for number, name in enumerate(names)})
    (tmp_path / "7.png").write_bytes((tmp_path / "7.png").read_bytes()[:-40])
    paths = [str(tmp_path / name) for name in names]
    found = list(scan_images(paths))
    assert len(found) == 20
    assert isinstance(found[7], ImageError)
    assert "7.png" in str(found[7])
    for index in {*range(20)} - {7}:
        alone = scan_image(paths[index], scans.THUMBNAIL_SIDE_PX)
        assert found[index].digest == alone.digest
        assert (found[index].thumbnail == alone.thumbnail).all()


def test_no_images_are_read_at_once():
    assert list(scan_images([])) == []
