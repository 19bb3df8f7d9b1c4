"""Codes in a collection of Milvus, on one server or a cluster."""

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np

from dsh_hf.codes import Codes, code_bytes
from dsh_hf.index.base import Found, Ids, IndexMismatchError
from dsh_hf.index.servers import (
    FORMAT,
    UNKEPT,
    ServerIndex,
    as_array,
    kind_of,
    new_ids,
    refuse_known,
    refuse_missing,
    take_options,
    to_text,
    without_secrets,
)

if TYPE_CHECKING:
    from pymilvus import MilvusClient

COLLECTION = "dsh_codes"  # where the URL names none
SECONDS = 60  # longest time for a call; pymilvus tries again within it
LOAD_SECONDS = 3600  # longest time for the server to load a collection that is on disk alone
FLUSH = 100_000  # codes after which the server is told to close its segment: open ones are searched ten times slower
BATCH = 10_000  # codes sent, or ids looked up, at a time
PAGE = 16_384  # most items that Milvus gives a query
ANSWER = 200_000  # most items asked for in one call
# Ids that Milvus keeps, but can't read in a list, or doesn't give when asked for.
EXTREMES = {-(2**63): f"id < {1 - 2**63}", 2**63 - 1: f"id > {2**63 - 2}"}
QUOTES = UNKEPT + "\x01-\x1f\x7f'\"\\\\"  # pymilvus pastes ids between quotes: these may not be in the text


class Hit(NamedTuple):
    """An item near a query, in the order of results."""

    distance: int
    n: int  # number by insertion
    id: Any  # as the server keeps it


class MilvusIndex(ServerIndex):
    """Codes in a collection of Milvus (2.3 or later), given by its URL.

    ``milvus+http://host:19530/collection?token=...&db=...``, or ``milvus+https``; the token may be in the
    environment instead, as ``MILVUS_TOKEN``; without a name, the collection is ``dsh_codes``. It is made by the
    first addition.

    Every answer is the exact one, ties included: the server compares all codes (BIN_FLAT), on all of its query
    nodes at once. ``k`` has no bound; beyond 16,384 it takes several calls, as do as many equally distant items.

    After every 100,000 codes added the server is told to sort them in, which takes it some ten seconds; until then
    they are found as well, in more time. Smaller additions it sorts in by itself, after minutes.

    One's own changes are seen by the next search, which may wait for the server's clock (0.2 s); those of other
    processes within about that time. Milvus has no transactions: while codes are added others may see a part of
    them, and what an addition that fails has sent is taken back by a second call. It has no locks either: let
    one process write at a time. Of two that add the same id at one moment, the later one wins.

    Args:
        url: where the server and the collection are. Tokens appear in no message.
        bits: length of the codes.
        fingerprint: fingerprint of the model that makes the codes; stored when the collection is made.

    Raises:
        ImportError: pymilvus is not installed.
        ValueError: no URL of this kind.
        ConnectionError: the server can't be reached, or refuses the token.
        IndexMismatchError: the collection holds codes of another length or model, or no codes.
    """

    engine = "milvus"

    def __init__(self, url: str, *, bits: int, fingerprint: str | None = None) -> None:
        super().__init__(bits=bits, fingerprint=fingerprint)
        try:
            import pymilvus  # noqa: F401
        except ImportError as error:
            raise ImportError(f'Milvus needs pymilvus ({error}): pip install "dsh-hf[milvus]"') from None
        plain, ours = take_options(url, {"token", "db"})
        parts = urlsplit(plain)
        self._collection = parts.path.strip("/") or COLLECTION
        if parts.scheme not in ("milvus+http", "milvus+https") or not parts.hostname or parts.query:
            raise ValueError("no URL of Milvus: expected milvus+http://host:19530/collection?token=...&db=...")
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,254}", self._collection):
            raise ValueError(
                f"Milvus knows no collection called {self._collection!r}: names have ASCII letters, digits and _"
            )
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
        token = ours.get("token") or user or os.environ.get("MILVUS_TOKEN", "")
        address = parts.netloc.rpartition("@")[2]
        self._options = {
            "uri": f"{parts.scheme.removeprefix('milvus+')}://{address}",
            "token": token,
            "db_name": ours.get("db", ""),
        }
        self._secrets = [token, token.partition(":")[2]]
        self._client: MilvusClient | None = None
        self._kind: str | None = None  # of the ids; None while there is no collection
        self._behind = True  # what was written must be waited for
        self._unflushed = 0  # codes
        self.place = f"{address}, collection {self._collection!r}"
        with self._lock:
            self._look()

    def close(self) -> None:  # noqa: D102
        if self._client is not None:
            self._client.close()
            self._client = None

    def __len__(self) -> int:
        with self._lock:
            if not self._look():
                return 0
            return self._count("")

    def stats(self) -> dict[str, Any]:
        """Describe the index; counting the distinct codes reads all of them.

        Returns:
            engine, bits, fingerprint, items, distinct codes, and the bytes of the codes, their numbers and int
            ids: what query nodes hold in memory. Milvus doesn't tell what it takes on disk.
        """
        with self._lock:
            items = len(self)
            return {
                "engine": self.engine,
                "bits": self.bits,
                "fingerprint": self.fingerprint,
                "items": items,
                "distinct": len(set(self._all_codes())),
                "bytes": items * (code_bytes(self.bits) + 16),
            }

    # The collection

    def _look(self) -> bool:
        """Tell whether there is a collection; the first time, check it and have it loaded."""
        if self._kind is None and self._call("has_collection"):
            about = self._call("describe_collection")
            fields = {field["name"]: field for field in about["fields"]}
            made = re.fullmatch(r"dsh_hf format (\d+), (\d+) bits, model (.*)", about["description"], re.DOTALL)
            if made is None or fields.keys() != {"id", "n", "code"}:
                raise IndexMismatchError(f"{self.place} is there, and no index of dsh-hf: give another name in the URL")
            self._check_made_for(int(made[1]), int(made[2]), made[3] or None)
            self._kind = "int" if fields["id"]["type"].name == "INT64" else "str"
            self._call("load_collection", timeout=LOAD_SECONDS)
        return self._kind is not None

    def _make(self, kind: str, properties: dict[str, str]) -> None:
        from pymilvus import DataType, MilvusClient

        about = f"dsh_hf format {FORMAT}, {self.bits} bits, model {self.fingerprint or ''}"
        schema = MilvusClient.create_schema(auto_id=False, description=about)
        if kind == "int":
            schema.add_field("id", DataType.INT64, is_primary=True)
        else:
            schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=65_535)
        schema.add_field("n", DataType.INT64)
        schema.add_field("code", DataType.BINARY_VECTOR, dim=8 * code_bytes(self.bits))
        search = MilvusClient.prepare_index_params()
        search.add_index("code", index_type="BIN_FLAT", metric_type="HAMMING")
        self._call(
            "create_collection", schema=schema, index_params=search, properties=properties,
            consistency_level="Session", timeout=LOAD_SECONDS,
        )  # fmt: skip
        self._kind = kind

    def _all_codes(self) -> Iterator[bytes]:
        end, _ = self._next()
        for first in range(0, end, BATCH):
            within = f"n >= {first:d} and n < {first + BATCH:d}"
            for row in self._read("query", filter=within, output_fields=["code"]):
                yield bytes(row["code"][0])

    # Changes

    def _add(self, codes: Codes, ids: Ids | None) -> None:
        count = len(self)
        next_n, next_id = self._next()
        new = new_ids(ids, len(codes), next_id, self._kind if count else None)
        if count:
            refuse_known(new.tolist(), self._known(new))
        kind = kind_of(new)
        reached = {"dsh_hf.next_n": str(next_n + len(new))}
        reached["dsh_hf.next_id"] = str(max(next_id, int(new.max()) + 1) if kind == "int" else next_id)
        if kind != self._kind:  # the first ids of an empty index decide their kind
            if self._kind is not None:
                self._kind = None  # from here on nobody knows, should a call fail
                self._call("drop_collection")
            self._make(kind, reached)
        else:  # before the codes: numbers may be left out, never given twice
            self._call("alter_collection_properties", reached)
        kept = _kept(new)
        sent = 0
        try:
            for sent in range(0, len(kept), BATCH):
                part = slice(sent, sent + BATCH)
                rows = zip(kept[part], range(next_n + sent, next_n + len(kept)), codes[part], strict=False)
                # Not insert: pymilvus may send a batch again where the connection is lost.
                self._call("upsert", [{"id": name, "n": n, "code": code.tobytes()} for name, n, code in rows])
        except BaseException as error:
            try:
                self._delete(kept[: sent + BATCH])
            except ConnectionError as second:
                error.add_note(f"what was sent could not be taken back ({second}): remove the ids of this addition")
            raise
        self._unflushed += len(kept)
        if self._unflushed >= FLUSH:
            self._call("flush")
            self._unflushed = 0

    def _remove(self, ids: Ids) -> None:
        refuse_missing(ids.tolist(), self._known(ids))
        self._delete(_kept(ids))

    def _delete(self, kept: list[Any]) -> None:
        self._behind = True
        for condition in (EXTREMES[name] for name in EXTREMES.keys() & set(kept)):
            self._call("delete", filter=condition)
        for part in _listable(kept):
            self._call("delete", ids=part)

    def _known(self, ids: Ids) -> set[Any]:
        if not self._look() or kind_of(ids) != self._kind:
            return set()
        kept = _kept(ids)
        found = [name for name in EXTREMES.keys() & set(kept) if self._count(EXTREMES[name])]
        for part in _listable(kept):
            found += [row["id"] for row in self._read("query", ids=part, output_fields=["id"])]
        return set(as_array(found, self._kind == "str").tolist())

    def _count(self, condition: str) -> int:
        return int(self._read("query", filter=condition, output_fields=["count(*)"])[0]["count(*)"])

    def _next(self) -> tuple[int, int]:
        """Give the next number of an item, and the next running id."""
        properties = self._call("describe_collection")["properties"] if self._kind else {}
        return int(properties.get("dsh_hf.next_n", 0)), int(properties.get("dsh_hf.next_id", 0))

    # Search

    def _search(self, queries: Codes, k: int) -> Found:
        found: list[list[Hit]] = [[] for _ in queries]
        if k:
            limit = min(2 * k + 100, PAGE)  # some more than k: items as near as the k-th may be many
            step = max(1, ANSWER // limit)
            for start in range(0, len(queries), step):
                part = queries[start : start + step]
                for i, page in enumerate(self._hits(part, limit, {}, ""), start):
                    found[i] = self._completed(queries[i], page, k, limit)
        count = min((len(hits) for hits in found), default=k)
        distances = np.array([[hit.distance for hit in hits[:count]] for hits in found], np.int64)
        ids = as_array([hit.id for hits in found for hit in hits[:count]], self._kind == "str" and k > 0)
        return distances.reshape(len(found), count), ids.reshape(len(found), count)

    def _search_radius(self, queries: Codes, r: int) -> list[Found]:
        if not self._look():
            return [(np.empty(0, np.int64), np.empty(0, np.int64)) for _ in queries]
        found = [sorted(self._by_number(query, 0, r)) for query in queries]
        return [
            (
                np.array([hit.distance for hit in hits], np.int64),
                as_array([hit.id for hit in hits], self._kind == "str"),
            )
            for hits in found
        ]

    def _completed(self, query: Codes, page: list[Hit], k: int, limit: int) -> list[Hit]:
        """Give the first ``k`` items, of which ``page`` holds the nearest: ``limit`` of them, or all there are."""
        if len(page) < limit or page[-1].distance > page[min(k, limit) - 1].distance:
            return page[:k]
        ring = page[min(k, limit) - 1].distance  # there are more as near as this, perhaps inserted before
        found = [hit for hit in page if hit.distance < ring]
        while len(found) < k and ring <= self.bits:
            found += self._by_number(query, ring, ring, wanted=k - len(found))[: k - len(found)]
            ring += 1
        return found

    def _by_number(
        self, query: Codes, low: int, high: int, first: int = 0, last: int = 2**63 - 1, wanted: float = float("inf")
    ) -> list[Hit]:
        """Give the items from ``low`` to ``high`` away, by number from ``first`` to ``last``; enough where wanted."""
        within = {"range_filter": low, "radius": high + 1}
        (page,) = self._hits(query[None], PAGE, within, f"n >= {first:d} and n <= {last:d}")
        page.sort(key=lambda hit: hit.n)
        if len(page) < PAGE:
            return page
        middle = page[PAGE // 2].n
        found = self._by_number(query, low, high, first, middle, wanted)
        if len(found) < wanted:
            found += self._by_number(query, low, high, middle + 1, last, wanted - len(found))
        return found

    def _hits(self, queries: Codes, limit: int, within: dict[str, int], condition: str) -> list[list[Hit]]:
        answers = self._read(
            "search", [query.tobytes() for query in queries], limit=limit, anns_field="code", output_fields=["n"],
            filter=condition, search_params={"metric_type": "HAMMING", "params": within},
        )  # fmt: skip
        return [sorted(Hit(int(hit["distance"]), hit["entity"]["n"], hit["id"]) for hit in hits) for hits in answers]

    # Calls

    def _read(self, method: str, *values: Any, **named: Any) -> Any:
        # "Session" waits for what this process has added, "Strong" for all that was written: needed where the
        # session does not know, after opening and after removals (2.3 gives no time for those).
        answer = self._call(method, *values, consistency_level="Strong" if self._behind else "Session", **named)
        self._behind = False
        return answer

    def _call(self, method: str, *values: Any, timeout: float = SECONDS, **named: Any) -> Any:
        """Call pymilvus; its errors become Python's own, on one line, without tokens."""
        from pymilvus import MilvusClient, MilvusException

        try:
            if self._client is None:
                self._client = MilvusClient(**self._options, timeout=10)
            return getattr(self._client, method)(self._collection, *values, timeout=timeout, **named)
        except MilvusException as error:
            plain = without_secrets(getattr(error, "message", "") or str(error), self._secrets)
            raise ConnectionError(f"can't work with {self.place}: {plain}") from None


def _kept(ids: Ids) -> list[Any]:
    """Give ids as the server keeps them."""
    return [to_text(name, QUOTES) for name in ids] if kind_of(ids) == "str" else ids.tolist()


def _listable(kept: list[Any]) -> Iterator[list[Any]]:
    """Give the ids that can be listed in a filter, some at a time."""
    listable = [name for name in kept if name not in EXTREMES]
    for start in range(0, len(listable), BATCH):
        yield listable[start : start + BATCH]
