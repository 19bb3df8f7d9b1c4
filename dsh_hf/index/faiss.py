"""Search by FAISS over distinct codes: one by one, in inverted lists, or on a graph.

FAISS numbers codes as they come, as rows are numbered here; so a number that it finds is a row. Codes whose
bits fill no whole bytes end in zeros, which add nothing to a distance.
"""

import math
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsh_hf.codes import Codes, check_codes, code_bytes
from dsh_hf.index.files import Tensors
from dsh_hf.index.graphs import EF_CONSTRUCTION, M, candidates
from dsh_hf.index.local import LocalIndex, Places, Rows

BLOCK, ANSWERS = 1024, 4_194_304  # queries asked at a time, or fewer where they find more rows than ANSWERS
COUNTED = 1024  # rows that FAISS sorts by counting, at the most: faster than its heap, but it takes memory
CHUNK = 65_536  # codes given to FAISS at a time


LEAST_LISTED = 20_000  # codes; fewer are compared one by one as fast
GROWTH = 4  # lists are drawn anew where there are so many times the codes
TRAINED, ROUNDS = 32, 8  # of k-means: codes a list, and how often they are moved; more found no more
TRIALS, FLIPS = 200, 0.1  # queries that the lists are tried with, and the share of bits they differ in from codes
TRIAL_K = 200  # what the trials find; a greater k takes more lists in proportion
TRIAL_RECALL = 0.998  # what they must find at ranks 10 and TRIAL_K
WORTH = 0.25  # of the lists; where a query needs more of them, they save no time


class FaissFlatIndex(LocalIndex):
    """Compare every distinct code, as FAISS does it: the answers of the exact engine, ties included."""

    engine = "faiss-flat"

    def __init__(self, *, bits: int, fingerprint: str | None = None) -> None:
        try:
            import faiss
        except ImportError as error:
            raise ImportError('FAISS is not installed: pip install "dsh-hf[faiss]"') from error
        super().__init__(bits=bits, fingerprint=fingerprint)
        self._faiss: Any = faiss
        self._held = self._empty()

    def stats(self) -> dict[str, Any]:
        """Describe the index as :meth:`Index.stats` does; the bytes count what FAISS holds too."""
        with self._lock:
            stats = super().stats()
            return stats | {"bytes": stats["bytes"] + self._held_bytes()}

    def _empty(self) -> Any:
        return self._faiss.IndexBinaryFlat(8 * code_bytes(self.bits))

    def _held_bytes(self) -> int:
        return int(self._held.ntotal) * code_bytes(self.bits)

    def _every_code(self) -> Any:
        """Give the part of FAISS that compares every code."""
        return self._held

    def _rows_near(self, queries: Codes, k: int) -> Iterator[Rows]:
        self._link()
        k = min(k, self._live_rows)
        wanted = min(4 * k + 64, self._live_rows)  # mostly enough for every row as near as the k-th
        index, settings = self._every_code(), self._faiss.SearchParameters(sel=self._selector())
        index.use_heap = wanted > COUNTED
        for query, far, rows in self._ask(index, queries, wanted, settings):
            if far[-1] > far[k - 1] or wanted == self._live_rows:
                near = far <= far[k - 1]
                yield rows[near], far[near]
            else:
                yield from self._rows_within(query[None], int(far[k - 1]))

    def _rows_within(self, queries: Codes, r: int) -> Iterator[Rows]:
        self._link()
        empty = self._arranged().empty
        for rows, far in self._ask_within(self._every_code(), queries, r):
            live = ~empty[rows]
            yield rows[live], far[live]

    def _ask(self, index: Any, queries: Codes, k: int, settings: Any) -> Iterator[tuple[Codes, NDArray[Any], Places]]:
        """Give each query with the distances and rows that FAISS finds, filled up with rows of -1."""
        block = max(1, min(BLOCK, ANSWERS // k))
        for start in range(0, len(queries), block):
            part = queries[start : start + block]
            with self._threads(len(part)):
                far, rows = index.search(part, k, params=settings)
            yield from zip(part, far, rows, strict=True)

    def _ask_within(self, index: Any, queries: Codes, r: int) -> Iterator[Rows]:
        for query in queries:
            with self._threads(1):
                _, far, rows = index.range_search(query[None], r + 1)  # FAISS gives what is nearer than that
            yield rows, far.astype(np.int64)

    @contextmanager
    def _threads(self, queries: int) -> Iterator[None]:
        """Let FAISS use one thread a query at the most, for a while: its setting is that of the process."""
        before = self._faiss.omp_get_max_threads()
        self._faiss.omp_set_num_threads(min(before, queries))
        try:
            yield
        finally:
            self._faiss.omp_set_num_threads(before)

    def _selector(self) -> Any:
        """Give what keeps FAISS from finding empty rows, or None where there are none."""
        if self._live_rows == self._sizes.array.size:
            return None
        return self._faiss.IDSelectorBitmap(np.packbits(~self._arranged().empty, bitorder="little"))

    def _rows_live(self, rows: Places) -> None:
        self._link()

    def _rows_renumbered(self) -> None:
        self._held = self._empty()
        self._link()

    def _link(self) -> None:
        """Give FAISS every row that it does not hold yet, be it since an earlier add was interrupted."""
        for start in range(self._held.ntotal, self._sizes.array.size, CHUNK):
            self._held.add(self._codes(slice(start, start + CHUNK)))

    def _restore(self, header: dict[str, Any], tensors: Tensors) -> None:
        self._link()


class FaissHnswIndex(FaissFlatIndex):
    """Search a navigable small world graph by FAISS: nearest items nearly always, by their exact distances.

    How it is built and searched, and when it pays, see :mod:`dsh_hf.index.graphs`.

    Lost: uniform random codes of 128 bits have no neighbourhoods that lead to one another; of the ten nearest
    among 100,000 it finds 0.85, of the 200 nearest among a million 0.85. Where the graph has no full answer, and
    in :meth:`search_radius`, the codes are compared one and all.
    """

    engine = "faiss-hnsw"

    def stats(self) -> dict[str, Any]:
        """Describe the index as :meth:`Index.stats` does, and the graph's settings."""
        return super().stats() | {"M": M, "ef_construction": EF_CONSTRUCTION, "ef": candidates(1, self._live_rows)}

    def _empty(self) -> Any:
        graph = self._faiss.IndexBinaryHNSW(8 * code_bytes(self.bits), M)
        graph.hnsw.efConstruction = EF_CONSTRUCTION
        return graph

    def _held_bytes(self) -> int:
        graph = self._held.hnsw
        links = 4 * (graph.neighbors.size() + graph.levels.size()) + 8 * graph.offsets.size()
        return super()._held_bytes() + int(links)

    def _every_code(self) -> Any:
        return self._faiss.downcast_IndexBinary(self._held.storage)

    def _rows_near(self, queries: Codes, k: int) -> Iterator[Rows]:
        self._link()
        k = min(k, self._live_rows)
        settings = self._faiss.SearchParametersHNSW(efSearch=candidates(k, self._live_rows), sel=self._selector())
        for query, far, rows in self._ask(self._held, queries, k, settings):
            if rows[-1] >= 0:
                yield rows, far
            else:
                yield from super()._rows_near(query[None], k)

    def _link(self) -> None:
        try:
            super()._link()
        except BaseException:  # interrupted in the midst, codes are in the graph that nothing links to
            self._held = self._empty()
            raise

    def _state(self) -> tuple[dict[str, Any], Tensors]:
        self._link()
        return {}, {"graph": self._faiss.serialize_index_binary(self._held)}

    def _restore(self, header: dict[str, Any], tensors: Tensors) -> None:
        # FAISS checks what it reads; but not that it is a graph, of these codes, nor to what levels links lead.
        held, graph = self._faiss.deserialize_index_binary(tensors["graph"]), self._empty()
        if type(held) is not type(graph) or held.d != graph.d or held.ntotal != self._sizes.array.size:
            raise ValueError("the graph is not one of these codes")
        storage = self._faiss.downcast_IndexBinary(held.storage)
        if type(storage) is not self._faiss.IndexBinaryFlat or not np.array_equal(
            self._faiss.vector_to_array(storage.xb), self._codes(slice(None)).reshape(-1)
        ):
            raise ValueError("the graph holds other codes")
        self._check_levels(held.hnsw, graph.hnsw)
        held.hnsw.efConstruction = EF_CONSTRUCTION
        self._held = held

    def _check_levels(self, graph: Any, fresh: Any) -> None:
        """Check that the graph is entered at its top, and that links lead to codes that are on the link's level."""
        array = self._faiss.vector_to_array
        for name in ("cum_nneighbor_per_level", "assign_probas"):
            if not np.array_equal(array(getattr(graph, name)), array(getattr(fresh, name))):
                raise ValueError("the graph has other settings")
        neighbors, offsets, heights = array(graph.neighbors), array(graph.offsets), array(graph.levels)
        top, ends = int(heights.max(initial=0)), array(graph.cum_nneighbor_per_level)
        if graph.max_level != top - 1 or (top and heights[graph.entry_point] != top):
            raise ValueError("the graph is not entered at its top")
        for level in range(1, top):
            first = offsets[:-1][heights > level].astype(np.int64) + ends[level]
            links = neighbors[first[:, None] + np.arange(ends[level + 1] - ends[level])]
            if (heights[links[links >= 0]] <= level).any():
                raise ValueError("links of the graph lead nowhere")


class FaissIvfIndex(FaissFlatIndex):
    """Search only the nearest of many lists of codes, by FAISS.

    How many lists a query needs is found out on the codes themselves, with some bits flipped, and doubled: of a
    million codes of a trained model a search misses less than one in a hundred of the nearest 10 or 200. Among
    uniform codes it would need most of the lists; then, as below 20,000 codes, there are none, and every code is
    compared, exactly. :meth:`search_radius` is exact.
    """

    engine = "faiss-ivf"

    def __init__(self, *, bits: int, fingerprint: str | None = None) -> None:
        super().__init__(bits=bits, fingerprint=fingerprint)
        self._drop_lists()

    def stats(self) -> dict[str, Any]:
        """Describe the index as :meth:`Index.stats` does, with its lists and how many a query needs."""
        with self._lock:
            lists = self._lists.nlist if self._lists else 0
            return super().stats() | {"lists": lists, "probes": self._probes}

    def _held_bytes(self) -> int:
        lists = self._lists.ntotal * (code_bytes(self.bits) + 8) if self._lists else 0
        return super()._held_bytes() + int(lists)

    def _rows_near(self, queries: Codes, k: int) -> Iterator[Rows]:
        self._link()
        if self._lists is None:
            return super()._rows_near(queries, k)
        k = min(k, self._live_rows)
        return self._probe(queries, k, min(self._lists.nlist, self._probes * -(-k // TRIAL_K)))

    def _probe(self, queries: Codes, k: int, probes: int) -> Iterator[Rows]:
        settings = self._faiss.SearchParametersIVF(nprobe=probes)
        for query, far, rows in self._ask(self._lists, queries, k, settings):
            if rows[-1] >= 0:
                yield rows, far
            else:  # these lists hold fewer than k
                yield from self._probe(query[None], k, self._lists.nlist)

    def _rows_within(self, queries: Codes, r: int) -> Iterator[Rows]:
        self._link()
        return super()._rows_within(queries, r) if self._lists is None else self._ask_within(self._lists, queries, r)

    def _rows_live(self, rows: Places) -> None:
        if self._lists is not None:
            self._lists.add_with_ids(self._codes(rows), rows)
        self._link()

    def _rows_empty(self, rows: Places) -> None:
        if self._lists is not None:
            self._lists.remove_ids(rows)

    def _rows_renumbered(self) -> None:
        self._drop_lists()
        super()._rows_renumbered()

    def _link(self) -> None:
        due = self._live_rows >= max(LEAST_LISTED, GROWTH * self._tried)
        if due or (self._lists is not None and self._lists.ntotal != self._live_rows):  # after an interruption
            self._make_lists()
        if self._lists is None:
            super()._link()

    def _drop_lists(self) -> None:
        self._lists: Any = None
        self._probes = self._tried = 0  # the latter: how many codes there were when lists were last tried

    def _make_lists(self) -> None:
        self._drop_lists()
        rows = np.flatnonzero(~self._arranged().empty)
        codes = self._codes(rows)
        count = 1 << round(math.log2(rows.size) / 2)  # about as many lists as codes in each
        draws = np.random.default_rng(0)
        lists = self._new_lists(count)
        lists.train(codes[draws.choice(rows.size, min(rows.size, TRAINED * count), replace=False)])
        lists.add_with_ids(codes, rows)
        flips = np.packbits(draws.random((TRIALS, self.bits)) < FLIPS, axis=1)
        # Twice what those need: users' queries may lie farther from the codes.
        probes = 2 * self._probes_needed(lists, codes[draws.choice(rows.size, TRIALS)] ^ flips)
        self._tried = rows.size
        if probes <= WORTH * count:
            self._lists, self._probes, self._held = lists, probes, self._empty()

    def _new_lists(self, count: int) -> Any:
        lists = self._faiss.IndexBinaryIVF(self._empty(), 8 * code_bytes(self.bits), count)
        lists.cp.niter, lists.cp.min_points_per_centroid = ROUNDS, 1
        lists.nprobe = count  # all, where a search does not say otherwise
        return lists

    def _probes_needed(self, lists: Any, queries: Codes) -> int:
        """Give how many lists must be searched for the wanted recall: a power of two, or all of them."""
        exact, _ = lists.search(queries, TRIAL_K)
        probes = 1
        while probes < lists.nlist:
            far, rows = lists.search(queries, TRIAL_K, params=self._faiss.SearchParametersIVF(nprobe=probes))
            hits = (rows >= 0) & (far <= exact[:, -1:])
            hits10 = (rows[:, :10] >= 0) & (far[:, :10] <= exact[:, 9:10])
            if min(hits.mean(), hits10.mean()) >= TRIAL_RECALL:
                break
            probes *= 2
        return probes

    def _state(self) -> tuple[dict[str, Any], Tensors]:
        self._link()
        header = {"probes": self._probes, "tried": self._tried}
        if self._lists is None:
            return header, {}
        centres = self._faiss.downcast_IndexBinary(self._lists.quantizer)
        return header, {"centres": self._faiss.vector_to_array(centres.xb).reshape(-1, code_bytes(self.bits))}

    def _restore(self, header: dict[str, Any], tensors: Tensors) -> None:
        self._probes, self._tried = operator.index(header["probes"]), operator.index(header["tried"])
        if "centres" in tensors:
            centres = check_codes(tensors["centres"], 8 * code_bytes(self.bits), "centres")
            if not 1 <= self._probes <= len(centres):
                raise ValueError(f"{self._probes} of {len(centres)} lists are to be searched")
            lists = self._new_lists(len(centres))
            lists.quantizer.add(centres)
            lists.is_trained = True
            rows = np.flatnonzero(~self._arranged().empty)
            lists.add_with_ids(self._codes(rows), rows)
            self._lists = lists
        self._link()
