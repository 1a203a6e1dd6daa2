#include "torch_ext/capture/row_proofs.h"

#include <unordered_map>
#include <utility>

#include "dpcore/error.h"
#include "torch_ext/capture/ragged.h"
#include "torch_ext/capture/row_movers.h"
#include "torch_ext/rules/rule.h"

namespace hushgrad {
namespace {

std::string mixing_message(const std::string& mixer, const std::string& where) {
  return message("[watch] Expected each sample's output to depend on that sample only, received a graph in which ", mixer,
                 " mixes the samples of the batch before ", where,
                 ". Replace batch statistics (BatchNorm, centring, softmax, sorting or rolling over the batch) by per-sample "
                 "ones, for example BatchNorm by GroupNorm.");
}

// torch.compile turns forward and backward pass into one node each, which runs once and tells nothing of single samples.
void refuse_compiled(const Site& site, const ParameterIndex& parameters) {
  if (site.node->name() != "CompiledFunctionBackward") return;
  throw Unsupported(message("[watch] Expected the operators that use private parameters to be on record, received a part compiled by "
                            "torch.compile: ", describe(site, parameters), ". Call torch.compile(model) before make_private, which then compiles "
                            "what lies between the parameters, or compile only parts without trainable parameters (preprocessing, a frozen "
                            "backbone, the loss) yourself."));
}

}  // namespace

void RowProofs::begin_batch(std::int64_t batch) {
  batch_ = batch;
  conditions_.clear();
  suspicion_.clear();
}

RowProofs::Prepared RowProofs::prepare(const std::vector<Edge>& roots, Walk plain, const std::vector<ProbedOutput>& outputs,
                                       const AttachedSites& earlier) {
  Structure& structure = structures_[plain.signature];
  Prepared prepared;
  bool known = structure.proven;
  if (known) prepared.walk = structure.promotions.empty() ? std::move(plain) : walk_graph(roots, parameters_, structure.promotions);
  if (known && (structure.moving || !rows_stay(prepared.walk, batch_, options_.batch_first))) {
    known = identify_rows(outputs, structure, prepared);
  } else if (known) {
    known = resolve_known(prepared.walk, structure, prepared);
  }
  if (known) return prepared;
  prepared = prove(roots, outputs, earlier, structure);
  prepared.is_new = true;
  return prepared;
}

bool RowProofs::resolve_known(const Walk& walk, const Structure& structure, Prepared& prepared) const {
  if (structure.maps.size() != walk.sites.size()) return false;
  prepared.maps.clear();
  for (std::size_t s = 0; s < walk.sites.size(); ++s) {
    const NodePtr& node = walk.sites[s].node;
    if (structure.maps[s].size() != node->num_inputs()) return false;
    auto& resolved = prepared.maps.emplace_back();
    for (std::uint32_t nr = 0; nr < node->num_inputs(); ++nr) {
      if (structure.maps[s][nr].empty()) {  // never reached by a backprop
        resolved.push_back({-1, true});
        continue;
      }
      const auto map = resolve(structure.maps[s][nr], edge_sizes(Edge(node, nr)), batch_);
      if (!map) return false;
      resolved.push_back(*map);
    }
  }
  return true;
}

RowProofs::Prepared RowProofs::prove(const std::vector<Edge>& roots, const std::vector<ProbedOutput>& outputs, const AttachedSites& earlier,
                                     Structure& structure) {
  if (outputs.empty()) {
    throw Unsupported(message("[watch] Expected an output with the batch of ", batch_, " samples in dimension ",
                              options_.batch_first ? 0 : 1,
                              ", received none. Return per-sample outputs from the model (a loss summed over the batch inside "
                              "the model hides which sample is which), or set batch_first."));
  }
  Promotions promotions = structure.promotions;
  std::string complaint;
  while (true) {
    Promotions promoted;
    std::vector<std::size_t> refuted;
    bool decided = batch_ > 1;
    Prepared prepared = prove_sites(roots, outputs, promotions, structure, promoted, refuted, decided);
    const auto& sites = prepared.walk.sites;
    const std::size_t first = refuted.empty() ? 0 : refuted[0];
    // Rows in another order may be other samples' inputs (a roll over the batch): only the forward check tells.
    if (options_.forward_is_checked && promoted.empty() && !refuted.empty() && give_owners(outputs, prepared, structure, refuted)) {
      structure.moving = true;
      suspicion_ = mixing_message(name_the_mixer(outputs, batch_, prepared.walk), describe(sites[first], parameters_));
    }
    if (promoted.empty() && !refuted.empty()) {
      const std::string mixing = mixing_message(name_the_mixer(outputs, batch_, prepared.walk), describe(sites[refuted[0]], parameters_));
      for (std::size_t s : refuted) {
        if (options_.forward_is_checked && may_be_constant(sites[s])) promoted.insert(sites[s].position);
      }
      if (promoted.empty()) throw Unsupported(complaint.empty() ? mixing : complaint);
      if (complaint.empty()) complaint = mixing;
    }
    if (!promoted.empty()) {
      promotions.insert(promoted.begin(), promoted.end());
      continue;
    }
    check_earlier_sites(prepared.walk, outputs, earlier);
    if (options_.forward_is_checked && !promotions.empty()) {
      const bool only_shown_so = !complaint.empty();
      if (!only_shown_so) complaint = mixing_message("an operator on parameters that computes with data", "the parameters that it combines");
      conditions_.push_back({walk_graph(roots, parameters_, {}).signature, promotions, std::nullopt, complaint, only_shown_so});
    }
    structure.promotions = promotions;
    structure.proven = decided;
    structure.moving = structure.moving || !rows_stay(prepared.walk, batch_, options_.batch_first);
    return prepared;
  }
}

/// Probes every site and resolves its rows. promoted: positions found to be functions of parameters; refuted: sites whose rows
/// follow no regular order.
RowProofs::Prepared RowProofs::prove_sites(const std::vector<Edge>& roots, const std::vector<ProbedOutput>& outputs,
                                                             const Promotions& promotions, Structure& structure, Promotions& promoted,
                                                             std::vector<std::size_t>& refuted, bool& decided) const {
  Prepared prepared{walk_graph(roots, parameters_, promotions), {}, false};
  const auto& sites = prepared.walk.sites;
  for (const Site& site : sites) refuse_compiled(site, parameters_);
  ProbeTargets targets;
  std::vector<std::pair<std::size_t, std::uint32_t>> owner;
  std::vector<std::vector<RowEvidence>> evidence(sites.size());
  std::vector<std::vector<char>> reached(sites.size());
  for (std::size_t s = 0; s < sites.size(); ++s) {
    for (std::uint32_t nr = 0; nr < sites[s].node->num_inputs(); ++nr) {
      targets.push_back(Edge(sites[s].node, nr));
      owner.push_back({s, nr});
      evidence[s].emplace_back(candidate_maps(edge_sizes(targets.back()), batch_));
    }
    reached[s].resize(evidence[s].size());
  }
  if (batch_ > 1) {
    probe(outputs, batch_, prepared.walk, targets, [&](std::size_t t, const at::Tensor& backprop, const at::Tensor& seeded) {
      if (backprop.numel() == 0) return;
      const auto [s, nr] = owner[t];
      reached[s][nr] = true;
      evidence[s][nr].observe(backprop, seeded);
    });
  }
  const auto earlier = std::exchange(structure.maps, {});
  for (std::size_t s = 0; s < sites.size(); ++s) {
    auto& resolved = prepared.maps.emplace_back();
    auto& kept = structure.maps.emplace_back();
    for (std::uint32_t nr = 0; nr < evidence[s].size(); ++nr) {
      const RowEvidence& e = evidence[s][nr];
      if (batch_ > 1 && !reached[s][nr]) {
        const bool was_known = earlier.size() == sites.size() && nr < earlier[s].size();
        resolved.push_back({-1, true});
        kept.push_back(was_known ? earlier[s][nr] : std::vector<RowMap>{});
        continue;
      }
      if (e.refuted()) {
        if (may_be_promoted(sites[s], options_.forward_is_checked)) {
          promoted.insert(sites[s].position);
        } else {
          refuted.push_back(s);
        }
        break;
      }
      resolved.push_back(resolve(e.survivors(), edge_sizes(Edge(sites[s].node, nr)), batch_).value_or(e.survivors().front()));
      kept.push_back(e.survivors());
      decided = decided && e.decided();
    }
  }
  return prepared;
}

/// Finds out row by row who owns the rows of the refuted sites. Those for which that works leave `refuted`; true if any do.
bool RowProofs::give_owners(const std::vector<ProbedOutput>& outputs, Prepared& prepared, Structure& structure,
                                     std::vector<std::size_t>& refuted) const {
  ProbeTargets targets;
  std::vector<OwnerEvidence> evidence;
  for (std::size_t s : refuted) {
    const NodePtr& node = prepared.walk.sites[s].node;
    for (std::uint32_t nr = 0; nr < node->num_inputs(); ++nr) {
      targets.push_back(Edge(node, nr));
      evidence.emplace_back(edge_sizes(targets.back()), batch_);
    }
  }
  probe(outputs, batch_, prepared.walk, targets, [&](std::size_t t, const at::Tensor& backprop, const at::Tensor& seeded) {
    int bit = 0;
    while (seeded[std::int64_t{1} << bit].item<bool>() == seeded[0].item<bool>()) ++bit;
    evidence[t].observe(backprop, bit, seeded[std::int64_t{1} << bit].item<bool>());
  });
  std::vector<std::size_t> still_refuted;
  std::size_t t = 0;
  for (std::size_t s : refuted) {
    std::vector<RowMap> maps;
    const std::uint32_t inputs = prepared.walk.sites[s].node->num_inputs();
    for (std::uint32_t nr = 0; nr < inputs; ++nr, ++t) {
      if (const auto owned = evidence[t].owned()) maps.push_back(ragged_map(owned->dim, owned->owners, batch_));
    }
    if (maps.size() != inputs) {
      still_refuted.push_back(s);
      continue;
    }
    prepared.maps[s] = maps;
    structure.maps[s].clear();
    for (const RowMap& map : maps) structure.maps[s].push_back({map});
  }
  const bool any = still_refuted.size() < refuted.size();
  refuted = std::move(still_refuted);
  return any;
}

/// As resolve_known, for structures whose rows move: along the dimensions that are known, every row is told apart again.
bool RowProofs::identify_rows(const std::vector<ProbedOutput>& outputs, const Structure& structure, Prepared& prepared) const {
  const auto& sites = prepared.walk.sites;
  if (outputs.empty() || structure.maps.size() != sites.size()) return false;
  struct Target {
    std::size_t site;
    std::vector<RowMap> survivors;
    std::vector<at::Tensor> norms;
  };
  const OwnerCodes codes(batch_);
  ProbeTargets edges;
  std::vector<Target> targets;
  for (std::size_t s = 0; s < sites.size(); ++s) {
    if (structure.maps[s].size() != sites[s].node->num_inputs()) return false;
    for (std::uint32_t nr = 0; nr < sites[s].node->num_inputs(); ++nr) {
      edges.push_back(Edge(sites[s].node, nr));
      targets.push_back({s, structure.maps[s][nr], {}});
    }
  }
  std::vector<at::Tensor> factors;
  for (int i = 0; i < codes.probes(); ++i) factors.push_back(codes.factors(i));
  bool unseen = false;
  probe_scaled(outputs, batch_, prepared.walk, edges, factors, [&](std::size_t t, const at::Tensor& backprop, std::size_t) {
    if (backprop.numel() == 0) return;
    const auto& survivors = targets[t].survivors;
    unseen = unseen || survivors.empty() || survivors.front().dim >= backprop.dim() || survivors.front().dim < 0;
    if (!unseen) targets[t].norms.push_back(row_norms(backprop, survivors.front().dim));
  });
  if (unseen) return false;
  prepared.maps.assign(sites.size(), {});
  for (std::size_t t = 0; t < targets.size(); ++t) {
    Target& target = targets[t];
    if (target.norms.size() != factors.size()) {  // nothing flows there
      if (!target.norms.empty()) return false;
      prepared.maps[target.site].push_back({-1, true});
      continue;
    }
    const auto owners = codes.owners(target.norms);
    if (!owners) return false;
    const RowMap& usual = target.survivors.front();
    const auto sizes = edge_sizes(edges[t]);
    const bool as_usual = !usual.ragged && allows(sizes, usual, batch_) && owners->eq(owners_of(usual, sizes, batch_)).logical_or(owners->lt(0)).all().item<bool>();
    if (!as_usual && !options_.forward_is_checked) return false;
    prepared.maps[target.site].push_back(as_usual ? usual : ragged_map(usual.dim, *owners, batch_));
  }
  return true;
}

void RowProofs::check_derivatives(const std::vector<Edge>& roots, bool of_part) {
  const std::uint64_t signature = walk_graph(roots, parameters_, {}).signature;
  for (Condition& condition : conditions_) {
    if (signature != condition.signature) {  // says nothing of this one
      if (condition.only_shown_so && !of_part) throw Unsupported(condition.complaint);
      continue;
    }
    DerivativeRecord record(walk_graph(roots, parameters_, condition.promotions), parameters_);
    if (condition.derivatives && condition.derivatives->differs_from(record, parameters_, of_part)) throw Unsupported(condition.complaint);
    if (!of_part) condition.derivatives = std::move(record);
  }
}

// A graph may lead into one that an earlier forward pass of this batch built: what lies between them must not mix either.
void RowProofs::check_earlier_sites(const Walk& walk, const std::vector<ProbedOutput>& outputs, const AttachedSites& attached) const {
  ProbeTargets targets;
  std::vector<RowEvidence> evidence;
  for (const NodePtr& node : walk.nodes) {
    const auto earlier = attached.find(node.get());
    if (earlier == attached.end()) continue;
    for (std::uint32_t nr = 0; nr < node->num_inputs(); ++nr) {
      targets.push_back(Edge(node, nr));
      evidence.emplace_back(std::vector<RowMap>{earlier->second[nr]});
    }
  }
  if (targets.empty() || batch_ < 2) return;
  probe(outputs, batch_, walk, targets, [&](std::size_t t, const at::Tensor& backprop, const at::Tensor& seeded) {
    evidence[t].observe(backprop, seeded);
  });
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (!evidence[t].refuted()) continue;
    throw Unsupported(mixing_message(name_the_mixer(outputs, batch_, walk), targets[t].function->name()));
  }
}

}  // namespace hushgrad
