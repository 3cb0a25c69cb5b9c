"""What version 1 computed, in numbers: a change of the code that moves one of them is no mere tidying.

The fine-tuned networks' are of version 2, whose recipe is another.

`python tests/test_records.py` writes records/NAME.json anew. QUANTITIES names each quantity's relative and absolute
tolerance, None for equality; they hold on other processors and for other numbers of threads. Other image encoders
change nothing: pixels are compared, not files. The real record also needs VISA_TEST_WEIGHTS=FILE, which
`python benchmarks/weights.py lite0 FILE` writes, beside VISA_TEST_ROOT.
"""

import hashlib
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from PIL import Image


def prepared_trees(root, folder):
    """Which file of the root each file of a tree holds: an image's bytes, a mask's pixels as 0 and 255."""
    from visa.data.prepare import prepare

    def content(file):
        is_mask = file.suffix == ".png"
        return hashlib.sha256((np.array(Image.open(file)) > 0).tobytes() if is_mask else file.read_bytes()).digest()

    sources, found = {content(f): f.relative_to(root) for f in sorted(root.glob("*/Data/*/*/*"))}, {}
    for split_type in ("1cls", "2cls_highshot", "2cls_fewshot"):
        tree = prepare(split_type, root, folder).folder
        files = sorted(f for f in tree.rglob("*") if f.is_file())
        assert all(Image.open(f).getcolors() and Image.open(f).getextrema() == (0, 255) for f in tree.rglob("*.png"))
        lines = "".join(f"{f.relative_to(tree).as_posix()} {sources[content(f)].as_posix()}\n" for f in files)
        found[split_type] = [len(files), hashlib.sha256(lines.encode()).hexdigest()]
    return found


def mini_visa(root, folder):
    """A normal and an anomalous image of each object: means of 3 x 3 fields, share of each class."""
    from visa.mini import MODULES, render

    found = {}
    for name, kind in ((name, kind) for name in MODULES for kind in ("Normal", "Anomaly")):
        image, mask = render(name, kind, 1, size=96)
        fields = image.reshape(3, 32, 3, 32, 3).mean((1, 3), dtype=np.float64)
        found[f"{name} {kind}"] = [*fields.ravel(), *np.bincount(mask.ravel(), minlength=9) / mask.size]
    return found


def metrics(root, folder):
    """Every figure, on scores with ties."""
    from visa import metrics as m

    rng = np.random.default_rng(0)
    masks = np.zeros((16, 24, 24), np.uint8)
    for i, (top, left, height, width) in enumerate(rng.integers(3, 10, (8, 4))):
        masks[i, top : top + height, left : left + width] = masks[i, 20 : 20 + i % 3, 5:9] = 1
    first, second = (rng.integers(0, 40, masks.shape) / 40 + strength * masks for strength in (0.3, 0.36))
    labels = np.arange(60) % 3 == 0
    scores, others = rng.integers(0, 12, (2, 60)) / 12 + [[0.55], [0.05]] * labels
    reference = m.compute_classification_metrics(scores, labels), m.compute_localization_metrics(first, masks)
    return {
        "image": m.image_metrics(scores, labels),
        "pixel": [m.pixel_metrics(first, masks, max_fpr) for max_fpr in (0.3, 0.05)],
        "reference": [{k: summary(v) for k, v in figures.items()} for figures in reference],
        "intervals": [m.image_intervals(scores, labels, 100), m.pixel_intervals(first, masks, resamples=100)],
        "delong": m.delong(others, scores, labels),
        "compared images": m.compare_images(others, scores, labels, 100),
        "compared pixels": m.compare_pixels(first, second, masks, resamples=100),
    }


def detectors(root, folder):
    """Scores of pcb1's test images by each detector on a random backbone."""
    from visa.backbone import FeatureMaps
    from visa.detect.deploy import make_detector
    from visa.detect.probe import LAYERS, fit_probe, pooled_features

    train, test, *_ = split_images(root, "1cls")
    backbone, found = random_backbone(train), {}
    for name, settings in (("padim", {}), ("patchcore", {"ratio": 0.05})):
        detector = make_detector(name, backbone, settings=settings).fit((train.float() / 255).split(8))
        scores, maps = detector.score(test.float() / 255)
        found[f"{name} {settings}"] = [scores.tolist(), summary(maps)]
    train, test, _, labels = split_images(root, "2cls_highshot")
    extract = FeatureMaps(random_backbone(train), LAYERS)
    features = [pooled_features(extract, (part.float() / 255).split(8)) for part in (train, test)]
    return found | {"probe": fit_probe(features[0], labels).decision_function(features[1]).tolist()}


def fine_tuning(root, folder):
    """Test scores of a classifier and a U-Net after six steps."""
    from visa.detect import classifier, finetune, unet

    train, test, masks, labels = split_images(root, "2cls_highshot")
    settings = finetune.TwoClass(size=(64, 96), epochs=1, min_steps=6, lr=1e-4, precision="32-true")
    classified, curve = classifier.fit_classifier(random_backbone(train), train, labels, settings)
    segmented, others = unet.fit_unet(random_backbone(train), train, masks, settings)
    scores, maps = unet.score_unet(segmented, test, (64, 96))
    return [curve, others, finetune.predict(classified, test, "32-true").tolist(), scores.tolist(), summary(maps)]


def losses(root, folder, eta=0.1):
    """The terms of each pre-training's first loss."""
    from visa.pretrain.augment import Draws
    from visa.pretrain.settings import build
    from visa.pretrain.train import draw_views

    found = {}
    for method, spd in ((m, spd) for m in ("simsiam", "mocov2", "simclr", "supervised") for spd in (False, True)):
        s, draws = small(method, eta if spd else None), Draws(torch.Generator().manual_seed(3))
        views = draw_views(smooth(8, 40), torch.arange(8) % 4, 32, s.strong, method != "supervised", s.spd, draws)
        terms = build(s, classes=4).train()(views)
        found[method + "+spd" * spd] = {name: terms[name].item() for name in ("base", "spd", "loss") if name in terms}
    return found


def pretraining(root, folder):
    """SimSiam with SPD after twenty steps: loss terms, and how far each tensor has moved, beside its norm before."""
    from visa.pretrain import train
    from visa.pretrain.fabric import make_fabric
    from visa.pretrain.images import ImagesInMemory
    from visa.pretrain.settings import build

    images = ImagesInMemory((smooth(40, 36) * 255).round().to(torch.uint8))
    settings = small("simsiam", 0.1, epochs=4, base_lr=0.002, weight_decay=0.1)
    result = train.Training(images, settings, folder / "checkpoint.pt", make_fabric("cpu")).run()
    start = build(settings, images.classes).state_dict()
    moved = {k: [(v - start[k]).float().norm(), start[k].float().norm()] for k, v in result.method.state_dict().items()}
    return {"curves": [[row[k] for k in ("base", "spd", "loss")] for row in result.curves], **moved}


def exported(root, folder):
    """Names, types, shapes and bytes of an export's tensors."""
    from safetensors.torch import load_file

    from visa.backbone import create_backbone, save_weights
    from visa.export import export

    backbone, digest = create_backbone("resnet18"), hashlib.sha256()
    for i, tensor in enumerate(backbone.state_dict().values()):
        tensor.copy_(((torch.arange(tensor.numel()) + i) % 251 / 256).view_as(tensor))
    about = {"settings": {"arch": "resnet18", "seed": 3}, "pretraining": "simsiam+spd", "scope": "pcb1"}
    save_weights(backbone, folder / "backbone.safetensors", about)
    file = export(folder / "backbone.safetensors", folder / "export")
    for name, tensor in sorted(load_file(file).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return {file.name: digest.hexdigest()}


def real_fryum(root, folder):
    """Figures and first scores of the real fryum with EfficientNet-Lite0's ImageNet weights."""
    from visa.backbone import load_backbone
    from visa.data.setups import splits
    from visa.data.source import open_source
    from visa.detect.score import score_metrics, score_split
    from visa.detect.shared import Context

    backbone = load_backbone("timm/tf_efficientnet_lite0", Path(os.environ["VISA_TEST_WEIGHTS"]))
    found, context = {}, Context(backbone, root)
    for detector, setup in (("padim", "1cls"), ("patchcore", "1cls"), ("probe", "2cls_highshot")):
        scores = score_split(context, detector, splits(open_source(str(root)), "fryum", setup)[0])
        figures = {f"{row['level']} {row['metric']}": row["value"] for row in score_metrics(scores)}
        found[detector] = {**figures, "scores": scores.image_scores[:10].tolist()}
    return found


def summary(array):
    """A number as it is; of an array shape, mean, deviation and eight values."""
    x = np.asarray(array, np.float64)
    return [*x.shape, x.mean(), x.std(), *x.flat[np.linspace(0, x.size - 1, 8).astype(int)]] if x.ndim else x.item()


def smooth(count, side):
    """Soft random images in [0,1]: N,3,S,S."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, side, mode="bilinear")


def small(method, eta, **changes):
    """Settings of a small pre-training, with SPD if it has a weight."""
    from visa.pretrain.settings import published
    from visa.pretrain.spd import SpdSettings

    sizes = {"arch": "resnet18_half", "image_size": 32, "batch_size": 8, "queue": 24, "bn_group": 4}
    return published(method, **sizes, **changes, spd=SpdSettings(eta=eta) if eta else None)


def split_images(root, split_type):
    """Training and test images of pcb1, 64 x 96, and the training masks and labels."""
    from visa.data.dataset import load_images, load_masks
    from visa.data.splits import read_split, select, split_file

    rows = select(read_split(split_file(root, split_type)), object="pcb1")
    train, test = (select(rows, split=part) for part in ("train", "test"))
    labels = torch.tensor([s.label == "anomaly" for s in train], dtype=torch.long)
    images = (load_images(root, part, (64, 96)) for part in (train, test))
    return *images, load_masks(root, train, (64, 96))[0], labels


def random_backbone(images):
    from visa.backbone import calibrate_batch_norm, create_backbone

    backbone = create_backbone("resnet18_half", seed=0)
    calibrate_batch_norm(backbone, [images.float() / 255])
    return backbone


QUANTITIES = {
    prepared_trees: None,
    mini_visa: (1e-4, 1e-5),  # a processor may round a pixel otherwise
    metrics: (1e-9, 1e-12),  # double precision
    detectors: (1e-4, 1e-5),  # the probe's solver stops that near to its goal
    fine_tuning: (1e-2, 1e-3),  # Adam divides small gradients by their size, and their rounding with them
    losses: (1e-5, 5e-6),  # cosines cancel
    pretraining: (1e-3, 2e-5),  # each step adds to the rounding of the last
    exported: None,
    real_fryum: (1e-4, 1e-4),  # JPEG decoders round
}


def read(quantity):
    return json.loads((Path(__file__).parent / f"records/{quantity.__name__}.json").read_text())


def close(quantity, found):
    """What equals `found` within the quantity's tolerance: a flat table."""
    table, tolerance = flat(json.loads(json.dumps(found, default=float))), QUANTITIES[quantity]
    return pytest.approx(table, *tolerance) if tolerance else table


def flat(value, at=""):
    if not isinstance(value, dict | list):
        return {at: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {place: v for key, part in parts for place, v in flat(part, f"{at}/{key}").items()}


# Few images, none of which another linear algebra library renders otherwise: the records must not depend on that.
RENDERED = {"objects": ("pcb1", "fryum"), "normal": 24, "anomaly": 12, "size": 96, "workers": 1}


@pytest.fixture(scope="session")
def recorded_root(tmp_path_factory):
    from visa.mini import write_mini_visa

    return write_mini_visa(tmp_path_factory.mktemp("recorded") / "VisA", **RENDERED)


MARKS = {real_fryum: pytest.mark.real, pretraining: pytest.mark.slow}


@pytest.mark.parametrize("quantity", [pytest.param(q, marks=MARKS.get(q, ())) for q in QUANTITIES])
def test_it_is_as_recorded(quantity, request, tmp_path):
    if quantity is real_fryum and not os.environ.get("VISA_TEST_WEIGHTS"):
        pytest.skip("VISA_TEST_WEIGHTS names no file")
    root = request.getfixturevalue("real_root" if quantity is real_fryum else "recorded_root")
    assert flat(read(quantity)) == close(quantity, quantity(root, tmp_path))


def test_records_tell_an_eta_that_is_a_hundredth_wrong():
    wrong = losses(None, None, eta=0.101)
    for method, terms in read(losses).items():
        assert (flat(terms) == close(losses, wrong[method])) is ("spd" not in terms), method


if __name__ == "__main__":
    from visa.mini import write_mini_visa

    torch.set_num_threads(1)  # as in the tests
    with TemporaryDirectory() as made:
        os.environ["VISA_DATA"], mini = f"{made}/data", Path(made, "VisA")
        write_mini_visa(mini, **RENDERED)
        for q in QUANTITIES:
            if q is not real_fryum or "VISA_TEST_WEIGHTS" in os.environ:
                own = Path(made, q.__name__)
                own.mkdir()
                root = Path(os.environ["VISA_TEST_ROOT"]) if q is real_fryum else mini
                record = json.loads(json.dumps(q(root, own), default=float))
                items = record.items() if isinstance(record, dict) else enumerate(record)
                lines = [f'"{k}": {json.dumps(v)}' for k, v in items]
                (Path(__file__).parent / f"records/{q.__name__}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
