"""Under `torch.func.vmap`, a gradient of every example for parameters that all of them share.

`vmap` follows the axis of the examples through any model; where a parameter meets an example, it is replaced by a view
that is expanded along this axis, whose gradient is then kept apart for each. Some layers are written out, because what
`vmap` makes of them is slow: it does not know that all copies are equal.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from benchmarks.engine.training.per_example.gradients import Dense, ExampleGradients, Form, Product, Rows
from tasks.examples import apart, each_its_own, on_all, outside

# A product form costs the squares of its tokens in arithmetic, a dense one its size in memory traffic: numbers read
# and written a multiplication. Measured by benchmarks.speed.per_example.
BALANCE = {"cpu": 16, "cuda": 250}


class Inseparable(Exception):
    """Examples have no gradients of their own in one pass."""


class SeparateGradients(TorchFunctionMode):
    """Context around `vmap`: gives each example its copies of whatever is made of parameters alone.

    Copies `[C, *shape]` are leaves of autograd. Linear layers and embeddings hand their gradients over in other forms.

    Args:
        count: C, how many examples there are.
        buffers: memory of an earlier context's gradients, overwritten by this one's; on a CPU fresh memory costs as
            much time as what is written to it.

    Example::

        with SeparateGradients(len(examples)) as mode:
            losses = torch.func.vmap(loss_of_one)(examples)
        gradients = mode.gradients(losses, list(model.parameters()))
    """

    def __init__(self, count: int, buffers: dict[int, list[Tensor]] | None = None) -> None:
        super().__init__()
        self.count, self.buffers = count, {} if buffers is None else buffers
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}
        self._forms: dict[int, list[Form]] = {}

    def copy(self, shared: Tensor) -> Tensor:
        """The copies `[C, *shape]` of a shared tensor: a view without memory of its own."""
        key = id(shared)  # the tensor is kept beside, so that no other gets its id
        if key not in self._copies:
            own = shared.detach().contiguous()
            self._copies[key] = shared, own.expand(self.count, *own.shape).requires_grad_()
        return self._copies[key][1]

    def on_all(self, function: Callable[..., Any], *tensors: Tensor) -> Any:
        """`on_all` with tensors of which some may be the same for all examples."""
        own = [t for t in tensors if apart(t)]

        def whole(*found: Tensor) -> Any:
            left = iter(found)
            shared = (
                self.copy(t) if t.requires_grad else t.expand(self.count, *t.shape) for t in tensors if not apart(t)
            )
            return function(*(next(left) if apart(t) else next(shared) for t in tensors))

        return on_all(whole, *own)

    def keep(self, shared: Tensor, form: Form) -> None:
        """What backward finds for a shared tensor beside the gradient of its copies."""
        self._forms.setdefault(id(shared), []).append(form)

    def keep_product(self, weight: Tensor, rows: Tensor, inputs: Tensor) -> None:
        """Keep `rows.mT @ inputs`, [C, T, O] and [C, T, I], as the gradient of a weight of O x I numbers."""
        tokens, outputs, width = *rows.shape[1:], inputs.shape[-1]
        balance = BALANCE.get(rows.device.type, BALANCE["cpu"])
        if tokens**2 * (outputs + width) < balance * outputs * width:
            self.keep(weight, Product(rows, inputs))
            return
        if rows.device.type != "cpu" or rows.dtype != weight.dtype:
            self.keep(weight, Dense(torch.bmm(rows.mT, inputs).view(-1, *weight.shape)))
            return
        before = self.buffers.setdefault(id(weight), [])
        used = len(self._forms.get(id(weight), []))  # a weight may be used several times
        if used == len(before) or len(before[used]) < self.count:
            before[used : used + 1] = [rows.new_empty(self.count, outputs, width)]
        whole = torch.bmm(rows.mT, inputs, out=before[used][: self.count])
        self.keep(weight, Dense(whole.view(-1, *weight.shape)))

    def gradients(self, losses: Tensor, parameters: Sequence[Tensor]) -> ExampleGradients:
        """Gradients of `losses` [C] in each of `parameters`.

        Raises: Inseparable where a parameter was used by what is no function of torch.
        """
        shared, copies = zip(*self._copies.values(), strict=True) if self._copies else ((), ())
        try:
            found = torch.autograd.grad(losses.sum(), [*copies, *parameters], allow_unused=True)
            kept = dict(self._forms)
        finally:
            # a kept factor holds the graph that it comes from, whose layers hold this context: a ring that neither
            # the garbage collector nor an error on the way would open
            self._forms.clear()
        if any(g is not None for g in found[len(copies) :]):
            raise Inseparable("a parameter is used where no function of torch is seen")
        forms = {
            id(t): kept.get(id(t), []) + ([] if g is None else [Dense(g)])
            for t, g in zip(shared, found[: len(copies)], strict=True)
        }
        made = [t for t in shared if not t.is_leaf and forms[id(t)]]
        to_made = [sum((f.dense(t.shape) for f in forms[id(t)][1:]), forms[id(t)][0].dense(t.shape)) for t in made]
        return ExampleGradients(parameters, len(losses), [forms.get(id(p), []) for p in parameters], made, to_made)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ == "__get__":  # shapes, types and devices
            return func(*args, **kwargs)
        tensors = list(_tensors((*args, *kwargs.values())))
        some = next((t for t in tensors if apart(t)), None)
        if some is None:  # among parameters only: once for all examples
            return func(*args, **kwargs)
        if func in LAYERS and (found := LAYERS[func](self, *args, **kwargs)) is not NotImplemented:
            return found
        if torch.is_grad_enabled() and any(map(_shared, tensors)):

            def own(shared: Tensor) -> Tensor:
                with outside():
                    copy = self.copy(shared)
                return each_its_own(copy)

            args, kwargs = _replaced(args, own), {k: _replaced(v, own) for k, v in kwargs.items()}
        return func(*args, **kwargs)


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _shared(value: object) -> bool:
    """Whether a tensor is a parameter, or made of parameters alone."""
    return isinstance(value, Tensor) and not apart(value) and value.requires_grad


def _replaced(value: Any, own: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return type(value)(_replaced(v, own) for v in value)
    return own(value) if _shared(value) else value


def _in_autocast(tensor: Tensor) -> Tensor:
    """As autocast passes it to a matrix product."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device) and tensor.dtype != torch.float64:
        return tensor.to(torch.get_autocast_dtype(device))
    return tensor


class _Linear(torch.autograd.Function):
    """`x` [C, ..., I], equal copies of a weight [C, O, I] and of a bias [C, O]: one product forward, C backward.

    `keep` takes the gradient of the weight, as its two factors; None: it is that of the copies.
    """

    @staticmethod
    def forward(
        ctx: Any, keep: Callable[[Tensor, Tensor], None] | None, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight)
        ctx.keep, ctx.biased = keep, bias is not None
        return F.linear(x, weight[0].to(x.dtype), None if bias is None else bias[0].to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, inputs = gradient.flatten(1, -2), x.flatten(1, -2)
        to_x = gradient @ weight[0].to(x.dtype) if ctx.needs_input_grad[1] else None
        to_bias = rows.sum(1).to(weight.dtype) if ctx.biased else None
        if ctx.keep is None:
            return None, to_x, torch.bmm(rows.mT, inputs).to(weight.dtype), to_bias
        ctx.keep(rows, inputs)
        return None, to_x, None, to_bias


def linear(mode: SeparateGradients, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """`F.linear` whose weight, and bias where there is one, are trained."""
    if not (apart(input) and input.ndim > 1 and _shared(weight) and (bias is None or _shared(bias))):
        return NotImplemented

    def layer(x: Tensor) -> Tensor:
        own_bias = None if bias is None else mode.copy(bias)
        keep = functools.partial(mode.keep_product, weight) if weight.is_leaf else None
        return _Linear.apply(keep, _in_autocast(x), mode.copy(weight), own_bias)

    return on_all(layer, input)


def conv2d(
    mode: SeparateGradients, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
    padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Any:  # fmt: skip
    """`F.conv2d` over patches that tile the picture, as a linear layer: vmap makes a convolution of C groups of it."""
    high, wide = weight.shape[-2:]
    tiles = stride in ((high, wide), [high, wide], high if high == wide else None) and groups == 1
    tiles = tiles and padding in (0, (0, 0)) and dilation in (1, (1, 1))
    trained = _shared(weight) and (bias is None or _shared(bias))
    if not (tiles and trained and apart(input) and input.ndim == 4):
        return NotImplemented
    if input.shape[-2] % high or input.shape[-1] % wide:
        return NotImplemented

    def layer(x: Tensor) -> Tensor:
        patches = x.unflatten(-2, (-1, high)).unflatten(-1, (-1, wide))  # [C, B, I, h, high, w, wide]
        patches = patches.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
        own_bias = None if bias is None else mode.copy(bias)
        out = _Linear.apply(None, _in_autocast(patches), mode.copy(weight).flatten(2), own_bias)
        return out.movedim(-1, 2)

    return on_all(layer, input)


class _LayerNorm(torch.autograd.Function):
    """`x` [C, ..., D] normalised over D, equal copies of a scale and a shift [C, D]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        out, mean, deviation = torch.native_layer_norm(x, x.shape[-1:], weight[0], bias[0], eps)
        ctx.save_for_backward(x, weight, mean, deviation)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, deviation = ctx.saved_tensors
        to_x, _, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, x.shape[-1:], mean, deviation, weight[0], None, [True, False, False]
        )
        scaled = (x - mean).mul_(deviation).mul_(gradient)
        to_weight, to_bias = (t.flatten(1, -2).sum(1).to(weight.dtype) for t in (scaled, gradient))
        return to_x, to_weight, to_bias, None


def layer_norm(
    mode: SeparateGradients, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """`F.layer_norm` over the last axis with trained scale and shift."""
    usual = apart(input) and input.ndim > 1 and _shared(weight) and _shared(bias) and len(normalized_shape) == 1
    if not usual:
        return NotImplemented

    def layer(x: Tensor) -> Tensor:
        if x.is_cuda and torch.is_autocast_enabled("cuda"):
            x = x.float()  # as autocast passes it to normalisation there
        assert weight is not None and bias is not None  # `_shared` has looked
        return _LayerNorm.apply(x, mode.copy(weight), mode.copy(bias), eps)

    return on_all(layer, input)


class _Embedding(torch.autograd.Function):
    """Rows of equal copies of a table [C, V, D]; `keep` takes their gradients, for dense ones would be C tables."""

    @staticmethod
    def forward(ctx: Any, keep: Callable[[Form], None], tokens: Tensor, table: Tensor, unused: int | None) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.keep, ctx.unused = keep, unused
        return F.embedding(tokens, table[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        (tokens,) = ctx.saved_tensors
        if ctx.unused is not None:
            gradient = gradient.masked_fill((tokens == ctx.unused)[..., None], 0)
        flat = tokens.flatten(1)
        example = torch.arange(len(flat), device=flat.device)[:, None].expand_as(flat)
        ctx.keep(Rows(example.flatten(), flat.flatten(), gradient.reshape(-1, gradient.shape[-1]), len(flat)))
        return None, None, None, None


def embedding(
    mode: SeparateGradients, input: Tensor, weight: Tensor, padding_idx: int | None = None,
    max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Any:  # fmt: skip
    """`F.embedding` of a trained table."""
    if not (apart(input) and _shared(weight) and max_norm is None and not scale_grad_by_freq):
        return NotImplemented
    unused = None if padding_idx is None else padding_idx % len(weight)
    keep = functools.partial(mode.keep, weight)
    return on_all(lambda tokens: _Embedding.apply(keep, tokens, mode.copy(weight), unused), input)


def attention(
    mode: SeparateGradients, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **more: Any
) -> Any:
    """`F.scaled_dot_product_attention` with the examples as more of its batch; vmap would call it for each in turn."""
    if query.ndim < 3:
        return NotImplemented
    masked = attn_mask is not None and (apart(attn_mask) or attn_mask.requires_grad or attn_mask.ndim > 2)

    def layer(*given: Tensor) -> Tensor:
        query, key, value, *masks = given
        if masks:
            lead = [1] * (query.ndim - masks[0].ndim)
            masks = [masks[0].reshape(len(masks[0]), *lead, *masks[0].shape[1:])]
            masks = [masks[0].expand(-1, query.shape[1], *[-1] * (query.ndim - 2)).flatten(0, 1)]
        mask = masks[0] if masked else attn_mask
        q, k, v = (t.flatten(0, 1) for t in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v, mask, **more).unflatten(0, query.shape[:2])

    return mode.on_all(layer, query, key, value, *([attn_mask] if masked and attn_mask is not None else []))


def multi_head_attention(
    mode: SeparateGradients, query: Tensor, key: Tensor, value: Tensor, *args: Any, **more: Any
) -> Any:
    """`F.multi_head_attention_forward` of self-attention without weights to return, by the layers above."""
    names = (
        "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v", "add_zero_attn",
        "dropout_p", "out_proj_weight", "out_proj_bias",
    )  # fmt: skip
    given = {**dict(zip(names, args, strict=False)), **more}
    mask = given.get("attn_mask")
    unusual = ("bias_k", "bias_v", "add_zero_attn", "key_padding_mask", "use_separate_proj_weight", "is_causal")
    plain = query is key and key is value and query.ndim == 3 and len(args) == len(names)
    plain = (
        plain
        and not given.get("need_weights", True)
        and not any(v is not None and v is not False for v in map(given.get, unusual))
    )
    if not plain or (mask is not None and (mask.ndim != 2 or not mask.is_floating_point())):
        return NotImplemented
    width, heads = query.shape[-1], given["num_heads"]
    dropout = given["dropout_p"] if given.get("training", True) else 0.0
    with mode:
        joined = F.linear(query, given["in_proj_weight"], given["in_proj_bias"])
        apiece = joined.unflatten(-1, (3, heads, width // heads)).permute(2, 1, 3, 0, 4)
        q, k, v = apiece.unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout)
        return F.linear(mixed.permute(2, 0, 1, 3).flatten(2), given["out_proj_weight"], given["out_proj_bias"]), None


LAYERS: dict[Any, Callable[..., Any]] = {
    F.linear: linear,
    F.conv2d: conv2d,
    F.layer_norm: layer_norm,
    F.embedding: embedding,
    F.scaled_dot_product_attention: attention,
    F.multi_head_attention_forward: multi_head_attention,
}
