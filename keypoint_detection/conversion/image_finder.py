"""Find the images that labels name: moved data sets are found again, but two names never lead to one file."""

import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from keypoint_detection.conversion.label_set import LabelledImage, Reading
from keypoint_detection.counting import agree, count_in_words
from keypoint_detection.data.checks.missing import advise_on_missing
from keypoint_detection.data.coco_images import UNICODE_FORMS
from keypoint_detection.data.image_bounds import ImageBounds
from keypoint_detection.data.image_files import describe_difference
from keypoint_detection.data.problems import Problems
from keypoint_detection.data.video import VIDEO_SUFFIXES
from keypoint_detection.images import IMAGE_SUFFIXES, ImageError, read_sizes

N_EXAMPLES = 3
N_FOLDERS = 2


def tidy_name(name: str) -> str:
    r"""Return a name as a relative path with forward slashes that stays below its folder.

    >>> tidy_name("C:\\data\\a b.png"), tidy_name("../frames/./1.png"), tidy_name("/x/1.png")
    ('data/a b.png', 'frames/1.png', 'x/1.png')
    """
    plain = re.sub(r"^[A-Za-z]:", "", name.replace("\\", "/"))
    return "/".join(part for part in PurePosixPath(plain).parts if part not in ("/", "//", "..", "."))


def identify(name: str) -> str:
    r"""Normalise the spelling of a name, keeping the drive and the parent folders that distinguish it from others.

    >>> identify("C:\\data\\a.png"), identify("./frames/1.png"), identify("../1.png")
    ('C:/data/a.png', 'frames/1.png', '../1.png')
    """
    return posixpath.normpath(name.replace("\\", "/"))


class _Place(NamedTuple):
    """Where a name leads, how many of its leading folders are left out to get there, and how many parts are kept."""

    path: Path
    n_dropped: int
    n_kept: int


class ImageFinder:
    """Finds the images of a label file, and collects those that are missing.

    If not a single name exists as written, the data set has been moved: names are then tried without their leading
    folders, with the same number dropped for all. A name that does not fit this pattern counts as missing, so that no
    other image is used in its place.

    Args:
        roots: folders in which to look if the user gives none, the most likely first.
        wanted: all names in the labels; each is a sequence of names that the file could have, the most likely first.
        bounds: determines which files may be read.
        reading: the user's options.
        problems: collects the problems.
        reached: the source of each file found; shared by the finders of several files.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        wanted: Iterable[Sequence[str]],
        bounds: ImageBounds,
        reading: Reading,
        problems: Problems,
        reached: dict[str, str] | None = None,
    ) -> None:
        roots = [reading.image_root] if reading.image_root else roots
        self.roots = list({os.path.abspath(root): root for root in reversed(roots)}.values())[::-1]
        self.bounds = bounds
        self.reading = reading
        self.problems = problems
        self.advice = "Give --image_root the folder above the folders in their names."
        self._reached = {} if reached is None else reached
        self._listings: dict[Path, dict[str, list[Path]]] = {}
        self._missing: dict[str, None] = {}
        self._read: set[Path] = set()
        self._repeated: dict[str, None] = {}
        self._n_found = 0
        self._places = self._look_for_all({tuple(names) for names in wanted})

    def find(
        self, names: Sequence[str], stated_size: tuple[Any, Any] = (None, None), source: str = ""
    ) -> LabelledImage | None:
        """Find an image by the names that it could have, and read its size.

        Args:
            names: paths relative to one of the folders, the most likely first; one of those `wanted`.
            stated_size: (height, width) in pixels, if the labels give it.
            source: distinguishes equal names; by default, the first name.

        Returns:
            The image; None if it is missing or unusable, which is recorded.
        """
        path = self.find_file(names, source)
        if path is None:
            return None
        if path in self._read:
            self._repeated[names[0]] = None
        self._read.add(path)
        try:
            sizes = read_sizes(str(path))
        except ImageError as error:
            self.problems.add("unreadable image", str(error))
            return None
        labelled = tuple(int(side) for side in stated_size if str(side or "").isdecimal())
        if len(labelled) == len(sizes.shown) and all(labelled) and labelled != sizes.shown:
            self.problems.add("size", describe_difference(f"{names[0]!r:.120}", str(path), labelled, sizes))
        return LabelledImage(tidy_name(names[0]), sizes.shown, path)

    def find_file(self, names: Sequence[str], source: str = "") -> Path | None:
        """Find a file, such as a video; see `find`."""
        path = self.look_for(names)
        source = source or identify(names[0])
        if path is None:
            self._missing[names[0]] = None
            return None
        if not self.bounds.encloses(path):
            self.problems.add("outside", self.bounds.describe_outside(str(path)))
            return None
        other = self._reached.setdefault(os.path.abspath(path), source)
        if other != source:
            kind = "video" if path.suffix.lower() in VIDEO_SUFFIXES else "image"
            self.problems.add(
                "two names",
                f"{source!r:.120} and {other!r:.120} are two {kind}s in the labels, but both lead to the same file, "
                f"{path}. {self.advice}",
            )
            return None
        self._n_found += 1
        return path

    def look_for(self, names: Sequence[str]) -> Path | None:
        """Find a file without recording anything."""
        return self._places.get(tuple(names))

    def conclude(self, *, has_others: bool = False) -> list[str]:
        """Record the missing images as one problem, or return a note about them if they are to be skipped.

        Args:
            has_others: whether there are images that this finder has not found.
        """
        notes = []
        if self._repeated:
            count, example = count_in_words(len(self._repeated), "image"), next(iter(self._repeated))
            notes = [f"Named more than once, each time with its own labels: {count}, e.g. {example!r:.120}."]
        if not self._missing:
            return notes
        missing = list(self._missing)
        listed = ", ".join(f"{name!r:.120}" for name in missing[:N_EXAMPLES])
        if self.reading.missing_images == "skip" and (self._n_found or has_others):
            return [*notes, f"Left out: {count_in_words(len(missing), 'missing image')}, e.g. {listed}."]
        looked = " or ".join(map(str, self.roots[:N_FOLDERS]))
        kind = "video" if all(Path(name).suffix.lower() in VIDEO_SUFFIXES for name in missing) else "image"
        n_images = len(missing) + self._n_found
        advice = advise_on_missing(missing, n_images, self.roots[0], None)
        if n_images == 1:
            text = f"the only {kind} is missing in {looked}: {listed}."
        else:
            text = f"{len(missing)} of {n_images} {kind}s {agree(len(missing), 'is', 'are')} missing in {looked}"
            text += f", e.g. {listed}."
        self.problems.add("missing image", f"{text} {advice}")
        return notes

    def _look_for_all(self, wanted: set[tuple[str, ...]]) -> dict[tuple[str, ...], Path]:
        places = {names: place for names in wanted if (place := self._look_for(names)) is not None}
        fewest = min((place.n_dropped for place in places.values()), default=0)
        is_flat = fewest > 0 and all(place.n_kept == 1 for place in places.values())
        return {names: place.path for names, place in places.items() if is_flat or place.n_dropped == fewest}

    def _look_for(self, names: Sequence[str]) -> _Place | None:
        place = self._look_for_exactly(names)
        if place is not None or all(name.isascii() for name in names):
            return place
        found = [
            self._look_for_exactly([unicodedata.normalize(form, name) for name in names]) for form in UNICODE_FORMS
        ]
        places = {place.path: place for place in found if place is not None}
        return next(iter(places.values())) if len(places) == 1 else None

    def _look_for_exactly(self, names: Sequence[str]) -> _Place | None:
        for name in names:
            for root in self.roots:
                path = self._as_file(root / name) or self._as_file(root / name.replace("\\", "/"))
                if path is not None:
                    return _Place(path, 0, len(tidy_name(name).split("/")))
        for name in names:
            parts = tidy_name(name).split("/")
            n_cut = len(PurePosixPath(name.replace("\\", "/")).parts) - len(parts)
            for start in range(len(parts)):
                for root in self.roots:
                    path = self._as_file(root.joinpath(*parts[start:]))
                    if path is not None:
                        return _Place(path, n_cut + start, len(parts) - start)
        return None

    def _as_file(self, path: Path) -> Path | None:
        """Return a file; the frames of videos are labelled by names without a suffix, which is then added."""
        if path.is_file():
            return path
        if path.suffix.lower() in IMAGE_SUFFIXES or not path.name:
            return None
        folder = path.parent
        if folder not in self._listings:
            stems: dict[str, list[Path]] = {}
            for file in sorted(folder.iterdir()) if folder.is_dir() else []:
                if file.suffix.lower() in IMAGE_SUFFIXES:
                    stems.setdefault(file.stem, []).append(file)
            self._listings[folder] = stems
        found = self._listings[folder].get(path.name, [])
        return found[0] if len(found) == 1 else None
