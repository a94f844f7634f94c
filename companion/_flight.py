r"""Rollouts of a Lagrangian network as one compiled loop: what `LagrangianNetwork.rollout` runs.

An acceleration of a single state is some hundred small vector operations. Called one by one from
Python they cost far more than their arithmetic. `companion._kernels` holds the whole rollout in one
function; here a network becomes the arrays that it reads, and trajectories are shared out to
threads. `companion.lagrangian` imports this module at the first rollout, because numba takes a
second to import.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from companion._activations import ACTIVATIONS
from companion._kernels import KINDS, Network, Work, fly
from companion.invariants import Layer
from companion.lagrangian import LagrangianNetwork

WIDTH = 16  # hidden widths are padded with zeros to a multiple of it: whole vectors, whole tiles
CHUNK = 4000  # steps of one trajectory between two looks at the progress bar, and at Ctrl-C


def quadratic(layer: Layer) -> tuple[Tensor, Tensor, Tensor] | None:
    r"""The c `(M,)`, B `(M, 2 d)` and Q `(M, 2 d, 2 d)` of a layer, or None if it has higher terms.

    All layers of `companion.invariants` are of this form, but for contractions of three or more
    vectors. The layer is asked at zero, and checked on states of several sizes.
    """
    origin = torch.zeros(layer.M, 2 * layer.d, dtype=torch.float64)
    unit = torch.eye(layer.M, dtype=torch.float64)
    c, B, Q = layer.value(origin[0]), layer.first(origin[0]), layer.second(origin, unit)
    draw = torch.Generator().manual_seed(0)
    sizes = torch.logspace(-1, 1, 8, dtype=torch.float64)[:, None]
    z = sizes * torch.randn(8, 2 * layer.d, generator=draw, dtype=torch.float64)
    form = c + z @ B.T + 0.5 * torch.einsum("bi,mij,bj->bm", z, Q, z)
    return (c, B, Q) if torch.allclose(form, layer.value(z), rtol=1e-9, atol=1e-9) else None


def packed(net: LagrangianNetwork) -> Network | None:
    """The arrays of a network; None for one that the kernels cannot do."""
    known = ACTIVATIONS.get(net.activation.name) is net.activation
    dtype, on_cpu = net.output.dtype, net.output.device.type == "cpu"
    if not (known and on_cpu and dtype in (torch.float32, torch.float64)):
        return None
    form = quadratic(net.layer)
    if form is None:
        return None
    c, B, Q = form
    places = Q.nonzero()
    N = -(-max(net.hidden) // WIDTH) * WIDTH
    first = net.output.new_zeros(net.S, net.layer.M, N)
    later = net.output.new_zeros(net.S, len(net.hidden) - 1, N, N)
    biases = net.output.new_zeros(net.S, len(net.hidden), N)
    output = net.output.new_zeros(net.S, N)
    first[..., : net.hidden[0]] = net.weights[0].mT
    for i, W in enumerate(net.weights[1:]):
        later[:, i, : W.shape[1], : W.shape[2]] = W
    for i, b in enumerate(net.biases):
        biases[:, i, : b.shape[1]] = b
    output[:, : net.hidden[-1]] = net.output

    def array(x: Tensor) -> np.ndarray:
        return x.detach().to(dtype).contiguous().numpy()

    return Network(
        activation=KINDS.index(net.activation.name),
        c=array(c),
        B=array(B),
        places=places.contiguous().numpy(),
        values=array(Q[tuple(places.T)]),
        centre=array(net.centre),
        scale=array(net.scale),
        mass=array(net.mass),
        first=array(first),
        later=array(later),
        later_T=array(later.mT),
        biases=array(biases),
        output=array(output),
    )


def work_for(network: Network) -> Work:
    """Room for one thread. The directions are the features, or the d velocities and the motion."""
    (M, two_d), (_, layers, N) = network.B.shape, network.biases.shape
    d = two_d // 2
    k = min(M, d + 1)
    shapes = {
        "J": (M, two_d),
        "x": (M,),
        "directions": (d + 1, M),
        "rows": (1 + k, N),
        "uT": (layers, 1 + k, N),
        "slope": (layers, N),
        "bend": (layers, N),
        "beta": (1, N),
        "g": (M,),
        "H": (k, k),
        "half": (d + 1, k),
        "A": (d, d + 1),
        "slopes": (4, two_d),
        "at": (two_d,),
    }
    return Work(**{name: np.empty(shape, network.c.dtype) for name, shape in shapes.items()})


def rollout(
    network: Network,
    y0: Tensor,
    dt: float,
    steps: int,
    every: int,
    compensated: bool,
    progress: bool,
) -> Tensor:
    """`integrators.solve` by RK4 for y0 `(S, B, 2 d)`, on torch's number of threads.

    One trajectory after the other, also for thousands: on one core, for widths from 32 to 512, that
    took between 0.4 and 1.2 times what torch takes for all of them at once, so there is no number
    of trajectories from which they are handed to torch.
    """
    S, B, _ = y0.shape
    path = y0.new_empty(1 + steps // every, *y0.shape)
    path[0] = y0
    y = y0.contiguous().clone().numpy()
    lost = np.zeros_like(y)
    threads = max(1, min(torch.get_num_threads(), S * B))
    bounds = [S * B * i // threads for i in range(threads + 1)]
    shares = [(work_for(network), *pair) for pair in pairwise(bounds)]
    chunk = max(1, CHUNK // (every * max(1, bounds[1])))
    bar = None
    if progress:
        from tqdm.auto import tqdm

        bar = tqdm(total=steps, desc="rk4", unit="step")
    with ThreadPoolExecutor(threads) as pool:
        for part in path[1:].split(chunk):
            tasks = [
                pool.submit(fly, network, *share, y, lost, dt, every, compensated, part.numpy())
                for share in shares
            ]
            for task in tasks:
                task.result()
            if bar is not None:
                bar.update(len(part) * every)
    if bar is not None:
        bar.close()
    return path
