"""What holds for all tests: whose caches and threads are used, and how two processes share the tests."""

import os
import tempfile

import pytest

# Both are read when a library is first imported, so they have to be said before any test module is.
_CACHE = tempfile.TemporaryDirectory(prefix="dsh-hf-tests-")
os.environ["HF_DATASETS_CACHE"] = _CACHE.name  # nothing is left in the person's own
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks are so small that threads mostly wait for each other


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep a file's tests in one process, and all that ask Milvus in one: a machine can have one server."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFileAndServer(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "milvus" if "milvus" in nodeid else nodeid.partition("::")[0]

    return ByFileAndServer(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Make what a test wrote sendable: names of files that are no UTF-8 would stop pytest-xdist."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report
