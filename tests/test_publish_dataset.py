"""A data set of one's own on the Hub: what arrives is what was sent, and what is not ours is refused."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value, load_dataset
from huggingface_hub import DatasetCard, HfApi
from loopback_hub import Fault, LoopbackHub
from PIL import Image as PillowImage

from dsh_hf import sending
from dsh_hf.data.publish import refuse_published, send_dataset
from dsh_hf.data.published import SKETCHY, TU_BERLIN
from dsh_hf.data.sources import join_domains, open_source

ROOT = Path(__file__).parents[1]
KEY = "datasets/org/pets"


def draw(path: Path, shade: int, size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(shade).integers(0, 256, (*size, 3), dtype=np.uint8)
    PillowImage.fromarray(picture).save(path)


@pytest.fixture
def own(tmp_path) -> Path:
    """Two classes, spelled differently in the two domains: 2 sketches and 3 photographs of each."""
    shade = 0
    for folder, names, count, suffix in (
        ("drawings", ("cat", "hot-dog"), 2, "png"),
        ("photos", ("Cat", "hot dog"), 3, "jpg"),
    ):
        for name in names:
            for number in range(count):
                draw(tmp_path / folder / name / f"my {number}.{suffix}", shade := shade + 1)
    return tmp_path


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(sending, "WAITS", (0.0, 0.0))
    with LoopbackHub() as hub:
        hub.patch(monkeypatch, tmp_path / "home", token=hub.token)
        monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        yield hub


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("push_to_hub", ROOT / "push_to_hub.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def push(script, own, capsys):
    """Run the script on one's own pictures; give the exit code and what it printed."""

    def run(*options: str, licence: str = "cc-by-4.0", sketches: Path = own / "drawings") -> tuple[int, str, str]:
        places = ["--sketches", str(sketches), "--images", str(own / "photos")]
        code = script.main([*places, "--licence", licence, "--repo", "org/pets", *options])
        return code, *capsys.readouterr()

    return run


def contents(rows) -> list[bytes]:
    return [row["image"]["bytes"] for row in rows]


def test_the_pictures_arrive_as_the_same_bytes(hub, push, own):
    code, out, err = push()
    assert code == 0, err
    assert "4 sketches, 6 images of 2 classes, cc-by-4.0 -> org/pets" in out
    assert "verified: org/pets" in out
    there = load_dataset("org/pets", split="images", streaming=True).decode(False)
    assert contents(there) == [path.read_bytes() for path in sorted((own / "photos").rglob("*.jpg"))]


def test_the_card_has_the_licence_the_counts_and_the_way_to_load_it(hub, push):
    assert push()[0] == 0
    card = DatasetCard.load("org/pets")
    assert card.data.license == "cc-by-4.0"
    assert "| hot-dog | 2 | 3 |" in card.text
    assert 'open_source("org/pets:sketches")' in card.text
    assert {split["split"] for split in card.data.configs[0]["data_files"]} == {"sketches", "images"}


def test_what_the_card_says_loads_it(hub, push):
    assert push()[0] == 0
    data = join_domains(open_source("org/pets:sketches"), open_source("org/pets:images"))
    assert data["images"].features["label"].names == ["cat", "hot-dog"]
    assert data["sketches"]["id"][:] == ["cat/my 0", "cat/my 1", "hot-dog/my 0", "hot-dog/my 1"]
    assert data["images"][5]["label"] == 1
    assert data["images"][5]["image"].size == (16, 20)


def test_a_second_push_sends_nothing_new(hub, push):
    assert push()[0] == 0
    messages = list(hub.repos[KEY].messages)
    code, out, _ = push()
    assert (code, "verified: org/pets" in out) == (0, True)
    assert hub.repos[KEY].messages == messages == ["initial commit", "Card", "Sketches and images"]


def test_new_pictures_come_before_the_card_that_counts_them(hub, push, own):
    assert push()[0] == 0
    draw(own / "photos" / "Cat" / "my 9.jpg", 99)
    assert push()[0] == 0
    assert hub.repos[KEY].messages[3:] == ["Sketches and images", "Card"]
    card = DatasetCard.load("org/pets")
    assert "| cat | 2 | 4 |" in card.text
    assert card.data.dataset_info["splits"][1]["num_examples"] == 7
    assert card.data.configs


def test_another_licence_comes_before_the_pictures(hub, push, own):
    assert push()[0] == 0
    draw(own / "photos" / "Cat" / "my 9.jpg", 99)
    assert push(licence="cc0-1.0")[0] == 0
    assert hub.repos[KEY].messages[3:] == ["Card", "Sketches and images"]
    card = DatasetCard.load("org/pets")
    assert (card.data.license, card.data.dataset_info["splits"][1]["num_examples"]) == ("cc0-1.0", 7)


def test_what_breaks_off_leaves_the_old_card_over_the_old_pictures(hub, push, own):
    assert push()[0] == 0
    before = hub.repos[KEY].files()
    draw(own / "photos" / "Cat" / "my 9.jpg", 99)
    hub.faults = [Fault("POST /api/datasets/org/pets/commit", "die")]
    code, _, err = push()
    assert (code, "repeat the same command, which sends the rest" in err) == (1, True)
    assert hub.repos[KEY].files() == before
    hub.start_again()
    assert push()[0] == 0
    assert "| cat | 2 | 4 |" in DatasetCard.load("org/pets").text


def test_another_repositorys_card_is_not_replaced_without_a_word(hub, push, caplog):
    HfApi(token=hub.token).create_repo("org/pets", repo_type="dataset")
    hub.repos[KEY].files()["README.md"] = b"---\nlicense: cc-by-4.0\npretty_name: My dogs\n---\n# My dogs\n"
    assert push()[0] == 0
    assert "org/pets has another card: it is replaced" in caplog.text
    assert "# pets" in DatasetCard.load("org/pets").text
    caplog.clear()
    assert push()[0] == 0
    assert "another card" not in caplog.text


def test_a_server_that_fails_now_and_then_is_put_up_with(hub, push):
    hub.faults = [
        Fault("POST /api/repos/create", 502),
        Fault("POST /api/datasets/org/pets/commit", 503),
        Fault("PUT /lfs/", "cut"),
        Fault("GET /datasets/org/pets/resolve/[^/]+/README.md", "cut"),
    ]
    code, out, err = push()
    assert (code, "verified: org/pets" in out) == (0, True), err
    assert [fault.request for fault in hub.faults if fault.times] == []


def test_a_dry_run_shows_the_card_and_sends_nothing(hub, push):
    code, out, _ = push("--dry-run")
    assert (code, hub.repos) == (0, {})
    assert "license: cc-by-4.0" in out and "nothing was sent" in out


def test_a_private_data_set_is_closed_to_others(hub, push):
    assert push("--private")[0] == 0
    assert hub.repos["datasets/org/pets"].private


def test_a_private_push_never_lands_in_a_public_repository(hub, push):
    HfApi(token=hub.token).create_repo("org/pets", repo_type="dataset")
    code, _, err = push("--private")
    assert (code, "is public" in err) == (2, True)
    assert list(hub.repos["datasets/org/pets"].files()) == [".gitattributes"]


def test_other_pictures_on_the_hub_are_found_out(hub, push, own, monkeypatch):
    real = DatasetDict.push_to_hub

    def with_another_picture(data, *given, **options):
        pictures = data["images"].cast_column("image", Image(decode=False)).to_list()
        pictures[4]["image"] = pictures[3]["image"]
        changed = Dataset.from_list(pictures, features=data["images"].features)
        return real(DatasetDict(sketches=data["sketches"], images=changed), *given, **options)

    monkeypatch.setattr(DatasetDict, "push_to_hub", with_another_picture)
    code, out, err = push()
    assert code == 1
    assert "the images differ in row 4" in err
    assert "verified" not in out


def test_missing_rows_on_the_hub_are_found_out(hub, push, monkeypatch):
    real = DatasetDict.push_to_hub

    def without_the_last(data, *given, **options):
        return real(DatasetDict(data | {"images": data["images"].select(range(5))}), *given, **options)

    monkeypatch.setattr(DatasetDict, "push_to_hub", without_the_last)
    code, _, err = push()
    assert (code, "the images differ in row 5 of 6" in err) == (1, True)


def test_photo_ids_of_sketches_arrive(hub, own):
    data = join_domains(open_source(str(own / "drawings")), open_source(str(own / "photos")))
    data["sketches"] = data["sketches"].add_column("photo_id", ["a", "b", "c", "d"])
    send_dataset(data, "org/pets", "---\nlicense: cc0-1.0\n---\n# pets\n", private=False, token=hub.token)
    assert open_source("org/pets:sketches")["photo_id"][:] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"licence": ""}, "needs all of --sketches, --images and --licence"),
        ({"licence": "my own!"}, "give the Hub's word for it"),
        ({"sketches": Path("./nowhere")}, "nowhere"),
    ],
)
def test_bad_input_sends_nothing(hub, push, options, message):
    code, _, err = push(**options)
    assert (code, hub.requests) == (2, [])
    assert message in err
    assert len(err.splitlines()) == 1


def test_options_of_models_are_refused(push):
    code, _, err = push("--create-pr")
    assert (code, "--create-pr are for models" in err) == (2, True)


def test_nothing_to_send_is_told(script, capsys):
    assert script.main(["--repo", "org/pets"]) == 2
    assert "name what to send" in capsys.readouterr().err


# What is not ours


def named(paths: list[str], names: list[str], size: tuple[int, int], tmp_path: Path) -> DatasetDict:
    """Give a data set whose files have these names, with one picture for all."""
    draw(tmp_path / "any.png", 1, size)
    content = (tmp_path / "any.png").read_bytes()
    features = Features({"image": Image(), "label": ClassLabel(names=names), "id": Value("string")})
    rows = {
        "image": [{"bytes": content, "path": path} for path in paths],
        "label": [0] * len(paths),
        "id": [str(Path(path).with_suffix("")) for path in paths],
    }
    return DatasetDict(images=Dataset.from_dict(rows, features=features))


@pytest.mark.parametrize(
    ("paths", "names", "size", "message"),
    [
        (["cat/n02121620_1039-3.png"], ["cat"], (9, 9), "Sketchy's .* is named as its files are"),
        (["cat/mine.png", "cat/n02121620_1039.jpg"], ["cat"], (9, 9), "Sketchy's .* is named as its files are"),
        (["ext_17.jpg"], ["cat"], (9, 9), "Sketchy's .* is named as its files are"),
        (["256x256/sketch/tx_000000000000/cat/1.png"], ["cat"], (9, 9), "Sketchy's .* its folder tx_000000000000"),
        (["ImageResized_ready/cat/1.jpg"], ["cat"], (9, 9), "TU-Berlin's .* its folder ImageResized"),
        (["1201.png"], ["bear (animal)"], (1111, 1111), "TU-Berlin's .* the name and the size of its sketches"),
        (["mine.png"], list(SKETCHY.classes[:120]), (9, 9), "Sketchy's .*these are its classes"),
        (["mine.png"], list(TU_BERLIN.classes), (9, 9), "TU-Berlin's .*these are its classes"),
    ],
)
def test_pictures_that_are_not_ours_are_refused(paths, names, size, message, tmp_path):
    with pytest.raises(ValueError, match=message) as refused:
        refuse_published(named(paths, names, size, tmp_path))
    assert "not ours to publish" in str(refused.value)


@pytest.mark.parametrize(
    ("paths", "names", "size"),
    [
        (["ext_17.jpg"], ["front door", "kitchen"], (9, 9)),  # somebody's house
        (["1201.png"], ["bear (animal)"], (9, 9)),
        (["1201.png"], ["circuit"], (1111, 1111)),
        (["mine.png"], list(SKETCHY.classes[:60]), (9, 9)),
    ],
)
def test_pictures_that_only_look_like_it_are_taken(paths, names, size, tmp_path):
    refuse_published(named(paths, names, size, tmp_path))


def test_the_command_refuses_sketchy_before_it_asks_the_hub(hub, push, own):
    draw(own / "sketchy" / "cat" / "n02121620_1039-3.png", 1)
    draw(own / "sketchy" / "hot-dog" / "n07697537_1.png", 2)
    code, _, err = push(sketches=own / "sketchy")
    assert (code, hub.requests) == (2, [])
    assert "the sketches are Sketchy's" in err
