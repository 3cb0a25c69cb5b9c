"""Backbones: names, seeds, feature maps, and weights that load or are refused with a sentence."""

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from visa.backbone import (
    FeatureMaps,
    check_stages,
    create_backbone,
    feature_width,
    load_backbone,
    load_weights,
    pick_device,
    save_weights,
)
from visa.errors import VisaError


@pytest.fixture(scope="module")
def resnet():
    return create_backbone("resnet18", seed=1)


def test_weights_come_from_and_go_to_torchvision(tmp_path):
    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = load_backbone("resnet18", tmp_path / "w.pth")
    save_weights(ours, tmp_path / "w.safetensors", {"data": "none"}, theirs.fc)
    back = torchvision.models.resnet18()
    back.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=True)
    x = torch.rand(2, 3, 64, 64)
    assert torch.allclose(back.eval()(x), theirs.eval()(x))
    theirs.fc = torch.nn.Identity()
    assert torch.allclose(ours(x), theirs(x))


@pytest.mark.parametrize(
    ("arch", "width"),
    [
        ("resnet50", 2048),
        ("mobilenet_v2", 1280),
        ("densenet121", 1024),
        ("regnet_y_400mf", 440),
        ("shufflenet_v2_x0_5", 1024),
        ("googlenet", 1024),
        ("timm/tf_efficientnet_lite0", 1280),
    ],
)
def test_feature_maps_have_the_strides_of_a_resnet(arch, width):
    backbone = create_backbone(arch)
    maps = FeatureMaps(backbone, ("layer1", "layer2", "layer3", "layer4"))(torch.rand(1, 3, 64, 96))
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert feature_width(backbone) == width


@pytest.mark.parametrize(("arch", "options"), [("mnasnet0_5", {}), ("googlenet", {"init_weights": False})])
def test_versioned_modules_load_and_auxiliary_classifiers_are_skipped(arch, options, tmp_path):
    theirs = torchvision.models.get_model(arch, weights=None, **options)
    torch.save(dict(theirs.state_dict()), tmp_path / "w.pth")
    ours = load_weights(create_backbone(arch, seed=1), tmp_path / "w.pth").eval()
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_bad_weights_are_named(resnet, tmp_path):
    state = resnet.state_dict()
    cases = {
        "short.safetensors": ({k: v for k, v in state.items() if k != "conv1.weight"}, "1 weights missing"),
        "extra.safetensors": ({**state, "more": torch.zeros(1)}, "1 unknown"),
        "shape.safetensors": ({**state, "conv1.weight": torch.zeros(1)}, "another shape"),
        "nan.safetensors": ({**state, "conv1.weight": state["conv1.weight"] * float("nan")}, "NaN"),
    }
    for name, (content, sentence) in cases.items():
        save_file({k: v.contiguous() for k, v in content.items()}, tmp_path / name)
        with pytest.raises(VisaError, match=sentence):
            load_weights(create_backbone("resnet18"), tmp_path / name)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "nan.safetensors").read_bytes()[:1000])
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"state_dict": [1]}, tmp_path / "list.pth")
    torch.save({1: torch.zeros(1)}, tmp_path / "number.pth")
    for name in ("cut.safetensors", "empty.pth", "list.pth", "number.pth", "absent.pth"):
        with pytest.raises(VisaError, match=r"cannot be read as weights|holds no state dict|no weights at"):
            load_weights(resnet, tmp_path / name)


def test_code_in_a_weights_file_is_not_executed(resnet, tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"conv1.weight": Attack()}, tmp_path / "evil.pth")
    with pytest.raises(VisaError, match="never executed"):
        load_weights(resnet, tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: create_backbone("resnet19"), "resnet18, resnet50"),
        (lambda: create_backbone("timm/no_such_model"), "timm knows no model"),
        (lambda: FeatureMaps(create_backbone("timm/vit_tiny_patch16_224"))(torch.rand(1, 3, 224, 224)), "no stages of"),
        (lambda: check_stages(create_backbone("timm/swin_tiny_patch4_window7_224")), "cannot take images of 64"),
        (lambda: pick_device("cuda:99"), "take auto or cpu"),
    ],
)
def test_unknown_names_list_the_choices(call, said):
    with pytest.raises(VisaError, match=said):
        call()
