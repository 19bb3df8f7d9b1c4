"""Data to train and measure on: sketches, images, splits and word vectors."""

from dsh_hf.data.quickdraw import load_quickdraw
from dsh_hf.data.sketchy import load_sketchy
from dsh_hf.data.splits import Split, make_split
from dsh_hf.data.words import class_vectors

__all__ = ["Split", "class_vectors", "load_quickdraw", "load_sketchy", "make_split"]
