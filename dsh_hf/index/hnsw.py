"""Approximate search on a navigable small world graph, by hnswlib.

hnswlib knows no Hamming distance, but on {0, 1} floats its squared Euclidean distance is just that. The graph
holds distinct codes alone: many equal ones cut it into parts that no search leaves.
"""

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsh_hf.codes import Codes, hamming_distances
from dsh_hf.index.files import Tensors, is_permutation, whole_numbers
from dsh_hf.index.graphs import EF_CONSTRUCTION, M, candidates
from dsh_hf.index.local import LocalIndex, Places, Rows

CHUNK = 16_384  # codes unpacked to floats at a time
MOST_LEVELS = 64  # of a graph; a billion codes have about eight


class HnswIndex(LocalIndex):
    """The hnswlib index: nearest items nearly always, in the exact order by their exact distances.

    How it is built and searched, and when it pays, see :mod:`dsh_hf.index.graphs`.

    Lost: uniform random codes of 128 bits have no neighbourhoods that lead to one another; of the ten nearest
    among 100,000 it finds 0.88, of the 200 nearest among a million 0.87. Where the graph has no full answer, and
    in :meth:`search_radius`, the codes are compared one and all.
    """

    engine = "hnsw"

    def __init__(self, *, bits: int, fingerprint: str | None = None) -> None:
        try:
            import hnswlib
        except ImportError as error:
            raise ImportError('hnswlib is not installed: pip install "dsh-hf[hnsw]"') from error
        super().__init__(bits=bits, fingerprint=fingerprint)
        self._make = hnswlib.Index
        self._clear_graph()

    def stats(self) -> dict[str, Any]:
        """Describe the index as :meth:`Index.stats` does, and the graph's settings."""
        with self._lock:
            stats = super().stats()
            stats["bytes"] += self._graph.index_file_size()
            return stats | {"M": M, "ef_construction": EF_CONSTRUCTION, "ef": candidates(1, self._live_rows)}

    def _rows_near(self, queries: Codes, k: int) -> Iterator[Rows]:
        self._link()
        k = min(k, self._live_rows)
        for start in range(0, len(queries), CHUNK):
            yield from self._ask(queries[start : start + CHUNK], k)

    def _ask(self, queries: Codes, k: int) -> Iterator[Rows]:
        self._graph.set_ef(candidates(k, self._live_rows))
        try:
            found, _ = self._graph.knn_query(self._floats(queries), k=k)
        except RuntimeError:  # hnswlib gives nothing at all when one query finds fewer than k
            if len(queries) == 1:
                yield from super()._rows_near(queries, k)
            else:
                for query in queries:
                    yield from self._ask(query[None], k)
            return
        for query, rows in zip(queries, found.astype(np.int64), strict=True):
            yield rows, hamming_distances(query[None], self._codes(rows))[0]

    def _rows_live(self, rows: Places) -> None:
        for row in rows[rows < self._graph.get_current_count()].tolist():
            self._graph.unmark_deleted(row)
        self._link()

    def _rows_empty(self, rows: Places) -> None:
        self._link()
        for row in rows.tolist():
            self._graph.mark_deleted(row)

    def _link(self) -> None:
        """Put every row into the graph that is not in it yet, be it since an earlier add was interrupted."""
        held, rows = self._graph.get_current_count(), self._sizes.array.size
        if rows > self._graph.get_max_elements():
            self._graph.resize_index(max(2 * held, rows))
        for start in range(held, rows, CHUNK):
            chunk = np.arange(start, min(start + CHUNK, rows))
            self._graph.add_items(self._floats(self._codes(chunk)), chunk)

    def _rows_renumbered(self) -> None:
        self._clear_graph()
        self._link()

    def _clear_graph(self) -> None:
        self._graph = self._make("l2", self.bits)
        self._graph.init_index(max_elements=1024, M=M, ef_construction=EF_CONSTRUCTION, random_seed=0)

    def _state(self) -> tuple[dict[str, Any], Tensors]:
        # What hnswlib gives to be pickled, without the pickle: codes and graph are one file, one checksum.
        self._link()
        state = self._graph.__getstate__()[0]
        tensors = {f"graph.{name}": value for name, value in state.items() if isinstance(value, np.ndarray)}
        plain = {name: value for name, value in state.items() if not isinstance(value, np.ndarray)}
        return {"graph": plain}, tensors

    def _restore(self, header: dict[str, Any], tensors: Tensors) -> None:
        # hnswlib follows every number that it is given. So sizes and floats are our own, and links are checked;
        # to link a million codes anew, when they are first searched, would take about a minute.
        if self._sizes.array.size:
            arrays = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("graph.")}
            self._graph = self._make(params=self._checked_state(header["graph"], arrays))

    def _checked_state(self, told: dict[str, Any], arrays: Tensors) -> dict[str, Any]:
        """Give the state of a graph of these rows, with the links of a file."""
        rows, state = self._sizes.array.size, self._graph.__getstate__()[0]
        elements = _records(arrays["data_level0"], rows, state["size_data_per_element"])
        floats, label = state["offset_data"], state["label_offset"]
        labels = elements[:, label:].copy().view(np.uint64)[:, 0]
        if labels.max() >= rows or not is_permutation(labels.astype(np.int64)):
            raise ValueError("the graph does not hold every row once")
        held_levels = arrays["element_levels"][:rows]  # filled up with the room to grow
        levels = whole_numbers({"element_levels": held_levels}, "element_levels", rows, MOST_LEVELS)
        lists = _records(arrays["link_lists"], int(levels.sum()), state["size_links_per_element"])
        level = 1 + np.arange(len(lists)) - np.repeat(np.cumsum(levels) - levels, levels)
        _check_links(elements[:, :floats], state["max_M0"], levels, np.zeros(rows, np.int64))
        _check_links(lists, state["max_M"], levels, level)
        entry, top = operator.index(told["enterpoint_node"]), int(levels.max())
        if not 0 <= entry < rows or levels[entry] != top:
            raise ValueError("the graph is entered where it is not")
        empty = self._arranged().empty[labels]
        elements[:, 2] = empty  # hnswlib's mark of what is deleted
        for start in range(0, rows, CHUNK):
            codes = self._codes(labels[start : start + CHUNK].astype(np.int64))
            elements[start : start + CHUNK, floats:label] = self._floats(codes).view(np.uint8)
        return state | {
            "max_elements": max(state["max_elements"], rows),
            "cur_element_count": rows,
            "ep_added": True,
            "has_deletions": bool(empty.any()),
            "max_level": top,
            "enterpoint_node": entry,
            "label_lookup_external": labels,
            "label_lookup_internal": np.arange(rows, dtype=np.uint32),
            "element_levels": levels,
            "data_level0": elements.reshape(-1).view(np.int8),
            "link_lists": lists.reshape(-1).view(np.int8),
        }

    def _floats(self, codes: Codes) -> NDArray[np.float32]:
        """Unpack codes into the floats of the graph, always ``bits`` wide: hnswlib itself checks no width."""
        return np.unpackbits(codes, axis=1, count=self.bits).astype(np.float32)


def _records(array: NDArray[Any], count: int, size: int) -> NDArray[np.uint8]:
    """Give bytes of a file as so many records, in an array of its own."""
    if array.dtype != np.int8 or array.shape != (count * size,):
        raise ValueError(f"the graph holds {array.size:,} bytes where {count:,} records of {size} are due")
    return array.view(np.uint8).reshape(count, size).copy()


def _check_links(lists: NDArray[np.uint8], most: int, levels: NDArray[np.int32], level: NDArray[np.int64]) -> None:
    """Check lists of links: each leads to a code, and to one that is there on the list's level.

    Args:
        lists: of shape ``(n, 4 + 4 * most)``: a count of two bytes, two other bytes, and the links.
        most: how many links there may be.
        levels: the highest level of every code.
        level: that of every list.
    """
    for start in range(0, len(lists), CHUNK):
        part = lists[start : start + CHUNK]
        counts = np.ascontiguousarray(part[:, :2]).view(np.uint16)
        links = np.ascontiguousarray(part[:, 4:]).view(np.uint32)
        used = np.arange(most) < counts
        linked, on = links[used], np.repeat(level[start : start + CHUNK], np.minimum(counts[:, 0], most))
        if counts.max() > most or (linked >= levels.size).any() or (levels[linked] < on).any():
            raise ValueError("links of the graph lead nowhere")
