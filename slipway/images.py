"""The container images: built from Containerfiles, kept by key, pushed by digest.

toolchain/images/ has a folder an image. A Containerfile says by its paths what it needs:
`bin/<program>` and `files/<tool>` come from the toolchain, `requirements/<lock>` from the
repository, everything else lies beside it; an executable `prepare` completes the build context.
What is built lands in the cache, as an OCI layout under the hash of all that went in, so a second
clone reuses it and nothing is built twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from slipway import paths, toolchain
from slipway.errors import BadInput, SlipwayError, did_you_mean
from slipway.release import REGISTRY_NAME

FOLDER = paths.REPOSITORY / "toolchain" / "images"
MAP = paths.REPOSITORY / "toolchain" / "images.yaml"
REGISTRY = "localhost:5000"
# By this variable the program of a stack on AWS makes its registry, and nothing else.
ONLY_REGISTRY = "SLIPWAY_ONLY_REGISTRY"
# Build everything anew when the way of building changes.
RECIPE = "1"
# Names of the map that are another image of ours.
SAME = {"argo-executor": "argo-workflows", "argo-controller": "argo-workflows"}

Progress = Callable[[str, str], None]


def _silent(_name: str, _state: str) -> None: ...


def _cache() -> Path:
    return paths.cache() / "images"


class Image:
    """One folder of toolchain/images/."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name
        self.text = (folder / "Containerfile").read_text()

    def needs(self, kind: str) -> list[str]:
        """What the Containerfile names under one of the folders that others fill."""
        found = re.findall(rf"(?<![\w./:-]){kind}/([\w.-]+)", self.text)
        return sorted(set(found))

    @property
    def only_for(self) -> str:
        """The command that builds it when it is used, as of the programs in it; "": `make up`."""
        owners = (toolchain.provider(program) for program in self.needs("bin"))
        return next((owner.config.only_for for owner in owners if owner.config.only_for), "")

    @property
    def base(self) -> str | None:
        """Name of our image that stands in for the Containerfile's official base."""
        return "base" if re.search(r"^ARG BASE=", self.text, re.M) else None

    @functools.cached_property
    def inputs(self) -> dict[str, Path]:
        """The build context: file or folder in it -> where it comes from."""
        context = {f.name: f for f in sorted(self.folder.iterdir())}
        context |= {f"bin/{name}": toolchain.binary(name) for name in self.needs("bin")}
        context |= {f"files/{name}": toolchain.files(name) for name in self.needs("files")}
        for lock in self.needs("requirements"):
            context[f"requirements/{lock}"] = paths.REPOSITORY / "requirements" / lock
        return context

    @functools.cached_property
    def key(self) -> str:
        """Hash of everything that decides what is built."""
        sums = [RECIPE, images()[self.base].key if self.base else ""]
        for place, source in sorted(self.inputs.items()):
            if source.is_relative_to(toolchain.cache()):
                # Its place there is named by the hash of what it was built from.
                sums.append(f"{place} {source.relative_to(toolchain.cache())}")
                continue
            for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
                if file.is_file():
                    with file.open("rb") as content:
                        digest = hashlib.file_digest(content, "sha256").hexdigest()
                    mode = "x" if os.access(file, os.X_OK) else "-"
                    sums.append(f"{place} {file.relative_to(source)} {mode} {digest}")
        return hashlib.sha256("\n".join(sums).encode()).hexdigest()[:16]

    @property
    def layout(self) -> Path:
        """The built image, an OCI layout."""
        return _cache() / self.name / self.key

    @property
    def built(self) -> bool:
        """Whether this very image is in the cache; no, while a program for it has to be built."""
        try:
            return self.layout.is_dir()
        except SlipwayError:
            return False

    @property
    def source(self) -> str:
        """The built image as skopeo names it."""
        return f"oci:{self.layout}:{self.name}"

    @property
    def digest(self) -> str:
        """Digest of the built image's manifest, `sha256:…`."""
        index = json.loads((self.layout / "index.json").read_text())
        return index["manifests"][0]["digest"]

    @property
    def tag(self) -> str:
        """The tag under which the image is pushed beside its digest."""
        official = official_references().get(self.name)
        return official.rpartition(":")[2] if official else self.key


@functools.cache
def images() -> dict[str, Image]:
    """Every image by name."""
    return {f.parent.name: Image(f.parent) for f in sorted(FOLDER.glob("*/Containerfile"))}


def _wanted(names: Iterable[str] | None) -> list[Image]:
    chosen = list(filter(_platform, images()) if names is None else names)
    for name in chosen:
        if name not in images():
            raise BadInput(f"no image {name!r} in {FOLDER}", fix=did_you_mean(name, images()))
    return [images()[name] for name in chosen]


def missing() -> list[str]:
    """Names of the images still to build, of those that the platform needs."""
    return [image.name for image in _wanted(None) if not image.built]


def own() -> list[str]:
    """Names of the images that only we have, of those that the platform needs."""
    return [name for name, official in image_map().items() if not official and _platform(name)]


def _platform(name: str) -> bool:
    return name in images() and not images()[name].only_for


def check_registry(registry: str) -> None:
    """`BadInput` unless images can be pushed to what this names."""
    if not re.fullmatch(REGISTRY_NAME, registry):
        raise BadInput(
            f"no registry: {registry!r}",
            field="REGISTRY",
            fix="host, host:port or a path in one, without https:// and a slash at the end",
        )


def image_map(file: Path = MAP) -> dict[str, str | None]:
    """The image map, checked: name -> official reference, or None for an image that only we have.

    Raises:
        BadInput: a name has no image, an image no name, or a reference no exact tag or digest.
    """
    try:
        content: object = YAML(typ="safe").load(file.read_text())
    except YAMLError as error:
        raise BadInput(str(error), file=file) from error
    if not isinstance(content, dict):
        raise BadInput("must map names to image references", file=file)
    known = {*images(), *SAME}
    checked: dict[str, str | None] = {}
    for name, reference in content.items():
        if name not in known:
            raise BadInput("no such image", file=file, field=name, fix=did_you_mean(name, known))
        if reference is not None and not _is_exact(reference):
            raise BadInput(
                f"not an exact reference: {reference!r}",
                file=file,
                field=name,
                fix="write registry/repository:tag with a tag that is a version, or null if ours",
            )
        checked[name] = reference
    for name in sorted(known - set(checked)):
        raise BadInput("missing", file=file, field=name, fix="name its official image, or null")
    return checked


def _is_exact(reference: object) -> bool:
    pattern = r"[a-z0-9.-]+\.[a-z]+(/[a-z0-9._-]+)+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})"
    return isinstance(reference, str) and re.fullmatch(pattern, reference) is not None


@functools.cache
def official_references() -> dict[str, str]:
    """Name -> official reference, for the images that have one."""
    return {name: ref for name, ref in image_map().items() if ref}


def references(embedded: bool) -> dict[str, str]:
    """What the cluster is to run: image name -> reference.

    Args:
        embedded: our images by digest, as last pushed; else the official ones, without the images
            that only we have (a stack names those where it pushed them).

    Raises:
        SlipwayError: embedded, and no image has been pushed.
    """
    if not embedded:
        return dict(official_references())
    if not paths.images_file().exists():
        raise SlipwayError("no image has been pushed", fix="run `make up`")
    pushed: dict[str, str] = json.loads(paths.images_file().read_text())
    return pushed | {name: pushed[ours] for name, ours in SAME.items() if ours in pushed}


# Building


def build(
    names: Iterable[str] | None = None, *, progress: Progress = _silent, jobs: int = 2
) -> None:
    """Builds what is missing, bases first; interrupted, it goes on where it was.

    Args:
        names: images by name; by default all that the platform needs.
        progress: called with (image, what happens to it), from several threads.
        jobs: images built at once.

    Raises:
        SlipwayError: a build failed (the others are finished first), or a program is missing.
    """
    wanted = _wanted(names)
    with _locked(progress):
        todo = [i for i in wanted if not i.layout.is_dir()]
        for image in wanted:
            if image not in todo:
                progress(image.name, "cached")
        if not todo:
            return
        bases = {images()[i.base] for i in todo if i.base} | {i for i in todo if i.name == "base"}
        with _Builder(progress) as builder:
            for base in bases:
                builder.provide(base)
            _each(builder.build, [i for i in todo if i not in bases], jobs, stop=builder.stop)


def clean(*, everything: bool = False) -> None:
    """Deletes images of former keys, and what builds leave; they can be built again.

    Args:
        everything: the present images too.
    """
    kept = set[Path]() if everything else {i.layout for i in images().values() if i.built}
    with _locked(_silent):
        _drop_storage()
        for layout in _cache().glob("*/*"):
            if layout.is_dir() and layout not in kept:
                shutil.rmtree(layout)


@contextlib.contextmanager
def _locked(progress: Progress) -> Generator[None, None, None]:
    _cache().mkdir(parents=True, exist_ok=True)
    with (_cache() / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("images", "waiting for another build")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _each(
    action: Callable[[Image], None],
    chosen: list[Image],
    jobs: int,
    stop: Callable[[], None] = lambda: None,
) -> None:
    """Does something with every image; the first error is raised when all have been tried.

    Interrupted, it calls `stop`, which must end the actions that are under way.
    """
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(action, image) for image in chosen]
        try:
            errors = [e for f in futures if (e := f.exception())]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise
    if errors:
        raise errors[0]


def _storage() -> Path:
    return paths.cache() / "buildah"


def _drop_storage() -> None:
    """Deletes buildah's storage, and first the mounts that a killed build left in it."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    for point in sorted((line.split()[1] for line in mounts), reverse=True):
        if point.startswith(f"{_storage()}/"):
            subprocess.run(["umount", "--lazy", point], check=False)
    shutil.rmtree(_storage(), ignore_errors=True)


class _Builder:
    """One run of buildah on a storage of its own, which only serves while it builds."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = threading.Event()
        self._logs = paths.state() / "logs" / "images"
        self._work = _storage() / "work"

    def __enter__(self) -> _Builder:
        _drop_storage()
        self._logs.mkdir(parents=True, exist_ok=True)
        self._work.mkdir(parents=True)
        self._driver = "overlay" if self._can_overlay() else "vfs"
        self._options = self._machine()
        compiler = str(Path(toolchain.go()).parent)
        path = os.pathsep.join((compiler, os.environ["PATH"]))
        self._environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "PATH": path}
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        _drop_storage()

    def stop(self) -> None:
        """Kills what runs; nothing more is started."""
        self._stopped.set()
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _can_overlay(self) -> bool:
        parts = [self._work / "probe" / name for name in ("lower", "upper", "work", "merged")]
        for part in parts:
            part.mkdir(parents=True)
        layers = "lowerdir={},upperdir={},workdir={}".format(*parts[:3])
        mount = ["mount", "-t", "overlay", "overlay", "-o", layers, str(parts[3])]
        if subprocess.run(mount, capture_output=True).returncode:
            return False
        subprocess.run(["umount", str(parts[3])], check=True)
        return True

    def _machine(self) -> list[str]:
        """Lets builds use this machine's package sources and certificates; images keep none."""
        host = self._work / "host"
        host.mkdir()
        # A copy, as packages may add files there.
        shutil.copytree("/etc/apt", host / "apt", symlinks=True)
        certificates = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
        exports = {k: v for k, v in os.environ.items() if re.match(r"UV_|(?i:\w+_proxy$)", k)}
        exports |= {"UV_CACHE_DIR": "/run/host/uv-cache", "UV_LINK_MODE": "copy"}
        # Not by the path: on a machine with nothing, only the virtual environment has it.
        uv = str(Path(sys.executable).with_name("uv"))
        paths.uv_cache().mkdir(parents=True, exist_ok=True)
        volumes = {f"{host}/apt": "/etc/apt", str(paths.uv_cache()): "/run/host/uv-cache"}
        if Path("/usr/share/keyrings").is_dir():
            volumes["/usr/share/keyrings"] = "/usr/share/keyrings:ro"
        for settings in (Path("/etc/uv"), Path.home() / ".config/uv", Path.home() / ".netrc"):
            if settings.exists():
                home = str(settings).replace(str(Path.home()), "/root", 1)
                volumes[str(settings)] = f"{home}:ro"
        if certificates.exists():
            shutil.copy(certificates, host / "certificates.pem")
            exports["SSL_CERT_FILE"] = "/run/host/certificates.pem"
            volumes[f"{host}/certificates.pem"] = "/run/host/certificates.pem:ro"
            setting = 'Acquire::https::CAInfo "/run/host/certificates.pem";\n'
            (host / "apt/apt.conf.d/99certificates").write_text(setting)
        lines = [f"export {k}='{v}'\n" for k, v in exports.items()]
        (host / "environment").write_text("".join(lines))
        (host / "uv").mkdir()
        shutil.copy(uv, host / "uv" / "uv")
        return [
            f"--secret=id=environment,src={host}/environment",
            *(f"--volume={source}:{target}" for source, target in volumes.items()),
        ]

    def provide(self, image: Image) -> None:
        """Brings an image that others start from into the storage."""
        if not image.layout.is_dir():
            self.build(image)
            return
        log = self._logs / f"{image.name}.log"
        storage = f"[{self._driver}@{_storage()}/root+{_storage()}/run]"
        target = f"containers-storage:{storage}localhost/{image.name}:latest"
        self._run(["skopeo", "copy", "--quiet", image.source, target], log)

    def build(self, image: Image) -> None:
        """Builds one image into its OCI layout in the cache."""
        started = time.monotonic()
        self._progress(image.name, "building")
        log = self._logs / f"{image.name}.log"
        log.unlink(missing_ok=True)
        context = self._work / image.name
        self._stage(image, context)
        if (context / "prepare").exists():
            self._run(["./prepare"], log, cwd=context)
        arguments = ["--layers", "--timestamp=0", f"--tag=localhost/{image.name}", *self._options]
        if image.base:
            arguments.append(f"--build-arg=BASE=localhost/{image.base}")
        for stage in set(re.findall(r"from=(\S+/uv:[^,\s]+)", image.text)):
            arguments.append(f"--build-context={stage}={self._work}/host/uv")
        self._buildah(["bud", *arguments, f"--file={context}/Containerfile", str(context)], log)
        shutil.rmtree(context)
        partial = image.layout.with_name(f".{image.key}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        compression = ["--compression-format=zstd", "--compression-level=1"]
        target = f"oci:{partial}:{image.name}"
        self._buildah(["push", "--quiet", *compression, f"localhost/{image.name}", target], log)
        _share_blobs(partial)
        for old in image.layout.parent.iterdir():
            if old != partial:
                shutil.rmtree(old)
        partial.rename(image.layout)
        self._progress(image.name, f"built in {time.monotonic() - started:.0f} s")

    def _stage(self, image: Image, context: Path) -> None:
        for place, source in image.inputs.items():
            target = context / place
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, copy_function=_link, symlinks=True)
            else:
                _link(source.resolve(), target)

    def _buildah(self, arguments: list[str], log: Path) -> str:
        storage = [f"--root={_storage()}/root", f"--runroot={_storage()}/run"]
        command = ["buildah", *storage, f"--storage-driver={self._driver}", *arguments]
        return self._run(command, log)

    def _run(self, command: list[str], log: Path, cwd: Path | None = None) -> str:
        if self._stopped.is_set():
            raise SlipwayError("the build was stopped", fix="run it again: it goes on from here")
        with log.open("ab") as out:
            # A group of its own: Ctrl-C is ours to handle, and all of it can be killed at once.
            # Should we be killed ourselves, it dies too, and does not disturb the next build.
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                cwd=cwd,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=out,
                process_group=0,
            )
            self._running.add(process)
            said = process.communicate()[0]
            self._running.discard(process)
            out.write(said)
        if process.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise SlipwayError(f"image {log.stem}: the build failed\n{tail}\n  log: {log}")
        return said.decode(errors="replace")


def _link(source: str | Path, target: str | Path) -> None:
    """Copies without copying, where both lie on the same file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def _share_blobs(layout: Path) -> None:
    """Keeps a layer that several images have once on the disk."""
    for blob in (layout / "blobs" / "sha256").iterdir():
        same = next(_cache().glob(f"*/[!.]*/blobs/sha256/{blob.name}"), None)
        if same:
            blob.unlink()
            _link(same, blob)


def _share_with_registry(layout: Path) -> None:
    """Keeps once on the disk what the embedded cluster's registry has of an image, too."""
    stored = paths.data() / "registry" / "docker" / "registry" / "v2" / "blobs" / "sha256"
    for blob in (layout / "blobs" / "sha256").iterdir():
        same = stored / blob.name[:2] / blob.name / "data"
        if not same.exists() or same.samefile(blob):
            continue
        partial = layout / f".{blob.name}"
        partial.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # on another file system
            os.link(same, partial)
            partial.rename(blob)


# Pushing


def push(
    registry: str = REGISTRY,
    names: Iterable[str] | None = None,
    *,
    progress: Progress = _silent,
    jobs: int = 2,
) -> dict[str, str]:
    """Pushes built images to the embedded cluster's registry and notes where they are.

    Args:
        registry: host[:port][/path].
        names: images by name; by default all that the platform needs.
        progress: called with (image, what happens to it), from several threads.

    Returns:
        Every image pushed so far: name -> `registry/slipway/<name>@sha256:…`, as it stands in
        `paths.images_file()`.

    Raises:
        SlipwayError: an image has not been built, or the registry refused one.
    """
    file = paths.images_file()
    pushed = deliver(registry, names, progress=progress, jobs=jobs)
    for image in _wanted(names):
        _share_with_registry(image.layout)
    noted: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    noted |= pushed
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(noted, indent=2, sort_keys=True) + "\n")
    partial.rename(file)
    return noted


def deliver(
    registry: str,
    names: Iterable[str] | None = None,
    *,
    progress: Progress = _silent,
    jobs: int = 2,
    login: Path | None = None,
) -> dict[str, str]:
    """Pushes built images, digests preserved; name -> reference of those.

    Args:
        registry: host[:port][/path]; without TLS if it is on this machine.
        login: what `skopeo login` would write; None: what it has written.

    Raises:
        SlipwayError: an image has not been built, or the registry refused one.
    """
    wanted = _wanted(names)
    for image in wanted:
        if not image.built:
            raise SlipwayError(f"image {image.name} has not been built", fix="run `make up`")
    _each(lambda image: _push(image, registry, progress, login), wanted, jobs)
    return {i.name: f"{registry}/slipway/{i.name}@{i.digest}" for i in wanted}


def _is_local(registry: str) -> bool:
    return re.match(r"(localhost|127\.[\d.]+)(:|/|$)", registry) is not None


def _push(image: Image, registry: str, progress: Progress, login: Path | None) -> None:
    # A registry may refuse to write a tag twice, though it be the same.
    if _pushed_digest(image, registry, login) == image.digest:
        progress(image.name, "pushed before")
        return
    started = time.monotonic()
    progress(image.name, "pushing")
    command = ["skopeo", "copy", "--quiet", "--preserve-digests", *_login(login), image.source]
    if _is_local(registry):
        command.insert(2, "--dest-tls-verify=false")
    command.append(_target(image, registry))
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        fix = f"is the registry at {registry} running?"
        if not _is_local(registry):
            fix = f"`skopeo login {registry.partition('/')[0]}`, as somebody who may write there"
        raise SlipwayError(f"image {image.name}: pushing failed\n{done.stderr.strip()}", fix=fix)
    progress(image.name, f"pushed in {time.monotonic() - started:.0f} s")


def _target(image: Image, registry: str) -> str:
    return f"docker://{registry}/slipway/{image.name}:{image.tag}"


def _login(file: Path | None) -> list[str]:
    return [f"--authfile={file}"] if file else []


def _pushed_digest(image: Image, registry: str, login: Path | None) -> str | None:
    """Digest that the registry has under the image's tag."""
    if not _is_local(registry):
        asked = ["skopeo", "inspect", "--no-tags", "--format={{.Digest}}", *_login(login)]
        done = subprocess.run([*asked, _target(image, registry)], capture_output=True, text=True)
        return done.stdout.strip() or None
    host, _, path = registry.partition("/")
    repository = "/".join(filter(None, (path, "slipway", image.name)))
    request = urllib.request.Request(
        f"http://{host}/v2/{repository}/manifests/{image.tag}",
        method="HEAD",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.headers["Docker-Content-Digest"]
    except (urllib.error.URLError, OSError):
        return None
