"""Pools of GPU nodes: bounded in number, time and money, and for those who ask for a GPU alone."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from infra.aws import families
from policies.infrastructure.limits import Limits
from policies.infrastructure.resources import UNKNOWN, Resource, Stack, at, each, texts
from policies.infrastructure.rule import Rule, StackRule
from policies.infrastructure.rules.instance_types import FAMILY, TYPE, requirements

GPU = "nvidia.com/gpu"
# What nodes of a pool are known by, on the bill too.
POOL = "slipway/pool"
# Whose nodes are simulated.
SIMULATED = "KWOKNodeClass"
# GPUs of a machine that nobody knows.
MOST = 8
# Families of AWS with NVIDIA's GPUs: g4dn, g5, g6e, gr6, p3, p4d, p5, p5en, p6-b200.
_FAMILY = re.compile(r"^(g\d+|gr\d+|p\d+)[a-z]*(-[a-z0-9]+)?$")
_UNITS = {"h": 60, "m": 1, "s": 1 / 60}


def gpu_pools_tainted(resource: Resource, limits: Limits) -> Iterator[str]:
    """Only pods that request a GPU run on GPU nodes."""
    if is_pool(resource):
        taints = resource.get("spec", "template", "spec", "taints")
        effects = ("NoSchedule", "NoExecute")
    elif is_group(resource):
        taints, effects = resource.get("taints"), ("NO_SCHEDULE", "NO_EXECUTE")
    else:
        return
    if taints is UNKNOWN:
        return
    if not [t for t in each(taints) if at(t, "key") == GPU and at(t, "effect") in effects]:
        yield f"a taint {GPU} with effect {effects[0]} is missing"


def gpu_pools_limited(stack: Stack, limits: Limits) -> Iterator[tuple[Resource, str]]:
    """A pool has a largest number of GPUs, within the environment's."""
    most = limits.gpu_pools.maximum_gpus
    # A pool's nodes that always are there are a NodePool of their own.
    together = defaultdict[str, float](float)
    for resource in stack.resources:
        if not (is_pool(resource) or is_group(resource)):
            continue
        where, asked, gpus = _bound(resource)
        if asked is UNKNOWN:
            continue
        if asked is None:
            yield resource, f"{where} is missing"
            continue
        label = resource.get("spec", "template", "metadata", "labels", POOL)
        name = label if isinstance(label, str) else resource.name
        together[name] += gpus
        if not 0 <= together[name] <= most:
            pool = f"with {asked} the pool has {together[name]:g} GPUs"
            yield resource, f"{where}: {pool}, not within 0 and {most}"


def _bound(resource: Resource) -> tuple[str, Any, float]:
    """What bounds the GPUs of a pool or group: where it stands, its value, and GPUs at most."""
    machines = _machines(resource)
    each_has = max((machine.gpus for machine in machines), default=MOST)
    if is_group(resource):
        nodes = resource.get("scalingConfig", "maxSize")
        return "scalingConfig.maxSize", nodes, _number(nodes) * each_has
    asked = {name: resource.get("spec", "limits", name) for name in ("nodes", "cpu", GPU)}
    if resource.get("spec", "replicas") is not None:
        # A pool of so many nodes and no others is limited by them.
        return "spec.limits.nodes", asked["nodes"], _number(asked["nodes"]) * each_has
    # Where GPUs are shared, Karpenter cannot count them.
    if asked[GPU] is None and asked["cpu"] is not None and machines:
        cores = _number(asked["cpu"])
        return "spec.limits.cpu", asked["cpu"], max(cores // m.vcpus * m.gpus for m in machines)
    return f"spec.limits.{GPU}", asked[GPU], _number(asked[GPU])


def _machines(resource: Resource) -> list[families.Size]:
    """The machines with GPUs that a pool or group may have, as far as they are known."""
    names = [str(name) for name in each(resource.get("instanceTypes"))]
    for requirement in requirements(resource):
        if at(requirement, "operator") == "In" and at(requirement, "key") in (TYPE, FAMILY):
            names += [str(value) for value in each(at(requirement, "values"))]
    every = families.sizes(list(families.catalogue().families))
    return [size for name, size in every.items() if {name, name.partition(".")[0]} & {*names}]


def gpu_pools_short_lived(resource: Resource, limits: Limits) -> Iterator[str]:
    """A GPU node is removed soon after it becomes idle, and eventually in any case."""
    if not is_pool(resource):
        return
    minutes = limits.gpu_pools.maximum_node_hours * 60
    yield from _within(resource, minutes, "spec", "template", "spec", "expireAfter")
    if resource.get("spec", "replicas") is not None:
        return  # always there, by its own words
    disruption = resource.get("spec", "disruption")
    policy = at(disruption, "consolidationPolicy")
    if policy not in ("WhenEmpty", "WhenEmptyOrUnderutilized", UNKNOWN):
        yield "spec.disruption.consolidationPolicy: WhenEmpty is missing"
    idle = limits.gpu_pools.maximum_idle_minutes
    yield from _within(resource, idle, "spec", "disruption", "consolidateAfter")


def gpu_pools_budgeted(stack: Stack, limits: Limits) -> Iterator[tuple[Resource, str]]:
    """A pool has a budget, by the tag that its nodes carry on the bill."""
    budgets = list(stack.on_aws("budgets/Budget"))
    classes = {str(c.get("metadata", "name")): c for c in stack.of_kind("EC2NodeClass")}
    for pool in filter(is_pool, stack.resources):
        if pool.get("spec", "template", "spec", "nodeClassRef", "kind") == SIMULATED:
            continue  # on nobody's bill
        labels = pool.get("spec", "template", "metadata", "labels")
        machines = str(pool.get("spec", "template", "spec", "nodeClassRef", "name"))
        tags = classes[machines].get("spec", "tags") if machines in classes else UNKNOWN
        yield from ((pool, said) for said in _budgeted(at(labels, POOL), tags, budgets))
    for group in filter(is_group, stack.resources):
        name = group.get("tags", POOL)
        yield from ((group, said) for said in _budgeted(name, group.get("tags"), budgets))


def _budgeted(name: Any, tags: Any, budgets: list[Resource]) -> Iterator[str]:
    if name is UNKNOWN:
        return
    if not name:
        yield f"the label {POOL}, and the tag, is missing: nothing says on the bill what it is"
        return
    if at(tags, POOL) not in (name, UNKNOWN):
        yield f"its machines have no tag {POOL}: {name}"
    found = [b for b in budgets if _counts(b, f"user:{POOL}${name}")]
    if not found:
        yield f"no Budget counts what has the tag {POOL}: {name}"
    for budget in found:
        if budget.get("budgetType") != "COST" or budget.get("timeUnit") != "MONTHLY":
            yield f"the Budget {budget.name} is not of a month's COST"
        amount = budget.get("limitAmount")
        if amount is not UNKNOWN and not _number(amount) > 0:
            yield f"the Budget {budget.name}: limitAmount {amount} is no sum of money"


def _counts(budget: Resource, tag: str) -> bool:
    filters = budget.get("costFilters")
    return filters is UNKNOWN or any(text == tag for _, text in texts(filters))


def is_pool(resource: Resource) -> bool:
    """Whether it is a Karpenter NodePool whose nodes have GPUs, by any sign of it."""
    if resource.kind != "NodePool":
        return False
    if resource.get("spec", "limits", GPU) is not None:
        return True
    for requirement in requirements(resource):
        key, values = str(at(requirement, "key")), each(at(requirement, "values"))
        if key.startswith("karpenter.k8s.aws/instance-gpu-"):
            return True
        wanted = at(requirement, "operator") == "In" and key in (TYPE, FAMILY)
        if wanted and any(has_gpu(str(value)) for value in values):
            return True
    return False


def is_group(resource: Resource) -> bool:
    """Whether it is a managed node group whose nodes have GPUs."""
    types = [str(t) for t in each(resource.get("instanceTypes"))]
    return resource.aws == "eks/NodeGroup" and any(map(has_gpu, types))


def has_gpu(instance_type: str) -> bool:
    """Whether machines of this type or family have NVIDIA GPUs."""
    return bool(_FAMILY.match(instance_type.partition(".")[0]))


def _within(pool: Resource, most_minutes: float, *path: str) -> Iterator[str]:
    value, where = pool.get(*path), ".".join(path)
    if value is UNKNOWN:
        return
    if value is None:
        yield f"{where} is missing"
    elif (minutes := _minutes(str(value))) > most_minutes:
        said = "never" if minutes == math.inf else str(value)
        yield f"{where}: {said}, at most {most_minutes:g} minutes"


def _minutes(text: str) -> float:
    """Of a duration such as 720h or 1h30m; what is none, such as Never, is without end."""
    if not re.fullmatch(r"(\d+[hms])+", text):
        return math.inf
    return sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)([hms])", text))


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


RULES = (
    Rule(gpu_pools_tainted),
    StackRule(gpu_pools_limited),
    Rule(gpu_pools_short_lived),
    StackRule(gpu_pools_budgeted),
)
