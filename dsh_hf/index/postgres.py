"""Codes in PostgreSQL, searched by the extension pgvector."""

import warnings
from typing import Any

import numpy as np

from dsh_hf.codes import Codes
from dsh_hf.index.base import Found, Ids, IndexMismatchError
from dsh_hf.index.postgres_connection import Database, Session, quoted
from dsh_hf.index.postgres_lists import (
    Hits,
    State,
    as_text,
    build_lists,
    have_aged,
    measure_probes,
    nearest,
    probes_for,
    settle_lists,
)
from dsh_hf.index.servers import (
    FORMAT,
    ServerIndex,
    as_array,
    kind_of,
    new_ids,
    refuse_known,
    refuse_missing,
    take_options,
    to_text,
)

TABLE = "dsh_codes"  # where the URL names none
REGISTER = "dsh_index"  # one row an index: what its table holds; locked by the one writer at a time
KINDS = {"bigint": "int", "text": "str"}  # ids by the type of their column
COLUMNS = {kind: column for column, kind in KINDS.items()}


class PostgresIndex(ServerIndex):
    """Codes in a table of PostgreSQL (13 or later) with pgvector (0.7 or later), given by its URL.

    ``postgresql://user@host/database?table=my_codes``; without ``table``, the table ``dsh_codes``. Everything
    else is libpq's URL, with all of its parameters and environment variables. The table is made where it is
    missing; one made before, of the same columns, may be partitioned by ``hash (id)``.

    Distances, order and number of the results are exact always. Up to 50,000 codes a search compares them all,
    so it finds what is nearest, ties included. Beyond, lists of similar codes are searched (``ivfflat``),
    built by the addition that reaches that size, and again whenever three of four codes are newer. How many
    lists a search visits is measured then: four times as many as find 99.8 % of the nearest codes of queries made
    from the stored codes, an eighth of all at most. Codes that need more (such as uniform random ones) are
    compared one and all as before, at 0.1 microseconds a code. What is lost: up to 1 % of the nearest, and of
    equally distant items at the k-th place not always those inserted first. :meth:`search_radius` compares
    all codes.

    An addition or removal is one transaction: all of it or nothing, once, also where the connection is lost.
    Where the server does not tell for a minute whether it was made, ConnectionError says that this is not known.

    Writers wait for each other, up to a minute, then they get a TimeoutError. Building lists takes longer than that
    from about 4 million codes on: let other writers try again then. Readers go on meanwhile, but wait for moments
    when the old lists are dropped, or the first ids of an empty index change the kind of its column; these wait
    for searches that run, a minute at most.

    The register, table ``dsh_index``, counts the items: change the table through this class alone.

    Args:
        url: where the database and the table are. Passwords appear in no message.
        bits: length of the codes.
        fingerprint: fingerprint of the model that makes the codes; stored when the table is made.

    Raises:
        ImportError: psycopg is not installed.
        ValueError: no URL of PostgreSQL, or the table can't hold an index.
        ConnectionError: the server can't be reached after three attempts, or has no pgvector.
        IndexMismatchError: the table holds codes of another length or model.
    """

    engine = "postgres"
    exact_below = 50_000

    def __init__(self, url: str, *, bits: int, fingerprint: str | None = None) -> None:
        super().__init__(bits=bits, fingerprint=fingerprint)
        plain, ours = take_options(url, {"table"})
        table = ours.get("table", TABLE)
        if len(table.encode()) > 63 or "\0" in table or table == REGISTER:
            raise ValueError(f"the table {table!r} can't hold an index: give a name of at most 63 bytes as ?table=...")
        self._database = Database(plain)
        self._table = table
        self.place = f"{self._database.place}, table {table!r}"
        self._open()

    def close(self) -> None:  # noqa: D102
        self._database.close()

    def __len__(self) -> int:
        with self._lock:
            return self._database.read(self._state).items

    def stats(self) -> dict[str, Any]:
        """Describe the index; counting the distinct codes reads the whole table.

        Returns:
            engine, bits, fingerprint, items, distinct codes, lists and how many of them a search visits (both
            0 without any), bytes on the server's disk.
        """

        def count(session: Session) -> dict[str, Any]:
            session.run("SET LOCAL statement_timeout = 0")
            state = self._state(session)
            ((distinct,),) = session.run("SELECT count(*) FROM (SELECT FROM {table} GROUP BY code) c").fetchall()
            parts = "(SELECT {name}::regclass AS part UNION SELECT relid FROM pg_partition_tree({name}::regclass)) p"
            ((size,),) = session.run(f"SELECT sum(pg_total_relation_size(part))::bigint FROM {parts}").fetchall()
            counted = {"items": state.items, "distinct": distinct, "lists": state.lists, "probes": state.probes or 0}
            about = {"engine": self.engine, "bits": self.bits, "fingerprint": self.fingerprint}
            return about | counted | {"bytes": size}

        with self._lock:
            return self._database.read(count)

    # Opening

    def _open(self) -> None:
        from psycopg import sql

        def look(session: Session) -> State | None:
            row = session.row("SELECT current_schema()")
            schema = row[0] if row and row[0] else "public"
            table, register = quoted(schema, self._table), quoted(schema, REGISTER)
            session.names |= {
                "table": table,
                "register": register,
                "name": sql.Literal(table.as_string()),
                "register_name": sql.Literal(register.as_string()),
                "bit": sql.SQL(f"bit({self.bits:d})"),
            }
            made = session.row("SELECT to_regclass({name}), to_regclass({register_name})") or (None,)
            return None if None in made else self._state(session)

        try:
            state = self._database.read(look)
        except IndexMismatchError:  # a table, and no row for it
            state = None
        if state is None:
            state = self._database.write(self._make)
        self._check_made_for(state.version, state.bits, state.fingerprint)

    def _make(self, session: Session) -> State:
        """Make what is missing of extension, register, table and row."""
        session.run("SELECT pg_advisory_xact_lock(hashtext('dsh_index'))")  # two openings at one moment
        session.run("CREATE EXTENSION IF NOT EXISTS vector")
        ((version,),) = session.run("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchall()
        if [int(number) for number in version.split(".")[:2]] < [0, 7]:
            raise ConnectionError(
                f"{self.place}: codes need pgvector 0.7 or later, this is {version}: install it on the server, "
                f"and run ALTER EXTENSION vector UPDATE"
            )
        session.run(
            "CREATE TABLE IF NOT EXISTS {register} (name text PRIMARY KEY, version int NOT NULL, bits int NOT NULL,"
            " fingerprint text, ids text NOT NULL, items bigint NOT NULL, next_n bigint NOT NULL,"
            " next_id numeric NOT NULL, indexed bigint NOT NULL, lists int NOT NULL, probes int)"
        )
        if session.row("SELECT to_regclass({name})") == (None,):
            session.run("DELETE FROM {register} WHERE name = %s", self._table)  # its table was dropped
            session.run("CREATE TABLE {table} (n bigint NOT NULL, id bigint PRIMARY KEY, code {bit} NOT NULL)")
        if session.row("SELECT FROM {register} WHERE name = %s", self._table) is None:
            self._register(session)
        return self._state(session)

    def _register(self, session: Session) -> None:
        """Take up a table that was empty so far."""
        columns = session.run(
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = {name}::regclass AND attnum > 0 AND NOT attisdropped"
        ).fetchall()
        types = dict(columns)
        fits = types == {"n": "bigint", "id": types.get("id"), "code": f"bit({self.bits})"} and types["id"] in KINDS
        if not fits or session.row("SELECT FROM {table} LIMIT 1") is not None:
            raise IndexMismatchError(
                f"{self.place} is there and no empty table of n bigint, id bigint or text, code bit({self.bits}): "
                f"give another name as ?table=..."
            )
        session.run(
            "INSERT INTO {register} VALUES (%s, %s, %s, %s, %s, 0, 0, 0, 0, 0, 0)",
            *(self._table, FORMAT, self.bits, self.fingerprint, types["id"]),
        )

    def _state(self, session: Session, lock: bool = False) -> State:
        """Read the index's row of the register; with ``lock``, other writers wait until the transaction ends."""
        columns = ", ".join(State._fields)
        query = f"SELECT {columns} FROM {{register}} WHERE name = %s{' FOR UPDATE' if lock else ''}"
        row = session.row(query, self._table)
        if row is None:
            raise IndexMismatchError(f"{self.place} is no index any more: open it again")
        state = State(*row)
        return state._replace(next_id=int(state.next_id))

    # Changes

    def _add(self, codes: Codes, ids: Ids | None) -> None:
        def add(session: Session) -> None:
            state = self._state(session, lock=True)
            new = new_ids(ids, len(codes), state.next_id, KINDS[state.ids] if state.items else None)
            column, kept = COLUMNS[kind_of(new)], _kept(new)
            if column != state.ids:  # the first ids of an empty index decide their kind
                session.run(f"ALTER TABLE {{table}} ALTER COLUMN id TYPE {column} USING id::{column}")
            if state.items:
                refuse_known(new.tolist(), _known_of(session, new))
            numbers = range(state.next_n, state.next_n + len(kept))
            rows = zip(numbers, kept, _texts(codes, self.bits), strict=True)
            session.copy("COPY {table} (n, id, code) FROM STDIN", rows)
            next_id = max(state.next_id, int(new.max()) + 1) if column == "bigint" else state.next_id
            session.run(
                "UPDATE {register} SET ids = %s, items = items + %s, next_n = next_n + %s, next_id = %s"
                " WHERE name = %s",
                *(column, len(kept), len(kept), next_id, self._table),
            )

        self._database.write(add)
        self._fit_lists()

    def _remove(self, ids: Ids) -> None:
        def remove(session: Session) -> None:
            state, column = self._state(session, lock=True), COLUMNS[kind_of(ids)]
            gone: list[tuple[Any, ...]] = []
            if column == state.ids:
                query = f"DELETE FROM {{table}} WHERE id = ANY(%s::{column}[]) RETURNING id"
                gone = session.run(query, _kept(ids)).fetchall()
            refuse_missing(ids.tolist(), set(as_array([row[0] for row in gone], column == "text").tolist()))
            session.run("UPDATE {register} SET items = items - %s WHERE name = %s", len(gone), self._table)

        self._database.write(remove)

    def _fit_lists(self) -> None:
        """Build the lists where the table has outgrown the old ones, and measure how many must be visited."""

        def build(session: Session) -> None:
            build_lists(session, self._state(session, lock=True), self._table)

        def settle(session: Session) -> None:
            now = self._state(session, lock=True)
            if now.probes is None and now.indexed == state.indexed:  # else another writer has settled them
                settle_lists(session, now, probes, self._table)

        try:
            state = self._database.read(self._state)
            if state.items >= self.exact_below and have_aged(state):
                self._database.write(build)
                state = self._database.read(self._state)
            if state.probes is None:
                probes = self._database.read(lambda session: measure_probes(session, state))
                self._database.write(settle)
        except (OSError, ValueError) as error:
            warnings.warn(
                f"the codes were added, but their lists were not built: {error}; "
                f"searches stay right, and slow; the next addition tries again",
                stacklevel=4,
            )

    def _known(self, ids: Ids) -> set[Any]:
        def known(session: Session) -> set[Any]:
            return _known_of(session, ids) if COLUMNS[kind_of(ids)] == self._state(session).ids else set()

        return self._database.read(known)

    # Search

    def _search(self, queries: Codes, k: int) -> Found:
        def search(session: Session) -> tuple[list[Hits], str]:
            state = self._state(session)
            count = min(k, state.items)
            probes = probes_for(state, count) if state.items >= self.exact_below else 0
            found = nearest(session, _texts(queries, self.bits), count, probes)
            short = [i for i, hits in enumerate(found) if len(hits) < count]
            if probes and short:  # the lists visited may hold fewer than are there
                for i, hits in zip(short, nearest(session, _texts(queries[short], self.bits), count, 0), strict=True):
                    found[i] = hits
            return found, state.ids

        found, column = self._database.read(search)
        count = min((len(hits) for hits in found), default=k)
        distances = np.array([[far for _, far in hits] for hits in found], np.int64).reshape(len(found), count)
        ids = as_array([name for hits in found for name, _ in hits], column == "text").reshape(len(found), count)
        return distances, ids

    def _search_radius(self, queries: Codes, r: int) -> list[Found]:
        def search(session: Session) -> tuple[list[Hits], str]:
            query = (
                "SELECT id, far FROM (SELECT id, n, (code <~> %s::{bit})::int AS far FROM {table}) c"
                " WHERE far <= %s ORDER BY far, n"
            )
            found = session.all_of([(query, (text, r)) for text in _texts(queries, self.bits)])
            return found, self._state(session).ids

        found, column = self._database.read(search)
        return [
            (np.array([far for _, far in hits], np.int64), as_array([name for name, _ in hits], column == "text"))
            for hits in found
        ]


def _known_of(session: Session, ids: Ids) -> set[Any]:
    """Give those of the ids, of the kind of the table's, that are in it."""
    column = COLUMNS[kind_of(ids)]
    rows = session.run(f"SELECT id FROM {{table}} WHERE id = ANY(%s::{column}[])", _kept(ids)).fetchall()
    return set(as_array([row[0] for row in rows], column == "text").tolist())


def _kept(ids: Ids) -> list[Any]:
    """Give ids as the server keeps them."""
    return [to_text(name) for name in ids] if kind_of(ids) == "str" else ids.tolist()


def _texts(codes: Codes, bits: int) -> list[str]:
    return as_text(np.unpackbits(codes, axis=1, count=bits))
