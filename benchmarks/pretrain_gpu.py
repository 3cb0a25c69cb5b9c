"""What a GPU reaches in pre-training: images/s, shares of its network and matrix rates, memory, profiles, input.

    python benchmarks/pretrain_gpu.py

One command, under 8 minutes on any CUDA GPU: ResNet-50, 224 px, bf16, each method with and without SPD, at the largest
batch of 256, 128, ... that simsiam+spd fits in. After each part `--out` holds pretrain_gpu.csv, pretrain_gpu.json (with
provenance) and profile_*.txt; what `--budget` leaves no time for is named there. On a CPU: `--device cpu --smoke`.

- of network: of the images/s that the backbone alone reaches on as many resident views, forward and backward (MoCo's
  key views: forward), channels_last, in batches of one or three, compiled or not, whichever is fastest; without heads,
  augmentation and optimizer.
- of peak: images/s times the step's counted operations, of those a second that a large bf16 matrix product reaches.
- ratio: of the images/s of the same forward and backward alone, on resident random views (benchmarks/step.py).
- input: `resident` images lie on the GPU; else they come from a folder of JPEG files (`--images`, or 500 x 375 pixels
  of noise), decoded by the workers (`cpu`) or by the GPU (`device`), workers' start included.
"""

import argparse
import gc
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import torch
from gpu_report import STARTED, Report, flops
from input import draw_images
from lightning_fabric import Fabric
from step import CLASSES, Parts, measure, seconds, wait
from torch.profiler import ProfilerActivity, profile

from visa.backbone import create_backbone
from visa.pretrain.cost import IMAGENET_IMAGES
from visa.pretrain.fabric import make_fabric
from visa.pretrain.feed import on_device
from visa.pretrain.input.images import ImageFolder
from visa.pretrain.input.loader import Batch, default_workers
from visa.pretrain.settings import METHODS, PretrainSettings, published
from visa.pretrain.spd import SpdSettings
from visa.pretrain.step import Speed
from visa.provenance import machine, write_text


class Bench:
    """The parts of the measurement."""

    def __init__(self, options: argparse.Namespace, report: Report, fabric: Fabric) -> None:
        self.options, self.report, self.fabric, self.device = options, report, fabric, fabric.device
        self.batch = options.batch

    def settings(self, name: str) -> PretrainSettings:
        method, _, spd = name.partition("+")
        o = self.options
        shape = {"arch": o.arch, "image_size": o.image_size, "batch_size": self.batch}
        return published(method, spd=SpdSettings() if spd else None, **shape)

    def parts(self, name: str, mode: str = "eager") -> Parts:
        return Parts(self.settings(name), self.fabric, speed(mode))

    def peak(self) -> None:
        """Operations a second of a bf16 matrix product, the best of some sizes."""
        rates = []
        for n in (256,) if self.options.smoke else (4096, 8192, 16384):
            a, b = (torch.randn(n, n, device=self.device).bfloat16() for _ in range(2))
            taken = [seconds(lambda a=a, b=b: torch.mm(a, b), self.device, 5) for _ in range(6)]
            rates.append(2 * n**3 / statistics.median(taken[1:]))
        self.report.facts["matrix_peak"] = max(rates)

    def fit(self) -> None:
        """Halve the batch until simsiam+spd, which has most to keep, fits."""
        while True:
            try:
                self.parts("simsiam+spd").whole()
                wait(self.device)
                break
            except torch.OutOfMemoryError:
                if self.batch < 4:
                    raise
                self.batch //= 2
            clean(self.device)
        self.report.facts["batch"] = self.batch

    def network(self, mode: str, times: int) -> None:
        """Views/s of the backbone alone, of `times` batches at once: learning, and looking without gradient."""
        side = self.options.image_size
        net = create_backbone(self.options.arch).train().to(self.device, memory_format=torch.channels_last)
        n = times * self.batch
        x = torch.rand(n, 3, side, side, device=self.device).to(memory_format=torch.channels_last)
        if mode == "compiled":
            net.compile()

        def look() -> torch.Tensor:
            with torch.autocast(self.device.type, torch.bfloat16):
                features: torch.Tensor = net(x)
            return features.float().square().mean()

        def learn() -> None:
            net.zero_grad(set_to_none=True)
            look().backward()

        found = {}
        for kind, run in (("learn", learn), ("look", torch.no_grad()(look))):
            taken = [seconds(run, self.device, 3) for _ in range(2 + self.options.repeats)]
            found[kind] = n / statistics.median(taken[2:])
        self.report.networks[f"{mode}, {n} views at once"] = found

    def step(self, name: str, mode: str) -> None:
        """A row for a step on resident images, and its profile."""
        parts = self.parts(name, mode)
        parts.whole()
        memory = self.peak_memory(parts)
        rates = measure(parts, self.options.repeats, self.options.limit)
        self.add(name, "resident", mode, memory_gib=memory, **rates)
        if mode == "eager":
            self.profile(parts, name)

    def peak_memory(self, parts: Parts) -> float | None:
        if self.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        parts.whole()
        return torch.cuda.max_memory_allocated(self.device) / 2**30

    def profile(self, parts: Parts, name: str) -> None:
        cuda = self.device.type == "cuda"
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as seen:
            parts.whole()
            wait(self.device)
        by = f"self_{self.device.type}_time_total"
        table = seen.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=60)
        write_text(self.report.out / f"profile_{name}.txt", table + "\n")

    def decoding(self, root: Path, decoder: str) -> None:
        """Images/s that the input alone delivers to the device."""
        self.add("(none)", decoder, "", images_per_second=self.fed(root, decoder, lambda batch: None))

    def from_disk(self, root: Path, name: str, decoder: str) -> None:
        parts = self.parts(name)
        parts.whole()
        use = lambda batch: parts(batch._replace(labels=batch.labels % CLASSES), 0, 0.0)  # noqa: E731
        rate = self.fed(root, decoder, use)
        self.add(name, decoder, "eager", images_per_second=rate, step_ms=1e3 * self.batch / rate)

    def fed(self, root: Path, decoder: str, use: Callable[[Batch], Any]) -> float:
        """Images/s of `limit` seconds, in which the folder is read as often as it takes."""
        side = self.options.image_size * 9 // 8
        images = ImageFolder(root, side, self.options.workers, decoder=decoder, device=self.device)
        order = ([(k * self.batch + i) % len(images) for i in range(self.batch)] for k in count())
        start, done = time.perf_counter(), 0
        for batch in on_device(images.batches(order), self.device):
            use(batch)
            done += self.batch
            if time.perf_counter() - start > self.options.limit:
                break
        wait(self.device)
        return done / (time.perf_counter() - start)

    def add(self, name: str, source: str, mode: str, **found: Any) -> None:
        row: dict[str, Any] = {"pretraining": name, "input": source, "mode": mode, "batch": self.batch, **found}
        if name.partition("+")[0] in METHODS:
            settings = self.settings(name)
            row["flops_per_image"] = flops(settings, CLASSES)
            row["full_run_hours"] = IMAGENET_IMAGES * settings.epochs / row["images_per_second"] / 3600
        self.report.rows.append(row)


def speed(mode: str) -> Speed:
    return Speed("bf16-mixed", channels_last=True, compile=mode == "compiled")


def plan(bench: Bench, root: Path) -> Iterator[tuple[str, str, Callable[[], None]]]:
    """Kind, name and call of each part, the most telling ones first."""
    methods, decoders = bench.options.methods, ("cpu", "device")
    names = [method + spd for method in methods for spd in ("+spd", "")]
    yield "fact", "matrix peak", bench.peak
    yield "fact", "batch that fits", bench.fit
    for times in (1, 3):
        yield "network", f"network alone, {times} x batch", lambda times=times: bench.network("eager", times)
    for name in names:
        yield "eager", name, lambda name=name: bench.step(name, "eager")
    for decoder in decoders:
        yield "input", f"decoding ({decoder})", lambda decoder=decoder: bench.decoding(root, decoder)
    for name in (names[0], names[-1]):  # the step that sees most views, and the one that sees fewest
        for decoder in decoders:
            call = lambda name=name, decoder=decoder: bench.from_disk(root, name, decoder)  # noqa: E731
            yield "input", f"{name} from JPEG files ({decoder})", call
    if bench.options.compile:  # last, as it takes minutes and may not end in time
        yield "compiled", "network alone, compiled", lambda: bench.network("compiled", 3)
        for name in names:
            yield "compiled", f"{name}, compiled", lambda name=name: bench.step(name, "compiled")


def run_all(bench: Bench, root: Path, budget: float) -> None:
    """Each part that the budget has time for, judged by the longest of its kind before; stops at the budget's end."""
    report, longest = bench.report, {"compiled": 30.0}
    for kind, name, part in plan(bench, root):
        begun = time.monotonic()
        if begun - STARTED + longest.get(kind, 0.0) > budget:
            report.left_out.append(f"{name}: no time left")
            continue
        print(f"{begun - STARTED:5.0f} s  {name}", flush=True)
        try:
            part()
        except KeyboardInterrupt:  # the alarm's, or the user's
            report.left_out.append(f"{name}: interrupted")
            budget = 0.0
        except Exception as error:  # one part that fails must not cost the others
            report.left_out.append(f"{name}: {type(error).__name__}: {error}".partition("\n")[0])
        longest[kind] = max(longest.get(kind, 0.0), time.monotonic() - begun)
        clean(bench.device)
        report.write()


def clean(device: torch.device) -> None:
    """Free what the last part held."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def alarm(budget: float) -> Iterator[None]:
    """Interrupt, as Ctrl-C does, at the budget's end: compilation may take longer than was thought."""
    if not hasattr(signal, "setitimer"):  # Windows
        yield
        return
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, budget - (time.monotonic() - STARTED)))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def hardware(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"device": str(device)}
    card = torch.cuda.get_device_properties(device)
    versions = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {
        "device": card.name,
        "memory_gib": card.total_memory / 2**30,
        "multiprocessors": card.multi_processor_count,
    } | (versions | {"capability": f"{card.major}.{card.minor}"})


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256, help="halved until it fits")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files; drawn if not given")
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--limit", type=float, default=8.0, help="seconds after which a part repeats no more")
    parser.add_argument("--budget", type=float, default=420.0, help="seconds for all")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: try the whole path, on a CPU for instance")
    options = parser.parse_args(given)
    if options.smoke:
        tiny = {"arch": "resnet18_half", "image_size": 32, "batch": 4, "repeats": 2, "limit": 0.5}
        vars(options).update(tiny, workers=min(options.workers, 2))
    options.compile = not options.smoke if options.compile is None else options.compile
    return options


def main() -> None:
    options = arguments()
    fabric = make_fabric(options.device)
    asked = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    report = Report(options.out, {"asked": asked, "hardware": hardware(fabric.device), "machine": machine()})
    with tempfile.TemporaryDirectory() as temporary, speed("eager").applied():
        root = options.images or draw_images(Path(temporary), 16 if options.smoke else 128)
        with suppress(KeyboardInterrupt), alarm(options.budget):
            run_all(Bench(options, report, fabric), root, options.budget)
    report.write()
    report.show()


if __name__ == "__main__":
    main()
