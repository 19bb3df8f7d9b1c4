"""Whole collections become parquet files of codes, part by part; a run that was killed goes on where it stopped."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from PIL import Image as PillowImage
from PIL import ImageDraw
from tiny_checkpoint import tiny_model

from dsh_hf.bulk import running
from dsh_hf.bulk.encoding import encode_candidates
from dsh_hf.bulk.files import CodesError, read_codes
from dsh_hf.bulk.running import encode_source
from dsh_hf.gallery.items import Candidate, Item
from dsh_hf.index import open_index
from dsh_hf.index.base import IndexMismatchError

ORDER = [0, 2, 4, 6, 1, 3, 5]  # of the pictures in a folder that ``write_folder`` wrote


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def picture(number: int) -> bytes:
    """Give a drawing unlike those of other numbers."""
    file, drawing = io.BytesIO(), PillowImage.new("RGB", (40, 40), "white")
    points = np.random.default_rng(number).integers(2, 38, (7, 2)).tolist()
    ImageDraw.Draw(drawing).line([tuple(point) for point in points], "black", 2)
    drawing.save(file, "PNG")
    return file.getvalue()


def write_folder(folder, count: int = 7):
    """Write pictures into two folders, with a damaged one in their midst."""
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    (folder / "a/5.png").write_bytes(picture(5)[:90])
    return folder


def rows_of(count: int, ids: bool = True) -> Dataset:
    pictures = [{"bytes": picture(number), "path": None} for number in range(count)]
    columns = {"image": pictures, "label": ["ant"] * count}
    features = {"image": Image(), "label": Value("string")}
    if ids:
        columns["id"] = [f"row-{number}" for number in range(count)]
        features["id"] = Value("string")
    return Dataset.from_dict(columns, features=Features(features))


def found_in(folder, model):
    """Give ids, codes and sources of all parts."""
    parts = list(read_codes(folder, bits=model.config.bits, fingerprint=model.fingerprint))
    ids, sources = ([value for part in parts for value in part[column]] for column in (0, 2))
    return ids, np.concatenate([part.codes for part in parts]), sources


def expected(model, numbers, sketches: bool = False):
    encode = model.encode_sketches if sketches else model.encode_images
    return encode([{"bytes": picture(number), "path": None} for number in numbers])


# What comes out


def test_a_folder_becomes_ids_codes_and_sources(model, tmp_path):
    photos = write_folder(tmp_path / "photos")
    manifest = encode_source(model, str(photos), tmp_path / "codes", part_rows=3)
    ids, codes, sources = found_in(tmp_path / "codes", model)
    assert ids == ["a/0.png", "a/2.png", "a/4.png", "a/6.png", "b/1.png", "b/3.png", "b/5.png"]
    assert sources == [str(photos / name) for name in ids]
    np.testing.assert_array_equal(codes, expected(model, ORDER))
    assert manifest["codes"] == 7
    assert [part["codes"] for part in manifest["parts"]] == [3, 2, 2]


def test_a_damaged_picture_is_named_and_the_others_keep_their_codes(model, tmp_path):
    manifest = encode_source(model, str(write_folder(tmp_path / "photos")), tmp_path / "codes")
    assert list(manifest["skipped"]) == ["a/5.png"]
    assert "photos/a/5.png is damaged or truncated" in manifest["skipped"]["a/5.png"]
    assert "a/5.png" not in found_in(tmp_path / "codes", model)[0]
    assert json.loads((tmp_path / "codes/codes.json").read_text())["skipped"] == manifest["skipped"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere files have no such names")
def test_what_cannot_be_reached_or_written_down_is_named(model, tmp_path):
    photos = write_folder(tmp_path / "photos")
    (photos / "a/link.png").symlink_to("nowhere.png")
    (photos / "a" / os.fsdecode(b"\xff.png")).write_bytes(picture(0))
    manifest = encode_source(model, str(photos), tmp_path / "codes")
    assert {"a/5.png", "a/link.png", "a/\udcff.png"} == set(manifest["skipped"])
    assert "no UTF-8" in manifest["skipped"]["a/\udcff.png"]
    assert manifest["codes"] == 7


def test_a_source_with_nothing_but_faults_gives_no_codes(model, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(b"no picture")
    manifest = encode_source(model, str(tmp_path / "photos"), tmp_path / "codes")
    assert manifest["codes"] == 0
    assert found_in(tmp_path / "codes", model)[1].shape == (0, 8)


def test_drawings_go_through_the_sketch_stream(model, tmp_path):
    photos = write_folder(tmp_path / "photos")
    manifest = encode_source(model, str(photos), tmp_path / "codes", sketches=True)
    assert manifest["kind"] == "sketches"
    np.testing.assert_array_equal(found_in(tmp_path / "codes", model)[1], expected(model, ORDER, True))


def test_the_parquet_files_are_plain_tables_that_datasets_opens(model, tmp_path):
    encode_source(model, str(write_folder(tmp_path / "photos")), tmp_path / "codes")
    rows = Dataset.from_parquet(str(tmp_path / "codes/part-000000.parquet")).with_format("numpy", dtype=np.uint8)
    assert rows.column_names == ["id", "code", "source"]
    np.testing.assert_array_equal(rows["code"][:], found_in(tmp_path / "codes", model)[1])


def test_faults_and_pictures_share_a_batch(model):
    good = {"bytes": picture(0), "path": None}
    given = [Candidate("none", None, Item(), "there is none"), Candidate("good", good, Item("here"))]
    (encoded,) = encode_candidates(model, [*given, Candidate("gone", "gone.png", Item())], batch_size=2)
    assert (encoded.ids, encoded.sources) == (["good"], ["here"])
    assert encoded.skipped == {"none": "there is none", "gone": "gone.png: no such picture; check the path"}
    np.testing.assert_array_equal(encoded.codes, expected(model, [0]))


# Each kind of source


@pytest.mark.parametrize("ids", [True, False])
def test_parquet_is_cut_within_a_file(model, tmp_path, monkeypatch, ids):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    pq.write_table(rows_of(5, ids).with_format("arrow")[:], tmp_path / "rows/train.parquet", row_group_size=2)
    manifest = encode_source(model, "rows", tmp_path / "codes", part_rows=3)
    found, codes, sources = found_in(tmp_path / "codes", model)
    assert found == [f"row-{number}" if ids else f"train/{number}" for number in range(5)]
    assert sources == [str(tmp_path / "rows/train.parquet")] * 5
    np.testing.assert_array_equal(codes, expected(model, range(5)))
    assert [part["codes"] for part in manifest["parts"]] == [3, 2]


def test_a_row_without_a_picture_is_named(model, tmp_path):
    pictures = [{"bytes": picture(0), "path": None}, None, {"bytes": b"damaged", "path": None}]
    features = Features({"image": Image()})
    Dataset.from_dict({"image": pictures}, features=features).to_parquet(tmp_path / "rows.parquet")
    manifest = encode_source(model, str(tmp_path / "rows.parquet"), tmp_path / "codes")
    assert list(manifest["skipped"]) == ["rows/1", "rows/2"]
    assert manifest["skipped"]["rows/1"].endswith("rows.parquet, row 1 has no picture")
    assert found_in(tmp_path / "codes", model)[0] == ["rows/0"]


def test_rows_name_no_files_beyond_their_source(model, tmp_path, store):
    secret = write_folder(tmp_path / "photos", 1) / "a/0.png"
    store.pipe_file("/bucket/near.png", picture(1))
    store.pipe_file("/elsewhere/far.png", picture(2))
    named = [str(secret), "memory:///elsewhere/far.png", "memory:///bucket/near.png"]
    features = Features({"image": Image()})
    rows = Dataset.from_dict({"image": [{"bytes": None, "path": path} for path in named]}, features=features)
    rows.to_parquet(tmp_path / "rows.parquet")
    store.pipe_file("/bucket/rows.parquet", (tmp_path / "rows.parquet").read_bytes())
    manifest = encode_source(model, "memory://bucket/rows.parquet", tmp_path / "codes")
    assert list(manifest["skipped"]) == ["rows/0", "rows/1"]
    assert manifest["skipped"]["rows/1"].endswith("far.png in place of a picture, which is not of this source")
    assert found_in(tmp_path / "codes", model)[0] == ["rows/2"]
    here = encode_source(model, str(tmp_path / "rows.parquet"), tmp_path / "of mine")
    assert list(here["skipped"]) == ["rows/1", "rows/2"]


def test_every_webdataset_tar_is_a_part(model, tmp_path):
    for shard in range(2):
        (tmp_path / "ab"[shard]).mkdir()
        with tarfile.open(tmp_path / "ab"[shard] / "0.tar", "w") as archive:
            for number in (2 * shard, 2 * shard + 1):
                for suffix, content in (("png", picture(number)), ("json", b'{"label": "ant"}')):
                    member = tarfile.TarInfo(f"{number}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    manifest = encode_source(model, str(tmp_path / "*/0.tar"), tmp_path / "codes", part_rows=1)
    ids, codes, _ = found_in(tmp_path / "codes", model)
    assert ids == ["a/0/0", "a/0/1", "b/0/2", "b/0/3"]
    np.testing.assert_array_equal(codes, expected(model, range(4)))
    assert len(manifest["parts"]) == 2


def test_what_save_to_disk_wrote(model, tmp_path):
    rows = rows_of(3).cast_column("label", ClassLabel(names=["ant"]))
    rows.save_to_disk(tmp_path / "saved")
    encode_source(model, str(tmp_path / "saved"), tmp_path / "codes", part_rows=2)
    ids, codes, _ = found_in(tmp_path / "codes", model)
    assert ids == ["row-0", "row-1", "row-2"]
    np.testing.assert_array_equal(codes, expected(model, range(3)))


@pytest.fixture
def store():
    """An object store in memory, as fsspec shows it."""
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/bucket", recursive=True)


def test_an_address_of_pictures(model, tmp_path, store):
    for number in range(3):
        store.pipe_file(f"/bucket/photos/ant/{number}.png", picture(number))
    store.pipe_file("/bucket/photos/ant/notes.txt", b"no picture")
    encode_source(model, "memory://bucket/photos", tmp_path / "codes")
    ids, codes, sources = found_in(tmp_path / "codes", model)
    assert ids == ["ant/0.png", "ant/1.png", "ant/2.png"]
    assert sources[0].startswith("memory://")
    np.testing.assert_array_equal(codes, expected(model, range(3)))


def test_an_address_of_parquet_files(model, tmp_path, store):
    for file in range(2):
        rows_of(2, ids=False).to_parquet(tmp_path / "rows.parquet")
        store.pipe_file(f"/bucket/rows/{file}.parquet", (tmp_path / "rows.parquet").read_bytes())
    encode_source(model, "memory://bucket/rows/*.parquet", tmp_path / "codes")
    ids, codes, _ = found_in(tmp_path / "codes", model)
    assert ids == ["0/0", "0/1", "1/0", "1/1"]
    np.testing.assert_array_equal(codes, expected(model, [0, 1, 0, 1]))


def test_a_data_set_on_the_hub(model, tmp_path, monkeypatch):
    with LoopbackHub() as hub:
        hub.patch(monkeypatch, tmp_path / "home", token=hub.token)
        monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
        rows_of(3).to_parquet(tmp_path / "rows.parquet")
        api = HfApi()
        api.create_repo("org/pets", repo_type="dataset")
        where = {"repo_id": "org/pets", "repo_type": "dataset", "path_in_repo": "data/train-0.parquet"}
        api.upload_file(path_or_fileobj=tmp_path / "rows.parquet", **where)
        encode_source(model, "org/pets:train", tmp_path / "codes")
    ids, codes, _ = found_in(tmp_path / "codes", model)
    assert ids == ["row-0", "row-1", "row-2"]
    np.testing.assert_array_equal(codes, expected(model, range(3)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./nowhere", "no such file or folder"),
        ("memory://bucket/nowhere", "nothing is there"),
        ("ftp://me:sesame@host/photos", "the address holds a password"),
    ],
)
def test_a_source_that_cannot_be_opened_leaves_nothing(model, tmp_path, source, message):
    with pytest.raises((ValueError, OSError), match=message):
        encode_source(model, source, tmp_path / "codes")
    assert not (tmp_path / "codes").exists()


# Killed, and run again


def test_a_run_that_stopped_goes_on_and_ends_equal(model, tmp_path, monkeypatch):
    photos = write_folder(tmp_path / "photos", 12)
    encode_source(model, str(photos), tmp_path / "whole", part_rows=2)
    write, read = running.write_atomically, running.read_pictures
    written = []

    def write_two(path, content):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    monkeypatch.setattr(running, "write_atomically", write_two)
    with pytest.raises(KeyboardInterrupt):
        encode_source(model, str(photos), tmp_path / "codes", part_rows=2)
    with pytest.raises(CodesError, match="has not all of its codes yet"):
        read_codes(tmp_path / "codes", bits=60, fingerprint=model.fingerprint)
    parts = []
    monkeypatch.setattr(running, "write_atomically", write)
    monkeypatch.setattr(running, "read_pictures", lambda part: parts.append(part) or read(part))
    encode_source(model, str(photos), tmp_path / "codes", part_rows=2)
    assert len(parts) == 5  # of seven
    check_equal(tmp_path / "codes", tmp_path / "whole")


def check_equal(folder, other):
    names = sorted(path.name for path in other.iterdir())
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_a_process_that_was_killed(model, tmp_path):
    photos = write_folder(tmp_path / "photos", 12)
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from tiny_checkpoint import tiny_model\n"
        "from dsh_hf.bulk import running\n"
        "write = running.write_atomically\n"
        "running.write_atomically = lambda *given: (write(*given), time.sleep(0.5))\n"
        "running.encode_source(tiny_model(), sys.argv[2], sys.argv[3], part_rows=1)\n"
    )
    codes = tmp_path / "codes"
    process = subprocess.Popen([sys.executable, "-c", code, os.path.dirname(__file__), str(photos), str(codes)])
    while not any(codes.glob("part-*")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in codes.glob("part-*")}
    assert 0 < len(before) < 13
    encode_source(model, str(photos), codes, part_rows=1)
    encode_source(model, str(photos), tmp_path / "whole", part_rows=1)
    check_equal(codes, tmp_path / "whole")
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in codes.glob("part-*")}.items()


def test_a_folder_is_the_same_by_any_path_and_another_one_by_the_same_path(model, tmp_path, monkeypatch):
    for place in ("here", "there"):
        write_folder(tmp_path / place / "photos", 2)
    monkeypatch.chdir(tmp_path / "here")
    manifest = encode_source(model, "photos", tmp_path / "codes")
    assert encode_source(model, "./photos", tmp_path / "codes") == manifest
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(CodesError, match="was begun with source"):
        encode_source(model, "photos", tmp_path / "codes")


def test_other_settings_are_refused_and_change_nothing(model, tmp_path):
    photos, codes = str(write_folder(tmp_path / "photos")), tmp_path / "codes"
    encode_source(model, photos, codes, part_rows=3)
    before = (codes / "codes.json").read_bytes()
    for other in ({"part_rows": 2}, {"sketches": True}):
        with pytest.raises(CodesError, match=r"was begun with .* give another place"):
            encode_source(model, photos, codes, **({"part_rows": 3} | other))
    with pytest.raises(CodesError, match="fingerprint"):
        encode_source(tiny_model(1), photos, codes, part_rows=3)
    assert (codes / "codes.json").read_bytes() == before


def test_files_of_others_are_not_mixed_with_codes(model, tmp_path):
    rows_of(1).to_parquet(tmp_path / "mine.parquet")
    with pytest.raises(CodesError, match="holds other parquet files"):
        encode_source(model, str(write_folder(tmp_path / "photos")), tmp_path)
    assert not (tmp_path / "codes.json").exists()


# The way back


@pytest.mark.parametrize("engine", ["exact", "torch"])
def test_codes_are_searched_in_any_engine(model, tmp_path, engine):
    encode_source(model, str(write_folder(tmp_path / "photos")), tmp_path / "codes", part_rows=3)
    index = open_index(engine, bits=60, fingerprint=model.fingerprint)
    for part in read_codes(tmp_path / "codes", bits=index.bits, fingerprint=model.fingerprint):
        index.add(part.codes, part.ids)
    distances, ids = index.search(expected(model, [4])[0], 1)
    assert (distances.tolist(), ids.tolist()) == ([0], ["a/4.png"])


def test_codes_of_another_model_or_length_are_refused(model, tmp_path):
    encode_source(model, str(write_folder(tmp_path / "photos")), tmp_path / "codes")
    with pytest.raises(CodesError, match=f"codes of the model {model.fingerprint}, not 00"):
        read_codes(tmp_path / "codes", bits=60, fingerprint="00")
    with pytest.raises(CodesError, match="codes of 60 bits, not 64"):
        read_codes(tmp_path / "codes", bits=64, fingerprint=model.fingerprint)
    assert not issubclass(IndexMismatchError, CodesError)


def test_a_part_of_another_model_is_refused(model, tmp_path):
    photos = str(write_folder(tmp_path / "photos"))
    encode_source(model, photos, tmp_path / "codes")
    encode_source(tiny_model(1), photos, tmp_path / "others")
    (tmp_path / "others/part-000000.parquet").replace(tmp_path / "codes/part-000000.parquet")
    with pytest.raises(CodesError, match=r"part-000000.parquet holds codes of the model"):
        found_in(tmp_path / "codes", model)


def test_a_damaged_part_is_named_and_made_again(model, tmp_path):
    photos, part = str(write_folder(tmp_path / "photos")), tmp_path / "codes/part-000000.parquet"
    encode_source(model, photos, tmp_path / "codes")
    whole = part.read_bytes()
    part.write_bytes(whole[:-40])
    for read in (lambda: found_in(tmp_path / "codes", model), lambda: encode_source(model, photos, tmp_path / "codes")):
        with pytest.raises(CodesError, match=r"000000.parquet is missing or damaged .*: delete it and run dsh-hf enc"):
            read()
    part.unlink()
    encode_source(model, photos, tmp_path / "codes")
    assert part.read_bytes() == whole


def test_a_folder_without_codes_is_told(model, tmp_path):
    with pytest.raises(CodesError, match=r"codes.json is not there"):
        read_codes(tmp_path, bits=60, fingerprint=model.fingerprint)


def test_encoding_knows_no_index():
    code = "import sys, dsh_hf.bulk.running; print([name for name in sys.modules if name.startswith('dsh_hf.index')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
