"""The workflow that tries many hyper-parameters at once: some on CPU, the rest on GPUs.

Pods on GPUs stand in their team's queue (Kueue): they begin when its quota, or what other teams
leave of theirs, has room. One that is preempted loses its pod and is begun again in a new one.
With `workers` above 1 an experiment is a gang: all of its pods begin, or none.

On simulated nodes (stack `simulated`) no container runs: kwok plays a pod for as long as
`simulated-for` says, and such an experiment leaves no result.
"""

from __future__ import annotations

from hera.workflows import DAG, Container, Parameter, Task, WorkflowTemplate
from hera.workflows.models import (
    Backoff,
    ConfigMapKeySelector,
    RetryStrategy,
    SemaphoreRef,
    Sequence,
    Synchronization,
    Toleration,
)

from workflows import steps
from workflows.steps import COMMIT, MODEL, parameter, step, template

GPU = "nvidia.com/gpu"
KUEUE = "kueue.x-k8s.io"
SEARCH = MODEL | {"commit": COMMIT, "search": "{{workflow.name}}"}
DAY = 24 * 3600
ON_GPUS = "(asInt(workflow.parameters.count) - asInt(workflow.parameters.real))"
WORKERS = "asInt(workflow.parameters.workers)"
# A worker's experiment. Experiments on CPU have the first numbers.
NUMBER = f"asInt(workflow.parameters.real) + int(asInt(inputs.parameters.worker) / {WORKERS})"


def workflow() -> WorkflowTemplate:
    """WorkflowTemplate `experiments`."""
    with template(
        "experiments",
        Parameter(name="model", description="folder under bentos/"),
        Parameter(name="commit", description="of this repository, 40 hex digits"),
        Parameter(name="team", description="in whose queue the pods on GPUs stand"),
        Parameter(name="pool", description="GPU pool that they run in"),
        Parameter(name="count", value="200"),
        Parameter(name="real", value="4", description="how many of them run on CPU"),
        Parameter(name="workers", value="1", description="pods of each experiment on GPUs"),
        Parameter(name="priority", value="experiment", description="a WorkloadPriorityClass"),
        Parameter(name="simulated-for", value="60s", description="on simulated nodes only"),
        entrypoint="search",
        images=("training-image",),
        # An experiment may wait for its turn for long.
        seconds=7 * DAY,
    ) as made:
        ingest = step("ingest", (), ("data",), constants=MODEL)
        cpu = step("experiment", ("data", "number"), constants=SEARCH, memory="2Gi")
        cpu.name = "cpu"
        turn = ConfigMapKeySelector(name="limits", key="training")
        cpu.synchronization = Synchronization(semaphores=[SemaphoreRef(config_map_key_ref=turn)])
        gpu, gang = on_gpu("gpu"), on_gpu("gang")
        gang.labels |= {f"{KUEUE}/pod-group-name": f"{{{{workflow.name}}}}-{{{{={NUMBER}}}}}"}
        gang.annotations |= {f"{KUEUE}/pod-group-total-count": parameter("workers")}
        collect = step(
            "collect", (), ("results", "parent"), constants=SEARCH | {"real": parameter("real")}
        )
        with DAG(name=made.entrypoint, fail_fast=False):
            data = Task(name="ingest", template=ingest).get_parameter("data")
            fan_out(cpu, data, "number", parameter("real"))
            fan_out(gpu, data, "worker", f"{{{{={WORKERS} == 1 ? {ON_GPUS} : 0}}}}")
            fan_out(gang, data, "worker", f"{{{{={WORKERS} == 1 ? 0 : {ON_GPUS} * {WORKERS}}}}}")
            # What is left when some on CPU have failed is worth a table too.
            tried = "(cpu.Succeeded || cpu.Skipped || cpu.Failed || cpu.Errored)"
            Task(name="collect", template=collect, depends=f"{tried} && gpu && gang")
    return made


def fan_out(pods: Container, data: Parameter, index: str, count: str) -> None:
    """Tasks that run `pods` on the data, `count` times, each with its `index` from 0."""
    Task(
        name=pods.name,
        template=pods,
        depends="ingest",
        arguments=[data, Parameter(name=index, value="{{item}}")],
        with_sequence=Sequence(count=count),
    )


def on_gpu(name: str) -> Container:
    """An experiment's pod on one GPU of the pool."""
    made = step(
        "experiment",
        ("data",),
        constants=SEARCH | {"number": f"{{{{={NUMBER}}}}}"},
        memory="2Gi",
        gpus=1,
        seconds=DAY,
    )
    made.name = name
    made.inputs = [Parameter(name="worker"), *made.inputs]
    made.node_selector = {"slipway/pool": parameter("pool")}
    made.tolerations = [Toleration(key=GPU, operator="Exists", effect="NoSchedule")]
    made.labels = {
        f"{KUEUE}/queue-name": parameter("team"),
        f"{KUEUE}/priority-class": parameter("priority"),
        "slipway.dev/model": parameter("model"),
    }
    made.annotations = {"slipway.dev/simulated-for": parameter("simulated-for")}
    # Who is preempted, again and again, is begun again each time. So is who went with its node,
    # which leaves no exit code (-1): spot machines are taken away.
    lost = 'lastRetry.status == "Error" || lastRetry.exitCode in '
    made.retry_strategy = RetryStrategy(
        limit=1000,
        retry_policy="Always",
        expression=f"{lost}[{', '.join(map(repr, (*steps.TRANSIENT, '-1')))}]",
        backoff=Backoff(duration="5s"),
    )
    return made


def render() -> str:
    """It as YAML."""
    return steps.render(workflow())
