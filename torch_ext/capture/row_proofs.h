// Which rows of every tensor belong to which sample: shown once for each structure of graph, then remembered.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "torch_ext/capture/capture_options.h"
#include "torch_ext/capture/prober.h"
#include "torch_ext/capture/promotion.h"
#include "torch_ext/capture/rows.h"
#include "torch_ext/capture/sites.h"

namespace hushgrad {

/// The sites that are attached in the current batch, and the rows of their backprops.
using AttachedSites = std::unordered_map<const Node*, std::vector<RowMap>>;

/// The proofs of one model. A graph of a new structure is probed; one that is known costs a walk.
///
/// Guarantee: of the rows that prepare() gives to a sample none depends on another sample through the graph, as far as the graph
/// records it; what it does not record (masks, buffers, rows in no regular order) is taken on condition that the caller's forward
/// check passes, and only under CaptureOptions::forward_is_checked.
class RowProofs {
 public:
  /// Both outlive this.
  RowProofs(const ParameterIndex& parameters, const CaptureOptions& options) : parameters_(parameters), options_(options) {}

  struct Prepared {
    Walk walk;
    std::vector<std::vector<RowMap>> maps;  // [site][backprop], resolved
    bool is_new = false;                    // its structure was seen for the first time
  };

  /// batch: B >= 0 samples.
  void begin_batch(std::int64_t batch);

  /// plain: the walk from the roots without promotions. outputs: those that carry the batch.
  /// @throws Unsupported by the operator's name if the samples are mixed.
  Prepared prepare(const std::vector<Edge>& roots, Walk plain, const std::vector<ProbedOutput>& outputs, const AttachedSites& earlier);

  /// See GraphCapture.
  const std::string& suspicion() const { return suspicion_; }
  bool needs_derivatives() const { return !conditions_.empty(); }
  void check_derivatives(const std::vector<Edge>& roots, bool of_part);

 private:
  /// What probing has shown of all graphs with one signature.
  struct Structure {
    Promotions promotions;
    std::vector<std::vector<std::vector<RowMap>>> maps;  // [site][backprop] -> survivors
    bool proven = false;
    bool moving = false;  // rows may belong to other samples in the next batch
  };

  /// What is taken on condition for functions of parameters.
  struct Condition {
    std::uint64_t signature = 0;
    Promotions promotions;
    std::optional<DerivativeRecord> derivatives;  // of the first pass that was shown
    std::string complaint;  // what is thrown if it does not hold
    bool only_shown_so;     // nothing but the comparison speaks for it
  };

  Prepared prove(const std::vector<Edge>& roots, const std::vector<ProbedOutput>& outputs, const AttachedSites& earlier, Structure& structure);
  Prepared prove_sites(const std::vector<Edge>& roots, const std::vector<ProbedOutput>& outputs, const Promotions& promotions, Structure& structure,
                       Promotions& promoted, std::vector<std::size_t>& refuted, bool& decided) const;
  bool give_owners(const std::vector<ProbedOutput>& outputs, Prepared& prepared, Structure& structure, std::vector<std::size_t>& refuted) const;
  bool resolve_known(const Walk& walk, const Structure& structure, Prepared& prepared) const;
  bool identify_rows(const std::vector<ProbedOutput>& outputs, const Structure& structure, Prepared& prepared) const;
  void check_earlier_sites(const Walk& walk, const std::vector<ProbedOutput>& outputs, const AttachedSites& earlier) const;

  const ParameterIndex& parameters_;
  const CaptureOptions& options_;
  std::int64_t batch_ = 0;
  std::unordered_map<std::uint64_t, Structure> structures_;
  std::vector<Condition> conditions_;  // of this batch's new structures
  std::string suspicion_;
};

}  // namespace hushgrad
