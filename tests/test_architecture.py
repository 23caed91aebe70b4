"""The package's floors: a module imports only what stands above it in the list of the design."""

import ast
import itertools
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "keypoint_detection"

FLOORS = [
    ["__init__"],
    ["types", "checkpoints"],
    ["geometry", "peaks"],
    ["heatmaps"],
    ["data.__init__", "data.coco"],
    ["data.transforms"],
    ["data.dataset"],
    ["data.box_scene"],
    ["data.box_textures"],
    ["data.box_rendering"],
    ["data.synthetic"],
    ["data.datamodule"],
    ["metrics.matching", "metrics.bootstrap"],
    ["metrics.average_precision", "metrics.localisation"],
    ["metrics.evaluation"],
    ["metrics.oks", "metrics.report"],
    ["metrics.keypoint_metrics"],
    ["metrics.__init__"],
    ["models.__init__", "models.backbones.backbone"],
    ["models.backbones.unet"],
    ["models.backbones.__init__"],
    ["models.losses", "models.schedules", "models.initial_weights"],
    ["models.detector"],
    [
        "callbacks.__init__",
        "callbacks.run_folder",
        "callbacks.drawing",
        "callbacks.training_health",
        "callbacks.wandb_tables",
    ],
    ["callbacks.overlays", "callbacks.worst_pictures", "callbacks.wandb_run", "callbacks.graceful_stop"],
    ["callbacks.result_table"],
    ["callbacks.model_artifact"],
    ["parsing", "wandb_account", "checkpoint_settings"],
    ["synthesize", "lightning_cli"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(FLOORS) for name in names}


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a file imports, in functions too, as names of the list."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] == "keypoint_detection":
                found.add(_as_module(name))
    return found


def _as_module(name: str) -> str:
    inner = name.split(".")[1:]
    while inner:
        for candidate in (".".join(inner), ".".join([*inner, "__init__"])):
            if candidate in RANK:
                return candidate
        inner.pop()
    return "__init__"


def modules() -> dict[str, Path]:
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def test_every_module_has_its_place_in_the_list():
    assert set(modules()) == set(RANK)
    assert len(RANK) == len(list(itertools.chain(*FLOORS)))


def test_a_module_imports_only_what_stands_above_it():
    wrong = [
        f"{name} imports {imported}"
        for name, path in modules().items()
        for imported in imports_of(path)
        if RANK[imported] >= RANK[name] and imported != name
    ]
    assert not wrong


def test_data_and_models_never_import_each_other():
    wrong = [
        f"{name} imports {imported}"
        for name, path in modules().items()
        for imported in imports_of(path)
        if {name.split(".")[0], imported.split(".")[0]} == {"data", "models"}
    ]
    assert not wrong
