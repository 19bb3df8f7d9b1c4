"""Fuzzing led by coverage: atheris, where it is installed, looks for files that reach new lines of the readers."""

import multiprocessing
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks._fuzz_targets import Target


def run_atheris(targets: Sequence[Target], minutes: float, out: Path) -> int:
    """Fuzz targets one after the other; libFuzzer prints what it does. Give 1 if anything was found.

    Raises:
        ImportError: atheris is not installed.
    """
    try:
        import atheris  # noqa: F401
    except ImportError as error:
        raise ImportError("--engine atheris needs atheris: pip install atheris") from error
    out.mkdir(parents=True, exist_ok=True)
    found = False
    for target in targets:
        seconds = max(1, int(60 * minutes / len(targets)))
        child = multiprocessing.get_context("spawn").Process(target=_work, args=(target.name, seconds, out))
        child.start()
        child.join()
        found = found or bool(child.exitcode)
    return int(found)


def _work(name: str, seconds: int, out: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=["dsh_hf"]):
        import dsh_hf.caffe
        import dsh_hf.checkpoint
        import dsh_hf.data.quickdraw
        import dsh_hf.data.splits
        import dsh_hf.data.words
        import dsh_hf.gallery.store
        import dsh_hf.index.exact  # noqa: F401
    from benchmarks._fuzz_targets import TARGETS

    target = next(target for target in TARGETS if target.name == name)
    folder = Path(tempfile.mkdtemp())
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(content)
    path = folder / target.name

    def test_one(content: bytes) -> None:
        path.write_bytes(target.mend(content) if target.mend else content)
        try:
            target.read(path)
        except (ValueError, OSError) as error:
            assert path.name in str(error), error

    limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=3000", f"-artifact_prefix={out}/{name}-"]
    atheris.Setup([name, *limits, str(corpus)], test_one)
    atheris.Fuzz()
