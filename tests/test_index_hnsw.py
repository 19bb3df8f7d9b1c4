"""What the hnswlib adapter hides of hnswlib."""

import sys

import numpy as np
import pytest

from dsh_hf.codes import hamming_distances, pack_signs
from dsh_hf.index import IndexFileError, graphs, hnsw, open_index
from dsh_hf.index.files import read_index_file, write_index_file


@pytest.fixture
def codes():
    return pack_signs(np.random.default_rng(0).standard_normal((600, 40)))


@pytest.fixture
def index(codes):
    index = open_index("hnsw", bits=40)
    index.add(codes)
    return index


def test_without_hnswlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    with pytest.raises(ImportError, match=r'pip install "dsh-hf\[hnsw\]"'):
        open_index("hnsw", bits=64)


def test_more_codes_than_the_graph_first_has_room_for():
    codes = pack_signs(np.random.default_rng(0).standard_normal((1500, 40)))
    index = open_index("hnsw", bits=40)
    for part in np.array_split(codes, 3):
        index.add(part)
    distances, ids = index.search(codes, 1)
    assert not distances.any()
    assert (ids[:, 0] == np.arange(1500)).mean() >= 0.99


def test_the_graph_holds_each_code_once(codes, index):
    for _ in range(3):
        index.add(codes)
    assert index._graph.get_current_count() == len(codes)


def test_a_search_that_the_graph_cannot_fill_is_answered_exactly(codes):
    index = open_index("hnsw", bits=40)
    index.add(codes)
    with pytest.raises(RuntimeError, match="contiguous 2D array"):  # what hnswlib does with too few live codes
        index._graph.knn_query(index._floats(codes[:2]), k=601)
    for row in range(100, 600):
        index._graph.mark_deleted(row)  # nothing beyond 100 codes is reached in the graph any more
    distances, _ = index.search(codes[:3], 300)
    assert np.array_equal(distances, np.sort(hamming_distances(codes[:3], codes))[:, :300])


def test_one_query_without_a_full_answer_leaves_the_others_theirs(codes, index, monkeypatch):
    class Moody:
        """A graph that fails whenever the first code is asked for."""

        def __init__(self, graph):
            self.graph, self.sizes = graph, []

        def __getattr__(self, name):
            return getattr(self.graph, name)

        def knn_query(self, floats, k):
            self.sizes.append(len(floats))
            if (floats == index._floats(codes[:1])).all(axis=1).any():
                raise RuntimeError("Cannot return the results in a contiguous 2D array")
            return self.graph.knn_query(floats, k=k)

    monkeypatch.setattr(index, "_graph", Moody(index._graph))
    distances, ids = index.search(codes[:4], 10)
    assert ids[:, 0].tolist() == [0, 1, 2, 3]
    assert np.array_equal(distances[0], np.sort(hamming_distances(codes[:1], codes)[0])[:10])
    assert index._graph.sizes == [4, 1, 1, 1, 1]


def test_k_above_the_candidates_kept_in_a_search(codes, index):
    distances, _ = index.search(codes[:5], 550)
    assert distances.shape == (5, 550)
    assert (distances <= np.sort(hamming_distances(codes[:5], codes))[:, [549]]).mean() >= 0.99


def test_a_removed_code_is_found_no_more_and_again_when_it_returns(codes, index):
    index.remove([0])
    assert index.search(codes[0], 1)[0][0] > 0
    index.add(codes[:1], ids=[9000])
    assert [found.tolist() for found in index.search(codes[0], 1)] == [[0], [9000]]
    assert index._graph.get_current_count() == len(codes)  # revived, not linked a second time


def test_the_graph_is_built_anew_when_most_codes_are_gone(codes, index):
    index.remove(range(400))
    assert index._graph.get_current_count() == 200
    distances, ids = index.search(codes[400:], 1)
    assert not distances.any()
    assert ids[:, 0].tolist() == list(range(400, 600))


def test_an_interrupted_add_goes_on_with_the_next_call(codes, monkeypatch):
    index = open_index("hnsw", bits=40)
    unpack, calls = index._floats, []

    def interrupted(chunk):
        calls.append(len(chunk))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return unpack(chunk)

    with monkeypatch.context() as patch:
        patch.setattr(hnsw, "CHUNK", 100)
        patch.setattr(index, "_floats", interrupted)
        with pytest.raises(KeyboardInterrupt):
            index.add(codes)
    assert index._graph.get_current_count() == 200
    distances, ids = index.search(codes, 1)
    assert not distances.any()
    assert ids[:, 0].tolist() == list(range(600))


def test_opening_takes_the_saved_graph_and_goes_on_from_it(codes, index, tmp_path):
    index.remove(range(100))
    index.save(tmp_path / "index")
    again = open_index("hnsw", bits=40, path=tmp_path / "index")
    assert again._graph.get_current_count() == 600
    for before, after in zip(index.search(codes, 20), again.search(codes, 20), strict=True):
        assert np.array_equal(before, after)
    more = pack_signs(np.random.default_rng(1).standard_normal((2000, 40)))
    again.add(more)  # beyond the room that was saved
    again.add(codes[:50], ids=range(50))  # codes that the saved graph holds as removed
    again.remove([599])
    assert again.search(codes[:50], 1)[1][:, 0].tolist() == list(range(50))
    assert again.search(codes[599], 1)[0][0] > 0
    distances, ids = again.search(more, 1)
    assert not distances.any()
    assert (ids[:, 0] == np.arange(600, 2600)).mean() >= 0.99


def test_a_file_is_searched_with_the_threads_of_this_machine(index, tmp_path):
    index._graph.set_num_threads(77)
    index.save(tmp_path / "index")
    assert open_index("hnsw", bits=40, path=tmp_path / "index")._graph.num_threads != 77


def test_the_radius_search_is_exact(codes, index):
    found = index.search_radius(codes[:20], 14)
    distances = hamming_distances(codes[:20], codes)
    assert [len(near) for near, _ in found] == (distances <= 14).sum(axis=1).tolist()


def test_stats_name_the_settings_of_the_graph(index):
    stats = index.stats()
    assert (stats["M"], stats["ef_construction"], stats["ef"]) == (graphs.M, graphs.EF_CONSTRUCTION, graphs.EF)
    assert stats["bytes"] > 600 * 40 * 4  # a float a bit, before any link


def test_a_larger_collection_is_searched_with_more_candidates(index, monkeypatch):
    monkeypatch.setattr(graphs, "EF_SHARE", 1)
    assert index.stats()["ef"] == 600


LEVEL0, LEVELS, LISTS = "graph.data_level0", "graph.element_levels", "graph.link_lists"


def elements_of(tensors, width):
    return tensors[LEVEL0].view(np.uint8).reshape(600, width)


def link_upwards(tensors):
    lists = tensors[LISTS].view(np.uint32).reshape(-1, 1 + hnsw.M)
    lists[:, 0], lists[:, 1:] = hnsw.M, np.flatnonzero(tensors[LEVELS][:600] == 0)[0]


FORGED = {
    "too long": lambda header, tensors: tensors.update({LEVEL0: np.zeros(50_000_000, np.int8)}),
    "links out of range": lambda header, tensors: tensors[LEVEL0].fill(0x7F),
    "more links than there is room": lambda header, tensors: elements_of(tensors, 300)[:, :2].fill(0xFF),
    "links out of range above": lambda header, tensors: tensors[LISTS].fill(0x0F),
    "links to codes that are not on the level": lambda header, tensors: link_upwards(tensors),
    "higher levels than links": lambda header, tensors: tensors[LEVELS].fill(3),
    "levels below the ground": lambda header, tensors: tensors[LEVELS].fill(-1),
    "the same label twice": lambda header, tensors: elements_of(tensors, 300)[:2, -8:].fill(0),
    "an entry out of range": lambda header, tensors: header["graph"].update(enterpoint_node=600),
    "an entry at no number": lambda header, tensors: header["graph"].update(enterpoint_node=1.5),
    "an entry at the ground": lambda header, tensors: header["graph"].update(
        enterpoint_node=int(np.argmin(tensors[LEVELS][:600]))
    ),
    "no graph in the header": lambda header, tensors: header.pop("graph"),
}


def forge(path, change):
    header, tensors, _ = read_index_file(path)
    change(header, tensors)
    del header["version"]
    write_index_file(path, header, tensors)


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_graph_never_reaches_hnswlib(forged, index, tmp_path):
    index.save(tmp_path / "index")
    assert elements_of(read_index_file(tmp_path / "index")[1], 300)[7, -8:].any()
    forge(tmp_path / "index", FORGED[forged])
    with pytest.raises(IndexFileError, match=r"holds what no index has .*add the codes again"):
        open_index("hnsw", bits=40, path=tmp_path / "index")


def test_sizes_settings_floats_and_marks_are_not_taken_from_the_file(codes, index, tmp_path):
    index.remove(range(5))
    index.save(tmp_path / "index")

    def change(header, tensors):
        header["graph"] |= {"dim": 7, "max_elements": 2**40, "cur_element_count": 10**6, "space": "ip", "M": 900}
        elements_of(tensors, 300)[:, 132:-8] = 0xFF  # not a number
        elements_of(tensors, 300)[:, 2] ^= 1
        tensors["graph.label_lookup_internal"][:] = 2**31

    forge(tmp_path / "index", change)
    again = open_index("hnsw", bits=40, path=tmp_path / "index")
    for before, after in zip(index.search(codes, 20), again.search(codes, 20), strict=True):
        assert np.array_equal(before, after)
    again.add(codes[:5])
    assert not again.search(codes, 1)[0].any()
