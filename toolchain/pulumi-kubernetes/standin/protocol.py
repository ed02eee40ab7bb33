"""Pulumi's gRPC protocol, out of the SDK.

The SDK's own packages take three times as long to import as the protocol does, and the engine
starts this program several times an update. So empty packages stand in for the two on the way.
"""

from __future__ import annotations

import importlib.util
import sys
from contextlib import suppress
from types import ModuleType


def _package(name: str, folder: str) -> None:
    if name not in sys.modules:
        module = ModuleType(name)
        module.__path__ = [folder]
        sys.modules[name] = module


_spec = importlib.util.find_spec("pulumi")
if _spec is None or not _spec.submodule_search_locations:
    raise ImportError("the Pulumi SDK is not installed in this environment")
_root = _spec.submodule_search_locations[0]
_package("pulumi", _root)
_package("pulumi.runtime", f"{_root}/runtime")

from pulumi.runtime.proto import (  # noqa: E402
    engine_pb2,
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)

# A deep object, such as a large CRD, is deeper than protobuf reads unless told so.
with suppress(ImportError):
    from google._upb._message import (  # pyright: ignore[reportMissingModuleSource]
        SetAllowOversizeProtos,
    )

    SetAllowOversizeProtos(True)

__all__ = [
    "engine_pb2",
    "engine_pb2_grpc",
    "plugin_pb2",
    "provider_pb2",
    "provider_pb2_grpc",
    "status_pb2",
]
