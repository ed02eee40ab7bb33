"""The default storage class of the embedded cluster: a folder of the node for each volume."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s
import yaml
from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.platform import pods
from infra.platform.component import Component, Resources
from infra.platform.rights import READ, Rule, cluster_rights, rights_in

NAME = "local-path"
WRITE = ["create", "patch", "update", "delete"]
RULES: list[Rule] = [
    ("", ["nodes", "persistentvolumeclaims", "configmaps", "pods", "pods/log"], READ),
    ("", ["persistentvolumes"], READ + WRITE),
    ("", ["events"], ["create", "patch"]),
    ("storage.k8s.io", ["storageclasses"], READ),
]
HELPER_RULES: list[Rule] = [("", ["pods"], READ + WRITE)]


@dataclass(frozen=True)
class StorageClassArgs:
    namespace: pulumi.Input[str]
    image: pulumi.Input[str]
    helper_image: pulumi.Input[str]
    path: str
    """Folder on the node under which each volume gets its own."""
    resources: Resources


class StorageClass(Component):
    """local-path-provisioner, with the default class `local-path`.

    Volumes go with their claims (Delete): stopping the cluster keeps both, `pulumi destroy`
    removes both.
    """

    def __init__(
        self, name: str, args: StorageClassArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("StorageClass", name, opts)
        where = pods.metadata(NAME, args.namespace)
        rights = [
            *cluster_rights(NAME, args.namespace, RULES, self.child()),
            *rights_in(NAME, args.namespace, HELPER_RULES, args.namespace, self.child()),
        ]
        config = k8s.core.v1.ConfigMap(
            NAME,
            metadata=where,
            data={
                "config.json": json.dumps(
                    {
                        "nodePathMap": [
                            {"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [args.path]}
                        ]
                    }
                ),
                # The pods that use a volume run as different users, none of them root.
                "setup": '#!/bin/sh\nset -eu\nmkdir -m 0777 -p "$VOL_DIR"\n',
                "teardown": '#!/bin/sh\nset -eu\nrm -rf "$VOL_DIR"\n',
                "helperPod.yaml": pulumi.Output.from_input(args.helper_image).apply(_helper_pod),
            },
            opts=self.child(),
        )
        provisioner = pods.deployment(
            NAME,
            args.namespace,
            pods.template(
                NAME,
                [
                    pods.container(
                        NAME,
                        args.image,
                        args.resources,
                        command=["local-path-provisioner"],
                        args=[
                            "start",
                            "--config=/etc/local-path/config.json",
                            f"--configmap-name={NAME}",
                            f"--service-account-name={NAME}",
                        ],
                        env={
                            "POD_NAMESPACE": pods.OWN_NAMESPACE,
                            "CONFIG_MOUNT_PATH": "/etc/local-path/",
                        },
                        mounts={"/etc/local-path/": "config"},
                    )
                ],
                volumes=[pods.volume("config", config_map=NAME)],
                service_account=NAME,
            ),
            self.child(config, *rights),
            # Every namespace comes after it; who has a volume waits for that.
            wait=False,
        )
        k8s.storage.v1.StorageClass(
            NAME,
            metadata=ObjectMetaArgs(
                name=NAME, annotations={"storageclass.kubernetes.io/is-default-class": "true"}
            ),
            provisioner="rancher.io/local-path",
            volume_binding_mode="WaitForFirstConsumer",
            reclaim_policy="Delete",
            opts=self.child(provisioner),
        )
        self.register_outputs({"storage_class": NAME})


def _helper_pod(image: str) -> str:
    """The short-lived pod that makes or removes a folder: root, for it writes the node's disk."""
    resources = {"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "helper-pod"},
            "spec": {
                "automountServiceAccountToken": False,
                "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
                "containers": [
                    {
                        "name": "helper-pod",
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "resources": resources,
                    }
                ],
            },
        }
    )
