"""Ingest: source to content-addressed monthly partitions, and the manifest that names them."""

from __future__ import annotations

from slipway.bento import Folder
from slipway.errors import SlipwayError
from slipway.steps.dataset import Manifest, Partition, encode
from slipway.store import Store


def run(folder: Folder) -> dict[str, str]:
    """Outputs `data`, the manifest's digest. A partition that is in the store is not sent again."""
    store = Store()
    partitions: list[Partition] = []
    for name, rows in folder.training().ingest():
        data = encode(rows)
        digest = store.put("data", data)
        partitions.append(Partition(name=name, digest=digest, rows=len(rows), size=len(data)))
        print(f"{name}  {len(rows):>7,} rows  {len(data):>9,} bytes  {digest}")
    names = [partition.name for partition in partitions]
    if not names or names != sorted(set(names)):
        raise SlipwayError(
            f"{folder.path / 'training.py'}: ingest: partitions {names}",
            fix="yield at least one, each name once, in the order of the names",
        )
    manifest = Manifest(model=folder.config.name, partitions=partitions)
    print(f"{manifest.rows:,} rows in {len(partitions)} partitions")
    return {"data": store.put_json("data", manifest.model_dump(mode="json"))}
