"""Documents say what is so: their commands parse, their paths exist, their examples are answered.

What a command does on a platform is tested in tests/e2e; EXECUTED says where each one is run.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from slipway import doctor, paths, pulumi, release, scaffold
from slipway.cli import app
from slipway.commands import predict
from slipway.trial import libraries

ROOT = paths.REPOSITORY
# Commands that a document may tell the reader to type, and what runs each: text of a test of that
# file, which thereby cannot go without this noticing.
EXECUTED = {
    "make up": (".ci/run", "make up"),
    "make test": (".ci/run", "make test"),
    "make check": ("Makefile", "test: check"),
    "make down": (".ci/run", "make down"),
    "make down ERASE=1": (".ci/run", "make down ERASE=1"),
    "make doctor": ("tests/e2e/test_9_lifecycle.py", '"doctor", "status"'),
    "make bench": ("tests/e2e/test_9_lifecycle.py", 'document("bench"'),
    "make help": ("tests/unit/test_docs.py", '"make", "help"'),
    "slipway up": ("tests/e2e/test_9_lifecycle.py", 'slipway("up")'),
    "slipway down": ("tests/e2e/test_9_lifecycle.py", 'slipway("down")'),
    "slipway status": ("tests/e2e/test_6_promotion.py", 'slipway("status"'),
    "slipway check": ("tests/e2e/test_6_promotion.py", 'slipway("check"'),
    "slipway history": ("tests/e2e/test_6_promotion.py", 'slipway("history"'),
    "slipway promote": ("tests/e2e/test_6_promotion.py", 'slipway("promote"'),
    "slipway rollback": ("tests/e2e/test_6_promotion.py", 'slipway("rollback"'),
    "slipway label": ("tests/e2e/test_6_promotion.py", 'slipway("label"'),
    "slipway reproduce": ("tests/e2e/test_6_promotion.py", '"reproduce", MODEL'),
    "slipway predict": ("tests/e2e/test_1_serving.py", 'slipway("predict"'),
    "slipway trace": ("tests/e2e/test_1_serving.py", 'document("trace"'),
    "slipway train": ("tests/e2e/test_2_gitops.py", 'slipway("train"'),
    "slipway experiments": ("tests/e2e/test_5_gpus.py", 'document("experiments"'),
    "slipway try": ("tests/unit/trial/test_command.py", '["try", *arguments]'),
    "slipway new": ("tests/e2e/test_2_gitops.py", 'slipway("new"'),
    "slipway push": ("tests/unit/images/test_push.py", 'run("push", '),
    "slipway kubeconfig": ("tests/e2e/test_people.py", 'slipway("kubeconfig"'),
    "slipway protect": ("tests/e2e/test_y_forge.py", 'run("protect")'),
    "slipway pulumi config": ("tests/e2e/test_y_forge.py", 'run("pulumi", "config", "set"'),
    "slipway fetch": ("tests/unit/test_weights.py", 'run("fetch", "toy"'),
    "slipway pulumi preview": ("tests/e2e/test_3_pulumi.py", 'slipway("pulumi", "preview"'),
    "slipway pulumi up": ("tests/e2e/test_3_pulumi.py", 'slipway("pulumi", "up"'),
    "slipway pulumi stack": ("tests/e2e/test_z_destroy.py", 'slipway("pulumi", "stack"'),
    "slipway pulumi destroy": ("tests/e2e/test_5_gpus.py", 'run("pulumi", "destroy"'),
    "slipway backup": ("tests/e2e/kept.py", 'document("backup", '),
    "slipway backups": ("tests/e2e/test_x_backup.py", 'document("backups", '),
    "slipway restore": ("tests/e2e/kept.py", 'return ("restore", '),
    "slipway doctor": ("tests/unit/test_docs.py", '"doctor", "-o", "json"'),
    "slipway cost": ("tests/unit/test_cost.py", '["cost", *arguments]'),
    "slipway vulnerabilities": ("tests/unit/test_dependencies.py", '["vulnerabilities", *arg'),
    "slipway env": ("tests/e2e/test_9_lifecycle.py", "slipway env"),
    "slipway bench": ("tests/e2e/test_9_lifecycle.py", 'document("bench"'),
    "slipway clean": ("tests/unit/test_toolchain.py", '["clean"]'),
    "curl": ("tests/e2e/test_callers.py", "^curl .*"),
    "git clone --mirror": ("tests/e2e/test_y_forge.py", '"clone", "--mirror"'),
    "git -C slipway.git push": ("tests/e2e/test_y_forge.py", '"refs/heads/*", "refs/tags/*"'),
    "kubectl get": ("tests/e2e/test_5_gpus.py", '"get", "clusterqueues,nodepools,'),
    "kubectl -n pipelines get": ("tests/e2e/test_5_gpus.py", '"-n", "pipelines", "get"'),
    "kubectl -n argocd get": ("tests/e2e/test_y_forge.py", '"-n", "argocd", "get", "secret"'),
    "kubectl -n forge get": ("tests/e2e/test_9_lifecycle.py", "kubectl -n forge get secret"),
    "uv venv": ("tests/e2e/test_9_lifecycle.py", "uv venv"),
    "uv pip sync": ("tests/e2e/test_9_lifecycle.py", "*libraries.INSTALL"),
    "uv pip install": ("tests/e2e/test_9_lifecycle.py", "*libraries.INSTALL"),
}
# Of these the first word says which of several commands it is.
SEVERAL = {"pulumi"}
# Programs that a reader has, and what needs what no test can have; these are checked by eye.
OTHERS = {".", "bentoml", "cd"}
BY_EYE = {"kubectl -n argocd logs deployment/forge-token"}  # of a GitHub App


@cache
def tracked() -> list[str]:
    """Files of the repository, those that are new included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


DOCUMENTS = [f for f in tracked() if f.endswith(".md") and not f.startswith("tests/fixtures/")]


def text(document: str) -> str:
    return (ROOT / document).read_text()


def commands(document: str) -> list[list[str]]:
    """What the document tells the reader to type, in words: sh blocks, and code in the text."""
    content = text(document)
    blocks = re.findall(r"^```sh\n(.*?)^```", content, re.M | re.S)
    # A line that ends in a backslash goes on.
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", content, flags=re.M | re.S)
    lines += [
        code
        for code in re.findall(r"`([^`\n]+)`", prose)
        if re.match(r".*\bmake [a-z]|(slipway|kubectl) ", code)
    ]
    # What a substitution runs is a command like any other.
    lines = [re.sub(r'^eval "\$\((.*)\)"', r"\1", line) for line in lines]
    split = [shlex.split(line, comments=True) for line in lines]
    return [words for words in split if words]


def each_command() -> list[Any]:
    found = {f"{d}: {' '.join(words)}": words for d in DOCUMENTS for words in commands(d)}
    return [pytest.param(words, id=name) for name, words in found.items()]


def make_targets() -> dict[str, str]:
    """Targets of the Makefile and what each says of itself."""
    lines = re.findall(r"^([a-z]+):(?!=)(?: [a-z]+)*(?: ## (.*))?$", text("Makefile"), re.M)
    return dict(lines)


def named(words: list[str]) -> str:
    """The command of EXECUTED that these words are a use of."""
    said = " ".join(words).removeprefix(".venv/bin/")
    fitting = [known for known in EXECUTED if f"{said} ".startswith(f"{known} ")]
    return max(fitting, key=len, default="")


def parse(words: list[str]) -> dict[str, Any]:
    """A slipway command's parameters; what it would refuse, this refuses."""
    group: Any = typer.main.get_command(app)
    assert words[0] in group.commands, f"no command {words[0]!r}"
    context = group.commands[words[0]].make_context(words[0], words[1:])
    return {**context.params, "rest": context.args}


# --- commands ---------------------------------------------------------------------------------


def test_the_two_commands() -> None:
    first = [" ".join(words) for words in commands("README.md")[:2]]
    assert first == ["make up", "make test"]


def test_a_stack_on_aws_begins_with_its_images() -> None:
    """Which its own update would wait for: each step of this is run by EXECUTED's tests."""
    first = [" ".join(w) for w in commands("infra/aws/README.md") if "--stack" in w][:3]
    assert first == [
        f"slipway {step} --stack dev" for step in ("push", "pulumi preview", "pulumi up")
    ]


@pytest.mark.parametrize("words", each_command())
def test_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    while re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        words = words[1:]
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "make":
        targets = [a for a in arguments if "=" not in a]
        assert targets
        assert set(targets) <= set(make_targets())
    elif program == "slipway":
        check_slipway(arguments)
    elif program == "pytest":
        assert all((ROOT / a).exists() for a in arguments if not a.startswith("-"))
        return
    elif program in OTHERS or " ".join(words) in BY_EYE:
        return
    known = named([program, *arguments])
    assert known, "no test runs this command; see EXECUTED"
    if program == "slipway" and arguments[0] in SEVERAL:
        chosen = [a for a in arguments[1:2] if not a.startswith("-")]
        assert known.split()[2:] == chosen, f"no test runs this {arguments[0]}; see EXECUTED"


def check_slipway(arguments: list[str]) -> None:
    given = parse(arguments)
    if arguments[0] == "pulumi":
        assert set(given["rest"][:1]) <= pulumi.WITH_STACK
    if (env := given.get("env") or given.get("environment")) and not env.isupper():
        release.check_environment(env)
    model = str(given.get("model") or "MODEL")
    if model.isupper():
        return
    if arguments[0] == "new":
        release.check_model_name(model)
    else:
        assert (ROOT / "bentos" / model / "model.yaml").exists()
    if arguments[0] == "predict":
        assert predict.body(model, given["data"])


@pytest.mark.parametrize("command", EXECUTED)
def test_each_command_is_run_by_a_test(command: str) -> None:
    file, call = EXECUTED[command]
    assert call in text(file)


def test_every_command_of_the_command_line_is_known_here() -> None:
    names = {info.name for info in app.registered_commands}
    tested = {command.split()[1] for command in EXECUTED if command.startswith("slipway ")}
    assert names == tested


@pytest.mark.parametrize("command", [info.name for info in app.registered_commands])
def test_help(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_doctor() -> None:
    result = CliRunner().invoke(app, ["doctor", "-o", "json"])
    failed = any(finding["state"] == "failed" for finding in json.loads(result.stdout))
    assert result.exit_code == (1 if failed else 0)


def test_make_help_lists_every_target() -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = dict(re.findall(r"^  make (\w+) +(.+)$", said.stdout, re.M))
    targets = make_targets()
    assert targets.pop("env") == "", "a step of the others, not to be typed"
    assert listed == targets
    assert all(listed.values())


def test_every_target_does_something_that_exists() -> None:
    for words in re.findall(r"^\t@\$\(SLIPWAY\) (.*)$", text("Makefile"), re.M):
        parse(re.sub(r"\$\(if \$\(ERASE\),(.*)\)", r"\1", words).split())
    for target in make_targets():
        command = ["make", "--dry-run", target, "ERASE=1"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert set(make_targets()) <= set(re.findall(r"[a-z]+", "".join(phony())))


def phony() -> list[str]:
    return re.findall(r"^\.PHONY:(.*)$", text("Makefile"), re.M)


def test_what_the_readme_says_is_needed_is_what_doctor_asks_for() -> None:
    for words in (
        f"{doctor.MEMORY // doctor.GIB} GiB of memory",
        f"{doctor.DISK_TO_BUILD // doctor.GIB} GiB of free disk",
    ):
        assert words in text("README.md").replace("\n", " ")


def test_what_a_try_needs_is_installed_as_documented() -> None:
    said = text("docs/develop.md")
    for command in libraries.INSTALL:
        assert f"\n{command}\n" in said
    assert f"uv venv --python {libraries.PYTHON}\n" in said


def test_what_the_readme_shows_is_what_is_shown() -> None:
    """Its output is a real platform's, whose numbers change; its words and addresses do not."""
    shown = "".join(re.findall(r"^```text\n(.*?)^```", text("README.md"), re.M | re.S))
    program = "".join(f.read_text() for f in (ROOT / "infra").rglob("*.py"))
    for port in re.findall(r"127\.0\.0\.1:(\d+)", shown):
        assert re.search(rf"\b{port}\b", program)
    for name in re.findall(r"^(\S.*?)  +http", shown, re.M):
        assert f'"{name}"' in text("slipway/up.py")
    for link in re.findall(r"^✓ +(\w+)", shown, re.M):
        assert f'"{link}"' in text("slipway/lineage.py")
    for column in re.findall(r"^MODEL.*$", shown, re.M)[0].split():
        assert column == "MODEL" or column.lower() in release.ENVIRONMENTS


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_tells_to_release_is_accepted(document: str) -> None:
    blocks = re.findall(r"^```yaml\n(rollout:\n.*?)^```", text(document), re.M | re.S)
    for block in blocks:
        release.Rollout.model_validate(yaml.safe_load(block)["rollout"])
    assert blocks or document not in ("docs/serve.md", "bentos/qwen_chat/README.md")


# --- paths and links --------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_exist(document: str) -> None:
    words = re.findall(r"`([^`\s]+)`", text(document))
    for block in re.findall(r"^```mermaid\n(.*?)^```", text(document), re.M | re.S):
        words += re.findall(r"[\w./-]+/[\w./-]*", block)
    missing = [word for word in words if is_path(word) and not exists(word, document)]
    assert missing == []


def is_path(word: str) -> bool:
    tops = {file.split("/")[0] for file in tracked()}
    first, slash, _ = word.partition("/")
    return bool(first in tops and slash) or bool(
        re.fullmatch(r"[\w-]+\.(py|md|yaml|json|toml)", word)
    )


def exists(word: str, document: str) -> bool:
    """A file or folder; a word in capitals stands for any name."""
    pattern = re.sub(r"\b[A-Z]{2,}\b(?!\.md)", "*", word).rstrip("/")
    folders = {"/".join(f.split("/")[:n]) for f in tracked() for n in range(1, f.count("/") + 1)}
    known = {*tracked(), *folders, release.path("dev", "model").as_posix()}
    beside = (Path(document).parent / pattern).as_posix()
    return any(fnmatch(path, pattern) or fnmatch(path, beside) for path in known)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", text(document))
    dead = [link for link in links if "://" not in link and not leads(link, document)]
    assert dead == []


def leads(link: str, document: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (ROOT / document).parent / path if path else ROOT / document
    if not anchor or not target.is_file():
        return target.exists()
    headings = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
    return anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("template", scaffold.templates())
def test_what_slipway_new_writes(tmp_path: Path, template: str) -> None:
    """Its README tells to train and ask the model that was made."""
    scaffold.create("second_model", template, bentos=tmp_path)
    content = (tmp_path / "second_model" / "README.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", content, re.M | re.S)
    typed = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert [parse(words[1:])["model"] for words in typed] == ["second_model"] * len(typed)
    assert all(named(words) for words in typed)
    files = re.findall(r"`([\w.-]+\.(?:py|yaml|json))`", content)
    assert [f for f in files if not (tmp_path / "second_model" / f).exists()] == []
