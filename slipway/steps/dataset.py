"""Datasets in the store: a manifest that names partitions by digest; its digest names the data."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError

from slipway.digests import Digest
from slipway.errors import BadInput, from_validation
from slipway.release import ModelName, Strict
from slipway.store import Corrupt, Missing, Store, uri

if TYPE_CHECKING:
    import pandas as pd


class Partition(Strict):
    """One Parquet object."""

    name: str
    digest: Digest
    rows: Annotated[int, Field(gt=0)]
    size: Annotated[int, Field(gt=0)]


class Manifest(Strict):
    """The dataset; partitions in the order of their names."""

    schema_version: Literal[1] = 1
    model: ModelName
    partitions: Annotated[list[Partition], Field(min_length=1)]

    @property
    def rows(self) -> int:
        """Rows in all partitions."""
        return sum(partition.rows for partition in self.partitions)


def encode(rows: pd.DataFrame) -> bytes:
    """Parquet; equal tables give equal bytes (with the pinned pyarrow)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # pandas' own metadata holds its version and index details, which are not content.
    table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")  # pyright: ignore[reportUnknownMemberType]
    return sink.getvalue()


def decode(data: bytes) -> pd.DataFrame:
    """The table that `encode` was given."""
    import pandas as pd

    rows = pd.read_parquet(io.BytesIO(data))
    # Parquet has no seconds: times come back finer than they went in.
    times = rows.select_dtypes("datetime").columns
    return rows.astype(dict.fromkeys(times, "datetime64[s]"))


def manifest(store: Store, digest: Digest) -> Manifest:
    """The verified manifest."""
    try:
        return Manifest.model_validate_json(store.get("data", digest))
    except ValidationError as error:
        raise from_validation(error, Manifest, uri("data", digest)) from None


def read(store: Store, document: Manifest, names: list[str]) -> pd.DataFrame:
    """The rows of the named partitions, verified, in the order of `names`."""
    import pandas as pd

    known = {partition.name: partition for partition in document.partitions}
    if missing := [name for name in names if name not in known]:
        raise BadInput(
            f"no partition {', '.join(missing)} in the dataset",
            file=f"bentos/{document.model}/model.yaml",
            field="split",
            fix=f"partitions are {', '.join(known)}",
        )
    tables = [decode(_get(store, document.model, known[name])) for name in names]
    return pd.concat(tables, ignore_index=True)


def _get(store: Store, model: str, partition: Partition) -> bytes:
    try:
        return store.get("data", partition.digest)
    except (Missing, Corrupt) as error:
        raise type(error)(
            f"{model}, partition {partition.name}: {str(error).splitlines()[0]}",
            fix=f"`slipway train {model}`, whose ingest writes it anew; where that ends here too, "
            "have the object deleted and train once more",
        ) from None
