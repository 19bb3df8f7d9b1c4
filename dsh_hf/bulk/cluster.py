"""Parts encoded by the workers of a Ray cluster, an actor for each GPU or core, by Ray Data."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from dsh_hf.bulk.encoding import encode_candidates
from dsh_hf.bulk.files import as_parquet
from dsh_hf.bulk.parts import Part, parts_from_text, parts_to_text
from dsh_hf.bulk.reading import read_pictures
from dsh_hf.modeling import DSHModel

if TYPE_CHECKING:
    from ray import ObjectRef

Column = NDArray[Any]


class Encoder:
    """What an actor does: one part in, the bytes of its parquet file out.

    Args:
        model: where Ray holds it.
        device: where to compute.
        facts: what the file says of its codes.
        options: of :func:`dsh_hf.bulk.encoding.encode_candidates`.
    """

    def __init__(
        self, model: "ObjectRef[DSHModel]", device: str, facts: dict[str, Any], options: dict[str, Any]
    ) -> None:
        import ray

        self.model = ray.get(model).to(device)
        self.facts = facts
        self.options = options

    def __call__(self, rows: dict[str, Column]) -> dict[str, Any]:
        """Encode the one part in ``rows``; a file that cannot be read is told, since Ray would hide what is raised."""
        (part,) = parts_from_text(str(rows["part"][0]))
        counts = []

        def counted() -> Iterator[Any]:
            for some in encode_candidates(self.model, read_pictures(part), **self.options):
                counts.append(len(some.ids) + len(some.skipped))
                yield some

        content, fault = b"", ""
        try:
            content = as_parquet(counted(), self.facts)
        except (ValueError, OSError) as error:
            fault = " ".join(str(error).split())
        return {"number": rows["number"], "content": [content], "count": [sum(counts)], "fault": [fault]}


def encode_parts(
    address: str, device: str, model: DSHModel, parts: dict[int, Part], facts: dict[str, Any], options: dict[str, Any]
) -> Iterator[tuple[int, bytes, int]]:
    """Encode parts on a cluster, in whatever order they are done.

    Ray gives a part whose worker or machine died to another one, and holds workers back where files are not
    written as fast as they are made.

    Args:
        address: of the cluster, as ``ray.init`` takes it.
        device: where each worker computes: "cpu", on a core of its own, or "cuda", on a GPU.
        model: encodes them; sent to the workers.
        parts: by number.
        facts: what each file says of its codes.
        options: of :func:`dsh_hf.bulk.encoding.encode_candidates`.

    Yields:
        The number of a part, the bytes of its parquet file, and how many pictures it has.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster at this address.
        ValueError: a source's file cannot be read.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy, DataContext
    except ImportError as error:
        raise ImportError('encoding on many machines needs Ray: pip install "dsh-hf[ray]"') from error
    if not parts:
        return
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            told = " ".join(str(error).split())
            raise ConnectionError(f"no Ray cluster at {address} ({told}): begin one with `ray start --head`") from error
    DataContext.get_current().enable_progress_bars = False  # there is one of our own
    kind = "GPU" if device.startswith("cuda") else "CPU"
    workers = int(ray.cluster_resources().get(kind, 0))
    if not workers:
        raise ValueError(f"the Ray cluster at {address} has no {kind}s")
    sent = ray.put(model)  # held until all is done: an actor that starts anew asks for it again
    rows = [{"number": number, "part": parts_to_text([part])} for number, part in parts.items()]
    encoded = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Encoder,
        batch_size=1,
        fn_constructor_args=(sent, device, facts, options),
        # It may shrink: where a machine died, the actors that were on it get what idle ones give back.
        compute=ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
        num_cpus=int(kind == "CPU"),
        num_gpus=int(kind == "GPU"),
    )
    for row in encoded.iter_rows():
        if row["fault"]:
            raise ValueError(row["fault"])
        yield int(row["number"]), row["content"], int(row["count"])
