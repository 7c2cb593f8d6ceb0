"""Names, files and what goes wrong with them."""

import hashlib
import http.server
import inspect
import re
import socket
import threading

import numpy as np
import pytest
import torch
from conftest import tiny_leaves

from backbones import (
    BackboneSpec,
    Features,
    availability,
    backbone_spec,
    build_backbone,
    download_of,
    list_backbones,
    register_backbone,
    registry,
)
from backbones.contract import WeightsError
from backbones.flexible import FlexiBackbone
from backbones.weights import download
from backbones.weights.download import fetch
from backbones.weights.npz import npz_shape, read_npz
from backbones.weights.own import save_backbone
from backbones.zoo import options, timm_models
from backbones.zoo.files import build_from_npz, build_from_safetensors
from backbones.zoo.state_dicts import build_from_checkpoint


def test_published_names_are_listed() -> None:
    assert list_backbones("flexivit_?_i1k") == ["flexivit_b_i1k", "flexivit_l_i1k", "flexivit_s_i1k"]
    assert list_backbones("flexivit_b_i21k*") == [f"flexivit_b_i21k_{e}ep" for e in (1000, 300, 90)]
    assert backbone_spec("vit_b30_i21k").native_grid == 8 and backbone_spec("vit_b16_i21k").native_grid == 15
    assert backbone_spec("flexivit_b_i1k").weights.endswith("/flexivit_b_i1k.npz")
    assert "timm:vit_small_patch14_dinov2" in list_backbones("timm:*dinov2*")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flexivit_b_i1", "nearest: flexivit_b_i1k"),
        ("timm:vit_smal_patch16_224", "nearest: vit_small_patch16_224"),
        ("no.such.module:thing", "cannot be imported"),
        ("missing.npz", "no weights file missing.npz"),
        ("missing.safetensors", "no weights file"),
    ],
)
def test_unknown_names_say_what_is_near(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(name)


def test_big_vision_architecture_is_read_from_shapes(tiny_npz) -> None:
    shape = npz_shape(read_npz(tiny_npz))
    assert (shape.width, shape.depth, shape.heads, shape.mlp) == (32, 2, 2, 128)
    assert (shape.patch, shape.positions, shape.pool, shape.classes) == ((32, 32), (7, 7), "token", 5)


def test_layouts_of_the_official_loader(tmp_path, tiny_npz) -> None:
    leaves = tiny_leaves()
    plain = build_backbone(str(tiny_npz)).state_dict()
    blocks = {k.split("/", 2)[2] for k in leaves if "encoderblock" in k}
    stacked = {k: v for k, v in leaves.items() if "encoderblock" not in k}
    for rest in blocks:
        stacked[f"Transformer/encoderblock/{rest}"] = np.stack(
            [leaves[f"Transformer/encoderblock_{i}/{rest}"] for i in (0, 1)]
        )
    variants = {
        "bare": leaves,
        "opt": {f"opt/target/{k}": v for k, v in leaves.items()},
        "stacked": {f"params/{k}": v for k, v in stacked.items()},
    }
    for name, variant in variants.items():
        np.savez(tmp_path / f"{name}.npz", **variant)
        state = build_backbone(str(tmp_path / f"{name}.npz")).state_dict()
        assert all(torch.equal(state[k], plain[k]) for k in plain), name
    np.savez(tmp_path / "two.npz", **{f"params/img/{k}": v for k, v in leaves.items()})
    assert torch.equal(
        build_backbone(f"{tmp_path / 'two.npz'}:img").base_kernel, plain["trunk.patch_embed.proj.weight"]
    )
    with pytest.raises(WeightsError, match="no submodel 'text'; it has: img"):
        build_backbone(f"{tmp_path / 'two.npz'}:text")


def test_bfloat16_and_a_class_position_are_understood(tmp_path) -> None:
    leaves = tiny_leaves()
    leaves["pos_embedding"] = np.concatenate([np.ones((1, 1, 32), np.float32), leaves["pos_embedding"]], 1)
    bits = (leaves["head/kernel"].view(np.uint32) >> 16).astype(np.uint16)
    leaves["head/kernel"] = bits.view(np.dtype("V2"))
    np.savez(tmp_path / "old.npz", **leaves)
    model = build_backbone(str(tmp_path / "old.npz"))
    assert model.trunk.pos_embed.shape == (1, 49, 32)
    assert torch.allclose(model.trunk.cls_token[0, 0], torch.from_numpy(leaves["cls"][0, 0]) + 1)
    assert torch.allclose(model.head.weight.T, torch.from_numpy(tiny_leaves()["head/kernel"]), rtol=1e-2)


def test_broken_files_tell_the_key_and_the_shape(tmp_path, tiny_npz) -> None:
    whole = tiny_npz.read_bytes()
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="truncated"):
        build_backbone(str(cut))
    leaves = tiny_leaves()
    key = "Transformer/encoderblock_1/MlpBlock_0/Dense_0/kernel"
    np.savez(tmp_path / "wrong.npz", **{**leaves, key: np.zeros((32, 64), np.float32)})
    with pytest.raises(
        WeightsError, match=r"encoderblock_1/MlpBlock_0/Dense_0/kernel' has shape \(32, 64\), expected \(32, 128\)"
    ):
        build_backbone(str(tmp_path / "wrong.npz"))
    del leaves[key]
    np.savez(tmp_path / "missing.npz", **leaves)
    with pytest.raises(
        WeightsError, match=r"no key 'Transformer/encoderblock_1/MlpBlock_0/Dense_0/kernel', expected shape"
    ):
        build_backbone(str(tmp_path / "missing.npz"))
    np.savez(tmp_path / "foreign.npz", weights=np.zeros(3))
    with pytest.raises(WeightsError, match="no key 'embedding/kernel'"):
        build_backbone(str(tmp_path / "foreign.npz"))
    with pytest.raises(WeightsError, match="expected width 768.*the file has width 32"):
        build_backbone("flexivit_b_i1k", path=str(tiny_npz))


def test_no_network_says_where_to_put_the_file(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FLEXIVIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError, match="put it at .*cache/file.npz"):
        fetch("http://127.0.0.1:9/file.npz")
    assert not list((tmp_path / "cache").glob("*"))


def test_a_file_put_by_hand_is_used_and_checked(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FLEXIVIT_CACHE", str(tmp_path))
    (tmp_path / "file.npz").write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    assert fetch("http://127.0.0.1:9/file.npz", right) == tmp_path / "file.npz"
    with pytest.raises(WeightsError, match="checksum mismatch"):
        fetch("http://127.0.0.1:9/file.npz", "00")


def test_safetensors_round_trip(tmp_path, tiny_npz) -> None:
    model = build_backbone(str(tiny_npz)).eval()
    save_backbone(model, tmp_path / "m.safetensors", half=False)
    again = build_backbone(str(tmp_path / "m.safetensors")).eval()
    images = torch.randint(0, 256, (1, 3, 240, 240), dtype=torch.uint8)
    assert torch.equal(model(images, 8).pooled, again(images, 8).pooled)
    assert model.weights_hash() == again.weights_hash()
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "m.safetensors").read_bytes()[:500])
    with pytest.raises(WeightsError, match="truncated"):
        build_from_safetensors(str(tmp_path / "cut.safetensors"))


def test_registered_and_callable_backbones_build() -> None:
    built = build_backbone("test_registry:make", width=3)
    assert built.inner.weight.shape == (3, 3) and built.embed_dim == 3
    register_backbone(BackboneSpec("test_only", make))
    assert build_backbone("test_only", width=2).inner.weight.shape == (2, 2)
    with pytest.raises(ValueError, match="already registered"):
        register_backbone(BackboneSpec("test_only", list))


class Square(torch.nn.Linear):
    def forward(self, images, grid):
        cells = super().forward(torch.ones(len(images), *grid, self.in_features))
        return Features(cells.mean((1, 2)), cells)


def make(width: int) -> torch.nn.Module:
    return Square(width, width)


def test_a_new_head_starts_at_zero(tiny_npz) -> None:
    model = build_backbone(str(tiny_npz), num_classes=9)
    assert model.head.weight.shape == (9, 32) and not model.head.weight.any()
    assert build_backbone(str(tiny_npz), num_classes=0).head is None


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("flexivit_nano", {}, None),
        ("flexivit_nano_scratch", {}, None),
        ("flexivit_b_i1k", {"pretrained": False}, None),
        ("flexivit_b_i1k", {}, "/flexivit_b_i1k.npz are not in the cache; a run downloads about 353 MB from https://"),
        ("flexivit_b_i1k", {"path": "nope.npz"}, "no weights file nope.npz"),
        ("./nope.npz", {}, "no weights file nope.npz"),
        ("./nope.npz:img", {}, "no weights file nope.npz"),
        ("nope.safetensors", {}, "no weights file nope.safetensors"),
        ("timm:nope", {}, "'nope' is not a model of timm; nearest"),
        ("timm:resnet50", {}, "'resnet50' is no VisionTransformer or Eva"),
        ("timm:vit_tiny_patch16_224.nope", {}, "no weights 'nope' of 'vit_tiny_patch16_224'; its tags: augreg"),
        ("timm:vit_tiny_patch16_224", {"pretrained": False}, None),
        ("timm:vit_tiny_patch16_224", {}, "are not in the cache; a run downloads about 23 MB from https://hugging"),
        ("timm:test_vit.nope", {}, "no weights 'nope'"),
        ("timm:vit_small_patch8_224.dino", {}, "'timm/vit_small_patch8_224.dino' are not in the cache"),
        ("timm:vit_small_patch16_18x2_224", {}, "timm has no weights"),
        ("timm:local-dir:nowhere", {}, "no nowhere/config.json"),
        ("timm:hf-hub:someone/model", {}, "'someone/model' are not in the cache; a run downloads them from https://"),
        (f"{'x' * 300}.npz", {}, "File name too long"),
        ("test_registry:make", {}, None),
        ("no.such.module:thing", {}, "no module 'no.such.module'"),
        ("flexvit_nano", {}, "nearest: flexivit_nano"),
    ],
)
def test_a_plan_knows_what_is_in_the_way(monkeypatch, tmp_path, name: str, options: dict, reason: str | None) -> None:
    for variable in ("FLEXIVIT_CACHE", "HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", no_server)
    found = availability(name, **options) or download_of(name, **options)
    found = found and str(found)
    if reason is None:
        assert found is None
    else:
        assert found and re.search(reason, found) and "\n" not in found


def no_server(*asked: object) -> None:
    raise AssertionError(f"a server was asked for: {asked}")


def test_weights_at_hand_or_a_server_that_answers_are_no_obstacle(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("FLEXIVIT_CACHE", str(tmp_path))
    wanted = download_of("flexivit_l_i1k")
    monkeypatch.setattr(download, "unreachable", lambda url: None)
    assert download.obstacle(wanted) is None
    monkeypatch.setattr(download, "unreachable", lambda url: "no route to host")
    assert re.search(r"flexivit_l_i1k.npz are not there and .* cannot be reached \(no route", download.obstacle(wanted))
    monkeypatch.setattr(download, "no_network", lambda: None)
    assert download.obstacle(wanted, connect=False) is None
    monkeypatch.setattr(download, "no_network", lambda: "this machine has no network")
    assert "this machine has no network); fetch it elsewhere" in download.obstacle(wanted, connect=False)
    (tmp_path / "flexivit_l_i1k.npz").write_bytes(b"weights")
    assert download_of("flexivit_l_i1k") is None


def test_a_hub_that_is_switched_off_is_an_obstacle(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "are not in the Hugging Face cache and HF_HUB_OFFLINE is set" in availability("timm:vit_tiny_patch16_224")
    assert availability("timm:vit_tiny_patch16_224", pretrained=False) is None


def test_a_machine_without_a_network_is_told_without_sending(monkeypatch) -> None:
    class Socket(socket.socket):
        def connect(self, address: object) -> None:
            raise OSError(101, "Network is unreachable")

    for proxies, told in (({}, "this machine has no network"), ({"https": "http://proxy:3128"}, None)):
        monkeypatch.setattr("urllib.request.getproxies", lambda found=proxies: found)
        monkeypatch.setattr(download.socket, "socket", Socket)
        download.no_network.cache_clear()
        assert download.no_network() == told
    monkeypatch.undo()
    download.no_network.cache_clear()


def signature(function: object, *without: str) -> set[str]:
    known = inspect.signature(function).parameters.values()
    return {p.name for p in known if p.kind is not p.VAR_KEYWORD} - {"self", *without}


def test_options_are_those_of_what_builds() -> None:
    """A plan knows them without torch, so they are written down; here is what they are written down from."""
    own = signature(FlexiBackbone.__init__, "trunk", "normalisation")
    assert set(options.FLEXIBLE) == own
    assert set(options.NPZ) == own | signature(build_from_npz, "path", "expected")
    assert set(options.CHECKPOINT) == own | signature(build_from_checkpoint, "path")
    assert set(options.TIMM) == own | signature(timm_models._build, "name")
    for spec in map(backbone_spec, list_backbones("*vit_*")):
        assert {"drop_path", "num_classes", "pretrained", "resize", "fixed"} <= set(spec.options or ()), spec.name
    assert "image_size" not in backbone_spec("flexivit_b_i1k").options  # the published files are of one size


@pytest.mark.parametrize("name, chosen, told", [
    ("flexivit_nano", {"drop_pth": 0.1}, "'flexivit_nano' has no option 'drop_pth'; nearest: drop_path"),
    ("flexivit_nano", {"pretrained": "no"}, "pretrained must be true or false, not 'no'"),
    ("flexivit_nano", {"fixed": 1}, "fixed must be true or false, not 1"),
    ("flexivit_nano", {"drop_path": float("nan")}, "drop_path must be a number from 0 to below 1, not nan"),
    ("flexivit_nano", {"drop_path": True}, "drop_path must be a number"),
    ("flexivit_nano", {"drop_path": "0.1"}, "drop_path must be a number"),
    ("flexivit_nano", {"num_classes": -3}, "num_classes must be a whole number from 0, not -3"),
    ("flexivit_nano", {"num_classes": 2.0}, "num_classes must be a whole number"),
    ("flexivit_nano", {"image_size": [120, 0]}, r"image_size must be a whole number from 1, or \[height, width\]"),
    ("flexivit_nano", {"filter": "bicubik"}, "filter must be bicubic, not 'bicubik'"),
    ("flexivit_nano", {"resize": ["pi"]}, "resize must be one of pi, bilinear, area, norm"),
    ("flexivit_b_i1k", {"path": 3}, "path must be a text, not 3"),
    ("flexivit_nano_scratch", {"patch": 0}, "patch must be a whole number from 1"),
    ("timm:vit_tiny_patch16_224", {"strict": None}, "strict must be true or false"),
    ("timm:vit_tiny_patch16_224", {"patch": 8}, "has no option 'patch'; nearest: path"),
    ("a.npz", {"heads": 3}, "has no option 'heads'"), ("a.pth", {"heads": 0}, "heads must be a whole number from 1"),
])  # fmt: skip
def test_options_are_looked_at_before_anything_is_built(monkeypatch, name: str, chosen: dict, told: str) -> None:
    monkeypatch.setattr("socket.getaddrinfo", no_server)
    for look in (lambda: registry.check_options(name, chosen), lambda: build_backbone(name, **chosen)):
        with pytest.raises(ValueError, match=told):
            look()


def test_options_of_others_are_those_of_their_signature() -> None:
    with pytest.raises(ValueError, match="'test_registry:make' has no option 'widht'; nearest: width"):
        build_backbone("test_registry:make", widht=3)
    registry.check_options("test_registry:make", {"widht": 3})  # its code is not imported for it
    registry.check_options("no_such_module:make", {"pretrained": "no"})


class Entry:
    """An entry point of a package that is not installed."""

    dist, value = None, "stranger:backbone"

    def __init__(self, name: str, load) -> None:
        self.name, self.load = name, load


def test_a_broken_entry_point_is_named_and_passed_over(monkeypatch, capsys) -> None:
    def explode():
        raise SystemExit("torn\nin two")

    entries = [Entry("test_torn", explode), Entry("test_text", lambda: "text"), Entry("test_whole", lambda: make)]
    monkeypatch.setattr(registry, "_entries", lambda group, path: entries)
    monkeypatch.setattr(registry, "_BROKEN", {})
    assert list_backbones("test_[tw]*") == ["test_whole"] and "flexivit_nano" in list_backbones()
    told = capsys.readouterr().err
    assert told.count("warning:") == 2 and "'test_torn'" in told and "SystemExit: torn; passed over" in told
    assert "'test_text'" in told and "TypeError: str is neither a BackboneSpec nor a callable; passed over" in told
    with pytest.raises(ValueError, match="test_torn.*cannot be loaded: SystemExit: torn"):
        build_backbone("test_torn")
    assert "cannot be loaded" in availability("test_torn")
    assert build_backbone("test_whole", width=2).embed_dim == 2
    registry._SPECS.pop("test_whole")


@pytest.mark.parametrize("name", ["os:system", "os:getcwd", "builtins:print", "subprocess:Popen", "json:decoder"])
def test_code_that_is_no_backbone_is_never_called(name: str) -> None:
    with pytest.raises(ValueError, match="neither a class of torch.nn.Module nor a function"):
        build_backbone(name)


def test_names_that_are_not_trusted_import_nothing(tmp_path, monkeypatch) -> None:
    (tmp_path / "stranger_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="pass --trust"):
        build_backbone("stranger_module:make", trust=False)
    assert "pass --trust" in availability("stranger_module:make", trust=False)
    assert build_backbone("flexivit_nano", trust=False).embed_dim == 128


def test_a_checksum_is_kept_on_first_use_and_compared(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FLEXIVIT_CACHE", str(tmp_path))
    file = tmp_path / "file.npz"
    file.write_bytes(b"weights")
    assert fetch("http://127.0.0.1:9/file.npz") == file
    kept = tmp_path / "file.npz.sha256"
    assert kept.read_text() == f"{hashlib.sha256(b'weights').hexdigest()}  file.npz\n"
    file.write_bytes(b"other weights")
    with pytest.raises(WeightsError, match="checksum mismatch.*first used.*or file.npz.sha256 to accept it"):
        fetch("http://127.0.0.1:9/file.npz")
    kept.unlink()
    assert fetch("http://127.0.0.1:9/file.npz") == file


@pytest.mark.parametrize("fault", ["cut", "altered"])
def test_a_download_that_is_cut_or_altered_leaves_nothing(tmp_path, monkeypatch, fault: str) -> None:
    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "900" if fault == "cut" else "7")
            self.send_header("x-goog-hash", "crc32c=AAAAAA==,md5=AAAAAAAAAAAAAAAAAAAAAA==")
            self.end_headers()
            self.wfile.write(b"weights")

        def log_message(self, *_):
            pass

    monkeypatch.setenv("FLEXIVIT_CACHE", str(tmp_path))
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(WeightsError, match="7 of 900 bytes" if fault == "cut" else "another MD5"):
            fetch(f"http://127.0.0.1:{server.server_port}/file.npz")
    assert not list(tmp_path.iterdir())
