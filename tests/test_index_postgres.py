"""What is PostgreSQL's own in an index; what every engine must do is in test_index.py."""

import io
import threading
import time
from urllib.parse import quote

import numpy as np
import pytest
from servers import postgres_database, postgres_url

psycopg = pytest.importorskip("psycopg")

from dsh_hf.codes import pack_signs  # noqa: E402
from dsh_hf.index import IndexFileError, IndexMismatchError, postgres_connection, postgres_lists  # noqa: E402
from dsh_hf.index.postgres import PostgresIndex  # noqa: E402


@pytest.fixture
def url():
    return postgres_url()


@pytest.fixture
def admin():
    with psycopg.connect(postgres_database(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def few(monkeypatch):
    """Lists are built from 300 codes on, and pay however many of them must be visited."""
    monkeypatch.setattr(PostgresIndex, "exact_below", 300)
    monkeypatch.setattr(postgres_lists, "WORTH", 8)


def table_of(url):
    return url.rpartition("table=")[2]


def clustered(rng, count, bits=64, clusters=10, flips=0.1):
    prototypes = np.random.default_rng(bits).random((clusters, bits)) < 0.5
    return pack_signs(prototypes[rng.integers(clusters, size=count)] ^ (rng.random((count, bits)) < flips))


def exact(codes, query, k):
    """The first k (distance, place) of a plain list."""
    far = np.bitwise_count(codes ^ query).sum(axis=1)
    order = np.argsort(far, kind="stable")[:k]
    return far[order].tolist(), order.tolist()


# What is kept


def test_opened_again_by_its_url_it_is_the_same(url):
    codes = clustered(np.random.default_rng(0), 200, 20)
    with_ids = PostgresIndex(url, bits=20, fingerprint="abc")
    with_ids.add(codes[:100])
    with_ids.add(codes[100:], ids=np.arange(100, 200) * 3)
    with_ids.remove([5, 300])
    again = PostgresIndex(url, bits=20)
    assert (len(again), again.fingerprint) == (198, "abc")
    for one, other in zip(with_ids.search(codes[:9], 30), again.search(codes[:9], 30), strict=True):
        assert one.tolist() == other.tolist()
    again.add(codes[:1])
    assert 598 in again.search(codes[0], 199)[1]  # one more than the greatest id ever given


def test_the_table_dsh_codes_where_the_url_names_none():
    index = PostgresIndex(postgres_database(), bits=8)
    assert "'dsh_codes'" in repr(index)


def test_another_model_or_length_is_refused_with_the_way_out(url):
    PostgresIndex(url, bits=20, fingerprint="abc").add(np.zeros((1, 3), np.uint8))
    with pytest.raises(IndexMismatchError, match=r"20 bits, not 24: .*another name in the URL"):
        PostgresIndex(url, bits=24)
    with pytest.raises(IndexMismatchError, match=r"model abc, not xyz: .*encode the collection again"):
        PostgresIndex(url, bits=20, fingerprint="xyz")
    assert len(PostgresIndex(url, bits=20, fingerprint="abc")) == 1


def test_a_newer_format_is_refused(url, admin):
    PostgresIndex(url, bits=20)
    admin.execute("UPDATE dsh_index SET version = 99 WHERE name = %s", (table_of(url),))
    with pytest.raises(IndexFileError, match="newer format 99: upgrade dsh-hf"):
        PostgresIndex(url, bits=20)


def test_a_table_of_others_is_refused_and_left_alone(admin):
    admin.execute("CREATE TABLE IF NOT EXISTS users (name text)")
    admin.execute("INSERT INTO users VALUES ('someone')")
    with pytest.raises(IndexMismatchError, match=r"'users' is there and no empty table .*\?table="):
        PostgresIndex(f"{postgres_database()}&table=users", bits=64)
    assert admin.execute("SELECT count(*) FROM users").fetchone()[0] > 0


def test_a_table_that_was_dropped_is_made_anew(url, admin):
    index = PostgresIndex(url, bits=64, fingerprint="old")
    index.add(np.zeros((3, 8), np.uint8))
    admin.execute(f"DROP TABLE {table_of(url)}")
    assert len(PostgresIndex(url, bits=128, fingerprint="new")) == 0


def test_there_is_no_file(url, tmp_path):
    index = PostgresIndex(url, bits=8)
    with pytest.raises(io.UnsupportedOperation, match=r"the codes live on the server.*open the index by its URL"):
        index.save(tmp_path / "index")
    with pytest.raises(io.UnsupportedOperation, match="open it by the URL"):
        PostgresIndex.load(tmp_path / "index")
    assert not list(tmp_path.iterdir())


def test_stats_count_what_is_on_the_disk(url, few):
    index = PostgresIndex(url, bits=64, fingerprint="abc")
    before = index.stats()["bytes"]
    index.add(np.repeat(clustered(np.random.default_rng(0), 500), 4, axis=0))
    stats = index.stats()
    assert stats["bytes"] >= before + 2000 * 8
    assert (stats["items"], stats["distinct"], stats["lists"]) == (2000, 500, 44)
    assert stats["probes"] > 0


# Names and ids are values, never SQL


@pytest.mark.parametrize(
    "table", ['"; DROP TABLE precious; --', "100%s %(x)s {table}", "größe 🖼", "Robert'); --", "a.b"]
)
def test_any_name_of_a_table_is_but_a_name(table, admin, few):
    admin.execute("CREATE TABLE IF NOT EXISTS precious (n int)")
    url = f"{postgres_database()}&table={quote(table)}"
    index = PostgresIndex(url, bits=64)
    codes = clustered(np.random.default_rng(0), 400)
    index.add(codes)
    index.remove([7])
    assert index.search(codes[0], 1)[1].tolist() == [0]
    assert index.stats()["lists"] == 20
    assert len(PostgresIndex(url, bits=64)) == 399
    assert admin.execute("SELECT to_regclass('precious')").fetchone() != (None,)
    names = admin.execute("SELECT relname FROM pg_class WHERE relkind = 'r'").fetchall()
    assert (table,) in names
    admin.execute(psycopg.sql.SQL("DROP TABLE {}").format(psycopg.sql.Identifier(table)))


@pytest.mark.parametrize("table", ["x" * 64, "%00", "dsh_index"])
def test_names_that_can_be_no_table_of_codes(table):
    with pytest.raises(ValueError, match="can't hold an index"):
        PostgresIndex(f"{postgres_database()}&table={table}", bits=64)


def test_any_str_is_an_id(url):
    ids = [
        "'; DROP TABLE x; --",
        '"',
        "\\",
        "\\N",
        "a\tb\nc",
        "%s",
        "größe/🖼.png",
        "",
        "\0",
        "\udcff",
        "\ue000",
        "\ue0000000",
    ]
    ids += ["{table}", "NULL", "x" * 1000]
    codes = clustered(np.random.default_rng(0), len(ids))
    index = PostgresIndex(url, bits=64)
    index.add(codes, ids)
    again = PostgresIndex(url, bits=64)
    assert sorted(again.search(codes[0], 99)[1]) == sorted(ids)
    for name, code in zip(ids, codes, strict=True):
        assert again.search(code, 1)[1].tolist() == [name]
        with pytest.raises(ValueError, match="in the index already"):
            again.add(code, name)
        again.remove(name)
    assert len(again) == 0


def test_known_ids_are_told(url):
    index = PostgresIndex(url, bits=64)
    assert index.known(["a"]) == set()
    index.add(np.zeros((3, 8), np.uint8), ["a", "\0", "c"])
    assert index.known(["c", "\0", "b", "c"]) == {"c", "\0"}
    assert index.known([1]) == index.known([]) == set()


def test_an_id_too_long_for_the_server_is_refused_and_nothing_is_added(url):
    index = PostgresIndex(url, bits=8)
    long = "".join(map(chr, np.random.default_rng(0).integers(33, 127, 10_000)))
    with pytest.raises(ValueError, match=r"can't keep this: .*index row"):
        index.add(np.zeros((2, 1), np.uint8), ["fine", long])
    assert len(index) == 0
    index.add(np.zeros((1, 1), np.uint8), ["fine"])


# Lists


@pytest.mark.parametrize("bits", [20, 64, 256])
def test_lists_find_the_nearest_in_order(url, few, bits):
    rng = np.random.default_rng(0)
    codes, queries = clustered(rng, 3000, bits), clustered(rng, 50, bits)
    index = PostgresIndex(url, bits=bits)
    index.add(codes)
    assert index.stats()["probes"] > 0
    for k in (1, 10, 200):
        distances, ids = index.search(queries, k)
        assert distances.shape == ids.shape == (50, k)
        hits = 0
        for query, row, names in zip(queries, distances.tolist(), ids.tolist(), strict=True):
            assert np.bitwise_count(codes[names] ^ query).sum(axis=1).tolist() == row  # the true distances
            assert list(zip(row, names, strict=True)) == sorted(set(zip(row, names, strict=True)))
            hits += np.sum(np.array(row) <= exact(codes, query, k)[0][-1])
        assert hits >= 0.99 * 50 * k


def test_among_equally_distant_items_the_first_inserted_come_first(url, few):
    codes = clustered(np.random.default_rng(0), 2000)
    codes[1000:] = codes[0]  # a thousand equal codes, the last but one
    index = PostgresIndex(url, bits=64)
    index.add(codes)
    assert index.stats()["probes"] > 0
    assert index.search(codes[0], 5)[1].tolist() == [0, 1000, 1001, 1002, 1003]
    index.remove([0, 1001])
    assert index.search(codes[0], 3)[1].tolist() == [1000, 1002, 1003]


@pytest.mark.parametrize("k", [1, 50, 199, 1500, 2000, 9999])
def test_as_many_results_as_are_there_however_short_the_lists(url, few, k, admin):
    codes = clustered(np.random.default_rng(0), 2000, clusters=200, flips=0.02)
    index = PostgresIndex(url, bits=64)
    index.add(codes)
    admin.execute("UPDATE dsh_index SET probes = 1 WHERE name = %s", (table_of(url),))  # the trap: ten codes a list
    distances, ids = index.search(codes[:5], k)
    assert ids.shape == (5, min(k, 2000))
    assert all(len(set(names)) == len(names) for names in ids.tolist())
    assert distances[:, 0].tolist() == [0] * 5


def test_codes_without_clusters_are_compared_one_and_all(url, few, monkeypatch):
    monkeypatch.setattr(postgres_lists, "WORTH", 1 / 8)
    rng = np.random.default_rng(0)
    codes, queries = pack_signs(rng.normal(size=(3000, 64))), pack_signs(rng.normal(size=(10, 64)))
    index = PostgresIndex(url, bits=64)
    index.add(codes)
    assert (index.stats()["lists"], index.stats()["probes"]) == (0, 0)
    for query, *found in zip(queries, *index.search(queries, 20), strict=True):
        assert tuple(row.tolist() for row in found) == exact(codes, query, 20)


def test_lists_are_built_again_when_the_table_has_grown_fourfold(url, few):
    codes = clustered(np.random.default_rng(0), 2000)
    index = PostgresIndex(url, bits=64)
    sizes = []
    for start, end in [(0, 299), (299, 400), (400, 1599), (1599, 2000)]:
        index.add(codes[start:end])
        sizes.append(index.stats()["lists"])
    assert sizes == [0, 20, 20, 44]


def test_lists_of_codes_that_are_gone_are_built_again_for_the_new_ones(url, few):
    rng = np.random.default_rng(0)
    index = PostgresIndex(url, bits=64)
    index.add(clustered(rng, 2000))
    index.remove(range(1, 2000))
    others = clustered(rng, 1000) ^ np.uint8(0b10101010)  # the same, elsewhere
    index.add(others[:10])
    assert index.search(others[9], 1)[1].tolist() == [2009]  # so few are compared one and all
    index.add(others[10:])
    assert index.stats()["lists"] == 31
    assert index.search(others[:50], 1)[1].ravel().tolist() == list(range(2000, 2050))


def test_radius_search_is_exact_also_with_lists(url, few):
    codes = clustered(np.random.default_rng(0), 1000)
    index = PostgresIndex(url, bits=64)
    index.add(codes)
    for r in (0, 10, 25, 64):
        distances, ids = index.search_radius(codes[3], r)
        far, places = exact(codes, codes[3], 1000)
        assert (distances.tolist(), ids.tolist()) == (far[: len(ids)], places[: len(ids)])
        assert len(ids) == sum(d <= r for d in far)


@pytest.mark.parametrize("column", ["bigint", "text"])
def test_a_partitioned_table_made_before_is_taken_up(url, admin, few, column):
    table = table_of(url)
    admin.execute(
        f"CREATE TABLE {table} (n bigint NOT NULL, id {column} PRIMARY KEY, code bit(64) NOT NULL)"
        f" PARTITION BY HASH (id)"
    )
    for part in range(3):
        admin.execute(f"CREATE TABLE {table}_{part} PARTITION OF {table} FOR VALUES WITH (MODULUS 3, REMAINDER {part})")
    codes = clustered(np.random.default_rng(0), 3000)
    kind = {"bigint": int, "text": str}[column]
    index = PostgresIndex(url, bits=64)
    index.add(codes, [kind(i) for i in range(3000)])
    stats = index.stats()
    assert stats["lists"] == 31  # as many as suit a third of the codes
    assert stats["bytes"] > 3000 * 60
    assert stats["probes"] > 0
    _, ids = index.search(codes[:20], 3)
    assert ids[:, 0].tolist() == [kind(i) for i in range(20)]
    index.remove([kind(5)])
    assert kind(5) not in index.search(codes[5], 100)[1]


def test_an_index_whose_lists_cannot_be_built_still_searches(url, few, admin):
    codes = clustered(np.random.default_rng(0), 1000)
    PostgresIndex(url, bits=64)
    admin.execute("DROP ROLE IF EXISTS writer")
    admin.execute("CREATE ROLE writer LOGIN")
    for table in (table_of(url), "dsh_index"):
        admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO writer")
    index = PostgresIndex(url.replace("postgres:@", "writer:@"), bits=64)
    with pytest.warns(UserWarning, match=r"codes were added, but their lists were not built: .*owner of table"):
        index.add(codes)
    assert index.search(codes[:9], 1)[1].ravel().tolist() == list(range(9))
    admin.execute("DROP OWNED BY writer")


# Connections


def test_a_lost_connection_is_opened_again(url, admin):
    codes = clustered(np.random.default_rng(0), 20)
    index = PostgresIndex(url, bits=64)

    def cut():
        admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'dsh_hf'")

    for change, count in [(lambda: index.add(codes), 20), (lambda: index.remove([3, 4]), 18)]:
        cut()
        change()
        cut()
        assert len(index) == count
        cut()
        assert index.search(codes[7], 1)[1].tolist() == [7]
    index.close()
    assert len(index) == 18


@pytest.mark.parametrize("ended", ["before", "after"])
def test_an_addition_whose_end_is_not_heard_happens_once(url, monkeypatch, ended):
    codes = clustered(np.random.default_rng(0), 20)
    index = PostgresIndex(url, bits=64)
    leave, losses = psycopg.Transaction.__exit__, []

    def lost(self, *error):
        if not losses and index._database._connection.info.transaction_status.name == "INTRANS":
            losses.append(1)
            if ended == "after":
                leave(self, *error)
            self.connection.close()
            raise psycopg.OperationalError("the connection is lost")
        return leave(self, *error)

    monkeypatch.setattr(psycopg.Transaction, "__exit__", lost)
    index.add(codes)
    assert losses
    assert len(index) == 20
    assert sorted(index.search(codes[0], 99)[1].tolist()) == list(range(20))


@pytest.mark.parametrize("answer", ["in progress", None, "no connection"])
def test_an_addition_of_which_the_server_tells_no_end_is_not_made_again(url, monkeypatch, answer):
    index = PostgresIndex(url, bits=64)
    leave, losses, works = psycopg.Transaction.__exit__, [], []
    run, connect = psycopg.Connection.execute, psycopg.connect

    def lost(self, *error):
        in_transaction = index._database._connection.info.transaction_status.name == "INTRANS"
        leave(self, *error)
        if not losses and in_transaction and works:
            losses.append(1)
            self.connection.close()
            raise psycopg.OperationalError("the connection is lost")

    def execute(self, query, *values, **options):
        if "pg_xact_status" in str(query):
            query, values = "SELECT %s::text", [(answer,)]
        return run(self, query, *values, **options)

    def refused(*values, **options):
        if losses and answer == "no connection":
            raise psycopg.OperationalError("the server is starting up")
        return connect(*values, **options)

    def copy(self, query, rows):
        works.append(1)
        send(self, query, rows)

    send = postgres_connection.Session.copy
    monkeypatch.setattr(postgres_connection.Session, "copy", copy)
    monkeypatch.setattr(postgres_connection, "LOCK_SECONDS", 0.5)
    monkeypatch.setattr(psycopg.Transaction, "__exit__", lost)
    monkeypatch.setattr(psycopg.Connection, "execute", execute)
    monkeypatch.setattr(psycopg, "connect", refused)
    with pytest.raises(ConnectionError, match=r"whether it was made is not known: look whether its ids are there"):
        index.add(np.zeros((3, 8), np.uint8))
    monkeypatch.undo()
    assert works == [1]
    assert len(index) == 3


def test_an_addition_that_breaks_off_leaves_nothing(url, monkeypatch):
    codes = clustered(np.random.default_rng(0), 20)
    index = PostgresIndex(url, bits=64)
    index.add(codes[:5])
    copy = postgres_connection.Session.copy

    def broken(self, query, rows):
        copy(self, query, list(rows)[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(postgres_connection.Session, "copy", broken)
    with pytest.raises(KeyboardInterrupt):
        index.add(codes[5:])
    monkeypatch.undo()
    assert len(index) == 5
    assert index.search(codes[0], 99)[1].size == 5
    index.add(codes[5:])
    assert len(index) == 20


def test_an_unreachable_server_is_one_error_in_bounded_time_without_the_password():
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"can't work with 127.0.0.1:1/gallery: .*refused") as caught:
        PostgresIndex("postgresql://me:sesame@127.0.0.1:1/gallery?table=x", bits=64)
    assert time.monotonic() - start < 30
    assert "sesame" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert "\n" not in str(caught.value)


def test_passwords_are_told_nowhere(admin, url):
    admin.execute("DROP ROLE IF EXISTS keeper")
    admin.execute("CREATE ROLE keeper LOGIN SUPERUSER PASSWORD 'sesame'")
    index = PostgresIndex(url.replace("postgres:@", "keeper:sesame@"), bits=64)
    index.add(np.zeros((1, 8), np.uint8))
    assert "sesame" not in repr(index) + str(index.stats()) + index.place
    with pytest.raises(ConnectionError) as caught:
        PostgresIndex(url.replace("postgres:@", "sesame:sesame@"), bits=64)
    assert "sesame" not in str(caught.value)
    index.close()
    admin.execute("DROP OWNED BY keeper CASCADE")
    admin.execute("DROP ROLE keeper")


@pytest.mark.parametrize("text", ["postgresql://me:ses%zzame@host/x", "postgresql://me:sesame@host:abc/x?nothing=1"])
def test_no_url_of_postgres(text):
    with pytest.raises(ValueError, match="no URL of PostgreSQL: expected postgresql://") as caught:
        PostgresIndex(text, bits=64)
    assert "same" not in str(caught.value).replace("table=name", "")
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("query", ["table=", "table=a&table=b", "table"])
def test_the_table_is_named_once(query):
    with pytest.raises(ValueError, match=r"give 'table' once in the URL, as \?table="):
        PostgresIndex(f"postgresql://host/x?{query}", bits=64)


def test_a_search_that_takes_too_long_says_what_to_do(url, admin):
    PostgresIndex(url, bits=64).add(np.zeros((1, 8), np.uint8))
    index = PostgresIndex(f"{url}&options=-c%20statement_timeout%3D200", bits=64)
    with admin.transaction():
        admin.execute(f"LOCK TABLE {table_of(url)}")
        with pytest.raises(TimeoutError, match=r"took too long: .*statement_timeout"):
            index.search(np.zeros(8, np.uint8), 1)
    assert index.search(np.zeros(8, np.uint8), 1)[1].tolist() == [0]


# Several at once


def test_a_writer_waits_for_another_one_and_not_for_ever(url, admin, monkeypatch):
    index = PostgresIndex(url, bits=64)
    monkeypatch.setattr(postgres_connection, "LOCK_SECONDS", 0.2)
    with admin.transaction():
        admin.execute("SELECT FROM dsh_index WHERE name = %s FOR UPDATE", (table_of(url),))
        with pytest.raises(TimeoutError, match=r"another writer has held .*: try again when it is done"):
            index.add(np.zeros((1, 8), np.uint8))
        assert len(index) == 0  # a reader does not wait
    index.add(np.zeros((1, 8), np.uint8))
    assert len(index) == 1


def together(*calls):
    """Run the calls at the same time; give what each raised."""
    raised = [None] * len(calls)

    def run(place):
        try:
            calls[place]()
        except Exception as error:
            raised[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_of_two_writers_of_one_id_the_second_is_told(url):
    indexes = [PostgresIndex(url, bits=64) for _ in range(4)]
    codes = clustered(np.random.default_rng(0), 50)
    raised = together(*[lambda index=index: index.add(codes, ids=range(50)) for index in indexes])
    assert raised.count(None) == 1
    assert all(isinstance(e, ValueError) and "id 0 is in the index already" in str(e) for e in raised if e)
    assert {len(index) for index in indexes} == {50}


def test_many_writers_lose_nothing(url):
    indexes = [PostgresIndex(url, bits=64) for _ in range(4)]
    codes = clustered(np.random.default_rng(0), 100)

    def write(index):
        for start in range(0, 100, 10):
            index.add(codes[start : start + 10])

    assert together(*[lambda index=index: write(index) for index in indexes]) == [None] * 4
    assert sorted(indexes[0].search(codes[0], 999)[1].tolist()) == list(range(400))


def test_several_open_the_same_new_table(url):
    assert together(*[lambda: PostgresIndex(url, bits=64) for _ in range(6)]) == [None] * 6


def test_readers_see_whole_additions(url, few):
    writer, reader = PostgresIndex(url, bits=64), PostgresIndex(url, bits=64)
    codes = clustered(np.random.default_rng(0), 3000)
    counts, done = [], threading.Event()

    def read():
        while not done.is_set():
            distances, ids = reader.search(codes[:2], 5000)
            assert distances.shape == ids.shape
            assert all(len(set(names)) == len(names) for names in ids.tolist())
            counts.append(ids.shape[1])

    def write():
        try:
            for start in range(0, 3000, 250):
                writer.add(codes[start : start + 250])
        finally:
            done.set()

    assert together(read, write) == [None, None]
    assert counts == sorted(counts)
    assert all(count % 250 == 0 for count in counts)


def test_who_may_only_read_can_search(url, admin):
    PostgresIndex(url, bits=64).add(np.zeros((3, 8), np.uint8))
    admin.execute("DROP ROLE IF EXISTS reader")
    admin.execute("CREATE ROLE reader LOGIN")
    admin.execute(f"GRANT SELECT ON {table_of(url)}, dsh_index TO reader")
    index = PostgresIndex(url.replace("postgres:@", "reader:@"), bits=64)
    assert index.search(np.zeros(8, np.uint8), 9)[1].tolist() == [0, 1, 2]
    with pytest.raises(ConnectionError, match="refused: permission denied"):
        index.add(np.zeros((1, 8), np.uint8))
    admin.execute("DROP OWNED BY reader")


def test_a_pgvector_too_old_for_codes_is_told(url, admin):
    (now,) = admin.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    try:
        admin.execute("UPDATE pg_extension SET extversion = '0.6.2' WHERE extname = 'vector'")
        with pytest.raises(ConnectionError, match=r"need pgvector 0.7 or later, this is 0.6.2: install it"):
            PostgresIndex(url, bits=64)
    finally:
        admin.execute("UPDATE pg_extension SET extversion = %s WHERE extname = 'vector'", (now,))
    assert len(PostgresIndex(url, bits=64)) == 0


def test_without_psycopg_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(ImportError, match=r'pip install "dsh-hf\[postgres\]"'):
        PostgresIndex("postgresql://host/x", bits=64)
