#include "torch_ext/checkpoint/module_state.h"

#include <ATen/TensorSubclassLikeUtils.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

using json = nlohmann::json;

constexpr const char* kFormat = "hushgrad.checkpoint/1";
constexpr int kDeepest = 512;  // a state is nested 64 deep at most, and each level takes some of JSON's
constexpr double kMaxSteps = 9007199254740992;  // 2^53

json map_node(json entries) { return {{"$map", std::move(entries)}}; }

json tensor_node(NamedTensors& tensors, const std::string& name, const at::Tensor& tensor) {
  tensors.emplace_back(name, tensor);
  return {{"$tensor", name}};
}

std::map<std::string, at::Tensor> state_of(const torch::nn::Module& module) {
  std::map<std::string, at::Tensor> state;
  for (const auto& item : module.named_parameters()) state.emplace(item.key(), item.value());
  for (const auto& item : module.named_buffers()) state.emplace(item.key(), item.value());
  return state;
}

// SGD, Adam and AdamW, each with the names that Python's state_dict() uses.
struct ParameterState {
  std::int64_t step = 0;
  std::vector<std::pair<const char*, at::Tensor>> tensors;
};

template <typename State>
ParameterState adam_state(const State& s) {
  ParameterState state{s.step(), {{"exp_avg", s.exp_avg()}, {"exp_avg_sq", s.exp_avg_sq()}}};
  if (s.max_exp_avg_sq().defined()) state.tensors.push_back({"max_exp_avg_sq", s.max_exp_avg_sq()});
  return state;
}

ParameterState state_of(const torch::optim::OptimizerParamState& s) {
  if (auto* adam = dynamic_cast<const torch::optim::AdamParamState*>(&s)) return adam_state(*adam);
  if (auto* adamw = dynamic_cast<const torch::optim::AdamWParamState*>(&s)) return adam_state(*adamw);
  if (auto* sgd = dynamic_cast<const torch::optim::SGDParamState*>(&s)) {
    ParameterState state;
    if (sgd->momentum_buffer().defined())
      state.tensors.push_back({"momentum_buffer", sgd->momentum_buffer()});
    return state;
  }
  throw Unsupported(
      "[checkpoint] Expected an SGD, Adam or AdamW optimizer, received another. Save the module without it.");
}

template <typename Options>
json adam_options(const Options& o, bool decoupled_weight_decay) {
  const auto [beta1, beta2] = o.betas();
  return json::array({{"lr", o.lr()},
                      {"betas", {{"$tuple", {beta1, beta2}}}},
                      {"eps", o.eps()},
                      {"weight_decay", o.weight_decay()},
                      {"amsgrad", o.amsgrad()},
                      {"decoupled_weight_decay", decoupled_weight_decay}});
}

json options_of(const torch::optim::OptimizerOptions& options) {
  if (auto* o = dynamic_cast<const torch::optim::AdamOptions*>(&options)) return adam_options(*o, false);
  if (auto* o = dynamic_cast<const torch::optim::AdamWOptions*>(&options)) return adam_options(*o, true);
  if (auto* o = dynamic_cast<const torch::optim::SGDOptions*>(&options)) {
    return json::array({{"lr", o->lr()},
                        {"momentum", o->momentum()},
                        {"dampening", o->dampening()},
                        {"weight_decay", o->weight_decay()},
                        {"nesterov", o->nesterov()}});
  }
  throw Unsupported(
      "[checkpoint] Expected an SGD, Adam or AdamW optimizer, received another. Save the module without it.");
}

json encode_optimizer(const torch::optim::Optimizer& optimizer, NamedTensors& tensors) {
  json states = json::array(), groups = json::array();
  std::int64_t index = 0;
  for (const auto& group : optimizer.param_groups()) {
    json numbers = json::array();
    for (const auto& parameter : group.params()) {
      const auto it = optimizer.state().find(parameter.unsafeGetTensorImpl());
      if (it != optimizer.state().end()) {
        const ParameterState state = state_of(*it->second);
        const std::string where = "optimizer/state/" + std::to_string(index) + "/";
        json entries = json::array();
        if (state.step > 0) {
          entries.push_back({"step", tensor_node(tensors, where + "step",
                                                 at::scalar_tensor(static_cast<float>(state.step)))});
        }
        for (const auto& [name, tensor] : state.tensors)
          entries.push_back({name, tensor_node(tensors, where + name, tensor)});
        states.push_back({index, map_node(std::move(entries))});
      }
      numbers.push_back(index++);
    }
    json entries = options_of(group.options());
    entries.push_back({"params", std::move(numbers)});
    groups.push_back(map_node(std::move(entries)));
  }
  return map_node(json::array({{"state", map_node(std::move(states))}, {"param_groups", std::move(groups)}}));
}

/// Access to an encoded tree that came from outside: every surprise is a SealError.
class Tree {
 public:
  Tree(const std::string& meta_json, const NamedTensors& tensors) {
    for (const auto& [name, tensor] : tensors) tensors_.emplace(name, tensor);
    // Copies of what is nested are made by recursion.
    root_ = json::parse(meta_json, [](int depth, json::parse_event_t, json&) {
      if (depth > kDeepest) malformed();
      return true;
    }, false);
    if (!root_.is_object() || !root_.contains("format") || root_["format"] != kFormat || !root_.contains("state")) malformed();
  }
  /// The one number in a tensor.
  double number(const json& node) const {
    const at::Tensor value = tensor(node);
    if (value.numel() != 1 || value.is_complex()) malformed();
    return value.item<double>();
  }
  json member(const json& map, const json& key) const {
    for (const auto& [k, v] : entries(map)) {
      if (k == key) return v;
    }
    return nullptr;
  }
  /// How often each text stands in the tree; at least as often as a tensor of that name is used.
  std::map<std::string, int> mentions() const {
    std::map<std::string, int> found;
    const json flat = root_.flatten();
    for (const json& value : flat) {
      if (value.is_string()) ++found[value.get<std::string>()];
    }
    return found;
  }
  json state(const char* key) const { return member(root_["state"], key); }
  std::vector<std::pair<json, json>> entries(const json& map) const {
    if (!map.is_object() || !map.contains("$map") || !map["$map"].is_array()) malformed();
    std::vector<std::pair<json, json>> result;
    for (const json& entry : map["$map"]) {
      if (!entry.is_array() || entry.size() != 2) malformed();
      result.emplace_back(entry[0], entry[1]);
    }
    return result;
  }
  at::Tensor tensor(const json& node) const {
    if (node.is_object() && node.size() == 1 && node.contains("$view")) return view(node["$view"]);
    if (!node.is_object() || !node.contains("$tensor") || !node["$tensor"].is_string()) malformed();
    const auto it = tensors_.find(node["$tensor"].get<std::string>());
    if (it == tensors_.end()) malformed();
    return it->second;
  }
  /// Tensors that share memory, as Python saves them: [name of the bytes, dtype, offset, shape, strides].
  at::Tensor view(const json& content) const {
    if (!content.is_array() || content.size() != 5 || !content[1].is_string()) malformed();
    const at::Tensor bytes = tensor({{"$tensor", content[0]}});
    const std::string name = content[1];
    const auto offset = sizes(json::array({content[2]}))[0];
    const std::vector<std::int64_t> shape = sizes(content[3]), stride = sizes(content[4]);
    if (bytes.scalar_type() != at::kByte || shape.size() != stride.size()) malformed();
    const auto type = type_of_torch_name(name);
    const auto item = static_cast<std::int64_t>(c10::elementSize(type));
    __int128 last = 1;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] == 0) last = -(static_cast<__int128>(1) << 100);
      last += static_cast<__int128>(shape[i] - 1) * stride[i];
    }
    if (offset % item != 0 || offset + last * item > bytes.numel()) malformed();
    return at::empty({0}, at::TensorOptions(type)).set_(bytes.storage(), offset / item, shape, stride);
  }
  static std::vector<std::int64_t> sizes(const json& list) {
    if (!list.is_array()) malformed();
    std::vector<std::int64_t> values;
    for (const json& value : list) {
      if (!value.is_number_unsigned() || value.get<std::uint64_t>() > (std::uint64_t{1} << 50)) malformed();
      values.push_back(value.get<std::int64_t>());
    }
    return values;
  }
  [[noreturn]] static void malformed() {
    throw SealError(
        "[checkpoint] Expected the state tree of a checkpoint, received something else. Open the file with "
        "what wrote it.");
  }

 private:
  json root_;
  std::map<std::string, at::Tensor> tensors_;
};

bool is_plain(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && tensor.device().is_cpu() && !tensor.is_quantized() && !tensor.is_conj() && !tensor.is_neg() &&
         !tensor.is_inference() && !at::isTensorSubclassLike(tensor) && tensor.is_contiguous() && tensor.numel() > 0;
}

const void* storage_of(const at::Tensor& tensor) { return tensor.has_storage() ? tensor.storage().unsafeGetStorageImpl() : nullptr; }

std::map<const void*, int> users_of_storages(const std::map<std::string, at::Tensor>& state) {
  std::map<const void*, int> users;
  for (const auto& [name, tensor] : state) ++users[storage_of(tensor)];
  return users;
}

[[noreturn]] void refuse_kind() {
  throw InvalidArgument(
      "[load_checkpoint] Expected an optimizer of the kind that was saved, received another. Make that kind, "
      "or load the module without it.");
}

void check_same(const std::string& name, const at::Tensor& mine, const at::Tensor& theirs) {
  if (mine.sizes() == theirs.sizes()) return;
  throw InvalidArgument(message("[load_checkpoint] Expected '", name, "' of shape ", mine.sizes(),
                                ", received ", theirs.sizes(), "."));
}

/// Reads one saved entry of an optimizer for a parameter: copies of the parameter's device, dtype and shape.
class SavedState {
 public:
  SavedState(const Tree& tree, const json& entry, const at::Tensor& parameter)
      : tree_(tree), entry_(entry), parameter_(parameter) {}
  std::int64_t step() const {
    const double steps = tree_.number(tree_.member(entry_, "step"));
    if (!(steps >= 0 && steps <= kMaxSteps)) Tree::malformed();
    return static_cast<std::int64_t>(steps);
  }
  at::Tensor tensor(const char* name) const {
    const at::Tensor value = saved(name);
    check_same(std::string("optimizer state ") + name, parameter_, value);
    return value.to(parameter_.options().requires_grad(false), /*non_blocking=*/false, /*copy=*/true);
  }
  at::Tensor tensor_if_saved(const char* name) const {
    return tree_.member(entry_, name).is_null() ? at::Tensor() : tensor(name);
  }

 private:
  at::Tensor saved(const char* name) const { return tree_.tensor(tree_.member(entry_, name)); }

  const Tree& tree_;
  const json& entry_;
  const at::Tensor& parameter_;
};

template <typename State>
std::unique_ptr<torch::optim::OptimizerParamState> adam_from(const SavedState& saved) {
  auto state = std::make_unique<State>();
  state->step(saved.step());
  state->exp_avg(saved.tensor("exp_avg"));
  state->exp_avg_sq(saved.tensor("exp_avg_sq"));
  state->max_exp_avg_sq(saved.tensor_if_saved("max_exp_avg_sq"));
  return state;
}

std::unique_ptr<torch::optim::OptimizerParamState> state_from(const SavedState& saved,
                                                              const torch::optim::OptimizerOptions& options) {
  if (dynamic_cast<const torch::optim::AdamWOptions*>(&options)) {
    return adam_from<torch::optim::AdamWParamState>(saved);
  }
  if (dynamic_cast<const torch::optim::AdamOptions*>(&options))
    return adam_from<torch::optim::AdamParamState>(saved);
  auto state = std::make_unique<torch::optim::SGDParamState>();
  state->momentum_buffer(saved.tensor_if_saved("momentum_buffer"));
  return state;
}

/// Settings of one saved parameter group. What is not there is left alone, as in Python.
class SavedOptions {
 public:
  SavedOptions(const Tree& tree, const json& group) : tree_(tree), group_(group) {}
  bool has(const char* name) const { return !member(name).is_null(); }
  void read(const char* name, double& value) const {
    const json saved = member(name);
    if (saved.is_number()) {
      value = saved.get<double>();
    } else if (!saved.is_null()) {
      value = tree_.number(saved);
    }
  }
  void read(const char* name, bool& value) const {
    if (const json saved = member(name); saved.is_boolean()) value = saved.get<bool>();
  }
  void read(const char* name, std::tuple<double, double>& value) const {
    const json saved = member(name);
    if (!saved.is_object() || !saved.contains("$tuple") || !saved["$tuple"].is_array() || saved["$tuple"].size() != 2) {
      Tree::malformed();
    }
    for (const json& beta : saved["$tuple"]) {
      if (!beta.is_number()) Tree::malformed();
    }
    value = {saved["$tuple"][0].get<double>(), saved["$tuple"][1].get<double>()};
  }
  json member(const char* name) const { return tree_.member(group_, name); }

 private:
  const Tree& tree_;
  const json& group_;
};

template <typename Options>
void read_adam(const SavedOptions& saved, Options& options, bool decoupled_weight_decay) {
  bool decoupled = decoupled_weight_decay;
  saved.read("decoupled_weight_decay", decoupled);
  if (!saved.has("betas") || decoupled != decoupled_weight_decay) refuse_kind();
  saved.read("lr", options.lr());
  saved.read("betas", options.betas());
  saved.read("eps", options.eps());
  saved.read("weight_decay", options.weight_decay());
  saved.read("amsgrad", options.amsgrad());
}

std::unique_ptr<torch::optim::OptimizerOptions> options_from(const SavedOptions& saved,
                                                             const torch::optim::OptimizerOptions& mine) {
  bool maximize = false;
  saved.read("maximize", maximize);
  if (maximize)
    throw Unsupported(
        "[load_checkpoint] Expected an optimizer that minimizes, received maximize=True, which C++ lacks.");
  auto fresh = mine.clone();
  if (auto* adamw = dynamic_cast<torch::optim::AdamWOptions*>(fresh.get())) {
    read_adam(saved, *adamw, true);
  } else if (auto* adam = dynamic_cast<torch::optim::AdamOptions*>(fresh.get())) {
    read_adam(saved, *adam, false);
  } else if (auto* sgd = dynamic_cast<torch::optim::SGDOptions*>(fresh.get())) {
    if (!saved.has("momentum") || saved.has("betas")) refuse_kind();
    saved.read("lr", sgd->lr());
    saved.read("momentum", sgd->momentum());
    saved.read("dampening", sgd->dampening());
    saved.read("weight_decay", sgd->weight_decay());
    saved.read("nesterov", sgd->nesterov());
  } else {
    throw Unsupported(
        "[load_checkpoint] Expected an SGD, Adam or AdamW optimizer, received another. Load the module "
        "without it.");
  }
  return fresh;
}

/// Everything an optimizer gets, read and checked before any of it is changed.
struct SavedOptimizer {
  std::vector<std::unique_ptr<torch::optim::OptimizerOptions>> options;  // one a parameter group
  std::vector<std::pair<at::Tensor, std::unique_ptr<torch::optim::OptimizerParamState>>> states;

  void move_into(torch::optim::Optimizer& optimizer) {
    optimizer.state().clear();
    for (auto& [parameter, state] : states)
      optimizer.state()[parameter.unsafeGetTensorImpl()] = std::move(state);
    for (std::size_t i = 0; i < options.size(); ++i)
      optimizer.param_groups()[i].set_options(std::move(options[i]));
  }
};

SavedOptimizer decode_optimizer(const Tree& tree, const json& saved, torch::optim::Optimizer& optimizer) {
  SavedOptimizer result;
  std::vector<std::pair<at::Tensor, const torch::optim::OptimizerOptions*>> parameters;
  const json groups = tree.member(saved, "param_groups");
  if (!groups.is_array()) Tree::malformed();
  if (groups.size() != optimizer.param_groups().size()) {
    throw InvalidArgument(message("[load_checkpoint] Expected ", optimizer.param_groups().size(),
                                  " parameter groups as in the optimizer, received ", groups.size(), "."));
  }
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const auto& group = optimizer.param_groups()[i];
    const json numbers = tree.member(groups[i], "params");
    if (!numbers.is_array()) Tree::malformed();
    if (numbers.size() != group.params().size()) {
      throw InvalidArgument(message("[load_checkpoint] Expected ", group.params().size(),
                                    " parameters in group ", i, " as in the optimizer, received ",
                                    numbers.size(), "."));
    }
    result.options.push_back(options_from({tree, groups[i]}, group.options()));
    for (const at::Tensor& parameter : group.params()) parameters.emplace_back(parameter, &group.options());
  }
  for (const auto& [index, entry] : tree.entries(tree.member(saved, "state"))) {
    if (!index.is_number_integer() || index.get<std::int64_t>() < 0 ||
        index.get<std::size_t>() >= parameters.size()) {
      Tree::malformed();
    }
    const auto& [parameter, options] = parameters[index.get<std::size_t>()];
    result.states.emplace_back(parameter, state_from(SavedState(tree, entry, parameter), *options));
  }
  return result;
}

}  // namespace

std::string encode_state(const torch::nn::Module& module, const torch::optim::Optimizer* optimizer,
                         NamedTensors& tensors) {
  json model = json::array();
  for (const auto& [name, tensor] : state_of(module))
    model.push_back({name, tensor_node(tensors, "model/" + name, tensor)});
  const json state =
      map_node(json::array({{"model", map_node(std::move(model))},
                            {"optimizer", optimizer ? encode_optimizer(*optimizer, tensors) : json(nullptr)},
                            {"extra", nullptr}}));
  return json{{"format", kFormat}, {"state", state}}.dump();
}

Places places_of(const SealedReader& reader, const torch::nn::Module& module) {
  const Tree tree(reader.meta_json(), {});
  const auto mine = state_of(module);
  const auto mentions = tree.mentions();
  const auto users = users_of_storages(mine);
  std::map<std::string, const SealedReader::Entry*> entries;
  for (const SealedReader::Entry& entry : reader.tensors()) entries.emplace(entry.name, &entry);
  Places places;
  for (const auto& [name, node] : tree.entries(tree.state("model"))) {
    const auto own = name.is_string() ? mine.find(name.get<std::string>()) : mine.end();
    if (own == mine.end() || !node.is_object() || !node.contains("$tensor") || !node["$tensor"].is_string()) continue;
    const auto saved = entries.find(node["$tensor"].get<std::string>());
    if (saved == entries.end()) Tree::malformed();
    const at::Tensor& tensor = own->second;
    if (tensor.sizes() != saved->second->shape) return {};
    const bool alone = is_plain(tensor) && users.at(storage_of(tensor)) == 1 && mentions.at(saved->first) == 1;
    if (alone && tensor.scalar_type() == type_of(*saved->second)) places.emplace(saved->first, tensor);
  }
  return places;
}

void decode_state(const LoadedTensors& loaded, torch::nn::Module& module,
                  torch::optim::Optimizer* optimizer) {
  const Tree tree(loaded.meta_json, loaded.tensors);
  auto mine = state_of(module);
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;
  for (const auto& [name, node] : tree.entries(tree.state("model"))) {
    const auto it = name.is_string() ? mine.find(name.get<std::string>()) : mine.end();
    if (it == mine.end())
      throw InvalidArgument(
          message("[load_checkpoint] Expected only names that the module has, received ", name.dump(), "."));
    check_same(it->first, it->second, tree.tensor(node));
    copies.emplace_back(it->second, tree.tensor(node));
    mine.erase(it);
  }
  if (!mine.empty())
    throw InvalidArgument(
        message("[load_checkpoint] Expected '", mine.begin()->first, "' in the checkpoint, received none."));
  SavedOptimizer fresh;
  if (optimizer) {
    const json saved = tree.state("optimizer");
    if (saved.is_null())
      throw InvalidArgument(
          "[load_checkpoint] Expected a checkpoint with an optimizer, received one without.");
    fresh = decode_optimizer(tree, saved, *optimizer);
  }
  torch::NoGradGuard no_grad;
  loaded.fill_places();
  for (auto& [to, from] : copies) to.copy_(from);
  if (optimizer) fresh.move_into(*optimizer);
}

}  // namespace hushgrad
