"""What is Milvus's own in an index; what every engine must do is in test_index.py.

A new collection takes the server three seconds, so most tests share one.
"""

import io
import time

import numpy as np
import pytest
from servers import milvus_address, milvus_url, stop_milvus

pymilvus = pytest.importorskip("pymilvus")

from dsh_hf.codes import pack_signs  # noqa: E402
from dsh_hf.index import IndexFileError, IndexMismatchError, milvus  # noqa: E402
from dsh_hf.index.milvus import MilvusIndex  # noqa: E402

RNG = np.random.default_rng(0)
FEW = pack_signs(RNG.normal(size=(10, 20)))
CODES = FEW[RNG.integers(10, size=300)]  # thirty equal ones each
QUERIES = np.concatenate([FEW[:2], pack_signs(RNG.normal(size=(3, 20)))])


@pytest.fixture(scope="module", autouse=True)
def last_use():
    """The tests before these may have used the server, none after them does."""
    yield
    stop_milvus()


@pytest.fixture(scope="module")
def url():
    """The URL of an index of CODES under running ids, two of them removed."""
    url = milvus_url()
    index = MilvusIndex(url, bits=20, fingerprint="abc")
    index.add(CODES[:200])
    index.add(CODES[200:])
    index.remove([5, 250])
    return url


@pytest.fixture
def admin():
    client = pymilvus.MilvusClient(milvus_address().removeprefix("milvus+"))
    yield client
    client.close()


def exact(query, k, r=20):
    """The first k (distance, id) of a plain list within r."""
    far = np.bitwise_count(CODES ^ query).sum(axis=1).astype(int)
    order = [i for i in np.argsort(far, kind="stable").tolist() if i not in (5, 250) and far[i] <= r][:k]
    return [(int(far[i]), i) for i in order]


def pairs(distances, ids):
    return list(zip(distances.tolist(), ids.tolist(), strict=True))


# What is kept


def test_opened_again_by_its_url_it_is_the_same(url):
    index = MilvusIndex(url, bits=20)
    assert (len(index), index.fingerprint) == (298, "abc")  # also what was removed a moment ago
    assert pairs(*index.search(QUERIES[0], 999)) == exact(QUERIES[0], 999)
    stats = index.stats()
    assert (stats["engine"], stats["items"], stats["distinct"]) == ("milvus", 298, 10)
    assert stats["bytes"] == 298 * 19


def test_another_model_or_length_is_refused_with_the_way_out(url):
    with pytest.raises(IndexMismatchError, match=r"20 bits, not 24: .*another name in the URL"):
        MilvusIndex(url, bits=24)
    with pytest.raises(IndexMismatchError, match=r"model abc, not xyz: .*encode the collection again"):
        MilvusIndex(url, bits=20, fingerprint="xyz")


def made_by_others(admin, url, about):
    schema = admin.create_schema(auto_id=False, description=about)
    schema.add_field("id", pymilvus.DataType.INT64, is_primary=True)
    schema.add_field("n", pymilvus.DataType.INT64)
    schema.add_field("code", pymilvus.DataType.BINARY_VECTOR, dim=24)
    admin.create_collection(url.rpartition("/")[2], schema=schema)


def test_a_collection_of_others_is_refused_and_left_alone(admin):
    url = milvus_url()
    made_by_others(admin, url, "photographs")
    with pytest.raises(IndexMismatchError, match="is there, and no index of dsh-hf: give another name in the URL"):
        MilvusIndex(url, bits=20)
    assert admin.has_collection(url.rpartition("/")[2])


def test_a_newer_format_is_refused(admin):
    url = milvus_url()
    made_by_others(admin, url, "dsh_hf format 99, 20 bits, model abc")
    with pytest.raises(IndexFileError, match="newer format 99: upgrade dsh-hf"):
        MilvusIndex(url, bits=20)


def test_there_is_no_file(tmp_path):
    with pytest.raises(io.UnsupportedOperation, match=r"the codes live on the server.*open the index by its URL"):
        MilvusIndex(milvus_url(), bits=8).save(tmp_path / "index")
    with pytest.raises(io.UnsupportedOperation, match="open it by the URL"):
        MilvusIndex.load(tmp_path / "index")
    assert not list(tmp_path.iterdir())


def test_opening_alone_makes_nothing(admin):
    url = milvus_url()
    index = MilvusIndex(url, bits=64)
    assert len(index) == 0
    assert index.search(np.zeros((2, 8), np.uint8), 5)[0].shape == (2, 0)
    assert [len(near) for near, _ in index.search_radius(np.zeros((2, 8), np.uint8), 64)] == [0, 0]
    assert not admin.has_collection(url.rpartition("/")[2])


# Ids are values, never a filter's text


def test_any_str_is_an_id():
    ids = ["' or id != '", '" or id != "', "a'] or n >= 0 or id in ['", "\\", "\\'", "{ids}", "a\tb\nc", "%s"]
    ids += ["größe/🖼.png", "", "\0", "\udcff", "\ue000", "\ue0000027", "x" * 5000]
    codes = pack_signs(np.random.default_rng(0).normal(size=(len(ids), 64)))
    url = milvus_url()
    MilvusIndex(url, bits=64).add(codes, ids)
    index = MilvusIndex(url, bits=64)
    assert index.search(codes, 1)[1].ravel().tolist() == ids
    for name, code in zip(ids, codes, strict=True):
        with pytest.raises(ValueError, match="in the index already"):
            index.add(code, name)
    with pytest.raises(KeyError, match="nothing was removed"):
        index.remove("' or n >= 0 or id == '")
    for left in range(len(ids), 0, -1):
        assert len(index) == left
        index.remove(ids[left - 1])
    index.add(codes[:2])  # emptied, it takes the other kind of ids
    assert index.search(codes[0], 9)[1].tolist() == [0, 1]


@pytest.mark.parametrize("name", ["a-b", "1a", "größe", "a;b", "x" * 256, "a b"])
def test_names_that_can_be_no_collection(name):
    with pytest.raises(ValueError, match="Milvus knows no collection called"):
        MilvusIndex(f"milvus+http://127.0.0.1:1/{name}", bits=64)


@pytest.mark.parametrize(
    "text", ["http://host:19530/x", "milvus+http:///x", "milvus+ftp://host/x", "milvus+http://h/x?a=b"]
)
def test_no_url_of_milvus(text):
    with pytest.raises(ValueError, match=r"no URL of Milvus: expected milvus\+http://"):
        MilvusIndex(text, bits=64)


# Search


@pytest.mark.parametrize("page", [7, 40, 16_384])
@pytest.mark.parametrize("k", [1, 6, 7, 8, 35, 298, 9999])
def test_every_answer_is_exact_however_few_items_the_server_gives_at_a_time(url, monkeypatch, page, k):
    monkeypatch.setattr(milvus, "PAGE", page)
    index = MilvusIndex(url, bits=20)
    for query, *found in zip(QUERIES, *index.search(QUERIES, k), strict=True):
        assert pairs(*found) == exact(query, k)


@pytest.mark.parametrize("page", [7, 16_384])
@pytest.mark.parametrize("r", [0, 8, 20])
def test_radius_search_is_exact_however_few_items_the_server_gives_at_a_time(url, monkeypatch, page, r):
    monkeypatch.setattr(milvus, "PAGE", page)
    index = MilvusIndex(url, bits=20)
    for query, found in zip(QUERIES, index.search_radius(QUERIES, r), strict=True):
        assert pairs(*found) == exact(query, 999, r)


def test_many_queries_are_sent_in_parts(url, monkeypatch):
    monkeypatch.setattr(milvus, "ANSWER", 240)  # two queries at a time
    index = MilvusIndex(url, bits=20)
    one, all_at_once = [index.search(query, 10)[1].tolist() for query in QUERIES], index.search(QUERIES, 10)
    assert all_at_once[1].tolist() == one


# Changes


@pytest.fixture(scope="module")
def changing():
    return milvus_url()


@pytest.fixture
def growing(changing, monkeypatch):
    """An index of 12 codes, sent and looked up five at a time."""
    monkeypatch.setattr(milvus, "BATCH", 5)
    index = MilvusIndex(changing, bits=20)
    if len(index):
        index.remove(index.search(FEW[0], 99)[1])
    index.add(CODES[:12], ids=range(12))
    return index


def test_changes_are_seen_by_the_next_search_and_by_who_opens_then(growing, changing):
    for step in range(3):
        growing.add(FEW[:7], ids=np.arange(7) + 100 + 10 * step)
        assert len(growing) == 19
        assert len(MilvusIndex(changing, bits=20)) == 19
        gone = np.arange(7) + 100 + 10 * step
        growing.remove(gone)
        assert not set(gone.tolist()) & set(growing.search(FEW[0], 99)[1].tolist())
        assert len(growing) == 12


def test_an_addition_that_breaks_off_is_taken_back(growing, monkeypatch):
    call, sent = MilvusIndex._call, []

    def broken(self, method, *values, **named):
        if method == "upsert":
            sent.append(len(values[0]))
            if len(sent) == 2:
                raise ConnectionError("lost")
        return call(self, method, *values, **named)

    monkeypatch.setattr(MilvusIndex, "_call", broken)
    with pytest.raises(ConnectionError, match="lost"):
        growing.add(CODES[:12], ids=range(50, 62))
    assert sent == [5, 5]
    assert len(growing) == 12
    growing.add(CODES[:12], ids=range(50, 62))
    assert len(growing) == 24


def test_an_addition_that_cannot_be_taken_back_tells_why_it_failed(growing, monkeypatch):
    call = MilvusIndex._call

    def broken(self, method, *values, **named):
        if method in ("upsert", "delete"):
            raise ConnectionError(f"{method} lost")
        return call(self, method, *values, **named)

    monkeypatch.setattr(MilvusIndex, "_call", broken)
    with pytest.raises(ConnectionError, match="upsert lost") as caught:
        growing.add(CODES[:12], ids=range(50, 62))
    assert "could not be taken back (delete lost): remove the ids" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("method", ["drop_collection", "create_collection"])
def test_a_change_of_the_kind_of_ids_that_fails_can_be_done_again(monkeypatch, method):
    index = MilvusIndex(milvus_url(), bits=20)
    index.add(FEW[:2])
    index.remove([0, 1])
    call = MilvusIndex._call

    def broken(self, called, *values, **named):
        if called == method:
            raise ConnectionError("lost")
        return call(self, called, *values, **named)

    with monkeypatch.context() as patch, pytest.raises(ConnectionError, match="lost"):
        patch.setattr(MilvusIndex, "_call", broken)
        index.add(FEW[:2], ["a", "b"])
    assert len(index) == 0
    index.add(FEW[:2], ["a", "b"])
    assert index.search(FEW[1], 1)[1].tolist() == ["b"]


def test_the_server_sorts_in_what_was_added_in_small_parts(growing, monkeypatch):
    called, call = [], MilvusIndex._call

    def noted(self, method, *values, **named):
        called.append(method)
        return call(self, method, *values, **named)

    monkeypatch.setattr(MilvusIndex, "_call", noted)
    monkeypatch.setattr(milvus, "FLUSH", 20)
    growing.add(CODES[:5], ids=range(20, 25))
    assert "flush" not in called
    growing.add(CODES[:5], ids=range(30, 35))
    assert called.count("flush") == 1
    growing.add(CODES[:5], ids=range(40, 45))
    assert called.count("flush") == 1
    assert len(growing) == 27


def test_a_batch_that_is_sent_again_is_added_once(growing, monkeypatch):
    call = MilvusIndex._call

    def twice(self, method, *values, **named):
        if method == "upsert":
            call(self, method, *values, **named)
        return call(self, method, *values, **named)

    monkeypatch.setattr(MilvusIndex, "_call", twice)
    growing.add(CODES[:12])
    assert len(growing) == 24
    assert len(set(growing.search(CODES[0], 99)[1].tolist())) == 24


def test_removing_an_unknown_id_removes_nothing(growing):
    for ids, named in [([0, 99], "id 99"), ("a", "id 'a'"), ([2, 8, 70, 71], "id 70 .* 1 others")]:
        with pytest.raises(KeyError, match=named):
            growing.remove(ids)
    assert len(growing) == 12


def test_known_ids_are_told(growing):
    assert growing.known([11, 3, 12, -(2**63), 3]) == {3, 11}
    assert growing.known(["a"]) == growing.known([]) == set()
    assert MilvusIndex(milvus_url(), bits=20).known([1]) == set()


def test_wrong_ids_add_nothing(growing):
    for ids, line in [([20, 3], "id 3 is in the index already"), (["a", "b"], "holds int ids and takes no str ids")]:
        with pytest.raises(ValueError, match=line):
            growing.add(FEW[:2], ids)
    assert len(growing) == 12


def test_a_closed_index_opens_again(growing):
    growing.close()
    assert len(growing) == 12


# Errors


def test_an_unreachable_server_is_one_error_in_bounded_time_without_the_token(monkeypatch):
    start = time.monotonic()
    for url in ("milvus+http://127.0.0.1:1/gallery?token=sesame", "milvus+http://me:sesame@127.0.0.1:1/gallery"):
        with pytest.raises(ConnectionError, match=r"can't work with 127.0.0.1:1, collection 'gallery': ") as caught:
            MilvusIndex(url, bits=64)
        assert "sesame" not in str(caught.value)
        assert caught.value.__suppress_context__
        assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 60


def test_tokens_are_told_nowhere(url, monkeypatch):
    monkeypatch.setenv("MILVUS_TOKEN", "me:sesame")
    index = MilvusIndex(url, bits=20)
    assert index._options["token"] == "me:sesame"
    assert "sesame" not in repr(index) + str(index.stats()) + index.place


def test_without_pymilvus_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pymilvus", None)
    with pytest.raises(ImportError, match=r'pip install "dsh-hf\[milvus\]"'):
        MilvusIndex("milvus+http://host:19530/x", bits=64)
