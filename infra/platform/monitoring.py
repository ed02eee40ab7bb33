"""Monitoring: what a Prometheus that is there collects of the platform, and tells somebody of.

Its operator's kinds have to be known to the cluster: a stack that asks for this without them fails,
by the name of the kind that is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import yaml

from infra.platform import upstream
from infra.platform.component import Component

VERSION = "monitoring.coreos.com/v1"
ALERTS = Path(__file__).with_name("alerts.yaml")
EVERY = "30s"


@dataclass(frozen=True)
class MonitoringArgs:
    environments: Mapping[str, pulumi.Input[str]]
    """Environment to the namespace of its models."""
    argo_cd: pulumi.Input[str]
    argo: pulumi.Input[str]
    """Namespaces of what runs there."""
    labels: Mapping[str, str]
    """By which that Prometheus knows what is for it."""


class Monitoring(Component):
    """A PodMonitor for each environment's models, monitors of both Argos, and the alerts."""

    def __init__(
        self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("Monitoring", name, opts)
        self._labels = dict(args.labels)
        for environment, namespace in args.environments.items():
            models = {
                "selector": {"matchLabels": {"app.kubernetes.io/component": "model"}},
                "podTargetLabels": ["slipway.dev/model"],
                "podMetricsEndpoints": [{"port": "http", "path": "/metrics", "interval": EVERY}],
            }
            self._register(f"{environment}-models", "PodMonitor", "models", namespace, models)
        argo_cd = {
            "selector": {"matchLabels": {"app.kubernetes.io/name": "argocd-metrics"}},
            "endpoints": [{"port": "metrics", "interval": EVERY}],
        }
        self._register("argo-cd", "ServiceMonitor", "argo-cd", args.argo_cd, argo_cd)
        # Its certificate is its own, made at each start.
        own = {"scheme": "https", "tlsConfig": {"insecureSkipVerify": True}}
        argo = {
            "selector": {"matchLabels": {"app": "workflow-controller"}},
            "podMetricsEndpoints": [{"port": "metrics", "interval": EVERY, **own}],
        }
        self._register("argo", "PodMonitor", "workflow-controller", args.argo, argo)
        groups = yaml.safe_load(ALERTS.read_text())
        self._register("alerts", "PrometheusRule", "slipway", args.argo_cd, {"groups": groups})
        self.register_outputs({})

    def _register(
        self,
        prefix: str,
        kind: str,
        name: str,
        namespace: pulumi.Input[str],
        spec: Mapping[str, Any],
    ) -> None:
        metadata = {"name": name, "namespace": namespace, "labels": self._labels}
        manifest = {"apiVersion": VERSION, "kind": kind, "metadata": metadata, "spec": spec}
        upstream.register(prefix, manifest, self.child())
