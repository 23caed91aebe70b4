"""SLEAP label files: .slp, and .pkg.slp with the images inside; read and written with sleap-io.

Coordinates name pixels: SLEAP has had the centre of the top-left pixel at (0, 0) since version 1.1 of its format, and
sleap-io converts older files. A point marked "not visible" has an arbitrary position, and SLEAP does not train on it:
it is read as not labelled, except in files written by kpd, where it is an occluded point (v=1).

Only labels made by people are read, not predictions. sleap-io's own COCO writer is not used: it does not support
occluded points, writes 0x0 as the size of videos that it cannot open, and does not preserve image folders.
"""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.conversion.frames import VideoFrames
from keypoint_detection.conversion.image_finder import ImageFinder, tidy_name
from keypoint_detection.conversion.label_set import (
    Category,
    Format,
    Instance,
    LabelledImage,
    LabelSet,
    Reading,
    make_instance,
)
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.image_bounds import allow_outside
from keypoint_detection.data.problems import Problems
from keypoint_detection.data.video import VIDEO_SUFFIXES
from keypoint_detection.extras import how_to_install
from keypoint_detection.types import OCCLUDED, VISIBLE, DataError

# In the provenance of files written here: the meaning of points that are not visible.
INVISIBLE_KEY, OCCLUDED_MARK = "kpd_invisible_points", "occluded"
SUFFIX = ".slp"


def _import_sleap_io(path: Path) -> Any:
    try:
        import sleap_io
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: SLEAP files need sleap-io: {how_to_install('convert')}.") from error
    return sleap_io


def read(source: Path, reading: Reading) -> LabelSet:
    """Read the labels made by people in a SLEAP file.

    Raises:
        DataError: it is not such a file, contains no labels, or images and videos are missing.
    """
    content = _load(source)
    problems = Problems()
    videos = _list_labelled_videos(content, source)
    names = [
        [str(name)]
        for video in videos
        for name in (video.filename if isinstance(video.filename, list) else [video.filename])
    ]
    bounds = reading.bound_images(source, dict(content.provenance))
    finder = ImageFinder([source.parent], names, bounds, reading, problems)
    groups = _name_videos(videos)
    sources = {id(video): _open(video, group, finder, problems) for video, group in zip(videos, groups, strict=True)}
    problems.raise_if_any(source)
    skeletons = {id(one): index for index, one in enumerate(content.skeletons)}
    invisible = OCCLUDED if content.provenance.get(INVISIBLE_KEY) == OCCLUDED_MARK else 0
    images: dict[tuple[str, str], LabelledImage] = {}
    n_invisible = n_predicted = 0
    for frame in content.labeled_frames:
        if not frame.user_instances and not frame.is_negative:
            n_predicted += bool(frame.instances)
            continue
        image = sources[id(frame.video)](int(frame.frame_idx))
        if image is None:
            continue
        image = images.setdefault((str(image.path or id(frame.video)), image.name), image)
        for one in frame.user_instances:
            instance, n_dropped = _read_instance(one, skeletons[id(one.skeleton)], invisible)
            n_invisible += n_dropped
            image.instances.append(instance)
    notes = finder.conclude()
    problems.raise_if_any(source)
    if not images:
        raise DataError(f"{source}: no frame has labels made by a person; predictions are not read.")
    notes += [f"Left out: {count_in_words(n_predicted, 'frame')} with predictions only."] if n_predicted else []
    if n_invisible:
        marked = count_in_words(n_invisible, "point that is", "points that are")
        notes.append(f"Read as not labelled, as SLEAP does: {marked} marked as not visible.")
    categories = [
        Category(one.name or f"skeleton{index}", list(one.node_names), [(a, b) for a, b in one.edge_inds])
        for index, one in enumerate(content.skeletons)
    ]
    return LabelSet(categories, list(images.values()), notes)


def _load(source: Path) -> Any:
    try:
        # Only files that this package has found on disk are opened: the labels could name any address.
        return _import_sleap_io(source).load_slp(str(source), open_videos=False)
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{source}: cannot be read as a SLEAP file ({error}).") from error


def _list_labelled_videos(content: Any, source: Path) -> list[Any]:
    """List the videos with labels; the others need not exist."""
    labelled = {id(one.video) for one in content.labeled_frames if one.user_instances or one.is_negative}
    videos = [video for video in content.videos if id(video) in labelled]
    for video in videos:
        if not isinstance(video.filename, list) and os.path.realpath(video.filename) == os.path.realpath(source):
            video.filename = os.path.abspath(source)  # its images are inside
    return videos


def _read_instance(one: Any, category: int, invisible: int) -> tuple[Instance, int]:
    """Return an instance and the number of points that count as not labelled because they are not visible."""
    points: NDArray[np.float64] = one.points["xy"]
    is_placed = np.isfinite(points).all(axis=1)
    is_visible = one.points["visible"].astype(bool)
    instance = make_instance(category, len(points))
    instance.visibility[:] = np.where(is_placed, np.where(is_visible, VISIBLE, invisible), 0)
    instance.points[instance.is_labelled] = points[instance.is_labelled]
    return instance, int((is_placed & ~is_visible).sum()) if not invisible else 0


def _name_videos(videos: list[Any]) -> list[str]:
    """Name each video by as many parent folders as it takes to distinguish it; a list of images by its folder."""
    parts, paths = [], []
    for number, video in enumerate(videos):
        original = video if video.original_video is None else video.original_video
        name = original.filename if isinstance(original.filename, str) else _common_folder(list(original.filename))
        is_unknown = original is video and not isinstance(video.filename, list) and name.endswith(SUFFIX)
        path = PurePosixPath(f"video{number}" if is_unknown else tidy_name(str(name)) or f"video{number}")
        paths.append(path)
    for video, path in zip(videos, paths, strict=True):
        is_only = not any(path.stem == other.stem and path.name != other.name for other in paths)
        path = path.with_suffix("") if path.suffix.lower() in VIDEO_SUFFIXES and is_only else path
        # A video may be labelled in several windows.
        crop = "".join(f"_{side}" for side in _read_crop(video) or ())
        parts.append(path.with_name(path.name + crop).parts)
    names = []
    for own in parts:
        others = [one for one in parts if one != own]
        lengths = (n for n in range(1, len(own)) if all(one[-n:] != own[-n:] for one in others))
        names.append("/".join(own[-next(lengths, len(own)) :]))
    return names


def _open(video: Any, group: str, finder: ImageFinder, problems: Problems) -> Callable[[int], LabelledImage | None]:
    """Return a function that maps a frame number to its image, without instances."""
    if isinstance(video.filename, list):
        names = [str(name) for name in video.filename]

        def find(number: int) -> LabelledImage | None:
            if not 0 <= number < len(names):
                problems.add("frame", f"frame {number} is labelled; its video has {len(names)} images.")
                return None
            image = finder.find([names[number]])
            if image is not None:
                image.group = group
            return image

        return find
    if Path(str(video.filename)).suffix.lower() in VIDEO_SUFFIXES:
        path = finder.find_file([str(video.filename)])
        return (lambda number: None) if path is None else _give_frames(VideoFrames(path), group, _read_crop(video))
    opened = _open_embedded(video, finder, problems)
    return _give_frames(video, group, None) if opened else lambda number: None


def _open_embedded(video: Any, finder: ImageFinder, problems: Problems) -> bool:
    """Open a video whose images are inside the file, or inside another file in its folder."""
    path = finder.find_file([str(video.filename)], str(video.filename))
    try:
        if path is not None:
            video.replace_filename(str(path), open=True)
    # sleap-io and h5py raise errors of any class on broken files.
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError):
        pass
    if path is not None and video.backend is None:
        problems.add("missing images", f"{video.filename}: cannot be opened, and its images are not inside the file.")
    return path is not None and video.backend is not None


def _read_crop(video: Any) -> list[int] | None:
    """Return the labelled window of a video, (left, top, right, bottom) in pixels; None for all of it."""
    crop = video.backend_metadata.get("crop")
    return None if crop is None else [int(side) for side in crop]


def _give_frames(frames: Any, group: str, crop: list[int] | None) -> Callable[[int], LabelledImage | None]:
    def read(number: int) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = np.asarray(frames[number])
        if crop is not None:
            left, top, right, bottom = crop
            if left < 0 or top < 0 or right > pixels.shape[1] or bottom > pixels.shape[0]:
                raise DataError(f"{group}: its window {crop} reaches beyond the video; label it without a window.")
            pixels = pixels[top:bottom, left:right]
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels

    # Six digits are enough to sort the frames of two hours.
    return lambda number: LabelledImage(
        f"{group}/{number:06d}.png", (0, 0), None, read=lambda: read(number), group=group
    )


def _common_folder(names: list[str]) -> str:
    return PurePosixPath(names[0].replace("\\", "/")).parent.as_posix()


def write(labels: LabelSet, path: Path) -> list[str]:
    """Write a SLEAP file; one whose name ends in .pkg.slp contains the images, any other refers to their files.

    Returns:
        Notes on what the file does not contain.

    Raises:
        DataError: sleap-io is not installed.
    """
    sio = _import_sleap_io(path)
    skeletons = [
        sio.Skeleton(nodes=[sio.Node(name) for name in one.keypoints], edges=list(one.skeleton), name=one.name)
        for one in labels.categories
    ]
    # SLEAP expects all images of a list to have the same size.
    folders: dict[tuple[Path, tuple[int, int]], list[LabelledImage]] = {}
    for image in labels.images:
        assert image.path is not None
        folders.setdefault((image.path.absolute().parent, image.size), []).append(image)
    frames = []
    for images in folders.values():
        video = sio.Video.from_filename([str(image.path.absolute()) for image in images if image.path])
        for number, image in enumerate(images):
            instances = [_make_sleap_instance(sio, one, skeletons[one.category]) for one in image.instances]
            instances = [one for one in instances if one is not None]
            frames.append(
                sio.LabeledFrame(video=video, frame_idx=number, instances=instances, is_negative=not instances)
            )
    content = sio.Labels(frames, skeletons=skeletons)
    content.provenance |= {INVISIBLE_KEY: OCCLUDED_MARK, **allow_outside(path)}
    path.parent.mkdir(parents=True, exist_ok=True)
    sio.save_slp(content, str(path), embed="all" if path.name.endswith(".pkg.slp") else False, verbose=False)
    return []


def _make_sleap_instance(sio: Any, instance: Instance, skeleton: Any) -> Any:
    if not instance.is_labelled.any():
        return None
    points = np.where(instance.is_labelled[:, None], instance.points, np.nan)
    made = sio.Instance.from_numpy(points, skeleton=skeleton)
    made.points["visible"] = instance.visibility == VISIBLE
    return made


SLEAP = Format(
    title="SLEAP",
    coordinates="pixel_index",
    recognises=lambda source: source.suffix == SUFFIX,
    read=read,
    write=write,
    source_suffix=SUFFIX,
    output_suffix=SUFFIX,
    parts="files",
)
