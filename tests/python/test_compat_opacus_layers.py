"""Opacus' recurrent layers are torch.nn's, with one more name for the states."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("hushgrad._torch")

from torch import nn  # noqa: E402

from hushgrad.compat.opacus.layers import DPGRU, DPLSTM, DPRNN  # noqa: E402


@pytest.mark.parametrize(("ours", "theirs"), [(DPRNN, nn.RNN), (DPGRU, nn.GRU), (DPLSTM, nn.LSTM)])
def test_states_have_both_names_and_state_dicts_are_torchs(ours: type[nn.Module], theirs: type[nn.Module]) -> None:
    torch.manual_seed(0)
    layer, reference = ours(3, 4, num_layers=2, batch_first=True), theirs(3, 4, num_layers=2, batch_first=True)
    reference.load_state_dict(layer.state_dict())
    assert isinstance(layer, theirs)
    x, state = torch.randn(5, 6, 3), torch.randn(2, 5, 4)
    states = (state, state.flip(0)) if theirs is nn.LSTM else state
    expected = reference(x, states)[0]
    assert not torch.equal(expected, reference(x)[0])
    assert torch.equal(layer(x)[0], reference(x)[0])
    for given in (layer(x, states), layer(x, hx=states), layer(x, state_init=states)):
        assert torch.equal(given[0], expected)
    with pytest.raises(TypeError, match="both hx and state_init"):
        layer(x, states, state_init=states)


def test_a_layer_with_named_states_trains_exactly() -> None:
    from hushgrad._torch import UnnoisedCaptureForTesting as Capture

    torch.manual_seed(0)
    layer = DPLSTM(3, 4, batch_first=True)
    x, states = torch.randn(5, 6, 3), (torch.randn(1, 5, 4), torch.randn(1, 5, 4))
    named = dict(layer.named_parameters())
    capture = Capture(list(named.values()), list(named), 1e6, False, True)
    capture.begin_batch(5)
    output = layer(x, state_init=states)[0]
    capture.watch([output])
    output.square().sum().backward()
    capture.accumulate()
    got = capture.finish()
    expected = torch.autograd.grad(layer(x, states)[0].square().sum(), list(named.values()))
    for one, other in zip(got, expected):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)
