"""A source's pictures become a folder of codes: here, or on every machine of a Ray cluster."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from dsh_hf.bulk import PART_ROWS
from dsh_hf.bulk.encoding import Encoded, encode_candidates
from dsh_hf.bulk.files import as_parquet, begin, finish, part_file
from dsh_hf.bulk.parts import Part, cut_source
from dsh_hf.bulk.reading import read_pictures
from dsh_hf.files import write_atomically
from dsh_hf.modeling import DSHModel

Tick = Callable[[int], object]  # told how many pictures more are done


def encode_source(
    model: DSHModel,
    source: str,
    out: str | Path,
    *,
    sketches: bool = False,
    part_rows: int = PART_ROWS,
    batch_size: int = 32,
    ray: str | None = None,
    worker_device: str = "cpu",
    show_progress_bar: bool = False,
) -> dict[str, Any]:
    """Encode all pictures of a source into parquet files of (id, code, source).

    Pictures that cannot be used are named in the manifest, ``codes.json``, under ``skipped``. A run that was cut
    short goes on where it stopped when it is called again: parts that are there are not made again, and the result
    is the same. Which pictures there are is found out once, at the first call.

    Args:
        model: encodes them, on the device that it is on.
        source: a folder, a data set or an address, see :func:`dsh_hf.bulk.parts.cut_source`.
        out: the folder of the codes, here.
        sketches: the pictures are free-hand drawings, not photographs.
        part_rows: pictures of a part, each of which becomes one file: what a kill costs, and what one worker does.
        batch_size: pictures that go through the networks at once.
        ray: the address of a Ray cluster, or "auto"; its machines need this package, and ``source`` in the same place.
        worker_device: of a cluster: "cpu" for a worker on each core, "cuda" for one on each GPU.
        show_progress_bar: whether to show one.

    Returns:
        The manifest: ``codes`` (how many), ``skipped``, ``parts``, ``bits``, ``fingerprint``, ...

    Raises:
        FileNotFoundError: there is no such source.
        CodesError: ``out`` holds codes of another source, model, length or kind.
        ImportError: a package is missing.
    """
    if part_rows < 1:
        raise ValueError(f"part_rows must be at least 1, got {part_rows}")
    folder = Path(out)
    facts = {"fingerprint": model.fingerprint, "bits": model.config.bits, "kind": "sketches" if sketches else "images"}
    place = Path(source).expanduser()
    facts |= {"source": str(place.resolve()) if place.exists() else source, "part_rows": part_rows}
    parts = begin(folder, facts, cut_source(source, part_rows))
    todo = {number: part for number, part in enumerate(parts) if not part_file(folder, number).is_file()}
    made_by = partial(_encode_here, model) if ray is None else partial(_encode_on_cluster, model, ray, worker_device)
    counts = [part.pictures for part in parts]
    total = None if None in counts else sum(filter(None, counts))
    with tqdm(total=total, desc="encode", unit="picture", disable=not show_progress_bar) as bar:
        bar.update(sum(counts[number] or 0 for number in range(len(parts)) if number not in todo))
        options: dict[str, Any] = {"sketches": sketches, "batch_size": batch_size}
        for number, content in made_by(todo, facts, options, bar.update):
            write_atomically(part_file(folder, number), content)
    return finish(folder, facts, len(parts))


def _encode_here(
    model: DSHModel, todo: dict[int, Part], facts: dict[str, Any], options: dict[str, Any], tick: Tick
) -> Iterator[tuple[int, bytes]]:
    def ticking(encoded: Iterator[Encoded]) -> Iterator[Encoded]:
        for some in encoded:
            yield some
            tick(len(some.ids) + len(some.skipped))

    for number, part in todo.items():
        yield number, as_parquet(ticking(encode_candidates(model, read_pictures(part), **options)), facts)


def _encode_on_cluster(
    model: DSHModel,
    address: str,
    device: str,
    todo: dict[int, Part],
    facts: dict[str, Any],
    options: dict[str, Any],
    tick: Tick,
) -> Iterator[tuple[int, bytes]]:
    from dsh_hf.bulk.cluster import encode_parts

    for number, content, count in encode_parts(address, device, model, todo, facts, options):
        yield number, content
        tick(count)
