"""Pods as the restricted Pod Security Standard wants them, and the objects around them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s
from pulumi_kubernetes.apps.v1 import DeploymentStrategyArgs
from pulumi_kubernetes.core.v1 import (
    CapabilitiesArgs,
    ConfigMapVolumeSourceArgs,
    ContainerArgs,
    ContainerPortArgs,
    EmptyDirVolumeSourceArgs,
    EnvVarArgs,
    EnvVarSourceArgs,
    HTTPGetActionArgs,
    ObjectFieldSelectorArgs,
    PersistentVolumeClaimArgs,
    PersistentVolumeClaimSpecArgs,
    PersistentVolumeClaimVolumeSourceArgs,
    PodSecurityContextArgs,
    PodSpecArgs,
    PodTemplateSpecArgs,
    ProbeArgs,
    ResourceRequirementsArgs,
    SeccompProfileArgs,
    SecretKeySelectorArgs,
    SecretVolumeSourceArgs,
    SecurityContextArgs,
    ServicePortArgs,
    ServiceSpecArgs,
    VolumeArgs,
    VolumeMountArgs,
    VolumeResourceRequirementsArgs,
)
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs, ObjectMetaArgs

from infra.platform.component import NO_WAIT, Resources

# The user of Slipway's images; the official ones accept any.
USER = 10001
NAME = "app.kubernetes.io/name"
SCRIPTS = Path(__file__).parent / "scripts"
SECRETS = "/run/secrets"
OWN_NAMESPACE = EnvVarSourceArgs(field_ref=ObjectFieldSelectorArgs(field_path="metadata.namespace"))
SETUP = Resources(cpu="10m", memory="64Mi", limit="256Mi")


def labels(name: str) -> dict[str, str]:
    """The label by which services, network policies and people find a component's pods."""
    return {NAME: name, "app.kubernetes.io/part-of": "slipway"}


def metadata(
    name: str, namespace: pulumi.Input[str], **annotations: pulumi.Input[str]
) -> ObjectMetaArgs:
    """Fixed name: others refer to these objects by it."""
    return ObjectMetaArgs(
        name=name, namespace=namespace, labels=labels(name), annotations=annotations or None
    )


def from_secret(secret: str, key: str) -> EnvVarSourceArgs:
    """The value of an environment variable that a Secret holds."""
    return EnvVarSourceArgs(secret_key_ref=SecretKeySelectorArgs(name=secret, key=key))


def environment(
    values: Mapping[str, pulumi.Input[str] | EnvVarSourceArgs],
) -> list[EnvVarArgs]:
    """Environment variables. One that names another as $(NAME) must come after it."""
    return [
        EnvVarArgs(name=name, value_from=value)
        if isinstance(value, EnvVarSourceArgs)
        else EnvVarArgs(name=name, value=value)
        for name, value in values.items()
    ]


def volume(
    name: str,
    *,
    secret: str | None = None,
    config_map: str | None = None,
    claim: str | None = None,
) -> VolumeArgs:
    """A volume of what is named, or an empty one."""
    if secret:
        return VolumeArgs(name=name, secret=SecretVolumeSourceArgs(secret_name=secret))
    if config_map:
        return VolumeArgs(name=name, config_map=ConfigMapVolumeSourceArgs(name=config_map))
    if claim:
        source = PersistentVolumeClaimVolumeSourceArgs(claim_name=claim)
        return VolumeArgs(name=name, persistent_volume_claim=source)
    return VolumeArgs(name=name, empty_dir=EmptyDirVolumeSourceArgs())


def http_probe(
    path: str, port: int, *, period: int = 10, failures: int = 3, timeout: int = 3
) -> ProbeArgs:
    return ProbeArgs(
        http_get=HTTPGetActionArgs(path=path, port=port),
        period_seconds=period,
        failure_threshold=failures,
        timeout_seconds=timeout,
    )


def container(
    name: str,
    image: pulumi.Input[str],
    resources: Resources,
    *,
    command: Sequence[pulumi.Input[str]] | None = None,
    args: Sequence[pulumi.Input[str]] | None = None,
    env: Mapping[str, pulumi.Input[str] | EnvVarSourceArgs] | None = None,
    port: int | None = None,
    mounts: Mapping[str, str] | None = None,
    startup: ProbeArgs | None = None,
    readiness: ProbeArgs | None = None,
    liveness: ProbeArgs | None = None,
) -> ContainerArgs:
    """A container without privileges whose file system is read-only but for its volumes.

    Args:
        mounts: path in the container to name of the volume; a path under /etc, /run or /scripts
            is mounted read-only.
    """
    return ContainerArgs(
        name=name,
        image=image,
        image_pull_policy="IfNotPresent",
        command=list(command) if command else None,
        args=list(args) if args else None,
        env=environment(env or {}),
        ports=[ContainerPortArgs(container_port=port)] if port else None,
        volume_mounts=[
            VolumeMountArgs(
                name=volume,
                mount_path=path,
                read_only=path.startswith(("/etc/", SECRETS, "/scripts")) or None,
            )
            for path, volume in {"/tmp": "tmp", **(mounts or {})}.items()  # noqa: S108
        ],
        startup_probe=startup,
        readiness_probe=readiness,
        liveness_probe=liveness,
        # No CPU limit: it slows without protecting. Memory cannot be taken back, so it has one.
        resources=ResourceRequirementsArgs(
            requests={"cpu": resources.cpu, "memory": resources.memory},
            limits={"memory": resources.limit},
        ),
        security_context=SecurityContextArgs(
            allow_privilege_escalation=False,
            capabilities=CapabilitiesArgs(drop=["ALL"]),
            read_only_root_filesystem=True,
            run_as_non_root=True,
        ),
    )


def template(
    name: str,
    containers: Sequence[ContainerArgs],
    *,
    volumes: Sequence[VolumeArgs] = (),
    init: Sequence[ContainerArgs] = (),
    service_account: str | None = None,
    grace_seconds: int = 30,
    restart: str | None = None,
    user: int = USER,
    annotations: dict[str, pulumi.Input[str]] | None = None,
    node_selector: Mapping[str, str] | None = None,
    priority_class: str | None = None,
) -> PodTemplateSpecArgs:
    """A restricted pod. It gets an API token only where it names a service account."""
    return PodTemplateSpecArgs(
        metadata=ObjectMetaArgs(labels=labels(name), annotations=annotations),
        spec=PodSpecArgs(
            init_containers=list(init) or None,
            containers=list(containers),
            volumes=[volume("tmp"), *volumes],
            service_account_name=service_account,
            automount_service_account_token=service_account is not None,
            enable_service_links=False,
            restart_policy=restart,
            node_selector=node_selector,
            priority_class_name=priority_class,
            termination_grace_period_seconds=grace_seconds,
            security_context=PodSecurityContextArgs(
                run_as_non_root=True,
                run_as_user=user,
                run_as_group=user,
                fs_group=user,
                fs_group_change_policy="OnRootMismatch",
                seccomp_profile=SeccompProfileArgs(type="RuntimeDefault"),
            ),
        ),
    )


def deployment(
    name: str,
    namespace: pulumi.Input[str],
    pod: PodTemplateSpecArgs,
    opts: pulumi.ResourceOptions,
    *,
    recreate: bool = False,
    settle_seconds: int | None = None,
    wait: bool = True,
) -> k8s.apps.v1.Deployment:
    """One replica.

    Args:
        recreate: two at once would fight over a volume, or over memory.
        settle_seconds: how long a pod must have been ready to count.
        wait: until it is available; else whoever needs it waits for what it does.
    """
    return k8s.apps.v1.Deployment(
        name,
        metadata=metadata(name, namespace, **({} if wait else NO_WAIT)),
        spec=k8s.apps.v1.DeploymentSpecArgs(
            replicas=1,
            revision_history_limit=2,
            min_ready_seconds=settle_seconds,
            strategy=DeploymentStrategyArgs(type="Recreate") if recreate else None,
            selector=LabelSelectorArgs(match_labels={NAME: name}),
            template=pod,
        ),
        opts=opts,
    )


def stateful_set(
    name: str,
    namespace: pulumi.Input[str],
    pod: PodTemplateSpecArgs,
    storage: pulumi.Input[str],
    opts: pulumi.ResourceOptions,
) -> k8s.apps.v1.StatefulSet:
    """One replica, with a volume `data` of its own that outlives it."""
    return k8s.apps.v1.StatefulSet(
        name,
        metadata=metadata(name, namespace),
        spec=k8s.apps.v1.StatefulSetSpecArgs(
            replicas=1,
            service_name=name,
            selector=LabelSelectorArgs(match_labels={NAME: name}),
            template=pod,
            volume_claim_templates=[claim(storage)],
        ),
        opts=opts,
    )


def claim(storage: pulumi.Input[str]) -> PersistentVolumeClaimArgs:
    """A volume `data` of the default storage class."""
    return PersistentVolumeClaimArgs(
        metadata=ObjectMetaArgs(name="data"),
        spec=PersistentVolumeClaimSpecArgs(
            access_modes=["ReadWriteOnce"],
            resources=VolumeResourceRequirementsArgs(requests={"storage": storage}),
        ),
    )


def service(
    name: str,
    namespace: pulumi.Input[str],
    port: int,
    opts: pulumi.ResourceOptions,
    *,
    node_port: int | None = None,
) -> k8s.core.v1.Service:
    """A service on the port that its pods listen on."""
    return k8s.core.v1.Service(
        name,
        metadata=metadata(name, namespace, **NO_WAIT),
        spec=ServiceSpecArgs(
            type="NodePort" if node_port else "ClusterIP",
            selector={NAME: name},
            ports=[ServicePortArgs(name="main", port=port, target_port=port, node_port=node_port)],
        ),
        opts=opts,
    )


@dataclass(frozen=True)
class Setup:
    """A script that brings a service's content into the described state, whenever it changes."""

    name: str
    namespace: pulumi.Input[str]
    image: pulumi.Input[str]
    script: str
    command: Sequence[str]
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    env: Mapping[str, pulumi.Input[str] | EnvVarSourceArgs] = field(
        default_factory=dict[str, "pulumi.Input[str] | EnvVarSourceArgs"]
    )
    secret: str | None = None
    init: Sequence[ContainerArgs] = ()
    volumes: Sequence[VolumeArgs] = ()


def setup_job(
    setup: Setup, opts: pulumi.ResourceOptions, script_opts: pulumi.ResourceOptions
) -> k8s.batch.v1.Job:
    """A Job that runs `setup.script` with /scripts/settings.json and its secrets in /run/secrets.

    The script must be idempotent: it runs again when script, settings or image change.
    """
    files = {
        setup.script: (SCRIPTS / setup.script).read_text(),
        "settings.json": json.dumps(setup.settings, indent=1, sort_keys=True),
    }
    config = k8s.core.v1.ConfigMap(
        setup.name, metadata=metadata(setup.name, setup.namespace), data=files, opts=script_opts
    )
    mounts = {"/scripts": "scripts"}
    volumes = [
        volume("scripts", config_map=setup.name),
        *setup.volumes,
    ]
    if setup.secret:
        mounts[SECRETS] = "secrets"
        volumes.append(volume("secrets", secret=setup.secret))
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return k8s.batch.v1.Job(
        setup.name,
        metadata=metadata(setup.name, setup.namespace),
        spec=k8s.batch.v1.JobSpecArgs(
            backoff_limit=6,
            active_deadline_seconds=600,
            template=template(
                setup.name,
                [
                    container(
                        setup.name,
                        setup.image,
                        SETUP,
                        command=[*setup.command, f"/scripts/{setup.script}"],
                        env=setup.env,
                        mounts=mounts,
                    )
                ],
                init=setup.init,
                volumes=volumes,
                restart="OnFailure",
                # A Job cannot be changed: another digest here makes Pulumi run a new one.
                annotations={"slipway/settings": digest},
            ),
        ),
        opts=pulumi.ResourceOptions.merge(
            opts, pulumi.ResourceOptions(depends_on=[config], delete_before_replace=True)
        ),
    )
