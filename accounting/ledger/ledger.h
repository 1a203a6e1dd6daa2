// The budget ledger: what was spent on which dataset, kept so that nothing ever gives budget back.
//
// Guarantee: when charge() returns, the charge is on disk (durable() ledgers) and will be counted by every later
// reader; a crash, a killed process, a failed run or a resumed checkpoint never lowers what is spent. When a budget is
// set, no number of processes and threads takes the composed epsilon of its dataset past it, not by one step.
// The entries form a hash chain (docs/ledger.md). The chain has no key: it reveals accidents and clumsy edits, and with
// a head kept elsewhere (a checkpoint) also a ledger that was put back; it does not stop an owner of the file who
// rewrites all of it.
//
// Thread-safe. A handle that crossed fork() refuses to work in the child: open the ledger there again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "accounting/access/decision.h"
#include "accounting/access/requests.h"
#include "accounting/accountants/interval.h"
#include "accounting/event.h"
#include "accounting/ledger/dataset_info.h"
#include "accounting/ledger/records.h"
#include "dpcore/keys/approval.h"
#include "dpcore/keys/signing.h"

namespace hushgrad {

namespace ledger { class Authority; class Batch; class Holder; class Session; class State; struct Item; }

/// Every method throws LedgerError when the file cannot be read or written, when the chain is broken, when the handle
/// crossed a fork, or after an earlier write of this handle ended in an unknown state (the handle is then useless; what
/// was in flight counts as spent once it is on disk).
class Ledger {
 public:
  /// Opens the ledger at `path`; makes a new one, readable by its owner only, when there is none and `create` holds.
  /// ":memory:" is a ledger that dies with its handle (durable() is false).
  /// Throws LedgerError for a file that is no ledger, is empty, or was written by a newer version, for a symbolic or
  /// hard link, for a network or user-space file system, and for a missing file when `create` is false; IoError when
  /// the operating system refuses.
  static std::shared_ptr<Ledger> open(const std::string& path, bool create = true);
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  /// Whether a charge survives a power cut: false for ":memory:" and for files on tmpfs or ramfs.
  bool durable() const;
  /// Absolute path with the links of its folder resolved, or ":memory:".
  const std::string& path() const;
  /// Random name of this ledger, 32 hex digits, drawn when it was made.
  std::string id() const;

  /// Caps the dataset. epsilon: finite and >= 0 (0 allows no charge that spends); delta in (0, 1). The newest budget
  /// wins; all stay on record. A budget below what is spent already is legal: it refuses every further charge.
  void set_budget(const std::string& dataset, double epsilon, double delta);
  /// The same for a part of the runs, with a level from which people should be told. Every cap that covers a run holds for
  /// it: those of its dataset and those of every dataset that this one was made from.
  void set_budget(const BudgetLimit& limit);
  /// The cap over all runs.
  std::optional<Budget> budget(const std::string& dataset) const;
  /// All caps in force on the dataset itself.
  std::vector<Budget> budgets(const std::string& dataset) const;
  /// The same with what each of them counts now; of a budget with a period, what was charged in it.
  std::vector<BudgetStatus> budget_status(const std::string& dataset) const;

  /// Says what the data is. The newest description holds; parents can be added, never taken away (what was spent through
  /// them would vanish), must be known, and may not form a circle: InvalidArgument otherwise.
  /// From then on a run with another purpose than those listed, or after the retention time, is refused (an audit entry
  /// records it). The largest time the ledger ever saw counts, so a clock that is set back re-opens nothing.
  void describe_dataset(const DatasetInfo& info);
  std::optional<DatasetInfo> dataset_info(const std::string& dataset) const;

  /// Keeps a paper: a release, an approval, a policy version, an audit entry, a repair. Returns its sequence. Only kind
  /// and fields are read. Throws InvalidArgument for an unknown kind and for missing or extra fields.
  std::int64_t record(const LedgerRecord& record);
  /// Those of one kind, or all, in order.
  std::vector<LedgerRecord> records(const std::string& kind = {}) const;

  /// Records who is about to train; spends nothing. Returns the run id: 32 random hex digits.
  std::string begin_run(const RunInfo& info);
  /// Records that `event` is about to happen. Call it BEFORE noise is added; durable on return.
  /// Throws BudgetExceeded when a budget that covers the run does not allow the event (only a refusal is then written),
  /// InvalidArgument for an unknown run, InvalidState for a finished one, Unsupported for an event that no accountant
  /// bounds on a dataset with a budget. Whatever it throws, the caller must not release the event.
  void charge(const std::string& run_id, const Event& event);
  /// charge() for a training loop: reserves several steps in one durable entry and takes this and the next ones out of
  /// it, so that the disk costs about half a per cent of the steps' time. Durable on return, like charge().
  /// The whole block counts as spent, for everybody, from then on; its size follows the measured time of commits and
  /// steps, starts at 1, at most doubles, and is bounded by limit_block() and by half of what still fits the budget (so
  /// the last step that fits is permitted, and not one more). finish_run(), settle() and the destructor state how many
  /// steps were taken; after a crash nobody does, and the block stays spent.
  /// Throws what charge() throws. A budget that is lowered meanwhile is met when the block is used up.
  void charge_step(const std::string& run_id, const Event& event);
  /// States durably how many steps of this handle's blocks were taken and lets go of the rest, which certainly never
  /// happened. Does nothing without blocks. After it, charge_step() reserves anew.
  void settle();
  /// The largest block of this handle, 1 to 1024 (the default).
  void limit_block(std::int64_t steps);
  /// status: "completed" or "failed". Settles the blocks of this handle; never changes what was spent. Finishing again with the same status does nothing;
  /// with another it throws InvalidState.
  void finish_run(const std::string& run_id, const std::string& status);

  /// Epsilon at `delta` of every charge of every run on the dataset, and on those made from it, composed: (lower, upper). 0 for an unknown dataset.
  Interval spent(const std::string& dataset, double delta) const;
  /// What other processes reserved counts; of this handle's own blocks, run_spent() and run_history() count the steps
  /// that were taken.
  Interval run_spent(const std::string& run_id, double delta) const;
  /// The charges as one event: a composition that holds each distinct event once, with how often it happened, in order
  /// of first use (composition does not depend on order). Empty composition for an unknown dataset.
  Event dataset_history(const std::string& dataset) const;
  Event run_history(const std::string& run_id) const;

  /// Names with a run, a budget or a description, in order of first use.
  std::vector<std::string> datasets() const;
  /// All runs, or those of one dataset, in order of begin_run.
  std::vector<RunRecord> runs(const std::optional<std::string>& dataset = std::nullopt) const;
  RunRecord run(const std::string& run_id) const;
  /// One row a step that is spent, in order; of everything, of one dataset (with those made from it), or of one run.
  std::vector<StepRecord> steps(const std::optional<std::string>& dataset = std::nullopt,
                                const std::optional<std::string>& run_id = std::nullopt) const;

  LedgerHead head() const;
  /// Whether the chain holds this entry. False for a head kept elsewhere means that the ledger was put back or forked.
  bool contains(const LedgerHead& head) const;
  /// Says that `head` was in this ledger once: kept with a checkpoint, in a witness's note. Where it is not now, the ledger
  /// was put back; every charge is then refused, with LedgerError, until a "repair" names that head. Returns contains(head)
  /// or that it was repaired. What this user has seen of a ledger file is expected by itself, on opening.
  bool expect(const LedgerHead& head);
  /// The heads that were expected, are not there, and were not repaired.
  std::vector<LedgerHead> missing() const;
  /// Two different people accept that what followed in the lost copy is gone: one entry that names each missing head, and
  /// the ledger takes charges again. What was spent in the lost copy is not known any more: lower the budgets first.
  /// Throws InvalidArgument for one person or none, InvalidState when nothing is missing.
  void repair(const std::string& first, const std::string& second, const std::string& reason);
  /// Moves the ledger, with every entry as it is, to a place without one (a file, or "postgresql://..."): says so in this
  /// one, which then takes no entry any more, copies, says there that it arrived, verifies the copy and returns it. After a
  /// failure it can be called again. Throws LedgerError when the other place holds another ledger.
  std::shared_ptr<Ledger> move_to(const std::string& path, const std::string& actor);
  /// Makes a ledger of entries() of another one, as they are. Every entry is checked before it is written. A ledger that
  /// has been moved or lives on elsewhere must not be charged in two places: it is for reading, and for restoring.
  /// Throws LedgerError with the first bad sequence, and when `path` holds something else than their beginning.
  static std::shared_ptr<Ledger> import(const std::string& path, const std::vector<LedgerEntry>& entries);
  // Access (docs/access.md). A ledger without actors takes names at their word. From the first actor on, whatever spends,
  // raises, exports or repairs is signed with a key of its actor, decided by roles and policy, and put on record, allowed
  // or denied; what is denied throws Denied and does nothing else.

  /// Who acts through this handle. An empty pointer: nobody.
  void identify(std::shared_ptr<const SigningKey> key);
  /// The actor of the key of identify(); empty without access rules, and for a key of nobody.
  std::string actor() const;
  bool has_access_rules() const;
  /// Everything about actors, grants, policies and break-glasses, as of the newest entry.
  AccessState access() const;
  /// Makes the holder of the identified key the first actor and privacy officer. From then on proof is needed.
  /// InvalidState when there are rules already, InvalidArgument without an identity.
  void found_access(const std::string& name);
  /// A new actor, or another key, team or token subject of a known one. Each returns the sequence of its entry.
  std::int64_t add_actor(const ActorInfo& info);
  std::int64_t grant(const GrantInfo& info);
  /// Ends a grant ("grant:SEQUENCE") or an actor with all grants ("actor:NAME"). The last officer stays.
  std::int64_t revoke(const std::string& target, const std::string& reason);
  /// Puts a policy (canonical JSON) in force. `key` and `signature`: sign_policy() of a privacy officer.
  std::int64_t publish_policy(const std::string& policy_json, const std::string& key, const std::string& signature);
  /// Whether a request would be allowed now, and which rule says so. Writes nothing.
  AccessDecision test_access(const AccessRequest& request) const;
  /// The same under a policy that is not in force.
  AccessDecision test_access(const AccessRequest& request, const Policy& policy) const;
  /// Approvals for an operation of the identified actor, used by the next call on exactly its scope.
  void present(const Operation& operation, const std::vector<Approval>& approvals);
  /// What an approval of these has to say as its action and its scope.
  Proposal proposal(const BudgetLimit& limit) const;
  Proposal proposal(const DatasetInfo& info) const;
  Proposal proposal(const LedgerRecord& record) const;
  /// Opens an action for the identified actor without a missing approval and against the policy, for a while, durably on
  /// record before it opens. Somebody else has to review it.
  std::int64_t break_glass(const GlassInfo& info);
  std::int64_t review(std::int64_t glass, const std::string& verdict, const std::string& reason);
  /// Something leaves: on record before it does.
  std::int64_t release(const ReleaseInfo& info);
  /// Whose tokens are believed (docs/access.md), and a key that stands for an actor as long as a token does. The token was
  /// checked by the caller; the ledger checks issuer, audience, subject, lifetime and that it is used once.
  std::int64_t add_provider(const ProviderInfo& info);
  std::int64_t open_session(const SessionInfo& info);
  /// Puts on record that a token did not hold, before it could be known whose it is. reason: one word.
  void refuse_sign_in(const std::string& issuer, const std::string& reason);
  /// Whether whoever acts may export, on record; then entries() is what leaves. Denied otherwise.
  void authorise_export();

  /// Entries as stored, good or bad, from sequence `first` on, at most `limit`. Works on a broken chain.
  std::vector<LedgerEntry> entries(std::int64_t first = 1, std::int64_t limit = INT64_MAX) const;
  /// Reads everything again: the file's own consistency, its schema, the chain, and that every entry makes sense after
  /// the ones before it; then that nothing is missing() of what was seen before. Works on a broken chain; throws only when the file
  /// cannot be read at all.
  VerifyResult verify() const;

 private:
  explicit Ledger(std::unique_ptr<ledger::Session> session);

  template <typename Spend>
  void charge_under_budgets(const std::string& run_id, const Event& event, const std::string& key, Spend&& spend);
  void settle_blocks(const std::string* run_id, const std::string& finish_as);
  /// Writes what `make(state, batch, actor)` says, if the actor may.
  using Make = std::function<std::vector<ledger::Item>(ledger::State&, ledger::Batch&, const std::string&)>;
  std::int64_t act(const Make& make, bool even_if_closed = false);
  std::int64_t put(LedgerRecord record);

  std::unique_ptr<ledger::Session> session_;
  std::unique_ptr<ledger::Holder> holder_;
  std::unique_ptr<ledger::Authority> authority_;
};

}  // namespace hushgrad
