"""The label decoder, folded: its queries are constants, so the first layer starts in the middle.

Three identities of attention are used, all exact. A key's bias adds the same number to every score
of a query, which the softmax does not see. Weights that sum to 1 let a value's bias pass unchanged.
With one head, the output projection commutes with the weights and joins the value's.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from export.fused import Affine, Attention, Decoder, DecoderLayer, PooledDecoder, Readout
from export.fusion_report import Ledger
from train.network.attention import MultiHeadAttention
from train.network.intervention import LabelReadout
from train.network.model import DecoderLayer as TrainedLayer
from train.network.model import LabelDecoder, MlDecoder

_BIASES = "key bias dropped, value bias behind the output projection"


def affine(linear: nn.Linear) -> Affine:
    """A trained linear map, its weight transposed once and for all."""
    return Affine(linear.weight.T, linear.bias)


def fold_readout(readout: LabelReadout) -> Readout:
    """A trained read-out."""
    return Readout(readout.weight, readout.bias)


def fold_attention(
    attention: MultiHeadAttention,
    *,
    queries: Tensor | None = None,
    mask: Tensor | None = None,
    project: nn.Linear | None = None,
    add_bias: bool = True,
) -> Attention:
    """Fold what an attention computes from weights alone.

    Args:
        attention: Trained, float64.
        queries: (1, L, d) where they are constant.
        mask: (L, T), added to the scores; dropped where it is zero.
        project: Of the sources, composed with the key's and value's projection.
        add_bias: Else the caller adds `output_bias`.
    """
    key, value = (
        linear.weight if project is None else linear.weight @ project.weight
        for linear in (attention.key, attention.value)
    )
    bias = output_bias(attention, project) if add_bias else None
    if attention.num_heads == 1:
        folded, out = Affine((attention.out.weight @ value).T, bias), None
    else:
        folded, out = Affine(value.T), Affine(attention.out.weight.T, bias)
    constants = None if queries is None else attention.query(queries) * attention.scale
    return Attention(
        attention.num_heads,
        affine(attention.query) if constants is None else constants,
        Affine(key.T),
        folded,
        out=out,
        scale=attention.scale if constants is None else 1.0,
        mask=mask if mask is not None and mask.any() else None,
    )


def output_bias(attention: MultiHeadAttention, project: nn.Linear | None = None) -> Tensor:
    """What all biases of value and output add to every output, (d,)."""
    bias: Tensor = attention.value.bias
    if project is not None:
        bias = bias + attention.value.weight @ project.bias
    return attention.out.bias + attention.out.weight @ bias


def fold_decoder(decoder: LabelDecoder, num_tokens: int, ledger: Ledger) -> Decoder | PooledDecoder:
    """Fold a decoder.

    Args:
        decoder: Trained, float64.
        num_tokens: T.
        ledger: Notes what was folded.
    """
    if not decoder.layers:
        return _fold_pooled(decoder, num_tokens, ledger)
    memory, project = _fold_memory(decoder, num_tokens, ledger)
    x: Tensor = decoder.label_queries
    layers = []
    for i, layer in enumerate(decoder.layers):
        assert isinstance(layer, TrainedLayer)
        folded, what, saved = _fold_layer(layer, x, project, first=i == 0)
        name, owned = f"decoder.layers.{i}", decoder.label_queries if i == 0 else None
        ledger.add(name, what, before=[layer, owned], after=[folded], multiply_adds=saved)
        layers.append(folded)
    return Decoder(memory, layers)


def _fold_pooled(decoder: LabelDecoder, num_tokens: int, ledger: Ledger) -> PooledDecoder:
    """Without layers: the mean of linear maps is the map of the mean."""
    norm, start = copy.deepcopy(decoder.pool_norm), decoder.label_queries.data
    if isinstance(decoder, MlDecoder):
        memory = nn.Sequential(affine(decoder.project), nn.ReLU())
        folded, what, saved = PooledDecoder(memory, None, start, norm), "unused norm dropped", 0
    else:
        weight, token_norm = decoder.project.weight, copy.deepcopy(decoder.token_norm)
        start = start + decoder.project.bias
        folded = PooledDecoder(token_norm, Affine(weight.T), start, norm)
        what, saved = "tokens averaged before the projection", (num_tokens - 1) * weight.numel()
    queries = decoder.label_queries
    before = (decoder.token_norm, decoder.project, queries, decoder.pool_norm)
    ledger.add("decoder", [what], before=before, after=[folded], multiply_adds=saved)
    return folded


def _fold_memory(
    decoder: LabelDecoder, num_tokens: int, ledger: Ledger
) -> tuple[nn.Module, nn.Linear | None]:
    """The memory, and the projection where it is cheaper inside every key and value."""
    before = [decoder.token_norm, decoder.project]
    if isinstance(decoder, MlDecoder):
        memory: nn.Module = nn.Sequential(affine(decoder.project), nn.ReLU())
        ledger.add("decoder.memory", ["unused norm dropped"], before=before, after=[memory])
        return memory, None
    norm = copy.deepcopy(decoder.token_norm)
    width, features = decoder.project.weight.shape
    maps = 2 * len(decoder.layers)
    apart, composed = features * width + maps * width**2, maps * features * width
    if composed >= apart:
        memory = nn.Sequential(norm, affine(decoder.project))
        what = f"kept: {composed:,} multiply-adds a token inside keys and values, {apart:,} apart"
        ledger.add("decoder.memory", [what], before=before, after=[memory])
        return memory, None
    # The composed maps replace those of the layers, which are as many numbers smaller or larger.
    ledger.add(
        "decoder.memory",
        ["projection inside every key and value"],
        before=before,
        after=[norm],
        multiply_adds=num_tokens * (apart - composed),
    )
    return norm, decoder.project


def _fold_layer(
    layer: TrainedLayer, x: Tensor, project: nn.Linear | None, *, first: bool
) -> tuple[DecoderLayer, list[str], int]:
    """One layer, what was folded and the multiply-adds that saved."""
    (_, labels, width), what, saved = x.shape, [_BIASES], 0
    one_head = layer.cross_attention.num_heads == 1
    start = own = None
    if first:
        what += ["label queries projected and scaled"]
        saved += labels * width**2
        if layer.self_attention is not None:
            x = layer.self_norm(x + layer.self_attention(x, x, x))
            what += ["self-attention of the label queries"]
            saved += 4 * labels * width**2 + 2 * labels**2 * width
        start = x + output_bias(layer.cross_attention, project)
    elif layer.self_attention is not None:
        own = fold_attention(layer.self_attention)
        saved += labels * width**2 * one_head
    if one_head:
        what += ["output projection in the value's"]
        saved += labels * width**2
    cross = fold_attention(
        layer.cross_attention, queries=x if first else None, project=project, add_bias=not first
    )
    norms = [copy.deepcopy(n) for n in (layer.cross_norm, layer.out_norm)]
    enter, activation, _, leave = layer.feed_forward
    assert isinstance(enter, nn.Linear)
    assert isinstance(leave, nn.Linear)
    feed_forward = nn.Sequential(affine(enter), activation, affine(leave))
    own_norm = copy.deepcopy(layer.self_norm) if own is not None else None
    return (
        DecoderLayer(
            cross, norms[0], feed_forward, norms[1], start=start, own=own, own_norm=own_norm
        ),
        what,
        saved,
    )
