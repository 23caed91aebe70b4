"""What a checkpoint contains: the names and kinds of its entries, in one table for everything that reads one."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import torch
from msgspec import UNSET, Meta, Struct, UnsetType, field
from torch import Tensor

from keypoint_detection.images import ResizeMode

# Key of the version of the format, and the version that is written; checkpoints of the first versions have none. Raise
# it with every new setting: checkpoints of this version lack no setting, and older ones get the default below.
FORMAT_KEY = "kpd_format"
FORMAT = 2

MODEL_KEY = "hyper_parameters"
DATA_KEY = "datamodule_hyper_parameters"
OWN_PACKAGE = "keypoint_detection."
# Upper bounds on the settings of any usable detector.
LARGEST = 1e9
LARGEST_SIDE_PX = 2**14
LARGEST_AREA_PX = 2**26
# For a transform: the side of a square of that area, and more than any angle.
LARGEST_ARGUMENT = 2**13
LARGEST_SIGMA_PX = 1000
MOST_THRESHOLDS = 100
MOST_WORKERS = 1024
MOST_KEYPOINTS = 100_000
# The types that weights can have; torch supports little arithmetic on types of fewer bits.
DTYPES = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
}
# How messages to users name msgspec's types.
PLAIN_WORDS = {"array": "a list", "int": "a whole number", "float": "a number", "str": "a text", "object": "settings"}
# Settings are written by people: more entries, or deeper nesting, must be forged to stall the reader.
MAX_ENTRIES = 100_000
MAX_DEPTH = 32

Count = Annotated[int, Meta(ge=0, le=2**62)]
Whole = Annotated[int, Meta(ge=1, le=2**31)]
Side = Annotated[int, Meta(ge=1, le=LARGEST_SIDE_PX)]
Finite = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Positive = Annotated[float, Meta(gt=0, le=LARGEST)]
NotNegative = Annotated[float, Meta(ge=0, le=LARGEST)]
Unit = Annotated[float, Meta(ge=0, le=1)]
Channels = dict[str, list[str]] | list[str]


class ClassSettings(Struct, forbid_unknown_fields=True):
    """A class and its arguments; `dict_kwargs` are those that its signature does not name."""

    class_path: str
    init_args: dict[str, Any] | None = None
    dict_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.dict_kwargs and self.class_path.startswith((OWN_PACKAGE, "torch.")):
            raise ValueError(f"{self.class_path} does not take dict_kwargs, found {list(self.dict_kwargs)[:3]!r}")


class TransformSettings(ClassSettings, forbid_unknown_fields=True):
    """A transform and its arguments: sizes, angles, shares and other transforms."""

    def __post_init__(self) -> None:
        super().__post_init__()
        waiting = list((self.init_args or {}).items()) if self.class_path.startswith("torchvision.") else []
        while waiting:
            name, value = waiting.pop()
            if isinstance(value, dict | list | tuple):
                waiting += [(name, one) for one in (value.values() if isinstance(value, dict) else value)]
            elif isinstance(value, int | float) and not abs(value) <= LARGEST_ARGUMENT:
                raise ValueError(f"{self.class_path} takes numbers of at most {LARGEST_ARGUMENT}, found {name}={value}")


class SizeSettings(Struct, array_like=True, forbid_unknown_fields=True):
    """(height, width) in pixels."""

    height: Side
    width: Side

    def __post_init__(self) -> None:
        if self.height * self.width > LARGEST_AREA_PX:
            raise ValueError(f"at most {LARGEST_AREA_PX} pixels expected, found {self.height} x {self.width}")


class BoxesSettings(Struct, forbid_unknown_fields=True):
    """The arguments of `SyntheticBoxes`."""

    folder: str
    n_train: Whole
    n_val: Count
    n_test: Count
    height: Side
    width: Side
    seed: Count
    max_boxes: Whole = 1


Scheduler: TypeAlias = ClassSettings | Literal["cosine", "constant"] | UnsetType


class _Settings(Struct, forbid_unknown_fields=True, kw_only=True):
    """Settings by name; a default is the behaviour of versions that lacked the setting; UNSET: not always stored."""

    instantiator: str | UnsetType = field(default=UNSET, name="_instantiator")
    own_class: str | UnsetType = field(default=UNSET, name="_class_path")


class ModelSettings(_Settings, kw_only=True):
    """The arguments of `KeypointDetector`."""

    channels: Channels
    backbone: ClassSettings
    lr: Positive
    optimizer: ClassSettings | UnsetType = UNSET
    lr_scheduler: Scheduler = UNSET
    encoder_lr_factor: Unit = 1.0
    freeze_encoder_steps: Count = 0
    decay_norms_and_biases: bool = True
    loss: Literal["bce", "mse", "focal"]
    heatmap_sigma: Annotated[float, Meta(gt=0, le=LARGEST_SIGMA_PX)]
    group: bool = False
    max_keypoints: Annotated[int, Meta(ge=1, le=MOST_KEYPOINTS)]
    score_threshold: Unit
    min_distance_px: NotNegative
    ap_thresholds_px: Annotated[list[Positive], Meta(max_length=MOST_THRESHOLDS)]
    oks_sigmas: str | list[Positive] | None
    flip_test: bool | None = False
    init_from: str | None


class DataSettings(_Settings, kw_only=True):
    """The arguments of `KeypointsDataModule`."""

    train: str | None
    val: str | None
    test: str | None
    predict: str | None = None
    image_root: str | None
    missing_images: Literal["error", "skip"] = "error"
    on_bad_image: Literal["error", "skip"] = "error"
    outside_images: Literal["error", "allow"] = "allow"
    categories: list[str] | None = None
    synthetic: BoxesSettings | UnsetType | None = UNSET
    channels: Channels | None
    val_fraction: Unit
    split_seed: Count
    n_folds: Whole | None = None
    fold: Count | None = None
    group_by: Whole | str | None = None
    train_fraction: Unit = 1.0
    image_size: SizeSettings | None
    resize: ResizeMode
    coordinates: Literal["continuous", "pixel_index"]
    visible_only: bool
    augment: bool
    augmentation: list[TransformSettings] | UnsetType | None = UNSET
    flip_pairs: list[tuple[str, str]] | None
    batch_size: Whole
    num_workers: Annotated[int, Meta(ge=0, le=MOST_WORKERS)] | None
    cache: Literal["none", "ram", "disk"] = "none"
    cache_folder: str | UnsetType = UNSET
    cache_gb: Positive | UnsetType = UNSET


class _Calibration(Struct, forbid_unknown_fields=True):
    thresholds_px: Annotated[list[Positive], Meta(min_length=1, max_length=MOST_THRESHOLDS)]
    of_log_score: list[NotNegative]
    of_log_rest: list[NotNegative]
    intercepts: list[Finite]
    peak_factor: Positive

    def __post_init__(self) -> None:
        lengths = {len(self.of_log_score), len(self.of_log_rest), len(self.intercepts), len(self.thresholds_px)}
        if len(lengths) > 1:
            raise ValueError(f"lists of one length expected, found lengths {sorted(lengths)}")


class _Overall(Struct):
    score_threshold: float


class _Report(Struct):
    overall: _Overall


class _Validation(Struct):
    epoch: Count
    step: Count
    report: _Report
    smoothed: float | UnsetType = field(default=UNSET, name="mAP_smoothed")
    calibration: _Calibration | None = None
    vote_radius_px: Positive | None = None
    vote_margins: tuple[NotNegative, Finite] | None = None
    rows: dict[str, Tensor] | UnsetType = UNSET


class _Checkpoint(Struct):
    state_dict: dict[str, Tensor]
    hyper_parameters: ModelSettings
    lightning: Annotated[str, Meta(pattern=r"^[2-9]\.\d+\.\d+")] = field(name="pytorch-lightning_version")
    format: Annotated[int, Meta(ge=1)] | UnsetType = field(default=UNSET, name=FORMAT_KEY)
    epoch: Count | UnsetType = UNSET
    global_step: Count | UnsetType = UNSET
    validation: _Validation | None = None


class _Counters(Struct):
    ready: Count
    started: Count
    processed: Count
    completed: Count


class _Progress(Struct):
    total: _Counters
    current: _Counters


class _BatchProgress(_Progress):
    is_last_batch: bool


class _FitLoop(Struct):
    epoch_progress: _Progress
    batch_progress: _BatchProgress = field(name="epoch_loop.batch_progress")


class _Loops(Struct):
    fit_loop: _FitLoop


class _OptimizerState(Struct):
    state: dict[int, dict[str, Any]]
    param_groups: Annotated[list[dict[str, Any]], Meta(min_length=1)]


class _Position(Struct):
    epoch: Annotated[int, Meta(ge=0, le=2**31)]
    n_batches: Annotated[int, Meta(ge=0, le=2**31)]


class _Training(Struct):
    epoch: Count
    global_step: Count
    loops: _Loops
    optimizer_states: Annotated[list[_OptimizerState], Meta(min_length=1)]
    lr_schedulers: list[dict[str, Any]]
    callbacks: dict[str, Any]
    position: _Position | UnsetType = field(default=UNSET, name="KeypointsDataModule")


def check_plain(settings: Any, place: str) -> None:
    """Refuse anything but text, numbers, and lists and mappings of them, or too many of these.

    Args:
        settings: settings of a checkpoint that nothing else has read yet.
        place: its key, for the message.

    Raises:
        ValueError: they contain anything else.
    """
    waiting, n_left = [(settings, 0)], MAX_ENTRIES
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict | list | tuple):
            n_left -= len(value)
            if n_left < 0 or depth > MAX_DEPTH:
                raise ValueError(f"{place}: too many entries, or too deeply nested ones")
            if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
                raise ValueError(f"{place}: names expected as keys, found {list(value)[:3]!r}")
            waiting += [(entry, depth + 1) for entry in (value.values() if isinstance(value, dict) else value)]
        elif not (value is None or isinstance(value, bool | int | float | str)):
            raise ValueError(f"{place}: plain values expected, found {type(value).__name__}")


def check_content(content: dict[str, Any]) -> None:
    """Check what every reader of a checkpoint relies on, and fill in the settings that older versions lacked.

    `check_plain` must have passed its settings. Settings of a data module that is not kpd's are removed: they have
    other meanings.

    Raises:
        ValueError: something is missing, unknown or of the wrong kind; the message says what and where.
    """
    version = content.get(FORMAT_KEY, 0)
    if isinstance(version, int) and version > FORMAT:
        raise ValueError(
            f"it was written by a newer version of kpd (format {version}; this version reads up to {FORMAT}): update "
            "kpd"
        )
    _convert(content, _Checkpoint)
    _complete(content[MODEL_KEY], ModelSettings, MODEL_KEY, version)
    data = content.get(DATA_KEY)
    if data is not None and not isinstance(data, dict):
        raise ValueError(f"{DATA_KEY}: expected `object`, got `{type(data).__name__}`")
    if data is not None and _is_own_data(data):
        _convert({DATA_KEY: data}, _WithData)
        _complete(data, DataSettings, DATA_KEY, version)
    else:
        content.pop(DATA_KEY, None)
    _check_weights(content["state_dict"])
    _check_extent(content[MODEL_KEY]["backbone"], content["state_dict"])


def check_resumable(content: Mapping[str, Any]) -> None:
    """Check everything beyond the detector that resuming a training run needs.

    Raises:
        ValueError: something is missing or of the wrong kind.
    """
    if "optimizer_states" not in content:
        raise ValueError(
            "it contains a detector but no training state, so the run cannot be resumed. Start a new training from "
            "its weights: --model.init_from=FILE.ckpt instead of --ckpt_path"
        )
    _convert(content, _Training)


def check_settings(settings: Mapping[str, Any], kind: type[ModelSettings | DataSettings], group: str) -> None:
    """Refuse, before anything is trained, settings that would make a checkpoint unloadable.

    Args:
        settings: those of a model or data module, plain values by name.
        kind: what it is.
        group: `model` or `data`, for the message.

    Raises:
        ValueError: a setting is out of range.
    """
    fields = {one.encode_name: one for one in msgspec.structs.fields(kind)}
    for name in fields.keys() & settings.keys():
        try:
            msgspec.convert(settings[name], fields[name].type)
        except msgspec.ValidationError as error:
            what = str(error)
            for word, plain in PLAIN_WORDS.items():
                what = what.replace(f"`{word}`", plain)
            raise ValueError(f"{group}.{name} is {settings[name]!r:.60}: {what[0].lower()}{what[1:]}.") from error


class _WithData(Struct):
    datamodule_hyper_parameters: DataSettings


def _convert(content: Mapping[str, Any], kind: type) -> None:
    try:
        msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        place = place.strip("`").removeprefix("$").removeprefix(".") or "the whole"
        advice = ": another version of kpd wrote it, which knows more" if "unknown field" in what else ""
        raise ValueError(f"{place}: {what[0].lower()}{what[1:]}{advice}") from error
    except RecursionError as error:
        raise ValueError("it contains itself") from error
    except Exception as error:  # raised by tensors, which pass for lists until their items are read
        raise ValueError(f"its values are not of the kinds in a kpd checkpoint ({error})") from error


def _complete(stored: dict[str, Any], kind: type[Struct], place: str, version: int) -> None:
    """Fill in what older versions lacked."""
    for one in msgspec.structs.fields(kind):
        if one.encode_name in stored or one.default is UNSET:
            continue
        if version >= FORMAT:
            raise ValueError(f"{place}: object missing required field `{one.encode_name}`")
        stored[one.encode_name] = one.default


def _is_own_data(data: Mapping[str, Any]) -> bool:
    """Whether settings are those of kpd's data module, complete or not, rather than of one that the user wrote."""
    names = {one.encode_name for one in msgspec.structs.fields(DataSettings)}
    return {"image_size", "resize"} <= data.keys() or 2 * len(names & data.keys()) > len(names)


def _check_weights(state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        if value.layout != torch.strided or value.device.type != "cpu" or value.dtype not in DTYPES:
            raise ValueError(f"state_dict.{name}: a dense tensor of real numbers expected")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"state_dict.{name}: {tuple(value.shape)} is larger than the data stored for it")


def _check_extent(backbone: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Refuse a network that would be far larger than the weights, before any memory is taken for it."""
    if not backbone["class_path"].startswith(OWN_PACKAGE):
        return  # its numbers could mean anything
    n_weights = sum(value.numel() for value in state.values())
    for name, value in (backbone.get("init_args") or {}).items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int | float) and not (math.isfinite(number) and abs(number) <= n_weights):
                raise ValueError(f"{MODEL_KEY}.backbone: {name}={number} does not fit its {n_weights} weights")
