"""Ingest: source to content-addressed monthly partitions, and the manifest that names them."""

from __future__ import annotations

from collections.abc import Iterator

from slipway import contract
from slipway.bento import Folder
from slipway.steps.dataset import Manifest, Partition, decode, encode
from slipway.store import Store


def run(folder: Folder) -> dict[str, str]:
    """Outputs `data`, the manifest's digest. A partition that is in the store is not sent again."""
    store, partitions = Store(), list[Partition]()
    for part in parts(folder, store):
        partitions.append(part)
        print(f"{part.name}  {part.rows:>7,} rows  {part.size:>9,} bytes  {part.digest}")
    manifest = Manifest(model=folder.config.name, partitions=partitions)
    print(f"{manifest.rows:,} rows in {len(partitions)} partitions")
    return {"data": store.put_json("data", manifest.model_dump(mode="json"))}


def parts(folder: Folder, store: Store) -> Iterator[Partition]:
    """Each partition of the source, as soon as it is in the store."""
    import pyarrow as pa

    training = folder.training()
    for name, rows in contract.ingest(training):
        try:
            data = encode(rows)
        except (pa.ArrowException, TypeError) as error:
            raise contract.not_stored(training, name, error) from None
        contract.stored(training, name, rows, decode(data))
        digest = store.put("data", data)
        yield Partition(name=name, digest=digest, rows=len(rows), size=len(data))
