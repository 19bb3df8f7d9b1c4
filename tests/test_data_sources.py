"""One function opens pictures wherever they lie, and gives the same columns; another joins two such sources."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, IterableDataset, Value
from folder_trees import packed
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from PIL import Image as PillowImage

from dsh_hf.data.columns import as_pictures, renumbered
from dsh_hf.data.sources import join_domains, open_source

NAMES = ["ant", "bee", "ant"]  # of the three pictures that most tests have


def picture(shade: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(np.full((6, 5), 40 * shade, dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def shade_of(row: dict) -> int:
    assert row["image"].mode == "RGB"
    return round(np.asarray(row["image"]).mean() / 40)


def dataset(columns: dict, features: dict | None = None) -> Dataset:
    """Give three grey pictures, and other columns beside them."""
    pictures = [{"bytes": picture(shade), "path": None} for shade in range(3)]
    kinds = {"image": Image()} | {name: Value("string") for name in columns} | (features or {})
    return Dataset.from_dict({"image": pictures, **columns}, features=Features(kinds))


def write_folders(folder: Path, names: list[str] | None = None) -> Path:
    for shade, name in enumerate(names or NAMES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{shade}.png").write_bytes(picture(shade))
    return folder


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_webdataset(path: Path, beside: list[tuple[str, bytes]]) -> Path:
    members = {}
    for number, (suffix, content) in enumerate(beside):
        members |= {f"{number:04}.jpg": picture(number, "JPEG"), f"{number:04}.{suffix}": content}
    return write_tar(path, members)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with LoopbackHub() as hub:
        hub.patch(monkeypatch, tmp_path / "home", token=hub.token)
        monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
        yield hub


def check(opened, ids: list[str], names: list[str] | None = None) -> None:
    """See that these are the three pictures in their order, whatever they were opened from."""
    rows = list(opened)
    known = opened.features["label"].names
    assert opened.features["image"] == Image(mode="RGB")
    assert [known[row["label"]] for row in rows] == (names or NAMES)
    assert [row["id"] for row in rows] == ids
    assert [shade_of(row) for row in rows] == list(range(3))


# Each kind of source


def test_a_folder_of_class_folders(tmp_path):
    opened = open_source(str(write_folders(tmp_path / "pets", ["ant", "ant", "bee"])))
    check(opened, ["ant/0", "ant/1", "bee/2"], ["ant", "ant", "bee"])


def test_a_zip_of_class_folders(tmp_path):
    folder = write_folders(tmp_path / "pets", ["ant", "ant", "bee"])
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for path in folder.rglob("*.png"):
            archive.write(path, path.relative_to(tmp_path))
    check(open_source(str(tmp_path / "pets.zip")), ["ant/0", "ant/1", "bee/2"], ["ant", "ant", "bee"])


def test_a_tar_of_class_folders_is_no_webdataset(tmp_path):
    members = {f"{name}/{shade}.png": picture(shade) for shade, name in enumerate(["ant", "ant", "bee"])}
    opened = open_source(str(write_tar(tmp_path / "pets.tar", members)))
    check(opened, ["ant/0", "ant/1", "bee/2"], ["ant", "ant", "bee"])


@pytest.mark.parametrize("kind", ["tar.gz", "tgz", "tar.bz2", "tbz2", "tar.xz", "txz"])
def test_a_compressed_tar_of_class_folders(tmp_path, kind):
    folder = write_folders(tmp_path / "pets", ["ant", "ant", "bee"])
    opened = open_source(str(packed(folder, tmp_path / f"pets.{kind}")))
    check(opened, ["ant/0", "ant/1", "bee/2"], ["ant", "ant", "bee"])


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_of_quickdraw_drawings(tmp_path, streaming):
    (tmp_path / "drawings").mkdir()
    for word in ("ant", "bee"):
        line = json.dumps({"word": word, "key_id": "7", "drawing": [[[0, 9], [0, 9]]]})
        (tmp_path / f"drawings/{word}.ndjson").write_text(line + "\n")
    opened = open_source(str(tmp_path / "drawings"), streaming=streaming)
    assert isinstance(opened, IterableDataset if streaming else Dataset)
    assert [row["id"] for row in opened] == ["ant/7", "bee/7"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_parquet_file(tmp_path, streaming):
    dataset({"category": NAMES}).to_parquet(tmp_path / "pets.parquet")
    opened = open_source(str(tmp_path / "pets.parquet"), streaming=streaming)
    assert isinstance(opened, IterableDataset if streaming else Dataset)
    check(opened, ["pets/0", "pets/1", "pets/2"])


def test_parquet_that_other_tools_wrote(tmp_path):
    import pyarrow.parquet

    table = dataset({"category": NAMES}).data.table.replace_schema_metadata(None)
    pyarrow.parquet.write_table(table, tmp_path / "pets.parquet")
    check(open_source(str(tmp_path / "pets.parquet")), ["pets/0", "pets/1", "pets/2"])


def test_parquet_files_by_a_pattern(tmp_path):
    for number in range(3):
        dataset({"label": NAMES}).select([number]).to_parquet(tmp_path / f"pets-{number}.parquet")
    check(open_source(f"{tmp_path}/pets-*.parquet"), ["pets-0/0", "pets-0/1", "pets-0/2"])


def test_a_folder_of_parquet_with_splits(tmp_path):
    (tmp_path / "pets" / "data").mkdir(parents=True)
    for split in ("train", "test"):
        dataset({"label": NAMES}).to_parquet(tmp_path / f"pets/data/{split}-00000-of-00001.parquet")
    check(open_source(f"{tmp_path}/pets:test"), ["pets/test/0", "pets/test/1", "pets/test/2"])
    with pytest.raises(ValueError, match=r"pets has the splits (train, test|test, train): say which, like .*pets:t"):
        open_source(str(tmp_path / "pets"))
    with pytest.raises(ValueError, match="pets has no split tain, only"):
        open_source(f"{tmp_path}/pets:tain")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("beside", "names"),
    [
        ([("cls", b"7"), ("cls", b"3"), ("cls", b"7")], ["7", "3", "7"]),
        ([("json", json.dumps({"label": name, "width": 5}).encode()) for name in NAMES], NAMES),
    ],
)
def test_a_webdataset(tmp_path, beside, names, streaming):
    opened = open_source(str(write_webdataset(tmp_path / "shard-0.tar", beside)), streaming=streaming)
    check(opened, ["shard-0/0000", "shard-0/0001", "shard-0/0002"], names)


def test_shards_of_a_webdataset_that_all_count_from_zero(tmp_path):
    for shard in range(2):
        write_webdataset(tmp_path / f"shard-{shard}.tar", [("cls", b"1"), ("cls", b"2")])
    opened = open_source(str(tmp_path))
    assert opened["id"][:] == ["shard-0/0000", "shard-0/0001", "shard-1/0000", "shard-1/0001"]


def test_a_folder_that_was_saved_to_disk(tmp_path):
    dataset({"label": NAMES}).save_to_disk(tmp_path / "pets")
    check(open_source(str(tmp_path / "pets")), ["pets/0", "pets/1", "pets/2"])
    DatasetDict(train=dataset({"label": NAMES}), test=dataset({"label": NAMES})).save_to_disk(tmp_path / "two")
    check(open_source(f"{tmp_path}/two:test"), ["two/0", "two/1", "two/2"])


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_id(hub, streaming):
    dataset({"label": NAMES}).push_to_hub("org/pets")
    check(open_source("org/pets", streaming=streaming), ["pets/0", "pets/1", "pets/2"])


def test_a_hub_id_with_splits_and_configurations(hub):
    one = dataset({"label": NAMES})
    DatasetDict(train=one, test=one).push_to_hub("org/splits")
    check(open_source("org/splits:test"), ["splits/test/0", "splits/test/1", "splits/test/2"])
    with pytest.raises(ValueError, match="org/splits has the splits train, test: say which, like org/splits:train"):
        open_source("org/splits")
    for config in ("small", "large"):
        one.push_to_hub("org/configs", config)
    check(open_source("org/configs:large:train"), ["configs/0", "configs/1", "configs/2"])
    with pytest.raises(ValueError, match=r"org/configs has the configurations .*small.*: say which, like org/configs:"):
        open_source("org/configs")


def test_new_files_are_seen(tmp_path):
    folder = write_folders(tmp_path / "pets")
    assert len(open_source(str(folder))) == 3
    (folder / "bee" / "new.png").write_bytes(picture(3))
    assert len(open_source(str(folder))) == 4


def test_a_stream_of_a_folder(tmp_path):
    opened = open_source(str(write_folders(tmp_path / "pets", ["ant", "ant", "bee"])), streaming=True)
    assert isinstance(opened, IterableDataset)
    check(opened, ["ant/0", "ant/1", "bee/2"], ["ant", "ant", "bee"])


def test_streams_convert_nothing(tmp_path):
    dataset({"label": NAMES}).to_parquet(tmp_path / "pets.parquet")
    list(open_source(str(tmp_path / "pets.parquet"), streaming=True))
    assert not list((tmp_path / "cache").rglob("*.arrow"))


# What is there counts, and what is not is told at once


def test_what_exists_here_is_not_looked_for_on_the_hub(hub, tmp_path, monkeypatch):
    write_folders(tmp_path / "org" / "pets")
    monkeypatch.chdir(tmp_path)
    assert len(open_source("org/pets")) == 3
    assert hub.requests == []


@pytest.mark.parametrize(
    "source",
    ["./pets", "/no/pets", "~/no/pets", "pets", "pets.parquet", "org/pets.zip", "a/b/c", "data/pets", "org/pets:a:b:c"],
)
def test_a_mistyped_path_is_not_looked_for_on_the_hub(hub, tmp_path, monkeypatch, source):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"^{source}: no such file or folder"):
        open_source(source)
    assert hub.requests == []


def test_no_such_data_set_on_the_hub(hub):
    with pytest.raises(FileNotFoundError, match="org/pets: no such file or folder here, and no such data set on the"):
        open_source("org/pets")


def test_a_hub_that_is_not_reached_is_told_at_once(hub):
    hub.stop()
    with pytest.raises(FileNotFoundError, match="org/pets: no such file or folder here, and the Hub was not reached"):
        open_source("org/pets")


def test_a_folder_with_the_letters_of_a_pattern_is_a_folder(tmp_path):
    assert len(open_source(str(write_folders(tmp_path / "pets [2024]*")))) == 3


def test_a_pattern_that_fits_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such files"):
        open_source(f"{tmp_path}/*.parquet")


@pytest.mark.parametrize("name", ["notes.txt", "picture.png"])
def test_a_file_that_is_no_source(tmp_path, name):
    (tmp_path / name).write_bytes(picture(1))
    with pytest.raises(ValueError, match=f"{name} is no source of pictures"):
        open_source(str(tmp_path / name))


def test_an_archive_that_is_not_opened_here_is_told(tmp_path):
    (tmp_path / "pets.7z").write_bytes(b"7z")
    with pytest.raises(ValueError, match=r"pets\.7z: only zip and tar are opened here; unpack it"):
        open_source(str(tmp_path / "pets.7z"))


@pytest.mark.parametrize("name", ["broken.parquet", "broken.tar", "broken.zip"])
def test_a_broken_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK not really" * 100)
    with pytest.raises(ValueError, match=name) as raised:
        open_source(str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_what_datasets_refuses_is_told_with_the_name(tmp_path):
    members = {"0.jpg": picture(0, "JPEG"), "0.cls": b"0", "1.png": picture(1), "1.cls": b"1"}
    with pytest.raises(ValueError, match=r"mixed.tar.* the same types") as raised:
        open_source(str(write_tar(tmp_path / "mixed.tar", members)))
    assert "\n" not in str(raised.value)


def test_a_loading_script_is_refused_in_one_line(hub, tmp_path):
    api = HfApi(token=hub.token)
    api.create_repo("org/pets", repo_type="dataset")
    api.upload_file(path_or_fileobj=b"import os\n", path_in_repo="pets.py", repo_id="org/pets", repo_type="dataset")
    with pytest.raises(ValueError, match="org/pets cannot be read: Dataset scripts are no longer supported"):
        open_source("org/pets")


def test_a_folder_has_no_splits(tmp_path):
    write_folders(tmp_path / "pets")
    with pytest.raises(ValueError, match="pets has no splits: leave out :train"):
        open_source(f"{tmp_path}/pets:train")


# Columns


def test_the_column_of_pictures_is_found_by_its_type():
    renamed = dataset({"label": NAMES}).rename_column("image", "photo")
    check(as_pictures(renamed, "pets"), ["pets/0", "pets/1", "pets/2"])


def test_of_several_columns_of_pictures_one_has_to_be_called_image():
    one = dataset({"label": NAMES})
    two = one.add_column("mask", one.data.column("image").to_pylist(), feature=Image())
    check(as_pictures(two, "pets"), ["pets/0", "pets/1", "pets/2"])
    with pytest.raises(ValueError, match=r"several columns of pictures .photo, mask.: call the one you mean 'image'"):
        as_pictures(two.rename_column("image", "photo"))


def test_no_column_of_pictures():
    with pytest.raises(ValueError, match="pets has no column of pictures, only label"):
        as_pictures(Dataset.from_dict({"label": NAMES}), "pets")


@pytest.mark.parametrize("name", ["label", "class", "category", "cls"])
def test_a_column_of_words_becomes_classes(name):
    opened = as_pictures(dataset({name: ["bee", "ant", "bee"]}))
    assert opened.features["label"] == ClassLabel(names=["ant", "bee"])
    assert opened["label"][:] == [1, 0, 1]


def test_numbers_without_names_keep_their_order():
    opened = as_pictures(dataset({"label": [10, 9, 10]}, {"label": Value("int64")}))
    assert opened.features["label"].names == ["9", "10"]


def test_named_classes_keep_their_numbers():
    opened = as_pictures(dataset({"kind": [1, 0, 1]}, {"kind": ClassLabel(names=["bee", "ant"])}))
    assert opened.features["label"].names == ["bee", "ant"]
    assert opened["label"][:] == [1, 0, 1]


def test_two_columns_of_classes_are_told():
    kinds = {name: ClassLabel(names=["a", "b"]) for name in ("fine", "coarse")}
    with pytest.raises(ValueError, match=r"several columns of classes .fine, coarse.: call the one you mean 'label'"):
        as_pictures(dataset({"fine": [0, 1, 0], "coarse": [0, 1, 1]}, kinds))


def test_pictures_without_classes_have_no_label():
    assert as_pictures(dataset({})).column_names == ["image", "id"]


@pytest.mark.parametrize(
    ("labels", "kind"), [([0, -1, 1], ClassLabel(names=["a", "b"])), (["a", None, "b"], Value("string"))]
)
def test_a_row_without_a_class_is_named(labels, kind):
    with pytest.raises(ValueError, match=r"pets has no class in 1 of its rows \(1\)"):
        as_pictures(dataset({"label": labels}, {"label": kind}), "pets")


@pytest.mark.parametrize("missing", [-1, None])
def test_a_row_of_a_stream_without_a_class_is_named_when_it_is_read(missing):
    rows = dataset({"label": [0, missing, 1]}, {"label": ClassLabel(names=["a", "b"])}).to_iterable_dataset()
    opened = as_pictures(rows, "pets")
    with pytest.raises(ValueError, match="pets has no class in row 1: fill it in or drop it"):
        list(opened)


def test_ids_of_ones_own_are_kept_and_have_to_differ():
    assert as_pictures(dataset({"id": ["x", "y", "z"]}))["id"][:] == ["x", "y", "z"]
    assert as_pictures(dataset({"id": [5, 6, 7]}, {"id": Value("int64")}))["id"][:] == ["5", "6", "7"]
    with pytest.raises(ValueError, match="pets gives the id 'y' to more than one picture"):
        as_pictures(dataset({"id": ["x", "y", "y"]}), "pets")


def test_rows_that_were_chosen_stay_chosen():
    check_rows = as_pictures(dataset({"label": NAMES}).select([2, 0]), "pets")
    assert [shade_of(row) for row in check_rows] == [2, 0]


def test_the_same_data_have_the_same_fingerprint():
    assert as_pictures(dataset({"kind": NAMES}))._fingerprint == as_pictures(dataset({"kind": NAMES}))._fingerprint


# Sketches and images joined


def test_classes_are_the_same_in_any_spelling():
    joined = join_domains(
        dataset({"label": ["hot dog", "Bee", "Bee"]}), dataset({"category": ["bee", "bee", "hot-dog"]})
    )
    assert list(joined) == ["sketches", "images"]
    for part in joined.values():
        assert part.features["label"].names == ["Bee", "hot dog"]
    assert joined["sketches"]["label"][:] == [1, 0, 0]
    assert joined["images"]["label"][:] == [0, 0, 1]
    assert [shade_of(row) for row in joined["images"]] == [0, 1, 2]


def test_a_class_in_one_domain_only_is_told():
    with pytest.raises(ValueError, match=r"sketches but no images: fly.*images but no sketches: ant, owl"):
        join_domains(dataset({"label": ["bee", "bee", "fly"]}), dataset({"label": ["bee", "ant", "owl"]}))


def test_classes_can_be_chosen():
    sketches, images = dataset({"label": ["bee", "bee", "fly"]}), dataset({"label": ["ant", "ant", "Bee"]})
    for classes in (["BEE"], "shared"):
        joined = join_domains(sketches, images, classes)
        assert joined["images"].features["label"].names == ["bee"]
        assert [shade_of(row) for row in joined["images"]] == [2]
        assert len(joined["sketches"]) == 2
    with pytest.raises(ValueError, match="no such class: owl"):
        join_domains(sketches, images, ["owl"])


def test_chosen_rows_are_numbered_anew_without_copying_their_pictures():
    chosen = as_pictures(dataset({"label": ["bee", "ant", "fly"]})).select([2, 0])
    numbered = renumbered(chosen, ["Fly", "owl", "bee"])
    assert len(numbered.data) == 3  # all rows are still there, behind the choice
    assert numbered.features["label"].names == ["Fly", "owl", "bee"]
    assert numbered["label"][:] == [0, 2]
    assert [shade_of(row) for row in numbered] == [2, 0]
    assert numbered._fingerprint == renumbered(chosen, ["Fly", "owl", "bee"])._fingerprint
    assert renumbered(chosen, ["bee"])["label"][:] == [-1, 0]


def test_names_without_a_picture_are_no_classes():
    both = ClassLabel(names=["ant", "bee", "owl"])
    joined = join_domains(dataset({"label": [0, 1, 0]}, {"label": both}), dataset({"label": NAMES}))
    assert joined["sketches"].features["label"].names == ["ant", "bee"]


def test_a_class_twice_in_different_spelling_is_told():
    with pytest.raises(ValueError, match=r"Hot-dog.*hot dog|hot dog.*Hot-dog"):
        join_domains(dataset({"label": ["hot dog", "Hot-dog", "bee"]}), dataset({"label": ["hot dog", "bee", "bee"]}))


def test_classes_are_needed():
    with pytest.raises(ValueError, match="the images have no column of classes"):
        join_domains(dataset({"label": NAMES}), dataset({}))
