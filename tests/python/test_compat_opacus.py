"""Opacus' PrivacyEngine by hushgrad: arguments, return shapes, attributes, and the same update as Opacus' own."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("hushgrad._torch")

from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from hushgrad.compat.opacus import GradSampleModule, PrivacyEngine  # noqa: E402
from hushgrad.compat.opacus.data_loader import DPDataLoader  # noqa: E402
from hushgrad.compat.opacus.distributed import DifferentiallyPrivateDistributedDataParallel  # noqa: E402
from hushgrad.compat.opacus.grad_sample import GradSampleHooks, register_grad_sampler  # noqa: E402
from hushgrad.compat.opacus.optimizers import DPOptimizer  # noqa: E402
from hushgrad.compat.opacus.schedulers import ExponentialNoise, LambdaGradClip, StepNoise  # noqa: E402
from hushgrad.compat.opacus.utils.batch_memory_manager import BatchMemoryManager  # noqa: E402
from hushgrad.compat.opacus.utils.uniform_sampler import UniformWithReplacementSampler  # noqa: E402
from hushgrad.compat.opacus.validators.errors import UnsupportedModuleError  # noqa: E402
from hushgrad.errors import InvalidArgument, Unsupported  # noqa: E402
from hushgrad.insecure_seed import InsecureSeed  # noqa: E402

DELTA = 1e-5
RECORDS, BATCH = 60, 15
ADAPTIVE = {
    "target_unclipped_quantile": 0.5,
    "clipbound_learning_rate": 0.2,
    "max_clipbound": 10.0,
    "min_clipbound": 0.01,
    "unclipped_num_std": 2.0,
}


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(RECORDS, 6, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long())


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))


def parts(module: nn.Module | None = None) -> dict[str, Any]:
    module = module or network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    return {"module": module, "optimizer": optimizer, "data_loader": DataLoader(data(), batch_size=BATCH)}


def private(**options: Any) -> tuple[PrivacyEngine, tuple[Any, ...]]:
    engine = PrivacyEngine(accountant=options.pop("accountant", "prv"), ledger=":memory:")
    arguments = {**parts(options.pop("module", None)), "noise_multiplier": 1.0, "max_grad_norm": 1.0, **options}
    return engine, engine.make_private(**arguments)


def train(made: tuple[Any, ...], epochs: int = 1, reduction: str = "mean") -> None:
    module, optimizer, loader = made[0], made[1], made[-1]
    criterion = made[2] if len(made) == 4 else nn.CrossEntropyLoss(reduction=reduction)
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            criterion(module(x), y).backward()
            optimizer.step()


pytestmark = pytest.mark.filterwarnings("ignore:make_private. this engine has trained on another:UserWarning")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"grad_sample_mode": "functorch"},
        {"grad_sample_mode": "ew"},
        {"grad_sample_mode": "ghost", "criterion": nn.CrossEntropyLoss()},
        {"grad_sample_mode": "ghost", "loss_reduction": "sum"},
        {"loss_reduction": "sum"},
        {"poisson_sampling": False},
        {"rand_on_empty": True},
        {"clipping": "per_layer", "max_grad_norm": [0.5, 0.5, 1.0, 1.0]},
        {"clipping": "automatic"},
        {"clipping": "adaptive", **ADAPTIVE},
    ],
    ids=str,
)
@pytest.mark.parametrize("accountant", ["prv", "rdp", "gdp"])
def test_epsilon_is_that_of_what_the_ledger_was_charged(options: dict[str, Any], accountant: str) -> None:
    engine, made = private(accountant=accountant, **options)
    noise = ExponentialNoise(made[1], gamma=0.9)
    for _ in range(2):
        train(made, reduction=options.get("loss_reduction", "mean"))
        noise.step()
    assert [steps for _, _, steps in engine.accountant.history] == [4, 4]
    assert engine.get_epsilon(DELTA) == engine.accountant.get_epsilon(delta=DELTA) == engine.native.get_epsilon(DELTA)


def test_shuffled_epochs_are_counted_as_they_are_charged() -> None:
    shuffled = {**parts(), "data_loader": DataLoader(data(), batch_size=BATCH, shuffle=True)}
    engine = PrivacyEngine(ledger=":memory:")
    made = engine.make_private(**shuffled, noise_multiplier=1.0, max_grad_norm=1.0, poisson_sampling=False)
    train(made, epochs=2)
    assert [steps for _, _, steps in engine.accountant.history] == [2]
    assert engine.get_epsilon(DELTA) == engine.native.get_epsilon(DELTA)


def test_three_objects_are_the_callers_own_under_opacus_names() -> None:
    given = parts()
    keys = list(given["module"].state_dict())
    engine = PrivacyEngine(ledger=":memory:")
    module, optimizer, loader = engine.make_private(**given, noise_multiplier=1.5, max_grad_norm=2.0)
    assert (module, optimizer, loader) == (given["module"], given["optimizer"], given["data_loader"])
    assert isinstance(module, nn.Sequential) and isinstance(module, GradSampleModule) and module._module is module
    assert isinstance(optimizer, torch.optim.SGD) and isinstance(optimizer, DPOptimizer)
    assert isinstance(loader, DPDataLoader) and loader.sample_rate == 0.25 and len(loader) == 4
    assert list(module.state_dict()) == keys and type(module).__name__ == "Sequential"
    assert (optimizer.noise_multiplier, optimizer.max_grad_norm, optimizer.expected_batch_size) == (1.5, 2.0, BATCH)
    assert optimizer.original_optimizer is optimizer and optimizer.accumulated_iterations == 1
    assert [id(p) for p in optimizer.params] == [id(p) for p in module.parameters()]


def test_a_models_own_names_come_first() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._module = nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self._module(x)

    _, made = private(module=Named())
    assert isinstance(made[0]._module, nn.Linear)
    train(made)


def test_ghost_returns_a_criterion_third() -> None:
    given = nn.CrossEntropyLoss()
    _, made = private(grad_sample_mode="ghost", criterion=given)
    assert len(made) == 4 and made[2].criterion is given and made[2].ignore_index == -100
    train(made)
    loss = made[2](torch.zeros(2, 2), torch.tensor([0, 1]))
    assert isinstance((2 * loss + loss / 2 - loss).detach().item(), float)


def test_ghost_criterion_takes_the_shape_of_flattened_logits() -> None:
    _, made = private(grad_sample_mode="ghost")
    logits, target = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5))
    target[0, 2:] = -100
    alone = [nn.functional.cross_entropy(logits[i], target[i]) for i in range(3)]
    actual = made[2](logits.flatten(0, 1), target.flatten(), shape=logits.shape)
    torch.testing.assert_close(actual, torch.stack(alone).mean())
    with pytest.raises(InvalidArgument, match="3 x 4"):
        made[2](logits.flatten(0, 1), target.flatten(), shape=(3, 4))


def test_ghost_with_another_reduction_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="reduction"):
        private(grad_sample_mode="ghost", criterion=nn.CrossEntropyLoss(reduction="sum"))


def test_without_wrapping_the_first_is_hooks_to_clean_up() -> None:
    given = parts()
    engine = PrivacyEngine(ledger=":memory:")
    hooks, optimizer, loader = engine.make_private(**given, noise_multiplier=1.0, max_grad_norm=1.0, wrap_model=False)
    assert isinstance(hooks, GradSampleHooks) and type(given["module"]) is nn.Sequential
    train((given["module"], optimizer, loader))
    assert len(engine.accountant) == 1
    hooks.cleanup()
    x = torch.randn(3, 6)
    given["module"](x).sum().backward()
    assert given["module"][0].weight.grad is not None


def test_remove_hooks_gives_the_module_back() -> None:
    _, (module, _, _) = private()
    module.remove_hooks()
    assert type(module) is nn.Sequential
    module(torch.randn(3, 6)).sum().backward()
    assert module[0].weight.grad is not None


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_clips_as_opacus_does(reduction: str, mode: str) -> None:
    opacus = pytest.importorskip("opacus")
    options = {
        "noise_multiplier": 0.0,
        "max_grad_norm": 0.3,
        "poisson_sampling": False,
        "loss_reduction": reduction,
        "grad_sample_mode": mode,
        "criterion": nn.CrossEntropyLoss(reduction=reduction),
    }
    weights = []
    for engine in (opacus.PrivacyEngine, lambda: PrivacyEngine(ledger=":memory:")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = engine().make_private(**parts(), **options)
            train(made, reduction=reduction)
        weights.append([p.detach().clone() for p in made[0].parameters()])
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


def test_make_private_with_epsilon_meets_the_target_by_its_accountant() -> None:
    for accountant in ("prv", "rdp"):
        engine = PrivacyEngine(accountant=accountant, ledger=":memory:")
        made = engine.make_private_with_epsilon(
            **parts(), target_epsilon=4.0, target_delta=DELTA, epochs=3, max_grad_norm=1.0, epsilon_tolerance=0.01
        )
        train(made, epochs=3)
        assert 3.9 < engine.get_epsilon(DELTA) <= 4.0


def test_own_batches_meet_the_target_too() -> None:
    engine = PrivacyEngine(ledger=":memory:")
    made = engine.make_private_with_epsilon(
        **parts(), target_epsilon=4.0, target_delta=DELTA, epochs=2, max_grad_norm=1.0, poisson_sampling=False
    )
    train(made, epochs=2)
    assert 3.8 < engine.get_epsilon(DELTA) <= 4.0


def test_a_target_after_spending_warns() -> None:
    engine, made = private()
    train(made)
    with pytest.warns(UserWarning, match="spent already"):
        engine.make_private_with_epsilon(
            **parts(), target_epsilon=4.0, target_delta=DELTA, epochs=1, max_grad_norm=1.0
        )


def test_schedules_change_noise_and_clipping_of_the_next_step() -> None:
    engine, made = private()
    optimizer = made[1]
    noise = StepNoise(optimizer, step_size=2, gamma=0.5)
    clip = LambdaGradClip(optimizer, scheduler_function=lambda epoch: 1 / (1 + epoch))
    for _ in range(4):
        train(made)
        noise.step()
        clip.step()
    assert engine.accountant.history == [(1.0, 0.25, 8), (0.5, 0.25, 8)]
    assert (optimizer.noise_multiplier, optimizer.max_grad_norm) == (0.25, 0.2)
    assert noise.state_dict() == {"step_size": 2, "gamma": 0.5, "last_epoch": 4}


def test_schedulers_need_a_private_optimizer() -> None:
    with pytest.raises(InvalidArgument, match="noise_multiplier"):
        ExponentialNoise(torch.optim.SGD(network().parameters(), 0.1), gamma=0.9)


def test_step_hooks_run_once_a_logical_step() -> None:
    engine, (module, optimizer, loader) = private()
    seen = []
    optimizer.attach_step_hook(lambda o: seen.append((o is optimizer, len(engine.accountant.history))))
    with BatchMemoryManager(data_loader=loader, max_physical_batch_size=4, optimizer=optimizer) as physical:
        train((module, optimizer, physical))
    assert seen == [(True, 1)] * 4
    assert engine.accountant.history == [(1.0, 0.25, 4)]


def test_learning_rate_schedulers_and_state_dicts_are_torchs_own() -> None:
    _, made = private()
    scheduler = torch.optim.lr_scheduler.StepLR(made[1], step_size=1, gamma=0.1)
    train(made)
    scheduler.step()
    assert made[1].param_groups[0]["lr"] == pytest.approx(0.01)
    plain = torch.optim.SGD(made[0].parameters(), lr=1.0)
    plain.load_state_dict(made[1].state_dict())
    assert plain.param_groups[0]["lr"] == pytest.approx(0.01)


def test_what_would_cost_more_than_it_says_is_refused() -> None:
    _, (_, optimizer, _) = private()
    optimizer.signal_skip_step(do_skip=False)
    with pytest.raises(Unsupported, match="BatchMemoryManager"):
        optimizer.signal_skip_step()
    with pytest.raises(Unsupported, match="private data"):
        optimizer.grad_samples


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"noise_generator": torch.Generator()}, "secure generator"),
        ({"grad_sample_mode": "no_op"}, '"hooks"'),
        ({"grad_sample_mode": "ghost_fsdp"}, "one process"),
        ({"grad_sample_mode": "other"}, "'other'"),
        ({"clipping": "other"}, "clipping"),
        ({"clipping": "adaptive"}, "target_unclipped_quantile"),
        ({"max_gradnorm": 1.0}, "max_gradnorm"),
        ({"clipping": "per_layer", "max_grad_norm": [1.0]}, "4 trainable"),
        ({"loss_reduction": "none"}, "loss_reduction"),
        ({"optimizer": torch.optim.SGD(network().parameters(), 0.1)}, "different than optimizer"),
        ({"module": network().eval()}, "training mode"),
        ({"module": nn.Sequential(nn.Linear(6, 2), nn.BatchNorm1d(2))}, "GroupNorm"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_refusals_are_value_errors_that_say_what_to_do(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        private(**options)


def test_invalid_modules_raise_opacus_error() -> None:
    engine = PrivacyEngine(ledger=":memory:")
    bad = nn.Sequential(nn.Linear(6, 2), nn.BatchNorm1d(2))
    with pytest.raises(UnsupportedModuleError):
        engine.make_private(**parts(bad), noise_multiplier=1.0, max_grad_norm=1.0)
    assert not engine.is_compatible(module=bad)
    fixed = PrivacyEngine.get_compatible_module(bad)
    assert fixed is not bad and engine.is_compatible(module=fixed, optimizer=None, data_loader=None)
    engine.validate(module=fixed)


def test_an_optimizer_may_be_made_private_again() -> None:
    engine, (module, optimizer, _) = private()
    loader = DataLoader(data(), batch_size=BATCH)
    made = engine.make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=2.0, max_grad_norm=1.0
    )
    train(made)
    assert engine.accountant.history == [(2.0, 0.25, 4)]
    assert engine.get_epsilon(DELTA) == engine.native.get_epsilon(DELTA)


@pytest.mark.parametrize("poisson_sampling", [True, False])
def test_a_poisson_loader_of_the_scripts_own_is_made_private_in_place(poisson_sampling: bool) -> None:
    own = DPDataLoader.from_data_loader(DataLoader(data(), batch_size=BATCH))
    assert len(own) == 4 and own.sample_rate == 0.25
    sizes = {len(y) for _ in range(8) for _, y in own}
    assert len(sizes) > 1
    engine, made = private(data_loader=own, poisson_sampling=poisson_sampling)
    assert made[2] is own
    train((made[0], made[1], own))
    assert engine.accountant.history == [(1.0, 0.25, 4)]


def test_an_iteration_that_began_before_make_private_is_private() -> None:
    own = DPDataLoader.from_data_loader(DataLoader(data(), batch_size=BATCH))
    begun = iter(own)
    engine, (module, optimizer, _) = private(data_loader=own)
    for x, y in begun:
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    assert engine.accountant.history == [(1.0, 0.25, 4)]


def test_lightning_trains_with_the_loader_that_was_made_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lightning = pytest.importorskip("pytorch_lightning", reason="needs PyTorch Lightning")
    from hushgrad.compat.opacus.lightning import DPLightningDataModule

    class Data(lightning.LightningDataModule):  # type: ignore[misc, name-defined]
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(data(), batch_size=BATCH)

    class Model(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()
            self.engine = PrivacyEngine(ledger=":memory:")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            self.trainer.fit_loop.setup_data()
            loader = self.trainer.train_dataloader
            return self.engine.make_private(
                module=self, optimizer=torch.optim.SGD(self.parameters(), lr=0.1), data_loader=loader,
                noise_multiplier=1.0, max_grad_norm=1.0, poisson_sampling=isinstance(loader, DPDataLoader),
            )[1]  # fmt: skip

    monkeypatch.chdir(tmp_path)
    model, trainer = Model(), None
    for epochs in (1, 2):  # two fits, each with a loader and a run of its own
        trainer = lightning.Trainer(
            max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accelerator="cpu",
        )  # fmt: skip
        trainer.fit(model, DPLightningDataModule(Data()))
        model.remove_hooks()
    assert model.engine.accountant.history == [(1.0, 0.25, 12)]


def test_a_loader_on_the_uniform_sampler_is_poisson() -> None:
    sampler = UniformWithReplacementSampler(num_samples=RECORDS, sample_rate=0.25)
    assert len(sampler) == 4 and all(0 <= i < RECORDS for batch in sampler for i in batch)
    engine, made = private(data_loader=DataLoader(data(), batch_sampler=sampler))
    train(made)
    assert engine.accountant.history == [(1.0, 0.25, 4)]


def test_seeds_for_batches_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="secure generator"):
        UniformWithReplacementSampler(num_samples=4, sample_rate=0.5, generator=torch.Generator())
    with pytest.raises(InvalidArgument, match="secure generator"):
        DPDataLoader(data(), sample_rate=0.5, generator=torch.Generator())


def test_empty_batches_keep_their_structure() -> None:
    loader = DPDataLoader(data(), sample_rate=1e-9)
    loader.__dict__["batch_sampler"].steps = 1
    (batch,) = list(loader)
    assert [tuple(t.shape) for t in batch] == [(0, 6), (0,)]


def test_two_backward_passes_through_one_forward_network_of_a_gan() -> None:
    class Discriminator(nn.Linear):
        pass

    module = Discriminator(6, 1)
    optimizer = torch.optim.Adam(module.parameters())
    loader = DataLoader(data(), batch_size=BATCH)
    engine = PrivacyEngine(ledger=":memory:")
    module, optimizer, loader = engine.make_private(
        module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0
    )
    generator = nn.Linear(3, 6)
    criterion = nn.BCEWithLogitsLoss()
    for real, _ in loader:
        optimizer.zero_grad(set_to_none=True)
        fake = generator(torch.randn(len(real), 3))
        loss = criterion(module(real), torch.ones(len(real), 1)) + criterion(
            module(fake.detach()), torch.zeros(len(real), 1)
        )
        loss.backward()
        optimizer.step()
        generator.zero_grad()
        criterion(module(fake), torch.ones(len(real), 1)).backward()
    assert engine.accountant.history == [(1.0, 0.25, 4)]


def test_one_process_data_parallel_passes_through() -> None:
    engine, made = private(module=DifferentiallyPrivateDistributedDataParallel(network()))
    train(made)
    assert len(engine.accountant) == 1


def test_rules_of_the_scripts_own_are_not_needed() -> None:
    with pytest.warns(UserWarning, match="never called"):

        @register_grad_sampler(nn.Linear)
        def rule(layer: Any, activations: Any, backprops: Any) -> Any:
            raise AssertionError("called")

    train(private()[1])


def test_checkpoints_continue(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    engine, made = private()
    noise = ExponentialNoise(made[1], gamma=0.9)
    train(made)
    engine.save_checkpoint(
        path=path, module=made[0], optimizer=made[1], noise_scheduler=noise, checkpoint_dict={"epoch": 1}
    )
    other, again = private()
    noise_again = ExponentialNoise(again[1], gamma=0.5)
    rest = other.load_checkpoint(path=path, module=again[0], optimizer=again[1], noise_scheduler=noise_again)
    assert rest["epoch"] == 1 and "module_state_dict" in rest and "optimizer_state_dict" not in rest
    assert noise_again.gamma == 0.9
    # A history as Opacus writes it says nothing of the precision of the noise.
    assert other.get_epsilon(DELTA) == pytest.approx(engine.get_epsilon(DELTA), abs=2e-4)
    train(again)
    assert other.accountant.history == [(1.0, 0.25, 8)]


@pytest.mark.parametrize("accountant", ["prv", "rdp", "gdp"])
def test_an_older_checkpoint_gives_nothing_back(tmp_path: Path, accountant: str) -> None:
    engine, made = private(accountant=accountant)
    train(made)
    engine.save_checkpoint(path=tmp_path / "early.pt", module=made[0])
    train(made, epochs=2)
    spent = engine.get_epsilon(DELTA)
    engine.load_checkpoint(path=tmp_path / "early.pt", module=made[0])
    assert engine.get_epsilon(DELTA) == engine.accountant.get_epsilon(DELTA) == spent
    engine.accountant.history = []
    assert engine.get_epsilon(DELTA) == spent


def test_opacus_own_checkpoint_opens(tmp_path: Path) -> None:
    opacus = pytest.importorskip("opacus")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = opacus.PrivacyEngine(accountant="rdp")
        made = theirs.make_private(**parts(), noise_multiplier=1.0, max_grad_norm=1.0)
        train(made)
        theirs.save_checkpoint(path=tmp_path / "theirs.pt", module=made[0], optimizer=made[1])
    ours, again = private(accountant="rdp")
    ours.load_checkpoint(path=tmp_path / "theirs.pt", module=again[0], optimizer=again[1])
    assert ours.accountant.history == theirs.accountant.history
    for p, q in zip(made[0].parameters(), again[0].parameters()):
        assert torch.equal(p, q)


def test_checkpoints_of_another_accountant_are_refused(tmp_path: Path) -> None:
    engine, made = private(accountant="rdp")
    engine.save_checkpoint(path=tmp_path / "rdp.pt", module=made[0])
    other, again = private()
    with pytest.raises(ValueError, match="'rdp'"):
        other.load_checkpoint(path=tmp_path / "rdp.pt", module=again[0])


def test_an_insecure_seed_repeats_a_run() -> None:
    runs = []
    for _ in range(2):
        _, made = private(noise_generator=InsecureSeed(7))
        train(made)
        runs.append([p.detach().clone() for p in made[0].parameters()])
    assert all(torch.equal(p, q) for p, q in zip(*runs))


def test_secure_mode_is_always_on() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for secure_mode in (False, True):
            assert PrivacyEngine(secure_mode=secure_mode, ledger=":memory:").secure_mode is secure_mode


def test_a_module_that_was_made_private_can_be_unwrapped_and_copied_by_state() -> None:
    _, (module, _, _) = private()
    plain = network()
    plain.load_state_dict(module._module.state_dict())
    plain.load_state_dict(copy.deepcopy(module.state_dict()))


def test_a_made_up_row_in_place_of_no_rows_counts_for_nothing() -> None:
    class NeedsRows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 2)
            self.rows: list[int] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert len(x) > 0
            self.rows.append(len(x))
            return self.inner(x)

    module = NeedsRows()
    given = {**parts(module), "data_loader": DataLoader(data(), batch_size=1)}
    engine = PrivacyEngine(ledger=":memory:")
    made = engine.make_private(**given, noise_multiplier=0.0, max_grad_norm=1.0, rand_on_empty=True)
    criterion = nn.CrossEntropyLoss()
    for x, y in made[2]:
        before = [p.detach().clone() for p in module.parameters()]
        made[1].zero_grad()
        criterion(module(x), y).backward()
        made[1].step()
        if bool(((x == 0) | (x == 1)).all()):
            assert len(x) == 1 and all(torch.equal(p, q) for p, q in zip(before, module.parameters()))
            break
    else:
        pytest.fail("60 batches of one expected row, and none was empty: odds of 1e-12")
