"""What people send is looked at before it is used, and a visitor's own pictures leave nothing behind."""

import io

import numpy as np
import pytest
from demo_parts import draw
from PIL import Image

# isort: split
import uploads
from uploads import MOST_OWN, UploadError, add_own, check_upload


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "sent"))
    (tmp_path / "sent").mkdir()
    return tmp_path / "sent"


def encode(pictures):
    return np.zeros((len(pictures), 8), np.uint8)


def test_gives_path_and_name_of_an_upload(folder):
    path = draw(folder)
    assert check_upload({"path": str(path), "orig_name": "my cat.png"}) == (path, "my cat.png")
    assert check_upload({"path": str(path)}) == (path, "drawing.png")


@pytest.mark.parametrize("path", ["../secret.png", "{folder}/../secret.png", "/etc/passwd", "", "{folder}"])
def test_no_other_path_is_opened(folder, path):
    draw(folder.parent, "secret.png")
    with pytest.raises(UploadError, match="only uploaded files"):
        check_upload({"path": path.format(folder=folder)})


def test_a_link_out_of_the_folder_is_not_followed(folder):
    (folder / "link.png").symlink_to(draw(folder.parent, "secret.png"))
    with pytest.raises(UploadError, match="only uploaded files"):
        check_upload({"path": str(folder / "link.png")})


@pytest.mark.parametrize("sent", [None, "drawing.png", 7, {}, {"path": None}, {"path": ["a"]}])
def test_what_is_no_upload_is_refused(folder, sent):
    with pytest.raises(UploadError, match="only uploaded files"):
        check_upload(sent)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("letter.png", b"Dear Madam,"),
        ("empty.png", b""),
        ("script.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
        ("outside.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'),
        ("program.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    ],
)
def test_other_kinds_of_files_are_refused_by_name(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(UploadError, match=rf"^{name} is not a picture that can be read \(JPEG, PNG"):
        check_upload({"path": str(folder / name)})


def test_a_decompression_bomb_is_refused_before_it_is_decoded(folder):
    Image.new("1", (5001, 5000)).save(folder / "bomb.png")
    with pytest.raises(UploadError, match=r"bomb\.png has more than 25,000,000 pixels"):
        check_upload({"path": str(folder / "bomb.png")})
    Image.new("1", (20000, 20000)).save(folder / "bomb.png")  # so large that Pillow itself refuses it
    with pytest.raises(UploadError, match=r"bomb\.png has more than 25,000,000 pixels"):
        check_upload({"path": str(folder / "bomb.png")})


def test_a_path_in_a_name_stays_out_of_it(folder):
    assert check_upload({"path": str(draw(folder)), "orig_name": "../../etc/<b>.png"})[1] == "<b>.png"


def test_own_pictures_are_reduced(folder):
    photo = Image.new("RGB", (3000, 1500), "red")
    exif = photo.getexif()
    exif[0x010F] = "a camera"
    photo.save(folder / "photo.jpg", exif=exif)
    (one,), faults = add_own((), [(folder / "photo.jpg", "photo.jpg")], encode)
    assert faults == []
    assert one.name == "photo.jpg"
    assert Image.open(io.BytesIO(one.picture)).size == (512, 256)
    assert Image.open(io.BytesIO(one.thumbnail)).size == (256, 128)
    assert b"a camera" not in one.picture


def test_own_pictures_add_up_to_a_limit(folder):
    own, _ = add_own((), [(draw(folder, f"{n}.png"), f"{n}.png") for n in range(MOST_OWN)], encode)
    assert len(own) == MOST_OWN
    more, faults = add_own(own, [(draw(folder), "drawing.png")], encode)
    assert more == own
    assert faults == [f"drawing.png is one too many: {MOST_OWN} pictures of your own at most"]


def test_a_damaged_one_is_named_and_the_others_are_taken_up(folder):
    whole = draw(folder, "whole.png")
    half = folder / "half.png"
    half.write_bytes(whole.read_bytes()[:100])
    (one,), (fault,) = add_own((), [(half, "mine.png"), (whole, "whole.png")], encode)
    assert one.name == "whole.png"
    assert fault.startswith("mine.png is damaged or truncated")


def test_a_picture_that_somebody_else_sent_too_stays_theirs(folder):
    same = [(draw(folder), "drawing.png")]  # Gradio calls files by what is in them: both have this one
    assert len(add_own((), same, encode)[0]) == 1
    letter = folder / "letter.png"
    letter.write_bytes(b"Dear Madam,")
    own, (fault,) = add_own((), [*same, (letter, "letter.png")], encode)
    assert fault.startswith("letter.png is not a picture")
    assert len(own) == len(add_own((), same, encode)[0]) == 1


def test_nothing_sent_is_nothing_added(folder):
    assert add_own((), [], encode) == ((), [])


def test_the_limits_are_said_to_gradio():
    import page

    assert page.LAUNCH["max_file_size"] == uploads.LARGEST_FILE
