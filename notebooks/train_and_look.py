# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train a keypoint detector and look at it
#
# This notebook draws a small data set, trains a detector on it in about a minute on a CPU, and looks at what it has
# learned: overlays, heatmaps, curves and the worst images. It uses the classes that `kpd fit` uses.
#
# In Colab, run this first, with the ADDRESS of the Git repository, and choose *Restart session* where it asks for it:
#
# `!pip install "keypoint-detection[notebook] @ git+https://ADDRESS"`

# %%
import logging
import os
from pathlib import Path

import numpy as np
from IPython.display import display
from lightning.pytorch import Trainer, seed_everything
from PIL import Image

from keypoint_detection import Predictor
from keypoint_detection.boxes.data_set import SyntheticBoxes
from keypoint_detection.commands.export import export
from keypoint_detection.data.datamodule import KeypointsDataModule
from keypoint_detection.detector import KeypointDetector
from keypoint_detection.models.backbones import Unet
from keypoint_detection.plots import plot_cumulative_errors, plot_precision_recall
from keypoint_detection.reporting.result_table import make_table
from keypoint_detection.reporting.worst_images import WorstImages

# %matplotlib inline
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
N_STEPS = int(os.environ.get("KPD_NOTEBOOK_STEPS", "150"))
N_IMAGES = int(os.environ.get("KPD_NOTEBOOK_IMAGES", "100"))
seed_everything(0)

# %% [markdown]
# ## Data
#
# Cardboard boxes, drawn on the spot, as a COCO keypoint file. For images of your own, give `train`, `val` and `test`
# in place of `synthetic`.

# %%
boxes = SyntheticBoxes(folder="boxes", n_train=N_IMAGES, n_val=20, height=96, width=128)
channels = {
    "corner": [f"box_corner{number}" for number in range(4)],
    "flap": [f"flap_corner{number}" for number in range(8)],
}
data = KeypointsDataModule(synthetic=boxes, channels=channels, image_size=(96, 128), batch_size=8, num_workers=0)
data.prepare_data()
data.setup("fit")
batch = next(iter(data.train_dataloader()))
display(Image.fromarray(np.concatenate(batch.images[:4].permute(0, 2, 3, 1).numpy(), axis=1)))

# %% [markdown]
# ## Training

# %%
detector = KeypointDetector(channels=channels, backbone=lambda: Unet(n_channels=16), lr=3e-3)
trainer = Trainer(
    max_steps=N_STEPS,
    accelerator="auto",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    limit_val_batches=0,
)
trainer.fit(detector, datamodule=data)
trainer.save_checkpoint("boxes.ckpt")

# %% [markdown]
# ## Measuring
#
# On images that the training has not seen. Distances are pixels of the original images.

# %%
measuring = Trainer(
    accelerator="auto",
    logger=False,
    enable_progress_bar=False,
    callbacks=[WorstImages(n_images=3)],
    default_root_dir="results",
)
measuring.validate(detector, datamodule=data, verbose=False)
report = detector.report
display(make_table(report, "Validation"))

# %%
display(plot_precision_recall(report))

# %%
display(plot_cumulative_errors(report))

# %% [markdown]
# The worst images: circles are true corners, crosses predicted ones; on the right are the heatmaps.

# %%
for path in sorted(Path("results/worst").glob("*.png")):
    display(Image.open(path))

# %% [markdown]
# ## Using it
#
# All that is needed is the checkpoint.

# %%
predictor = Predictor.from_checkpoint("boxes.ckpt", score_threshold=0.1)
image = sorted(Path("boxes").rglob("*.[pj]*g"))[0]
result = predictor(image, heatmaps=True)
for point in result:
    print(f"{point.channel} at ({point.x:.1f}, {point.y:.1f}), score {point.score:.2f}")
display(predictor.draw(image))

# %% [markdown]
# The heatmap itself, which is 1 where the detector is sure of a corner:

# %%
heatmap = (255 * result.heatmaps[0]).astype(np.uint8)
display(Image.fromarray(heatmap).resize((512, 384), Image.Resampling.NEAREST))

# %% [markdown]
# ## Exporting
#
# One ONNX file that finds the same points without PyTorch.

# %%
Path("boxes.onnx").unlink(missing_ok=True)
# A detector that has hardly been trained has peaks so flat that rounding moves them: then there is no file.
if export("boxes.ckpt", "boxes.onnx"):
    exported = Predictor.from_onnx("boxes.onnx", score_threshold=0.1)
    print(exported(image))
