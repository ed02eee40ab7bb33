"""`slipway reproduce`"""

from __future__ import annotations

from typing import Annotated

import typer

from slipway import attestation, lineage, release, reproduce, sources
from slipway.commands import Environment, Model, Output, out, say, short, show_json
from slipway.commands.train import watch
from slipway.endpoints import Cluster


def command(
    model: Model,
    env: Environment,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow it to its end and compare.")
    ] = True,
    output: Output = "text",
) -> None:
    """Make a release's bento once more, from its data, code and libraries, and compare.

    Exit code 1: differs.

    What was trained before is not looked at, and nothing is registered or proposed. Whether the
    source of the data gives the same by now is told beside it.
    """
    release.check_environment(env)
    release.check_model_name(model)
    cluster = Cluster.connect()
    keys = sources.Platform(lambda: cluster).keys(env, fresh=True)
    with cluster.forge() as forge, cluster.store() as objects:
        pins = lineage.released(forge, env, model)
        document = attestation.fetch(objects, pins.evidence.digest, keys)
        attestation.check_about(document, pins, env)
        wanted = reproduce.pins_of(forge, lineage.mlflow(cluster), pins, document)
        present = cluster.config("pipelines", "platform").get("TRAINING_IMAGE", "")
        image = reproduce.image_for(wanted, present)
        workflow, new = reproduce.begin(cluster, pins, env, image)
        verb = "makes" if new else "makes already"
        say(f"{workflow.name} {verb} version {pins.version} of {pins.code.commit[:12]} once more")
        if not wait:
            out.print(workflow.name)
            say(f"follow it: slipway reproduce {model} --env {env}")
            return
        try:
            workflow = watch(cluster, workflow)
        except KeyboardInterrupt:
            say(f"\n{workflow.name} goes on without you; the same command follows it again")
            raise typer.Exit(130) from None
        found = reproduce.outcome(cluster, workflow)
        differs = reproduce.first_difference(wanted, found, image, forge, pins.code.commit, objects)
        source = reproduce.source(wanted, found, objects)
    if output == "json":
        show_json(
            {
                "same": differs is None,
                "released": pins.bento.digest,
                "found": found["bento"],
                "first_difference": vars(differs) if differs else None,
                "source": source,
            }
        )
    elif differs is None:
        out.print(f"the same bento: {pins.bento.digest}", soft_wrap=True)
    else:
        out.print(f"another bento: {short(found['bento'])} instead of {short(pins.bento.digest)}")
        out.print(f"first difference: {differs.what}")
        out.print(f"  released: {differs.released}", soft_wrap=True)
        out.print(f"  found:    {differs.found}", soft_wrap=True)
        if differs.detail:
            out.print(differs.detail, markup=False, soft_wrap=True)
    if source and output == "text":
        say(f"note: {source}")
    raise typer.Exit(0 if differs is None else 1)
