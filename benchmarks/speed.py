"""Time of forward and backward in float32, against PyTorch and the peers that have the loss.

On a machine that others use, --busy takes one thread and counts the time that the process had on a
processor; optax is then left out, since its compiler makes threads of its own.

Run: python benchmarks/speed.py [--device cuda] [--budget SECONDS] [--only WORD] [--busy]
"""

import argparse
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from report import best_times, optional, publish

import lossref


@dataclass
class Case:
    """A loss of this library, its inputs, and a step for each peer; None where it is missing."""

    name: str
    ours: object
    leaves: list
    peers: dict
    note: str = ""


def both_ways(loss, *leaves):
    """A step that takes the loss and its gradients."""

    def step():
        for leaf in leaves:
            leaf.grad = None
        loss(*leaves).backward()

    return step


def compiled(loss, *leaves):
    """The same step in JAX, compiled, with the loss given as a function of JAX arrays."""
    jax = optional("jax")
    if loss is None or jax is None:
        return None
    arrays = [jax.numpy.asarray(leaf.detach().cpu().numpy()) for leaf in leaves]
    step = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(arrays)))))
    return lambda: jax.block_until_ready(step(*arrays))


def random(device, *shape):
    return torch.randn(*shape, device=device, requires_grad=True)


def with_optax(name, make):
    """A loss made from a function of optax, or None where optax is missing."""
    optax = optional("optax.losses")
    function = optax and getattr(optax, name, None)
    return make(function) if function else None


def torchvision_focal(x, t, alpha=0.25, gamma=2.0):
    """torchvision.ops.sigmoid_focal_loss, as its source has it: there is no build to import."""
    p = torch.sigmoid(x)
    loss = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    p_t = p * t + (1 - p) * (1 - t)
    return ((alpha * t + (1 - alpha) * (1 - t)) * loss * (1 - p_t) ** gamma).mean()


def classification_cases(device):
    for rows, classes in [(4096, 1000), (512, 32000)]:
        y = torch.randint(classes, (rows,), device=device)
        x, labels = random(device, rows, classes), y.cpu().numpy()
        theirs = with_optax(
            "softmax_cross_entropy_with_integer_labels",
            lambda f, labels=labels: lambda logits: f(logits, labels).mean(),
        )
        yield Case(
            f"cross_entropy ({rows}, {classes})",
            lambda x, y=y: lossref.cross_entropy(x, y),
            [x],
            {
                "torch": both_ways(lambda x, y=y: F.cross_entropy(x, y), x),
                "optax": compiled(theirs, x),
            },
        )


def binary_cases(device):
    t = torch.randint(2, (10**6,), device=device).float()
    x, labels = random(device, 10**6), t.cpu().numpy()
    bce = with_optax("sigmoid_binary_cross_entropy", lambda f: lambda x: f(x, labels).mean())
    yield Case(
        "binary_cross_entropy_with_logits (1000000,)",
        lambda x: lossref.binary_cross_entropy_with_logits(x, t),
        [x],
        {
            "torch": both_ways(lambda x: F.binary_cross_entropy_with_logits(x, t), x),
            "optax": compiled(bce, x),
        },
    )
    kornia = optional("kornia.losses")
    focal = with_optax("sigmoid_focal_loss", lambda f: lambda x: f(x, labels, alpha=0.25).mean())
    # kornia wants (N, C, positions)
    image, mask = x.detach()[None, None].requires_grad_(), t[None, None]
    yield Case(
        "sigmoid_focal_loss (1000000,)",
        lambda x: lossref.sigmoid_focal_loss(x, t, alpha=0.25),
        [x],
        {
            "torchvision's formula": both_ways(lambda x: torchvision_focal(x, t), x),
            "kornia": kornia
            and both_ways(
                lambda x: kornia.binary_focal_loss_with_logits(x, mask, 0.25, 2.0, "mean"), image
            ),
            "optax": compiled(focal, x),
        },
    )
    classes = torch.randint(20, (16, 64, 64), device=device)
    x = random(device, 16, 20, 64, 64)
    yield Case(
        "focal_loss (16, 20, 64, 64)",
        lambda x: lossref.focal_loss(x, classes, gamma=2.0),
        [x],
        {
            "kornia": kornia
            and both_ways(lambda x: kornia.focal_loss(x, classes, None, 2.0).mean(), x)
        },
        note="kornia's is averaged over positions and classes",
    )


def distance_cases(device):
    pml, distances = (optional(f"pytorch_metric_learning.{x}") for x in ("losses", "distances"))
    miners = optional("pytorch_metric_learning.miners")
    leaves = [random(device, 4096, 128) for _ in range(3)]
    triplet = with_optax(
        "triplet_margin_loss", lambda f: lambda a, p, n: f(a, p, n, margin=1.0).mean()
    )
    yield Case(
        "triplet_margin_loss (4096, 128)",
        lossref.triplet_margin_loss,
        leaves,
        {"torch": both_ways(F.triplet_margin_loss, *leaves), "optax": compiled(triplet, *leaves)},
    )
    x, labels = random(device, 512, 128), torch.arange(512, device=device) % 64
    hard = miners and miners.BatchHardMiner(distance=_euclidean(distances))
    mined = pml and pml.TripletMarginLoss(margin=1.0, distance=_euclidean(distances))
    yield Case(
        "batch_hard_triplet_loss (512, 128)",
        lambda x: lossref.batch_hard_triplet_loss(x, labels),
        [x],
        {
            "pytorch-metric-learning": mined
            and both_ways(lambda x: mined(x, labels, hard(x, labels)), x)
        },
        note="its mean leaves out triplets without loss",
    )


def _euclidean(distances):
    return distances and distances.LpDistance(normalize_embeddings=False)


def contrastive_cases(device):
    pml = optional("pytorch_metric_learning.losses")
    x = random(device, 512, 128)
    pairs = torch.arange(256, device=device).repeat(2)
    ntxent, numbers = pml and pml.NTXentLoss(temperature=0.5), pairs.cpu().numpy()
    jitted = with_optax("ntxent", lambda f: lambda x: f(x, numbers, temperature=0.5))
    yield Case(
        "nt_xent_loss, 256 pairs of width 128",
        lambda x: lossref.nt_xent_loss(x[:256], x[256:], temperature=0.5),
        [x],
        {
            "pytorch-metric-learning": ntxent and both_ways(lambda x: ntxent(x, pairs), x),
            "optax": compiled(jitted, x),
        },
    )
    two = [random(device, 512, 128) for _ in range(2)]
    infonce = pml and pml.SelfSupervisedLoss(pml.NTXentLoss(temperature=0.1), symmetric=False)
    yield Case(
        "info_nce_loss (512, 128)",
        lambda q, k: lossref.info_nce_loss(q, k),
        two,
        {"pytorch-metric-learning": infonce and both_ways(lambda q, k: infonce(q, k), *two)},
    )
    labels = torch.arange(512, device=device) % 64
    supcon = pml and pml.SupConLoss(temperature=0.1)
    yield Case(
        "sup_con_loss (512, 128)",
        lambda x: lossref.sup_con_loss(x, labels),
        [x],
        {"pytorch-metric-learning": supcon and both_ways(lambda x: supcon(x, labels), x)},
    )


def margin_cases(device):
    pml = optional("pytorch_metric_learning.losses")
    x, weight = random(device, 512, 128), random(device, 1000, 128)
    target = torch.randint(1000, (512,), device=device)
    for ours, theirs, margin in [
        (lossref.arcface_loss, "ArcFaceLoss", 28.6),
        (lossref.cosface_loss, "CosFaceLoss", 0.35),
    ]:
        loss = pml and getattr(pml, theirs)(1000, 128, margin=margin).to(device)
        yield Case(
            f"{ours.__name__} (512, 128), 1000 classes",
            lambda x, w, ours=ours: ours(x, w, target),
            [x, weight],
            {
                # its class centres are a parameter of its own, which gets a gradient too
                "pytorch-metric-learning": loss
                and both_ways(lambda x, _, loss=loss: loss(x, target), x, loss.W)
            },
        )


FAMILIES = [
    classification_cases,
    binary_cases,
    distance_cases,
    contrastive_cases,
    margin_cases,
]


def rows_of(case, device, budget, busy):
    """A row for each peer that is here, and the names of those that are not."""
    peers = {name: step for name, step in case.peers.items() if not (busy and name == "optax")}
    steps = {name: step for name, step in peers.items() if step}
    ours = both_ways(case.ours, *case.leaves)
    clock = time.process_time if busy else time.perf_counter
    times = best_times({"lossref": ours, **steps}, device, budget, clock=clock)
    rows = [
        {
            "loss": case.name,
            "lossref ms": times["lossref"] * 1e3,
            "peer": name,
            "peer ms": times[name] * 1e3 if name in times else None,
            "lossref / peer": times["lossref"] / times[name] if name in times else None,
            "note": case.note,
        }
        for name in peers
    ]
    return rows, [name for name in peers if name not in times]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for each side")
    parser.add_argument("--only", default="", help="losses whose name holds this")
    parser.add_argument("--busy", action="store_true", help="one thread, by the processor's time")
    options = parser.parse_args()
    if options.busy:
        torch.set_num_threads(1)
    rows, missing = [], set()
    for family in FAMILIES:
        for case in family(options.device):
            if options.only in case.name:
                more, absent = rows_of(case, options.device, options.budget, options.busy)
                rows += more
                missing.update(absent)
    name = f"speed-{options.device}" + "-busy" * options.busy
    name += f"-{options.only}" if options.only else ""
    publish(name, rows, sorted(missing))


if __name__ == "__main__":
    main()
