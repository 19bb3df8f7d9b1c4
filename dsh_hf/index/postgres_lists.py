"""Nearest codes in a table of PostgreSQL: by comparing all, or by lists of similar codes (ivfflat)."""

import math
from typing import Any, NamedTuple

import numpy as np

from dsh_hf.index.postgres_connection import Session, quoted

Hits = list[tuple[Any, int]]  # ids as the server keeps them, and distances

# Where codes cluster, lists beat a graph in time, size and build alike, and repeated codes don't break them.
MOST_LISTS = 2000  # k-means in the server takes 200 bytes x lists^2
WORTH = 1 / 8  # share of the lists that a search visits at most: beyond, comparing all codes takes no longer
SAMPLE = 4096  # codes from which queries are made, by which the number of lists to visit is chosen
QUERIES = 64
MARGIN = 4  # times the lists that suffice for these queries: sketches lie farther from the stored codes
RECALL = 0.998  # what these queries must reach, for k = 10 and k = 200


class State(NamedTuple):
    """The row of an index in the register."""

    version: int
    bits: int
    fingerprint: str | None
    ids: str  # type of the id column: bigint or text
    items: int
    next_n: int
    next_id: int
    indexed: int  # next_n when the lists were last built, or found of no use
    lists: int  # 0 without any
    probes: int | None  # lists that a search visits; None: to be measured


def have_aged(state: State) -> bool:
    """Tell whether three of four codes have come since the lists were built."""
    return 4 * (state.next_n - state.indexed) >= 3 * state.items


def probes_for(state: State, k: int) -> int:
    """Give how many lists a search visits; 0: it compares all codes."""
    probes = math.ceil((state.probes or 0) * max(1, k / 200))
    return probes if probes <= WORTH * state.lists else 0


def nearest(session: Session, queries: list[str], count: int, probes: int) -> list[Hits]:
    """Give the ``count`` nearest of each query among the codes of ``probes`` lists; of all where it is 0."""
    session.run("SET LOCAL jit = off")  # compiling takes longer than it saves
    if probes:
        session.run(
            "SELECT set_config('ivfflat.probes', %s, true), set_config('enable_seqscan', 'off', true)", str(probes)
        )
        query = (
            "SELECT id, far::int FROM (SELECT id, n, code <~> %s::{bit} AS far FROM {table}"
            " ORDER BY code <~> %s::{bit} FETCH FIRST (%s) ROWS WITH TIES) c ORDER BY far, n LIMIT %s"
        )
        return session.all_of([(query, (text, text, count, count)) for text in queries])
    # + 0: the planner must not take the lists for this
    query = "SELECT id, (code <~> %s::{bit})::int FROM {table} ORDER BY (code <~> %s::{bit}) + 0, n LIMIT %s"
    return session.all_of([(query, (text, text, count)) for text in queries])


def build_lists(session: Session, state: State, name: str) -> None:
    """Sort the codes of a table into lists, as many as suit their number now."""
    parts = session.row("SELECT count(*) FROM pg_partition_tree({name}::regclass) WHERE isleaf")
    lists = min(math.isqrt(state.items // max(1, parts[0] if parts else 1)), MOST_LISTS)
    memory = 64_000 + lists * (250 * lists + 100 * state.bits) // 1000  # kB that k-means takes
    session.run(
        "SELECT set_config('maintenance_work_mem', %s, true) FROM pg_settings"
        " WHERE name = 'maintenance_work_mem' AND setting::bigint < %s",
        f"{memory}kB",
        memory,
    )
    old = _indexes(session)
    session.run(f"CREATE INDEX ON {{table}} USING ivfflat (code bit_hamming_ops) WITH (lists = {lists:d})")
    _drop(session, old)
    session.run(
        "UPDATE {register} SET indexed = next_n, lists = %s, probes = NULL WHERE name = %s",
        lists,
        name,
    )


def measure_probes(session: Session, state: State) -> int:
    """Give how many lists must be visited for the recall we owe; 0 where an eighth of all is too few."""
    session.run("SET LOCAL statement_timeout = 0")
    share = min(100.0, 200 * SAMPLE / max(1, state.items))  # percent; twice as many as needed, on average
    query = "SELECT code::text FROM {table} TABLESAMPLE BERNOULLI (%s) REPEATABLE (0) LIMIT %s"
    rows = session.run(query, share, SAMPLE).fetchall()
    queries = _between([row[0] for row in rows])
    if not queries:
        return 0
    exact = nearest(session, queries, 200, 0)
    probes = 2
    while MARGIN * probes <= WORTH * state.lists:
        found = nearest(session, queries, 200, probes)
        if min(_recall(found, exact, 10), _recall(found, exact, 200)) >= RECALL:
            return MARGIN * probes
        probes *= 2
    return 0


def _between(codes: list[str]) -> list[str]:
    """Make queries that lie among the codes and are none of them: each between a code and its next neighbour."""
    bits = np.unique(np.array([list(code.encode()) for code in codes], np.uint8) & 1, axis=0)
    if len(bits) < 2:
        return []
    rng = np.random.default_rng(0)
    queries = []
    for code in bits[rng.permutation(len(bits))[:QUERIES]]:
        far = (bits != code).sum(axis=1)
        neighbour = bits[np.argsort(far, kind="stable")[1]]  # the first is the code itself
        queries.append(np.where(rng.random(code.size) < 0.5, code, neighbour))
    return as_text(np.array(queries, np.uint8))


def settle_lists(session: Session, state: State, probes: int, name: str) -> None:
    """Keep the measured number of lists to visit, or drop the lists where none is enough."""
    if not probes:
        _drop(session, _indexes(session))
    lists = state.lists if probes else 0
    session.run("UPDATE {register} SET lists = %s, probes = %s WHERE name = %s", lists, probes, name)


def as_text(bits: np.ndarray[Any, Any]) -> list[str]:
    """Give rows of uint8 bits as PostgreSQL writes bit strings."""
    return [(row + 48).tobytes().decode() for row in bits]


def _indexes(session: Session) -> list[tuple[Any, ...]]:
    return session.run(
        "SELECT nspname::text, relname::text FROM pg_index i JOIN pg_class c"
        " ON c.oid = i.indexrelid JOIN pg_namespace s ON s.oid = c.relnamespace JOIN pg_am a ON a.oid = c.relam"
        " WHERE i.indrelid = {name}::regclass AND a.amname = 'ivfflat'"
    ).fetchall()


def _drop(session: Session, indexes: list[tuple[Any, ...]]) -> None:
    for schema, name in indexes:
        session.run("DROP INDEX {index}", index=quoted(schema, name))


def _recall(found: list[Hits], exact: list[Hits], k: int) -> float:
    hits = sum(far <= best[:k][-1][1] for near, best in zip(found, exact, strict=True) for _, far in near[:k])
    return hits / sum(len(best[:k]) for best in exact)
