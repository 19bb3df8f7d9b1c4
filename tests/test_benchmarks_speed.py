"""The arithmetic of the benchmark of speed, and what it prints of figures that are known."""

import time

import pytest
from PIL import Image

from benchmarks import _speed_measure
from benchmarks._speed_encode import thousand
from benchmarks._speed_growth import up_to
from benchmarks._speed_measure import Taken, exponent, interleaved, median_of, spread
from benchmarks._speed_pictures import in_turn, make_pictures
from benchmarks._speed_report import PRINTERS, draw_growth

SIZES = (10, 100, 1000)


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_the_exponent_of_a_power_is_found(power):
    assert exponent(SIZES, [3e-6 * size**power for size in SIZES]) == pytest.approx(power, abs=1e-9)


def test_a_fixed_cost_makes_growth_less_than_linear():
    assert 0 < exponent(SIZES, [5 + 0.01 * size for size in SIZES]) < 1


def test_one_size_has_no_exponent():
    with pytest.raises(ValueError, match="two sizes"):
        exponent([10, 10], [1, 2])


def test_parts_run_in_turns_and_the_first_turn_is_not_counted(monkeypatch):
    order = []
    clock = iter([0, 9, 9, 18, 20, 22, 22, 23, 30, 34, 34, 35, 40, 46, 46, 49])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(time, "process_time", lambda: 0)
    taken = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 4
    assert (taken["a"].seconds, taken["b"].seconds) == (4, 1)  # of 2, 4, 6 and of 1, 1, 3; the 9s are left out


def test_medians_and_scales():
    assert median_of([Taken(1, 6), Taken(3, 4), Taken(2, 5)]) == Taken(2, 5)
    assert thousand(Taken(2, 3), 250) == Taken(8, 12)
    assert spread([200, 210, 220]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("most", "expected"), [(5, [5]), (10, [10]), (50, [10, 50]), (1000, [10, 100, 1000]), (9999, [10, 100, 1000])]
)
def test_sizes_up_to_a_limit(most, expected):
    assert up_to(SIZES, most) == expected


def test_the_peak_of_memory_grows_with_what_is_held():
    before = _speed_measure.peak_memory()
    held = bytearray(200_000_000)
    held[::4096] = b"x" * len(held[::4096])
    assert _speed_measure.peak_memory() > before + 100 or before > 1000  # earlier tests may have held more


def test_pictures_are_made_once_and_of_the_sizes_that_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks._speed_pictures.LARGE", (400, 300))
    files = make_pictures(tmp_path, 3, None, None)
    expected = {"image 256": 3, "image 12M": 2, "sketch 256": 3, "sketch 12M": 2}
    assert {name: len(paths) for name, paths in files.items()} == expected
    for name, paths in files.items():
        with Image.open(paths[-1]) as picture:
            assert picture.size == ((256, 256) if name.endswith("256") else (400, 300))
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert make_pictures(tmp_path, 3, None, None) == files
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamps
    assert in_turn(["a", "b"], 5) == ["a", "b", "a", "b", "a"]


def test_ratios_of_end_to_end_and_their_bar(capsys):
    rows = [
        {"name": "float32", "batch": 32, "per_second": 100.0},
        {"name": "ONNX Runtime", "batch": 8, "per_second": 250.0},
    ]
    rates = {"networks alone, float32": 100.0, "files of 256 to codes, float32": 79.0}
    part = {"engines": rows, "per_second": rates, "ratios": {"256, float32": 0.79, "12M, float32": 0.2}, "remarks": []}
    PRINTERS["encode"]({"image": part})
    told = capsys.readouterr().out
    assert "2.50" in told
    assert "files of 256, float32: 0.79 x the networks alone (bar: 0.8, missed)" in told
    assert "files of 12M, float32: 0.20 x the networks alone\n" in told  # no bar there


def test_the_faster_precision_of_each_encoder_counts(capsys):
    def row(slow, fast):
        taken = {"float32": {"seconds": slow, "cpu": 2 * slow}, "bfloat16": {"seconds": fast, "cpu": 2 * fast}}
        return taken | {"faster": "bfloat16" if fast < slow else "float32"}

    encoders = {"this model": row(10.0, 12.0), "CLIP ViT-B/16": row(180.0, 60.0)}
    search = {"size": 10**6, "codes": 0.1, "uniform": 1.0, "floats": 50.0, "codes_batch": 0.1, "floats_batch": 10.0}
    PRINTERS["rivals"]({"encoders": encoders, "search": search, "bits": 64, "features": 512})
    told = capsys.readouterr().out
    assert "CLIP ViT-B/16 takes 6.0 x as long (bar: 5, reached)" in told
    assert "an item: 8 bytes; 512-d float16: 1024 bytes, 128 x as large (bar: 128, reached)" in told
    assert "codes are searched 500 x as fast (bar: 100, reached)" in told


def test_growth_is_told_and_drawn(tmp_path, capsys):
    linear = [{"size": size, "seconds": 1e-3 * size} for size in SIZES]
    square = [{"size": size, "seconds": 1e-6 * size**2} for size in SIZES]
    flat = [{"size": size, "seconds": 0.5} for size in SIZES]
    found = {
        "backend": "torch",
        "encode": linear,
        "search": {"codes": flat, "uniform": linear},
        "code_steps": {"rows": linear, "classes": linear[:1]},
    }
    PRINTERS["growth"](found)
    assert (
        "the steepest: encode pictures, torch, exponent 1.00 (bar: 1, within 0.05, reached)" in capsys.readouterr().out
    )
    PRINTERS["growth"](found | {"encode": square})
    assert (
        "the steepest: encode pictures, torch, exponent 2.00 (bar: 1, within 0.05, missed)" in capsys.readouterr().out
    )
    draw_growth(found, tmp_path / "speed.png")
    with Image.open(tmp_path / "speed.png") as picture:
        picture.verify()


@pytest.mark.parametrize(("most", "told"), [(1090, "9.0%"), (1200, "20.0%")])
def test_memory_is_flat_or_not(capsys, most, told):
    PRINTERS["memory"](
        [{"size": size, "memory": m, "seconds": 1, "backend": "torch"} for size, m in ((10_000, 1000), (100_000, most))]
    )
    verdict = "reached" if most == 1090 else "missed"
    assert f"{told} between the least and the most (bar: 10%, {verdict})" in capsys.readouterr().out


def test_steps_of_a_cold_answer_are_told(capsys):
    row = {"whole": 4.0, "import": 2.0, "model": 0.5, "load": 0.25, "answer": 0.125, "warm": 0.02}
    PRINTERS["answer"]({"size": 1_000_000, "rows": {"codes": row}})
    assert "codes 4.00 2.00 0.50 0.25 0.12 20.0" in " ".join(capsys.readouterr().out.split())
