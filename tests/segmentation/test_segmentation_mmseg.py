"""FlexiViT in a stock mmseg config, trained by mmengine's own Runner."""

import pytest
import torch
from mmseg_tools import CLASSES, CROP, config, pictures, whole_pictures

from tasks.segmentation import mmcv_lite


@pytest.fixture
def folder(tmp_path):
    return pictures(tmp_path)


def test_a_stock_config_trains_with_mmengines_runner(folder):
    from mmengine.config import Config
    from mmengine.runner import Runner

    runner = Runner.from_cfg(Config(config(folder, grid=6)))
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.train()
    assert runner.iter == 2
    after = runner.model.state_dict()
    for name in ("decode_head.conv_seg.weight", "backbone.encoder.trunk.patch_embed.proj.weight"):
        assert after[name].isfinite().all() and not torch.equal(before[name], after[name]), name
    # the trained model runs at any other grid
    model = runner.model.eval()
    images = torch.randn(1, 3, CROP, CROP)
    for grid in (4, 8, (6, 12)):
        model.backbone.grid = grid
        assert model.backbone(images)[0].shape[-2:] == ((grid, grid) if isinstance(grid, int) else grid)
        assert model(images).shape == (1, CLASSES, *((grid, grid) if isinstance(grid, int) else grid))


def test_the_map_is_that_of_the_backbone_and_patch_follows_the_image():
    from mmseg.registry import MODELS

    from tasks.segmentation import mmseg_backbone  # noqa: F401

    model = MODELS.build({"type": "FlexiViT", "name": "flexivit_nano", "patch": 8, "pretrained": False}).eval()
    images = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        (got,) = model(images)
        want = model.encoder(images, (6, 8)).map
    assert got.shape == (1, model.embed_dim, 6, 8)
    torch.testing.assert_close(got, want.permute(0, 3, 1, 2))
    with pytest.raises(ValueError, match="patch 8 does not divide images of 50x48"):
        model(torch.randn(1, 3, 48, 50))


def test_preprocessor_normalises_as_the_backbone_does():
    from mmseg.registry import MODELS

    from backbones import build_backbone
    from tasks.segmentation.mmseg_backbone import preprocessor

    picture = torch.randint(0, 256, (3, CROP, CROP), dtype=torch.uint8)  # BGR, as mmseg reads it
    made = MODELS.build(preprocessor("flexivit_nano", CROP))
    got = made({"inputs": [picture], "data_samples": None}, training=False)["inputs"]
    encoder = build_backbone("flexivit_nano", pretrained=False)
    torch.testing.assert_close(got, encoder.normalise(picture.flip(0)[None]), atol=1e-5, rtol=1e-5)


def test_grid_or_patch_is_needed():
    from tasks.segmentation.mmseg_backbone import FlexiViT

    with pytest.raises(ValueError, match="either grid or patch"):
        FlexiViT("flexivit_nano")


def test_ops_that_are_not_compiled_say_so_when_called():
    import mmcv
    from mmcv.ops import nms  # noqa: F401

    if mmcv_lite.compiled():
        pytest.skip("a compiled mmcv is installed")
    assert mmcv.__version__
    from mmcv import _ext

    with pytest.raises(NotImplementedError, match="mmcv op 'nms' needs a compiled mmcv"):
        _ext.nms(torch.zeros(1, 4))


def built(**more):
    from mmseg.registry import MODELS

    from tasks.segmentation import mmseg_backbone  # noqa: F401

    return MODELS.build({"type": "FlexiViT", "name": "flexivit_nano", "grid": 6, **more})


def test_maps_of_several_blocks_are_those_of_the_encoder():
    model, images = built(out_indices=(0, 2, -1)).eval(), torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        first, third, last = model(images)
        features = model.encoder(images, 6, taps=(0, 2))
    torch.testing.assert_close(first, features.taps[0].permute(0, 3, 1, 2))
    torch.testing.assert_close(third, features.taps[2].permute(0, 3, 1, 2))
    torch.testing.assert_close(last, features.map.permute(0, 3, 1, 2))
    with pytest.raises(IndexError, match="no block 6; flexivit_nano has 6"):
        built(out_indices=(6,))


@pytest.mark.parametrize("stages", [-1, 0, 2])
def test_frozen_stages_get_no_gradient_and_stay_in_evaluation(stages):
    model = built(frozen_stages=stages).train()
    model(torch.randn(1, 3, 48, 48))[0].sum().backward()
    trunk = model.encoder.trunk
    got = {n for n, p in model.encoder.trunk.named_parameters() if p.grad is not None}
    frozen = {f"blocks.{i}." for i in range(max(0, stages))}
    assert ("pos_embed" in got) == ("patch_embed.proj.weight" in got) == (stages < 0)
    assert {n for n in dict(trunk.named_parameters()) if n.startswith("blocks.")} - got == {
        n for n in dict(trunk.named_parameters()) if n.startswith(tuple(frozen or ("none",)))
    }
    assert [b.training for b in trunk.blocks] == [i >= stages for i in range(6)]
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)  # or several processes would hang
    with pytest.raises(ValueError, match="frozen_stages 7 is not one of -1 to 6"):
        built(frozen_stages=7)


def test_a_checkpoint_names_each_tensor_once_and_loads_where_it_was():
    model, other = built(), built(pretrained=False)
    state = model.state_dict()
    assert state and all(name.startswith("encoder.") for name in state)
    assert not other.load_state_dict(state).missing_keys
    images = torch.randn(1, 3, 48, 48)
    assert torch.equal(model.eval()(images)[0], other.eval()(images)[0])
    checked, plain = built(with_cp=True).train(), built().train()
    for each in (checked, plain):
        each(images)[0].square().sum().backward()
    torch.testing.assert_close(checked.encoder.base_kernel.grad, plain.encoder.base_kernel.grad)


def test_layer_decay_of_mmseg_reads_the_depth(folder):
    import mmseg.engine  # noqa: F401
    from mmengine.optim import build_optim_wrapper

    from tasks.segmentation import mmseg_backbone  # noqa: F401

    model = torch.nn.Module()
    model.backbone, model.decode_head = built(), torch.nn.Linear(2, 2)
    wrapper = build_optim_wrapper(
        model,
        {
            "type": "OptimWrapper", "constructor": "LearningRateDecayOptimizerConstructor",
            "paramwise_cfg": {"num_layers": 6, "decay_rate": 0.5, "decay_type": "layer_wise"},
            "optimizer": {"type": "AdamW", "lr": 1.0},
        },
    )  # fmt: skip
    rate = {id(p): g["lr"] for g in wrapper.optimizer.param_groups for p in g["params"]}
    trunk = model.backbone.encoder.trunk
    assert rate[id(trunk.patch_embed.proj.weight)] == rate[id(trunk.pos_embed)] == rate[id(trunk.cls_token)] == 0.5**7
    assert [rate[id(b.mlp.fc1.weight)] for b in trunk.blocks] == [0.5 ** (6 - i) for i in range(6)]
    assert rate[id(trunk.norm.weight)] == rate[id(model.decode_head.weight)] == 1


def test_pictures_that_a_grid_does_not_divide(folder):
    with pytest.raises(ValueError, match="grid 6x6 does not divide images of 50x48 px; .*mode='slide'"):
        built()(torch.randn(1, 3, 48, 50))
    # whole pictures of any size, padded to multiples of the patch
    from mmengine.config import Config
    from mmengine.runner import Runner

    whole = config(folder, grid=None)
    tested = whole_pictures(whole)
    del whole["model"]["backbone"]["grid"], whole["train_dataloader"], whole["train_cfg"], whole["optim_wrapper"]
    whole["model"]["backbone"]["patch"] = 12
    whole["model"]["data_preprocessor"] = {
        "type": "FlexiViTPreprocessor", "name": "flexivit_nano", "size": CROP, "test_cfg": {"size_divisor": 12},
    }  # fmt: skip
    whole |= {"test_dataloader": tested, "test_evaluator": {"type": "IoUMetric"}, "test_cfg": {"type": "TestLoop"}}
    assert "mIoU" in Runner.from_cfg(Config(whole)).test()
