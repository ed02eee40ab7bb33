"""The platform's Secrets: made in the cluster, or kept outside it and brought there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.platform.component import secret_data

Values = Mapping[str, pulumi.Input[str]]
Make = Callable[[str, ObjectMetaArgs, Values, pulumi.ResourceOptions], pulumi.Resource]


def keep(
    name: str, metadata: ObjectMetaArgs, values: Values, opts: pulumi.ResourceOptions
) -> pulumi.Resource:
    """A Secret of this name; whoever reads it waits for what is returned.

    Args:
        name: the resource's, unique in the stack.
        values: key to text; what is no output stands in the program, and is nobody's secret.
    """
    open_to_all = not any(isinstance(value, pulumi.Output) for value in values.values())
    make = in_cluster if open_to_all else _make.get()
    return make(name, metadata, values, opts)


def in_cluster(
    name: str, metadata: ObjectMetaArgs, values: Values, opts: pulumi.ResourceOptions
) -> pulumi.Resource:
    """Made by Pulumi itself."""
    # None, where others write it: what is in it is theirs.
    data = secret_data(values) or None
    return k8s.core.v1.Secret(name, metadata=metadata, data=data, opts=opts)


_make: ContextVar[Make] = ContextVar("_make", default=in_cluster)


@contextmanager
def made_by(make: Make | None) -> Generator[None]:
    """Every Secret that is asked for inside is made so; None: in the cluster."""
    token = _make.set(make or in_cluster)
    try:
        yield
    finally:
        _make.reset(token)
