"""What the FAISS adapters hide of FAISS."""

import sys

import numpy as np
import pytest

from dsh_hf.codes import hamming_distances, pack_signs
from dsh_hf.index import IndexFileError, graphs, open_index
from dsh_hf.index import faiss as adapter
from dsh_hf.index.exact import ExactIndex
from dsh_hf.index.faiss import FaissFlatIndex, FaissHnswIndex, FaissIvfIndex
from dsh_hf.index.files import read_index_file, write_index_file

faiss = pytest.importorskip("faiss", reason='FAISS is not installed: pip install "dsh-hf[faiss]"')

ENGINES = [FaissFlatIndex, FaissHnswIndex, FaissIvfIndex]
K = 10


def clustered(seed, count, bits=40, clusters=12, flips=0.1):
    words = np.random.default_rng(99).random((clusters, bits)) < 0.5
    rng = np.random.default_rng(seed)
    return np.packbits(words[rng.integers(clusters, size=count)] ^ (rng.random((count, bits)) < flips), axis=1)


def uniform(seed, count, bits=40):
    return pack_signs(np.random.default_rng(seed).standard_normal((count, bits)))


def recall(index, codes, queries, k=K):
    """Share of found items no farther than the exact k-th; codes are all that the index holds."""
    distances, ids = index.search(queries, k)
    assert all(len(set(row)) == k for row in ids.tolist())
    return (distances <= np.sort(hamming_distances(queries, codes))[:, k - 1 : k]).mean()


@pytest.fixture
def small_lists(monkeypatch):
    """Lists for small collections, too."""
    monkeypatch.setattr(adapter, "LEAST_LISTED", 1000)
    monkeypatch.setattr(adapter, "TRIAL_K", 50)


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.engine)
def engine(request, small_lists):
    return request.param


@pytest.fixture
def listed(small_lists):
    index = FaissIvfIndex(bits=40)
    index.add(clustered(0, 4000, clusters=40))
    assert index.stats()["lists"] == 64
    return index


@pytest.mark.parametrize("engine", ENGINES)
def test_without_faiss_the_error_says_what_to_install(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r'pip install "dsh-hf\[faiss\]"'):
        engine(bits=64)


def test_where_faiss_would_fill_up_with_minus_one_the_answer_is_shorter(engine):
    codes = uniform(0, 30)
    assert (faiss.IndexBinaryFlat(40).search(codes[:1], 1)[1] == -1).all()  # what FAISS does
    index = engine(bits=40)
    index.add(codes)
    index.remove(range(10))
    distances, ids = index.search(codes, 1000)
    assert ids.shape == (30, 20)
    assert (np.sort(ids) == np.arange(10, 30)).all()
    assert distances.max() <= 40


@pytest.mark.parametrize("bits", [3, 20, 67])
def test_bits_that_fill_no_whole_bytes_add_no_distance(engine, bits):
    codes = uniform(0, 300, bits)
    index = engine(bits=bits)
    index.add(codes)
    distances, _ = index.search(codes[:5], K)
    assert np.array_equal(distances, np.sort(hamming_distances(codes[:5], codes))[:, :K])


@pytest.mark.parametrize("width", [4, 6, 40])
def test_codes_of_another_width_never_reach_faiss(engine, width):
    index = engine(bits=40)
    index.add(uniform(0, 20))
    wrong = np.zeros((1, width), np.uint8)
    for call in (index.add, lambda codes: index.search(codes, 1), lambda codes: index.search_radius(codes, 1)):
        with pytest.raises(ValueError, match=r"must have the shape \(n, 5\)"):
            call(wrong)


def test_ties_come_as_from_the_exact_engine_also_after_removals():
    codes = uniform(0, 400, 8)  # 256 codes at the most: ties everywhere
    flat, exact = FaissFlatIndex(bits=8), ExactIndex(bits=8)
    for index in (flat, exact):
        index.add(codes)
        index.remove(range(0, 300, 2))
        index.add(codes[:100], ids=range(1000, 1100))  # codes whose row has a low number and whose item is new
    for k in (1, 7, 100, 350):
        for found, wanted in zip(flat.search(codes[:50], k), exact.search(codes[:50], k), strict=True):
            assert np.array_equal(found, wanted)


def test_more_ties_than_are_asked_for_at_once_are_all_weighed():
    codes = np.packbits(np.eye(200, dtype=np.uint8), axis=1)  # each at distance 1 from zero
    index = FaissFlatIndex(bits=200)
    index.add(codes)
    index.remove(range(90))
    index.add(codes[:90])  # the rows that FAISS finds first hold the late items now
    distances, ids = index.search(np.zeros(25, np.uint8), 3)
    assert distances.tolist() == [1, 1, 1]
    assert ids.tolist() == [90, 91, 92]


@pytest.fixture
def three_threads():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    yield
    faiss.omp_set_num_threads(before)


@pytest.mark.parametrize(("count", "used"), [(1, 1), (50, 3)])
def test_a_query_takes_one_thread_and_the_threads_of_the_process_stay(engine, count, used, three_threads, monkeypatch):
    index = engine(bits=40)
    index.add(clustered(0, 2000))
    settings = []
    set_threads = faiss.omp_set_num_threads
    monkeypatch.setattr(faiss, "omp_set_num_threads", lambda threads: settings.append(threads) or set_threads(threads))
    index.search(clustered(1, count), 2000)
    assert settings[0] == used
    index.search_radius(clustered(1, count), 3)
    assert settings[-2:] == [1, 3]
    assert faiss.omp_get_max_threads() == 3


def test_the_threads_are_set_back_after_an_error(three_threads, monkeypatch):
    index = FaissFlatIndex(bits=40)
    index.add(uniform(0, 20))

    def fail(*given, **settings):
        raise MemoryError

    monkeypatch.setattr(index._held, "search", fail)
    with pytest.raises(MemoryError):
        index.search(uniform(1, 1), 1)
    assert faiss.omp_get_max_threads() == 3


def test_equal_codes_reach_faiss_once(engine):
    index = engine(bits=40)
    few = uniform(0, 20)
    index.add(few[np.arange(2000) % 20])
    assert index._held.ntotal == 20
    distances, ids = index.search(few[0], 150)
    assert distances.tolist()[:100] == [0] * 100
    assert ids.tolist()[:100] == list(range(0, 2000, 20))


def test_what_was_removed_is_not_found_until_it_returns(engine):
    codes = clustered(0, 1500)
    codes = np.unique(codes, axis=0)
    index = engine(bits=40)
    index.add(codes)
    index.remove(range(100))
    assert not np.isin(index.search(codes[:100], K)[1], range(100)).any()
    index.add(codes[:50], ids=range(5000, 5050))
    distances, ids = index.search(codes[:50], 1)
    assert not distances.any()
    assert ids[:, 0].tolist() == list(range(5000, 5050))


def test_most_rows_removed_leaves_the_others(engine):
    codes = np.unique(clustered(0, 3000, flips=0.3), axis=0)
    index = engine(bits=40)
    index.add(codes)
    index.remove(range(len(codes) - 100))
    assert index._held.ntotal == 100
    assert np.array_equal(index.search(codes[-100:], 1)[1][:, 0], np.arange(len(codes) - 100, len(codes)))


@pytest.mark.parametrize("flips", [0.1, 0.5])
def test_the_radius_search_is_exact(engine, flips):
    codes, queries = clustered(0, 3000, flips=flips), clustered(1, 20)
    index = engine(bits=40)
    index.add(codes)
    far = hamming_distances(queries, codes)
    for (distances, ids), row in zip(index.search_radius(queries, 12), far, strict=True):
        assert sorted(ids.tolist()) == np.flatnonzero(row <= 12).tolist()
        assert np.array_equal(distances, row[ids])


@pytest.mark.parametrize("make", [clustered, uniform])
@pytest.mark.parametrize("k", [10, 200])
def test_recall(engine, make, k):
    codes, queries = make(0, 5000), make(1, 40)
    index = engine(bits=40)
    index.add(codes)
    assert recall(index, codes, queries, k) >= 0.99


def test_an_opened_index_answers_as_the_saved_one_and_goes_on(engine, tmp_path):
    codes = clustered(0, 3000, flips=0.3)
    index = engine(bits=40)
    index.add(codes)
    index.remove(range(0, 600, 2))
    index.save(tmp_path / "index")
    again = engine.load(tmp_path / "index")
    queries = clustered(1, 30)
    for before, after in zip(index.search(queries, 50), again.search(queries, 50), strict=True):
        assert np.array_equal(before, after)
    held = {"bytes": 0, "id_bytes": 0}  # removed items take room until the index is saved
    assert again.stats() | held == index.stats() | held
    again.add(codes[:10], ids=range(9000, 9010))
    again.remove(range(1, 600, 2))
    assert again.search(codes[0], 1)[0][0] == 0
    assert not np.isin(again.search(codes[:600], 1)[1], range(600)).any()


@pytest.mark.parametrize("place", [0.5, -1])
def test_an_altered_file_is_refused_before_faiss_reads_it(engine, place, tmp_path, monkeypatch):
    index = engine(bits=40)
    index.add(clustered(0, 3000))
    index.save(tmp_path / "index")
    content = bytearray((tmp_path / "index").read_bytes())
    content[int(len(content) * place) if place > 0 else place] ^= 1
    (tmp_path / "index").write_bytes(content)

    def reached(*given):
        pytest.fail("FAISS was given altered bytes")

    monkeypatch.setattr(faiss, "deserialize_index_binary", reached)
    monkeypatch.setattr(faiss.IndexBinaryFlat, "add", reached)
    with pytest.raises(IndexFileError, match="altered"):
        engine.load(tmp_path / "index")


def test_stats_count_what_faiss_holds(engine):
    index = engine(bits=40)
    index.add(uniform(0, 500))
    assert index.stats()["bytes"] >= ExactIndex(bits=40).stats()["bytes"] + 500 * (5 + 8)


def test_few_codes_need_no_lists():
    index = FaissIvfIndex(bits=40)
    index.add(clustered(0, 3000))
    assert (index.stats()["lists"], index.stats()["probes"]) == (0, 0)


def test_lists_are_drawn_anew_when_the_collection_has_grown_much(listed):
    listed.add(clustered(2, 3000, clusters=40))
    assert listed.stats()["lists"] == 64
    listed.add(clustered(3, 12_000, clusters=40))
    assert listed.stats()["lists"] == 128
    codes = np.concatenate([clustered(0, 4000, clusters=40), clustered(2, 3000, clusters=40)])
    assert (listed.search(codes, 1)[0] == 0).mean() >= 0.99


def test_lists_that_would_save_nothing_are_not_used(small_lists):
    index = FaissIvfIndex(bits=40)
    index.add(uniform(0, 3000))
    assert index.stats()["lists"] == 0
    queries = uniform(1, 30)
    assert recall(index, uniform(0, 3000), queries) == 1


def test_a_k_beyond_what_the_nearest_lists_hold(listed, monkeypatch):
    monkeypatch.setattr(adapter, "TRIAL_K", 10_000)  # so that the k takes no more lists
    distances, ids = listed.search(clustered(1, 5, clusters=40), 3900)
    assert ids.shape == (5, 3900)
    assert all(len(set(row)) == 3900 for row in ids.tolist())
    assert distances.max() <= 40


def test_additions_and_removals_leave_the_lists_as_they_are(listed):
    lists = listed._lists
    listed.remove(range(100))
    listed.add(clustered(5, 500, clusters=40))
    listed.search(clustered(1, 5, clusters=40), 5)
    assert listed._lists is lists


def test_lists_that_an_interruption_left_incomplete_are_made_anew(listed):
    gone = np.arange(50)
    listed._lists.remove_ids(gone)
    codes = clustered(0, 4000, clusters=40)
    assert not listed.search(codes[:50], 1)[0].any()
    assert listed._lists.ntotal == listed.stats()["distinct"]


def test_a_graph_that_an_interruption_left_half_linked_is_made_anew(monkeypatch):
    index = FaissHnswIndex(bits=40)
    codes = np.unique(uniform(0, 600), axis=0)
    index.add(codes[:100])
    add = index._held.add

    def interrupted(chunk):
        add(chunk[:50])
        raise KeyboardInterrupt

    monkeypatch.setattr(index._held, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index.add(codes[100:])
    assert index.search(codes, 1)[1][:, 0].tolist() == list(range(len(codes)))
    assert index._held.ntotal == len(codes)


def test_a_graph_without_a_full_answer_is_helped_out_exactly(monkeypatch):
    index = FaissHnswIndex(bits=40)
    codes = uniform(0, 500)
    index.add(codes)
    search = index._held.search

    def poor(queries, k, params):
        far, rows = search(queries, k, params=params)
        rows[0, 3:], far[0, 3:] = -1, 2**31 - 1
        return far, rows

    monkeypatch.setattr(index._held, "search", poor)
    assert recall(index, codes, uniform(1, 3)) >= 0.99


def test_a_larger_collection_is_searched_with_more_candidates(monkeypatch):
    index = FaissHnswIndex(bits=40)
    index.add(uniform(0, 600))
    assert index.stats()["ef"] == graphs.EF
    monkeypatch.setattr(graphs, "EF_SHARE", 1)
    assert index.stats()["ef"] == 600


def vector(array):
    return faiss.vector_to_array(array).copy()


def link_upwards(graph):
    links, heights, ends = vector(graph.neighbors), vector(graph.levels), vector(graph.cum_nneighbor_per_level)
    for first in vector(graph.offsets)[:-1][heights > 1].astype(np.int64):
        links[first + ends[1] : first + ends[2]] = np.flatnonzero(heights == 1)[-1]
    faiss.copy_array_to_vector(links, graph.neighbors)


def enter_at_the_ground(graph):
    graph.entry_point = int(np.argmin(vector(graph.levels)))


@pytest.mark.parametrize(
    "forged",
    [
        lambda held: link_upwards(held.hnsw),
        lambda held: enter_at_the_ground(held.hnsw),
        lambda held: setattr(held.hnsw, "entry_point", 10**6),
        lambda held: faiss.copy_array_to_vector(np.zeros(1), held.hnsw.assign_probas),
        lambda held: faiss.copy_array_to_vector(np.full(1, 10**6, np.int32), held.hnsw.neighbors),
        lambda held: faiss.copy_array_to_vector(np.zeros(8 * 3000, np.uint8), storage_of(held).xb),
        lambda held: faiss.IndexBinaryFlat(64),
    ],
    ids=["levels", "entry at the ground", "entry", "settings", "neighbors", "other codes", "no graph"],
)
def test_a_forged_graph_is_refused_whatever_its_checksum(forged, tmp_path):
    index = open_index("faiss-hnsw", bits=64)
    index.add(pack_signs(np.random.default_rng(0).standard_normal((3000, 64))))
    index.save(tmp_path / "index")
    header, tensors, _ = read_index_file(tmp_path / "index")
    held = faiss.deserialize_index_binary(tensors["graph"])
    tensors["graph"] = faiss.serialize_index_binary(forged(held) or held)
    del header["version"]
    write_index_file(tmp_path / "index", header, tensors)
    with pytest.raises(IndexFileError, match=r"holds what no index has .*add the codes again"):
        open_index("faiss-hnsw", bits=64, path=tmp_path / "index")


def storage_of(held):
    return faiss.downcast_IndexBinary(held.storage)


@pytest.mark.parametrize("change", [{"probes": 0}, {"probes": 10**6}, {"probes": "all"}, {"tried": None}])
def test_lists_that_are_not_sound_are_refused_whatever_their_checksum(change, listed, tmp_path):
    listed.save(tmp_path / "index")
    header, tensors, _ = read_index_file(tmp_path / "index")
    assert "centres" in tensors
    del header["version"]
    write_index_file(tmp_path / "index", header | change, tensors)
    with pytest.raises(IndexFileError, match=r"holds what no index has .*add the codes again"):
        open_index("faiss-ivf", bits=listed.bits, path=tmp_path / "index")
