"""Import paths and signatures of Opacus 1.6, against the list here and, where it is installed, against Opacus itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("hushgrad._torch")

from torch import nn  # noqa: E402

from hushgrad.errors import Unsupported  # noqa: E402

OURS = "hushgrad.compat.opacus"

# What Opacus' examples, tutorials and the projects that use it import.
USED = {
    "": ["PrivacyEngine", "GradSampleModule", "GradSampleModuleFastGradientClipping", "utils", "__version__"],
    ".privacy_engine": ["PrivacyEngine"],
    ".accountants": [
        "IAccountant", "GaussianAccountant", "RDPAccountant", "PRVAccountant", "create_accountant", "register_accountant",
    ],
    ".accountants.accountant": ["IAccountant"],
    ".accountants.utils": ["get_noise_multiplier"],
    ".accountants.rdp": ["RDPAccountant"],
    ".accountants.prv": ["PRVAccountant"],
    ".accountants.gdp": ["GaussianAccountant"],
    ".accountants.registry": ["create_accountant", "register_accountant"],
    ".data_loader": ["DPDataLoader"],
    ".distributed": ["DifferentiallyPrivateDistributedDataParallel"],
    ".grad_sample": ["AbstractGradSampleModule", "GradSampleHooks", "GradSampleModule", "register_grad_sampler"],
    ".grad_sample.grad_sample_module": ["GradSampleModule"],
    ".layers": ["DPLSTM", "DPGRU", "DPRNN", "DPMultiheadAttention"],
    ".layers.dp_rnn": ["DPLSTM"],
    ".layers.dp_multihead_attention": ["DPMultiheadAttention"],
    ".optimizers": ["DPOptimizer"],
    ".optimizers.optimizer": ["DPOptimizer"],
    ".schedulers": [
        "ExponentialNoise", "LambdaNoise", "StepNoise", "ExponentialGradClip", "LambdaGradClip", "StepGradClip",
        "_NoiseScheduler", "_GradClipScheduler",
    ],
    ".schedulers.noise_scheduler": ["ExponentialNoise"],
    ".schedulers.grad_clip_scheduler": ["ExponentialGradClip"],
    ".utils.batch_memory_manager": ["BatchMemoryManager"],
    ".utils.fast_gradient_clipping_utils": ["DPLossFastGradientClipping"],
    ".utils.module_utils": ["clone_module", "trainable_parameters", "are_state_dict_equal", "get_submodule"],
    ".utils.uniform_sampler": ["UniformWithReplacementSampler"],
    ".validators": ["ModuleValidator", "register_module_validator", "register_module_fixer"],
    ".validators.module_validator": ["ModuleValidator"],
    ".validators.errors": ["UnsupportedModuleError", "ShouldReplaceModuleError", "IllegalModuleConfigurationError"],
    ".validators.utils": ["register_module_validator"],
    ".version": ["__version__"],
}  # fmt: skip

# Internals that cannot be offered, and a word of the alternative that the error names.
REFUSED = {
    "optimizers.DPPerLayerOptimizer": "make_private",
    "optimizers.DistributedDPOptimizer": "make_private",
    "optimizers.ddpoptimizer.DistributedDPOptimizer": "make_private",
    "grad_sample.GradSampleModuleExpandedWeights": "make_private",
    "grad_sample.create_or_accumulate_grad_sample": "never holds",
    "grad_sample.linear.compute_linear_grad_sample": "never holds",
    "layers.param_rename.RenameParamsMixin": "torch.nn",
    "layers.SequenceBias": "add_bias_kv",
    "accountants.analysis.rdp.compute_rdp": "hushgrad.accounting",
    "utils.adaptive_clipping.adaptive_clipping_utils.PrivacyEngineAdaptiveClipping": 'clipping="adaptive"',
    "utils.per_sample_gradients_utils.check_per_sample_gradients_are_correct": "doctor",
    "utils.uniform_sampler.DistributedUniformWithReplacementSampler": "one process",
    "utils.fsdp_utils.FSDP2Wrapper": "one process",
    "data_loader.switch_generator": "secure generator",
    "scripts.compute_dp_sgd_privacy.main": "internal",
}


@pytest.mark.parametrize("path", USED)
def test_paths_hold_the_names_that_scripts_use(path: str) -> None:
    module = importlib.import_module(OURS + path)
    assert [name for name in USED[path] if not hasattr(module, name)] == []


@pytest.mark.parametrize("name", REFUSED)
def test_internals_say_why_they_are_missing_and_what_to_use(name: str) -> None:
    path, _, attribute = name.rpartition(".")
    with pytest.raises(ImportError) as error:
        exec(f"from {OURS}.{path} import {attribute}")
    assert REFUSED[name] in str(error.value) and "[compat.opacus]" in str(error.value)


def test_an_unknown_name_is_an_ordinary_error() -> None:
    with pytest.raises(ImportError, match="Nothing"):
        exec(f"from {OURS}.optimizers import Nothing")
    assert not hasattr(importlib.import_module(f"{OURS}.optimizers"), "Nothing")


def test_classes_that_need_an_engine_say_so() -> None:
    from hushgrad.compat.opacus import GradSampleModule
    from hushgrad.compat.opacus.optimizers import DPOptimizer

    with pytest.raises(Unsupported, match="make_private"):
        GradSampleModule(nn.Linear(2, 2))
    with pytest.raises(Unsupported, match="make_private"):
        DPOptimizer(torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1), noise_multiplier=1.0, max_grad_norm=1.0)
    assert not isinstance(nn.Linear(2, 2), GradSampleModule)


def theirs(name: str) -> ModuleType:
    pytest.importorskip("opacus", reason="compares with Opacus itself")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def test_every_public_name_of_opacus_is_here_or_says_why_not() -> None:
    silent = []
    packages = [name for _, name, _ in pkgutil.walk_packages(theirs("opacus").__path__, "opacus.") if ".tests" not in name]
    for name in ["opacus", *packages]:
        try:
            public = getattr(theirs(name), "__all__", [])
        except ImportError:  # needs a package that is not installed
            continue
        try:
            ours = importlib.import_module(f"hushgrad.compat.{name}")
        except ImportError as error:
            assert "[compat.opacus]" in str(error), name
            continue
        for attribute in public:
            try:
                getattr(ours, attribute)
            except ImportError:
                continue
            except AttributeError:
                silent.append(f"{name}.{attribute}")
    assert silent == ["opacus.optimizers.DistributedDPOptimizerFastGradientlipping"]  # no name of Opacus: misspelt there


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("privacy_engine", "PrivacyEngine.__init__"),
        ("privacy_engine", "PrivacyEngine.make_private"),
        ("privacy_engine", "PrivacyEngine.make_private_with_epsilon"),
        ("privacy_engine", "PrivacyEngine.get_epsilon"),
        ("privacy_engine", "PrivacyEngine.save_checkpoint"),
        ("privacy_engine", "PrivacyEngine.load_checkpoint"),
        ("privacy_engine", "PrivacyEngine.is_compatible"),
        ("privacy_engine", "PrivacyEngine.validate"),
        ("privacy_engine", "PrivacyEngine.get_compatible_module"),
        ("accountants.utils", "get_noise_multiplier"),
        ("accountants.registry", "register_accountant"),
        ("accountants.rdp", "RDPAccountant.get_privacy_spent"),
        ("accountants.rdp", "RDPAccountant.step"),
        ("accountants.prv", "PRVAccountant.get_epsilon"),
        ("accountants.gdp", "GaussianAccountant.get_epsilon"),
        ("data_loader", "DPDataLoader.__init__"),
        ("data_loader", "DPDataLoader.from_data_loader"),
        ("schedulers", "ExponentialNoise.__init__"),
        ("schedulers", "StepNoise.__init__"),
        ("schedulers", "LambdaNoise.__init__"),
        ("schedulers", "ExponentialGradClip.__init__"),
        ("schedulers", "StepGradClip.__init__"),
        ("schedulers", "LambdaGradClip.__init__"),
        ("utils.batch_memory_manager", "BatchMemoryManager.__init__"),
        ("utils.uniform_sampler", "UniformWithReplacementSampler.__init__"),
        ("validators.module_validator", "ModuleValidator.validate"),
        ("optimizers.optimizer", "DPOptimizer.attach_step_hook"),
        ("optimizers.optimizer", "DPOptimizer.signal_skip_step"),
    ],
)
def test_arguments_are_those_of_opacus(path: str, name: str) -> None:
    signatures = []
    for module in (theirs(f"opacus.{path}"), importlib.import_module(f"{OURS}.{path}")):
        function = module
        for part in name.split("."):
            function = getattr(function, part)
        signatures.append(inspect.signature(function).parameters)
    wanted, ours = signatures
    for argument in wanted.values():
        assert argument.name in ours, argument.name
        assert ours[argument.name].kind == argument.kind, argument.name
        # Opacus' criterion is one CrossEntropyLoss object for all engines; where it has no default, one does not hurt.
        if argument.name != "criterion" and argument.default is not argument.empty:
            assert ours[argument.name].default == argument.default, argument.name
    assert all(a.default is not a.empty for n, a in ours.items() if n not in wanted)
