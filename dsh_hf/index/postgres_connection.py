"""One connection to PostgreSQL: transactions that end once, lost connections, errors without secrets."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from dsh_hf.index.servers import repeated, without_secrets

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
Work = Callable[["Session"], T]
Query = tuple[str, tuple[Any, ...]]  # with {name} for names and %s for values

CONNECTION = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "application_name": "dsh_hf",
}
QUERY_SECONDS = 60  # longest query of a reader, where neither URL nor server sets a statement_timeout
LOCK_SECONDS = 60  # longest wait for another writer
PIPELINE = 256  # queries sent without waiting for answers


class Session:
    """What a transaction runs its queries through: names go in quoted, values as parameters.

    Attributes:
        names: what stands for {name} in queries.
    """

    def __init__(self, connection: "psycopg.Connection[Any]", names: dict[str, Any]) -> None:
        self._connection = connection
        self.names = names

    def run(self, query: str, *values: Any, **names: Any) -> "psycopg.Cursor[Any]":
        """Run a query; ``names`` are its own, beside those of the session."""
        return self._connection.execute(self._named(query, **names), values)

    def row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """Give the first row of a query, None where there is none."""
        return self.run(query, *values).fetchone()

    def all_of(self, queries: list[Query]) -> list[list[tuple[Any, ...]]]:
        """Give the rows of each query; they are sent without waiting for one another."""
        found = []
        for start in range(0, len(queries), PIPELINE):
            with self._connection.pipeline():
                cursors = [self.run(query, *values) for query, values in queries[start : start + PIPELINE]]
                found += [cursor.fetchall() for cursor in cursors]
        return found

    def copy(self, query: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Write rows by a COPY query."""
        statement = self._named(query).as_string(self._connection).replace("%%", "%")  # no values, so no marks either
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def _named(self, query: str, **names: Any) -> Any:
        from psycopg import sql

        return sql.SQL(query).format(**self.names, **names)


def quoted(*parts: str) -> Any:
    """Give a name, such as a schema's and a table's, for a query."""
    from psycopg import sql

    return sql.Identifier(*(part.replace("%", "%%") for part in parts))  # % marks the place of a value


class Database:
    """A database, by URL; its connection is opened when first needed, and again where it was lost.

    Attributes:
        place: host, port and name of the database.
        names: what stands for {name} in queries.
    """

    names: dict[str, Any]

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise ImportError(f'PostgreSQL needs psycopg ({error}): pip install "dsh-hf[postgres]"') from None
        try:
            self._options: dict[str, Any] = {**CONNECTION, **psycopg.conninfo.conninfo_to_dict(url)}
        except psycopg.Error:  # its message holds the URL
            raise ValueError("no URL of PostgreSQL: expected postgresql://user@host/database?table=name") from None
        self._secrets = [str(self._options.get(name) or "") for name in ("password", "sslpassword")]
        self._connection: psycopg.Connection[Any] | None = None
        self.names = {}
        host, port, name = (self._options.get(key) for key in ("host", "port", "dbname"))
        self.place = f"{host or 'localhost'}{f':{port}' if port else ''}/{name or ''}"

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def read(self, work: Work[T]) -> T:
        """Do work that changes nothing: all of its queries see the same state of the tables."""
        return self._translated(lambda: repeated(lambda: self._read_once(work), self._is_passing))

    def write(self, work: Work[T]) -> T:
        """Do work in one transaction, exactly once, also where the connection is lost.

        Raises:
            ConnectionError: the connection was lost at the end, and the server did not tell for a minute whether the
                work was done: it is not done again.
        """
        return self._translated(lambda: repeated(lambda: self._write_once(work), self._is_passing))

    def _read_once(self, work: Work[T]) -> T:
        from psycopg import IsolationLevel

        connection = self._connected()
        connection.isolation_level, connection.read_only = IsolationLevel.REPEATABLE_READ, True
        with connection.transaction():
            connection.execute(
                "SELECT set_config('statement_timeout', %s, true) WHERE current_setting('statement_timeout') = '0'",
                (f"{QUERY_SECONDS}s",),
            )
            return work(Session(connection, self.names))

    def _write_once(self, work: Work[T]) -> T:
        from psycopg import IsolationLevel, OperationalError

        connection = self._connected()
        connection.isolation_level, connection.read_only = IsolationLevel.READ_COMMITTED, False
        transaction = None
        try:
            with connection.transaction():
                connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{LOCK_SECONDS}s",))
                done = work(Session(connection, self.names))
                row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
                transaction = row[0] if row else None
        except OperationalError:
            if transaction is None or not connection.closed:
                raise
            # Lost while it ended: only the server knows how. Where it did not end well, it is done again.
            if not self._has_ended_well(transaction):
                self.close()
                raise
        return done

    def _has_ended_well(self, transaction: str) -> bool:
        from psycopg import OperationalError

        end = time.monotonic() + LOCK_SECONDS
        while time.monotonic() < end:
            with suppress(OperationalError):  # the server may be starting anew
                row = self._connected().execute("SELECT pg_xact_status(%s::xid8)", (transaction,)).fetchone()
                ended = row[0] if row else None
                if ended in ("committed", "aborted"):  # "in progress": it has not noticed yet that we are gone
                    return bool(ended == "committed")
            time.sleep(0.1)
        raise ConnectionError(
            f"the connection to {self.place} was lost while a change ended, and whether it was made is not known: "
            "look whether its ids are there before you repeat it"
        )

    def _connected(self) -> "psycopg.Connection[Any]":
        import psycopg

        if self._connection is None or self._connection.closed:
            # Prepared statements are of no use to queries of milliseconds, and break behind a pooler.
            self._connection = psycopg.connect(**self._options, autocommit=True, prepare_threshold=None)
        return self._connection

    def _is_passing(self, error: Exception) -> bool:
        import psycopg

        if isinstance(error, (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)):
            return True
        lost = self._connection is None or self._connection.closed
        return isinstance(error, psycopg.OperationalError) and bool(lost)

    def _translated(self, call: Callable[[], T]) -> T:
        """Give errors of the server and of the driver as Python's own, on one line, without passwords."""
        import psycopg

        try:
            return call()
        except psycopg.errors.QueryCanceled:
            raise TimeoutError(
                f"{self.place} took too long: allow more time in the URL, "
                f"as ?options=-c%20statement_timeout%3D10min, or put the table on more machines"
            ) from None
        except psycopg.errors.LockNotAvailable:
            raise TimeoutError(
                f"another writer has held {self.place} for {LOCK_SECONDS} seconds: try again when it is done"
            ) from None
        except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
            raise ValueError(f"{self.place} can't keep this: {self._plain(error)}") from None
        except psycopg.OperationalError as error:
            raise ConnectionError(f"can't work with {self.place}: {self._plain(error)}") from None
        except psycopg.Error as error:
            raise ConnectionError(f"{self.place} refused: {self._plain(error)}") from None

    def _plain(self, error: Exception) -> str:
        return without_secrets(str(error), self._secrets)
