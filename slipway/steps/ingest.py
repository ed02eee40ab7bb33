"""Ingest: source to content-addressed monthly partitions, and the manifest that names them."""

from __future__ import annotations

from slipway import contract
from slipway.bento import Folder
from slipway.steps.dataset import Manifest, Partition, decode, encode
from slipway.store import Store


def run(folder: Folder) -> dict[str, str]:
    """Outputs `data`, the manifest's digest. A partition that is in the store is not sent again."""
    import pyarrow as pa

    store, training = Store(), folder.training()
    partitions: list[Partition] = []
    for name, rows in contract.ingest(training):
        try:
            data = encode(rows)
        except (pa.ArrowException, TypeError) as error:
            raise contract.not_stored(training, name, error) from None
        contract.stored(training, name, rows, decode(data))
        digest = store.put("data", data)
        partitions.append(Partition(name=name, digest=digest, rows=len(rows), size=len(data)))
        print(f"{name}  {len(rows):>7,} rows  {len(data):>9,} bytes  {digest}")
    manifest = Manifest(model=folder.config.name, partitions=partitions)
    print(f"{manifest.rows:,} rows in {len(partitions)} partitions")
    return {"data": store.put_json("data", manifest.model_dump(mode="json"))}
