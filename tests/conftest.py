"""What holds for all tests: nothing is left in the person's own caches, and reports can be sent between processes."""

import os
import tempfile

import pytest

# Read when the library is first imported, so it has to be said before any test module is.
_CACHE = tempfile.TemporaryDirectory(prefix="dsh-hf-tests-")
os.environ["HF_DATASETS_CACHE"] = _CACHE.name

_SERVER_TESTS = {"test_benchmarks", "test_gallery_files", "test_index", "test_index_milvus"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Make what a test wrote sendable: names of files that are no UTF-8 would stop pytest-xdist."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


def pytest_collection_modifyitems(items):
    """Keep a file's tests in one process, and those of files that start the same server, whose ports are fixed."""
    for item in items:
        name = item.path.stem
        item.add_marker(pytest.mark.xdist_group("servers" if name in _SERVER_TESTS else name))
