"""What every engine behind dsh_hf.index.Index must do, whatever it searches with."""

import json
import os
import stat
import subprocess
import sys
import threading
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from engines import (
    ENGINES_UNDER_TEST,
    LOCAL_ENGINES,
    RECALL,
    Opener,
    Reference,
    assert_same_answers,
    clustered,
    follow,
    plans,
)
from hypothesis import HealthCheck, given, settings
from safetensors import safe_open

from dsh_hf import index as index_package
from dsh_hf.index import IndexChangedError, IndexFileError, IndexMismatchError, engine_class, open_index
from dsh_hf.index.arrays import GrowingArray
from dsh_hf.index.base import Index, check_ids
from dsh_hf.index.files import read_index_file, write_index_file

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(params=ENGINES_UNDER_TEST, ids=lambda engine: engine.name)
def tested(request):
    return request.param


@pytest.fixture
def make_index(tested, request):
    """Makes an empty index of the engine."""
    return Opener(tested, request)


@pytest.fixture(params=LOCAL_ENGINES, ids=lambda engine: engine.name)
def engine(request):
    """The name of an engine whose index is a file."""
    if request.param.package:
        pytest.importorskip(request.param.package)
    return request.param.name


def test_any_sequence_of_changes_gives_the_answers_of_a_plain_list(tested, make_index):
    @settings(max_examples=tested.examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(plans())
    def run(plan):
        follow(plan, make_index, tested.exact)

    run()


@pytest.mark.parametrize("bits", [20, 64, 256])
def test_many_equal_codes(tested, make_index, bits):
    rng = np.random.default_rng(0)
    few = clustered(rng, 20, bits)
    codes = few[rng.integers(len(few), size=2000)]
    index, reference = make_index(bits=bits), Reference()
    index.add(codes)
    reference.add(codes, range(2000))
    for k in (1, 7, 150, 500):
        assert_same_answers(tested.exact, index, reference, few[:3], k, 0)
    assert index.stats()["distinct"] == len(np.unique(few, axis=0))


def test_recall_among_many_clustered_codes(tested, make_index):
    rng = np.random.default_rng(1)
    codes, queries = clustered(rng, 5000, 64, clusters=100), clustered(rng, 50, 64, clusters=100)
    index = make_index(bits=64)
    index.add(codes)
    true = np.sort(np.bitwise_count(codes[None] ^ queries[:, None]).sum(axis=2), axis=1)
    for k in (1, 10, 200):
        distances, _ = index.search(queries, k)
        assert (distances <= true[:, k - 1, None]).mean() >= (1 if tested.exact else RECALL)


def test_ties_come_in_order_of_insertion_also_after_a_code_returns(make_index):
    index = make_index(bits=8)
    index.add(np.array([[0b1], [0b10], [0b1], [0b100]], np.uint8), ids=[40, 30, 20, 10])
    query = np.zeros((1, 1), np.uint8)
    assert index.search(query, 4)[1].tolist() == [[40, 30, 20, 10]]
    index.remove([40])
    index.add(np.array([[0b1]], np.uint8), ids=[40])
    assert index.search(query, 4)[1].tolist() == [[30, 20, 10, 40]]


def test_one_query_gives_one_dimension(make_index):
    index = make_index(bits=16)
    codes = np.array([[0, 0], [255, 255], [0, 1]], np.uint8)
    index.add(codes, ids=["black", "white", "dot"])
    distances, ids = index.search(codes[0], 2)
    assert distances.tolist() == [0, 1]
    assert ids.tolist() == ["black", "dot"]
    distances, ids = index.search_radius(codes[0], 1)
    assert distances.tolist() == [0, 1]
    assert ids.tolist() == ["black", "dot"]


def test_one_code_is_added_and_removed_under_one_id(make_index):
    index = make_index(bits=16)
    index.add(np.array([1, 2], np.uint8), ids="a name of many letters")
    assert index.search(np.array([1, 2], np.uint8), 1)[1].tolist() == ["a name of many letters"]
    index.remove("a name of many letters")
    assert len(index) == 0


def test_empty_index(make_index):
    index = make_index(bits=16)
    queries = np.zeros((3, 2), np.uint8)
    distances, ids = index.search(queries, 5)
    assert distances.shape == ids.shape == (3, 0)
    assert ids.dtype == distances.dtype == np.int64
    assert [pair[0].tolist() for pair in index.search_radius(queries, 16)] == [[], [], []]
    assert index.search(queries[0], 5)[0].shape == (0,)
    index.add(np.empty((0, 2), np.uint8))
    assert len(index) == 0


def test_no_queries(make_index):
    index = make_index(bits=16)
    index.add(np.zeros((3, 2), np.uint8))
    assert index.search(np.empty((0, 2), np.uint8), 2)[0].shape == (0, 2)
    assert index.search_radius(np.empty((0, 2), np.uint8), 2) == []


def test_ids_run_on_from_the_greatest_ever_given(make_index):
    index = make_index(bits=8)
    code = np.zeros((2, 1), np.uint8)
    index.add(code)
    index.add(code, ids=[-5, 10])
    index.add(code)
    index.remove([11, 12])
    index = make_index.again(index)
    index.add(code)
    assert index.search(code[0], 9)[1].tolist() == [0, 1, -5, 10, 13, 14]


def test_an_emptied_index_takes_the_other_kind_of_ids(make_index):
    index = make_index(bits=8)
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
def test_wrong_ids_are_refused_and_nothing_is_added(make_index, ids, line):
    index = make_index(bits=8)
    index.add(np.zeros((1, 1), np.uint8), ids=[3])
    with pytest.raises(ValueError, match=line):
        index.add(np.ones((2, 1), np.uint8), ids=ids)
    assert len(index) == 1
    assert index.search(np.ones(1, np.uint8), 9)[1].tolist() == [3]


def test_str_ids_must_stay_strs_and_be_given(make_index):
    index = make_index(bits=8)
    index.add(np.zeros((1, 1), np.uint8), ids=["a"])
    with pytest.raises(ValueError, match="id 'a' is in the index already"):
        index.add(np.zeros((1, 1), np.uint8), ids=["a"])
    with pytest.raises(ValueError, match="holds str ids and takes no int ids"):
        index.add(np.zeros((1, 1), np.uint8), ids=[1])
    with pytest.raises(ValueError, match="give ids with the codes"):
        index.add(np.zeros((1, 1), np.uint8))


@pytest.mark.parametrize("kind", [list, tuple, np.array, np.uint8])
def test_ids_in_any_container(make_index, kind):
    index = make_index(bits=8)
    index.add(np.arange(3, dtype=np.uint8)[:, None], ids=kind([5, 6, 7]))
    assert index.search(np.zeros(1, np.uint8), 1)[1].tolist() == [5]


@pytest.mark.parametrize("ids", [np.arange(5), np.array([7, 3, 9], np.uint8), np.array([2**63 - 1, 0], np.uint64)])
def test_ids_in_an_array_are_those_of_a_list_and_stay_the_callers(ids):
    checked = check_ids(ids)
    assert checked.dtype == np.int64
    assert checked.tolist() == ids.tolist() == check_ids(ids.tolist()).tolist()
    assert not np.shares_memory(checked, ids)


@pytest.mark.parametrize(
    "ids", [np.array([5, 1, 5]), np.array([2**63], np.uint64), np.array([[1, 2]]), np.array([True])]
)
def test_wrong_ids_in_an_array_are_refused_as_in_a_list(ids):
    with pytest.raises(ValueError, match=r"id 5 is given more than once|must fit in 64 bits|all ints or all strs"):
        check_ids(ids)


def test_an_array_of_ids_is_checked_without_an_object_for_each():
    ids = np.random.default_rng(0).permutation(200_000)
    tracemalloc.start()
    try:
        check_ids(ids)
        assert tracemalloc.get_traced_memory()[1] < 20 * ids.size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("names", [list(range(100, 110)), [f"photo {i}" for i in range(10)]], ids=["ints", "strs"])
def test_an_addition_that_breaks_off_has_added_nothing(engine, names, when, error, monkeypatch, tmp_path):
    """Breaks off before or after each step that takes memory, in turn."""
    codes = np.arange(160, dtype=np.uint8).reshape(20, 8)
    extend, steps, begun = GrowingArray.extend, [], 0

    def breaking(self, values):
        steps.append(values)
        if when == "after":
            extend(self, values)
        if len(steps) == begun:
            raise error
        if when == "before":
            extend(self, values)

    for before in (0, 5):  # none in the index, and some
        for begun in range(1, 9):
            index, steps = open_index(engine, bits=64), []
            index.add(codes[:5], names[:5])
            index.remove(names[before:5])
            with monkeypatch.context() as patch:
                patch.setattr(GrowingArray, "extend", breaking)
                try:
                    index.add(codes[3:8], names[5:])
                except error:
                    pass
                else:
                    assert begun > 1
                    break
            assert len(index) == before
            index.add(codes[10:15], names[5:])
            index.save(tmp_path / "index")
            for opened in (index, open_index(engine, bits=64, path=tmp_path / "index")):
                assert len(opened) == before + 5
                distances, ids = opened.search(codes[10:15], 1)
                assert not distances.any()
                assert ids[:, 0].tolist() == names[5:]
                assert opened.search(codes[0], 20)[1].size == before + 5
            (tmp_path / "index").unlink()


def test_removing_an_unknown_id_names_it_and_removes_nothing(make_index):
    index = make_index(bits=8)
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
def test_codes_of_another_width_or_type_are_refused(make_index, codes, line):
    index = make_index(bits=20)
    index.add(np.zeros((5, 3), np.uint8))
    for call in (index.add, lambda x: index.search(x, 1), lambda x: index.search_radius(x, 1)):
        with pytest.raises(ValueError, match=line):
            call(codes)
    assert len(index) == 5


def test_k_and_r_out_of_range(make_index):
    index = make_index(bits=8)
    index.add(np.array([[0], [255]], np.uint8))
    query = np.zeros(1, np.uint8)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        index.search(query, 0)
    with pytest.raises(ValueError, match="r must be at least 0, got -1"):
        index.search_radius(query, -1)
    with pytest.raises(TypeError):
        index.search(query, 1.5)
    assert index.search_radius(query, 10**6)[1].tolist() == [0, 1]


def test_stats(tested, make_index):
    index = make_index(bits=64, fingerprint="abc")
    index.add(np.zeros((10, 8), np.uint8))
    stats = index.stats()
    assert stats.items() >= {"engine": tested.name, "bits": 64, "fingerprint": "abc", "items": 10}.items()
    json.dumps(stats)


def test_stats_of_an_engine_in_memory(engine):
    index = open_index(engine, bits=64)
    index.add(np.zeros((10, 8), np.uint8))
    stats = index.stats()
    assert stats["distinct"] == 1
    assert 8 + 10 * 4 <= stats["bytes"] < 1e6
    assert stats["id_bytes"] >= 80


def test_impossible_bits(make_index):
    with pytest.raises(ValueError, match="at least 1"):
        make_index(bits=0)


def test_pivots_are_a_hint_that_every_engine_takes(make_index):
    index = make_index(bits=16)
    index.use_pivots(np.array([[0, 0], [255, 255]], np.uint8))
    index.add(np.array([[0, 1], [255, 254]], np.uint8))
    assert index.search(np.zeros(2, np.uint8), 2)[0].tolist() == [1, 15]
    with pytest.raises(ValueError, match=r"pivots of 16 bits must have the shape \(n, 2\)"):
        index.use_pivots(np.zeros((2, 3), np.uint8))


def test_an_id_that_comes_back_has_its_new_code(make_index):
    index = make_index(bits=16)
    index.add(np.array([[0, 0], [255, 255]], np.uint8), ids=["a", "b"])
    index.remove(["a"])
    index.add(np.array([255, 254], np.uint8), ids=["a"])
    distances, ids = index.search(np.array([255, 255], np.uint8), 5)
    assert (distances.tolist(), ids.tolist()) == ([0, 1], ["b", "a"])


def test_the_greatest_and_least_ids(make_index):
    index = make_index(bits=8)
    ids = [2**63 - 1, -(2**63), 0, -1]
    index.add(np.zeros((4, 1), np.uint8), ids)
    assert index.search(np.zeros(1, np.uint8), 4)[1].tolist() == ids
    with pytest.raises(ValueError, match="no running ids are left"):
        index.add(np.zeros((1, 1), np.uint8))
    index.remove(ids[:2])
    assert index.search(np.zeros(1, np.uint8), 4)[1].tolist() == ids[2:]


def test_ids_in_no_order_are_found_again(make_index):
    rng = np.random.default_rng(0)
    ids = rng.permutation(3000) - 1500
    index = make_index(bits=32)
    codes = clustered(rng, 3000, 32)
    for start in range(0, 3000, 500):
        index.add(codes[start : start + 500], ids[start : start + 500])
    index.remove(ids[:1000])
    assert sorted(index.search_radius(codes[0], 32)[1].tolist()) == sorted(ids[1000:].tolist())
    with pytest.raises(ValueError, match="in the index already"):
        index.add(codes[:1], ids[2999:])


def test_many_queries_at_once_have_the_answers_of_one_by_one(make_index):
    rng = np.random.default_rng(0)
    index, queries = make_index(bits=48), clustered(rng, 40, 48)
    index.add(clustered(rng, 500, 48))
    distances, ids = index.search(queries, 20)
    for i, query in enumerate(queries):
        one_distances, one_ids = index.search(query, 20)
        assert one_distances.tolist() == distances[i].tolist()
        assert one_ids.tolist() == ids[i].tolist()


def test_what_is_given_and_what_is_returned_stay_the_callers(make_index):
    codes, ids = clustered(np.random.default_rng(0), 20, 64), np.arange(20)
    before = codes.copy()
    index = make_index(bits=64)
    index.add(codes, ids)
    found = index.search(codes[0], 20)
    found[0][:], found[1][:] = 99, 99
    ids[:] = 7
    codes[:] = 0
    distances, names = index.search(before[3], 1)
    assert (distances.tolist(), names.tolist()) == ([0], [3])


# Opening


def test_an_unknown_engine_is_answered_with_the_list():
    with pytest.raises(ValueError, match="'fast': choose one of exact, hnsw"):
        open_index("fast", bits=64)
    with pytest.raises(ValueError, match="called 'mysql': choose one of") as caught:
        open_index("mysql://me:secret@host/db", bits=64)
    assert "secret" not in str(caught.value)


def test_an_index_at_a_url_has_no_path(monkeypatch, tmp_path):
    class Remote(Index):
        def __new__(cls, *, url, bits, fingerprint):
            return url, bits, fingerprint

    monkeypatch.setitem(sys.modules, "remote", type(sys)("remote"))
    sys.modules["remote"].Remote = Remote
    monkeypatch.setitem(index_package.SERVERS, "far", "remote:Remote")
    assert open_index("far://host/x", bits=8, fingerprint="abc") == ("far://host/x", 8, "abc")
    with pytest.raises(ValueError, match="leave out path="):
        open_index("far://host/x", bits=8, path=tmp_path / "index")


def test_no_engine_but_the_exact_one_is_imported_until_asked_for():
    modules = {target.partition(":")[0] for target in (index_package.ENGINES | index_package.SERVERS).values()}
    modules.remove("dsh_hf.index.exact")
    code = f"import sys, dsh_hf.index; print([name for name in sys.modules if name in {modules}])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("spec", [*index_package.ENGINES, *(f"{scheme}://host" for scheme in index_package.SERVERS)])
def test_every_engine_of_the_list_is_there(spec):
    engine = engine_class(spec)
    assert issubclass(engine, Index)
    assert "://" in spec or engine.engine == spec


def test_every_engine_of_the_list_is_tested():
    assert set(index_package.ENGINES) <= {tested.name for tested in ENGINES_UNDER_TEST}


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
    again = engine_class(engine).load(tmp_path / "index")
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


@pytest.mark.parametrize("tensor", ["codes", "ids"])
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
        engine_class(engine).load(tmp_path / "nowhere")
    assert len(open_index(engine, bits=20, path=tmp_path / "nowhere")) == 0


def test_another_model_length_or_engine_is_refused_with_the_way_out(engine, saved):
    with pytest.raises(IndexMismatchError, match=r"model abc, not xyz: .*encode the collection again"):
        open_index(engine, bits=20, path=saved, fingerprint="xyz")
    with pytest.raises(IndexMismatchError, match=r"20 bits, not 24: .*encode the collection again"):
        open_index(engine, bits=24, path=saved)
    other = next(name for name in ("exact", "hnsw") if name != engine)
    with pytest.raises(IndexMismatchError, match=f"saved by the engine '{engine}': open it as '{engine}'"):
        open_index(other, bits=20, path=saved)
    assert len(open_index(engine, bits=20, path=saved, fingerprint="abc")) == 50


def forge(path, change):
    """Write the file anew with header and tensors changed, under a checksum that fits."""
    header, tensors, _ = read_index_file(path)
    change(header, tensors)
    del header["version"]
    write_index_file(path, header, tensors)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, None) for name in ("engine", "bits", "count", "next_id")),
        *(("bits", value) for value in (0, "20", 2.5)),
        *(("count", value) for value in (-1, 49, 51)),
        *(("next_id", value) for value in (-1, 3, 2**70)),
        ("engine", ["exact"]),
        ("fingerprint", 7),
    ],
)
def test_a_header_that_is_not_sound_is_refused_whatever_its_checksum(engine, saved, name, value):
    forge(saved, lambda header, _: header.pop(name) if value is None else header.update({name: value}))
    with pytest.raises(IndexFileError, match=r"gallery\.index .*add the codes again"):
        open_index(engine, bits=20, path=saved)


BROKEN = {
    "missing": None,
    "shorter": lambda tensor: tensor[:-1].copy(),
    "longer": lambda tensor: np.concatenate([tensor, tensor[:1]]),
    "of another type": lambda tensor: tensor.astype(np.float32),
    "of another shape": lambda tensor: tensor.reshape(1, *tensor.shape),
    "without values": lambda tensor: tensor[:0].copy(),
}


def break_tensor(_, tensors, name, change):
    whole = tensors.pop(name)
    if change:
        tensors[name] = change(whole)


@pytest.mark.parametrize("broken", BROKEN)
def test_tensors_of_another_shape_or_type_are_refused_whatever_their_checksum(engine, saved, broken):
    whole = saved.read_bytes()
    names = [name for name in read_index_file(saved)[1] if not name.startswith("graph.label_lookup")]
    assert {"codes", "ids"} < set(names)
    for name in names:
        if name == "graph.element_levels" or (name in ("codes", "graph") and broken == "longer"):
            continue  # room to grow, a code without an item, or what FAISS does not read
        forge(saved, partial(break_tensor, name=name, change=BROKEN[broken]))
        with pytest.raises(IndexFileError, match=r"gallery\.index .*add the codes again"):
            open_index(engine, bits=20, path=saved)
        saved.write_bytes(whole)


def set_number(_, tensors, name, place, value):
    tensors[name][place] = value


@pytest.mark.parametrize("value", [-1, 50, 2**31 - 1])
def test_places_out_of_range_are_refused_whatever_their_checksum(engine, saved, value):
    whole = saved.read_bytes()
    for name in {"rows", "items", "row_starts"} & set(read_index_file(saved)[1]):
        for place in (0, 20, -1):
            forge(saved, partial(set_number, name=name, place=place, value=value))
            if name == "row_starts" and place == -1 and value == 50:
                continue  # where it ends
            with pytest.raises(IndexFileError, match=r"gallery\.index .*add the codes again"):
                open_index(engine, bits=20, path=saved)
            saved.write_bytes(whole)


def test_an_id_twice_in_a_file_is_refused_whatever_its_checksum(engine, saved):
    forge(saved, lambda _, tensors: tensors["ids"].__setitem__(1, tensors["ids"][0]))
    with pytest.raises(IndexFileError, match="given more than once"):
        open_index(engine, bits=20, path=saved)


@pytest.mark.parametrize("ends", [[3, 2, 6], [3, 5, 7], [-1, 5, 6], [3, 5, 5], [1, 5, 6], [2, 4, 6]])
def test_texts_of_ids_that_are_not_sound_are_refused_whatever_their_checksum(engine, ends, tmp_path):
    index = open_index(engine, bits=8)
    index.add(np.arange(3, dtype=np.uint8)[:, None], ["a\N{EURO SIGN}"[1:], "ab", "a"])
    index.save(tmp_path / "gallery.index")
    forge(tmp_path / "gallery.index", lambda _, tensors: tensors.update(id_ends=np.array(ends)))
    with pytest.raises(IndexFileError, match=r"gallery\.index .*add the codes again"):
        open_index(engine, bits=8, path=tmp_path / "gallery.index")


@pytest.mark.parametrize("engine", ["exact", "hnsw"])
def test_a_file_of_the_first_format_opens_and_is_saved_in_the_new_one(engine, tmp_path):
    if engine == "hnsw":
        pytest.importorskip("hnswlib")
    codes = (FIXTURES / "index-v1-codes.txt").read_text().split()
    reference = Reference()
    reference.add([np.frombuffer(bytes.fromhex(code), np.uint8) for code in codes], [f"photo {i}" for i in range(40)])
    reference.remove(["photo 3", "photo 7"])
    queries = np.stack([code for _, code in reference.items[:5]])
    path = tmp_path / "index"
    path.write_bytes((FIXTURES / f"index-v1-{engine}.safetensors").read_bytes())
    for version in (1, 2, 2):
        with safe_open(path, framework="numpy") as file:
            assert json.loads(file.metadata()["dsh_hf_index"])["version"] == version
        index = open_index(engine, bits=20, path=path, fingerprint="abc")
        assert_same_answers(True, index, reference, queries, 10, 6)
        index.save(path)


# Several writers


def test_a_save_over_what_another_process_saved_is_refused(engine, saved):
    mine, theirs = (open_index(engine, bits=20, path=saved) for _ in range(2))
    theirs.add(np.zeros((1, 3), np.uint8))
    theirs.save(saved)
    theirs.save(saved)  # its own save is no other's
    mine.remove([0])
    with pytest.raises(IndexChangedError, match=r"another process has saved .*gallery\.index.*: open it again"):
        mine.save(saved)
    assert len(open_index(engine, bits=20, path=saved)) == 51
    mine.save(saved.with_name("other"))
    assert len(open_index(engine, bits=20, path=saved.with_name("other"))) == 49


def test_of_two_that_found_no_file_the_second_to_save_is_refused(engine, tmp_path):
    first, second = (open_index(engine, bits=8, path=tmp_path / "index") for _ in range(2))
    first.add(np.zeros((1, 1), np.uint8))
    first.save(tmp_path / "index")
    with pytest.raises(IndexChangedError):
        second.save(tmp_path / "index")


def test_a_fresh_index_replaces_a_file_and_a_removed_file_is_saved_again(engine, saved):
    fresh = open_index(engine, bits=8)
    fresh.save(saved)
    assert len(open_index(engine, bits=8, path=saved)) == 0
    saved.unlink()
    fresh.save(saved)
    assert len(open_index(engine, bits=8, path=saved)) == 0


# Threads


def test_searches_run_while_another_thread_writes(make_index):
    codes = clustered(np.random.default_rng(0), 600, 64)
    index = make_index(bits=64)
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
