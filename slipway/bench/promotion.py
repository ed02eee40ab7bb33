"""From a merged pull request to callers who are answered by its bento and no other any more."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx

from slipway import merging, release, training, up
from slipway.bench.figures import Figure, percentile
from slipway.bench.watch import RATE, Watch, watching
from slipway.commands.predict import example
from slipway.commands.train import train
from slipway.endpoints import Cluster, part
from slipway.errors import SlipwayError
from slipway.forge import Forge

MODEL, ENV = up.FIRST_MODEL, up.FIRST_ENVIRONMENT
# How long a poll is waited for is chance: of two the median says little.
ROUNDS, POLLING_ROUNDS = 20, 5
PATIENCE_S, POLLING_PATIENCE_S = 120.0, 600.0
# So long nobody else may have answered before it counts as over.
QUIET_S = 3.0
# Keys of argocd-cm that decide when it polls; without them, every 2 to 3 minutes.
POLLING = ("timeout.reconciliation", "timeout.reconciliation.jitter")
CONFIG = "/api/v1/namespaces/argocd/configmaps/argocd-cm"
CONTROLLER = "/api/v1/namespaces/argocd/pods/argocd-application-controller-0"
HOOK = "argocd-server"
SETTINGS = f"bentos/{MODEL}/model.yaml"
HOOK_S = 30.0


def path_of(env: str = ENV) -> str:
    """The model's release file."""
    return str(release.path(env, MODEL))


@dataclass
class Taken:
    """Seconds of each round: gates from push to verdict, merge to the last other answer."""

    gates: list[float] = field(default_factory=list[float])
    there: list[float] = field(default_factory=list[float])
    back: list[float] = field(default_factory=list[float])

    @property
    def merges(self) -> list[float]:
        return [*self.there, *self.back]


def promotion(
    platform: Cluster, say: Callable[[str], None], *, rounds: int = ROUNDS
) -> list[Figure]:
    """Two bentos that dev has known take turns, each time by a pull request with its gates.

    Every second one is a revert: it brings back, byte for byte, the release file before it. Then a
    few more where Argo CD is told of nothing and polls as it does by default.
    """
    if not platform.embedded:
        raise SlipwayError("requests are for this machine's own cluster only")
    url = f"http://{address(platform)}:80/predict"
    with platform.forge() as forge:
        here, other = pair(forge) or second(platform, forge, say)
        taken, polled = Taken(), Taken()
        began = time.time()
        try:
            with watching(url, example(MODEL)) as watch:
                for number in range(rounds):
                    file = here if number % 2 else other
                    took = one(forge, watch, file, taken, back=bool(number % 2))
                    say(f"{number + 1} of {rounds}: {took:.1f} s")
                    # Not in step with anything that polls.
                    time.sleep(random.uniform(1, 3))  # noqa: S311  # not a secret
                failed, asked = watch.failures(began), len(watch.since(began))
                with polling(platform, say):
                    for number in range(POLLING_ROUNDS):
                        file = here if (rounds + number) % 2 else other
                        time.sleep(random.uniform(0, 60))  # noqa: S311  # not a secret
                        took = one(forge, watch, file, polled, patience_s=POLLING_PATIENCE_S)
                        say(f"polling, {number + 1} of {POLLING_ROUNDS}: {took:.0f} s")
        finally:
            if forge.read(path_of()) != here:
                merge_release(forge, here, "as-before")
    return figures(taken, polled, asked, failed)


def figures(taken: Taken, polled: Taken, asked: int, failed: dict[str, int]) -> list[Figure]:
    """What the rounds come to."""
    details = {"gates": taken.gates, "there": taken.there, "back": taken.back}
    count = sum(failed.values())
    loop = f"{count} of {asked:,} requests failed, {RATE:.0f}/s, a connection each"
    merges, back = taken.merges, taken.back
    quick, slow = percentile(merges, 50), percentile(polled.merges, 50)
    seconds = ", ".join(f"{took:.0f}" for took in polled.merges)
    return [
        Figure(
            "promotion",
            percentile(merges, 95),
            f"{len(merges)} merges, median {quick:.1f} s, slowest {max(merges):.1f} s; both bentos "
            f"are former releases of {ENV}, so the gates judge each as a rollback; {loop}",
            "",
            {**details, "failed": failed, "asked": asked},
        ),
        Figure("failed", float(count), loop, "", {"failed": failed}),
        Figure(
            "revert",
            percentile(back, 95),
            f"the {len(back)} of them that bring back the release before, median "
            f"{percentile(back, 50):.1f} s",
        ),
        Figure(
            "gates",
            percentile(taken.gates, 95),
            f"{len(taken.gates)} pushes of a release file, each a rollback, median "
            f"{percentile(taken.gates, 50):.1f} s",
        ),
        Figure(
            "polling",
            slow / quick,
            f"without the webhook, Argo CD's default polling: {seconds} s in {len(polled.merges)} "
            "rounds, their median beside ours; its cache of revisions is as short as ours",
            "",
            {"seconds": polled.merges},
        ),
    ]


def pair(forge: Forge) -> tuple[bytes, bytes] | None:
    """The release file now, and the last earlier one with another bento; None where none is."""
    path = path_of()
    here = forge.read(path)
    bento = release.parse(here, path).bento.digest
    for revision in forge.history(path):
        with suppress(SlipwayError):  # a commit that removed it, or from before this format
            content = forge.read(path, revision.sha)
            if release.parse(content, path).bento.digest != bento:
                return here, content
    return None


def second(platform: Cluster, forge: Forge, say: Callable[[str], None]) -> tuple[bytes, bytes]:
    """The same once `ENV` has known another bento and is back at its own.

    Both ways as everybody's change goes: main has other parameters, they are trained and released.
    """
    say(f"{ENV} has known one bento of {MODEL} only: training another, and this one again")
    before = forge.read(SETTINGS)
    try:
        _released(platform, forge, changed(before), "other parameters", say)
    finally:
        _released(platform, forge, before, "as before", say)
    if found := pair(forge):
        return found
    raise SlipwayError(f"{ENV} still knows one bento of {MODEL} only", fix="see its pull requests")


def changed(settings: bytes) -> bytes:
    """The model's settings with an iteration less: another bento that is as good."""
    return re.sub(
        rb"(?<=max_iter: )\d+", lambda found: b"%d" % (int(found[0]) - 1), settings, count=1
    )


def _released(
    platform: Cluster, forge: Forge, settings: bytes, what: str, say: Callable[[str], None]
) -> None:
    if forge.read(SETTINGS) == settings:
        return
    commit = forge.write("main", {SETTINGS: settings}, f"Bench: {what}")
    # The forge's webhook starts it, as after every push; a lost one is made good here.
    deadline = time.monotonic() + HOOK_S
    while not training.find(platform, MODEL, commit, ENV) and time.monotonic() < deadline:
        time.sleep(1)
    if pull := train(platform, forge, MODEL, commit=commit, environment=ENV, say=say):
        merging.merge(forge, pull.number, say=say)


def one(
    forge: Forge,
    watch: Watch,
    file: bytes,
    taken: Taken,
    *,
    back: bool = False,
    patience_s: float = PATIENCE_S,
    env: str = ENV,
) -> float:
    """One pull request from its push to quiet: seconds from its merge to the last other answer."""
    wanted = release.parse(file, path_of(env))
    merged = merge_release(forge, file, f"{time.time_ns()}", taken, env=env)
    deadline = time.monotonic() + patience_s
    while (took := watch.settled(merged, wanted.bento.digest, for_s=QUIET_S)) is None:
        if time.monotonic() > deadline:
            raise SlipwayError(
                f"others than {wanted.bento.digest} answer {patience_s:.0f} s after the merge",
                fix=f"slipway status; kubectl -n {env} get pods",
            )
        time.sleep(0.2)
    (taken.back if back else taken.there).append(took)
    return took


def merge_release(
    forge: Forge, file: bytes, mark: str, taken: Taken | None = None, *, env: str = ENV
) -> float:
    """Proposes and merges a release file: when the merge was asked for, in seconds of the epoch."""
    path = path_of(env)
    wanted = release.parse(file, path)
    title = f"Bench: {wanted.model} {wanted.version} in {env}"
    # As `slipway rollback` names it: what follows a release waits for its rollout.
    branch = f"rollback/bench-{mark}"
    pushed = time.monotonic()
    forge.write(branch, {path: file}, title)
    pull = forge.open(branch, title, "Measured by `slipway bench`.")
    merging.wait_for_gates(forge, pull.number, every_s=0.25)
    if taken:
        taken.gates.append(time.monotonic() - pushed)
    merged = time.time()
    forge.merge(pull.number)
    return merged


def address(platform: Cluster, env: str = ENV) -> str:
    """Where the model's service is."""
    path = f"/api/v1/namespaces/{env}/services/{release.service(MODEL)}"
    address = part(platform.find(path), "spec", "clusterIP")
    if not address:
        raise SlipwayError(f"no service of {MODEL} in {env}", fix="run `make up`")
    return str(address)


# --- Argo CD as it polls by default -----------------------------------------------------------


@contextmanager
def polling(platform: Cluster, say: Callable[[str], None]) -> Generator[None, None, None]:
    """Nobody tells Argo CD of a push while the body runs."""
    say("Argo CD on its default polling")
    before = {key: part(platform.find(CONFIG), "data", key) for key in POLLING}
    _hooks(platform, active=False)
    try:
        _configure(platform, dict.fromkeys(POLLING))
        yield
    finally:
        _hooks(platform, active=True)
        _configure(platform, before)


def _configure(platform: Cluster, settings: dict[str, str | None]) -> None:
    """Sets keys of argocd-cm, None for none, and has the controller begin anew with them."""
    merge = {"Content-Type": "application/merge-patch+json"}
    platform.send("PATCH", CONFIG, json={"data": settings}, headers=merge).raise_for_status()
    before = part(platform.find(CONTROLLER), "metadata", "uid")
    platform.send("DELETE", CONTROLLER).raise_for_status()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        pod = platform.find(CONTROLLER)
        conditions = part(pod, "status", "conditions") or []
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        if ready and part(pod, "metadata", "uid") != before:
            return
        if time.monotonic() > deadline:
            raise SlipwayError("Argo CD's controller does not come back", fix="make up")
        time.sleep(0.5)


def _hooks(platform: Cluster, *, active: bool) -> None:
    """Turns the forge's webhooks to Argo CD on or off."""
    admin = platform.secret("forge", "gitea-admin")
    repository = platform.config("pipelines", "platform")["FORGE_REPOSITORY"]
    with (
        platform.service("forge", "gitea") as url,
        httpx.Client(
            base_url=f"{url}/api/v1/repos/{repository}/",
            auth=(admin["username"], admin["password"]),
            timeout=30,
        ) as api,
    ):
        for hook in api.get("hooks").raise_for_status().json():
            if HOOK in hook["config"]["url"]:
                # Where a change names no events, Gitea leaves only pushes.
                change = {"active": active, "events": hook["events"]}
                api.patch(f"hooks/{hook['id']}", json=change).raise_for_status()
