"""Every setup with every detector: what is trained on, what is written, what is resumed, and the metrics' rows."""

from dataclasses import replace

import numpy as np
import pytest

from visa.backbone import create_backbone
from visa.data.setups import load_splits, splits
from visa.data.source import open_source
from visa.detect import DETECTORS, probe, score
from visa.detect.finetune import TwoClass
from visa.detect.score import score_metrics, score_setups, score_split, write_metrics
from visa.detect.scores import Scores, load_scores
from visa.detect.shared import Context, ScoreSettings
from visa.errors import VisaError
from visa.provenance import read_sidecar

TINY = TwoClass(size=(32, 32), batch_size=4, epochs=1, min_steps=2, precision="32-true")


@pytest.fixture
def source(mini_root, monkeypatch):
    monkeypatch.setattr(probe, "SIZE", (32, 32))
    return open_source(str(mini_root))


def context(source, **changes):
    settings = ScoreSettings(0, 0.1, replace(TINY, **changes))
    return Context(create_backbone("resnet18_half").eval(), source.root, settings, size=(64, 64))


@pytest.mark.slow
def test_every_detector_scores_the_test_part_of_each_setup_it_belongs_to(source, tmp_path, capsys):
    ours = context(source)
    before = {k: v.clone() for k, v in ours.backbone.state_dict().items()}
    found = list(score_setups(ours, source, "fryum", tmp_path, draws=2))
    expected = [("1cls", d, 0) for d in ("padim", "patchcore")]
    for setup, draw in (("2cls_highshot", 0), ("2cls_5shot", 0), ("2cls_5shot", 1)):
        expected += [(setup, d, draw) for d in ("probe", "classifier", "unet")]
    assert [(s.setup, s.detector, s.draw) for s in found] == expected
    for scores in found:
        test = splits(source, "fryum", scores.setup)[scores.draw].test
        assert scores.paths == [s.image for s in test]
        assert scores.labels.tolist() == [s.label == "anomaly" for s in test]
        assert scores.known.all()
        assert (scores.maps is None) == (scores.detector in ("probe", "classifier"))
        if scores.maps is not None:
            assert scores.maps.shape == scores.masks.shape == (len(test), 64, 64)
            assert scores.masks.any(axis=(1, 2)).tolist() == scores.labels.astype(bool).tolist()
        file = tmp_path / scores.setup / scores.detector / f"draw{scores.draw}" / "scores.npz"
        np.testing.assert_array_equal(load_scores(file).image_scores, scores.image_scores)
        training = read_sidecar(file).get("training")
        assert (training is None) == (scores.detector not in ("classifier", "unet"))
        assert not training or (
            len(training["losses"]) >= 2 and training["failed"] == (training["ap"] < training["fitted"])
        )
    assert "2cls_10shot is left out: fryum has 20 normal and 6 anomalous" in capsys.readouterr().out
    assert load_splits(tmp_path / "2cls_highshot" / "splits.json") == splits(source, "fryum", "2cls_highshot")
    assert not ours.backbone.training
    assert all(before[k].equal(v) for k, v in ours.backbone.state_dict().items()), "the backbone stays as it is"


@pytest.mark.parametrize("detector", ["probe", "classifier", "unet"])
def test_test_images_influence_no_other_score(source, detector):
    (split,) = splits(source, "fryum", "2cls_highshot")
    whole = score_split(context(source), detector, split)
    part = score_split(context(source), detector, replace(split, test=split.test[2:6]))
    np.testing.assert_allclose(part.image_scores, whole.image_scores[2:6], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_scores_anew_only_what_changed(source, tmp_path, monkeypatch):
    chosen = {"detectors": ("probe", "classifier"), "setups": ("2cls_highshot",)}

    def scored(**changes):
        return score_setups(context(source, **changes), source, "fryum", tmp_path, **chosen)

    def trained(**changes):
        made.clear()
        list(scored(**changes))
        return made

    stopped = scored()
    first = next(stopped)
    stopped.close()
    made = []
    monkeypatch.setattr(score, "score_split", lambda c, d, s: made.append(d) or score_split(c, d, s))
    assert trained() == ["classifier"]
    assert trained() == []
    np.testing.assert_array_equal(next(scored()).image_scores, first.image_scores)
    assert trained(flip=0.2) == ["classifier"], "the probe reads no such setting"
    (tmp_path / "2cls_highshot" / "probe" / "draw0" / "scores.npz.json").unlink()
    assert trained(flip=0.2) == ["probe"], "scores without their sidecar are unfinished"
    monkeypatch.setitem(DETECTORS, "probe", replace(DETECTORS["probe"], version=99))
    assert trained(flip=0.2) == ["probe"], "scores of another version are made anew"


def test_anomalies_without_masks_train_the_classifier_but_not_the_u_net(source, capsys):
    (split,) = splits(source, "fryum", "2cls_highshot")
    train = tuple(replace(s, mask="") if i % 2 else s for i, s in enumerate(split.train))
    anomaly = next(s for s in split.test if s.label == "anomaly")
    test = tuple(replace(s, mask="") if s == anomaly else s for s in split.test)
    unmasked = replace(split, train=train, test=test)
    score_split(context(source), "classifier", unmasked)
    assert not capsys.readouterr().out
    scores = score_split(context(source), "unet", unmasked)
    assert "anomalies without a mask do not train the U-Net" in capsys.readouterr().out
    assert [p for p, known in zip(scores.paths, scores.known, strict=True) if not known] == [anomaly.image]
    none = replace(split, train=tuple(replace(s, mask="") for s in split.train))
    with pytest.raises(VisaError, match="0 usable anomalous"):
        score_split(context(source), "unet", none)


def test_an_unknown_name_is_told_in_one_sentence(source, tmp_path):
    for wrong in ({"detectors": ("resnet",)}, {"setups": ("2cls",)}):
        with pytest.raises(VisaError, match="unknown"):
            next(score_setups(context(source), source, "fryum", tmp_path, **wrong))


def scored(maps=True, known=(True,) * 6):
    """Two normal images and four anomalous ones, of which the last is scored lowest of all."""
    values = np.array([0.1, 0.2, 0.5, 0.6, 0.7, 0.0], np.float32)
    masks = np.zeros((6, 4, 4), np.uint8)
    masks[2:, 1, 1] = 1
    pixels = 0.01 * values[:, None, None] + masks * values[:, None, None]
    paths, labels = [f"fryum/{i}.JPG" for i in range(6)], np.array([0, 0, 1, 1, 1, 1], np.uint8)
    given = (pixels, masks) if maps else (None, None)
    about = (np.array(known), "2cls_5shot", "fryum", "unet" if maps else "classifier", 2)
    return Scores(paths, labels, values, *given, *about)


def values(rows, level):
    return {(r["defect"], r["metric"]): r["value"] for r in rows if r["level"] == level}


def test_metrics_are_of_all_anomalies_and_of_those_that_show_each_defect(tmp_path):
    defects = {"fryum/2.JPG": ("burnt",), "fryum/3.JPG": ("burnt", "scratch"), "fryum/5.JPG": ("scratch",), "x": ("y",)}
    rows = score_metrics(scored(), defects)
    assert {(r["setup"], r["draw"], r["detector"]) for r in rows} == {("2cls_5shot", 2, "unet")}
    write_metrics(tmp_path / "m.csv", rows, dataset="VisA", object="fryum", pretraining="random", seed=0)
    lines = (tmp_path / "m.csv").read_text().splitlines()
    assert lines[0] == "dataset,object,setup,draw,pretraining,seed,detector,defect,level,metric,value"
    assert lines[1] == "VisA,fryum,2cls_5shot,2,random,0,unet,,image,auroc,0.75"
    image = values(rows, "image")
    assert image["", "auroc"] == pytest.approx(6 / 8)
    assert image["burnt", "auroc"] == 1
    assert image["scratch", "auroc"] == pytest.approx(2 / 4)
    assert {d for d, _ in image} == {"", "burnt", "scratch"}
    assert {m for _, m in image} == {"auroc", "au_pr", "ap", "f1_max"}
    assert {m for _, m in values(rows, "pixel")} == {"auroc", "au_pr", "ap", "f1_max", "au_pro"}
    assert values(rows, "pixel")["burnt", "auroc"] == 1 > values(rows, "pixel")["scratch", "auroc"]
    assert {r["level"] for r in score_metrics(scored(maps=False), defects)} == {"image"}


def test_pixel_metrics_are_of_images_whose_mask_is_known(capsys):
    rows = score_metrics(scored(known=(True, True, True, True, True, False)))
    assert values(rows, "pixel")["", "auroc"] == 1
    assert values(rows, "image")["", "auroc"] < 1
    assert not capsys.readouterr().out
    rows = score_metrics(scored(known=(True, True, False, False, False, False)))
    assert {r["level"] for r in rows} == {"image"}
    assert "no anomalous test image has a mask, so pixel metrics are left out" in capsys.readouterr().out
