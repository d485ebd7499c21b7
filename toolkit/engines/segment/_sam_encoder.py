"""SAM's image encoder in strips: the same network and the same answer for half the time and a third of the memory.

The reference holds, in each block that looks at the whole picture, every head's 4096x4096 attention at once, several
times over; on a processor most of its time goes into moving them. Here attention and the layers after it are computed
for as many heads, rows or tokens at a time as fit the cache.

Source: Kirillov et al., Segment Anything, 2023; Li et al., Exploring Plain Vision Transformer Backbones for Object
Detection, 2022 (windows), MViTv2, 2022 (relative positions).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CACHE = 16 * 2**20
"""Bytes of one strip on a processor; elsewhere, where calls are dear and memory is fast, ROOMY."""

ROOMY = 2**30


def encode(encoder: Any, pictures: torch.Tensor, check: Callable[[float], None]) -> torch.Tensor:
    """Image embeddings (b, c, s/16, s/16), of the encoder's own type.

    Args:
        encoder: an `ImageEncoderViT` with relative positions.
        pictures: (b, 3, s, s), normalised and padded, of the encoder's type and on its device.
        check: called with the share that is done (0-1), before each block and strip; what it raises ends the work.
    """
    import torch

    largest = CACHE if pictures.device.type == "cpu" else ROOMY
    check(0)
    x = encoder.patch_embed(pictures)
    if encoder.pos_embed is not None:
        x = x + encoder.pos_embed
    for number, block in enumerate(encoder.blocks):
        x = x + _attention(block, block.norm1(x), largest, partial(check, number / len(encoder.blocks)))
        tokens = x.flatten(0, 2)
        many = max(1, largest // (block.mlp.lin1.out_features * x.element_size()))
        x = torch.cat([part + block.mlp(block.norm2(part)) for part in tokens.split(many)]).view(x.shape)
    check(1)
    neck: torch.Tensor = encoder.neck(x.permute(0, 3, 1, 2))
    return neck


def _attention(block: Any, x: torch.Tensor, largest: int, check: Callable[[], None]) -> torch.Tensor:
    """What a block's attention, in windows or over all, makes of normalised tokens (b, h, w, c)."""
    import torch

    attention, side = block.attn, block.window_size
    b, h, w, c = x.shape
    qkv = attention.qkv(x)
    if not side:
        return attention.proj(_attend(attention, qkv, largest, check))  # type: ignore[no-any-return]
    # Windows beyond the picture see tokens that are 0 there, of which the layer makes its bias.
    down, across = -(-h // side), -(-w // side)
    padded = attention.qkv.bias.expand(b, down * side, across * side, 3 * c).clone()
    padded[:, :h, :w] = qkv
    windows = padded.view(b, down, side, across, side, 3 * c).permute(0, 1, 3, 2, 4, 5).flatten(0, 2)
    many = max(1, largest // (attention.num_heads * side**4 * x.element_size()))
    parts = [_attend(attention, part.contiguous(), largest, check) for part in windows.split(many)]
    joined = torch.cat(parts).view(b, down, across, side, side, c).permute(0, 1, 3, 2, 4, 5)
    out = joined.reshape(b, down * side, across * side, c)[:, :h, :w]
    return attention.proj(out)  # type: ignore[no-any-return]


def _attend(attention: Any, qkv: torch.Tensor, largest: int, check: Callable[[], None]) -> torch.Tensor:
    """Attention with relative positions among the tokens of each of `qkv` (n, h, w, 3 c): (n, h, w, c)."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    n, h, w, _ = qkv.shape
    heads = attention.num_heads
    q, k, v = qkv.view(n, h * w, 3, heads, -1).permute(2, 0, 3, 1, 4)
    depth = q.shape[-1]
    out = torch.empty(n, h * w, heads, depth, dtype=qkv.dtype, device=qkv.device)
    down, across = _relative(attention.rel_pos_h, h), _relative(attention.rel_pos_w, w)
    line = n * w * h * w * qkv.element_size()  # bytes of one head's and one row's attention
    rows = min(h, max(1, largest // line))
    many = min(heads, max(1, largest // (line * h)))
    for head in range(0, heads, many):
        keys, values = k[:, head : head + many].contiguous(), v[:, head : head + many].contiguous()
        for row in range(0, h, rows):
            check()
            strip = slice(row * w, min(h, row + rows) * w)
            queries = q[:, head : head + many, strip].contiguous()
            grid = queries.view(n, queries.shape[1], -1, w, depth)
            bias = (
                torch.einsum("nrhwc,hkc->nrhwk", grid, down[row : row + rows])[..., :, None]
                + torch.einsum("nrhwc,wkc->nrhwk", grid, across)[..., None, :]
            ).reshape(n, queries.shape[1], -1, h * w)
            part = scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=attention.scale)
            out[:, strip, head : head + many] = part.transpose(1, 2)
    return out.view(n, h, w, heads * depth)


def _relative(table: torch.Tensor, side: int) -> torch.Tensor:
    """Vectors (side, side, c) for each pair of a query's and a key's place, of a table (2 side - 1, c)."""
    import torch

    places = torch.arange(side, device=table.device)
    return table[places[:, None] - places[None, :] + side - 1]
