import json
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from dsh_hf.data.splits import SPLIT_NAMES, Split, make_split
from dsh_hf.data.zero_shot import UNSEEN_CLASSES

GROUPS = {"ant": 2, "bee": 3, "cow": 4}  # photographs drawn in each class
PHOTOS = 6


def dataset(**columns):
    features = {name: Value("string") for name in columns}
    features["label"] = ClassLabel(names=sorted(set(columns["label"])))
    return Dataset.from_dict(columns, features=Features(features))


def toy(groups=GROUPS, photos=PHOTOS, sketches=3, backwards=False):
    drawn = [(c, f"{c}/p{p}", f"{c}/p{p}-{s}") for c in groups for p in range(groups[c]) for s in range(sketches)]
    shown = [(c, f"{c}/p{p}") for c in groups for p in range(photos)]
    if backwards:
        drawn, shown = drawn[::-1], shown[::-1]
    return DatasetDict(
        sketches=dataset(
            label=[c for c, _, _ in drawn], photo_id=[p for _, p, _ in drawn], id=[i for _, _, i in drawn]
        ),
        images=dataset(label=[c for c, _ in shown], id=[p for _, p in shown]),
    )


def photographs(ids):
    return {i.rpartition("-")[0] for i in ids}


@pytest.mark.parametrize("name", ["open", "strict"])
def test_one_photograph_a_class_gives_the_queries_and_another_one_validation(name):
    split = make_split(toy(), name)
    assert Counter(p[:3] for p in photographs(split.query_sketches)) == {"ant": 1, "bee": 1, "cow": 1}
    # ant has two photographs only: the other one must train
    assert Counter(p[:3] for p in photographs(split.validation_sketches)) == {"bee": 1, "cow": 1}
    assert len(split.query_sketches) == 9  # all three sketches of each
    assert len(split.validation_sketches) == 6


def test_open_trains_on_the_whole_gallery():
    data = toy()
    parts = make_split(data, "open").select(data)
    assert parts["train_images"]["id"][:] == parts["gallery_images"]["id"][:] == data["images"]["id"][:]


def test_strict_has_the_same_queries_and_a_gallery_never_trained_on():
    data = toy()
    strict = make_split(data, "strict")
    assert strict.query_sketches == make_split(data, "open").query_sketches
    parts = strict.select(data)
    gallery, train = set(parts["gallery_images"]["id"]), set(parts["train_images"]["id"])
    assert Counter(i[:3] for i in gallery) == {"ant": 3, "bee": 3, "cow": 3}
    assert not gallery & train
    assert gallery | train == set(data["images"]["id"])


@pytest.mark.parametrize("name", ["open", "strict"])
def test_sketches_of_one_photograph_lie_on_one_side(name):
    data = toy()
    parts = make_split(data, name).select(data)
    sides = [set(parts[f"{side}_sketches"]["photo_id"]) for side in ("train", "validation", "query")]
    assert all(sides)
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sum(len(parts[f"{side}_sketches"]) for side in ("train", "validation", "query")) == 27


def test_the_choice_is_fixed_by_the_seed_alone():
    # Worked out with sha256sum: any machine and Python must choose these.
    split = make_split(toy(), "strict", seed=0)
    assert photographs(split.query_sketches) == {"ant/p1", "bee/p0", "cow/p2"}
    assert photographs(split.validation_sketches) == {"bee/p1", "cow/p1"}
    assert split.held_out_images[:3] == ("ant/p1", "ant/p3", "ant/p5")
    assert make_split(toy(backwards=True), "strict", seed=0) == split
    assert any(make_split(toy(), seed=s).query_sketches != split.query_sketches for s in (1, 2, 3))


def test_a_saved_split_comes_back_and_reads_as_plain_json(tmp_path):
    split = make_split(toy(), "strict", seed=7)
    split.save(tmp_path / "strict.json")
    assert Split.load(tmp_path / "strict.json") == split
    content = json.loads((tmp_path / "strict.json").read_text())
    assert content["name"] == "strict"
    assert content["seed"] == 7
    assert content["query_sketches"] == list(split.query_sketches)


def test_saving_replaces_the_file_and_leaves_nothing_else(tmp_path):
    make_split(toy(), "open").save(tmp_path / "split.json")
    make_split(toy(), "strict").save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json").name == "strict"
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "[]",
        '{"name": "open", "seed": 0}',
        '{"name": "open", "seed": 0, "query_sketches": "ant/1", "validation_sketches": [], "held_out_images": []}',
        '{"name": "open", "seed": 0, "query_sketches": [1, 2], "validation_sketches": [], "held_out_images": []}',
    ],
)
def test_a_file_that_is_no_split_is_named(tmp_path, content):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=r"bad\.json is not a split"):
        Split.load(tmp_path / "bad.json")


def test_ids_that_the_data_lack_are_counted():
    split = make_split(toy())
    with pytest.raises(ValueError, match=r"5 of the split's 15 sketches are not in the data"):
        split.select(toy(sketches=2))
    with pytest.raises(ValueError, match="of the split's 9 images are not in the data"):
        make_split(toy(), "strict").select(toy(photos=2))


def test_classes_too_small_to_divide_are_all_listed():
    with pytest.raises(ValueError, match="two or more photographs: ant, cow"):
        make_split(toy({"ant": 1, "bee": 2, "cow": 1}))
    with pytest.raises(ValueError, match="4 or more images for a strict split: ant, bee, cow"):
        make_split(toy(photos=3), "strict")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"one of open, strict, paper, zero-shot, sketchy-25, .*, got 'closed'"):
        make_split(toy(), "closed")


@pytest.mark.parametrize("name", ["open", "strict", "paper"])
def test_a_split_finds_its_pictures_under_any_spelling_of_the_classes(name):
    here, elsewhere = (
        toy({first: 3, unicodedata.normalize(form, "café"): 3})
        for first, form in (("alarm clock", "NFC"), ("Alarm_Clock", "NFD"))
    )
    split = make_split(here, name, **({"queries_per_class": 2} if name == "paper" else {}))
    parts, others = split.select(here), split.select(elsewhere)
    assert parts.num_rows == others.num_rows
    assert all(parts.num_rows.values())
    for part, rows in parts.items():
        assert [i.partition("/")[2] for i in rows["id"]] == [i.partition("/")[2] for i in others[part]["id"]]


def test_an_id_that_is_there_as_it_is_is_not_taken_for_another_spelling():
    data = loose(8, classes=("a-1", "a1"))
    parts = Split("open", 0, query_sketches=("a1/2",)).select(data)
    assert parts["query_sketches"]["id"][:] == ["a1/2"]


def test_ids_without_a_class_are_not_respelled():
    ids = dataset(label=["ant", "ant"], id=["1-1", "1-2"])
    with pytest.raises(ValueError, match="1 of the split's 1 sketches are not in the data"):
        Split("open", 0, query_sketches=("11",)).select(DatasetDict(sketches=ids, images=ids))


def test_dividing_chosen_rows_by_class_copies_no_picture():
    data = loose(2, 3, ANIMALS)
    data["sketches"] = data["sketches"].select(range(7, 1, -1))
    parts = make_split(data, "zero-shot", unseen=["ant"]).select(data)
    assert len(parts["train_sketches"].data) == 8  # all rows are still there, behind the choice
    assert parts["train_sketches"]["id"][:] == ["cow/1", "cow/0", "bee/1", "bee/0"]
    assert parts["train_sketches"]["label"][:] == [2, 2, 1, 1]


# Data whose sketches draw no known photographs.


def loose(sketches=16, images=6, classes=("ant", "bee"), dataset_name=None):
    """Give classes of so many sketches and images; a number, or one for each class."""
    counts = [[n] * len(classes) if isinstance(n, int) else n for n in (sketches, images)]
    views = [[(c, f"{c}/{i}") for c, n in zip(classes, count, strict=True) for i in range(n)] for count in counts]
    data = DatasetDict(
        {
            view: dataset(label=[c for c, _ in rows], id=[i for _, i in rows])
            for view, rows in zip(("sketches", "images"), views, strict=True)
        }
    )
    for part in data.values():
        part.info.dataset_name = dataset_name
    return data


def per_class(ids):
    return dict(Counter(i.partition("/")[0] for i in ids))


@pytest.mark.parametrize(
    ("sketches", "queries", "validation"),
    [(2, 1, 0), (3, 1, 1), (15, 1, 1), (16, 2, 2), (80, 10, 10)],
)
def test_without_photographs_one_sketch_in_eight_is_a_query_and_as_many_validate(sketches, queries, validation):
    split = make_split(loose(sketches))
    assert per_class(split.query_sketches) == {"ant": queries, "bee": queries}
    assert per_class(split.validation_sketches) == ({"ant": validation, "bee": validation} if validation else {})
    assert not set(split.query_sketches) & set(split.validation_sketches)


def test_a_sketch_whose_photograph_is_unknown_stands_for_itself():
    data = toy({"ant": 2})
    rows = data["sketches"].to_dict()
    rows["photo_id"] = ["ant/p0"] * 3 + [None] * 3
    data["sketches"] = Dataset.from_dict(rows, features=data["sketches"].features)
    parts = make_split(data).select(data)
    sides = [part["photo_id"][:] for name, part in parts.items() if name.endswith("sketches")]
    assert sorted(map(len, sides)) in ([1, 1, 4], [1, 2, 3])
    assert sum("ant/p0" in side for side in sides) == 1


def test_strict_holds_out_a_tenth_of_the_images_of_a_large_class():
    split = make_split(loose(images=[49, 4]), "strict")
    assert per_class(split.held_out_images) == {"ant": 4, "bee": 3}


def test_a_class_of_one_sketch_is_too_small():
    with pytest.raises(ValueError, match="need two or more sketches: bee"):
        make_split(loose([5, 1]))


# The paper's protocol.


@pytest.mark.parametrize(("dataset_name", "queries"), [("sketchy", 50), ("tu-berlin", 10)])
def test_paper_takes_the_published_number_of_queries_and_all_images(dataset_name, queries):
    data = loose(3 * queries, dataset_name=dataset_name)
    split = make_split(data, "paper")
    assert per_class(split.query_sketches) == {"ant": queries, "bee": queries}
    assert per_class(split.validation_sketches) == {"ant": queries, "bee": queries}
    parts = split.select(data)
    assert parts["train_images"]["id"][:] == parts["gallery_images"]["id"][:] == data["images"]["id"][:]


def test_paper_validates_only_where_as_many_sketches_are_left_to_train():
    split = make_split(loose([29, 30], dataset_name="tu-berlin"), "paper")
    assert per_class(split.query_sketches) == {"ant": 10, "bee": 10}
    assert per_class(split.validation_sketches) == {"bee": 10}


def test_paper_needs_a_number_for_other_data_and_takes_it_for_known_data():
    with pytest.raises(ValueError, match=r"queries_per_class must be 1 or more.* called 'doodles'"):
        make_split(loose(dataset_name="doodles"), "paper")
    with pytest.raises(ValueError, match="queries_per_class must be 1 or more"):
        make_split(loose(dataset_name="sketchy"), "paper", queries_per_class=0)
    for name in ("doodles", "sketchy"):
        assert len(make_split(loose(dataset_name=name), "paper", queries_per_class=4).query_sketches) == 8


def test_paper_lists_the_classes_with_too_few_sketches():
    with pytest.raises(ValueError, match=r"need more than 10 sketches .* \(queries_per_class .*\): ant$"):
        make_split(loose([10, 11], dataset_name="tu-berlin"), "paper")


def test_the_papers_queries_are_fixed_by_the_seed_alone():
    # Worked out with sha256sum: any machine and Python must choose these.
    split = make_split(loose(6), "paper", seed=3, queries_per_class=2)
    assert split.query_sketches == ("ant/1", "ant/5", "bee/0", "bee/1")
    assert split.validation_sketches == ("ant/2", "ant/4", "bee/4", "bee/5")
    assert make_split(loose(6), "paper", seed=4, queries_per_class=2) != split


# Zero-shot: unseen classes.

ANIMALS = ("Hot-Air_Balloon", "ant", "bee", "cow")


@pytest.mark.parametrize(("name", "classes"), [("sketchy-25", 25), ("sketchy-21", 21), ("tu-berlin-30", 30)])
def test_the_usual_lists_are_whole_and_divide_data_of_any_spelling(name, classes):
    unseen = UNSEEN_CLASSES[name]
    assert len(set(unseen)) == classes
    spelled = sorted(n.replace("_", " ").replace("-", "_").title() for n in unseen)
    data = loose(2, 3, (*spelled, "seen"))
    parts = make_split(data, name).select(data)
    assert parts.num_rows == {
        "train_sketches": 2,
        "validation_sketches": 0,
        "query_sketches": 2 * classes,
        "train_images": 3,
        "gallery_images": 3 * classes,
    }


def test_ones_own_classes_may_be_unseen():
    data = loose(2, 3, ANIMALS)
    split = make_split(data, "zero-shot", unseen=["hot air balloon", "BEE"])
    assert split == Split("zero-shot", 0, unseen_classes=("hot air balloon", "BEE"))
    parts = split.select(data)
    assert per_class(parts["query_sketches"]["id"]) == {"Hot-Air_Balloon": 2, "bee": 2}
    assert per_class(parts["gallery_images"]["id"]) == {"Hot-Air_Balloon": 3, "bee": 3}
    assert per_class(parts["train_sketches"]["id"]) == {"ant": 2, "cow": 2}
    assert per_class(parts["train_images"]["id"]) == {"ant": 3, "cow": 3}


def test_what_trains_has_labels_of_the_seen_classes_alone():
    data = loose(2, 3, ANIMALS)
    parts = make_split(data, "zero-shot", unseen=["ant", "Hot-Air_Balloon"]).select(data)
    for name in ("train_sketches", "validation_sketches", "train_images"):
        label = parts[name].features["label"]
        assert label.names == ["bee", "cow"]
        assert [label.int2str(n) for n in parts[name]["label"]] == [i.partition("/")[0] for i in parts[name]["id"]]
        assert parts[name].column_names == data["images"].column_names
    for name in ("query_sketches", "gallery_images"):
        label = parts[name].features["label"]
        assert label.names == list(ANIMALS)
        assert [label.int2str(n) for n in parts[name]["label"]] == [i.partition("/")[0] for i in parts[name]["id"]]


def test_a_zero_shot_split_is_kept_as_the_names_of_its_classes(tmp_path):
    data = loose(2, 3, ANIMALS)
    split = make_split(data, "zero-shot", unseen=["ant", "cow"])
    split.save(tmp_path / "split.json")
    assert json.loads((tmp_path / "split.json").read_text()) == {
        "format": 2,
        "name": "zero-shot",
        "seed": 0,
        "query_sketches": [],
        "validation_sketches": [],
        "held_out_images": [],
        "unseen_classes": ["ant", "cow"],
    }
    loaded = Split.load(tmp_path / "split.json")
    assert loaded == split
    assert loaded.select(data)["query_sketches"]["id"][:] == split.select(data)["query_sketches"]["id"][:]


def test_unseen_classes_that_the_data_lack_are_listed():
    data = loose([2, 0, 2], 3, ("ant", "bee", "cow"))
    with pytest.raises(ValueError, match="no sketches of 2 of the split's 3 unseen classes: bee, ray"):
        make_split(data, "zero-shot", unseen=["ant", "bee", "ray"])
    with pytest.raises(ValueError, match=r"no sketches of 25 of the split's 25 unseen classes: airplane, bell, "):
        make_split(data, "sketchy-25")
    data = loose(2, [3, 0, 3], ("ant", "bee", "cow"))
    with pytest.raises(ValueError, match="no images of 1 of the split's 1 unseen classes: bee"):
        Split("zero-shot", 0, unseen_classes=("bee",)).select(data)


def test_unseen_classes_must_leave_some_to_train():
    with pytest.raises(ValueError, match="no sketches of other classes than the unseen ones"):
        make_split(loose(), "zero-shot", unseen=["ant", "bee"])


@pytest.mark.parametrize("unseen", [None, [], "ant"])
def test_a_zero_shot_split_needs_a_list_of_names(unseen):
    with pytest.raises(ValueError, match=r"needs unseen=\[...\], a list"):
        make_split(loose(), "zero-shot", unseen=unseen)


def test_an_argument_of_another_split_is_refused():
    for name in set(SPLIT_NAMES) - {"paper"}:
        with pytest.raises(ValueError, match='queries_per_class belongs to the split "paper"'):
            make_split(loose(), name, queries_per_class=3)
    for name in set(SPLIT_NAMES) - {"zero-shot"}:
        with pytest.raises(ValueError, match='unseen belongs to the split "zero-shot"'):
            make_split(loose(), name, unseen=["ant"])


# Files and processes.


def test_a_file_of_the_first_format_still_loads(tmp_path):
    content = {
        "name": "strict",
        "seed": 5,
        "query_sketches": ["ant/0"],
        "validation_sketches": [],
        "held_out_images": ["ant/1", "ant/2"],
    }
    (tmp_path / "old.json").write_text(json.dumps(content))
    assert Split.load(tmp_path / "old.json") == Split("strict", 5, ("ant/0",), (), ("ant/1", "ant/2"))


def test_a_file_of_a_later_format_asks_for_a_newer_version(tmp_path):
    (tmp_path / "new.json").write_text(json.dumps({"format": 3, "name": "open", "what": "ever"}))
    with pytest.raises(ValueError, match=r"new\.json is a split of format 3, and this version reads up to 2: pip"):
        Split.load(tmp_path / "new.json")


def fingerprints():
    data = loose(8, 9, ANIMALS)
    splits = [make_split(data, "strict"), make_split(data, "paper", queries_per_class=2)]
    splits.append(make_split(data, "zero-shot", unseen=["bee"]))
    return [part._fingerprint for split in splits for part in split.select(data).values()]


def test_another_process_gives_the_same_fingerprints():
    # Training resumes by them.
    code = "import test_splits; print(*test_splits.fingerprints())"
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert run.stdout.split() == fingerprints(), run.stderr
