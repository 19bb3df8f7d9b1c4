"""What the exact engine does beyond what every engine does: rings, rows, tail, memory, and saving under threat."""

import os
import signal
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from engines import ENGINES_UNDER_TEST, Opener, Reference, assert_same_answers, clustered, follow, plans
from hypothesis import HealthCheck, given, settings

from dsh_hf.codes import hamming_distances, pack_signs
from dsh_hf.index import IndexFileError, exact, open_index, pivots, scan
from dsh_hf.index.files import read_index_file, write_index_file

EXACT = next(engine for engine in ENGINES_UNDER_TEST if engine.name == "exact")


@pytest.fixture
def small_scale(monkeypatch):
    """Let a few codes do what else takes many: rows, rings and merges, over several blocks."""
    monkeypatch.setattr(exact, "LEAST_TAIL", 8)
    monkeypatch.setattr(exact, "LEAST_RINGS", 24)
    monkeypatch.setattr(scan, "BLOCK", 16)
    monkeypatch.setattr(pivots, "BLOCK", 16)


def rings_are_worth(share, monkeypatch):
    """Use rings as long as a search compares no more than this share of the codes."""
    monkeypatch.setattr(exact, "WORTH", share)
    monkeypatch.setattr(pivots, "WORTH", share)


def add_in_two(index, codes):
    """Add codes so that some are in rows and some in the tail when it is searched."""
    index.add(codes[:-5])
    index.search(codes[0], 1)
    index.add(codes[-5:])
    assert index.stats()["tail"] == 5


def nearest(queries, codes, k):
    """The k first by a full stable sort."""
    distances = hamming_distances(queries, codes)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


def assert_nearest(index, codes, queries, k=10):
    distances, ids = index.search(queries, k)
    expected_distances, expected_ids = nearest(queries, codes, k)
    assert np.array_equal(distances, expected_distances)
    assert np.array_equal(ids, expected_ids)


@pytest.mark.parametrize("worth", [0, 0.25, 1], ids=["no rings", "rings where they pay", "rings always"])
def test_any_sequence_of_changes_gives_the_answers_of_a_plain_list(worth, small_scale, monkeypatch, request):
    rings_are_worth(worth, monkeypatch)
    make_index = Opener(EXACT, request)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(plans())
    def run(plan):
        follow(plan, make_index, exact=True)

    run()


@pytest.mark.parametrize("given_pivots", ["class codes", "one", "far from every code", "none"])
@pytest.mark.parametrize("bits", [20, 64, 128, 256])
def test_pivots_change_no_answer(given_pivots, bits, small_scale, monkeypatch):
    rings_are_worth(1, monkeypatch)
    rng = np.random.default_rng(bits)
    codes = clustered(rng, 600, bits, flips=0.05)
    classes = pack_signs(np.random.default_rng(bits).random((10, bits)) < 0.5)
    hint = {"class codes": classes, "one": classes[:1], "far from every code": ~codes[:3], "none": None}[given_pivots]
    if hint is not None and bits % 8:
        hint = hint & np.array([255, 255, 0xF0], np.uint8)
    index = open_index("exact", bits=bits, pivots=hint)
    add_in_two(index, codes)
    queries = np.concatenate([clustered(rng, 10, bits, flips=0.05), codes[:2], ~codes[2:3] if bits % 8 == 0 else codes])
    for k in (1, 10, 300, 600):
        assert_nearest(index, codes, queries, k)
    found = index.search_radius(queries, bits // 5)
    assert [near.size for near, _ in found] == (hamming_distances(queries, codes) <= bits // 5).sum(axis=1).tolist()
    assert index.stats()["pivots"] == (len(hint) if hint is not None else index._rings.pivots.shape[1]) > 0


def test_rings_leave_most_clustered_codes_out():
    rng = np.random.default_rng(0)
    codes, queries = (clustered(rng, count, 64, clusters=50, flips=0.05) for count in (80_000, 20))
    index = open_index("exact", bits=64)
    index.add(codes)
    assert_nearest(index, codes, queries)
    assert index.stats()["pivots"] > 30
    assert index.stats()["share"] < 0.1


def test_uniform_codes_are_compared_one_and_all_and_stats_say_why():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (70_000, 8), np.uint8)
    index = open_index("exact", bits=64)
    index.add(codes)
    assert_nearest(index, codes, codes[:5])
    assert index.stats()["pivots"] == 0
    assert index.stats()["share"] > 0.5


def test_more_pivots_than_their_rings_can_be_counted_are_refused():
    most = pivots.most_pivots(64)
    index = open_index("exact", bits=64)
    codes = np.arange(most + 1, dtype=np.uint64)[:, None].view(np.uint8)
    with pytest.raises(ValueError, match=f"at most {most} pivots of 64 bits can be used, got {most + 1}: give fewer"):
        index.use_pivots(codes)
    last = np.array([(most - 1) * 65 + 64], np.int32)
    _, order = pivots.make_rings(np.array([*last, 0], np.int32), np.empty((1, most), np.uint64), 64)
    assert order.tolist() == [1, 0]


def test_rings_that_are_not_sound_are_refused_whatever_their_checksum(small_scale, monkeypatch, tmp_path):
    rings_are_worth(1, monkeypatch)
    index = open_index("exact", bits=64, pivots=np.arange(80, dtype=np.uint8).reshape(10, 8))
    index.add(clustered(np.random.default_rng(0), 500, 64, flips=0.05))
    index.save(tmp_path / "index")
    header, tensors, _ = read_index_file(tmp_path / "index")
    del header["version"]
    changes = [
        {"ring_starts": tensors["ring_starts"][:-1]},
        {"ring_starts": tensors["ring_starts"][::-1].copy()},
        {"ring_starts": np.where(tensors["ring_starts"] > 0, 10**6, 0)},
        {"pivots": tensors["pivots"][:-1]},
        {"pivots": tensors["pivots"][:, :-1].copy()},
        {"given_pivots": tensors["given_pivots"].astype(np.int32)},
    ]
    for change in changes:
        write_index_file(tmp_path / "index", header, tensors | change)
        with pytest.raises(IndexFileError, match=r"holds what no index has .*add the codes again"):
            open_index("exact", bits=64, path=tmp_path / "index")
    for change in ({"share": "half"}, {"decided": None}):
        write_index_file(tmp_path / "index", header | change, tensors)
        with pytest.raises(IndexFileError, match=r"holds what no index has .*add the codes again"):
            open_index("exact", bits=64, path=tmp_path / "index")


def test_pivots_that_do_not_fit_are_replaced_by_learned_ones():
    rng = np.random.default_rng(0)
    codes = clustered(rng, 70_000, 64, clusters=50, flips=0.05)
    index = open_index("exact", bits=64, pivots=rng.integers(0, 256, (1, 8), np.uint8))
    index.add(codes)
    assert_nearest(index, codes, codes[:5])
    assert index.stats()["pivots"] > 1


def test_pivots_given_later_are_used_from_then_on(small_scale, tmp_path):
    rng = np.random.default_rng(0)
    codes = clustered(rng, 500, 64, flips=0.02)
    classes = pack_signs(np.random.default_rng(64).random((10, 64)) < 0.5)
    index = open_index("exact", bits=64)
    index.add(codes)
    index.save(tmp_path / "index")
    for _ in range(2):
        index = open_index("exact", bits=64, path=tmp_path / "index", pivots=classes)
        assert_nearest(index, codes, codes[:5])
        assert index.stats()["pivots"] == 10
        index.save(tmp_path / "index")
    index = open_index("exact", bits=64, path=tmp_path / "index", pivots=classes)
    assert index._decided  # it has not been for nothing that the file holds them


def test_additions_wait_in_a_tail_that_is_sorted_in_when_it_has_grown(small_scale):
    rng = np.random.default_rng(0)
    codes = clustered(rng, 400, 64, flips=0.05)
    index = open_index("exact", bits=64)
    tails = []
    for start in range(0, 400, 4):
        index.add(codes[start : start + 4])
        assert_nearest(index, codes[: start + 4], codes[:3], 6)
        tails.append(index.stats()["tail"])
    assert set(tails[:3]) == {4, 8, 0}
    assert max(tails) == 20  # multiples of 4 up to a sixteenth of the rows
    assert index.stats()["rows"] + tails[-1] == 400


def test_adding_alone_sorts_nothing(monkeypatch):
    monkeypatch.setattr(exact.ExactIndex, "_sort_in", lambda self: pytest.fail("sorted by an addition"))
    index = open_index("exact", bits=64)
    for _ in range(3):
        index.add(np.random.default_rng(0).integers(0, 256, (20_000, 8), np.uint8))


@pytest.mark.parametrize("stage", ["distinct", "learn_pivots", "make_rings", "_laid"])
def test_an_interruption_while_it_is_sorted_loses_nothing(stage, small_scale, monkeypatch):
    rings_are_worth(1, monkeypatch)
    codes = clustered(np.random.default_rng(0), 300, 64, flips=0.05 if stage != "distinct" else 0)
    index = open_index("exact", bits=64)
    index.add(codes[:200])
    index.remove(range(10))

    def interrupted(*_):
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(exact, stage, interrupted)
            with pytest.raises(KeyboardInterrupt):
                index.search(codes[0], 1)
        assert len(index) == 190
    index.add(codes[200:])
    distances, ids = index.search(codes[250], 290)
    expected_distances, expected = nearest(codes[250:251], codes[10:], 290)
    assert distances.tolist() == expected_distances[0].tolist()
    assert ids.tolist() == (expected[0] + 10).tolist()


@pytest.mark.parametrize("copies", [1, 10], ids=["an item a row", "many items a row"])
def test_removed_items_leave_rows_and_rings(copies, small_scale, monkeypatch):
    rings_are_worth(1, monkeypatch)
    monkeypatch.setattr(exact, "LEAST_TAIL", 200)  # so that nothing is sorted anew
    rng = np.random.default_rng(0)
    codes = np.repeat(np.unique(clustered(rng, 500, 64, flips=0.05), axis=0)[:400], copies, axis=0)
    index, reference = open_index("exact", bits=64), Reference()
    index.add(codes)
    reference.add(codes, range(len(codes)))
    index.search(codes[0], 1)
    index.add(codes[:50], range(9000, 9050))
    reference.add(codes[:50], range(9000, 9050))
    rows = index.stats()["rows"]
    assert rows == 400
    for gone in (reference.ids()[:30], index.search(codes[100], 60)[1].tolist(), [9000, 9001, 9049]):
        gone = [name for name in gone if name in reference.ids()]
        index.remove(gone)
        reference.remove(gone)
        for k in (1, 10, 150):
            assert_same_answers(True, index, reference, codes[[0, 99, 100, 399]], k, 12)
        assert index.stats()["rows"] == rows
        assert index.stats()["distinct"] == len({code.tobytes() for _, code in reference.items})


@pytest.mark.parametrize("order", ["random", "nearest last", "nearest first"])
@pytest.mark.parametrize("k", [1, 6, 300])
def test_what_lies_in_which_block_makes_no_difference(order, k, monkeypatch):
    monkeypatch.setattr(scan, "BLOCK", 64)
    rng = np.random.default_rng(0)
    codes = pack_signs(rng.standard_normal((1000, 64)))
    queries = codes[:1] ^ np.array([[0], [1]], np.uint8)
    if order != "random":
        by_distance = np.argsort(hamming_distances(queries, codes)[0])
        codes = codes[by_distance[::-1] if order == "nearest last" else by_distance]
    index = open_index("exact", bits=64)
    index.add(codes)
    for k_or_all in (k, 1000):
        assert_nearest(index, codes, queries, k_or_all)


@pytest.mark.parametrize("in_rows", [True, False])
@pytest.mark.parametrize("bits", [1, 7, 8, 192, 193, 254, 255, 256, 600])
def test_the_greatest_distance_that_the_bits_allow(bits, in_rows, monkeypatch):
    monkeypatch.setattr(exact, "LEAST_TAIL", 0 if in_rows else 100)
    index = open_index("exact", bits=bits)
    index.add(pack_signs(np.array([[1] * bits, [0] * bits, [1] * bits])))
    query = pack_signs(np.zeros(bits))
    index.search(query, 1)
    monkeypatch.setattr(exact, "LEAST_TAIL", 100)
    index.remove([1])  # leaves an empty row, which no distance may reach
    assert [found.tolist() for found in index.search(query, 9)] == [[bits, bits], [0, 2]]
    assert [found.tolist() for found in index.search_radius(query, bits)] == [[bits, bits], [0, 2]]
    assert index.search_radius(query, bits - 1)[0].size == 0


# Memory


@pytest.mark.parametrize("distinct", [100_000, 62_000, 58_000, 5_000], ids=lambda count: f"{count} distinct")
@pytest.mark.parametrize("kind", ["uniform", "clustered"])
def test_an_item_takes_at_most_14_bytes_beside_its_id_in_memory_and_on_disk(distinct, kind, tmp_path):
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 256, (distinct, 8), np.uint8) if kind == "uniform" else clustered(rng, distinct, 64)
    codes = pool[np.concatenate([np.arange(distinct), rng.integers(distinct, size=100_000 - distinct)])]
    index = open_index("exact", bits=64)
    ids = rng.permutation(100_000)
    for start in range(0, 100_000, 30_000):
        index.add(codes[start : start + 30_000], ids[start : start + 30_000])
    index.search(codes[0], 1)
    assert index.stats()["bytes"] <= 13.6 * 100_000
    index.save(tmp_path / "index")
    assert (tmp_path / "index").stat().st_size <= (8 + 13.6) * 100_000
    assert open_index("exact", bits=64, path=tmp_path / "index").stats()["bytes"] <= 13.6 * 100_000


@pytest.mark.parametrize("removed", [1, 5_000, 6_000])
@pytest.mark.parametrize("tail", [0, 5_000])
def test_an_item_takes_no_more_after_additions_and_removals(tail, removed):
    codes = np.random.default_rng(0).integers(0, 256, (100_000 + tail, 8), np.uint8)
    index = open_index("exact", bits=64)
    index.add(codes[:100_000])
    index.search(codes[0], 1)
    for start in range(100_000, 100_000 + tail, 1000):
        index.add(codes[start : start + 1000])
    index.search(codes[0], 1)
    index.remove(range(removed))
    assert index.search(codes[0], 1)[0][0] > 0
    assert index.stats()["bytes"] <= 13.6 * len(index)


@pytest.mark.parametrize("kind", ["uniform", "clustered"])
def test_sorting_takes_at_most_72_bytes_an_item_with_what_stays(kind):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (200_000, 8), np.uint8) if kind == "uniform" else clustered(rng, 200_000, 64)
    index = open_index("exact", bits=64)
    tracemalloc.start()
    try:
        for start, stop in ((0, 150_000), (150_000, 165_000), (165_000, 200_000)):
            index.add(codes[start:stop])
            tracemalloc.reset_peak()
            index.search(codes[0], 10)
            assert tracemalloc.get_traced_memory()[1] <= 72 * stop
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("copies", [1, 5])
def test_stats_count_all_the_memory_that_is_held(copies):
    rng = np.random.default_rng(0)
    codes = np.repeat(clustered(rng, 100_000 // copies, 64, flips=0.1), copies, axis=0)
    tracemalloc.start()
    try:
        index = open_index("exact", bits=64)
        for start in range(0, 100_000, 25_000):
            index.add(codes[start : start + 25_000])
        index.search(codes[0], 10)
        index.add(codes[:100])
        index.remove(range(50))
        index.search(codes[0], 10)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    stats = index.stats()
    assert held == pytest.approx(stats["bytes"] + stats["id_bytes"], abs=50_000)


def test_equal_codes_take_the_memory_of_one():
    index = open_index("exact", bits=256)
    index.add(np.zeros((100_000, 32), np.uint8))
    index.search(np.zeros(32, np.uint8), 1)
    assert index.stats()["rows"] == 1
    assert index.stats()["bytes"] < 4.1 * 100_000


def test_removed_codes_give_their_memory_back():
    codes = pack_signs(np.random.default_rng(0).standard_normal((1000, 64)))
    index = open_index("exact", bits=64)
    index.add(codes)
    full = index.stats()["bytes"]
    index.remove(range(900))
    assert index.stats()["bytes"] < full / 5
    assert np.array_equal(index.search(codes[900:], 1)[1][:, 0], np.arange(900, 1000))


def test_needs_numpy_alone():
    code = (
        "import sys, numpy; from dsh_hf.index import open_index;"
        "index = open_index('exact', bits=8); index.add(numpy.zeros((1, 1), numpy.uint8));"
        "assert index.search(numpy.zeros(1, numpy.uint8), 1)[1].tolist() == [0];"
        "print([name for name in ('torch', 'hnswlib', 'faiss', 'datasets', 'timm') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# Saving


def test_opened_again_it_is_searched_without_being_built_again(small_scale, monkeypatch, tmp_path):
    rings_are_worth(1, monkeypatch)
    codes = clustered(np.random.default_rng(0), 500, 64, flips=0.05)
    index = open_index("exact", bits=64)
    index.add(codes)
    index.save(tmp_path / "index")
    monkeypatch.setattr(exact.ExactIndex, "_sort_in", lambda self: pytest.fail("built again"))
    again = open_index("exact", bits=64, path=tmp_path / "index")
    assert_nearest(again, codes, codes[:5])
    assert again.stats()["pivots"] == index.stats()["pivots"] > 0


SAVING = """
import sys, numpy
from dsh_hf.index import open_index
path = sys.argv[1]
index = open_index("exact", bits=64, path=path)
index.add(numpy.random.default_rng(1).integers(0, 256, (200_000, 8), numpy.uint8))
print("saving", flush=True)
while True:
    index.save(path)
    index.remove([int(index.search(numpy.zeros(8, numpy.uint8), 1)[1][0])])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("after", [0.0, 0.02, 0.1])
def test_a_process_killed_while_it_saves_leaves_a_whole_file(after, tmp_path):
    path = tmp_path / "index"
    index = open_index("exact", bits=64)
    index.add(np.zeros((5, 8), np.uint8))
    index.save(path)
    process = subprocess.Popen([sys.executable, "-c", SAVING, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "saving\n"
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    again = open_index("exact", bits=64, path=path)
    assert len(again) == 5 or 199_000 < len(again) <= 200_005
    again.add(np.zeros((1, 8), np.uint8), ids=[10**6])
    again.save(path)  # nothing of the killed process is in the way


def test_of_processes_that_save_at_once_one_wins_and_the_others_are_told(tmp_path):
    path = tmp_path / "index"
    index = open_index("exact", bits=64)
    index.add(np.zeros((5, 8), np.uint8))
    index.save(path)
    code = (
        "import sys, numpy; from dsh_hf.index import IndexChangedError, open_index;"
        "index = open_index('exact', bits=64, path=sys.argv[1]); index.add(numpy.ones((1, 8), numpy.uint8), [99]);"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n    index.save(sys.argv[1]); print('saved')\nexcept IndexChangedError: print('refused')"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([sys.executable, "-c", code, path], **pipes) for _ in range(3)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    answers = []
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        answers.append(writer.communicate()[0].strip())
    assert sorted(answers) == ["refused", "refused", "saved"]
    assert len(open_index("exact", bits=64, path=path)) == 6


def test_a_save_waits_for_the_save_of_another_process(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    index = open_index("exact", bits=64)
    index.add(np.zeros((5, 8), np.uint8))
    lock = os.open(tmp_path / ".index.lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    saving = threading.Thread(target=index.save, args=(tmp_path / "index",))
    saving.start()
    saving.join(0.2)
    assert saving.is_alive()
    assert not (tmp_path / "index").exists()
    os.close(lock)
    saving.join()
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert len(open_index("exact", bits=64, path=tmp_path / "index")) == 5


# Threads


def test_readers_have_whole_answers_while_a_writer_makes_rows_and_rings(small_scale):
    rng = np.random.default_rng(0)
    codes = clustered(rng, 3000, 64, flips=0.05)
    index = open_index("exact", bits=64)
    index.add(codes[:200])
    failures, done = [], threading.Event()

    def read():
        try:
            while not done.is_set():
                distances, ids = index.search(codes[:3], 5)
                expected = hamming_distances(codes[:3], codes[ids.ravel()])
                true = np.stack([expected[i, 5 * i : 5 * i + 5] for i in range(3)])
                assert np.array_equal(distances, true)
                assert ids[:, 0].tolist() == [0, 1, 2]
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(200, 3000, 40):
        index.add(codes[start : start + 40])
        index.remove(range(start - 100, start - 80))
    done.set()
    for reader in readers:
        reader.join()
    assert not failures
