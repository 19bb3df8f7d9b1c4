import json
import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dsh_hf.codes import hamming_distances, pack_signs
from dsh_hf.evaluation import draw_pr_curve, evaluate


def at_distances(distances, bits):
    """Codes at these Hamming distances from the code whose bits are all 0."""
    return pack_signs(np.arange(bits) < np.asarray(distances)[:, None])


def one_query(distances, relevant, bits=8, **options):
    """Evaluate one query whose gallery has these distances and these relevant (1) and other (0) items."""
    return evaluate(at_distances([0], bits), at_distances(distances, bits), [1], relevant, bits=bits, **options)


def random_task(seed=0, queries=40, gallery=300, classes=5, bits=12):
    rng = np.random.default_rng(seed)
    codes = [pack_signs(rng.standard_normal((n, bits))) for n in (queries, gallery)]
    return *codes, rng.integers(classes, size=queries), np.arange(gallery) % classes


def textbook_average_precision(ranked):
    """The mean of the precisions at the ranks of the relevant items."""
    ranked = np.asarray(ranked)
    return np.mean((ranked.cumsum() / np.arange(1, len(ranked) + 1))[ranked == 1])


def all_rankings(distances, relevant):
    """Every order of the items that goes by distance, as lists of relevant (1) and other (0)."""
    for order in permutations(range(len(distances))):
        ranked = [distances[item] for item in order]
        if ranked == sorted(ranked):
            yield [relevant[item] for item in order]


TIES = [
    ([0, 0, 1, 1, 1, 2], [1, 0, 0, 1, 1, 0]),
    ([3, 3, 3, 3, 3], [0, 1, 0, 0, 0]),
    ([2, 2, 2, 2], [1, 1, 1, 1]),
    ([0, 1, 1, 5, 5, 5, 8], [0, 0, 1, 1, 0, 1, 1]),
    ([1, 1, 0, 0, 4, 4, 4], [0, 0, 0, 1, 0, 0, 1]),
]


@pytest.mark.parametrize(("distances", "relevant"), TIES)
def test_average_precision_is_the_mean_over_all_orders_of_the_ties(distances, relevant):
    expected = np.mean([textbook_average_precision(ranked) for ranked in all_rankings(distances, relevant)])
    assert one_query(distances, relevant).map == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("distances", "relevant"), TIES)
def test_precision_at_k_is_the_mean_over_all_orders_of_the_ties(distances, relevant):
    ks = range(1, len(distances) + 1)
    expected = np.mean([np.cumsum(ranked) / ks for ranked in all_rankings(distances, relevant)], axis=0)
    found = one_query(distances, relevant, ks=ks).precision_at
    assert list(found) == list(ks)
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-12)


def test_without_ties_average_precision_is_the_textbook_one():
    distances = np.random.default_rng(0).permutation(64)
    relevant = np.random.default_rng(1).integers(2, size=64)
    expected = textbook_average_precision(relevant[np.argsort(distances)])
    assert one_query(distances, relevant, bits=64).map == pytest.approx(expected, abs=1e-12)


def test_a_tie_at_the_cut_counts_by_its_share():
    # The first two are settled; the third place goes to one of four, of which one is relevant.
    evaluation = one_query([0, 0, 4, 4, 4, 4], [1, 0, 1, 0, 0, 0], ks=(3,))
    assert evaluation.precision_at == {3: pytest.approx((1 + 1 / 4) / 3)}


def test_precision_at_k_is_divided_by_k_where_the_gallery_is_smaller():
    assert one_query([0, 1], [1, 1], ks=(10,)).precision_at == {10: pytest.approx(0.2)}


def test_the_radius_includes_its_own_distance_and_no_more():
    evaluation = one_query([0, 2, 2, 3], [1, 1, 0, 1])
    assert evaluation.radius == 2
    assert evaluation.precision_radius == pytest.approx(2 / 3)
    assert one_query([0, 2, 2, 3], [1, 1, 0, 1], radius=0).precision_radius == 1
    assert one_query([0, 2, 2, 3], [1, 1, 0, 1], radius=99).precision_radius == pytest.approx(3 / 4)


def test_a_query_with_nothing_inside_the_radius_counts_0():
    queries, gallery = at_distances([0, 8], 8), at_distances([0, 3], 8)
    assert evaluate(queries, gallery, [1, 1], [1, 1], bits=8).precision_radius == pytest.approx(1 / 2)


def test_perfect_codes_give_1():
    codes = at_distances([0, 6, 12], 12)
    labels = np.arange(3).repeat(20)
    evaluation = evaluate(codes, codes[labels], [0, 1, 2], labels, bits=12, ks=(1, 20))
    assert evaluation.map == 1
    assert evaluation.precision_at == {1: 1, 20: 1}
    assert evaluation.precision_radius == 1
    assert (evaluation.pr_curve.recall == 1).all()
    for count in range(1, 65):  # without ties too, to the last digit
        assert one_query(np.arange(64), np.arange(64) < count, bits=64).map == 1


def test_the_worst_codes_rank_the_relevant_items_last():
    evaluation = one_query([0] * 98 + [8, 8], [0] * 98 + [1, 1])
    assert evaluation.map == pytest.approx((1 / 99 + 2 / 100) / 2)


def test_random_codes_are_at_chance():
    queries, gallery, query_labels, gallery_labels = random_task(queries=200, gallery=2000, bits=32)
    evaluation = evaluate(queries, gallery, query_labels, gallery_labels, bits=32, ks=(200,))
    assert evaluation.map == pytest.approx(1 / 5, abs=0.01)
    assert evaluation.precision_at[200] == pytest.approx(1 / 5, abs=0.01)


def test_all_figures_agree_with_rankings_made_one_by_one():
    queries, gallery, query_labels, gallery_labels = random_task()
    evaluation = evaluate(queries, gallery, query_labels, gallery_labels, bits=12, ks=(7,), radius=3)
    distances = hamming_distances(queries, gallery)
    rng = np.random.default_rng(1)
    sampled_map, sampled_precision = [], []
    for _ in range(30):  # ties in a random order, so the mean comes near
        order = np.lexsort([rng.random(distances.shape), distances])
        ranked = gallery_labels[order] == query_labels[:, None]
        sampled_map.append([textbook_average_precision(row) for row in ranked])
        sampled_precision.append(ranked[:, :7].mean())
    np.testing.assert_allclose(evaluation.average_precisions, np.mean(sampled_map, axis=0), atol=0.03)
    assert evaluation.map == pytest.approx(np.mean(sampled_map), abs=0.003)
    assert evaluation.precision_at[7] == pytest.approx(np.mean(sampled_precision), abs=0.01)

    same = gallery_labels == query_labels[:, None]
    for radius in range(13):
        inside = distances <= radius
        recall = (inside & same).sum(1) / same.sum(1)
        precision = (inside & same).sum(1) / np.maximum(inside.sum(1), 1)
        assert evaluation.pr_curve.recall[radius] == pytest.approx(recall.mean())
        assert evaluation.pr_curve.precision[radius] == pytest.approx(precision.mean())
    assert evaluation.precision_radius == evaluation.pr_curve.precision[3]


def test_the_order_of_the_gallery_does_not_matter():
    queries, gallery, query_labels, gallery_labels = random_task()
    order = np.random.default_rng(1).permutation(len(gallery))
    one = evaluate(queries, gallery, query_labels, gallery_labels, bits=12)
    other = evaluate(queries, gallery[order], query_labels, gallery_labels[order], bits=12)
    assert one.to_dict() == other.to_dict()


def test_a_query_counts_the_same_alone_and_among_others():
    queries, gallery, query_labels, gallery_labels = random_task()
    together = evaluate(queries, gallery, query_labels, gallery_labels, bits=12).average_precisions
    alone = [
        evaluate(code[None], gallery, [label], gallery_labels, bits=12).map
        for code, label in zip(queries, query_labels, strict=True)
    ]
    assert together.tolist() == alone


def test_labels_may_be_names():
    queries, gallery, query_labels, gallery_labels = random_task()
    names = np.array(["zebra", "ant", "cow", "bee", "dog"])
    by_name = evaluate(queries, gallery, names[query_labels], names[gallery_labels], bits=12)
    assert by_name.to_dict() == evaluate(queries, gallery, query_labels, gallery_labels, bits=12).to_dict()


def test_the_dictionary_survives_json():
    evaluation = evaluate(*random_task(), bits=12, ks=(np.int64(5),))
    figures = evaluation.to_dict()
    assert json.loads(json.dumps(figures)) == figures
    assert figures["precision_at"] == {"5": evaluation.precision_at[5]}
    assert (figures["bits"], figures["queries"], figures["gallery"]) == (12, 40, 300)
    assert len(figures["pr_curve"]["recall"]) == len(figures["pr_curve"]["precision"]) == 13


def test_the_table_shows_every_figure():
    evaluation = one_query([0, 2, 2, 3] * 300, [1, 1, 0, 1] * 300)
    assert [line.rsplit(maxsplit=1) for line in evaluation.table().splitlines()] == [
        ["bits", "8"],
        ["queries", "1"],
        ["gallery", "1,200"],
        ["mAP", f"{evaluation.map:.4f}"],
        ["P@10", "1.0000"],
        ["P@200", "1.0000"],
        ["P(radius 2)", "0.6667"],
    ]


def test_the_bootstrap_interval_covers_the_normal_one():
    evaluation = evaluate(*random_task(queries=400), bits=12)
    low, high = evaluation.bootstrap()
    error = evaluation.average_precisions.std() / np.sqrt(400)
    assert low == pytest.approx(evaluation.map - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(evaluation.map + 1.96 * error, abs=0.3 * error)
    assert evaluation.bootstrap() == (low, high)
    assert evaluation.bootstrap(seed=1) != (low, high)
    with pytest.raises(ValueError, match="samples"):
        evaluation.bootstrap(samples=0)


def test_per_class_map_is_by_name():
    codes = at_distances([0, 0, 8], 8)
    evaluation = evaluate(codes, at_distances([0, 8], 8), [2, 0, 0], [2, 0], bits=8)
    names = ["ant", "bee", "cow"]
    assert evaluation.per_class(names) == {"ant": pytest.approx((1 / 2 + 1) / 2), "cow": 1}
    with pytest.raises(ValueError, match=r"class_names.* 0 to 1, .* from 0 to 2"):
        evaluation.per_class(names[:2])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query_codes": np.zeros((0, 2), np.uint8), "query_labels": []}, "query_codes is empty"),
        ({"gallery_codes": np.zeros((0, 2), np.uint8), "gallery_labels": []}, "gallery_codes is empty"),
        ({"query_codes": np.zeros((4, 3), np.uint8)}, r"query_codes of 12 bits .* \(n, 2\)"),
        ({"gallery_codes": np.zeros((5, 2))}, "gallery_codes must be packed uint8"),
        ({"query_labels": [0, 1, 0]}, r"query_labels .* \(4,\), got \(3,\)"),
        ({"gallery_labels": [[0], [1], [0], [1], [0]]}, r"gallery_labels .* \(5,\), got \(5, 1\)"),
        ({"query_labels": [0, 1, 7, 7]}, r"no gallery item has the query labels \[7\]"),
        ({"query_labels": ["0", "1", "cat", "0"]}, r"no gallery item has the query labels \['cat'\]"),
        ({"ks": (10, 0)}, "ks must be 1 or more"),
        ({"radius": -1}, "radius must be 0 or more"),
    ],
)
def test_bad_input_is_named(changed, message):
    given = {
        "query_codes": np.zeros((4, 2), np.uint8),
        "gallery_codes": np.zeros((5, 2), np.uint8),
        "query_labels": [0, 1, 0, 1],
        "gallery_labels": [0, 1, 0, 1, 0],
    }
    assert evaluate(**given, bits=12).queries == 4
    with pytest.raises(ValueError, match=message):
        evaluate(**{**given, **changed}, bits=12)


def test_the_figure_shows_each_curve(tmp_path, monkeypatch):
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: figures.append(self) or save(self, *a, **k))
    good = one_query([0, 1, 2, 3], [1, 1, 0, 0])
    bad = one_query([0, 1, 2, 3], [0, 0, 1, 1])
    path = tmp_path / "curve.png"
    draw_pr_curve({"good": good, "bad": bad}, path)

    lines = figures[0].axes[0].lines
    assert [line.get_label() for line in lines] == ["good (mAP 1.000)", "bad (mAP 0.417)"]
    for line, evaluation in zip(lines, (good, bad), strict=True):
        np.testing.assert_array_equal(line.get_data(), evaluation.pr_curve)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        colours = {colour[:3] for _, colour in picture.convert("RGB").getcolors(maxcolors=1 << 20)}
    assert {(31, 119, 180), (255, 127, 14)} <= colours  # matplotlib's first two
    assert list(tmp_path.iterdir()) == [path]


def test_there_is_no_figure_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="evaluations is empty"):
        draw_pr_curve({}, tmp_path / "curve.png")


def test_a_failed_drawing_leaves_the_old_figure(tmp_path, monkeypatch):
    def fail(figure, path, **options):
        path.write_bytes(b"half")
        raise OSError("no space left")

    path = tmp_path / "curve.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="no space left"):
        draw_pr_curve({"good": one_query([0, 1], [1, 0])}, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_importing_loads_neither_torch_nor_matplotlib():
    code = "import dsh_hf.evaluation, sys; print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
