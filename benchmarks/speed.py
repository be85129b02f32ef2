"""Time of forward and backward in float32, against PyTorch and the peers that have the loss.

Run: python benchmarks/speed.py [--device cuda] [--budget SECONDS]
"""

import argparse

import torch
import torch.nn.functional as F
from report import best_time, optional, publish

import lossref


def both_ways(loss, *leaves):
    def step():
        for leaf in leaves:
            leaf.grad = None
        loss(*leaves).backward()

    return step


def cases(device):
    """Yield the name, our loss, a peer's name, the peer's loss or None, and the inputs."""

    def random(*shape):
        return torch.randn(*shape, device=device, requires_grad=True)

    for rows, classes in [(4096, 1000), (512, 32000)]:
        y = torch.randint(classes, (rows,), device=device)
        yield (
            f"cross_entropy ({rows}, {classes})",
            lambda x, y=y: lossref.cross_entropy(x, y),
            "torch",
            lambda x, y=y: F.cross_entropy(x, y),
            [random(rows, classes)],
        )
    t = torch.randint(2, (10**6,), device=device).float()
    yield (
        "binary_cross_entropy_with_logits (1000000,)",
        lambda x: lossref.binary_cross_entropy_with_logits(x, t),
        "torch",
        lambda x: F.binary_cross_entropy_with_logits(x, t),
        [random(10**6)],
    )
    ops = optional("torchvision.ops")
    yield (
        "sigmoid_focal_loss (1000000,)",
        lambda x: lossref.sigmoid_focal_loss(x, t, alpha=0.25),
        "torchvision",
        ops and (lambda x: ops.sigmoid_focal_loss(x, t, reduction="mean")),
        [random(10**6)],
    )
    kornia = optional("kornia.losses")
    labels = torch.randint(20, (16, 64, 64), device=device)
    yield (
        "focal_loss (16, 20, 64, 64)",
        lambda x: lossref.focal_loss(x, labels, gamma=2.0),
        "kornia",
        kornia and (lambda x: kornia.focal_loss(x, labels, None, 2.0, "mean")),
        [random(16, 20, 64, 64)],
    )
    yield from metric_cases(device, random)
    a, p, n = random(4096, 128), random(4096, 128), random(4096, 128)
    yield (
        "triplet_margin_loss (4096, 128)",
        lossref.triplet_margin_loss,
        "torch",
        F.triplet_margin_loss,
        [a, p, n],
    )


def metric_cases(device, random):
    """Losses that pytorch-metric-learning has."""
    pml = optional("pytorch_metric_learning.losses")
    miners = optional("pytorch_metric_learning.miners")
    pairs = torch.arange(256, device=device).repeat(2)
    labels = torch.arange(512, device=device) % 64
    ntxent = pml and pml.NTXentLoss(temperature=0.5)
    yield (
        "nt_xent_loss, 256 pairs of width 128",
        lambda x: lossref.nt_xent_loss(x[:256], x[256:], temperature=0.5),
        "pytorch-metric-learning",
        ntxent and (lambda x: ntxent(x, pairs)),
        [random(512, 128)],
    )
    infonce = pml and pml.SelfSupervisedLoss(pml.NTXentLoss(temperature=0.1), symmetric=False)
    yield (
        "info_nce_loss (512, 128)",
        lambda q, k: lossref.info_nce_loss(q, k),
        "pytorch-metric-learning",
        infonce and (lambda q, k: infonce(q, k)),
        [random(512, 128), random(512, 128)],
    )
    supcon = pml and pml.SupConLoss(temperature=0.1)
    yield (
        "sup_con_loss (512, 128)",
        lambda x: lossref.sup_con_loss(x, labels),
        "pytorch-metric-learning",
        supcon and (lambda x: supcon(x, labels)),
        [random(512, 128)],
    )
    weight = random(1000, 128)
    classes = torch.randint(1000, (512,), device=device)
    arcface = pml and pml.ArcFaceLoss(1000, 128, margin=28.6).to(device)
    yield (
        "arcface_loss (512, 128), 1000 classes",
        lambda x, w: lossref.arcface_loss(x, w, classes),
        "pytorch-metric-learning",
        arcface and (lambda x, w: arcface(x, classes)),
        [random(512, 128), weight],
    )
    hard = miners and miners.BatchHardMiner()
    triplet = pml and pml.TripletMarginLoss(margin=1.0)
    yield (
        "batch_hard_triplet_loss (512, 128)",
        lambda x: lossref.batch_hard_triplet_loss(x, labels),
        "pytorch-metric-learning",
        triplet and (lambda x: triplet(x, labels, hard(x, labels))),
        [random(512, 128)],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for each side")
    options = parser.parse_args()
    rows, missing = [], []
    for name, ours, peer, theirs, leaves in cases(options.device):
        own = best_time(both_ways(ours, *leaves), options.device, options.budget)
        other = None
        if theirs is None:
            missing.append(peer)
        else:
            other = best_time(both_ways(theirs, *leaves), options.device, options.budget)
        rows.append(
            {
                "loss": name,
                "lossref ms": own * 1e3,
                "peer": peer,
                "peer ms": None if other is None else other * 1e3,
                "lossref / peer": None if other is None else own / other,
            }
        )
    publish(f"speed-{options.device}", rows, sorted(set(missing)))


if __name__ == "__main__":
    main()
