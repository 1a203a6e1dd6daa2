#include "torch_ext/checkpoint/module_state.h"

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

using json = nlohmann::json;

constexpr const char* kFormat = "hushgrad.checkpoint/1";

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
    if (sgd->momentum_buffer().defined()) state.tensors.push_back({"momentum_buffer", sgd->momentum_buffer()});
    return state;
  }
  throw Unsupported("[checkpoint] Expected an SGD, Adam or AdamW optimizer, received another. Save the module without it.");
}

template <typename Options>
json adam_options(const Options& o) {
  const auto [beta1, beta2] = o.betas();
  return json::array({{"lr", o.lr()}, {"betas", {{"$tuple", {beta1, beta2}}}}, {"eps", o.eps()}, {"weight_decay", o.weight_decay()},
                      {"amsgrad", o.amsgrad()}});
}

json options_of(const torch::optim::OptimizerOptions& options) {
  if (auto* o = dynamic_cast<const torch::optim::AdamOptions*>(&options)) return adam_options(*o);
  if (auto* o = dynamic_cast<const torch::optim::AdamWOptions*>(&options)) return adam_options(*o);
  if (auto* o = dynamic_cast<const torch::optim::SGDOptions*>(&options)) {
    return json::array({{"lr", o->lr()}, {"momentum", o->momentum()}, {"dampening", o->dampening()}, {"weight_decay", o->weight_decay()},
                        {"nesterov", o->nesterov()}});
  }
  throw Unsupported("[checkpoint] Expected an SGD, Adam or AdamW optimizer, received another. Save the module without it.");
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
          entries.push_back({"step", tensor_node(tensors, where + "step", at::scalar_tensor(static_cast<float>(state.step)))});
        }
        for (const auto& [name, tensor] : state.tensors) entries.push_back({name, tensor_node(tensors, where + name, tensor)});
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
  Tree(const LoadedTensors& loaded) {
    for (const auto& [name, tensor] : loaded.tensors) tensors_.emplace(name, tensor);
    root_ = json::parse(loaded.meta_json, nullptr, false);
    if (!root_.is_object() || root_.value("format", "") != kFormat || !root_.contains("state")) malformed();
  }
  json member(const json& map, const json& key) const {
    for (const auto& [k, v] : entries(map)) {
      if (k == key) return v;
    }
    return nullptr;
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
    if (!node.is_object() || !node.contains("$tensor") || !node["$tensor"].is_string()) malformed();
    const auto it = tensors_.find(node["$tensor"].get<std::string>());
    if (it == tensors_.end()) malformed();
    return it->second;
  }
  [[noreturn]] static void malformed() {
    throw SealError("[checkpoint] Expected the state tree of a checkpoint, received something else. Open the file with what wrote it.");
  }

 private:
  json root_;
  std::map<std::string, at::Tensor> tensors_;
};

void check_same(const std::string& name, const at::Tensor& mine, const at::Tensor& theirs) {
  if (mine.sizes() == theirs.sizes()) return;
  throw InvalidArgument(message("[load_checkpoint] Expected '", name, "' of shape ", mine.sizes(), ", received ", theirs.sizes(), "."));
}

template <typename State>
std::unique_ptr<torch::optim::OptimizerParamState> adam_from(const Tree& tree, const json& entry) {
  auto state = std::make_unique<State>();
  state->step(static_cast<std::int64_t>(tree.tensor(tree.member(entry, "step")).template item<double>()));
  state->exp_avg(tree.tensor(tree.member(entry, "exp_avg")).clone());
  state->exp_avg_sq(tree.tensor(tree.member(entry, "exp_avg_sq")).clone());
  if (const json most = tree.member(entry, "max_exp_avg_sq"); !most.is_null()) state->max_exp_avg_sq(tree.tensor(most).clone());
  return state;
}

std::unique_ptr<torch::optim::OptimizerParamState> state_from(const Tree& tree, const json& entry, torch::optim::Optimizer& optimizer) {
  if (dynamic_cast<torch::optim::AdamW*>(&optimizer)) return adam_from<torch::optim::AdamWParamState>(tree, entry);
  if (dynamic_cast<torch::optim::Adam*>(&optimizer)) return adam_from<torch::optim::AdamParamState>(tree, entry);
  if (dynamic_cast<torch::optim::SGD*>(&optimizer)) {
    auto state = std::make_unique<torch::optim::SGDParamState>();
    if (const json buffer = tree.member(entry, "momentum_buffer"); !buffer.is_null()) state->momentum_buffer(tree.tensor(buffer).clone());
    return state;
  }
  throw Unsupported("[load_checkpoint] Expected an SGD, Adam or AdamW optimizer, received another. Load the module without it.");
}

void decode_optimizer(const Tree& tree, const json& saved, torch::optim::Optimizer& optimizer) {
  std::vector<at::Tensor> parameters;
  for (const auto& group : optimizer.param_groups()) parameters.insert(parameters.end(), group.params().begin(), group.params().end());
  std::vector<std::pair<at::Tensor, std::unique_ptr<torch::optim::OptimizerParamState>>> fresh;
  for (const auto& [index, entry] : tree.entries(tree.member(saved, "state"))) {
    if (!index.is_number_integer() || index.get<std::int64_t>() < 0 || index.get<std::size_t>() >= parameters.size()) {
      throw InvalidArgument("[load_checkpoint] Expected an optimizer over the same parameters as was saved, received one over fewer.");
    }
    fresh.emplace_back(parameters[index.get<std::size_t>()], state_from(tree, entry, optimizer));
  }
  const json groups = tree.member(saved, "param_groups");
  if (!groups.is_array() || groups.size() != optimizer.param_groups().size()) {
    throw InvalidArgument("[load_checkpoint] Expected as many parameter groups as were saved, received another number.");
  }
  for (auto& [parameter, state] : fresh) optimizer.state()[parameter.unsafeGetTensorImpl()] = std::move(state);
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const json lr = tree.member(groups[i], "lr");
    if (lr.is_number()) optimizer.param_groups()[i].options().set_lr(lr.get<double>());
  }
}

}  // namespace

std::string encode_state(const torch::nn::Module& module, const torch::optim::Optimizer* optimizer, NamedTensors& tensors) {
  json model = json::array();
  for (const auto& [name, tensor] : state_of(module)) model.push_back({name, tensor_node(tensors, "model/" + name, tensor)});
  const json state = map_node(json::array({{"model", map_node(std::move(model))},
                                           {"optimizer", optimizer ? encode_optimizer(*optimizer, tensors) : json(nullptr)},
                                           {"extra", nullptr}}));
  return json{{"format", kFormat}, {"state", state}}.dump();
}

void decode_state(const LoadedTensors& loaded, torch::nn::Module& module, torch::optim::Optimizer* optimizer) {
  const Tree tree(loaded);
  auto mine = state_of(module);
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;
  for (const auto& [name, node] : tree.entries(tree.state("model"))) {
    const auto it = name.is_string() ? mine.find(name.get<std::string>()) : mine.end();
    if (it == mine.end()) throw InvalidArgument(message("[load_checkpoint] Expected only names that the module has, received ", name.dump(), "."));
    check_same(it->first, it->second, tree.tensor(node));
    copies.emplace_back(it->second, tree.tensor(node));
    mine.erase(it);
  }
  if (!mine.empty()) throw InvalidArgument(message("[load_checkpoint] Expected '", mine.begin()->first, "' in the checkpoint, received none."));
  if (optimizer) {
    const json saved = tree.state("optimizer");
    if (saved.is_null()) throw InvalidArgument("[load_checkpoint] Expected a checkpoint with an optimizer, received one without.");
    decode_optimizer(tree, saved, *optimizer);
  }
  torch::NoGradGuard no_grad;
  for (auto& [to, from] : copies) to.copy_(from);
}

}  // namespace hushgrad
