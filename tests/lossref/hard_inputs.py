"""Logits on which losses go wrong, as named rows for one format."""

import math

import torch


def hard_rows(dtype, classes, generator):
    """Rows of logits: name and tensor of shape (classes,)."""

    def noise(scale):
        return (torch.randn(classes, generator=generator, dtype=torch.float64) * scale).to(dtype)

    def spike(height, at=0, scale=1.0):
        row = noise(scale)
        row[at] = height
        return row

    tiny = torch.finfo(dtype).tiny
    yield "unit", noise(1.0)
    yield "wide", noise(30.0)
    yield "hundreds", noise(300.0)
    yield "shifted far", (noise(2.0).double() + 9000.0).to(dtype)
    yield "certain", spike(30.0)
    yield "more than certain", spike(80.0)
    yield "ten thousand", spike(1e4)
    yield "minus ten thousand", spike(-1e4)
    yield "both extremes", torch.where(noise(1.0) > 0, 1e4, -1e4).to(dtype)
    yield "equal", torch.full((classes,), 0.3, dtype=dtype)
    yield "nearly equal", (1.0 + noise(torch.finfo(dtype).eps).double()).to(dtype)
    yield "subnormal", noise(1.0) * (tiny / 4)
    masked = noise(3.0)
    masked[1::2] = -math.inf
    yield "masked", masked
    alone = torch.full((classes,), -math.inf, dtype=dtype)
    alone[classes - 1] = 2.0
    yield "one left", alone
    yield "small probabilities", (-torch.arange(classes).double() * 1.7).to(dtype)
    yield "underflowing", spike(700.0 if dtype == torch.float64 else 90.0, at=classes - 1)
