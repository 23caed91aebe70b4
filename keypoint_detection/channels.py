"""Channel mappings: which keypoint types each output heatmap collects."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keypoint_detection.types import DataError


class KeypointType(NamedTuple):
    """A keypoint of a category.

    Attributes:
        category: the name of the category.
        name: the name of the keypoint.
        is_unique: whether no other category has a keypoint of that name.
    """

    category: str
    name: str
    is_unique: bool = False

    def answers_to(self, text: str) -> bool:
        """Whether a channel or a pair refers to this type by `name`, by its plain name or as `category/name`.

        >>> KeypointType("person", "nose").answers_to("nose"), KeypointType("person", "nose").answers_to("dog/nose")
        (True, False)
        """
        return text in (self.name, f"{self.category}/{self.name}")

    def __str__(self) -> str:
        """Include the category if the name alone is ambiguous."""
        return self.name if self.is_unique else f"{self.category}/{self.name}"


def complete_channels(channels: Mapping[str, list[str]] | list[str] | None) -> dict[str, list[str]]:
    """Expand the channels to their full form: every name with its list of types."""
    advice = "Give e.g. {corner: [corner0, corner1]} or a list of keypoint types."
    if not channels:
        raise ValueError(f"model.channels is {channels!r}; at least one channel is expected. {advice}")
    if not isinstance(channels, Mapping):
        repeated = sorted({name for name in channels if channels.count(name) > 1})
        if repeated:
            raise ValueError(f"model.channels names {', '.join(map(repr, repeated))} more than once. {advice}")
        return {name: [name] for name in channels}
    for name, types in channels.items():
        if not name or not types:
            raise ValueError(
                f"model.channels: channel {name!r} collects {types!r}; at least one type is expected. {advice}"
            )
    return {name: list(types) for name, types in channels.items()}


def resolve_channels(
    channels: Mapping[str, list[str]] | Sequence[str] | None, keypoint_types: Sequence[KeypointType], source: str | Path
) -> dict[str, list[str]]:
    """Complete and check a channel mapping against the keypoint types of a file.

    Args:
        channels: channel name to the keypoint types it collects; a list means one channel per type; None means one
            channel for each keypoint name in the file.
        keypoint_types: the types in the file.
        source: path of the file, for the error message.

    Raises:
        DataError: a channel names a type that is not in the file.

    >>> resolve_channels(["nose"], [KeypointType("mouse", "nose"), KeypointType("mouse", "tail")], "mice.json")
    {'nose': ['nose']}
    """
    if channels is None:
        channels = list(dict.fromkeys(one.name for one in keypoint_types))
    mapping = dict(channels) if isinstance(channels, Mapping) else {name: [name] for name in channels}
    unknown = {
        name: missing
        for name, types in mapping.items()
        if (missing := [text for text in types if not any(one.answers_to(text) for one in keypoint_types)])
    }
    if unknown:
        lines = "; ".join(f"channel '{name}' names {', '.join(map(repr, types))}" for name, types in unknown.items())
        raise DataError(
            f"{source}: {lines}, which the file does not contain. Its keypoint types are: "
            f"{', '.join(map(str, keypoint_types))}. Correct the names in the file or in `model.channels`, "
            "which are those of the training file unless they are set."
        )
    return mapping


def mirror_channels(channels: Mapping[str, Sequence[str]], flip_pairs: Sequence[Sequence[str]] | None) -> list[int]:
    """Find the channel that each channel becomes in a mirrored image.

    Args:
        channels: channel name to the keypoint types it collects.
        flip_pairs: the types that swap when an image is mirrored, all others staying the same; None if unknown.

    Returns:
        For each channel, the index of the channel that collects its types' twins: itself if it collects both of a pair.

    Raises:
        DataError: the pairs are unknown, or no channel collects the twins of a channel's types.

    >>> mirror_channels({"left": ["left"], "nose": ["nose"], "right": ["right"]}, [("left", "right")])
    [2, 1, 0]
    """
    if flip_pairs is None:
        raise DataError(
            "it is not known which keypoint types swap in a mirrored image; train with data.flip_pairs, e.g. "
            "[[left_ear, right_ear]], or [] if no type has a mirrored counterpart"
        )
    types = [frozenset(texts) for texts in channels.values()]
    twins = [frozenset(_mirror_type(text, flip_pairs) for text in texts) for texts in channels.values()]
    mirrored = []
    for index, (name, twin) in enumerate(zip(channels, twins, strict=True)):
        candidates = [other for other, collected in enumerate(types) if collected == twin]
        if not candidates:
            raise DataError(
                f"according to data.flip_pairs, channel {name!r} becomes {', '.join(sorted(twin))} when mirrored, "
                "which no channel collects; list both types of each pair in model.channels, in one channel or in two"
            )
        # Channels that collect the same types each get a twin of their own.
        rank = [other for other, collected in enumerate(types) if collected == types[index]].index(index)
        mirrored.append(index if index in candidates else candidates[rank % len(candidates)])
    return mirrored


def choose_mirrored_channels(
    channels: Mapping[str, Sequence[str]], flip_pairs: Sequence[Sequence[str]] | None, flip_test: bool | None
) -> list[int] | None:
    """Decide whether heatmaps are averaged with those of the mirrored image, and find its channels.

    Args:
        channels: channel name to the keypoint types it collects.
        flip_pairs: the types that swap when an image is mirrored; None if unknown.
        flip_test: whether to average; None means wherever possible.

    Returns:
        What `mirror_channels` returns; None to not average.

    Raises:
        DataError: `flip_test` is true, but the pairs are unknown or a channel has no twin.

    >>> choose_mirrored_channels({"left": ["left"], "right": ["right"]}, None, None)
    >>> choose_mirrored_channels({"left": ["left"], "right": ["right"]}, [("left", "right")], None)
    [1, 0]
    """
    if flip_test is False:
        return None
    try:
        return mirror_channels(channels, flip_pairs)
    except DataError as error:
        if flip_test:
            raise DataError(f"flip_test: {error}, or leave flip_test out.") from error
        return None


def _mirror_type(text: str, flip_pairs: Sequence[Sequence[str]]) -> str:
    """Name the twin of a type in the same form as the type: with its category or without."""
    category, slash, name = text.rpartition("/")
    for one, other in (twins for pair in flip_pairs for twins in (tuple(pair), tuple(pair)[::-1])):
        if one in (text, name):
            return other if one == text else f"{category}/{other}"
        if not slash and one.rpartition("/")[2] == text:
            return other.rpartition("/")[2]
    return text


def types_in_channels(
    keypoint_types: Sequence[KeypointType], channels: Mapping[str, Sequence[str]]
) -> NDArray[np.bool_]:
    """Tell which types each channel collects, (types, channels); a type may be in several.

    >>> types_in_channels([KeypointType("mouse", "nose")], {"head": ["nose", "ear"], "tail": ["tail"]}).tolist()
    [[True, False]]
    """
    return np.array(
        [[any(map(one.answers_to, texts)) for texts in channels.values()] for one in keypoint_types], dtype=bool
    ).reshape(len(keypoint_types), len(channels))
