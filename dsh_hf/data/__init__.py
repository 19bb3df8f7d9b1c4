"""Data to train and measure on: sketches, images, splits and word vectors."""

from dsh_hf.data.folders import load_folders
from dsh_hf.data.quickdraw import load_quickdraw
from dsh_hf.data.sketchy import load_sketchy
from dsh_hf.data.sources import join_domains, open_source
from dsh_hf.data.splits import SPLIT_NAMES, Split, make_split
from dsh_hf.data.tu_berlin import load_tu_berlin
from dsh_hf.data.words import class_vectors, load_class_vectors, save_class_vectors

__all__ = [
    "SPLIT_NAMES",
    "Split",
    "class_vectors",
    "join_domains",
    "load_class_vectors",
    "load_folders",
    "load_quickdraw",
    "load_sketchy",
    "load_tu_berlin",
    "make_split",
    "open_source",
    "save_class_vectors",
]
