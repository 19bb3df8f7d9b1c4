"""The engines under test, how each is opened, and the plain reference that all are held against."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import strategies as st
from servers import milvus_url, postgres_url

from dsh_hf.codes import pack_signs
from dsh_hf.index import Index, open_index

RECALL = 0.99  # what an engine owes that is not exact: of items, over all queries of a test


@dataclass(frozen=True)
class Engine:
    """An engine and how it is tested.

    Attributes:
        name: what its indexes say they are, and what opens one unless there are URLs.
        exact: whether every answer is that of a full sort.
        package: what must be installed.
        new_url: gives a URL where there is no index yet, for an engine that keeps its index on a server, not in
            a file.
        examples: how many sequences of changes a property-based test tries.
    """

    name: str
    exact: bool = True
    package: str | None = None
    new_url: Callable[[], str] | None = None
    examples: int = 40


ENGINES_UNDER_TEST = [
    Engine("exact", examples=100),
    Engine("hnsw", exact=False, package="hnswlib"),
    Engine("faiss-flat", package="faiss"),
    Engine("faiss-ivf", exact=False, package="faiss"),
    Engine("faiss-hnsw", exact=False, package="faiss"),
    Engine("torch", package="torch"),
    Engine("postgres", package="psycopg", new_url=postgres_url, examples=20),
    Engine("milvus", package="pymilvus", new_url=milvus_url, examples=3),
]
LOCAL_ENGINES = [engine for engine in ENGINES_UNDER_TEST if engine.new_url is None]


class Opener:
    """Makes indexes of one engine, and opens them again as another process would."""

    def __init__(self, engine: Engine, request: pytest.FixtureRequest) -> None:
        if engine.package:
            pytest.importorskip(engine.package)
        self.engine = engine
        self._folder = request.getfixturevalue("tmp_path_factory").mktemp("indexes")
        self._places: dict[int, str] = {}

    def __call__(self, *, bits: int, fingerprint: str | None = None) -> Index:
        spec = self.engine.new_url() if self.engine.new_url else self.engine.name
        index = open_index(spec, bits=bits, fingerprint=fingerprint)
        self._places[id(index)] = spec
        return index

    def again(self, index: Index) -> Index:
        """Save an index and open it again."""
        spec, same = self._places[id(index)], {"bits": index.bits, "fingerprint": index.fingerprint}
        if self.engine.new_url:
            again = open_index(spec, **same)
        else:
            path = self._folder / "index"
            path.unlink(missing_ok=True)
            index.save(path)
            again = open_index(spec, path=path, **same)
        self._places[id(again)] = spec
        return again


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
        gone = set(ids)
        self.items = [item for item in self.items if item[0] not in gone]

    def ids(self):
        return [name for name, _ in self.items]

    def ranking(self, query):
        """All (distance, position, id) in order."""
        if not self.items:
            return []
        distances = np.bitwise_count(np.stack([code for _, code in self.items]) ^ query).sum(axis=1, dtype=int)
        return sorted(zip(distances.tolist(), range(len(self.items)), self.ids(), strict=True))


def assert_same_answers(exact, index, reference, queries, k, r):
    """Every answer is well formed and true; those of exact engines are the reference's, ties included."""
    distances, ids = index.search(queries, k)
    count = min(k, len(reference.items))
    assert len(index) == len(reference.items)
    assert distances.shape == ids.shape == (len(queries), count)
    assert distances.dtype == np.int64
    hits = 0
    rankings = [reference.ranking(query) for query in queries]
    for ranking, row_distances, row_ids in zip(rankings, distances.tolist(), ids.tolist(), strict=True):
        best = ranking[:count]
        if exact:
            assert list(zip(row_distances, row_ids, strict=True)) == [(d, name) for d, _, name in best]
        places = {name: (d, i) for d, i, name in ranking}
        found = [places[name] for name in row_ids]
        assert [d for d, _ in found] == row_distances  # the true distances
        assert found == sorted(set(found))  # in the order (distance, insertion), each item once
        hits += sum(d <= best[-1][0] for d in row_distances) if best else 0
    assert hits >= RECALL * distances.size
    for ranking, (near, near_ids) in zip(rankings, index.search_radius(queries, r), strict=True):
        within = [(d, name) for d, _, name in ranking if d <= r]
        assert list(zip(near.tolist(), near_ids.tolist(), strict=True)) == within


@st.composite
def plans(draw, most_codes=60):
    """A collection and what is done with it: bits, kind of ids, distinct codes to draw from, steps."""
    number = st.integers(0, 2**32 - 1)
    steps = st.one_of(
        st.tuples(st.just("add"), st.integers(1, most_codes), number),
        st.tuples(st.just("remove"), st.sampled_from([0.02, 0.3, 0.8, 1.0]), number),
        st.tuples(st.just("search"), st.sampled_from([1, 2, 10, 1000]), st.integers(0, 64)),
        st.tuples(st.just("again")),
    )
    return {
        "bits": draw(st.sampled_from([1, 8, 12, 33, 64, 100, 128, 256])),
        "kind": draw(st.sampled_from([int, str])),
        "seed": draw(number),
        "pool": draw(st.sampled_from([1, 5, 150])),
        "steps": draw(st.lists(steps, min_size=1, max_size=12)),
    }


def follow(plan, make_index, exact):
    """Do as planned with an index and with the reference, and compare all their answers."""
    bits, rng = plan["bits"], np.random.default_rng(plan["seed"])
    pool = clustered(rng, plan["pool"], bits)  # so few that codes are added again, and die out, and come back
    index, reference = make_index(bits=bits, fingerprint="model"), Reference()
    fresh = iter(np.random.default_rng(0).permutation(10_000).tolist())
    for name, *values in [*plan["steps"], ("search", 10, 3)]:
        if name == "add":
            count, seed = values
            codes = pool[np.random.default_rng(seed).integers(len(pool), size=count)]
            ids = [plan["kind"](next(fresh)) for _ in codes]
            index.add(codes, ids)
            reference.add(codes, ids)
        elif name == "remove":
            share, seed = values
            chosen = np.random.default_rng(seed).random(len(reference.items)) < share
            ids = [known for known, gone in zip(reference.ids(), chosen, strict=True) if gone]
            index.remove(ids)
            reference.remove(ids)
        elif name == "search":
            queries = np.concatenate([pool[:2], clustered(rng, 2, bits)])
            assert_same_answers(exact, index, reference, queries, *values)
        else:
            index = make_index.again(index)
