"""Optional packages for some features, and how to install them."""

# As in pyproject.toml, whose extras can be named only in a clone: the program may be installed in another way.
EXTRAS = {
    "onnx": ("onnx>=1.16", "onnxscript>=0.6.2", "onnxruntime>=1.19"),
    "video": ("av>=17",),
    "view": ("fiftyone>=1",),
    "convert": ("sleap-io>=0.9", "pandas>=2", "tables>=3.9"),
}


def how_to_install(extra: str) -> str:
    """Return the command that installs what a feature needs, however this program was installed.

    >>> how_to_install("video")
    "pip install 'av>=17'"
    """
    return "pip install " + " ".join(f"'{package}'" for package in EXTRAS[extra])
