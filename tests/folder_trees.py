"""Trees of small real pictures, as data sets have them, for the loaders' tests."""

import io
import tarfile
import zipfile

import numpy as np
import PIL.Image


def encoded(suffix=".jpg", colour=(200, 10, 10), size=(8, 6)):
    """Give the bytes of a picture."""
    buffer = io.BytesIO()
    kind = {".jpg": "JPEG", ".jpeg": "JPEG"}.get(suffix.lower(), suffix[1:].upper())
    PIL.Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def noise(suffix=".jpg", side=64):
    """Give the bytes of a picture of some kilobytes, which can be cut."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(256, size=(side, side, 3), dtype=np.uint8)
    kind = {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper())
    PIL.Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def put(path, content=None):
    """Write a picture, or other content, into a folder that is made where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(path.suffix) if content is None else content)
    return path


def sketchy_tree(base, classes=("cat", "car_(sedan)"), extended=False):
    """Make ``256x256``, with two photographs and three sketches a class, and the Extended folder."""
    for name in classes:
        for photo in ("n1_10", "n1_11"):
            put(base / "256x256/photo/tx_000000000000" / name / f"{photo}.jpg")
        for sketch in ("n1_10-1", "n1_10-2", "n1_11-1"):
            put(base / "256x256/sketch/tx_000000000000" / name / f"{sketch}.png")
        if extended:
            for image in ("n1_10", "n1_11", "ext_1", "ext_2", "ext_3"):
                put(base / "EXTEND_image_sketchy_ready" / name / f"{image}.jpg")
    return base


def tu_berlin_tree(base, images="ImageResized_ready"):
    """Make ``png``, with two sketches a class, and the images under other spellings of the names."""
    spellings = {"bear (animal)": "bear_(animal)", "hot air balloon": "hot_air_balloon", "t-shirt": "t-shirt"}
    for number, (name, other) in enumerate(spellings.items()):
        for sketch in (1, 2):
            put(base / "png" / name / f"{80 * number + sketch}.png")
        for image in ("a", "b", "c") if images else ():
            put(base / images / other / f"{image}.jpg")
    return base


def packed(folder, path):
    """Pack a folder's content as the archive's name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(folder))
    else:
        kinds = {".gz": "gz", ".tgz": "gz", ".bz2": "bz2", ".tbz2": "bz2", ".xz": "xz", ".txz": "xz"}
        mode = f"w:{kinds.get(path.suffix, '')}"
        with tarfile.open(path, mode) as archive:
            for entry in sorted(folder.iterdir()):
                archive.add(entry, entry.name)
    return path


def left_in(folder):
    """Name what is in a folder, but for locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))
