# SPDX-License-Identifier: BSD-3-Clause
"""What people do with modules: copies, threads, processes, optimisers."""

import copy
import io
import pickle
import threading

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import twins  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from torch_nets import Net, assert_close, gradients  # noqa: E402

import fastrnn.torch  # noqa: E402


def test_copies(rng):
    layer, x = fastrnn.torch.LSTM(3, 5, 2), twins.draw(rng, 4, 2, 3)
    want = layer(x)[0]
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for twin in (
        copy.deepcopy(layer),
        copy.copy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(file, weights_only=False),
    ):
        assert type(twin) is fastrnn.torch.LSTM
        assert torch.equal(twin(x)[0], want)
    layer.share_memory()
    assert torch.equal(layer(x)[0], want)


def test_hooks(rng):
    layer, seen = fastrnn.torch.GRU(3, 5), []
    layer.register_forward_pre_hook(lambda m, args: seen.append("before"))
    layer.register_forward_hook(lambda m, args, out: seen.append("after"))
    layer.register_full_backward_hook(lambda m, gi, go: seen.append("backward"))
    layer.weight_hh_l0.register_hook(lambda g: seen.append("weight"))
    x = twins.draw(rng, 4, 2, 3).requires_grad_()
    layer(x)[0].sum().backward()
    assert sorted(seen) == ["after", "backward", "before", "weight"]
    assert seen[:2] == ["before", "after"]


@pytest.mark.parametrize("options", [{}, {"fused": True}, {"foreach": True}])
def test_optimisers(rng, options):
    theirs, ours = Net("GRU", torch.nn), Net("GRU")
    ours.load_state_dict(theirs.state_dict())
    x = twins.draw(rng, 4, 2, 3)
    for net in (theirs, ours):
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, **options)
        for _ in range(5):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    assert_close(list(ours.parameters()), list(theirs.parameters()))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing(rng, use_reentrant):
    layer = fastrnn.torch.LSTM(3, 5, 2, dropout=0.5)
    found = []
    for call in (
        lambda x: layer(x)[0],
        lambda x: checkpoint(lambda x: layer(x)[0], x, use_reentrant=use_reentrant),
    ):
        (x,) = twins.leaves([torch.ones(4, 2, 3)])
        torch.manual_seed(1)
        layer.zero_grad()
        call(x).sum().backward()
        found.append([x.grad, *[p.grad.clone() for p in layer.parameters()]])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_saved_tensor_hooks(rng):
    """What a hook keeps of a tape is not given to the next call."""
    layer, x = fastrnn.torch.LSTM(64, 128), twins.draw(rng, 40, 16, 64)
    want = gradients(layer, lambda x: layer(x)[0], x)
    kept = []

    def pack(t):
        kept.append(t.detach())
        return len(kept) - 1

    layer.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda at: kept[at]):
        y, _ = layer(x)
    for _ in range(3):  # others come and go meanwhile
        layer(2 * x)[0].sum().backward()
    layer.zero_grad()
    y.square().sum().backward()
    for got, expected in zip(layer.parameters(), want[1:], strict=True):
        assert torch.equal(got.grad, expected)


def test_python_threads(rng):
    layer, errors = fastrnn.torch.LSTM(3, 32, 2), []
    inputs = [twins.draw(rng, 5 + i, 4, 3) for i in range(4)]
    want = []
    for x in inputs:
        (leaf,) = twins.leaves([x])
        y, _ = layer(leaf)
        want.append((y.detach(), *torch.autograd.grad(y.sum(), leaf)))

    def work(x, expected):
        for _ in range(30):
            (leaf,) = twins.leaves([x])
            y, _ = layer(leaf)
            (dx,) = torch.autograd.grad(y.sum(), leaf)
            if not (torch.equal(y, expected[0]) and torch.equal(dx, expected[1])):
                errors.append(x.shape)

    threads = [
        threading.Thread(target=work, args=args)
        for args in zip(inputs, want, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("B", [3, 30])  # of 3 rows both directions run at once
def test_any_number_of_threads_gives_the_same_bits(rng, name, batch_first, B):
    kind = getattr(fastrnn.torch, name)
    layer = kind(40, 70, 2, bidirectional=True, batch_first=batch_first)
    x = twins.draw(rng, *((B, 20, 40) if batch_first else (20, B, 40)))
    before = torch.get_num_threads()
    found = []
    try:
        for n in (1, 2, 4, 5):
            torch.set_num_threads(n)
            found.append(gradients(layer, lambda x: layer(x)[0], x))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize(
    ("name", "options"),
    [("LSTM", {}), ("GRU", {}), ("RNN", {}), ("LSTM", {"proj_size": 30})],
)
def test_layers_at_once_give_the_same_bits(rng, name, options, dropout, packed):
    """Five of them: not a whole number of rounds, whatever the number of threads."""
    layer = getattr(fastrnn.torch, name)(40, 50, 5, dropout=dropout, **options)
    x = twins.draw(rng, 70, 3, 40).requires_grad_()
    before = torch.get_num_threads()
    found = []
    try:
        for n in (1, 2, 3, 4):
            torch.set_num_threads(n)
            torch.manual_seed(0)
            layer.train().zero_grad()
            series = torch.nn.utils.rnn.pack_padded_sequence(x, [70, 50, 20])
            y, _ = layer(series if packed else x)
            y = y.data if packed else y
            leaves = [x, *layer.parameters()]
            grads = torch.autograd.grad(y.square().sum(), leaves)
            with torch.no_grad():
                inferred, _ = layer.eval()(series if packed else x)
            found.append([y.detach(), *grads, inferred.data])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a, b)


class Encoded(Dataset):
    """Items that a worker process computes with a layer."""

    def __init__(self):
        self.layer = fastrnn.torch.LSTM(3, 64)

    def __len__(self):
        return 6

    def __getitem__(self, at):
        with torch.no_grad():
            return self.layer(torch.full((8, 16, 3), float(at)))[0]


# Python 3.12 and newer warn of any fork in a process that has threads.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_workers_forked_after_threads_ran():
    data = Encoded()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    want = [data[at] for at in range(len(data))]
    loader = DataLoader(
        data, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    got = list(loader)
    torch.set_num_threads(before)
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


def _train_together(rank, file, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    net = Net("GRU", num_layers=2)
    parallel = torch.nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    for step in range(3):
        x = torch.sin(torch.arange(24.0) + step).reshape(4, 2, 3)[:, rank : rank + 1]
        optimizer.zero_grad()
        parallel(x).square().mean().backward()
        optimizer.step()
    if rank == 0:
        torch.save(net.state_dict(), results)
    torch.distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path):
    results = tmp_path / "state.pt"
    torch.multiprocessing.spawn(
        _train_together, (str(tmp_path / "meeting"), str(results)), nprocs=2
    )
    torch.manual_seed(0)
    net = Net("GRU", torch.nn, num_layers=2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(3):
        x = torch.sin(torch.arange(24.0) + step).reshape(4, 2, 3)
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    assert_close(list(torch.load(results).values()), list(net.state_dict().values()))
