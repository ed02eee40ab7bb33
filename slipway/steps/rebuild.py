"""Rebuild: train and package anew from the data, whatever was made before, to compare digests.

It asks MLflow nothing and registers nothing: what it makes is not another version.
"""

from __future__ import annotations

from slipway.bento import Folder
from slipway.digests import Digest
from slipway.steps import dataset, package, train
from slipway.store import Store


def run(folder: Folder, data: Digest) -> dict[str, str]:
    """Outputs `code`, `model-digest` and `bento`: digests, the latter two in bucket bentos."""
    objects, config, training = Store(), folder.config, folder.training()
    manifest = dataset.manifest(objects, data)
    x, y = train.examples(training, config, objects, manifest)
    _, files = train.fitted(training, config, x, y)
    return {
        "code": folder.code(),
        "model-digest": objects.put_files("bentos", files),
        "bento": objects.put("bentos", package.build(folder, files)),
    }
