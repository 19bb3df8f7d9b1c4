"""A gallery from a data set: columns found or named, labels by name, damaged rows left out, streams too."""

import datetime
import io
import zipfile

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, List, Value, concatenate_datasets
from datasets import Image as ImageFeature
from PIL import Image
from tiny_checkpoint import tiny_model

from dsh_hf import DSHModel, SketchRetriever
from dsh_hf.retrieval import RetrieverError

FEATURES = Features(
    {
        "image": ImageFeature(),
        "label": ClassLabel(names=["ant", "bee"]),
        "name": Value("string"),
        "year": Value("int64"),
        "vector": List(Value("float32")),
        "raw": Value("binary"),
    }
)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def picture(number):
    pixels = np.random.default_rng(number).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(number):
    stored = io.BytesIO()
    picture(number).save(stored, "PNG")
    return stored.getvalue()


def rows(count=3, **columns):
    return {
        "image": [{"bytes": png(number), "path": f"{number}.png"} for number in range(count)],
        "label": [number % 2 for number in range(count)],
        "name": [f"picture {number}" for number in range(count)],
        "year": [2000 + number for number in range(count)],
        "vector": [[0.5]] * count,
        "raw": [b"x"] * count,
    } | columns


def dataset(**columns):
    return Dataset.from_dict(rows(**columns), features=FEATURES)


def other():
    return dataset().select_columns("image").rename_column("image", "other")


def stored(retriever):
    code = np.zeros(8, np.uint8)
    return {hit.id: hit for hit in retriever.search_code(code, k=1000)}


@pytest.mark.parametrize("stream", [False, True])
def test_rows_become_items(model, stream):
    given = dataset()
    retriever = SketchRetriever.from_dataset(given.to_iterable_dataset() if stream else given, model)
    hits = stored(retriever)
    assert list(sorted(hits)) == ["0", "1", "2"]
    assert hits["1"].metadata == {"label": "bee", "name": "picture 1", "year": 2001}
    assert hits["1"].source is None  # a file name inside the data set is no place
    assert retriever.skipped == {}
    for number in range(3):
        code = model.encode_images(picture(number))
        assert hits[str(number)].distance == int(np.bitwise_count(code).sum())


def test_ids_and_metadata_come_from_the_columns_that_are_named(model):
    hits = stored(
        SketchRetriever.from_dataset(dataset(), model, id_column="year", metadata_columns=["label", "vector"])
    )
    assert hits["2000"].metadata == {"label": "ant", "vector": [0.5]}
    hits = stored(SketchRetriever.from_dataset(dataset(), model, id_column="name", metadata_columns=[]))
    assert hits["picture 0"].metadata == {}


def test_labels_that_are_missing_and_dates_can_be_kept(model):
    given = dataset(label=[None, -1, 0]).remove_columns("year")
    given = given.add_column("day", [datetime.date(2026, 1, day) for day in (1, 2, 3)])
    hits = stored(SketchRetriever.from_dataset(given, model))
    assert [hits[key].metadata["label"] for key in "012"] == [None, None, "ant"]
    assert hits["2"].metadata["day"] == "2026-01-03"


@pytest.mark.parametrize("stream", [False, True])
def test_damaged_rows_are_left_out_and_listed(model, stream):
    images = [{"bytes": png(0), "path": None}, {"bytes": png(1)[:60], "path": "torn.png"}, None]
    given = dataset(image=images)
    retriever = SketchRetriever.from_dataset(
        given.to_iterable_dataset() if stream else given, model, id_column="name", keep_outputs=stream
    )
    assert list(stored(retriever)) == ["picture 0"]
    assert "torn.png is damaged or truncated" in retriever.skipped["picture 1"]
    assert retriever.skipped["picture 2"] == "row 2 has no picture"


def test_an_id_that_comes_twice_costs_its_second_row_alone(model):
    retriever = SketchRetriever.from_dataset(dataset(name=["a", "a", "b"]), model, id_column="name")
    assert {key: hit.metadata["year"] for key, hit in stored(retriever).items()} == {"a": 2000, "b": 2002}
    assert retriever.skipped == {"row 1": "row 1: the id 'a' is an earlier row's, too"}


def test_rows_that_are_in_the_gallery_are_not_encoded_again(model, monkeypatch):
    retriever = SketchRetriever.from_dataset(dataset().select([0, 1]), model)
    encoded, encode = [], DSHModel.encode_images

    def counting(model, inputs, **options):
        encoded.extend(inputs)
        return encode(model, inputs, **options)

    monkeypatch.setattr(DSHModel, "encode_images", counting)
    assert retriever.add_dataset(dataset()) == {"added": 1, "skipped": 0}
    assert len(encoded) == 1
    assert len(retriever) == 3


def test_the_gallery_is_saved_as_it_grows(model, tmp_path, monkeypatch):
    monkeypatch.setattr("dsh_hf.gallery.building._PORTION", 8)

    def endless():
        for number in range(100):
            if number == 70:
                raise ConnectionError("the stream broke off")
            yield {"image": {"bytes": png(number), "path": None}, "number": number}

    features = Features({"image": ImageFeature(), "number": Value("int64")})
    stream = IterableDataset.from_generator(endless, features=features)
    with pytest.raises(ConnectionError):
        SketchRetriever.from_dataset(stream, model, batch_size=1, save_to=tmp_path)
    assert len(SketchRetriever.load(tmp_path, model)) >= 56


def test_pictures_are_read_a_few_at_a_time(model):
    ahead = []

    def watched():
        for number in range(600):
            ahead.append(number)
            yield {"image": {"bytes": png(number % 3), "path": None}}

    stream = IterableDataset.from_generator(watched, features=Features({"image": ImageFeature()}))
    most, encode = [], model.encode_images
    watching = tiny_model()
    watching.encode_images = lambda inputs, **options: most.append(len(inputs)) or encode(inputs, **options)
    retriever = SketchRetriever.from_dataset(stream, watching, batch_size=4)
    assert len(retriever) == len(ahead) == 600
    assert max(most) == 32


def test_a_stream_that_does_not_tell_its_columns_needs_them_named(model):
    stream = IterableDataset.from_generator(lambda: ({"photo": picture(year), "year": year} for year in range(2)))
    with pytest.raises(RetrieverError, match="image_column="):
        SketchRetriever.from_dataset(stream, model)
    with pytest.raises(RetrieverError, match="metadata_columns="):
        SketchRetriever.from_dataset(stream, model, image_column="photo")
    hits = stored(SketchRetriever.from_dataset(stream, model, image_column="photo", metadata_columns=["year"]))
    assert {key: hit.metadata for key, hit in hits.items()} == {"0": {"year": 0}, "1": {"year": 1}}


def test_a_column_of_paths_can_be_named(model, tmp_path):
    picture(0).save(tmp_path / "a.png")
    given = Dataset.from_dict({"path": [str(tmp_path / "a.png"), str(tmp_path / "gone.png")]})
    retriever = SketchRetriever.from_dataset(given, model, image_column="path")
    assert stored(retriever)["0"].source == str(tmp_path / "a.png")
    assert "no such picture" in retriever.skipped["1"]


def test_pictures_in_files_are_sources(model, tmp_path):
    picture(0).save(tmp_path / "a.png")
    given = Dataset.from_dict({"image": [str(tmp_path / "a.png")]}).cast_column("image", ImageFeature())
    hit = stored(SketchRetriever.from_dataset(given, model))["0"]
    assert hit.source == str(tmp_path / "a.png")


def test_pictures_in_an_archive_are_fetched_one_by_one(model, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.png", png(0))
    places = [f"zip://{name}.png::{tmp_path / 'photos.zip'}" for name in "ab"]
    given = Dataset.from_dict({"image": [{"bytes": None, "path": place} for place in places]})
    given = given.cast_column("image", ImageFeature())
    retriever = SketchRetriever.from_dataset(given.to_iterable_dataset(), model)
    assert stored(retriever)["0"].source == places[0]
    assert f"{places[1]} cannot be read" in retriever.skipped["1"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda given: given.remove_columns("image"), {}, "no column of pictures among label, name"),
        (
            lambda given: concatenate_datasets([given, other()], axis=1),
            {},
            r"several columns of pictures \(image, other",
        ),
        (lambda given: given, {"id_column": "key"}, "no column 'key', only image, label"),
        (lambda given: given, {"image_column": "photo"}, "no column 'photo'"),
        (lambda given: given, {"metadata_columns": ["colour"]}, "no column 'colour'"),
        (lambda given: DatasetDict(train=given), {}, "give one of them, 'train'"),
        (lambda given: given.select([]), {}, "no picture that can be used"),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused(model, change, options, message):
    with pytest.raises(RetrieverError, match=message):
        SketchRetriever.from_dataset(change(dataset()), model, **options)


def test_a_format_of_the_data_set_makes_no_difference(model):
    retriever = SketchRetriever.from_dataset(dataset().with_format("numpy"), model)
    assert stored(retriever) == stored(SketchRetriever.from_dataset(dataset(), model))
