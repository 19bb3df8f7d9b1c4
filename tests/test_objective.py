"""The code steps: J never rises, every bit equals brute force, W is never needed, codes do not collapse."""

import itertools

import numpy as np
import pytest

from dsh_hf.codes import pack_signs
from dsh_hf.evaluation import evaluate
from dsh_hf.objective import RIDGE, Objective, initial_codes


def random_problem(seed, bits=6, classes=4, n1=30, n2=20, d=5, mode="balanced", semantic=0.3, quantization=0.2):
    rng = np.random.default_rng(seed)
    image_labels, sketch_labels = rng.integers(0, classes, n1), rng.integers(0, classes, n2)
    objective = Objective(
        image_labels, sketch_labels, rng.normal(size=(classes, d)), bits, semantic, quantization, mode
    )

    def signs(n):
        return (rng.integers(0, 2, size=(n, bits)) * 2 - 1).astype(np.float32)

    outputs = [rng.normal(size=(n, bits)).astype(np.float32) for n in (n1, n2)]
    return objective, signs(n1), signs(n2), *outputs


def dense_losses(objective, image_codes, sketch_codes, basis, image_outputs, sketch_outputs):
    """J written out as in the paper, with W."""
    same = objective.labels["image"][:, None] == objective.labels["sketch"]
    w = np.where(same, 1, objective.different_target)
    weight = np.where(same, objective.same_weight, 1)
    pairwise = objective.pair_scale * np.sum(weight * (objective.bits * w - image_codes @ sketch_codes.T) ** 2)
    semantic = quantization = 0.0
    for view, codes, outputs in (("image", image_codes, image_outputs), ("sketch", sketch_codes, sketch_outputs)):
        phi = objective.vectors[objective.labels[view]]
        semantic += objective.semantic_scale[view] * np.sum((phi - codes @ basis.T) ** 2)
        quantization += objective.quantization_scale[view] * np.sum((outputs - codes) ** 2)
    return pairwise, semantic, quantization


@pytest.mark.parametrize("mode", ["balanced", "paper"])
def test_losses_without_w_equal_the_dense_ones(mode):
    objective, image_codes, sketch_codes, f1, f2 = random_problem(0, mode=mode)
    basis = objective.basis(image_codes, sketch_codes)
    losses = objective.losses(image_codes, sketch_codes, basis, f1, f2)
    expected = dense_losses(objective, image_codes, sketch_codes, basis, f1, f2)
    np.testing.assert_allclose((losses.pairwise, losses.semantic, losses.quantization), expected, rtol=1e-5)
    assert losses.total == pytest.approx(sum(expected), rel=1e-5)


@pytest.mark.parametrize("mode", ["balanced", "paper"])
@pytest.mark.parametrize("seed", range(5))
def test_no_step_raises_j(mode, seed):
    objective, image_codes, sketch_codes, f1, f2 = random_problem(seed, bits=16, mode=mode)
    basis = objective.basis(image_codes, sketch_codes)
    before = objective.losses(image_codes, sketch_codes, basis, f1, f2).total
    for _ in range(3):
        basis = objective.basis(image_codes, sketch_codes)
        # D minimises J plus the ridge: J itself may rise by the ridge's share, which is tiny.
        slack = RIDGE * 20 * max(objective.semantic_scale.values()) * 50 * np.sum(basis**2) + 1e-6 * before
        after = objective.losses(image_codes, sketch_codes, basis, f1, f2).total
        assert after <= before + slack
        before = after
        image_codes = objective.update_image_codes(image_codes, sketch_codes, basis, f1)
        after = objective.losses(image_codes, sketch_codes, basis, f1, f2).total
        assert after <= before * (1 + 1e-6)
        before = after
        sketch_codes = objective.update_sketch_codes(sketch_codes, image_codes, basis, f2)
        after = objective.losses(image_codes, sketch_codes, basis, f1, f2).total
        assert after <= before * (1 + 1e-6)
        before = after


@pytest.mark.parametrize("mode", ["balanced", "paper"])
@pytest.mark.parametrize("view", ["image", "sketch"])
def test_each_bit_is_the_better_of_its_two_values(mode, view):
    """Gauss-Seidel by brute force: try both values of every bit of every item, in order."""
    objective, image_codes, sketch_codes, f1, f2 = random_problem(3, bits=5, n1=7, n2=6, classes=3, mode=mode)
    basis = objective.basis(image_codes, sketch_codes)
    if view == "image":
        updated = objective.update_image_codes(image_codes, sketch_codes, basis, f1)
    else:
        updated = objective.update_sketch_codes(sketch_codes, image_codes, basis, f2)
    codes = (image_codes if view == "image" else sketch_codes).astype(np.float64)

    def j():
        pair = (codes, sketch_codes) if view == "image" else (image_codes, codes)
        return sum(dense_losses(objective, *pair, basis, f1, f2))

    for bit, item in itertools.product(range(5), range(len(codes))):
        old = codes[item, bit]
        values = {}
        for value in (-1.0, 1.0):
            codes[item, bit] = value
            values[value] = j()
        codes[item, bit] = old if values[-1.0] == values[1.0] else min(values, key=values.__getitem__)
    np.testing.assert_array_equal(updated, codes)


def test_basis_is_the_least_squares_solution():
    objective, image_codes, sketch_codes, _, _ = random_problem(1, bits=6, n1=80, n2=60)
    basis = objective.basis(image_codes, sketch_codes)
    rows = [
        np.sqrt(objective.semantic_scale[view]) * part
        for view, part in (("image", image_codes), ("sketch", sketch_codes))
    ]
    targets = [
        np.sqrt(objective.semantic_scale[view]) * objective.vectors[objective.labels[view]]
        for view in ("image", "sketch")
    ]
    expected = np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=None)[0].T
    np.testing.assert_allclose(basis, expected, atol=20 * RIDGE)


@pytest.mark.parametrize(("classes", "bits"), [(125, 32), (125, 128), (250, 64)])
def test_balanced_codes_do_not_collapse(classes, bits):
    """From the start that training uses, every class keeps code words of its own in both views."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 4)
    objective = Objective(labels, labels, rng.normal(size=(classes, 20)), bits)
    image_codes = initial_codes(labels, classes, bits, seed=1)
    sketch_codes = initial_codes(labels, classes, bits, seed=1)
    silent = np.zeros_like(image_codes)
    for _ in range(3):
        basis = objective.basis(image_codes, sketch_codes)
        image_codes = objective.update_image_codes(image_codes, sketch_codes, basis, silent)
        sketch_codes = objective.update_sketch_codes(sketch_codes, image_codes, basis, silent)
    result = evaluate(pack_signs(sketch_codes), pack_signs(image_codes), labels, labels, bits=bits, ks=(4,))
    assert result.map > 0.99


def test_published_form_collapses_where_balanced_does_not():
    """The trap: with unweighted W and many classes, all images take one code and all sketches its opposite."""
    classes, bits = 125, 32
    labels = np.repeat(np.arange(classes), 5)
    results = {}
    for mode in ("paper", "balanced"):
        objective = Objective(labels, labels, np.eye(classes), bits, mode=mode)
        image_codes, sketch_codes = (initial_codes(labels, classes, bits, seed) for seed in (0, 0))
        silent = np.zeros_like(image_codes)
        for _ in range(10):
            basis = objective.basis(image_codes, sketch_codes)
            image_codes = objective.update_image_codes(image_codes, sketch_codes, basis, silent)
            sketch_codes = objective.update_sketch_codes(sketch_codes, image_codes, basis, silent)
        results[mode] = evaluate(
            pack_signs(sketch_codes), pack_signs(image_codes), labels, labels, bits=bits, ks=(5,)
        ).map
    assert results["paper"] < 0.1 < 0.99 < results["balanced"]


@pytest.mark.parametrize(("mode", "idle"), [("balanced", False), ("paper", True)])
def test_no_bit_is_given_away(mode, idle):
    """With W's -1, some bits end up the same for all images; with a target in reach, none does."""
    classes, bits = 125, 64
    labels = np.repeat(np.arange(classes), 3)
    words = np.random.default_rng(0).normal(size=(classes, 20))
    objective = Objective(labels, labels, words, bits, mode=mode)
    image_codes, sketch_codes = (initial_codes(labels, classes, bits, seed) for seed in (0, 0))
    for _ in range(20):
        basis = objective.basis(image_codes, sketch_codes)
        image_codes = objective.update_image_codes(image_codes, sketch_codes, basis, image_codes)
        sketch_codes = objective.update_sketch_codes(sketch_codes, image_codes, basis, sketch_codes)
    same_for_all = np.abs(image_codes.mean(axis=0)) > 0.9
    assert same_for_all.any() == idle
    assert (np.mean(image_codes != sketch_codes) > 0.01) == idle


def test_outputs_have_a_say_when_gamma_is_large():
    objective, image_codes, sketch_codes, f1, _ = random_problem(2, bits=8, quantization=1e6)
    basis = objective.basis(image_codes, sketch_codes)
    updated = objective.update_image_codes(image_codes, sketch_codes, basis, f1)
    np.testing.assert_array_equal(updated, np.where(f1 > 0, 1, -1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_labels": np.array([0, 7])}, "image labels must lie in 0..2"),
        ({"sketch_labels": np.array([], dtype=int)}, "at least one image and one sketch"),
        ({"mode": "papper"}, "mode must be"),
    ],
)
def test_bad_input_is_refused(change, message):
    settings = {"image_labels": np.array([0, 1]), "sketch_labels": np.array([1, 2]), "mode": "balanced"} | change
    with pytest.raises(ValueError, match=message):
        Objective(settings["image_labels"], settings["sketch_labels"], np.eye(3), 8, mode=settings["mode"])
