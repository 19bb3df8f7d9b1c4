"""What is fuzzed: for each reader of files a few sound ones, and how it is called."""

import gzip
import hashlib
import json
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BITS = 16
_FINGERPRINT = "0" * 64


@dataclass(frozen=True)
class Target:
    """A reader of files.

    Attributes:
        name: of the file that it reads, as it would be called.
        seeds: makes sound files.
        read: reads one, to the end.
        json: whether it is JSON.
        mend: makes an altered file pass for a sound one, past its checksum.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], Any]
    json: bool = False
    mend: Callable[[bytes], bytes] | None = None


def _caffemodels() -> list[bytes]:
    def field(number: int, content: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(content)) + content

    def layer(number: int, name: str, name_field: int, blob_field: int, old: bool) -> bytes:
        shape = b"\x08\x01\x10\x01\x18\x02\x20\x03" if old else field(7, field(1, b"\x02\x03"))
        blob = shape + field(5, np.arange(6, dtype="<f4").tobytes())
        return field(number, field(name_field, name.encode()) + field(blob_field, blob) * 2)

    new = layer(100, "conv1", 1, 7, old=False) + layer(100, "fc_fuse_16", 1, 7, old=False)
    return [new, layer(2, "conv1", 4, 6, old=True), field(1, b"net") + new]


def _varint(value: int) -> bytes:
    content = b""
    while value > 127:
        content += bytes([value & 127 | 128])
        value >>= 7
    return content + bytes([value])


def _read_caffemodel(path: Path) -> None:
    from dsh_hf.caffe import read_caffemodel

    read_caffemodel(path)


def _drawings() -> list[bytes]:
    drawing = {"word": "cat", "key_id": "5201136883597312", "drawing": [[[0, 100, 255], [0, 50, 20]], [[5], [6]]]}
    raw = {**drawing, "drawing": [[[0.5, 1.5], [2.5, 3.5], [0, 17]]]}
    return [json.dumps(drawing).encode(), (json.dumps(drawing) + "\n" + json.dumps(raw) + "\n").encode()]


def _read_drawings(path: Path) -> None:
    from dsh_hf.data.quickdraw import drawings_in

    for _ in drawings_in(path):
        pass


def _configs() -> list[bytes]:
    from dsh_hf.configuration import DSHConfig

    configs = [DSHConfig(), DSHConfig(bits=32, lengths=(32, 64), classes=["a", "b"]), DSHConfig.paper("sketchy")]
    return [json.dumps(config.to_dict()).encode() for config in configs]


def _read_config(path: Path) -> None:
    from dsh_hf.checkpoint import read_config

    read_config(path)


def _splits() -> list[bytes]:
    old = {"name": "open", "seed": 0, "query_sketches": ["a/1"], "validation_sketches": [], "held_out_images": ["b"]}
    return [json.dumps(old).encode(), json.dumps({"format": 2, **old, "unseen_classes": ["cat"]}).encode()]


def _read_split(path: Path) -> None:
    from dsh_hf.data.splits import Split

    Split.load(path)


def _word_files() -> list[bytes]:
    text = "cat 0.5 -1 2\ndog 1 2 3\nnaïve 4 5 6\n".encode()
    binary = b"2 3\ncat " + struct.pack("<3f", 1, 2, 3) + b"\ndog " + struct.pack("<3f", 4, 5, 6) + b"\n"
    settings = struct.pack("<2i12id3i2q", 793712314, 12, 2, 5, 5, 1, 5, 1, 2, 2, 7, 2, 3, 100, 1e-4, 2, 2, 0, 99, 0)
    entries = b"".join(word + b"\0" + struct.pack("<qb", 5, 0) for word in (b"cat", b"dog"))
    matrix = struct.pack("<?2q", False, 9, 2) + np.arange(18, dtype="<f4").tobytes()
    return [text, b"3 3\n" + text, binary, settings + entries + matrix, gzip.compress(text)]


def _read_words(path: Path) -> None:
    from dsh_hf.data.word_files import read_vectors

    read_vectors(path, {"cat", "dog", "naïve", "unheard"})


def _class_vectors() -> list[bytes]:
    from dsh_hf.data.words import save_class_vectors

    def write(path: Path) -> None:
        save_class_vectors(path, ["ant", "bee"], np.eye(2, 3), "by hand")

    return [_made(write)]


def _read_class_vectors(path: Path) -> None:
    from dsh_hf.data.words import load_class_vectors

    load_class_vectors(path)


def _aliases() -> list[bytes]:
    return [b'{"ant": "bee", "cat": "dog"}', b"{}"]


def _read_aliases(path: Path) -> None:
    from dsh_hf.data.words import read_aliases

    read_aliases(path)


def _weights() -> list[bytes]:
    import torch
    from safetensors.torch import save

    return [save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16)})]


def _read_weights(path: Path) -> None:
    import torch

    from dsh_hf.checkpoint import read_weights

    read_weights(path, {"a": torch.zeros(2, 3), "b": torch.zeros(2)})


def _indexes(engine: str) -> Callable[[], list[bytes]]:
    def make() -> list[bytes]:
        from dsh_hf.index import open_index

        made = []
        for ids in (None, [f"{n}.png" for n in range(40)], list(range(5, 45))):
            index = open_index(engine, bits=BITS, fingerprint=_FINGERPRINT)
            index.add(np.random.default_rng(0).integers(0, 256, (40, BITS // 8), dtype=np.uint8), ids)
            index.remove(index.search(np.zeros(BITS // 8, np.uint8), k=1)[1])
            made.append(_made(index.save))
        return made

    return make


def _read_index(engine: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        from dsh_hf.index import open_index

        index = open_index(engine, bits=BITS, path=path, fingerprint=_FINGERPRINT)
        index.search(np.zeros(BITS // 8, np.uint8), k=3)
        index.search_radius(np.zeros(BITS // 8, np.uint8), r=5)

    return read


def _mend_index(content: bytes) -> bytes:
    """State the checksum that an altered index file should have, where it can still be read."""
    from safetensors import SafetensorError
    from safetensors.numpy import load, save

    from dsh_hf.index.files import CHECKSUM, HEADER, checksum_of

    try:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][HEADER])
        header.pop(CHECKSUM, None)
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return content
    checksum = checksum_of(json.dumps(header), tensors)
    return save(tensors, metadata={HEADER: json.dumps({**header, CHECKSUM: checksum})})


def _galleries() -> list[bytes]:
    """Give galleries, the files of each in one line of JSON: what is altered is any of them."""
    from dsh_hf.gallery.items import Item
    from dsh_hf.gallery.store import Gallery

    made = []
    for keep_outputs in (False, True):
        gallery = Gallery("exact", BITS, _FINGERPRINT, keep_outputs)
        outputs = np.ones(BITS, np.float16).tobytes() if keep_outputs else None
        items = {f"{n}.png": Item(None, '{"label": "cat"}', (5, n), outputs) for n in range(4)}
        gallery.add(np.arange(8, dtype=np.uint8).reshape(4, 2), items)
        with tempfile.TemporaryDirectory() as folder:
            gallery.save(Path(folder), {"folder": None, "skipped": {}})
            made.append(_joined(Path(folder)))
    return made


_MANIFEST, _SEPARATOR = "retriever.json", b"\n-- next file --\n"


def _joined(folder: Path) -> bytes:
    files = sorted(file for file in folder.iterdir() if file.name != _MANIFEST)
    return _SEPARATOR.join(file.read_bytes() for file in [folder / _MANIFEST, *files])


def _mend_gallery(content: bytes) -> bytes:
    """State the digests that the altered files should have."""
    manifest, *files = content.split(_SEPARATOR)
    try:
        facts = json.loads(manifest)
        digests = [hashlib.sha256(file).hexdigest() for file in files]
        facts["sha256"] = dict(zip(("index", "items"), digests, strict=False))
        manifest = json.dumps(facts).encode()
    except (ValueError, TypeError, RecursionError):
        pass
    return _SEPARATOR.join([manifest, *files])


def _read_gallery(path: Path) -> None:
    from dsh_hf.gallery.hits import to_hits
    from dsh_hf.gallery.store import Gallery

    manifest, *files = path.read_bytes().split(_SEPARATOR)
    folder = path.with_name(f"{path.name}-folder")
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    (folder / _MANIFEST).write_bytes(manifest)
    try:
        facts = json.loads(manifest)
        names = [facts["index"], facts["items"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        names = ["index", "items.parquet"]
    for name, content in zip(names, files, strict=False):
        if isinstance(name, str) and name.isprintable() and 0 < len(name) < 90 and not set(name) & set("/\0"):
            (folder / name).write_bytes(content)
    gallery, manifest_read = Gallery.open(folder, BITS, _FINGERPRINT, None)
    to_hits(gallery.nearest(np.zeros(2, np.uint8), 3), manifest_read["folder"])
    if gallery.items:
        gallery.nearest(np.zeros(2, np.uint8), 3, {"label": "cat"})


def _made(write: Callable[[Path], Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


TARGETS = [
    Target("x.caffemodel", _caffemodels, _read_caffemodel),
    Target("cat.ndjson", _drawings, _read_drawings, json=True),
    Target("config.json", _configs, _read_config, json=True),
    Target("split.json", _splits, _read_split, json=True),
    Target("aliases.json", _aliases, _read_aliases, json=True),
    Target("vectors.txt", _word_files, _read_words),
    Target("word_vectors.safetensors", _class_vectors, _read_class_vectors),
    Target("model.safetensors", _weights, _read_weights),
    Target("exact.index", _indexes("exact"), _read_index("exact"), mend=_mend_index),
    Target("hnsw.index", _indexes("hnsw"), _read_index("hnsw"), mend=_mend_index),
    Target("gallery", _galleries, _read_gallery, mend=_mend_gallery),
]
