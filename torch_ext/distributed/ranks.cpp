#include "torch_ext/distributed/ranks.h"

#include <algorithm>
#include <cstring>
#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "dpcore/error.h"

namespace hushgrad {
namespace {

constexpr int kFirst = 0;
// Small tensors travel together: a message costs as much as some 100,000 bytes of it.
constexpr std::int64_t kBucketElements = 1 << 20;

/// What the library throws is a std::exception of many kinds; what it means here is always the same.
template <typename Work>
void together(const char* what, Work&& work) {
  try {
    work();
  } catch (const std::exception& error) {
    throw InvalidState(message("[distributed] Expected every process to ", what, ", received an answer from not all of them: ", error.what(),
                               " Look at the first process that stopped; nothing is released without all."));
  }
}

void broadcast(c10d::Backend& backend, at::Tensor tensor) {
  c10d::BroadcastOptions options;
  options.rootRank = kFirst;
  options.rootTensor = 0;
  std::vector<at::Tensor> tensors{std::move(tensor)};
  backend.broadcast(tensors, options)->wait();
}

void reduce(c10d::Backend& backend, at::Tensor tensor) {
  c10d::ReduceOptions options;
  options.reduceOp = c10d::ReduceOp::SUM;
  options.rootRank = kFirst;
  options.rootTensor = 0;
  std::vector<at::Tensor> tensors{std::move(tensor)};
  backend.reduce(tensors, options)->wait();
}

bool alike(const at::Tensor& a, const at::Tensor& b) { return a.scalar_type() == b.scalar_type() && a.device() == b.device(); }

/// Runs `exchange` on flat CPU copies of tensors, as many at a time as fit a bucket, and copies back if the result is wanted.
template <typename Exchange>
void in_buckets(std::vector<at::Tensor>& tensors, bool give, bool take, Exchange&& exchange) {
  at::NoGradGuard no_grad;
  for (std::size_t begin = 0, end; begin < tensors.size(); begin = end) {
    std::int64_t elements = 0;
    for (end = begin; end < tensors.size() && alike(tensors[end], tensors[begin]) && (end == begin || elements + tensors[end].numel() <= kBucketElements); ++end) {
      elements += tensors[end].numel();
    }
    if (elements == 0) continue;
    at::Tensor flat = at::empty({elements}, tensors[begin].options().device(at::kCPU).requires_grad(false).pinned_memory(false));
    std::int64_t at = 0;
    if (give) {
      for (std::size_t i = begin; i < end; at += tensors[i++].numel()) flat.narrow(0, at, tensors[i].numel()).copy_(tensors[i].reshape({-1}));
    }
    exchange(flat);
    if (!take) continue;
    at = 0;
    for (std::size_t i = begin; i < end; at += tensors[i++].numel()) tensors[i].copy_(flat.narrow(0, at, tensors[i].numel()).view(tensors[i].sizes()));
  }
}

}  // namespace

Ranks::Ranks(c10::intrusive_ptr<c10d::Backend> backend) : backend_(std::move(backend)) {
  if (!backend_) throw InvalidArgument("[distributed] Expected a backend for tensors on the CPU, received none. Make a gloo group.");
}

std::shared_ptr<Ranks> Ranks::named(const std::string& group_name) {
  c10::intrusive_ptr<c10d::Backend> backend;
  try {
    backend = c10d::resolve_process_group(group_name)->getBackend(c10::DeviceType::CPU);
  } catch (const std::exception& error) {
    throw InvalidArgument(message("[distributed] Expected the name of a process group with a backend for the CPU, received \"", group_name, "\": ", error.what()));
  }
  return std::make_shared<Ranks>(std::move(backend));
}

std::vector<std::vector<double>> Ranks::gather(const std::vector<double>& own) {
  const auto count = static_cast<std::int64_t>(own.size());
  std::vector<at::Tensor> given{at::tensor(own, at::kDouble)};
  std::vector<std::vector<at::Tensor>> taken(1);
  for (int i = 0; i < size(); ++i) taken[0].push_back(at::empty({count}, at::kDouble));
  together("reach this step", [&] { backend_->allgather(taken, given)->wait(); });
  std::vector<std::vector<double>> all;
  for (const at::Tensor& one : taken[0]) all.emplace_back(one.const_data_ptr<double>(), one.const_data_ptr<double>() + count);
  return all;
}

std::string Ranks::say(const std::string& text) {
  at::Tensor length = at::full({1}, static_cast<std::int64_t>(text.size()), at::kLong);
  together("listen to the first", [&] { broadcast(*backend_, length); });
  at::Tensor bytes = at::empty({length.item<std::int64_t>()}, at::kByte);
  if (bytes.numel() == 0) return {};
  if (first()) std::memcpy(bytes.data_ptr<std::uint8_t>(), text.data(), text.size());
  together("listen to the first", [&] { broadcast(*backend_, bytes); });
  const auto* begin = reinterpret_cast<const char*>(bytes.const_data_ptr<std::uint8_t>());
  return {begin, begin + bytes.numel()};
}

void Ranks::sum_to_first(std::vector<at::Tensor>& tensors) {
  in_buckets(tensors, true, first(), [&](at::Tensor& flat) { together("give its sum", [&] { reduce(*backend_, flat); }); });
}

void Ranks::copy_from_first(std::vector<at::Tensor>& tensors) {
  in_buckets(tensors, first(), !first(), [&](at::Tensor& flat) { together("take what the first has", [&] { broadcast(*backend_, flat); }); });
}

}  // namespace hushgrad
