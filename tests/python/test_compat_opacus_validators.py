"""ModuleValidator: what is invalid, and what fix() puts in its place."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("hushgrad._torch")

from torch import nn  # noqa: E402

from hushgrad.compat.opacus.validators import (  # noqa: E402
    ModuleValidator,
    register_module_fixer,
    register_module_validator,
)
from hushgrad.compat.opacus.validators.errors import (  # noqa: E402
    IllegalModuleConfigurationError,
    ShouldReplaceModuleError,
    UnsupportableModuleError,
    UnsupportedModuleError,
)
from hushgrad.errors import InvalidArgument, Unsupported  # noqa: E402


def convolutional() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 48, 3), nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 7, 3), nn.BatchNorm2d(7))


def test_errors_name_the_module_and_are_value_errors() -> None:
    errors = ModuleValidator.validate(convolutional())
    assert [type(error) for error in errors] == [ShouldReplaceModuleError] * 2
    assert "'1' (BatchNorm2d)" in str(errors[0]) and isinstance(errors[0], ValueError) and isinstance(errors[0], Unsupported)
    assert not ModuleValidator.is_valid(convolutional())
    with pytest.raises(UnsupportedModuleError):
        ModuleValidator.validate(convolutional(), strict=True)


def test_evaluation_mode_is_invalid() -> None:
    (error,) = ModuleValidator.validate(nn.Linear(2, 2).eval())
    assert isinstance(error, IllegalModuleConfigurationError) and "train()" in str(error)


@pytest.mark.parametrize(
    "module",
    [
        nn.LSTM(4, 4),
        nn.GRU(4, 4),
        nn.MultiheadAttention(4, 2),
        nn.TransformerEncoderLayer(8, 2, batch_first=True),
        nn.InstanceNorm2d(4, affine=True),
        nn.GroupNorm(2, 4),
    ],
    ids=lambda module: type(module).__name__,
)
def test_torchs_layers_need_no_replacement(module: nn.Module) -> None:
    assert ModuleValidator.is_valid(module)
    fixed = ModuleValidator.fix(module)
    assert type(fixed) is type(module) and fixed is not module
    assert list(fixed.state_dict()) == list(module.state_dict())


def test_fix_returns_a_copy_with_group_norm() -> None:
    given = convolutional().double()
    nn.init.constant_(given[1].weight, 3.0)
    given[1].bias.requires_grad_(False)
    given[1].eps = 1e-3
    fixed = ModuleValidator.fix_and_validate(given)
    assert isinstance(given[1], nn.BatchNorm2d) and fixed is not given
    assert (fixed[1].num_groups, fixed[1].num_channels, fixed[1].eps, fixed[4].num_groups) == (16, 48, 1e-3, 1)
    assert fixed[1].weight.dtype == torch.float64 and torch.equal(fixed[1].weight, given[1].weight)
    assert fixed[1].weight.requires_grad and not fixed[1].bias.requires_grad
    assert fixed[0].weight is not given[0].weight and torch.equal(fixed[0].weight, given[0].weight)
    assert fixed(torch.randn(2, 3, 8, 8, dtype=torch.float64)).shape == (2, 7, 4, 4)


@pytest.mark.parametrize("module", [nn.BatchNorm1d(8), nn.BatchNorm3d(8), nn.SyncBatchNorm(8), nn.BatchNorm2d(8, affine=False)])
def test_every_batch_norm_is_replaced_also_at_the_root(module: nn.Module) -> None:
    fixed = ModuleValidator.fix(module)
    assert isinstance(fixed, nn.GroupNorm) and fixed.num_groups == 8 and fixed.affine == module.affine


def test_a_batch_norm_used_twice_is_replaced_in_both_places() -> None:
    norm = nn.BatchNorm1d(4)
    fixed = ModuleValidator.fix(nn.ModuleDict({"a": norm, "b": norm}))
    assert all(isinstance(child, nn.GroupNorm) for child in fixed.values())


def test_choices_of_fix() -> None:
    assert ModuleValidator.fix(convolutional(), num_groups=1)[1].num_groups == 1
    assert isinstance(ModuleValidator.fix(convolutional(), replace_bn_with_in=True)[1], nn.InstanceNorm2d)
    with pytest.raises(ValueError, match="both"):
        ModuleValidator.fix(convolutional(), replace_bn_with_in=True, num_groups=2)
    with pytest.raises(InvalidArgument, match="divide 7"):
        ModuleValidator.fix(convolutional(), num_groups=2)
    with pytest.raises(UnsupportableModuleError):
        ModuleValidator.fix(nn.SyncBatchNorm(4), replace_bn_with_in=True)


def test_settings_are_put_right() -> None:
    model = nn.ModuleList(
        [nn.InstanceNorm2d(4, track_running_stats=True), nn.Embedding(5, 3, max_norm=1.0), nn.EmbeddingBag(5, 3, scale_grad_by_freq=True)]
    )
    assert [type(e) for e in ModuleValidator.validate(model)] == [IllegalModuleConfigurationError] * 3
    fixed = ModuleValidator.fix_and_validate(model)
    assert fixed[0].running_mean is None and fixed[1].max_norm is None and not fixed[2].scale_grad_by_freq
    assert torch.equal(fixed[1].weight, model[1].weight)


def test_own_validators_and_fixers() -> None:
    class Odd(nn.Linear):
        pass

    try:

        @register_module_validator([Odd])
        def check(module: nn.Module) -> list[UnsupportedModuleError]:
            return [UnsupportedModuleError("odd")]

        @register_module_fixer(Odd)
        def even(module: nn.Linear, **kwargs: object) -> nn.Module:
            return nn.Linear(module.in_features, module.out_features)

        model = nn.Sequential(Odd(2, 3))
        assert [str(e) for e in ModuleValidator.validate(model)] == ["odd"]
        assert type(ModuleValidator.fix_and_validate(model)[0]) is nn.Linear
    finally:
        ModuleValidator.VALIDATORS.pop(Odd, None)
        ModuleValidator.FIXERS.pop(Odd, None)
