"""The steps, one after the other, and what they found."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway import (
    comparison,
    dependencies,
    digests,
    evidence,
    gates,
    interface,
    paths,
    store,
)
from slipway.bento import Folder, Parameter
from slipway.endpoints import ClusterError
from slipway.errors import SlipwayError
from slipway.evidence import Champion as Judged
from slipway.evidence import Comparison, Dependencies, Evaluation, Serving
from slipway.evidence import Signature as Described
from slipway.gates import Finding, Policy
from slipway.release import Bento
from slipway.steps import (
    attest,
    dataset,
    evaluate,
    ingest,
    package,
    predictions,
    rescore,
    train,
    validate,
)
from slipway.steps.serving_only import SERVING
from slipway.store import StoreError
from slipway.trial import champion, libraries, memory
from slipway.trial.blame import blaming
from slipway.trial.document import Before, Step, Trial
from slipway.trial.judge import NO_RUN, Against, judge
from slipway.trial.memory import Memory
from slipway.trial.objects import Local
from slipway.trial.wish import Wish

if TYPE_CHECKING:
    from slipway.endpoints import Cluster
    from slipway.repository import Repository
    from slipway.sources import Source

NO_COMMIT = "0" * 40


@dataclass(frozen=True)
class Surroundings:
    """What a try finds around it: the clone, the platform where there is one, and a folder."""

    repository: Repository
    connect: Callable[[], Cluster]
    source: Source
    folder: Path
    # Shown around each step.
    working: Callable[[str], AbstractContextManager[Any]]
    tell: Callable[[Step], None]


class Run:
    """One try of one model."""

    def __init__(
        self,
        folder: Folder,
        wish: Wish,
        around: Surroundings,
        changed: Mapping[str, Parameter] | None = None,
    ) -> None:
        """`changed`: the parameters in which `folder` differs from its model.yaml."""
        self._folder, self._wish, self._around = folder, wish, around
        self._overridden = dict(changed or {})
        self._objects = Local(around.folder / "objects", lambda: around.connect().store())
        self._memory = Memory(around.folder / "steps", fresh=wish.fresh)
        self._steps: list[Step] = []
        self._notes: list[str] = []

    def __call__(self, before: Trial | None = None) -> tuple[Trial, bytes]:
        """The try and its bento. `before`: the last one, to compare with.

        Raises:
            Failed: the model's own code raised.
            SlipwayError: a step failed as it would on the platform.
        """
        data = self._ingest()
        validation = self._validate(data)
        model, signature, part = self._train(data)
        found = self._evaluate(data, model, signature, validation)
        made, bundle = self._package(model)
        serving = self._serve(made, bundle, found) if self._wish.serve else None
        against = self._compare(found, made, bundle)
        findings = list[Finding]()
        if not part:
            findings = judge(
                self._policy,
                against,
                evaluation=found,
                bento=made,
                serving=serving,
                dependencies=self._dependencies,
            )
        if serving:
            self._notes.append("latency, memory and start are this machine's")
        trial = Trial(
            created=evidence.instant(datetime.now(UTC)),
            model=self._folder.config.name,
            environment=self._wish.environment,
            changed=self._changed,
            libraries=libraries.others(),
            part=part,
            overridden=self._overridden,
            steps=self._steps,
            bento=made,
            evaluation=found,
            serving=serving,
            champion=against.champion,
            champion_unknown=against.unknown,
            comparison=against.comparison,
            before=self._before(found, before, against),
            findings=findings,
            notes=self._notes,
        )
        return trial, bundle

    # Steps

    def _step(
        self,
        name: str,
        inputs: Mapping[str, Any],
        make: Callable[[], dict[str, str]],
        said: Callable[[Mapping[str, str]], str] = lambda _: "",
    ) -> dict[str, str]:
        """Runs a step, or recalls it; what it prints goes to stderr."""
        began = time.monotonic()
        with (
            self._around.working(name),
            contextlib.redirect_stdout(sys.stderr),
            blaming(self._folder),
        ):
            outputs, again = self._memory.recall(name, inputs, make)
        step = Step(name=name, seconds=time.monotonic() - began, again=again, said=said(outputs))
        self._steps.append(step)
        self._around.tell(step)
        return outputs

    def _ingest(self) -> str:
        def make() -> dict[str, str]:
            parts = list(ingest.parts(self._folder, self._objects))
            manifest = dataset.Manifest(model=self._folder.config.name, partitions=parts)
            return {"data": self._objects.put_json("data", manifest.model_dump(mode="json"))}

        def said(outputs: Mapping[str, str]) -> str:
            manifest = dataset.manifest(self._objects, outputs["data"])
            return f"{manifest.rows:,} rows in {len(manifest.partitions)} partitions"

        inputs = {"model": self._folder.config.name, "code": self._code("ingest")}
        return self._step("ingest", inputs, make, said)["data"]

    def _validate(self, data: str) -> evidence.Validation:
        def make() -> dict[str, str]:
            report = validate.checked(self._folder, self._objects, data)
            return {"validation": self._objects.put("evidence", evidence.dumps(report))}

        config = self._folder.config
        inputs = {
            "data": data,
            "code": self._code("target"),
            "task": config.task,
            "limits": config.validation.model_dump(mode="json"),
        }
        digest = self._step("validate", inputs, make)["validation"]
        return self._read(evidence.Validation, digest)

    def _train(self, data: str) -> tuple[str, Described, str]:
        """The digest of the model's files, its signature, and of what part it learned."""
        config, part = self._folder.config, self._wish.part

        def make() -> dict[str, str]:
            training, manifest = self._folder.training(), dataset.manifest(self._objects, data)
            all_x, all_y = train.examples(training, config, self._objects, manifest)
            x, y = part.of(all_x, all_y)
            estimator, files = train.fitted(training, config, x, y)
            described = evaluate.described(train.signature(config.task, estimator, x))
            return {
                "model-digest": self._objects.put_files("bentos", files),
                "signature": self._objects.put("evidence", evidence.dumps(described)),
                "rows": f"{len(x):,}",
                "part": f"{len(x):,} of {len(all_x):,} rows" if len(x) < len(all_x) else "",
            }

        inputs = {
            "data": data,
            "code": self._code("target", "features", "fit", "export"),
            "task": config.task,
            "train": config.split.train,
            "parameters": config.parameters,
            "part": [part.rows, part.share],
        }
        outputs = self._step("train", inputs, make, lambda o: o["part"] or f"{o['rows']} rows")
        described = self._read(Described, outputs["signature"])
        return outputs["model-digest"], described, outputs["part"]

    def _evaluate(
        self,
        data: str,
        model: str,
        signature: Described,
        validation: evidence.Validation,
    ) -> Evaluation:
        def make() -> dict[str, str]:
            found = evaluate.evaluated(
                self._folder,
                self._objects,
                data=data,
                commit=NO_COMMIT,
                model_digest=model,
                run=NO_RUN,
                validation=validation,
                signature=signature,
            )
            return {"evaluation": self._objects.put("evidence", evidence.dumps(found))}

        config = self._folder.config
        inputs = {
            "data": data,
            "model": model,
            "signature": signature.digest,
            "validation": digests.of(evidence.dumps(validation)),
            "code": self._code("target", "features", "predict", "baselines", "derive"),
            "settings": config.model_dump(mode="json", exclude={"owner", "description"}),
        }
        found = self._read(Evaluation, self._step("evaluate", inputs, make)["evaluation"])
        return found.model_copy(update={"code": self._commit})

    def _package(self, model: str) -> tuple[Bento, bytes]:
        def make() -> dict[str, str]:
            bundle = package.build(self._folder, self._objects.get_files("bentos", model))
            return {"bento": self._objects.put("bentos", bundle), "size": f"{len(bundle):,}"}

        served = {name: file.read_bytes() for name, file in self._folder.served.items()}
        inputs = {
            "model": model,
            "name": self._folder.config.name,
            "service": self._folder.config.service,
            "served": digests.of_files({**served, "requirements.txt": SERVING.read_bytes()}),
        }
        outputs = self._step("package", inputs, make, lambda o: f"{o['bento']}, {o['size']} bytes")
        digest = outputs["bento"]
        bundle = self._objects.get("bentos", digest)
        return Bento(digest=digest, uri=store.uri("bentos", digest), size=len(bundle)), bundle

    def _serve(self, made: Bento, bundle: bytes, found: Evaluation) -> Serving:
        def make() -> dict[str, str]:
            measured = package.measured(self._folder, self._objects, found, bundle)
            return {
                "serving": self._objects.put("evidence", evidence.dumps(measured)),
                "said": f"{measured.compared} answers are those evaluated"
                if measured.compared
                else "answers not compared: training.py has no requests()",
            }

        inputs = {
            "bento": made.digest,
            "predictions": found.predictions,
            "deviation": found.holdout.deviation,
            "example": digests.of_file(self._folder.path / "example.json"),
            "code": self._code("requests"),
        }
        outputs = self._step("serve", inputs, make, lambda o: o["said"])
        return self._read(Serving, outputs["serving"])

    def _compare(self, found: Evaluation, made: Bento, bundle: bytes) -> Against:
        ours, locked = self._champion, self._dependencies
        against = ours.champion
        if against is None:
            return Against(ours.release, unknown=ours.unknown)

        def make() -> dict[str, str]:
            evaluation = self._objects.put("evidence", evidence.dumps(found))
            answers = rescore.predicted(self._objects, against.evidence, evaluation, self._code_at)
            offered = interface.read(bundle, made.uri)
            compared, judged = attest.compare(
                self._objects, self._policy, found, offered, locked, against, answers
            )
            return {
                "comparison": self._objects.put("evidence", evidence.dumps(compared)),
                "champion": self._objects.put("evidence", evidence.dumps(judged)),
            }

        inputs = {
            "bento": made.digest,
            "data": found.data.model_dump(mode="json"),
            "predictions": found.predictions,
            "champion": against.release.evidence.digest,
            "policy": self._policy.digest,
            "dependencies": locked.lock,
        }
        version = f"version {against.release.version}"
        said = f"with {version} in {self._wish.environment}"
        try:
            outputs = self._step("compare", inputs, make, lambda _: said)
        except (StoreError, ClusterError) as error:
            first = str(error).partition("\n")[0]
            return Against(ours.release, unknown=f"{version} is not to be had here: {first}")
        return Against(
            ours.release,
            self._read(Judged, outputs["champion"]),
            self._read(Comparison, outputs["comparison"]),
        )

    # Parts

    def _code(self, *functions: str) -> str:
        return memory.code(self._folder, *functions)

    def _read(self, kind: Any, digest: str) -> Any:
        return kind.model_validate_json(self._objects.get("evidence", digest))

    @cached_property
    def _commit(self) -> str:
        """The checkout's; what the folder has beside it, no commit has."""
        try:
            return self._around.repository.commit("HEAD")
        except SlipwayError:
            return NO_COMMIT

    @cached_property
    def _changed(self) -> bool:
        """Whether the commit lacks something that the bento is made of."""
        made_of = (f"bentos/{self._folder.path.name}", "bentos/serving", "requirements")
        try:
            return any(self._around.repository.is_dirty(folder) for folder in made_of)
        except SlipwayError:
            return True

    @cached_property
    def _policy(self) -> Policy:
        read = gates.reader(paths.REPOSITORY)
        return gates.load_policy(read, self._wish.environment, self._folder.config.name)

    @cached_property
    def _dependencies(self) -> Dependencies:
        return dependencies.checked_here(dependencies.collect(SERVING))

    @cached_property
    def _champion(self) -> champion.Found:
        around, environment = self._around, self._wish.environment
        with around.working(f"what {environment} serves"):
            found = champion.find(
                around.repository,
                around.connect,
                around.source,
                self._folder.config.name,
                environment,
            )
        if found.note:
            self._notes.append(found.note)
        return found

    def _code_at(self, model: str, commit: str) -> dict[str, bytes]:
        """The champion's folder: the fetch of main has brought its commit here, too."""
        prefix = f"bentos/{model}/"
        found = self._around.repository.contents(commit, prefix.rstrip("/"))
        return {path.removeprefix(prefix): content for path, content in found.items()}

    def _before(self, found: Evaluation, before: Trial | None, against: Against) -> Before | None:
        """The last try; with paired tests where no champion is compared with on this holdout."""
        if before is None:
            return None
        last = before.evaluation
        same = (last.holdout.digest, last.task) == (found.holdout.digest, found.task)
        if against.comparison or not same or found.predictions == last.predictions:
            return before.as_before()
        tables = [predictions.get(self._objects, e.predictions, e.task) for e in (found, last)]
        try:
            with self._around.working("compare with the last try"):
                compared = comparison.compare(
                    found, tables[0], last, tables[1], self._policy.evidence
                )
        except comparison.NotComparable:
            return before.as_before()
        return before.as_before().model_copy(update={"tests": compared.tests})
