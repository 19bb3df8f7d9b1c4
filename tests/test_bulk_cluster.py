"""A cluster encodes a source's parts: who works on what, what is said when it fails, and Ray itself once."""

import os
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset, Features, Image
from PIL import Image as PillowImage
from tiny_checkpoint import tiny_model

from dsh_hf.bulk.running import encode_source


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def photos(tmp_path):
    """Five pictures, the second one damaged: three parts of two."""
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for number in range(5):
        pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        PillowImage.fromarray(pixels).resize((40, 40)).save(folder / f"{number}.png")
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    return str(folder)


class LocalRay:
    """What is used of Ray, in this process; what was done last comes out first, as on a cluster it may."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.asked = {}
        self.data = SimpleNamespace(
            ActorPoolStrategy=lambda **sizes: sizes,
            DataContext=SimpleNamespace(get_current=SimpleNamespace),
            from_items=self.from_items,
        )

    def is_initialized(self):
        return False

    def init(self, address, **_):
        if self.cluster is None:
            raise ConnectionError("nobody\nanswers")

    def cluster_resources(self):
        return self.cluster

    def put(self, value):
        return value

    get = put

    def from_items(self, items, override_num_blocks):
        self.items = items
        return self

    def map_batches(self, actor, batch_size, fn_constructor_args, **asked):
        assert batch_size == 1
        self.actor = actor(*fn_constructor_args)
        self.asked = asked
        return self

    def iter_rows(self):
        for item in reversed(self.items):
            batch = {name: np.array([value], object) for name, value in item.items()}
            yield {name: values[0] for name, values in self.actor(batch).items()}


@pytest.fixture
def local_ray(monkeypatch):
    def put_in_place(cluster):
        ray = LocalRay(cluster)
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setitem(sys.modules, "ray.data", ray.data)
        return ray

    return put_in_place


def check_equal(folder, other):
    names = sorted(path.name for path in other.iterdir())
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_parts_that_end_in_any_order_give_what_one_process_gives(model, photos, tmp_path, local_ray):
    manifest = encode_source(model, photos, tmp_path / "whole", part_rows=2)
    assert list(manifest["skipped"]) == ["1.png"]
    ray = local_ray({"CPU": 2.0})
    encode_source(model, photos, tmp_path / "codes", part_rows=2, ray="auto")
    check_equal(tmp_path / "codes", tmp_path / "whole")
    assert [item["number"] for item in ray.items] == [0, 1, 2]
    (tmp_path / "codes/part-000001.parquet").unlink()
    encode_source(model, photos, tmp_path / "codes", part_rows=2, ray="auto")
    check_equal(tmp_path / "codes", tmp_path / "whole")
    assert [item["number"] for item in ray.items] == [1]


def test_where_nothing_is_left_to_do_no_cluster_is_asked(model, photos, tmp_path, local_ray):
    encode_source(model, photos, tmp_path / "codes")
    local_ray(None)
    assert encode_source(model, photos, tmp_path / "codes", ray="auto")["complete"]


def test_each_core_has_a_worker(model, photos, tmp_path, local_ray):
    ray = local_ray({"CPU": 3.0, "GPU": 1.0})
    encode_source(model, photos, tmp_path / "codes", ray="auto")
    assert (ray.asked["num_cpus"], ray.asked["num_gpus"]) == (1, 0)
    assert ray.asked["compute"]["initial_size"] == 3


def test_a_cluster_without_gpus_is_refused_for_cuda(model, photos, tmp_path, local_ray):
    local_ray({"CPU": 2.0})
    with pytest.raises(ValueError, match="the Ray cluster at auto has no GPUs"):
        encode_source(model, photos, tmp_path / "codes", ray="auto", worker_device="cuda")


def test_a_file_that_a_worker_cannot_read_is_one_line_and_other_parts_stay(model, tmp_path, local_ray):
    rows, codes = tmp_path / "rows", tmp_path / "codes"
    picture = {"bytes": b"no picture", "path": None}
    for name in ("a", "b"):
        Dataset.from_dict({"image": [picture]}, Features({"image": Image()})).to_parquet(rows / f"{name}.parquet")
    encode_source(model, f"{rows}/*.parquet", codes)
    for part in codes.glob("part-*"):
        part.unlink()
    (rows / "a.parquet").write_bytes(b"no parquet")
    local_ray({"CPU": 1.0})
    with pytest.raises(ValueError, match=r"a.parquet") as caught:
        encode_source(model, f"{rows}/*.parquet", codes, ray="auto")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 300
    assert [path.name for path in codes.glob("part-*")] == ["part-000001.parquet"]


def test_a_cluster_that_is_not_there_is_told(model, photos, tmp_path, local_ray):
    local_ray(None)
    with pytest.raises(ConnectionError, match=r"no Ray cluster at host:1 \(nobody answers\): begin one"):
        encode_source(model, photos, tmp_path / "codes", ray="host:1")


def test_a_missing_ray_is_told(model, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "dsh-hf\[ray\]"'):
        encode_source(model, photos, tmp_path / "codes", ray="auto")


@pytest.fixture
def ray_itself():
    """Ray on one core: its one worker has to start, and that takes most of the time."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    # Workers otherwise give way to every other process of a busy machine.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    try:
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        pytest.skip("Ray did not start within its half minute: this machine is too busy")
    yield
    ray.shutdown()


def test_ray_goes_on_with_what_one_process_began(model, photos, tmp_path, ray_itself):
    encode_source(model, photos, tmp_path / "whole", part_rows=2)
    shutil.copytree(tmp_path / "whole", tmp_path / "codes")
    for number in (0, 2):
        (tmp_path / f"codes/part-{number:06}.parquet").unlink()
    encode_source(model, photos, tmp_path / "codes", part_rows=2, ray="auto")
    check_equal(tmp_path / "codes", tmp_path / "whole")
