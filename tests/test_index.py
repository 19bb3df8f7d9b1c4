"""What every engine behind dsh_hf.index.Index must do, whatever it searches with."""

import json
import os
import stat
import threading

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from dsh_hf.codes import pack_signs
from dsh_hf.index import ENGINES, IndexFileError, IndexMismatchError, open_index

EXACT = {"exact"}  # engines whose every answer is the exact one
RECALL = 0.99  # what the others owe, over all queries of a test
BITS = [20, 32, 48, 64, 128, 256]


@pytest.fixture(params=sorted(ENGINES))
def engine(request):
    return request.param


def clustered(rng, count, bits, clusters=10, flips=0.15):
    """Codes like those of a trained model: around one prototype a class."""
    prototypes = np.random.default_rng(bits).random((clusters, bits)) < 0.5
    signs = prototypes[rng.integers(clusters, size=count)] ^ (rng.random((count, bits)) < flips)
    return pack_signs(signs)


class Reference:
    """The index in its plainest form: a list in order of insertion, sorted by distance for every query."""

    def __init__(self):
        self.items = []

    def add(self, codes, ids):
        self.items += zip(ids, codes, strict=True)

    def remove(self, ids):
        self.items = [item for item in self.items if item[0] not in set(ids)]

    def ids(self):
        return [name for name, _ in self.items]

    def ranking(self, query):
        """All (distance, position, id) in order."""
        distance = [int(np.unpackbits(code ^ query).sum()) for _, code in self.items]
        return sorted((d, i, name) for i, (d, name) in enumerate(zip(distance, self.ids(), strict=True)))


def assert_same_answers(engine, index, reference, queries, k, r):
    """Every answer is well formed and true; those of exact engines are the reference's, ties included."""
    distances, ids = index.search(queries, k)
    count = min(k, len(reference.items))
    assert len(index) == len(reference.items)
    assert distances.shape == ids.shape == (len(queries), count)
    assert distances.dtype == np.int64
    hits = 0
    for query, row_distances, row_ids in zip(queries, distances.tolist(), ids.tolist(), strict=True):
        ranking = reference.ranking(query)
        best = ranking[:count]
        if engine in EXACT:
            assert list(zip(row_distances, row_ids, strict=True)) == [(d, name) for d, _, name in best]
        places = {name: (d, i) for d, i, name in ranking}
        found = [places[name] for name in row_ids]
        assert [d for d, _ in found] == row_distances  # the true distances
        assert found == sorted(set(found))  # in the order (distance, insertion), each item once
        hits += sum(d <= best[-1][0] for d in row_distances) if best else 0
    assert hits >= RECALL * distances.size
    for query, (near, near_ids) in zip(queries, index.search_radius(queries, r), strict=True):
        within = [(d, name) for d, _, name in reference.ranking(query) if d <= r]
        assert list(zip(near.tolist(), near_ids.tolist(), strict=True)) == within


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", [int, str])
def test_any_sequence_of_changes_gives_the_answers_of_a_plain_list(engine, bits, kind, tmp_path):
    rng = np.random.default_rng(bits)
    pool = clustered(rng, 150, bits)  # so few that codes are added again, and die out, and come back
    index, reference = open_index(engine, bits=bits, fingerprint="model"), Reference()
    fresh = iter(rng.permutation(10_000).tolist())
    for step in range(25):
        if step % 3 == 2 and reference.items:
            share = rng.choice([0.02, 0.3, 0.8])
            ids = [name for name in reference.ids() if rng.random() < share]
            index.remove(ids)
            reference.remove(ids)
        else:
            codes = pool[rng.integers(len(pool), size=rng.integers(1, 60))]
            ids = [kind(next(fresh)) for _ in codes]
            index.add(codes, ids)
            reference.add(codes, ids)
        if step % 8 == 7:
            index.save(tmp_path / "index")
            index = open_index(engine, bits=bits, path=tmp_path / "index", fingerprint="model")
        queries = np.concatenate([pool[:2], clustered(rng, 2, bits)])
        assert_same_answers(engine, index, reference, queries, int(rng.choice([1, 10, 1000])), bits // 5)


@pytest.mark.parametrize("bits", [20, 64, 256])
def test_many_equal_codes(engine, bits):
    rng = np.random.default_rng(0)
    few = clustered(rng, 20, bits)
    codes = few[rng.integers(len(few), size=2000)]
    index, reference = open_index(engine, bits=bits), Reference()
    index.add(codes)
    reference.add(codes, range(2000))
    for k in (1, 7, 150, 500):
        assert_same_answers(engine, index, reference, few[:3], k, 0)
    assert index.stats()["distinct"] == len(np.unique(few, axis=0))


def test_recall_among_many_clustered_codes(engine):
    rng = np.random.default_rng(1)
    codes, queries = clustered(rng, 5000, 64, clusters=100), clustered(rng, 50, 64, clusters=100)
    index = open_index(engine, bits=64)
    index.add(codes)
    true = np.sort(np.bitwise_count(codes[None] ^ queries[:, None]).sum(axis=2), axis=1)
    for k in (1, 10, 200):
        distances, _ = index.search(queries, k)
        assert (distances <= true[:, k - 1, None]).mean() >= (1 if engine in EXACT else RECALL)


def test_ties_come_in_order_of_insertion_also_after_a_code_returns(engine):
    index = open_index(engine, bits=8)
    index.add(np.array([[0b1], [0b10], [0b1], [0b100]], np.uint8), ids=[40, 30, 20, 10])
    query = np.zeros((1, 1), np.uint8)
    assert index.search(query, 4)[1].tolist() == [[40, 30, 20, 10]]
    index.remove([40])
    index.add(np.array([[0b1]], np.uint8), ids=[40])
    assert index.search(query, 4)[1].tolist() == [[30, 20, 10, 40]]


def test_one_query_gives_one_dimension(engine):
    index = open_index(engine, bits=16)
    codes = np.array([[0, 0], [255, 255], [0, 1]], np.uint8)
    index.add(codes, ids=["black", "white", "dot"])
    distances, ids = index.search(codes[0], 2)
    assert distances.tolist() == [0, 1]
    assert ids.tolist() == ["black", "dot"]
    distances, ids = index.search_radius(codes[0], 1)
    assert distances.tolist() == [0, 1]
    assert ids.tolist() == ["black", "dot"]


def test_one_code_is_added_and_removed_under_one_id(engine):
    index = open_index(engine, bits=16)
    index.add(np.array([1, 2], np.uint8), ids="a name of many letters")
    assert index.search(np.array([1, 2], np.uint8), 1)[1].tolist() == ["a name of many letters"]
    index.remove("a name of many letters")
    assert len(index) == 0


def test_empty_index(engine):
    index = open_index(engine, bits=16)
    queries = np.zeros((3, 2), np.uint8)
    distances, ids = index.search(queries, 5)
    assert distances.shape == ids.shape == (3, 0)
    assert ids.dtype == distances.dtype == np.int64
    assert [pair[0].tolist() for pair in index.search_radius(queries, 16)] == [[], [], []]
    assert index.search(queries[0], 5)[0].shape == (0,)
    index.add(np.empty((0, 2), np.uint8))
    assert len(index) == 0


def test_no_queries(engine):
    index = open_index(engine, bits=16)
    index.add(np.zeros((3, 2), np.uint8))
    assert index.search(np.empty((0, 2), np.uint8), 2)[0].shape == (0, 2)
    assert index.search_radius(np.empty((0, 2), np.uint8), 2) == []


def test_ids_run_on_from_the_greatest_ever_given(engine, tmp_path):
    index = open_index(engine, bits=8)
    code = np.zeros((2, 1), np.uint8)
    index.add(code)
    index.add(code, ids=[-5, 10])
    index.add(code)
    index.remove([11, 12])
    index.save(tmp_path / "index")
    index = open_index(engine, bits=8, path=tmp_path / "index")
    index.add(code)
    assert index.search(code[0], 9)[1].tolist() == [0, 1, -5, 10, 13, 14]


def test_an_emptied_index_takes_the_other_kind_of_ids(engine):
    index = open_index(engine, bits=8)
    index.add(np.zeros((2, 1), np.uint8))
    index.remove([0, 1])
    index.add(np.ones((2, 1), np.uint8), ids=["a", "b"])
    assert index.search(np.ones(1, np.uint8), 5)[1].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("ids", "line"),
    [
        ([7, 3], "id 3 is in the index already"),
        ([7, 7], "id 7 is given more than once"),
        ([7], "got 1 ids for 2 codes"),
        (["a", "b"], "holds int ids and takes no str ids"),
        ([7, "b"], "all ints or all strs"),
        ([7.0, 8.0], "all ints or all strs"),
        ([True, False], "all ints or all strs"),
        ([7, 2**63], "fit in 64 bits"),
        (np.array([[7, 8]]), "all ints or all strs"),
    ],
)
def test_wrong_ids_are_refused_and_nothing_is_added(engine, ids, line):
    index = open_index(engine, bits=8)
    index.add(np.zeros((1, 1), np.uint8), ids=[3])
    with pytest.raises(ValueError, match=line):
        index.add(np.ones((2, 1), np.uint8), ids=ids)
    assert len(index) == 1
    assert index.search(np.ones(1, np.uint8), 9)[1].tolist() == [3]


def test_str_ids_must_stay_strs_and_be_given(engine):
    index = open_index(engine, bits=8)
    index.add(np.zeros((1, 1), np.uint8), ids=["a"])
    with pytest.raises(ValueError, match="id 'a' is in the index already"):
        index.add(np.zeros((1, 1), np.uint8), ids=["a"])
    with pytest.raises(ValueError, match="holds str ids and takes no int ids"):
        index.add(np.zeros((1, 1), np.uint8), ids=[1])
    with pytest.raises(ValueError, match="give ids with the codes"):
        index.add(np.zeros((1, 1), np.uint8))


@pytest.mark.parametrize("kind", [list, tuple, np.array, np.uint8])
def test_ids_in_any_container(engine, kind):
    index = open_index(engine, bits=8)
    index.add(np.arange(3, dtype=np.uint8)[:, None], ids=kind([5, 6, 7]))
    assert index.search(np.zeros(1, np.uint8), 1)[1].tolist() == [5]


def test_removing_an_unknown_id_names_it_and_removes_nothing(engine):
    index = open_index(engine, bits=8)
    index.add(np.zeros((3, 1), np.uint8))
    for ids, named in [([0, 99], "id 99"), ("a", "id 'a'"), ([2, 8, 9], "id 8 .* 1 other")]:
        with pytest.raises(KeyError, match=named):
            index.remove(ids)
    assert len(index) == 3
    index.remove([1, 1])
    with pytest.raises(KeyError, match="id 1"):
        index.remove([1])
    assert index.search(np.zeros(1, np.uint8), 5)[1].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("codes", "line"),
    [
        (np.zeros((2, 2), np.uint8), r"20 bits must have the shape \(n, 3\)"),
        (np.zeros((2, 20), np.uint8), r"shape \(n, 3\)"),  # unpacked: a bit a byte
        (np.zeros((2, 2, 3), np.uint8), r"shape \(n, 3\)"),
        (np.zeros((2, 3), np.float32), "packed uint8"),
        (np.full((2, 3), 1, np.uint8), "beyond bit 20"),
    ],
)
def test_codes_of_another_width_or_type_are_refused(engine, codes, line):
    index = open_index(engine, bits=20)
    index.add(np.zeros((5, 3), np.uint8))
    for call in (index.add, lambda x: index.search(x, 1), lambda x: index.search_radius(x, 1)):
        with pytest.raises(ValueError, match=line):
            call(codes)
    assert len(index) == 5


def test_k_and_r_out_of_range(engine):
    index = open_index(engine, bits=8)
    index.add(np.array([[0], [255]], np.uint8))
    query = np.zeros(1, np.uint8)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        index.search(query, 0)
    with pytest.raises(ValueError, match="r must be at least 0, got -1"):
        index.search_radius(query, -1)
    with pytest.raises(TypeError):
        index.search(query, 1.5)
    assert index.search_radius(query, 10**6)[1].tolist() == [0, 1]


def test_stats(engine):
    index = open_index(engine, bits=64, fingerprint="abc")
    index.add(np.zeros((10, 8), np.uint8))
    stats = index.stats()
    expected = {"engine": engine, "bits": 64, "fingerprint": "abc", "items": 10, "distinct": 1}
    assert stats.items() >= expected.items()
    assert stats["bytes"] > 0
    json.dumps(stats)


def test_unknown_engine_and_impossible_bits(engine):
    with pytest.raises(ValueError, match=f"'fast': choose one of .*{engine}"):
        open_index("fast", bits=64)
    with pytest.raises(ValueError, match="at least 1"):
        open_index(engine, bits=0)


# The file


@pytest.fixture
def saved(engine, tmp_path):
    """The path of an index of 50 codes of 20 bits, saved for the model "abc"."""
    index = open_index(engine, bits=20, path=tmp_path / "new" / "gallery.index", fingerprint="abc")
    index.add(clustered(np.random.default_rng(0), 50, 20))
    index.save(tmp_path / "new" / "gallery.index")
    return tmp_path / "new" / "gallery.index"


@pytest.mark.parametrize("names", [None, "int", "str", "surrogates"])
def test_saved_and_opened_again_it_is_the_same(engine, names, tmp_path):
    rng = np.random.default_rng(0)
    codes, queries = clustered(rng, 300, 20), clustered(rng, 5, 20)
    ids = {
        None: None,
        "int": (np.arange(300) * 7 - 1000),
        "str": [f"größe/{i}.png" for i in range(299)] + [""],
        "surrogates": [os.fsdecode(b"\xff%d" % i) for i in range(300)],  # names of files that are no UTF-8
    }[names]
    index = open_index(engine, bits=20, fingerprint="abc")
    index.add(codes, ids)
    index.remove(index.search(queries[0], 5)[1])
    index.save(tmp_path / "index")
    again = ENGINES[engine].load(tmp_path / "index")
    assert (again.engine, again.bits, again.fingerprint, len(again)) == (engine, 20, "abc", 295)
    assert again.stats()["distinct"] == index.stats()["distinct"]
    for k in (1, 10, 1000):
        for before, after in zip(index.search(queries, k), again.search(queries, k), strict=True):
            assert before.tolist() == after.tolist()
            assert before.dtype == after.dtype
    with pytest.raises(ValueError, match="in the index already"):
        again.add(codes[:1], ids=again.search(codes[0], 1)[1])


def test_an_empty_index_is_saved_too(engine, tmp_path):
    open_index(engine, bits=64).save(tmp_path / "index")
    index = open_index(engine, bits=64, path=tmp_path / "index")
    assert len(index) == 0
    index.add(np.zeros((1, 8), np.uint8), ids=["a"])
    assert index.search(np.zeros(8, np.uint8), 1)[1].tolist() == ["a"]


def test_save_makes_the_folder_and_leaves_nothing_else_in_it(saved):
    assert [path.name for path in saved.parent.iterdir()] == ["gallery.index"]


def test_the_file_is_as_readable_as_any_other(saved):
    other = saved.with_name("other")
    other.touch()
    assert stat.filemode(saved.stat().st_mode) == stat.filemode(other.stat().st_mode)


def test_a_save_that_breaks_off_leaves_the_old_file(engine, saved, monkeypatch):
    before = saved.read_bytes()
    index = open_index(engine, bits=20, path=saved)
    index.add(np.zeros((1, 3), np.uint8))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        index.save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["gallery.index"]
    assert len(open_index(engine, bits=20, path=saved)) == 50


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(engine, saved, keep):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else keep])
    with pytest.raises(IndexFileError, match=r"gallery\.index is truncated or not an index: .*add the codes again"):
        open_index(engine, bits=20, path=saved)


def rewrite(path, change):
    """Write the file anew with its metadata and tensors changed, as no accident would."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    tensors = safetensors.numpy.load_file(path)
    change(metadata, tensors)
    safetensors.numpy.save_file(tensors, path, metadata=metadata)


@pytest.mark.parametrize("tensor", ["codes", "rows", "ids"])
def test_an_altered_tensor_is_refused(engine, saved, tensor):
    rewrite(saved, lambda _, tensors: tensors.update({tensor: tensors[tensor][::-1].copy()}))
    with pytest.raises(IndexFileError, match="has been altered"):
        open_index(engine, bits=20, path=saved)


def test_any_altered_byte_is_refused(engine, saved):
    whole = saved.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 40).astype(int):
        altered = bytearray(whole)
        altered[place] ^= 0x10
        saved.write_bytes(altered)
        with pytest.raises(IndexFileError, match=r"gallery\.index"):
            open_index(engine, bits=20, path=saved)


def test_an_altered_header_is_refused(engine, saved):
    def change(metadata, _):
        metadata["dsh_hf_index"] = metadata["dsh_hf_index"].replace("abc", "xyz")

    rewrite(saved, change)
    with pytest.raises(IndexFileError, match="has been altered"):
        open_index(engine, bits=20, path=saved, fingerprint="xyz")


def test_a_newer_format_is_refused(engine, saved):
    def change(metadata, _):
        metadata["dsh_hf_index"] = json.dumps(json.loads(metadata["dsh_hf_index"]) | {"version": 99})

    rewrite(saved, change)
    with pytest.raises(IndexFileError, match="newer format 99: upgrade dsh-hf"):
        open_index(engine, bits=20, path=saved)


def test_files_of_others_are_refused(engine, tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(IndexFileError, match="not an index of dsh-hf"):
        open_index(engine, bits=20, path=path)
    path.write_text("plain text, and long enough for a header")
    with pytest.raises(IndexFileError, match="truncated or not an index"):
        open_index(engine, bits=20, path=path)


def test_a_missing_file_is_an_error_for_load_alone(engine, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no index file .*nowhere"):
        ENGINES[engine].load(tmp_path / "nowhere")
    assert len(open_index(engine, bits=20, path=tmp_path / "nowhere")) == 0


def test_another_model_length_or_engine_is_refused_with_the_way_out(engine, saved):
    with pytest.raises(IndexMismatchError, match=r"model abc, not xyz: .*encode the collection again"):
        open_index(engine, bits=20, path=saved, fingerprint="xyz")
    with pytest.raises(IndexMismatchError, match=r"20 bits, not 24: .*encode the collection again"):
        open_index(engine, bits=24, path=saved)
    other = next(name for name in ENGINES if name != engine)
    with pytest.raises(IndexMismatchError, match=f"saved by the engine '{engine}': open it as '{engine}'"):
        open_index(other, bits=20, path=saved)
    assert len(open_index(engine, bits=20, path=saved, fingerprint="abc")) == 50


# Threads


def test_searches_run_while_another_thread_writes(engine):
    codes = clustered(np.random.default_rng(0), 600, 64)
    index = open_index(engine, bits=64)
    index.add(codes[:100])
    failures, done = [], threading.Event()

    def read():
        while not done.is_set():
            distances, ids = index.search(codes[:3], 10)
            if distances.shape != (3, 10) or distances[:, 0].any() or len(set(ids[0].tolist())) != 10:
                failures.append((distances, ids))

    def reader():
        try:
            read()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=reader) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(100, 600, 10):
        index.add(codes[start : start + 10])
        index.remove(list(range(start, start + 5)))
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(index) == 350
