"""The stages that `kill.py` kills: what each writes into a folder, at a size at which a kill costs little."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from visa.mini.writer import write_mini_visa
from visa.paths import CHECKOUT

TINY = {"normal": 24, "anomaly": 12, "size": 64, "workers": 1}
CHANGING = ("written", "seconds", "cpu_seconds", "images_per_second", "machine", "machines")
CHANGING += ("outputs",)  # digests of files that hold such times
_WRITTEN = re.compile(rb'"written":"[^"]*"')  # in the defect browser's scripts
NOT_COMPARED = (".ipynb", ".pt", ".pickle", ".doctree", ".buildinfo")  # times, or steps on the way
NOT_COMPARED_NAMES = ("stages.csv", "provenance.json")


class Stage:
    """One stage: `begin(shared)` makes what all its runs read, `work(folder)` is what is killed.

    `work` runs in a forked child, or, if `command` is given, as a process of its own with that command.
    """

    def __init__(
        self,
        begin: Callable[[Path], None],
        work: Callable[[Path, Path], None] | None = None,
        command: Callable[[Path, Path], tuple[list[str], dict[str, str]]] | None = None,
    ) -> None:
        self.begin, self.work, self.command = begin, work, command


def digests(folder: Path) -> dict[str, str]:
    """A digest of every file that a user would read, without the times and machines in it."""
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and not f.relative_to(folder).name.startswith(".")]
    files = [f for f in files if f.suffix not in NOT_COMPARED and f.name not in NOT_COMPARED_NAMES]
    return {str(f.relative_to(folder)): hashlib.sha256(_content(f, folder)).hexdigest() for f in files}


def left_over(folder: Path) -> list[str]:
    """Partial files and folders that are still there."""
    return [str(f.relative_to(folder)) for f in folder.rglob("*") if ".partial." in f.name or ".download" in f.name]


def _content(file: Path, folder: Path) -> bytes:
    if file.suffix == ".json":
        return json.dumps(_stable(json.loads(file.read_text(encoding="utf-8")), str(folder)), sort_keys=True).encode()
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, "np") as content:
            about = _stable(json.loads(content.metadata()["visa"]), str(folder))
            tensors = b"".join(content.get_tensor(k).tobytes() for k in sorted(content.keys()))
        return json.dumps(about, sort_keys=True).encode() + tensors
    return _WRITTEN.sub(b"", file.read_bytes()) if file.suffix == ".js" else file.read_bytes()


def _stable(value: object, folder: str) -> object:
    if isinstance(value, dict):
        return {k: _stable(v, folder) for k, v in value.items() if k not in CHANGING}
    if isinstance(value, list):
        return [_stable(v, folder) for v in value]
    return value.replace(folder, "FOLDER") if isinstance(value, str) else value


class SlowServer(BaseHTTPRequestHandler):
    """Serves an archive of many files with ranges, a little at a time."""

    def do_GET(self) -> None:
        body, asked = self.server.body, self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        try:
            for at in range(start, len(body), 1 << 17):
                self.wfile.write(body[at : at + (1 << 17)])
                time.sleep(0.004)
        except OSError:  # killed
            pass
        return None

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _serve(shared: Path) -> None:
    """Start the server as a child that ends with this process; `shared`/url names it."""
    write_mini_visa(shared / "VisA", objects=("fryum", "pcb1"), **TINY)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(shared / "VisA", "VisA")
        for i in range(1500):
            info = tarfile.TarInfo(f"VisA/extra/{i}")
            info.size = 1000 + i
            tar.addfile(info, io.BytesIO(i.to_bytes(4, "big") * 700))
    http = ThreadingHTTPServer(("127.0.0.1", 0), SlowServer)
    http.body, parent = stream.getvalue(), os.getpid()
    (shared / "url").write_text(f"http://127.0.0.1:{http.server_port}/VisA.tar", encoding="utf-8")
    (shared / "sha").write_text(hashlib.sha256(http.body).hexdigest(), encoding="utf-8")
    if os.fork() == 0:
        http.service_actions = lambda: None if os.getppid() == parent else os._exit(0)
        http.serve_forever(poll_interval=0.2)


def _download(shared: Path, folder: Path) -> None:
    from visa.data.archive import download

    download(folder / "VisA", (shared / "url").read_text(), (shared / "sha").read_text(), progress=False)


def _mini(shared: Path) -> None:
    write_mini_visa(shared / "VisA", objects=("fryum",), **TINY)


def _prepare(shared: Path, folder: Path) -> None:
    from visa.data.prepare import prepare

    for split_type in ("1cls", "2cls_highshot", "2cls_fewshot"):
        prepare(split_type, shared / "VisA", folder / "tree", link=False, workers=1)


def _synth(shared: Path, folder: Path) -> None:
    write_mini_visa(folder / "VisA", objects=("pcb1", "fryum"), **TINY)


def _pretrain(shared: Path, folder: Path) -> None:
    from visa.data.source import open_source
    from visa.pretrain import run
    from visa.pretrain.fabric import make_fabric
    from visa.pretrain.settings import configured
    from visa.pretrain.train import pretrain

    run.pretrain = partial(pretrain, save_every=0)  # a checkpoint after every step, of which there are few
    values = {"arch": "resnet18_half", "epochs": 6, "batch_size": 8, "image_size": 32}
    data = run.training_data(open_source(str(shared / "VisA")), "fryum", "", 32)
    run.run_pretraining(configured("simsiam", True, values), data, folder / "pretrain", make_fabric("cpu"))


def _score(shared: Path, folder: Path) -> None:
    from visa.backbone import create_backbone
    from visa.data.images import upright_size
    from visa.data.source import open_source
    from visa.detect import score
    from visa.detect.scores import save_full_maps
    from visa.detect.shared import Context

    source = open_source(str(shared / "VisA"))
    context, rows = Context(create_backbone("resnet18_half").eval(), source.root), []
    setups = ("1cls", "2cls_highshot", "2cls_5shot")
    chosen = ("padim", "patchcore", "probe")
    for s in score.score_setups(context, source, "fryum", folder / "scores", chosen, setups, draws=2):
        rows += score.score_metrics(s)
        if s.maps is not None:
            maps = folder / "scores" / s.setup / s.detector / "maps"
            save_full_maps(maps, s.maps, s.paths, [upright_size(source.root / path) for path in s.paths])
    score.write_metrics(folder / "scores" / "metrics.csv", rows, object="fryum")


def _run(shared: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", "visa_spd", "run", "--pretrainings", "simsiam+spd", "--detectors", "padim"]
    command += ["--setups", "1cls", "--pretrain", "epochs=1", "--pretrain", "batch_size=8"]
    command += ["--pretrain", "image_size=32", "--pretrain", "arch=resnet18_half"]
    own = {"VISA_ROOT": str(shared / "VisA"), "VISA_RUNS": str(folder / "runs"), "VISA_DATA": str(shared / "data")}
    return command, own


PAGES = ("method", "data", "speed", "own_data", "running", "notebooks/01_data")


def _small_book(shared: Path) -> None:
    """A book of few pages with the real settings and extension."""
    clone = shared / "clone"
    made = shutil.ignore_patterns("_build", "notebooks", "generated", "__pycache__")
    shutil.copytree(CHECKOUT / "book", clone / "book", symlinks=True, ignore=made)
    shutil.copy(CHECKOUT / "_config.yml", clone)
    for name in ("visa", "notebooks"):
        shutil.copytree(CHECKOUT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    chapters = "\n".join(f"  - file: {page}" for page in PAGES)
    (clone / "book" / "_toc.yml").write_text(f"format: jb-book\nroot: intro\nchapters:\n{chapters}\n", encoding="utf-8")


def _build(shared: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
    jupyter_book = str(Path(sys.executable).with_name("jupyter-book"))
    command = [jupyter_book, "build", "-q", str(shared / "clone" / "book"), "--path-output", str(folder)]
    return command, {"VISA_RUNS": str(shared / "runs"), "VISA_DATA": str(shared / "data"), "VISA_ROOT": ""}


STAGES = {
    "download": Stage(_serve, _download),
    "prepare": Stage(_mini, _prepare),
    "synth": Stage(_mini, _synth),
    "pretrain": Stage(_mini, _pretrain),
    "score": Stage(_mini, _score),
    "run": Stage(_mini, command=_run),
    "book": Stage(_small_book, command=_build),
}


def launch(stage: Stage, shared: Path, folder: Path) -> Callable[[], int | None]:
    """Start the stage in a process group of its own; returns what polls its exit code. `launch.group` is the group."""
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder.parent / f"{folder.name}.log").open("ab")
    if stage.command:
        command, own = stage.command(shared, folder)
        process = subprocess.Popen(
            command, env=os.environ | own, stdout=log, stderr=log, start_new_session=True, cwd=folder.parent
        )
        launch.group = process.pid
        return process.poll
    child = os.fork()
    if child == 0:
        _in_child(stage, shared, folder, log.fileno())
    os.setpgid(child, child)
    launch.group = child
    return partial(_polled, child)


def _in_child(stage: Stage, shared: Path, folder: Path, log: int) -> None:
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        stage.work(shared, folder)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def _polled(child: int) -> int | None:
    done, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None
