# SPDX-License-Identifier: BSD-3-Clause
"""`Module`: flat buffers, children, contexts, copies, files."""

import copy
import os
import pickle
import stat

import numpy as np
import pytest
import safetensors.numpy

import fastrnn
from fastrnn.native.memory import aligned
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.layers import Dropout, Linear
from fastrnn.nn.module import Context, Module
from fastrnn.train.sequential import Sequential


class Leaf(Module):
    """Parameters a (n, 2) and b (n,), numbered from `first`."""

    def __init__(self, n, first=0, dtype="float32"):
        self._declare({"a": (n, 2), "b": (n,)}, dtype)
        self.flat_parameters[:] = np.arange(first, first + 3 * n)
        self.flat_grads[:] = -self.flat_parameters


class Pair(Module):
    """Two children, one of them two deep when a `Pair` is given."""

    def __init__(self, left, right):
        self.left = left
        self.right = right


def assert_consistent(model):
    """Views and flat buffers are the same memory, in order, without gaps."""
    for flat, views in (
        (model.flat_parameters, model.parameters),
        (model.flat_grads, model.grads),
    ):
        assert flat.ndim == 1
        assert flat.flags.c_contiguous
        assert flat.dtype == model.dtype
        assert sum(view.size for view in views.values()) == flat.size
        start = flat.ctypes.data
        for view in views.values():
            assert view.ctypes.data == start
            assert view.flags.c_contiguous
            assert view.flags.writeable
            start += view.nbytes


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_aligned(size, dtype):
    array = aligned(size, dtype, np.zeros)
    assert array.shape == (size,)
    assert array.dtype == dtype
    assert array.ctypes.data % 64 == 0
    assert not array.any()


def test_leaf(dtype):
    leaf = Leaf(3, dtype=dtype)
    assert_consistent(leaf)
    assert leaf.dtype == dtype
    assert leaf.flat_parameters.ctypes.data % 64 == 0
    assert leaf.flat_grads.ctypes.data % 64 == 0
    np.testing.assert_array_equal(leaf.parameters["a"], [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(leaf.grads["b"], [-6, -7, -8])


def test_parameters_are_read_only_mappings_of_writable_views():
    leaf = Leaf(3)
    with pytest.raises(TypeError, match="does not support item assignment"):
        leaf.parameters["a"] = 1
    leaf.parameters["b"][...] = 7
    np.testing.assert_array_equal(leaf.flat_parameters[6:], 7)
    with pytest.raises(AttributeError):
        leaf.parameters = {}
    with pytest.raises(AttributeError):
        leaf.parameters = Leaf(1)
    assert list(leaf.modules()) == [leaf]


def test_declare_twice():
    leaf = Leaf(1)
    with pytest.raises(RuntimeError, match=r"^Leaf: parameters are declared once$"):
        leaf._declare({"c": (1,)})


def test_module_without_parameters():
    model = Pair(Dropout(), Dropout())
    assert model.flat_parameters.shape == (0,)
    assert model.dtype == "float32"
    assert dict(model.parameters) == {}
    model.zero_grad()
    assert model.state_dict() == {}


def test_composite_is_one_buffer_with_values_kept():
    model = Pair(Pair(Leaf(2), Leaf(1, 6)), Leaf(3, 9))
    np.testing.assert_array_equal(model.flat_parameters, np.arange(18))
    np.testing.assert_array_equal(model.flat_grads, -np.arange(18))
    assert_consistent(model)
    assert model.flat_parameters.ctypes.data % 64 == 0
    assert list(model.parameters) == [
        "left.left.a",
        "left.left.b",
        "left.right.a",
        "left.right.b",
        "right.a",
        "right.b",
    ]
    model.zero_grad()
    assert not model.right.grads["a"].any()


def test_buffer_is_stable_and_parts_stay_in_the_whole():
    model = Pair(Pair(Leaf(2), Leaf(1)), Leaf(3))
    flat, start = model.flat_parameters, model.flat_parameters.ctypes.data
    for part in (model.left, model.left.right, model.right):
        assert np.shares_memory(part.flat_parameters, flat)
        assert_consistent(part)
    assert model.flat_parameters.ctypes.data == start
    model.left.right.parameters["a"][...] = 50
    np.testing.assert_array_equal(model.flat_parameters[6:8], 50)
    model.left.flat_grads[:] = 3
    np.testing.assert_array_equal(model.flat_grads[:9], 3)


def test_module_with_parameters_and_children():
    model = Leaf(1)
    model.child = Leaf(2, 3)
    np.testing.assert_array_equal(model.flat_parameters, np.arange(9))
    assert list(model.parameters) == ["a", "b", "child.a", "child.b"]
    assert_consistent(model)


def test_shared_leaf_appears_once():
    shared = Leaf(2)
    model = Pair(Pair(shared, Leaf(1, 6)), shared)
    assert model.flat_parameters.size == 9
    assert list(model.parameters)[:2] == ["left.left.a", "left.left.b"]
    assert_consistent(model)
    model.right.parameters["b"][...] = 70
    np.testing.assert_array_equal(model.parameters["left.left.b"], 70)


def test_leaf_of_two_models_follows_the_last_one_asked():
    shared = Leaf(2)
    one, two = Pair(shared, Leaf(1, 6)), Pair(Leaf(3, 20), shared)
    for value in (100, 200):
        for model in (one, two):
            model.flat_parameters[:] += value
            assert_consistent(model)
    np.testing.assert_array_equal(
        one.parameters["left.a"].ravel(), np.arange(4) + 2 * (100 + 200)
    )
    np.testing.assert_array_equal(two.parameters["right.b"], [604, 605])
    np.testing.assert_array_equal(one.parameters["right.b"], [308])


def test_extended_after_its_buffer_existed():
    model = Pair(Leaf(2), Leaf(1, 6))
    before = model.flat_parameters
    model.tail = Leaf(2, 9)
    np.testing.assert_array_equal(model.flat_parameters, np.arange(15))
    assert before.size == 9
    assert_consistent(model)
    model.left.tail = Leaf(1, 30)  # deeper down, in the middle
    np.testing.assert_array_equal(
        model.flat_parameters, [*range(6), 30, 31, 32, *range(6, 15)]
    )
    assert_consistent(model)


def test_replaced_and_removed_children():
    model = Pair(Leaf(2), Leaf(1, 6))
    old = model.left
    model.flat_parameters[:] += 1
    model.left = Leaf(1, 40)
    np.testing.assert_array_equal(model.flat_parameters, [40, 41, 42, 7, 8, 9])
    np.testing.assert_array_equal(old.flat_parameters, np.arange(6) + 1)
    model.left = None
    np.testing.assert_array_equal(model.flat_parameters, [7, 8, 9])
    del model.right
    assert model.flat_parameters.size == 0
    assert not hasattr(model, "right")


def test_one_dtype():
    model = Pair(Leaf(1), Leaf(1, dtype="float64"))
    message = "^Pair: all layers must have one dtype, got left float32, right float64$"
    with pytest.raises(ValueError, match=message):
        _ = model.flat_parameters
    with pytest.raises(ValueError, match=message):
        _ = model.dtype


def test_children_that_cannot_be():
    model = Pair(Leaf(1), Leaf(1))
    with pytest.raises(ValueError, match=r"^Pair: me must not contain the module itse"):
        model.me = model
    with pytest.raises(ValueError, match=r"^Pair: up must not contain the module itse"):
        model.up = Pair(model, Leaf(1))
    with pytest.raises(ValueError, match=r"must not contain a dot, got 'left\.a'"):
        setattr(model, "left.a", Leaf(1))
    assert len(list(model.modules())) == 3


def test_train_and_eval_reach_every_module():
    model = Pair(Pair(Leaf(1), Dropout()), Leaf(1))
    assert all(module.training for module in model.modules())
    assert model.eval() is model
    assert not any(module.training for module in model.modules())
    assert model.train() is model
    assert all(module.training for module in model.modules())
    with pytest.raises(
        TypeError, match=r"^Pair\.train: mode must be True or False, got 1$"
    ):
        model.train(1)


def test_call_is_forward_and_base_refuses():
    with pytest.raises(NotImplementedError, match="Leaf does not define forward"):
        Leaf(1)(1)
    with pytest.raises(NotImplementedError, match="Leaf does not define backward"):
        Leaf(1).backward(1)


def test_context_rules():
    layer, other = Linear(2, 2, seed=0), Linear(2, 2, seed=0)
    x = np.ones((3, 2), "f")
    with pytest.raises(
        RuntimeError, match=r"^Linear: backward needs a forward in training mode$"
    ):
        layer.backward(x)
    layer(x)
    first = layer.context
    layer(2 * x)
    assert isinstance(first, Context)
    assert first is not layer.context
    layer.backward(x, context=first)
    with pytest.raises(
        RuntimeError, match=r"^Linear\.backward: context was already used; run forward"
    ):
        layer.backward(x, context=first)
    assert first.saved is None
    with pytest.raises(
        ValueError, match=r"^Linear\.backward: context must come from this layer's own"
    ):
        other.backward(x, context=layer.context)
    with pytest.raises(
        TypeError,
        match=r"^Linear\.backward: context must be one that forward kept, got int$",
    ):
        layer.backward(x, context=3)
    kept = layer.context
    layer.eval()
    with pytest.raises(RuntimeError, match="needs a forward in training mode"):
        layer.backward(x)
    layer(x)
    assert layer.context is None
    layer.backward(x, context=kept)
    np.testing.assert_array_equal(layer.grads["bias"], [6, 6])
    np.testing.assert_array_equal(layer.grads["weight"], 9)


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))],
    ids=["deepcopy", "copy", "pickle"],
)
def test_copies_have_buffers_of_their_own(duplicate):
    shared = Leaf(2)
    model = Sequential(Linear(2, 3, seed=0), Pair(shared, Leaf(1, 6)), shared)
    _ = model.flat_parameters
    model[0](np.ones((1, 2)))
    for original in (model, model[1], shared):
        flat = original.flat_parameters
        before = flat.copy()
        twin = duplicate(original)
        if duplicate is copy.copy and original is not shared:
            # A shallow copy shares its children, as it should.
            assert np.shares_memory(twin.flat_parameters, flat)
            continue
        np.testing.assert_array_equal(twin.flat_parameters, before)
        np.testing.assert_array_equal(twin.flat_grads, original.flat_grads)
        assert_consistent(twin)
        assert all(module.context is None for module in twin.modules())
        twin.flat_parameters[:] = 99
        np.testing.assert_array_equal(original.flat_parameters, before)
    twin = copy.copy(model)
    twin.tail = Leaf(1)
    assert len(twin) == len(model) + 1
    twin = copy.deepcopy(model)
    assert twin[2] is twin[1].left
    assert model[0].context is not None


def test_state_dict_is_a_copy_and_comes_back(dtype):
    model = Pair(Leaf(2, dtype=dtype), Leaf(1, 6, dtype))
    state = model.state_dict()
    assert list(state) == list(model.parameters)
    model.flat_parameters[:] = 0
    assert state["right.b"] == [8]
    model.load_state_dict(state)
    np.testing.assert_array_equal(model.flat_parameters, np.arange(9))


def test_load_state_dict_converts():
    leaf = Leaf(2)
    leaf.load_state_dict({"a": [[1, 2], [3, 4]], "b": np.float64([5, np.nan])})
    np.testing.assert_array_equal(leaf.flat_parameters, [1, 2, 3, 4, 5, np.nan])
    leaf = Pair(Leaf(2), Leaf(2, 6))
    p = leaf.parameters
    leaf.load_state_dict(
        {
            "left.a": p["right.a"],
            "left.b": p["right.b"],
            "right.a": p["left.a"],
            "right.b": p["left.b"],
        }
    )
    np.testing.assert_array_equal(leaf.flat_parameters, [*range(6, 12), *range(6)])


BAD_STATES = {
    "missing": (
        {"a": np.zeros((2, 2))},
        ValueError,
        "Leaf.load_state_dict: names and shapes must be those of the parameters, "
        "got missing b",
    ),
    "unexpected": (
        {"a": np.zeros((2, 2)), "b": [0, 0], "c": [0], "d": [0]},
        ValueError,
        "Leaf.load_state_dict: names and shapes must be those of the parameters, "
        "got unexpected c, d",
    ),
    "all at once": (
        {"a": np.zeros((2, 3)), "c": [0]},
        ValueError,
        "Leaf.load_state_dict: names and shapes must be those of the parameters, "
        "got missing b; unexpected c; a must have shape (2, 2), got (2, 3)",
    ),
    "second shape": (
        {"a": np.zeros((2, 2)), "b": [0, 0, 0]},
        ValueError,
        "Leaf.load_state_dict: names and shapes must be those of the parameters, "
        "got b must have shape (2,), got (3,)",
    ),
    "complex": (
        {"a": np.zeros((2, 2)), "b": [0j, 0]},
        TypeError,
        "Leaf.load_state_dict: b must be real numbers, got dtype complex128",
    ),
    "no mapping": (
        [("a", 1)],
        TypeError,
        "Leaf.load_state_dict: state_dict must be a mapping of names to arrays, "
        "got list",
    ),
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_load_state_dict_refuses_and_changes_nothing(case):
    state, error, message = BAD_STATES[case]
    leaf = Leaf(2)
    with pytest.raises(error) as caught:
        leaf.load_state_dict(state)
    assert str(caught.value) == message
    np.testing.assert_array_equal(leaf.flat_parameters, np.arange(6))


def test_load_state_dict_not_strict():
    leaf = Leaf(2)
    leaf.load_state_dict({"b": [7, 8], "else": "anything"}, strict=False)
    np.testing.assert_array_equal(leaf.flat_parameters, [0, 1, 2, 3, 7, 8])
    with pytest.raises(ValueError, match=r"b must have shape \(2,\), got \(1,\)"):
        leaf.load_state_dict({"a": np.ones((2, 2)), "b": [7]}, strict=False)
    np.testing.assert_array_equal(leaf.flat_parameters, [0, 1, 2, 3, 7, 8])


def test_save_and_load(tmp_path, dtype):
    path = tmp_path / "model.safetensors"
    model = Pair(Leaf(2, dtype=dtype), Leaf(1, 6, dtype))
    path.write_bytes(b"old")
    model.save(path)
    assert os.listdir(tmp_path) == ["model.safetensors"]
    stored = safetensors.numpy.load_file(path)
    assert sorted(stored) == sorted(model.parameters)
    assert stored["left.a"].dtype == dtype
    other = Pair(Leaf(2, 50, dtype), Leaf(1, 50, dtype))
    other.load(path)
    np.testing.assert_array_equal(other.flat_parameters, np.arange(9))
    other.load(str(path))


def test_save_follows_links_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    os.symlink(tmp_path / "real", tmp_path / "link")
    Leaf(2).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    Leaf(2, 9).load(tmp_path / "real")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(os.stat(tmp_path / "real").st_mode) == 0o666 & ~umask
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        Leaf(2).save(tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "real"]


def test_load_refuses_and_changes_nothing(tmp_path):
    path = tmp_path / "model.safetensors"
    model = Leaf(2)
    with pytest.raises(FileNotFoundError):
        model.load(path)
    model.save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"{}", whole[:-1], whole[:20], b"\xff" * 8 + whole[8:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="must be a whole safetensors file") as got:
            model.load(path)
        assert str(got.value).startswith(f"Leaf.load: {path} must be")
    Leaf(3).save(path)
    with pytest.raises(ValueError, match="a must have shape") as got:
        model.load(path)
    assert str(got.value) == (
        f"Leaf.load: {path}: names and shapes must be those of the parameters, got "
        "a must have shape (2, 2), got (3, 2); b must have shape (2,), got (3,)"
    )
    np.testing.assert_array_equal(model.flat_parameters, np.arange(6))


def test_load_of_a_type_numpy_does_not_have(tmp_path):
    torch = pytest.importorskip("torch", reason="writes bfloat16")
    from safetensors.torch import save_file

    path = tmp_path / "half.safetensors"
    save_file({"a": torch.zeros(2, 2, dtype=torch.bfloat16)}, path)
    with pytest.raises(ValueError, match="must hold types that NumPy has, got 'BF16'"):
        Leaf(2).load(path)


def test_torch_state_dicts_load_as_they_are(tmp_path):
    torch = pytest.importorskip("torch", reason="compares with torch.nn")
    from safetensors.torch import save_file

    path = tmp_path / "torch.safetensors"
    peer = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 2))
    save_file(peer.state_dict(), path)
    model = Sequential(Embedding(5, 3), Linear(3, 2))
    model.load(path)
    for name, tensor in peer.state_dict().items():
        np.testing.assert_array_equal(model.parameters[name], tensor.numpy())
    model.flat_parameters[:] = 0
    model.load_state_dict(peer.state_dict())
    np.testing.assert_array_equal(
        model.parameters["1.bias"], peer[1].bias.detach().numpy()
    )
    with pytest.raises(TypeError, match=r"0\.weight must be an array of numbers, got"):
        model.load_state_dict(dict(peer.named_parameters()))  # they require grad


@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}],
    ids=["plain", "deep", "no bias"],
)
@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
def test_torch_recurrent_state_dicts_load_as_they_are(tmp_path, cell, options):
    torch = pytest.importorskip("torch", reason="compares with torch.nn")
    from safetensors.torch import load_file, save_file

    path = tmp_path / "torch.safetensors"
    peer = getattr(torch.nn, cell)(3, 5, **options)
    save_file(peer.state_dict(), path)
    layer = getattr(fastrnn, cell)(3, 5, **options)
    layer.load(path)
    assert list(layer.parameters) == list(peer.state_dict())
    for name, tensor in peer.state_dict().items():
        np.testing.assert_array_equal(layer.parameters[name], tensor.numpy())
    layer.flat_parameters[:] += 1
    layer.save(path)
    peer.load_state_dict(load_file(path))  # and the other way
    for name, tensor in peer.state_dict().items():
        np.testing.assert_array_equal(layer.parameters[name], tensor.numpy())
    with pytest.raises(ValueError, match=f"{cell}.load: .*: names and shapes must be"):
        getattr(fastrnn, cell)(3, 6, **options).load(path)


def test_repr():
    model = Sequential(Embedding(5, 3, padding_idx=-1), Pair(Linear(3, 2, False), None))
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Embedding(5, 3, padding_idx=4)\n"
        "  (1): Pair(\n"
        "    (left): Linear(3, 2, bias=False)\n"
        "  )\n"
        ")"
    )
    assert repr(Dropout(0.25)) == "Dropout(p=0.25)"
